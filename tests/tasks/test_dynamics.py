"""Lorenz-96, Mackey-Glass and FitzHugh-Nagumo (spec sheet cornn.md 5.5 and 5.6)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy
import pytest
import torch

from pendula.tasks.dynamics import (
    FitzHughNagumo,
    Forecast,
    Lorenz96,
    MackeyGlass,
    integrate,
    integrate_delayed,
)

PARTS = ("train", "validation", "test")
SIZES = {"train_size": 4, "validation_size": 3, "test_size": 5}


def small(kind: type[Forecast], **options: float) -> Forecast:
    return kind(length=30, **SIZES, **options)  # type: ignore[call-arg, arg-type]


KINDS = [Lorenz96, FitzHughNagumo, MackeyGlass]


def orders(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.parametrize("kind", [Lorenz96, FitzHughNagumo])
def test_the_integrator_is_of_order_four(kind: type[Forecast]) -> None:
    task = small(kind)
    start = numpy.random.default_rng(0).uniform(-1, 1, (3, 5 if kind is Lorenz96 else 2))
    # dt is 0.4 here, so that errors stand above rounding
    ends = [integrate(task.field, start, 0.4, 3, 2**k * 8)[:, -1] for k in range(5)]  # type: ignore[attr-defined]
    errors = [float(numpy.abs(end - ends[-1]).max()) for end in ends[:3]]
    assert all(3.7 < order < 4.4 for order in orders(errors))


def test_the_integrator_of_the_delay_equation_is_of_order_four() -> None:
    start = numpy.array([0.8, 1.5])
    ends = [integrate_delayed(MackeyGlass.field, start, 17.0, 17.0, 4, 17 * 2**k)[:, -1] for k in range(5)]
    errors = [float(numpy.abs(end - ends[-1]).max()) for end in ends[:3]]
    assert all(3.7 < order < 4.5 for order in orders(errors))


def test_a_delay_that_falls_between_two_steps_is_interpolated() -> None:
    start = numpy.array([0.8, 1.5])
    # 10 is 33 1/3 steps of 0.3; the corners at 10, 20, ... fall between steps: order 2 at least
    coarse, fine = (integrate_delayed(MackeyGlass.field, start, 10.0, 6.0, 9, 20 * k)[:, -1] for k in (1, 50))
    assert numpy.abs(coarse - fine).max() < 1e-4


def test_a_linear_delay_equation_follows_its_exact_solution() -> None:
    # x' = -x(t - 1) with x = 1 before: 1 - t, then 1 - t + (t - 1)^2 / 2 (method of steps)
    course = integrate_delayed(lambda x, delayed: -delayed, numpy.ones(1), 1.0, 0.25, 9, 2)[0]
    t = numpy.arange(9) / 4
    exact = 1 - t + numpy.where(t > 1, (t - 1) ** 2 / 2, 0)
    assert course == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("forcing", [0.9, 8.0])
def test_the_state_where_all_are_the_forcing_is_stationary_in_lorenz_96(forcing: float) -> None:
    task = small(Lorenz96, forcing=forcing)
    assert isinstance(task, Lorenz96)
    course = integrate(task.field, numpy.full((1, 5), forcing), 0.05, 20, 2)
    assert course == pytest.approx(numpy.full((1, 20, 5), forcing), abs=1e-12)


def test_without_forcing_the_energy_of_lorenz_96_decays_like_exp_of_minus_2t() -> None:
    # the quadratic terms conserve the sum of squares
    task = small(Lorenz96)
    assert isinstance(task, Lorenz96)
    task.forcing = 0.0
    course = integrate(task.field, numpy.random.default_rng(1).normal(size=(4, 7)), 0.1, 11, 20)
    energy = (course**2).sum(2)
    assert energy[:, -1] == pytest.approx(energy[:, 0] * math.exp(-2), rel=1e-7)


def test_lorenz_96_is_a_ring_and_reads_its_neighbours_as_published() -> None:
    task = small(Lorenz96)
    assert isinstance(task, Lorenz96)
    x = numpy.random.default_rng(2).normal(size=(1, 6))
    slope = [(x[0, (k + 1) % 6] - x[0, k - 2]) * x[0, k - 1] - x[0, k] + 8 for k in range(6)]
    assert task.field(x)[0] == pytest.approx(slope, rel=1e-12)


def test_lorenz_96_forgets_its_start_at_forcing_8_and_not_at_0_9() -> None:
    spread = {}
    for forcing in (0.9, 8.0):
        task = small(Lorenz96, forcing=forcing)
        assert isinstance(task, Lorenz96)
        start = numpy.random.default_rng(3).uniform(-0.5, 0.5, (1, 5)) + forcing
        pair = numpy.concatenate((start, start + 1e-8))
        course = integrate(task.field, pair, 0.5, 81, 20)
        spread[forcing] = float(numpy.abs(course[0, -1] - course[1, -1]).max())
    assert spread[0.9] < 1e-7
    assert spread[8.0] > 1e-2


def test_the_state_where_history_and_present_are_one_is_stationary_in_mackey_glass() -> None:
    # 0.2 / (1 + 1) = 0.1
    assert integrate_delayed(MackeyGlass.field, numpy.ones(2), 17.0, 1.0, 200, 10) == pytest.approx(1, abs=1e-12)


def test_mackey_glass_stays_on_its_attractor() -> None:
    x = small(MackeyGlass).part("test").flat
    assert 0.2 < float(x.min()) < float(x.max()) < 1.5


def test_fitzhugh_nagumo_starts_in_the_published_set_and_has_its_slope() -> None:
    task = small(FitzHughNagumo)
    assert isinstance(task, FitzHughNagumo)
    first = task.rows("test", torch.arange(5), 0, 0).x[0]
    assert float(first.abs().max()) <= 1
    assert len(first.unique()) == 5
    slope = task.field(numpy.array([[0.3, -0.2]]))
    assert slope[0] == pytest.approx([0.3 - 0.009 + 0.2 + 0.5, (0.3 + 0.7 + 0.16) / 50], rel=1e-12)


def test_fitzhugh_nagumo_has_the_published_sizes() -> None:
    task = FitzHughNagumo()
    assert [task.size(part) for part in PARTS] == [128, 128, 1024]
    assert task.rows("train", torch.arange(2), 0, 0).x.shape == (1000, 2, 1)


@pytest.mark.parametrize(("kind", "horizon"), [(Lorenz96, 25), (FitzHughNagumo, 1), (MackeyGlass, 15)])
def test_every_step_asks_for_the_state_so_many_samples_ahead(kind: type[Forecast], horizon: int) -> None:
    task = small(kind)
    assert task.horizon == horizon
    batch = task.rows("validation", torch.arange(3), 0, 0)
    assert batch.x.shape == batch.y.shape == (30, 3, task.output_size)
    assert torch.equal(batch.x[horizon:], batch.y[:-horizon])
    assert not torch.equal(batch.x, batch.y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_have_their_sizes_and_share_no_trajectory(kind: type[Forecast]) -> None:
    task = small(kind)
    assert [task.size(part) for part in PARTS] == [4, 3, 5]
    starts = torch.cat([task.rows(part, torch.arange(task.size(part)), 0, 0).x[0] for part in PARTS])
    assert len(starts.unique(dim=0)) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_trajectories_are_drawn_by_the_data_seed_alone(kind: type[Forecast]) -> None:
    torch.manual_seed(1)
    first, same, other = (small(kind, data_seed=seed) for seed in (2, 2, 3))
    assert torch.equal(first.part("test").flat, same.part("test").flat)
    assert first.digest() == same.digest() != other.digest()


@pytest.mark.parametrize("kind", KINDS)
def test_a_trajectory_does_not_depend_on_how_many_there_are(kind: type[Forecast]) -> None:
    fewer = kind(length=30, train_size=2, validation_size=1, test_size=1)  # type: ignore[call-arg]
    index = torch.arange(2)
    assert torch.allclose(fewer.rows("train", index, 0, 0).x, small(kind).rows("train", index, 0, 0).x, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_predicting_the_mean_has_a_normalised_error_of_one(kind: type[Forecast]) -> None:
    task = small(kind)
    batch = task.rows("test", torch.arange(5), 0, 0)
    guess = batch.y.double().mean((0, 1)).expand(batch.y.shape)
    loss = float(task.loss(guess, batch))
    assert loss == pytest.approx(task.variance, rel=1e-5)
    assert task.nrmse(loss) == pytest.approx(1, rel=1e-5)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="dimension must be a whole number, at least 4, got 3"):
        small(Lorenz96, dimension=3)
    with pytest.raises(ValueError, match=r"the integration overflows with dt=0\.05: take a smaller one"):
        small(Lorenz96, forcing=1e6)
    with pytest.raises(ValueError, match="horizon must be a whole number"):
        small(MackeyGlass, horizon=0)
    with pytest.raises(ValueError, match=r"the inner step dt / 1 = 2 must be at most tau = 1"):
        integrate_delayed(MackeyGlass.field, numpy.ones(1), 1.0, 2.0, 3, 1)
