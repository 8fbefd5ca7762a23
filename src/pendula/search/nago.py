"""Generators of image networks: eight numbers say a distribution of wirings on three levels.

Source: spec sheet ``nago.md`` 1 and 2 (Ru, Esperanca and Carlucci, NeurIPS 2020, arXiv 2004.01395). Of the released
code's slips none is repeated: stage ratios are normalised, every graph has a seed of its own, low probabilities are
repaired instead of failing, outputs of the top graph are its output nodes, and the limit may count all parameters.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pendula._check import between, known_keys, positive_int
from pendula.search.graphs import Graph, derived_seed, erdos_renyi, watts_strogatz

RANGES: dict[str, tuple[float, float]] = {
    "top_nodes": (3, 10),
    "top_neighbours": (2, 5),
    "top_rewiring": (0.1, 0.9),
    "middle_nodes": (1, 10),
    "middle_probability": (0.1, 0.9),
    "bottom_nodes": (3, 10),
    "bottom_neighbours": (2, 5),
    "bottom_rewiring": (0.1, 0.9),
}
"""What the paper searches (sheet 1), both ends included."""
WHOLE = tuple(name for name, (low, _) in RANGES.items() if isinstance(low, int))
LEAST = {"neighbours": 2, "nodes": 1}


@dataclass(frozen=True)
class Generator:
    """The eight hyper-parameters of the hierarchical generator.

    Args:
        top_nodes, top_neighbours, top_rewiring: N_t, K_t, P_t of the Watts-Strogatz graph of cells.
        middle_nodes, middle_probability: N_m, P_m of the Erdos-Renyi graph inside each cell.
        bottom_nodes, bottom_neighbours, bottom_rewiring: N_b, K_b, P_b of the Watts-Strogatz graph of operations inside
            each node of a cell.
        beyond: allow numbers outside of `RANGES`, such as the 32 bottom nodes of RandWire's layout; whole numbers
            stay at least 1 (neighbours 2) and probabilities in [0, 1].

    An odd number of neighbours means the even number below (sheet 2.1): 2 and 3 are one generator, 4 and 5 another.

    Errors: ValueError naming the number, what it is and its range.

    >>> Generator(4, 2, 0.5, 1, 0.5, 3, 2, 0.5).operations
    12
    """

    top_nodes: int
    top_neighbours: int
    top_rewiring: float
    middle_nodes: int
    middle_probability: float
    bottom_nodes: int
    bottom_neighbours: int
    bottom_rewiring: float
    beyond: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if name in WHOLE:
                positive_int(name, value, least=LEAST[name.rpartition("_")[2]])
            else:
                between(name, value, 0.0, 1.0)
            if not self.beyond and not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value!r}; beyond=True allows more")

    @property
    def operations(self) -> int:
        """Number of bottom nodes, N_t N_m N_b."""
        return self.top_nodes * self.middle_nodes * self.bottom_nodes

    def to_dict(self) -> dict[str, Any]:
        """The numbers under their names."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Generator:
        """The inverse of `to_dict`. Errors: ValueError naming an unknown or missing name."""
        known_keys("a generator", data, [f.name for f in fields(cls)])
        missing = [name for name in RANGES if name not in data]
        if missing:
            raise ValueError(f"a generator needs {', '.join(missing)}")
        return cls(**data)

    @classmethod
    def random(cls, seed: int) -> Generator:
        """One drawn evenly from `RANGES`, where an odd number of neighbours would be its even one drawn twice."""
        chance = random.Random(derived_seed(seed, "generator"))
        drawn: dict[str, Any] = {}
        for name, (low, high) in RANGES.items():
            if name.endswith("neighbours"):
                drawn[name] = chance.choice((2, 4))
            else:
                drawn[name] = chance.randint(int(low), int(high)) if name in WHOLE else chance.uniform(low, high)
        return cls(**drawn)


@dataclass(frozen=True)
class Cell:
    """A node of the top graph.

    Args:
        stage: it stands in, from 0.
        middle: its graph.
        bottoms: the graph of operations of each node of `middle`.
    """

    stage: int
    middle: Graph
    bottoms: tuple[Graph, ...]


@dataclass(frozen=True)
class Wiring:
    """What is drawn: three levels of graphs.

    Args:
        top: the graph of cells.
        cells: one for each of its nodes.
    """

    top: Graph
    cells: tuple[Cell, ...]

    @property
    def operations(self) -> int:
        """Number of bottom nodes."""
        return sum(bottom.size for cell in self.cells for bottom in cell.bottoms)

    @property
    def repaired(self) -> int:
        """How many of the graphs had to be repaired to be connected."""
        return sum(graph.repaired for graph in self.graphs())

    def graphs(self) -> Iterator[Graph]:
        """All graphs, top level first."""
        yield self.top
        for cell in self.cells:
            yield cell.middle
            yield from cell.bottoms

    def digest(self) -> str:
        """Of all edges and stages: equal wirings have equal ones, on every machine."""
        levels = [[cell.stage for cell in self.cells], *([graph.size, graph.edges] for graph in self.graphs())]
        return hashlib.sha256(json.dumps(levels, separators=(",", ":")).encode()).hexdigest()


def sample(generator: Generator, seed: int, *, ratios: Sequence[float] = (1.0, 1.0, 1.0)) -> Wiring:
    """A wiring of a generator: a function of its numbers, the seed and the ratios alone.

    Args:
        generator: the eight numbers.
        seed: every graph of every level has a seed of its own that is derived from it.
        ratios: how the cells are divided among the stages, in order.

    >>> wiring = sample(Generator(3, 2, 0.1, 2, 0.5, 3, 2, 0.1), seed=0)
    >>> [cell.stage for cell in wiring.cells], wiring.operations
    ([0, 1, 2], 18)
    """
    g = generator
    total = sum(between("ratios", ratio, 0.0, float("inf")) for ratio in ratios)
    if not total:
        raise ValueError(f"ratios must not all be zero, got {tuple(ratios)}")
    top = watts_strogatz(g.top_nodes, g.top_neighbours, g.top_rewiring, seed=derived_seed(seed, "top"))
    cells = []
    for number, stage in enumerate(stages(g.top_nodes, [ratio / total for ratio in ratios])):
        middle = erdos_renyi(g.middle_nodes, g.middle_probability, seed=derived_seed(seed, "cell", number))
        bottoms = tuple(
            watts_strogatz(
                g.bottom_nodes, g.bottom_neighbours, g.bottom_rewiring, seed=derived_seed(seed, "cell", number, node)
            )
            for node in range(g.middle_nodes)
        )
        cells.append(Cell(stage, middle, bottoms))
    return Wiring(top, tuple(cells))


def stages(cells: int, ratios: Sequence[float]) -> tuple[int, ...]:
    """The stage of each cell (sheet 2.3): the next one begins where the cells reach its share of the number.

    As many cells as stages are one each. Ratios that don't sum to 1 are taken as they are.

    >>> stages(7, (0.33, 0.33, 0.33))
    (0, 0, 0, 1, 1, 2, 2)
    """
    if cells == len(ratios):
        return tuple(range(cells))
    found, stage, threshold = [], 0, ratios[0] * cells
    for cell in range(cells):
        # 1e-9: a share such as 3 * (1 / 3) may miss its whole number by a rounding
        while stage + 1 < len(ratios) and cell >= threshold - 1e-9:
            stage += 1
            threshold += ratios[stage] * cells
        found.append(stage)
    return tuple(found)
