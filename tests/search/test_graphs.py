"""Random graphs: the sheet's edges for the sheet's seeds, connected at every corner, in the order of a DAG."""

from __future__ import annotations

import builtins
import math
import random
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy
import pytest

from pendula import DataError
from pendula.search import graphs
from pendula.search.graphs import (
    ATTEMPTS,
    Graph,
    barabasi_albert,
    derived_seed,
    erdos_renyi,
    laplacian,
    watts_strogatz,
)


def edges(words: str) -> tuple[tuple[int, int], ...]:
    return tuple((int(low), int(high)) for low, high in (edge.split("-") for edge in words.split()))


def before(graph: Graph) -> dict[int, list[int]]:
    return {node: list(graph.before(node)) for node in range(graph.size) if graph.before(node)}


@pytest.mark.parametrize(
    ("size", "neighbours", "expected", "count"),
    [
        (4, 2, {1: [0], 2: [1], 3: [0, 2]}, 4),
        (4, 3, {1: [0], 2: [1], 3: [0, 2]}, 4),
        (6, 2, {1: [0], 2: [1], 3: [2], 4: [3], 5: [0, 4]}, 6),
        (6, 3, {1: [0], 2: [1], 3: [2], 4: [3], 5: [0, 4]}, 6),
        (6, 4, {1: [0], 2: [0, 1], 3: [1, 2], 4: [0, 2, 3], 5: [0, 1, 3, 4]}, 12),
        (6, 5, {1: [0], 2: [0, 1], 3: [1, 2], 4: [0, 2, 3], 5: [0, 1, 3, 4]}, 12),
        (8, 4, {1: [0], 2: [0, 1], 3: [1, 2], 4: [2, 3], 5: [3, 4], 6: [0, 4, 5], 7: [0, 1, 5, 6]}, 16),
        (8, 5, {1: [0], 2: [0, 1], 3: [1, 2], 4: [2, 3], 5: [3, 4], 6: [0, 4, 5], 7: [0, 1, 5, 6]}, 16),
        (5, 4, {1: [0], 2: [0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3]}, 10),
        (3, 2, {1: [0], 2: [0, 1]}, 3),
    ],
)
def test_rings_read_what_the_first_oracle_says(
    size: int, neighbours: int, expected: dict[int, list[int]], count: int
) -> None:
    ring = watts_strogatz(size, neighbours, 0.0, seed=5)
    assert before(ring) == expected
    assert (len(ring.edges), ring.inputs, ring.outputs) == (count, (0,), (size - 1,))


