"""What a search varies of a generator, as numbers of a trial and as points of the unit cube."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pendula._check import one_of
from pendula.search import nago, recurrent
from pendula.search.nago import Generator
from pendula.search.recurrent import RecurrentGenerator

KINDS = ("images", "recurrent")
PHYSICS = "physics."
EVEN = (2, 4)


@dataclass(frozen=True)
class Variable:
    """One number that is searched.

    Args:
        name: of a generator's argument; "physics.dt" of its physics.
        low, high: the range, both ends included.
        whole: whole numbers only.
        log: on a logarithmic scale.
        choices: these values only, instead of the range.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    whole: bool = False
    log: bool = False
    choices: tuple[int, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """A value for a trial of Optuna."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high))
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def encode(self, value: float) -> float:
        """Where a value lies from 0 to 1."""
        if self.choices:
            return self.choices.index(int(value)) / max(1, len(self.choices) - 1)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def decode(self, place: float) -> Any:
        """The value at a place from 0 to 1, rounded where only some values are there."""
        if self.choices:
            return self.choices[round(place * (len(self.choices) - 1))]
        if self.log:
            return min(self.high, max(self.low, self.low * (self.high / self.low) ** place))
        value = self.low + place * (self.high - self.low)
        return round(value) if self.whole else min(self.high, max(self.low, value))


def variables(kind: str, network: str = recurrent.COUPLED) -> tuple[Variable, ...]:
    """What is searched of a kind of generator.

    Args:
        kind: "images" (the paper's eight) or "recurrent" (seven of graphs; two of a coRNN's coupling among them).
        network: of a recurrent one: its physics of `pendula.search.recurrent.PHYSICS` are searched too.

    >>> len(variables("images")), len(variables("recurrent", "CoRNN")), len(variables("recurrent", "GRU"))
    (8, 10, 5)
    """
    one_of("kind", kind, KINDS)
    module = nago if kind == "images" else recurrent
    found = []
    for name, (low, high) in module.RANGES.items():
        if name.endswith("neighbours"):
            # odd numbers are even ones again
            found.append(Variable(name, choices=EVEN))
        elif kind == "images" or network == recurrent.COUPLED or name not in recurrent.COUPLING:
            found.append(Variable(name, low, high, whole=name in module.WHOLE))
    if kind == "recurrent":
        for name, (low, high) in recurrent.PHYSICS.get(network, {}).items():
            found.append(Variable(f"{PHYSICS}{name}", low, high, log=True))
    return tuple(found)


def generator(kind: str, values: Mapping[str, Any]) -> Generator | RecurrentGenerator:
    """The generator of values by name. Errors: ValueError, as those of the generators."""
    if one_of("kind", kind, KINDS) == "images":
        return Generator.from_dict(values)
    physics = {name.removeprefix(PHYSICS): v for name, v in values.items() if name.startswith(PHYSICS)}
    graphs = {name: v for name, v in values.items() if not name.startswith(PHYSICS)}
    return RecurrentGenerator.from_dict({**graphs, "physics": physics})


def encode(searched: Sequence[Variable], values: Mapping[str, Any]) -> list[float]:
    """Values by name as a point of the unit cube."""
    return [variable.encode(values[variable.name]) for variable in searched]


def decode(searched: Sequence[Variable], point: Sequence[float]) -> dict[str, Any]:
    """A point of the unit cube as values by name."""
    return {variable.name: variable.decode(place) for variable, place in zip(searched, point, strict=True)}
