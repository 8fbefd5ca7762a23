"""A search space as data: what is read, and what is refused before any work."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from pendula._check import DataError
from pendula.tune.space import Parameter, Space, read_space

ROOT = Path(__file__).parents[2]


class Drawing:
    """Draws like a trial of Optuna, from the standard library."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self.random.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self.random.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any:
        return self.random.choice(choices)


def space(parameters: dict[str, Any], **tables: Any) -> Space:
    search = {"parameters": parameters, **tables.pop("search", {})}
    return Space.from_dict("here", {"search": search, **tables})


def test_paths_mean_the_same_quoted_and_as_tables(tmp_path: Path) -> None:
    quoted, nested = tmp_path / "a.toml", tmp_path / "b.toml"
    quoted.write_text('[search.parameters."model.physics.dt"]\nlow = 0.1\nhigh = 1\n')
    nested.write_text("[search.parameters.model.physics]\ndt = { low = 0.1, high = 1 }\n")
    wanted = (Parameter("model.physics.dt", 0.1, 1.0),)
    assert (read_space(quoted).parameters, read_space(nested).parameters) == (wanted, wanted)


def test_a_setting_declared_whole_is_searched_in_whole_numbers() -> None:
    ranges = {"low": 1, "high": 9}
    found = space({"model.hidden_size": {**ranges, "step": 4}, "train.weight_decay": ranges}).parameters
    assert found == (
        Parameter("model.hidden_size", 1, 9, whole=True, step=4),
        Parameter("train.weight_decay", 1.0, 9.0),
    )


def test_drawn_values_stand_in_the_experiment_and_seeds_count_from_that_of_the_base() -> None:
    made = space({"train.learning_rate": {"low": 1e-3, "high": 1.0}}, train={"seed": 5, "epochs": 3})
    values = made.draw(Drawing())
    experiment = made.experiment(values, 2)
    assert experiment.train.learning_rate == values["train.learning_rate"]
    assert (experiment.train.seed, experiment.train.epochs) == (7, 3)


def test_physics_of_another_network_is_left_out() -> None:
    parameters = {
        "model.physics.gamma": {"low": 0.1, "high": 1},
        "model.network": {"choices": ["CoRNN", "LSTM"]},
    }
    made = space(parameters, model={"physics": {"dt": 0.1}})
    drawn = [made.draw(Drawing(seed)) for seed in range(20)]
    physics = {values["model.network"]: set(made.experiment(values).model.physics) for values in drawn}
    assert physics == {"CoRNN": {"gamma", "dt"}, "LSTM": set()}


RATE = {"train.learning_rate": {"low": 0.1, "high": 1}}
REFUSED = [
    ({"train.learning_rat": {"low": 0.1, "high": 1}}, {}, "has no 'learning_rat' (did you mean 'learning_rate'?)"),
    ({"trian.epochs": {"low": 1, "high": 2}}, {}, "has no 'trian' (did you mean 'train'?)"),
    ({"model.physics.gama": {"low": 1, "high": 2}}, {}, "has no 'gama' (did you mean 'gamma'?)"),
    ({"task.options.permute": {"choices": [True]}}, {}, "has no 'permute' (did you mean 'permuted'?)"),
    ({"model.physics": {"low": 1, "high": 2}}, {}, "is not one setting"),
    ({"train.epochs.more": {"low": 1, "high": 2}}, {}, "is not one setting"),
    ({"task.name": {"choices": ["digits", "har2"]}}, {}, "can't be compared"),
    ({"train.seed": {"low": 0, "high": 9}}, {}, "set seeds in [search]"),
    ({"train.learning_rate": {"low": 0.1}}, {}, "needs high"),
    ({"train.learning_rate": {"low": 0.1, "high": 1, "logg": True}}, {}, "has no 'logg' (did you mean 'log'?)"),
    ({"train.learning_rate": {"low": 0, "high": 1, "log": True}}, {}, "low must be positive"),
    ({"train.learning_rate": {"low": 1, "high": 0.1}}, {}, "low must be below high"),
    ({"train.learning_rate": {"low": 0.1, "high": float("inf")}}, {}, "high must be a finite number"),
    ({"train.learning_rate": {"low": 0.1, "high": 1, "step": 2}}, {}, "step is for whole numbers"),
    ({"train.learning_rate": {"low": -0.1, "high": 1}}, {}, "learning_rate must be positive"),
    ({"train.learning_rate": {"low": 0.1, "high": 1, "choices": [1]}}, {}, "low and high, or choices"),
    ({"train.optimiser": {"choices": ["adam", "sdg"]}}, {}, "(did you mean 'sgd'?)"),
    ({"train.optimiser": {"low": 1, "high": 2}}, {}, "is not a number"),
    ({"train.drop_after": {"choices": [[1], [2]]}}, {}, "choices must be numbers, words or true/false"),
    ({"train.optimiser": {"choices": []}}, {}, "must be a list of values"),
    ({"model.hidden_size": {"low": 4, "high": 9, "step": 2}}, {}, "low plus a number of steps"),
    ({"model.hidden_size": {"low": 4, "high": 9.5}}, {}, "must be whole numbers"),
    ({"model.hidden_size": {"low": 4, "high": 9, "type": "float"}}, {}, "is a whole number"),
    ({"model.network": {"choices": ["CoRNN", "LSTN"]}}, {}, "(did you mean 'LSTM'?)"),
    ({"train.learning_rate": 3}, {}, "must be a table with low and high, or choices"),
    ({}, {}, "nothing is searched"),
    (RATE, {"search": {"trails": 3}}, "search has no 'trails' (did you mean 'trials'?)"),
    (RATE, {"search": {"trials": 0}}, "search.trials must be a whole number, at least 1"),
    (
        RATE,
        {"search": {"sampler": "tpa"}},
        "search.sampler must be one of tpe, random, got 'tpa' (did you mean 'tpe'?)",
    ),
    (RATE, {"search": {"pruner": "mean"}}, "search.pruner must be one of"),
    (RATE, {"taks": {}}, "a search space has no 'taks' (did you mean 'task'?)"),
    (RATE, {"train": {"epoch": 3}}, "train has no 'epoch' (did you mean 'epochs'?)"),
    (RATE, {"train": {"epochs": 0}}, "epochs must be a whole number"),
    (RATE, {"train": {"devices": 2}}, "use --workers"),
    (RATE, {"model": {"physics": {"dtt": 1}}}, "model.physics has no 'dtt' (did you mean 'dt'?)"),
    (RATE, {"model": 3}, "model must be a table, got 3"),
]


@pytest.mark.parametrize(("parameters", "tables", "words"), REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(
    parameters: dict[str, Any], tables: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        space(parameters, **tables)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("[search\n")
    with pytest.raises(DataError, match=r"space.toml is not a TOML file"):
        read_space(path)


@pytest.mark.parametrize("example", sorted((ROOT / "examples" / "tune").glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_are_spaces_around_an_experiment(example: Path) -> None:
    made = read_space(example)
    assert made.experiment(made.draw(Drawing())).task.name == made.base["task"]["name"]