@pytest.mark.parametrize(
    ("graph", "expected", "inputs", "outputs"),
    [
        (
            lambda: watts_strogatz(8, 4, 0.5, seed=3),
            "0-2 0-5 0-6 1-2 1-3 1-7 2-3 2-5 2-6 2-7 3-4 3-7 4-5 5-6 5-7 6-7",
            (0, 1),
            (7,),
        ),
        (
            lambda: watts_strogatz(10, 2, 0.9, seed=1),
            "0-4 0-5 0-8 1-3 1-7 2-6 3-6 4-6 5-7 6-9",
            (0, 1, 2),
            (7, 8, 9),
        ),
        (
            lambda: watts_strogatz(6, 4, 0.25, seed=7),
            "0-1 0-3 0-4 0-5 1-2 1-3 1-4 1-5 2-4 3-4 3-5 4-5",
            (0,),
            (5,),
        ),
        (lambda: erdos_renyi(5, 0.5, seed=3), "0-1 0-3 1-3 1-4 2-4 3-4", (0, 2), (4,)),
        (lambda: erdos_renyi(7, 0.3, seed=103), "0-5 0-6 1-3 2-3 2-4 2-5 3-4 3-5 3-6 4-5 5-6", (0, 1, 2), (6,)),
    ],
)
def test_seeded_graphs_have_the_edges_of_the_second_oracle(
    graph: Any, expected: str, inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    assert graph() == Graph(graph().size, edges(expected))
    assert (graph().inputs, graph().outputs) == (inputs, outputs)


def test_a_barabasi_albert_graph_has_the_same_edges_everywhere() -> None:
    assert barabasi_albert(7, 2, seed=4) == Graph(7, edges("0-1 0-2 0-3 0-4 0-6 1-3 1-5 1-6 3-4 3-5"))


def test_a_graph_that_stays_disconnected_is_joined_at_the_lowest_nodes() -> None:
    # the sheet's ER(6, 0.4, seed 3): node 4 alone
    graph = erdos_renyi(6, 0.4, seed=3, attempts=1)
    assert graph == Graph(6, edges("0-1 0-3 0-4 1-2 1-3 1-5 2-3"), repaired=True)


def test_parts_are_joined_in_a_row() -> None:
    graph = Graph(7, edges("0-3 1-2 4-6"))
    assert graph.components == ((0, 3), (1, 2), (4, 6), (5,))
    assert graph.joined() == Graph(7, edges("0-1 0-3 1-2 1-4 4-5 4-6"), repaired=True)


def test_a_connected_graph_needs_no_repair() -> None:
    graph = Graph(3, edges("0-1 0-2"))
    assert graph.joined() is graph


def test_an_attempt_that_is_not_connected_is_drawn_again_with_its_seed_and_a_hundred() -> None:
    seed = next(s for s in range(100) if erdos_renyi(6, 0.4, seed=s, attempts=1).repaired)
    while erdos_renyi(6, 0.4, seed=seed, attempts=1).repaired:
        last, seed = seed, seed + 100
    assert erdos_renyi(6, 0.4, seed=last) == erdos_renyi(6, 0.4, seed=seed, attempts=1)


def all_kinds() -> Iterator[tuple[str, Graph]]:
    for size, probability, seed in product(range(1, 11), (0.0, 0.1, 0.5, 0.9, 1.0), range(4)):
        yield f"ER({size}, {probability}), seed {seed}", erdos_renyi(size, probability, seed=seed)
        for neighbours in (2, 3, 4, 5):
            name = f"WS({size}, {neighbours}, {probability}), seed {seed}"
            yield name, watts_strogatz(size, neighbours, probability, seed=seed)
    for size, attached, seed in product(range(1, 11), (1, 3, 9), range(4)):
        yield f"BA({size}, {attached}), seed {seed}", barabasi_albert(size, attached, seed=seed)


def test_every_graph_is_a_connected_dag_from_its_first_node_to_its_last() -> None:
    wrong = [
        name
        for name, graph in all_kinds()
        if len(graph.components) != 1
        or graph.inputs[0] != 0
        or graph.outputs[-1] != graph.size - 1
        or any(low >= high for low, high in graph.edges)
    ]
    assert wrong == []


def led_to(graph: Graph) -> set[int]:
    """Nodes that a path leads to from an input."""
    found = set(graph.inputs)
    for low, high in sorted(graph.edges):
        found |= {high} if low in found else set()
    return found


def leading(graph: Graph) -> set[int]:
    """Nodes that a path leads from to an output."""
    found = set(graph.outputs)
    for low, high in sorted(graph.edges, reverse=True):
        found |= {low} if high in found else set()
    return found


def test_every_node_is_on_a_path_from_an_input_to_an_output() -> None:
    wrong = [name for name, graph in all_kinds() if not led_to(graph) == leading(graph) == set(range(graph.size))]
    assert wrong == []


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("odd", "even"), [(3, 2), (5, 4)])
def test_an_odd_number_of_neighbours_is_the_even_one_below(odd: int, even: int, probability: float) -> None:
    for size, seed in product((3, 4, 6, 9, 10), range(5)):
        assert watts_strogatz(size, odd, probability, seed=seed) == watts_strogatz(size, even, probability, seed=seed)


