"""Random graphs on numbered nodes, connected, each edge read from the lower number to the higher one.

Source: spec sheet ``nago.md`` 2.1 and 2.2 (Ru, Esperanca and Carlucci, NeurIPS 2020, arXiv 2004.01395).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from pendula._check import DataError, between, positive_int

ATTEMPTS = 30
"""Graphs that are drawn before one that is not connected is repaired (sheet 2.1)."""
RING_ATTEMPTS = 200
"""The same for Watts-Strogatz graphs."""

Edge = tuple[int, int]

KNOWN = (
    ((0, 2), (0, 3), (1, 2), (1, 3), (3, 4), (3, 5)),
    ((0, 1), (0, 3), (1, 3), (1, 4), (2, 4), (3, 4)),
    ((0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (3, 4), (3, 5), (4, 5)),
)
"""What three seeds give: see `_networkx`."""


@dataclass(frozen=True)
class Graph:
    """An undirected graph on the nodes 0 to size - 1, which the order of the numbers makes a DAG.

    Args:
        size: number of nodes.
        edges: pairs (lower node, higher node), sorted.
        repaired: whether edges were added because none of the graphs drawn was connected.

    >>> ring = watts_strogatz(6, 2, 0.0, seed=1)
    >>> [ring.before(node) for node in range(6)]
    [(), (0,), (1,), (2,), (3,), (0, 4)]
    >>> ring.inputs, ring.outputs
    ((0,), (5,))
    """

    size: int
    edges: tuple[Edge, ...]
    repaired: bool = False

    def __post_init__(self) -> None:
        positive_int("size", self.size)
        edges = tuple((int(low), int(high)) for low, high in self.edges)
        object.__setattr__(self, "edges", edges)
        if list(edges) != sorted(set(edges)):
            raise ValueError(f"edges must be sorted, each once, got {edges}")
        for low, high in edges:
            if not 0 <= low < high < self.size:
                raise ValueError(f"edges must be (lower, higher) of the nodes 0 to {self.size - 1}, got {(low, high)}")

    def before(self, node: int) -> tuple[int, ...]:
        """The nodes that a node reads: its neighbours with lower numbers."""
        return tuple(low for low, high in self.edges if high == node)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Nodes without a neighbour of a lower number: they read what enters the graph."""
        fed = {high for _, high in self.edges}
        return tuple(node for node in range(self.size) if node not in fed)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Nodes without a neighbour of a higher number: the mean of them leaves the graph."""
        feeding = {low for low, _ in self.edges}
        return tuple(node for node in range(self.size) if node not in feeding)

    @property
    def degrees(self) -> tuple[int, ...]:
        """Number of neighbours of each node."""
        ends = [node for edge in self.edges for node in edge]
        return tuple(ends.count(node) for node in range(self.size))

    @property
    def components(self) -> tuple[tuple[int, ...], ...]:
        """The connected parts, in the order of their lowest nodes."""
        part = list(range(self.size))
        # a node takes the lowest number of its part; parts that an edge joins become one
        for low, high in self.edges:
            old, new = sorted((part[low], part[high]), reverse=True)
            part = [new if p == old else p for p in part]
        return tuple(tuple(n for n in range(self.size) if part[n] == p) for p in sorted(set(part)))

    def joined(self) -> Graph:
        """This graph, with an edge between the lowest nodes of consecutive parts where it is not connected."""
        lowest = [part[0] for part in self.components]
        if len(lowest) == 1:
            return self
        links = pairwise(lowest)
        return Graph(self.size, tuple(sorted({*self.edges, *links})), repaired=True)


def derived_seed(seed: int, *place: object) -> int:
    """A number of 64 bits for one place of one drawing, the same on every machine and version of Python.

    >>> derived_seed(0, "top")
    7433480915561687976
    """
    words = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")


def watts_strogatz(size: int, neighbours: int, probability: float, *, seed: int) -> Graph:
    """A ring whose edges are rewired (Watts and Strogatz 1998).

    Args:
        size: number of nodes.
        neighbours: K, of each node on the ring, half on each side: the model has even numbers only, an odd one means
            the even number below; at most size - 1.
        probability: of each edge, of being led to another node.
        seed: of `random.Random`; the graphs drawn until one is connected go on with its numbers.

    The graph has size * (K // 2) edges, and more only where it was repaired. Two nodes have no ring: the repair joins
    them.
    """
    positive_int("size", size)
    between("probability", probability, 0.0, 1.0)
    least = min(positive_int("neighbours", neighbours, least=2), size - 1)
    if least < 2:
        return Graph(size, ()).joined()
    networkx, chance = _networkx(), random.Random(seed)
    return _connected(
        lambda attempt: networkx.watts_strogatz_graph(size, least, probability, seed=chance),
        # a ring that nothing changes is the same at every attempt
        RING_ATTEMPTS if probability else 1,
    )


def erdos_renyi(size: int, probability: float, *, seed: int, attempts: int = ATTEMPTS) -> Graph:
    """Every pair of nodes is an edge with one probability, drawn again until connected (Gilbert 1959).

    Args:
        size: number of nodes.
        probability: of each edge.
        seed: attempt x draws from `random.Random(100 x + seed)`.
        attempts: after which the last graph is repaired: a low probability seldom gives a connected graph.
    """
    positive_int("size", size)
    between("probability", probability, 0.0, 1.0)
    networkx = _networkx()
    return _connected(
        lambda attempt: networkx.gnp_random_graph(size, probability, seed=random.Random(100 * attempt + seed)),
        positive_int("attempts", attempts),
    )


def barabasi_albert(size: int, attached: int, *, seed: int) -> Graph:
    """Nodes come one by one and attach to `attached` others, rather to those of many edges (Barabasi, Albert 1999).

    Args:
        size: number of nodes.
        attached: edges that each new node brings; at most size - 1.
        seed: of `random.Random`.
    """
    if positive_int("size", size) == 1:
        return Graph(1, ())
    least = min(positive_int("attached", attached), size - 1)
    networkx = _networkx()
    return _connected(lambda attempt: networkx.barabasi_albert_graph(size, least, seed=random.Random(seed)), 1)


def laplacian(graph: Graph) -> list[list[float]]:
    """The matrix with the degrees on the diagonal and -1 for each edge."""
    rows = [[0.0] * graph.size for _ in range(graph.size)]
    for low, high in graph.edges:
        rows[low][high] = rows[high][low] = -1.0
    for node, degree in enumerate(graph.degrees):
        rows[node][node] = float(degree)
    return rows


def graphs_version() -> str:
    """Which networkx draws the graphs: what a study keeps beside its seeds, as an algorithm of another may differ."""
    return str(_networkx().__version__)


def _connected(draw: Callable[[int], Any], attempts: int) -> Graph:
    for attempt in range(attempts):
        drawn = draw(attempt)
        edges = sorted((min(edge), max(edge)) for edge in drawn.edges)
        graph = Graph(drawn.number_of_nodes(), tuple(edges))
        if len(graph.components) == 1:
            return graph
    return graph.joined()


@cache
def _networkx() -> Any:
    """The package, once it has drawn what the seeds mean, as all versions from 2.8 to 3.6 do."""
    try:
        import networkx
    except ImportError as error:
        raise DataError("random graphs need networkx: pip install 'pendula[search]'") from error
    drawn = (
        networkx.watts_strogatz_graph(6, 2, 0.9, seed=random.Random(1)),
        networkx.gnp_random_graph(5, 0.5, seed=random.Random(3)),
        networkx.barabasi_albert_graph(6, 2, seed=random.Random(1)),
    )
    if tuple(tuple(sorted(tuple(sorted(edge)) for edge in graph.edges)) for graph in drawn) != KNOWN:
        raise DataError(
            f"networkx {networkx.__version__} draws other graphs than 2.8 to 3.6 do for the same seeds, so networks "
            "could not be drawn again: pip install 'networkx<3.7'"
        )
    return networkx
