"""What a search is over, as plain data: a task, a training, and a kind of generator with what is fixed of it."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from pendula._check import DataError, at_least_zero, finite_number, known_keys, one_of, positive_int
from pendula.learn.training import Training
from pendula.search import recurrent
from pendula.search.graphs import derived_seed
from pendula.search.optimise import OPTIMISERS, SURROGATES
from pendula.search.variables import KINDS, PHYSICS, Variable, decode, variables

METRICS = ("accuracy", "loss")
COSTS = ("parameters", "latency", "memory")
AROUND = {
    "images": ("counted", "merge", "widths", "ratios", "head", "dropout"),
    "recurrent": ("networks", "merge", "widths", "times", "pool", "physics"),
}
"""What can be said of the networks beside the generator: arguments of `search.images.Images` and `Sequences`."""
TABLES = ("task", "train", "search")


@dataclass(frozen=True)
class GeneratorSpace:
    """What a search is over.

    Args:
        name: of the study; that of the file.
        task, train: as in the config of an experiment; the seed of the training is that of the network.
        kind: "images" or "recurrent".
        limit: parameters that a network has at most.
        around: what else is said of the networks: see `AROUND`.
        generator: numbers of the generator that are fixed, and tables with low and high that narrow a range.
        optimiser: "random", "bohb" or "mobo".
        surrogate: of "mobo", "gp" (Gaussian processes) or "bnn" (the Bayesian network of the paper).
        objectives: the metric of the task first, then costs; when empty the metric, and for "mobo" the parameters too.
        trials: points, over all workers and starts.
        samples: networks that are drawn of a point.
        repeated: share of the points of which so many are drawn; of the others one.
        least_epochs: after which "bohb" stops the first trials; the last ones run for train.epochs.
        seed: decides which points are drawn, and which networks of them.
    """

    name: str
    task: Mapping[str, Any]
    train: Mapping[str, Any]
    kind: str
    limit: int
    around: Mapping[str, Any]
    generator: Mapping[str, Any]
    optimiser: str = "random"
    surrogate: str = "gp"
    objectives: tuple[str, ...] = ()
    trials: int = 50
    samples: int = 1
    repeated: float = 1.0
    least_epochs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))
        for name in ("limit", "trials", "samples", "least_epochs"):
            positive_int(f"search.{name}", getattr(self, name))
        positive_int("search.seed", self.seed, least=0)
        if at_least_zero("search.repeated", self.repeated) > 1:
            raise ValueError(f"search.repeated must be a share, from 0 to 1, got {self.repeated}")
        one_of("search.optimiser", self.optimiser, OPTIMISERS)
        one_of("search.surrogate", self.surrogate, SURROGATES)
        for name in self.objectives:
            one_of("search.objectives", name, (*METRICS, *COSTS))
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"search.objectives must differ, got {', '.join(self.objectives)}")
        if self.optimiser == "bohb" and len(self.objectives) > 1:
            raise ValueError("search.optimiser bohb has one objective: take mobo, or leave the others out")
        if self.optimiser == "mobo" and len(self.objectives) == 1:
            raise ValueError("search.optimiser mobo has several objectives: add parameters, latency or memory")
        if self.optimiser != "random" and not self.searched:
            raise ValueError("nothing of the generator is searched: take one of its numbers out of search.generator")

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> GeneratorSpace:
        """A space from the tables of its file. Errors: ValueError naming what is unknown or doesn't fit."""
        known_keys("a search space", data, TABLES)
        for table in data:
            if not isinstance(data[table], Mapping):
                raise ValueError(f"{table} must be a table, got {data[table]!r}")
        try:
            json.dumps(data)
        except TypeError as error:
            raise ValueError(f"a search space holds numbers, words, lists and tables only: {error}") from error
        search = dict(data.get("search", {}))
        for needed in ("kind", "limit"):
            if needed not in search:
                raise ValueError(f"search needs {needed}" + f": {' or '.join(KINDS)}" * (needed == "kind"))
        kind = one_of("search.kind", search["kind"], KINDS)
        own = [f.name for f in fields(cls) if f.name not in ("name", "task", "train", "around")]
        known_keys(f"search of {kind}", search, [*own, *AROUND[kind]])
        for names in ("networks", "objectives"):
            if not isinstance(search.get(names, []), list):
                raise ValueError(f"search.{names} must be a list of names, got {search[names]!r}")
        around = {key: search.pop(key) for key in AROUND[kind] if key in search}
        generator = search.pop("generator", {})
        if not isinstance(generator, Mapping):
            raise ValueError(f"search.generator must be a table, got {generator!r}")
        train = dict(data.get("train", {}))
        known_keys("train", train, [f.name for f in fields(Training)])
        if "seed" in train:
            raise ValueError("train.seed is that of each network: leave it out, and set seed in [search]")
        if train.get("devices", 1) != 1:
            raise ValueError(
                f"train.devices can't be {train['devices']}: each trial runs in one process, use --workers"
            )
        made = cls(name, dict(data.get("task", {})), train, around=around, generator=_flat(generator), **search)
        epochs = Training(**train).epochs
        if "surrogate" in search and made.optimiser != "mobo":
            raise ValueError(f"search.surrogate is for mobo, and search.optimiser is {made.optimiser}: leave it out")
        if made.optimiser == "bohb" and made.least_epochs > epochs:
            raise ValueError(f"search.least_epochs must be at most train.epochs, got {made.least_epochs} and {epochs}")
        return made

    @cached_property
    def every(self) -> tuple[Variable, ...]:
        """All numbers of the generator."""
        if self.kind == "images":
            return variables("images")
        networks = list(self.around.get("networks", (recurrent.COUPLED,)))
        known = [name for name in networks if name in recurrent.PHYSICS]
        others = [name for name in networks if name != recurrent.LINEAR]
        return variables("recurrent", (known + others + networks)[0] if networks else recurrent.COUPLED)

    @cached_property
    def searched(self) -> tuple[Variable, ...]:
        """The numbers that are searched, in their ranges. Errors: ValueError naming one that doesn't fit."""
        known_keys("search.generator", self.generator, [variable.name for variable in self.every])
        kept = []
        for variable in self.every:
            given = self.generator.get(variable.name)
            if given is None:
                kept.append(variable)
            elif isinstance(given, Mapping):
                kept.append(_narrowed(variable, given))
            else:
                finite_number(f"search.generator.{variable.name}", given)
        return tuple(kept)

    @cached_property
    def size(self) -> int | None:
        """How many points there are; None where one of the numbers is real, or none is searched."""
        if not self.searched or not all(v.choices or v.whole for v in self.searched):
            return None
        return prod(len(_every(v)) for v in self.searched)

    @property
    def total(self) -> int:
        """How many points a search tries: no more than there are."""
        return self.trials if self.size is None else min(self.trials, self.size)

    def values(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """All numbers of the generator at a point."""
        fixed = {name: value for name, value in self.generator.items() if not isinstance(value, Mapping)}
        return {**fixed, **point}

    def point(self, seed: int, seen: Collection[Mapping[str, Any]] = ()) -> dict[str, Any] | None:
        """A point drawn evenly from those that were not seen; None if there are no more."""
        chance = random.Random(seed)
        if self.size is None or not seen:
            return decode(self.searched, [chance.random() for _ in self.searched])
        names = [v.name for v in self.searched]
        known = {tuple(point.get(name) for name in names) for point in seen}
        fresh = [values for values in product(*map(_every, self.searched)) if values not in known]
        return dict(zip(names, chance.choice(fresh), strict=True)) if fresh else None

    def lowest(self) -> dict[str, Any]:
        """The point at the low ends of the ranges, which has the smallest networks."""
        return {v.name: v.choices[0] if v.choices else v.low for v in self.searched}

    def seeds(self, place: int) -> list[int]:
        """Of the networks that a trial draws and trains."""
        share = derived_seed(self.seed, "repeated", place) / 2**64
        count = self.samples if share < self.repeated else 1
        return [derived_seed(self.seed, "network", place, number) % 2**31 for number in range(count)]

    def identity(self) -> dict[str, Any]:
        """What must not change while a study goes on, as JSON has it: the tables of the file but for the trials."""
        own = [f.name for f in fields(self) if f.name not in ("name", "task", "train", "around", "trials")]
        search = {**{name: getattr(self, name) for name in own}, **self.around}
        if self.optimiser != "mobo":
            del search["surrogate"]
        plain: dict[str, Any] = json.loads(json.dumps({"task": self.task, "train": self.train, "search": search}))
        return plain


def read_space(path: Path) -> GeneratorSpace:
    """A space from a TOML file. Errors: DataError when it is not one; ValueError for what is in it."""
    try:
        tables = tomllib.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is not a TOML file: {error}") from error
    return GeneratorSpace.from_dict(path.stem, tables)


def _flat(generator: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of the physics under one name, "physics.dt", also where they stand in a table of their own."""
    flat = {name: value for name, value in generator.items() if name != PHYSICS[:-1]}
    physics = generator.get(PHYSICS[:-1], {})
    if not isinstance(physics, Mapping):
        raise ValueError(f"search.generator.physics must be a table, got {physics!r}")
    return flat | {f"{PHYSICS}{name}": value for name, value in physics.items()}


def _narrowed(variable: Variable, given: Mapping[str, Any]) -> Variable:
    where = f"search.generator.{variable.name}"
    known_keys(where, given, ["low", "high"])
    low, high = (given.get(end, getattr(variable, end)) for end in ("low", "high"))
    if variable.choices:
        raise ValueError(f"{where} is one of {', '.join(map(str, variable.choices))}: give a number, or leave it out")
    for end, value in (("low", low), ("high", high)):
        finite_number(f"{where}.{end}", value)
        if variable.whole and value != int(value):
            raise ValueError(f"{where}.{end} must be a whole number, got {value}")
    if not variable.low <= low < high <= variable.high:
        raise ValueError(
            f"{where} must lie from {variable.low:g} to {variable.high:g}, low below high, got {low} and {high}"
        )
    return replace(variable, low=int(low), high=int(high)) if variable.whole else replace(variable, low=low, high=high)


def _every(variable: Variable) -> tuple[int, ...]:
    return variable.choices or tuple(range(int(variable.low), int(variable.high) + 1))
