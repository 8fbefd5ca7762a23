"""The surrogate of the paper: its oracles, the dynamics that draw it, what it learns of values and of their noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.testing import assert_close

from pendula.search import bayesian
from pendula.search.bayesian import (
    Networks,
    ball,
    learn,
    log_expected_improvement,
    moments,
    negative_log_likelihood,
    penalty,
    sghmc,
)
from tests import tolerance


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_moments_and_likelihood_are_those_of_the_seventh_oracle() -> None:
    f, w2 = doubles(0.92, 0.95, 0.90, 0.93), doubles(4e-4, 9e-4, 1e-4, 4e-4)
    mu, variance = moments(f, w2)
    found = torch.stack((mu, variance, moments(f, 0 * w2)[1], w2.mean()))
    assert_close(found, doubles(0.925, 7.75e-4, 3.25e-4, 4.5e-4), **tolerance.PRINTED_16)
    likelihood = negative_log_likelihood(doubles(0.94), mu, variance)
    assert_close(likelihood, doubles(-2.5172239407782766), **tolerance.ORACLE)


PENDING = doubles(0.3, 0.1, 0.3)


def radii(point: Tensor, slope: float) -> Tensor:
    """Of the eighth oracle."""
    return ball(point.unsqueeze(0), PENDING, doubles(0.9), doubles(0.05), doubles(0.96), doubles(slope))[0]


@pytest.mark.parametrize(
    ("slope", "ratio", "hard", "smooth"),
    [(2.0, 6.803013430498, 1.0, 0.999986275217), (0.2, 0.680301343050, 0.680301343050, 0.662042618881)],
)
def test_penalties_are_those_of_the_eighth_oracle(slope: float, ratio: float, hard: float, smooth: float) -> None:
    found = radii(doubles(0.2, 0.4, 0.1), slope)
    both = torch.cat((found, penalty(found, -math.inf), penalty(found, -5.0)))
    assert_close(both, doubles(ratio, hard, smooth), **tolerance.decimals(12))


@pytest.mark.parametrize("power", [-math.inf, -5.0])
def test_nothing_is_left_of_an_acquisition_at_a_pending_point(power: float) -> None:
    assert penalty(radii(PENDING, 2.0), power).tolist() == [0.0]


@pytest.mark.parametrize("u", [-6.0, -1.5, -0.5, 0.0, 3.0])
def test_the_expected_improvement_is_its_integral(u: float) -> None:
    mu, sigma, best = doubles(2.0 + 0.3 * u), doubles(0.3), doubles(2.0)
    y = torch.linspace(2.0, 2.0 + 0.3 * max(u + 12, 6), 400_001, dtype=torch.float64)
    density = torch.exp(-negative_log_likelihood(y, mu, sigma**2))
    wanted = torch.trapezoid((y - best) * density, y)
    assert_close(log_expected_improvement(mu, sigma, best)[0], torch.log(wanted), **tolerance.PRINTED_7)


def test_an_improvement_too_small_for_its_number_still_has_a_logarithm() -> None:
    u = doubles(-60.0, -50.0, -40.0)
    # Mills' ratio: phi(u) / u^2 (1 - 3 / u^2 + 15 / u^4 - ...)
    series = torch.log1p(-3 / u**2 + 15 / u**4) - 2 * torch.log(-u) - 0.5 * u**2 - 0.5 * math.log(2 * math.pi)
    assert torch.exp(series).tolist() == [0.0] * 3
    assert_close(log_expected_improvement(u, torch.ones_like(u), torch.zeros_like(u)), series, **tolerance.PRINTED_7)


def test_the_dynamics_draw_a_normal_of_the_variance_of_its_potential() -> None:
    stiff = torch.tensor([1.0, 100.0], dtype=torch.float64).repeat(40)
    start = torch.zeros(50, 80, dtype=torch.float64)
    drawn = sghmc(lambda w: stiff * w, start, Generator().manual_seed(0))
    assert drawn.shape == (bayesian.SAMPLES, 80)
    # 4000 numbers of each stiffness: their variance is known to 2 %
    ratios = [float(drawn[:, k::2].var() * stiff[k]) for k in (0, 1)]
    assert ratios == pytest.approx([1.0, 1.0], abs=0.1)


def observed(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points with two networks each, what these have, and how noisy the points are: more to the right."""
    chance = Generator().manual_seed(seed)
    points = torch.rand(count, 2, generator=chance, dtype=torch.float64).repeat_interleave(2, 0)
    sigma = 0.05 + 0.55 * points[:, 0]
    values = true(points) + sigma * torch.randn(len(points), generator=chance, dtype=torch.float64)
    return points, values, sigma


def true(points: Tensor) -> Tensor:
    return torch.sin(4 * points[:, 0]) + 2 * points[:, 1]


@pytest.fixture(scope="module")
def learnt() -> Networks:
    points, values, _ = observed(30, 0)
    return learn(points, values.unsqueeze(1), seed=0)


def test_it_predicts_better_than_a_constant(learnt: Networks) -> None:
    _, known, _ = observed(30, 0)
    points, values, _ = observed(200, 1)
    mu, variance = moments(*learnt(points))
    error = (mu[:, 0] - true(points)).square().mean().sqrt()
    assert error < 0.4 * true(points).std()
    constant = negative_log_likelihood(values, known.mean(), known.var()).mean()
    assert negative_log_likelihood(values, mu[:, 0], variance[:, 0]).mean() < constant - 0.5


def test_it_learns_where_networks_differ_more(learnt: Networks) -> None:
    points, _, sigma = observed(200, 1)
    noise = learnt(points)[1][..., 0].mean(0).sqrt()
    assert noise[points[:, 0] > 0.75].mean() > 2 * noise[points[:, 0] < 0.25].mean()
    assert torch.corrcoef(torch.stack((noise, sigma)))[0, 1] > 0.8


def test_it_is_less_sure_of_the_mean_where_nothing_is_known() -> None:
    points = torch.rand(20, 2, generator=Generator().manual_seed(1), dtype=torch.float64) * 0.4
    f, _ = learn(points, true(points).unsqueeze(1), seed=1)(torch.cat((points, points + 0.6)))
    spread = f[..., 0].std(0)
    assert spread[20:].mean() > 3 * spread[:20].mean()


def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayesian, "WARM_UP", 20)
    monkeypatch.setattr(bayesian, "APART", 2)


def test_networks_are_a_function_of_their_seed_and_leave_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    quicker(monkeypatch)
    points, values, _ = observed(10, 0)
    found = []
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        found.append(learn(points, values.unsqueeze(1), seed=seed).weights)
        assert_close(torch.get_rng_state(), before, **tolerance.EXACT)
    assert_close(found[0], found[1], **tolerance.EXACT)
    assert not torch.equal(found[0], found[2])


def test_values_in_other_units_give_the_same_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    quicker(monkeypatch)
    points, values, _ = observed(10, 0)
    one, other = (learn(points, (scale * values + shift).unsqueeze(1)) for scale, shift in ((1.0, 0.0), (1024.0, 3.0)))
    for shown, again, power in zip(one(points), other(points), (1, 2), strict=True):
        expected = 1024.0**power * shown + (3.0 if power == 1 else 0.0)
        assert_close(again, expected, rtol=1e-6, atol=1e-6)


def test_equal_values_are_no_difficulty(monkeypatch: pytest.MonkeyPatch) -> None:
    quicker(monkeypatch)
    points = torch.rand(6, 2, dtype=torch.float64)
    new = bayesian.propose(points, [[[1.0], [2.0]] for _ in points])
    assert bool(((new >= 0) & (new <= 1)).all())
