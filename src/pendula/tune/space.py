"""A search space as plain data: a base experiment, and which of its settings are searched, and where."""

from __future__ import annotations

import copy
import inspect
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pendula._check import DataError, finite_number, known_keys, one_of, positive_int
from pendula.cells import CELLS
from pendula.choices import ModelChoice, TaskChoice
from pendula.experiment import Experiment
from pendula.learn.training import Training
from pendula.nets.images import IMAGE_NETWORKS, physics_of
from pendula.tasks import TASKS

SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "hyperband", "none")
TABLES = {"task": TaskChoice, "model": ModelChoice, "train": Training}
NETWORK, PHYSICS, OPTIONS = "model.network", "model.physics.", "task.options."
FIXED = {
    "task.name": "values of different tasks can't be compared: make a space for each",
    "train.seed": "a search would pick the luckiest seed: set seeds in [search], and their mean is compared",
    "train.devices": "each trial runs in one process: use --workers",
}


@dataclass(frozen=True)
class Parameter:
    """One setting that is searched.

    Args:
        path: where it stands in an experiment, such as train.learning_rate or model.physics.dt.
        low, high: the range, both ends included; None with choices.
        whole: whole numbers only.
        log: drawn evenly on a logarithmic scale.
        step: between whole numbers.
        choices: numbers, words or true/false, instead of a range.
    """

    path: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    log: bool = False
    step: int = 1
    choices: tuple[Any, ...] = ()

    def draw(self, trial: Any) -> Any:
        """A value for a trial of Optuna."""
        if self.choices:
            return trial.suggest_categorical(self.path, self.choices)
        if self.whole:
            return trial.suggest_int(self.path, self.low, self.high, step=self.step, log=self.log)
        return trial.suggest_float(self.path, self.low, self.high, log=self.log)

    @property
    def first(self) -> Any:
        return self.choices[0] if self.choices else self.low


