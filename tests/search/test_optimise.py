"""Optimisers: the brackets and volumes of the sheet, noise from repeats, and proposals that know what is pending."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pendula import DataError
from pendula.search.nago import RANGES, Generator
from pendula.search.recurrent import RecurrentGenerator
from pendula.search.variables import KINDS, decode, encode, generator, variables
from tests import tolerance

optuna = pytest.importorskip("optuna", reason="the optimisers are Optuna's and BoTorch's")
pytest.importorskip("botorch", reason="several objectives are BoTorch's")

from pendula.search.optimise import (  # noqa: E402
    REPEATS,
    Hypervolume,
    brackets,
    front,
    hyperband,
    hypervolume,
    noise,
    propose,
    sampler,
)

IMAGES = variables("images")


@pytest.mark.parametrize(
    ("least", "most", "expected", "epochs"),
    [
        (30, 120, [[(4, 30), (2, 60), (1, 120)], [(3, 60), (1, 120)], [(3, 120)]], [360, 300, 360]),
        (100, 400, [[(4, 100), (2, 200), (1, 400)], [(3, 200), (1, 400)], [(3, 400)]], [1200, 1000, 1200]),
    ],
)
def test_brackets_are_those_of_the_sixth_oracle(
    least: int, most: int, expected: list[list[tuple[int, int]]], epochs: list[int]
) -> None:
    found = brackets(least, most, 2)
    assert found == expected
    assert [sum(trials * each for trials, each in bracket) for bracket in found] == epochs


def test_the_pruner_has_the_brackets_of_the_papers_budgets() -> None:
    study = optuna.create_study(pruner=hyperband(30, 120), direction="maximize")
    for _ in range(4):
        trial = study.ask()
        trial.report(0.5, 30)
        trial.should_prune()
    assert study.pruner._n_brackets == len(brackets(30, 120))


def test_volumes_are_those_of_the_ninth_oracle() -> None:
    points = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]
    assert hypervolume(points, (0, 0)) == 6.0
    assert hypervolume([*points, (2.5, 2.5)], (0, 0)) == 7.25


def test_the_volume_never_falls_as_points_come() -> None:
    torch.manual_seed(0)
    points = torch.rand(30, 2).tolist()
    volumes = [hypervolume(points[:n], (0, 0)) for n in range(1, 31)]
    assert all(before <= after + 1e-12 for before, after in pairwise(volumes))


def test_no_point_of_the_front_is_dominated() -> None:
    torch.manual_seed(0)
    points = torch.rand(40, 3).tolist()
    kept = front(points)
    dominated = [
        a
        for a in range(40)
        if any(b != a and all(x >= y for x, y in zip(points[b], points[a], strict=True)) for b in range(40))
    ]
    assert sorted([*kept, *dominated]) == list(range(40))


def test_noise_is_the_variance_of_the_mean_drawn_towards_that_of_all() -> None:
    # variances 2 and 8 with one degree of freedom each: 5 in all, and two more repeats of it for each point
    found = noise([[0.0, 2.0], [0.0, 4.0], [1.0]])
    assert found == pytest.approx([(2 + 10) / 3 / 2, (8 + 10) / 3 / 2, 5.0])


def test_points_without_repeats_have_no_known_noise() -> None:
    assert noise([[1.0], [2.0]]) == [0.0, 0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_values_come_back_from_the_unit_cube(kind: str) -> None:
    searched = variables(kind)
    torch.manual_seed(0)
    for point in torch.rand(50, len(searched), dtype=torch.float64).tolist():
        values = decode(searched, point)
        again = decode(searched, encode(searched, values))
        assert again == pytest.approx(values)
        made = generator(kind, values)
        assert isinstance(made, Generator if kind == "images" else RecurrentGenerator)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_ends_of_the_cube_are_the_ends_of_the_ranges(end: float) -> None:
    values = decode(IMAGES, [end] * 8)
    for name, ends in RANGES.items():
        # five neighbours are four
        assert values[name] == min(ends[int(end)], 4 if name.endswith("neighbours") else 10)


def toy(points: torch.Tensor) -> torch.Tensor:
    """Two objectives whose best trade-offs are from 0.3 to 0.7 in the first variable, at 0.5 in the second."""
    away = (points[:, 1] - 0.5) ** 2
    return torch.stack((-((points[:, 0] - 0.3) ** 2) - away, -((points[:, 0] - 0.7) ** 2) - away), 1)


def test_proposals_lie_near_the_trade_offs() -> None:
    torch.manual_seed(0)
    points = torch.rand(12, 2, dtype=torch.float64)
    values = toy(points)
    new = propose(points, values, torch.full_like(values, 1e-6), count=2, seed=1)
    assert bool(((new[:, 0] > 0.2) & (new[:, 0] < 0.8) & ((new[:, 1] - 0.5).abs() < 0.2)).all())


def test_a_proposal_keeps_away_from_what_is_pending() -> None:
    torch.manual_seed(0)
    points = torch.rand(12, 2, dtype=torch.float64)
    values = toy(points)
    first = propose(points, values, torch.full_like(values, 1e-6), seed=1)
    second = propose(points, values, torch.full_like(values, 1e-6), seed=1, pending=first)
    assert float((first - second).norm()) > 0.02


def test_a_proposal_is_a_function_of_its_seed_and_leaves_random_numbers_alone() -> None:
    points = torch.rand(8, 2, dtype=torch.float64)
    values = toy(points)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    found = [propose(points, values, torch.zeros_like(values), seed=3) for _ in range(2)]
    assert_close(*found, **tolerance.EXACT)
    assert_close(torch.get_rng_state(), before, **tolerance.EXACT)
    assert torch.get_num_threads() == threads


def told(study: Any, count: int) -> list[dict[str, Any]]:
    """Trials that are told values and repeats."""
    seen = []
    for _ in range(count):
        trial = study.ask()
        values = {variable.name: variable.suggest(trial) for variable in IMAGES}
        size = values["top_nodes"] * values["bottom_nodes"]
        repeats = [[0.5 + 0.001 * size, 0.51 + 0.001 * size], [float(size), float(size)]]
        trial.set_user_attr(REPEATS, repeats)
        study.tell(trial, [sum(own) / 2 for own in repeats])
        seen.append(values)
    return seen


def test_a_study_of_two_objectives_goes_from_even_points_to_proposals() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=Hypervolume(IMAGES, 0, start=4))
    seen = told(study, 6)
    assert len({tuple(values.values()) for values in seen}) == 6
    again = optuna.create_study(directions=["maximize", "minimize"], sampler=Hypervolume(IMAGES, 0, start=4))
    assert told(again, 6) == seen


def test_two_workers_never_get_the_same_point() -> None:
    storage = optuna.storages.InMemoryStorage()
    studies = [
        optuna.create_study(
            study_name="one",
            storage=storage,
            directions=["maximize", "minimize"],
            load_if_exists=True,
            sampler=Hypervolume(IMAGES, 0, start=4),
        )
        for _ in range(2)
    ]
    told(studies[0], 4)
    asked = []
    for study in studies:
        trial = study.ask()
        asked.append({variable.name: variable.suggest(trial) for variable in IMAGES})
    assert asked[0] != asked[1]


@pytest.mark.parametrize("optimiser", ["random", "bohb"])
def test_one_objective_is_searched_by_optuna(optimiser: str) -> None:
    study = optuna.create_study(direction="maximize", sampler=sampler(optimiser, IMAGES)(5))
    for _ in range(12):
        trial = study.ask()
        values = {variable.name: variable.suggest(trial) for variable in IMAGES}
        study.tell(trial, float(generator("images", values).operations))
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 12


def test_another_optimiser_is_refused() -> None:
    with pytest.raises(ValueError, match="optimiser must be one of random, bohb, mobo, got 'grid'"):
        sampler("grid", IMAGES)


def test_without_botorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pendula.search.optimise.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"BoTorch: pip install 'pendula\[search\]'"):
        sampler("mobo", IMAGES)(0)