def test_rewiring_keeps_the_number_of_edges() -> None:
    for size, neighbours, probability in product((3, 4, 6, 9, 10), (2, 4), (0.0, 0.3, 0.9)):
        graph = watts_strogatz(size, neighbours, probability, seed=1)
        assert len(graph.edges) == size * (min(neighbours, size - 1) // 2)


def connected(size: int, probability: float) -> float:
    """Of an Erdos-Renyi graph: the recursion of the sheet, 2.1."""
    return 1 - sum(
        math.comb(size - 1, k - 1) * connected(k, probability) * (1 - probability) ** (k * (size - k))
        for k in range(1, size)
    )


@pytest.mark.parametrize(
    ("size", "shares"),
    [
        (2, (0.1, 0.2, 0.3, 0.5, 0.9)),
        (3, (0.028, 0.104, 0.216, 0.5, 0.972)),
        (5, (0.008098, 0.081945, 0.256260, 0.710938, 0.999492)),
        (7, (0.005505, 0.111271, 0.393854, 0.889900, 0.999993)),
        (10, (0.006436, 0.217229, 0.648966, 0.980449, 1.000000)),
    ],
)
def test_erdos_renyi_graphs_are_connected_as_often_as_the_tenth_oracle_says(
    size: int, shares: tuple[float, ...]
) -> None:
    for probability, share in zip((0.1, 0.2, 0.3, 0.5, 0.9), shares, strict=True):
        assert connected(size, probability) == pytest.approx(share, abs=6e-7)
        drawn = 1000
        found = sum(not erdos_renyi(size, probability, seed=s, attempts=1).repaired for s in range(drawn)) / drawn
        # four standard deviations, and one graph
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / drawn) + 1 / drawn


@pytest.mark.parametrize(("size", "share"), [(3, 0.427), (5, 0.784), (7, 0.847), (10, 0.824)])
def test_low_probabilities_are_repaired_as_often_as_the_released_code_fails(size: int, share: float) -> None:
    assert (1 - connected(size, 0.1)) ** ATTEMPTS == pytest.approx(share, abs=5e-4)
    drawn = 300
    found = sum(erdos_renyi(size, 0.1, seed=derived_seed(s, "test")).repaired for s in range(drawn)) / drawn
    assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / drawn)


def test_no_other_source_of_chance_has_an_influence() -> None:
    found = set()
    for seed in (0, 1):
        random.seed(seed)
        numpy.random.seed(seed)
        found.add((watts_strogatz(9, 4, 0.5, seed=2), erdos_renyi(9, 0.4, seed=2), barabasi_albert(9, 2, seed=2)))
    assert len(found) == 1


def test_derived_seeds_differ_by_place_and_seed() -> None:
    assert (
        len({derived_seed(seed, *place) for seed in (0, 1) for place in (("top",), ("cell", 1), ("cell", 1, 1))}) == 6
    )


def test_the_laplacian_has_degrees_and_edges() -> None:
    assert laplacian(Graph(3, edges("0-1 0-2"))) == [[2.0, -1.0, -1.0], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: watts_strogatz(0, 2, 0.5, seed=0), "size must be a whole number, at least 1, got 0"),
        (lambda: watts_strogatz(5, 1, 0.5, seed=0), "neighbours must be a whole number, at least 2, got 1"),
        (lambda: watts_strogatz(5, 2, 1.5, seed=0), "probability must be from 0 to 1, got 1.5"),
        (lambda: erdos_renyi(5, -0.1, seed=0), "probability must be from 0 to 1, got -0.1"),
        (lambda: erdos_renyi(5, 0.5, seed=0, attempts=0), "attempts must be a whole number, at least 1"),
        (lambda: barabasi_albert(5, 0, seed=0), "attached must be a whole number, at least 1, got 0"),
        (lambda: Graph(3, ((1, 0),)), r"edges must be \(lower, higher\) of the nodes 0 to 2, got \(1, 0\)"),
        (lambda: Graph(3, ((0, 3),)), r"edges must be \(lower, higher\) of the nodes 0 to 2, got \(0, 3\)"),
        (lambda: Graph(3, ((1, 2), (0, 1))), "edges must be sorted, each once"),
    ],
)
def test_graphs_that_are_none_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_without_networkx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "networkx":
            raise ImportError(name)
        return found(name, *rest)

    graphs._networkx.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match=r"pip install 'pendula\[search\]'"):
        erdos_renyi(5, 0.5, seed=0)


def test_a_networkx_that_draws_other_graphs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import networkx

    graphs._networkx.cache_clear()
    monkeypatch.setattr(networkx, "gnp_random_graph", lambda *args, **words: networkx.path_graph(5))
    with pytest.raises(DataError, match=r"draws other graphs than 2\.8 to 3\.6 do for the same seeds"):
        watts_strogatz(5, 2, 0.5, seed=0)
