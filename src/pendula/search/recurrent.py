"""Generators of recurrent networks: graphs of layers, of modules inside a layer, and of oscillators inside a module.

An extension of ours to the paper: spec sheet ``nago.md`` 9. `pendula.search.modules` draws from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pendula._check import between, finite_number, known_keys, one_of, positive_int
from pendula.nets.spec import POOLS, Node

RANGES: dict[str, tuple[float, float]] = {
    "top_nodes": (1, 6),
    "top_neighbours": (2, 4),
    "top_rewiring": (0.1, 0.9),
    "middle_nodes": (1, 4),
    "middle_probability": (0.3, 0.9),
    "density": (0.1, 1.0),
    "coupling_rewiring": (0.1, 0.9),
}
"""What is searched of the graphs, both ends included (sheet 9.3 and 9.4; `density` stands for its K_b)."""
WHOLE = ("top_nodes", "top_neighbours", "middle_nodes")
COUPLING = ("density", "coupling_rewiring")

PHYSICS: dict[str, dict[str, tuple[float, float]]] = {
    "CoRNN": {"dt": (0.01, 1.0), "gamma": (0.1, 10.0), "epsilon": (0.1, 10.0)},
    "UnICORNN": {"dt": (0.01, 1.0), "alpha": (0.1, 100.0)},
}
"""What is searched of the oscillators, on logarithmic scales; our choice, around the defaults."""
DIMENSIONS = 10
"""A search has no more: the paper's own got worse with 15 (sheet 6.7)."""

MERGES = ("weighted", "concat", "attention")
TIMES = ("same", "halving")
STAGES = 3
LINEAR, COUPLED = "Linear", "CoRNN"


@dataclass(frozen=True)
class RecurrentGenerator:
    """The hyper-parameters of a distribution of recurrent networks: seven of graphs, and at most three of physics.

    Args:
        top_nodes, top_neighbours, top_rewiring: of the Watts-Strogatz graph of layers; neighbours are 2 or 4.
        middle_nodes, middle_probability: of the Erdos-Renyi graph of modules inside a layer, whose edges act within one
            step.
        density: share of a coRNN's recurrent matrices that is not zero; 1: all oscillators see all.
        coupling_rewiring: of the Watts-Strogatz graph of a coRNN's oscillators.
        physics: numbers for the cells that have them, such as dt, gamma and epsilon.
        beyond: allow numbers outside of `RANGES`.

    Errors: ValueError naming the number, what it is and its range, and for more than ten dimensions.

    >>> RecurrentGenerator(3, 2, 0.5, 2, 0.5, physics={"dt": 0.1, "gamma": 1.0, "epsilon": 2.0}).dimensions
    10
    """

    top_nodes: int
    top_neighbours: int
    top_rewiring: float
    middle_nodes: int
    middle_probability: float
    density: float = 1.0
    coupling_rewiring: float = 0.5
    physics: Mapping[str, float] = field(default_factory=dict)
    beyond: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if name in WHOLE:
                positive_int(name, value, least=1 + (name == "top_neighbours"))
            else:
                between(name, value, 0.0, 1.0)
            if not self.beyond and not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value!r}; beyond=True allows more")
        if self.top_neighbours % 2:
            raise ValueError(f"top_neighbours must be even, half of them on each side, got {self.top_neighbours}")
        for name, value in self.physics.items():
            finite_number(f"physics.{name}", value)
        if self.dimensions > DIMENSIONS:
            raise ValueError(
                f"physics must hold at most {DIMENSIONS - len(RANGES)} numbers, so that there are {DIMENSIONS} "
                f"dimensions to search, got {', '.join(self.physics)}"
            )

    @property
    def dimensions(self) -> int:
        """How many numbers there are to search."""
        return len(RANGES) + len(self.physics)

    def to_dict(self) -> dict[str, Any]:
        """The numbers under their names."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RecurrentGenerator:
        """The inverse of `to_dict`. Errors: ValueError naming an unknown or missing name."""
        known_keys("a recurrent generator", data, [f.name for f in fields(cls)])
        missing = [name for name in list(RANGES)[:5] if name not in data]
        if missing:
            raise ValueError(f"a recurrent generator needs {', '.join(missing)}")
        return cls(**data)


@dataclass(frozen=True)
class Sequences:
    """What stands around the graphs: the task, the size, and what is not searched.

    Args:
        input_size, output_size, pool, labels, standardise: as in `pendula.ModelSpec`.
        limit: parameters that the network has at most; what a coupling keeps at zero is not counted.
        networks: of `pendula.LAYERS`, or "Linear" for a linear map of each step; every module draws one of them, and
            the last modules of a layer one that is recurrent, so that there is one on every path.
        merge: of several inputs: "weighted" (a gated sum; projections where the widths differ), "concat", "attention".
        widths: of the modules of the first, second and last third of the layers, as multiples.
        times: "same" time step for all layers, or "halving" from one third of the layers to the next.
        physics: of the cells, where the generator has none.

    Errors: ValueError naming the argument.
    """

    input_size: int
    output_size: int
    limit: int
    networks: tuple[str, ...] = (COUPLED,)
    merge: str = "weighted"
    widths: tuple[int, ...] = (1, 1, 1)
    times: str = "same"
    pool: str = "last"
    labels: tuple[str, ...] | None = None
    standardise: bool = False
    physics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("networks", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("input_size", "output_size", "limit"):
            positive_int(name, getattr(self, name))
        if all(Node(network, 1).is_map for network in self.networks):
            raise ValueError(f"networks must hold a recurrent one, got {', '.join(self.networks) or 'none'}")
        for network in self.networks:
            if Node(network, 1).is_map:
                one_of("networks: a map", network, (LINEAR,))
        one_of("merge", self.merge, MERGES)
        one_of("times", self.times, TIMES)
        one_of("pool", self.pool, POOLS[:3])
        if len(self.widths) != STAGES:
            raise ValueError(f"widths must hold one number for each third of the layers, got {self.widths}")
        for width in self.widths:
            positive_int("widths", width)
