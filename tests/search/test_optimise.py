"""Optimisers: the brackets and volumes of the sheet, and what all surrogates have in common."""

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

from pendula.search import bayesian, gaussian  # noqa: E402
from pendula.search.optimise import (  # noqa: E402
    REPEATS,
    SURROGATES,
    Proposals,
    brackets,
    front,
    hyperband,
    hypervolume,
    sampler,
)

IMAGES = variables("images")
surrogates = pytest.mark.parametrize("surrogate", SURROGATES)


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


def alone(values: torch.Tensor) -> list[list[list[float]]]:
    """Values of points with one network each."""
    return [[[value] for value in row] for row in values.tolist()]


def random_points(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_proposals_of_the_processes_lie_near_the_trade_offs() -> None:
    points = random_points(12, 0)
    new = gaussian.propose(points, alone(toy(points)), count=2, seed=1)
    assert bool(((new[:, 0] > 0.2) & (new[:, 0] < 0.8) & ((new[:, 1] - 0.5).abs() < 0.2)).all())


@pytest.mark.parametrize(("wider", "low", "high"), [(-0.1, 0.25, 0.35), (0.1, 0.65, 0.75)])
def test_of_the_trade_offs_the_network_takes_the_one_it_knows_least(
    wider: float, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(points: torch.Tensor, values: torch.Tensor, *, seed: int) -> Any:
        # it knows the means, and is a little less sure to one side
        return lambda x: (toy(x).unsqueeze(0), (0.01 * (1 + wider * x[:, :1])).expand(-1, 2).unsqueeze(0))

    monkeypatch.setattr(bayesian, "learn", learn)
    points = random_points(12, 0)
    ((across, along),) = bayesian.propose(points, alone(toy(points)), seed=1).tolist()
    assert low < across < high
    assert abs(along - 0.5) < 0.1


@surrogates
def test_a_proposal_keeps_away_from_what_is_pending(surrogate: str) -> None:
    points = random_points(12, 0)
    repeats, propose = alone(toy(points)), SURROGATES[surrogate]
    first = propose(points, repeats, seed=1)
    second = propose(points, repeats, seed=1, pending=first)
    assert float((first - second).norm()) > 0.02


@surrogates
def test_proposals_at_once_keep_away_from_one_another(surrogate: str) -> None:
    points = random_points(12, 0)
    new = SURROGATES[surrogate](points, alone(toy(points)), count=3, seed=1)
    assert new.shape == (3, 2)
    assert float(torch.pdist(new).min()) > 0.02


@surrogates
def test_a_proposal_is_a_function_of_its_seed_and_leaves_random_numbers_alone(
    surrogate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quicker(monkeypatch)
    points = random_points(8, 0)
    found = []
    for number in (0, 1):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        found.append(SURROGATES[surrogate](points, alone(toy(points)), seed=3))
        assert_close(torch.get_rng_state(), before, **tolerance.EXACT)
    assert_close(*found, **tolerance.EXACT)


def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that have hardly moved: for claims that don't ask how good they are."""
    monkeypatch.setattr(bayesian, "WARM_UP", 20)
    monkeypatch.setattr(bayesian, "APART", 2)


def test_proposals_of_the_papers_network_gain_more_than_random_points() -> None:
    gained = []
    for seed in range(3):
        # as a search begins
        engine: Any = torch.quasirandom.SobolEngine
        begun = engine(2, scramble=True, seed=seed).draw(8, dtype=torch.float64)
        points = begun
        for number in (0, 1):
            new = bayesian.propose(points, alone(toy(points)), count=4, seed=10 * seed + number)
            points = torch.cat((points, new))
        others = torch.cat((begun, random_points(8, seed)))
        proposed, random = (hypervolume(toy(found).tolist(), (-0.3, -0.3)) for found in (points, others))
        gained.append(proposed / random)
    assert min(gained) > 1.05


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


@surrogates
def test_a_study_of_two_objectives_goes_from_even_points_to_proposals(
    surrogate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quicker(monkeypatch)
    asked: list[int] = []
    propose = SURROGATES[surrogate]
    monkeypatch.setitem(SURROGATES, surrogate, lambda *given, **named: asked.append(1) or propose(*given, **named))
    seen = []
    for _ in range(2):
        made = Proposals(IMAGES, 0, surrogate=surrogate, start=4)
        seen.append(told(optuna.create_study(directions=["maximize", "minimize"], sampler=made), 6))
    assert seen[0] == seen[1]
    assert len({tuple(values.values()) for values in seen[0]}) == 6
    assert len(asked) == 2 * 2


def test_a_proposal_leaves_the_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before, meanwhile = torch.get_num_threads(), []

    def propose(points: torch.Tensor, repeats: Any, **named: Any) -> torch.Tensor:
        meanwhile.append(torch.get_num_threads())
        return points[:1]

    monkeypatch.setitem(SURROGATES, "gp", propose)
    made = Proposals(IMAGES, 0, start=2, threads=before + 1)
    told(optuna.create_study(directions=["maximize", "minimize"], sampler=made), 3)
    assert (meanwhile, torch.get_num_threads()) == ([before + 1], before)


def test_what_is_less_is_better_where_the_study_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def propose(points: torch.Tensor, repeats: Any, **named: Any) -> torch.Tensor:
        seen.extend(repeats)
        return points[:1]

    monkeypatch.setitem(SURROGATES, "gp", propose)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=Proposals(IMAGES, 0, start=2))
    told(study, 3)
    kept = [trial.user_attrs[REPEATS] for trial in study.trials[:2]]
    assert seen == [[accuracy, [-size for size in sizes]] for accuracy, sizes in kept]


def test_two_workers_never_get_the_same_point() -> None:
    storage = optuna.storages.InMemoryStorage()
    studies = [
        optuna.create_study(
            study_name="one",
            storage=storage,
            directions=["maximize", "minimize"],
            load_if_exists=True,
            sampler=Proposals(IMAGES, 0, start=4),
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


def test_another_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate must be one of gp, bnn, got 'gpp'"):
        sampler("mobo", IMAGES, surrogate="gpp")(0)


def test_another_optimiser_is_refused() -> None:
    with pytest.raises(ValueError, match="optimiser must be one of random, bohb, mobo, got 'grid'"):
        sampler("grid", IMAGES)


def test_without_botorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pendula.search.optimise.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"BoTorch: pip install 'pendula\[search\]'"):
        sampler("mobo", IMAGES)(0)