@dataclass(frozen=True)
class Space:
    """A base experiment and what is searched.

    Args:
        name: of the study; that of the file.
        base: the tables task, model and train, as in the config of an experiment.
        parameters: what is searched; the network first, if it is.
        trials: of the whole study, over all workers.
        seeds: trainings per trial, with seeds from that of the base on; the mean is compared.
        sampler: tpe or random.
        pruner: stops bad trials between epochs: median, hyperband or none.
        warmup: epochs of a trial in which the median pruner doesn't stop it.
        seed: of the sampler.
    """

    name: str
    base: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    trials: int = 20
    seeds: int = 1
    sampler: str = "tpe"
    pruner: str = "median"
    warmup: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        positive_int("search.trials", self.trials)
        positive_int("search.seeds", self.seeds)
        positive_int("search.warmup", self.warmup, least=0)
        positive_int("search.seed", self.seed, least=0)
        one_of("search.sampler", self.sampler, SAMPLERS)
        one_of("search.pruner", self.pruner, PRUNERS)

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> Space:
        """A space from the tables of its file. Errors: ValueError naming what is unknown or doesn't fit."""
        known_keys("a search space", data, [*TABLES, "search"])
        for table in data:
            if not isinstance(data[table], Mapping):
                raise ValueError(f"{table} must be a table, got {data[table]!r}")
        try:
            json.dumps(data)
        except TypeError as error:
            raise ValueError(f"a search space holds numbers, words, lists and tables only: {error}") from error
        search = dict(data.get("search", {}))
        known_keys("search", search, [f.name for f in fields(cls) if f.name not in ("name", "base")])
        given = _leaves(search.pop("parameters", {}))
        if not given:
            raise ValueError('nothing is searched: add [search.parameters."train.learning_rate"] with low and high')
        base = {name: dict(data.get(name, {})) for name in TABLES}
        networks = _networks(base, given)
        parameters = [_parameter(path, table, base, networks) for path, table in given.items()]
        known_keys("model.physics", base["model"].get("physics", {}), list(_physics(networks)))
        space = cls(name, base, tuple(sorted(parameters, key=lambda p: p.path != NETWORK)), **search)
        Experiment.from_dict(base)
        if base["train"].get("devices", 1) != 1:
            raise ValueError(f"train.devices can't be {base['train']['devices']}: {FIXED['train.devices']}")
        return space

    def draw(self, trial: Any) -> dict[str, Any]:
        """A value for each parameter; physics that the drawn network doesn't have is left out."""
        drawn: dict[str, Any] = {}
        for parameter in self.parameters:
            if self._applies(parameter.path, drawn):
                drawn[parameter.path] = parameter.draw(trial)
        return drawn

    def experiment(self, values: Mapping[str, Any], number: int = 0) -> Experiment:
        """The base with these values, and the seed with this number. Errors: ValueError when they don't go together."""
        data = copy.deepcopy(dict(self.base))
        for path, value in values.items():
            *above, last = path.split(".")
            table = data
            for part in above:
                table = table.setdefault(part, {})
            table[last] = value
        data["train"]["seed"] = data["train"].get("seed", Training.seed) + number
        if NETWORK in values and "physics" in data["model"]:
            known = physics_of(values[NETWORK])
            data["model"]["physics"] = {k: v for k, v in data["model"]["physics"].items() if k in known}
        options = data["task"].get("options", {})
        if "path" in options:
            # the run must find its data again from wherever it is resumed
            options["path"] = str(Path(str(options["path"])).expanduser().resolve())
        return Experiment.from_dict(data)

    def probe(self) -> Experiment:
        """An experiment of this space: the lowest value, or the first choice, of everything."""
        drawn: dict[str, Any] = {}
        for parameter in self.parameters:
            if self._applies(parameter.path, drawn):
                drawn[parameter.path] = parameter.first
        return self.experiment(drawn)

    def identity(self) -> dict[str, Any]:
        """What must not change while a study goes on, as JSON has it."""
        whole = {"base": self.base, "parameters": [asdict(p) for p in self.parameters], "seeds": self.seeds}
        plain: dict[str, Any] = json.loads(json.dumps(whole))
        return plain

    def _applies(self, path: str, drawn: Mapping[str, Any]) -> bool:
        if not path.startswith(PHYSICS) or NETWORK not in drawn:
            return True
        return path.removeprefix(PHYSICS) in physics_of(drawn[NETWORK])


def read_space(path: Path) -> Space:
    """A space from a TOML file. Errors: DataError when it is not one; ValueError for what is in it."""
    try:
        tables = tomllib.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is not a TOML file: {error}") from error
    return Space.from_dict(path.stem, tables)


def _leaves(tables: Any, above: str = "") -> dict[str, dict[str, Any]]:
    """Path -> its table, whether the path was quoted (one key) or not (tables in tables)."""
    if not isinstance(tables, Mapping):
        raise ValueError(f"search.parameters{above and '.' + above} must be a table with low and high, or choices")
    found: dict[str, dict[str, Any]] = {}
    for key, value in tables.items():
        path = f"{above}.{key}" if above else key
        if isinstance(value, Mapping) and value and all(isinstance(v, Mapping) for v in value.values()):
            found |= _leaves(value, path)
        elif isinstance(value, Mapping):
            found[path] = dict(value)
        else:
            raise ValueError(f"search.parameters {path!r} must be a table with low and high, or choices, got {value!r}")
    return found


