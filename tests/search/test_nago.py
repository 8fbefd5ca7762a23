"""The hierarchical generator: its ranges, its stages, and wirings that are sound at every corner of the space."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import product
from typing import Any

import numpy
import pytest
import torch

from pendula.search.nago import RANGES, Generator, sample, stages

SMALL = Generator(4, 2, 0.5, 3, 0.5, 5, 2, 0.5)
DIGEST = "7f1dd959e775f567b172b9b09b6778898a39ad8d7c3bbcc645dcb683198cf5d1"


@pytest.mark.parametrize("ratio", [0.33, 1 / 3])
@pytest.mark.parametrize(
    ("cells", "sizes"),
    [
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (5, (2, 2, 1)),
        (6, (2, 2, 2)),
        (7, (3, 2, 2)),
        (8, (3, 3, 2)),
        (9, (3, 3, 3)),
        (10, (4, 3, 3)),
    ],
)
def test_stages_have_the_sizes_of_the_third_oracle(cells: int, sizes: tuple[int, ...], ratio: float) -> None:
    found = stages(cells, (ratio,) * 3)
    assert tuple(found.count(stage) for stage in range(3)) == sizes
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("cells", "ratios", "sizes"), [(20, (0.2, 0.2, 0.6), (4, 4, 12)), (7, (1.0, 1.0, 1.0), (7, 0, 0))]
)
def test_other_ratios_divide_the_cells_as_the_third_oracle_says(
    cells: int, ratios: tuple[float, ...], sizes: tuple[int, ...]
) -> None:
    found = stages(cells, ratios)
    assert tuple(found.count(stage) for stage in range(3)) == sizes


def test_a_network_has_its_ratios_normalised() -> None:
    # the released settings, 1 : 1 : 1, put all cells into the first stage
    generator = Generator(7, 2, 0.5, 1, 0.5, 3, 2, 0.5)
    assert [cell.stage for cell in sample(generator, 0, ratios=(1, 1, 1)).cells] == [0, 0, 0, 1, 1, 2, 2]


def corners() -> list[Generator]:
    ends = [(low, high) for low, high in RANGES.values()]
    return [Generator(*corner) for corner in product(*ends)]


def test_every_graph_of_every_corner_is_a_connected_dag() -> None:
    wrong = [
        generator
        for generator in corners()
        for graph in sample(generator, seed=1).graphs()
        if len(graph.components) != 1 or graph.inputs[0] != 0 or graph.outputs[-1] != graph.size - 1
    ]
    assert wrong == []


def test_every_corner_has_as_many_operations_as_its_numbers_say() -> None:
    for generator in corners():
        g = generator
        assert sample(g, seed=1).operations == g.operations == g.top_nodes * g.middle_nodes * g.bottom_nodes


def test_the_seed_and_the_numbers_say_the_network() -> None:
    assert sample(SMALL, 7).digest() == DIGEST


def test_the_same_network_comes_from_another_process_with_another_hash() -> None:
    code = (
        "from pendula.search.nago import Generator, sample\n"
        f"print(sample(Generator.from_dict({SMALL.to_dict()}), 7).digest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert done.stdout.strip() == DIGEST


def test_no_other_source_of_chance_has_an_influence() -> None:
    found = set()
    for seed in (0, 1):
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        found.add(sample(SMALL, 3))
    assert len(found) == 1


def test_other_seeds_give_other_networks() -> None:
    assert len({sample(SMALL, seed).digest() for seed in range(20)}) == 20


def test_every_graph_has_a_seed_of_its_own() -> None:
    # in upstream's code all graphs of equal numbers within a network are the same
    wiring = sample(Generator(5, 2, 0.9, 4, 0.5, 8, 4, 0.9), 0)
    assert len({bottom for cell in wiring.cells for bottom in cell.bottoms}) == 20
    assert len({cell.middle for cell in wiring.cells}) > 1


def test_what_was_repaired_is_counted() -> None:
    rarely = sample(Generator(10, 2, 0.5, 10, 0.1, 3, 2, 0.5), 0)
    assert rarely.repaired == sum(cell.middle.repaired for cell in rarely.cells) > 0


def test_random_generators_lie_in_the_ranges_and_are_the_same_for_a_seed() -> None:
    drawn = [Generator.random(seed) for seed in range(200)]
    assert drawn == [Generator.random(seed) for seed in range(200)]
    assert {g.top_nodes for g in drawn} == set(range(3, 11))
    assert {g.middle_nodes for g in drawn} == set(range(1, 11))
    assert {g.bottom_neighbours for g in drawn} == {2, 4}


def test_a_generator_survives_plain_data() -> None:
    assert Generator.from_dict(SMALL.to_dict()) == SMALL


@pytest.mark.parametrize("name", RANGES)
def test_numbers_outside_of_the_papers_ranges_are_refused(name: str) -> None:
    low, high = RANGES[name]
    step = 1 if isinstance(low, int) else 0.05
    for value in (low - step, high + step):
        with pytest.raises(ValueError, match=name):
            Generator(**{**SMALL.to_dict(), name: value})


def test_the_layout_of_randwire_lies_beyond_the_ranges() -> None:
    numbers = (3, 2, 0.5, 1, 0.5, 32, 4, 0.75)
    with pytest.raises(ValueError, match="bottom_nodes must be from 3 to 10, got 32; beyond=True allows more"):
        Generator(*numbers)
    assert sample(Generator(*numbers, beyond=True), 0).operations == 96


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"top_nodes": 3.5}, "top_nodes must be a whole number"),
        ({"top_nodes": 0, "beyond": True}, "top_nodes must be a whole number, at least 1, got 0"),
        ({"top_neighbours": 1, "beyond": True}, "top_neighbours must be a whole number, at least 2, got 1"),
        ({"middle_probability": 1.1, "beyond": True}, "middle_probability must be from 0 to 1, got 1.1"),
        ({"middle_probability": float("nan")}, "middle_probability must be a finite number"),
    ],
)
def test_numbers_without_a_meaning_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Generator(**{**SMALL.to_dict(), **changed})


def test_names_that_a_generator_lacks_or_does_not_know_are_named() -> None:
    with pytest.raises(ValueError, match=r"a generator has no 'top_node'.*did you mean 'top_nodes'"):
        Generator.from_dict({"top_node": 3})
    with pytest.raises(ValueError, match="a generator needs top_neighbours, top_rewiring"):
        Generator.from_dict({"top_nodes": 3})


def test_ratios_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="ratios must not all be zero"):
        sample(SMALL, 0, ratios=(0, 0, 0))