def _networks(base: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The networks that trials can have."""
    names = given.get(NETWORK, {}).get("choices", [base["model"].get("network", ModelChoice.network)])
    return [one_of(NETWORK, name, (*CELLS, *IMAGE_NETWORKS)) for name in names] if isinstance(names, list) else []


def _physics(networks: list[str]) -> dict[str, Any]:
    return {name: default for network in networks for name, default in physics_of(network).items()}


def _parameter(path: str, given: dict[str, Any], base: Mapping[str, Any], networks: list[str]) -> Parameter:
    kind = _declared(path, base, networks)
    where = f"search.parameters {path!r}"
    if path in FIXED:
        raise ValueError(f"{where} is not searched: {FIXED[path]}")
    known_keys(where, given, ["low", "high", "log", "step", "type", "choices"])
    if ("choices" in given) == bool({"low", "high"} & set(given)):
        raise ValueError(f"{where} needs low and high, or choices")
    if "choices" in given:
        choices = given["choices"]
        if set(given) != {"choices"} or not isinstance(choices, list) or not choices:
            raise ValueError(f"{where}: choices must be a list of values, and nothing stands beside it, got {given!r}")
        if not all(isinstance(choice, (str, int, float)) for choice in choices):
            raise ValueError(f"{where}: choices must be numbers, words or true/false, got {choices!r}")
        return _tried(Parameter(path, choices=tuple(choices)))
    if kind not in ("int", "float", ""):
        raise ValueError(f"{where} is not a number ({kind}): give choices instead of low and high")
    for name in ("low", "high"):
        if name not in given:
            raise ValueError(f"{where} needs {name}")
        finite_number(f"{where}: {name}", given[name])
    low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step", 1)
    whole = one_of(f"{where}: type", given.get("type", kind or "float"), ("int", "float")) == "int"
    if kind == "int" and not whole:
        raise ValueError(f'{where} is a whole number: leave type = "float" out')
    if not isinstance(log, bool):
        raise ValueError(f"{where}: log must be true or false, got {log!r}")
    if not low < high:
        raise ValueError(f"{where}: low must be below high, got {low} and {high}")
    if log and low <= 0:
        raise ValueError(f"{where}: low must be positive on a logarithmic scale, got {low}")
    if "step" in given and (log or not whole):
        raise ValueError(f"{where}: step is for whole numbers, without log: leave it out")
    if whole:
        if not isinstance(low, int) or not isinstance(high, int):
            raise ValueError(f"{where}: low and high must be whole numbers, got {low} and {high}")
        if (high - low) % positive_int(f"{where}: step", step):
            raise ValueError(f"{where}: high must be low plus a number of steps, got {low}, {high} and step {step}")
        return _tried(Parameter(path, low, high, whole=True, log=log, step=step))
    return _tried(Parameter(path, float(low), float(high), log=log))


def _tried(parameter: Parameter) -> Parameter:
    """Refuse now what no trial could train with: a value that `Training` refuses on its own."""
    table, _, name = parameter.path.partition(".")
    for value in (parameter.choices or (parameter.low, parameter.high)) if table == "train" else ():
        try:
            Training(**{name: value})
        except ValueError as error:
            raise ValueError(f"search.parameters {parameter.path!r}: {error}") from error
    return parameter


def _declared(path: str, base: Mapping[str, Any], networks: list[str]) -> str:
    """The type of a setting ("int", "float", ...; "" where nothing is declared), if there is such a setting."""
    table, _, rest = path.partition(".")
    known_keys("search.parameters: an experiment", [table], list(TABLES))
    kinds = {f.name: str(f.type) for f in fields(TABLES[table])}
    name, _, deeper = rest.partition(".")
    known_keys(f"search.parameters: {table}", [name], list(kinds))
    if name == "physics" and deeper:
        physics = _physics(networks)
        known_keys(f"search.parameters: {' or '.join(networks)}", [deeper], list(physics))
        default = physics[deeper]
        return type(default).__name__ if isinstance(default, (bool, int, float)) else ""
    if name == "options" and deeper:
        task = TASKS[one_of("task.name", base["task"].get("name", TaskChoice.name), TASKS)]
        arguments = inspect.signature(task).parameters
        known_keys(f"search.parameters: task {task.name}", [deeper], list(arguments))
        return str(arguments[deeper].annotation).removesuffix(" | None")
    if deeper or name in ("physics", "options"):
        raise ValueError(f"search.parameters {path!r} is not one setting: give the whole path, as model.physics.dt")
    return kinds[name].removesuffix(" | None")
