"""Sufficient conditions C1 to C11 of odernn.md: they change at their edges (O10, O11), and give what they promise."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pendula.cells import ODERNNCell
from pendula.math.schemes import TABLEAUX, Tableau
from pendula.math.stability import (
    antisymmetric_gain,
    antisymmetric_step,
    companion,
    delay_roots,
    euler_contracts,
    euler_mixture,
    euler_nonexpansive,
    euler_step_bound,
    frozen_spectrum,
    gradient_bounds,
    linear_part_decays,
    linear_part_steps,
    log_norm,
    lstm_contracts,
    lstm_matrix,
    power_bounded,
    ssp_step,
    tanh_jacobian,
)
from tests import tolerance
from tests.cells.sheet import det

EYE = torch.eye(4, dtype=torch.float64)


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def norm(M: Tensor) -> Tensor:
    found: Tensor = torch.linalg.matrix_norm(M, 2)
    return found


def damped(count: int = 1, gamma: float = 2.0) -> Tensor:
    return torch.randn(count, 4, 4).double() - gamma * EYE


@pytest.mark.parametrize(
    ("M", "holds"),
    [
        ([[1.0, 0.0], [0.0, -1.0]], True),
        ([[0.0, 1.0], [-1.0, 0.0]], True),
        ([[0.5, 100.0], [0.0, 0.5]], True),
        ([[1.0, 0.1], [0.0, 1.0]], False),
        ([[1.0, 0.1], [-1e-20, 1.0]], False),
        ([[1.001, 0.0], [0.0, 0.5]], False),
    ],
)
def test_c1_a_double_eigenvalue_on_the_edge_may_not_be_defective(M: list[list[float]], holds: bool) -> None:
    assert bool(power_bounded(double(M)).holds) is holds


@pytest.mark.parametrize("name", list(TABLEAUX))
def test_c1_changes_at_the_largest_step_and_bounds_all_powers(name: str) -> None:
    scheme, J = TABLEAUX[name], damped(gamma=4.0)[0]
    edge = scheme.max_step(J)
    assert frozen_spectrum(scheme, J, 0.999 * edge).holds
    beyond = frozen_spectrum(scheme, J, 1.001 * edge)
    assert not beyond.holds
    assert beyond.margin < 0
    M = scheme.transition(J, 0.999 * edge)
    kappa = torch.linalg.cond(torch.linalg.eig(M).eigenvectors)
    assert all(norm(torch.matrix_power(M, k)) <= kappa * (1 + tolerance.BOUND) for k in (1, 3, 10, 100))


def test_c2_says_the_same_as_the_norm_of_an_euler_step() -> None:
    J = damped(200)
    check = euler_contracts(J, 0.3)
    assert 20 < int(check.holds.sum()) < 180
    assert_close(check.holds, norm(EYE + 0.3 * J) <= 1, **tolerance.EXACT)


def test_c3_gives_a_step_that_c2_accepts() -> None:
    J = damped(50, gamma=5.0)
    bound = euler_step_bound(J)
    assert bound > 0
    assert euler_contracts(J, bound).holds.all()
    # for J = -m I nothing is lost
    assert euler_step_bound(-3 * EYE) == pytest.approx(2 / 3)
    assert euler_step_bound(EYE) == 0
    assert_close(log_norm(J), torch.linalg.eigvalsh((J + J.mT) / 2).amax(-1), **tolerance.EXACT)


def test_c4_says_the_same_as_a_pair_that_an_euler_step_does_not_part() -> None:
    def F(u: Tensor) -> Tensor:
        return torch.relu(u @ W.T) - 1.5 * u

    W, h = torch.randn(4, 4).double(), 0.7
    u, v = 2 * torch.randn(2, 300, 4).double()
    check = euler_nonexpansive(u - v, F(u) - F(v), h)
    after = (u + h * F(u) - v - h * F(v)).norm(dim=-1)
    assert 20 < int(check.holds.sum()) < 280
    assert_close(check.holds, after <= (u - v).norm(dim=-1), **tolerance.EXACT)


@pytest.mark.parametrize("name", ["heun", "ssp33"])
def test_c5_where_euler_is_nonexpansive_an_ssp_scheme_is_too(name: str) -> None:
    # F(u) = -W^T tanh(W u) has the Jacobian -W^T D W, so that Euler contracts for h up to 2/|W|^2
    W = torch.randn(4, 4).double()

    def F(u: Tensor, c: float) -> Tensor:
        return -torch.tanh(u @ W.T) @ W

    h = ssp_step(TABLEAUX[name], float(2 / norm(W) ** 2))
    u, v = 3 * torch.randn(2, 500, 4).double()
    before = (u - v).norm(dim=-1)
    after = (TABLEAUX[name].step(F, u, h) - TABLEAUX[name].step(F, v, h)).norm(dim=-1)
    assert (after <= before * (1 + tolerance.BOUND)).all()


@pytest.mark.parametrize("name", ["midpoint", "kutta3", "rk4"])
def test_c5_of_the_other_schemes_nothing_follows(name: str) -> None:
    assert ssp_step(TABLEAUX[name], 1.0) == 0


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [0, 1]), (2, [1 / 2, 0, 1 / 2]), (3, [1 / 3, 1 / 2, 0, 1 / 6]), (4, [3 / 8, 1 / 3, 1 / 4, 0, 1 / 24])],
)
def test_c5_a_constant_linear_step_is_a_mixture_of_euler_steps(n: int, expected: list[float]) -> None:
    weights = euler_mixture(n)
    assert weights == pytest.approx(expected, abs=1e-15)
    assert sum(weights) == pytest.approx(1, rel=1e-15)
    name = ["euler", "heun", "kutta3", "rk4"][n - 1]
    z = torch.randn(20, dtype=torch.complex128)
    mixture = sum(c * (1 + z) ** k for k, c in enumerate(weights))
    assert_close(TABLEAUX[name].R(z), mixture, **tolerance.ROUNDING)
    J = damped(50, gamma=5.0)
    M = TABLEAUX[name].transition(J, euler_step_bound(J))
    assert (norm(M) <= 1 + tolerance.BOUND).all()


def antisymmetric() -> Tensor:
    M = det((4, 4), 2, 0.4)
    return M - M.T


def test_o10_antisymmetric_step_bound() -> None:
    S, gamma = antisymmetric(), 0.1
    sigma = torch.linalg.svdvals(S)
    doubled = double([1.02092330131368] * 2 + [0.569085965080692] * 2)
    assert_close(sigma, doubled, **tolerance.PRINTED_16)
    edge = antisymmetric_step(float(sigma[0]), gamma)
    assert edge == pytest.approx(0.19006268879345847, rel=1e-14)
    gains = [float(norm(EYE + k * edge * (S - gamma * EYE))) for k in (0.9, 1.0, 1.1)]
    assert gains == pytest.approx([0.998287970277974, 1, 1.00208850864255], rel=1e-14)
    assert [antisymmetric_gain(float(sigma[0]), gamma, k * edge) for k in (0.9, 1.0, 1.1)] == pytest.approx(gains)
    holds = [bool(euler_contracts(S - gamma * EYE, k * edge).holds) for k in (0.9, 1 - 1e-9, 1 + 1e-9, 1.1)]
    assert holds == [True, True, False, False]


def test_c6_without_damping_euler_grows_by_no_more_than_its_bound() -> None:
    S, h, steps = antisymmetric(), 0.05, 200
    sigma = float(norm(S))
    grown = float(norm(torch.matrix_power(EYE + h * S, steps)))
    assert grown == pytest.approx(antisymmetric_gain(sigma, 0, h) ** steps, rel=1e-12)
    assert 1 < grown <= math.exp(steps * h**2 * sigma**2 / 2)


S2 = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
D1, D2 = torch.diag(double([1, 0.01])), torch.diag(double([0.01, 1]))


def test_o11_harmless_spectra_multiply_to_growth() -> None:
    q = 5 * math.pi
    for D in (D1, D2):
        values = torch.linalg.eigvals(D @ S2)
        assert_close(values.real, double([0, 0]), rtol=0, atol=1e-16)
        assert_close(values.imag.abs(), double([0.1, 0.1]), **tolerance.ROUNDING)
    product = torch.linalg.matrix_exp(q * D2 @ S2) @ torch.linalg.matrix_exp(q * D1 @ S2)
    assert_close(product, double([[-0.01, 0], [0, -100]]), rtol=1e-12, atol=1e-12)
    eye = torch.eye(2).double()
    for gamma, real, radius in ((0.01, -0.00505, 85.542961997), (0.05, -0.02525, 48.131292251)):
        flows = []
        for D in (D1, D2):
            J = D @ (S2 - gamma * eye)
            assert_close(torch.linalg.eigvals(J).real, double([real, real]), **tolerance.ROUNDING)
            # what C1 lets pass, C2 does not
            assert frozen_spectrum(TABLEAUX["rk4"], J, 0.1).holds
            assert not euler_contracts(J, 0.1).holds
            flows.append(torch.linalg.matrix_exp(q * J))
        found = torch.linalg.eigvals(flows[1] @ flows[0]).abs().max().item()
        assert found == pytest.approx(radius, rel=1e-10)


def test_c7_the_slope_of_tanh_stands_before_the_matrix() -> None:
    S, bias, gamma, y = antisymmetric(), torch.randn(4).double(), 0.3, torch.randn(4).double()
    measured = torch.autograd.functional.jacobian(lambda y: torch.tanh(S @ y + bias) - gamma * y, y)
    assert_close(tanh_jacobian(S, S @ y + bias, gamma), measured, **tolerance.ROUNDING)


def test_c7_each_is_conservative_in_its_own_norm_and_not_in_the_common_one() -> None:
    S, before = antisymmetric(), torch.randn(4).double()
    J, D = tanh_jacobian(S, before), 1 - torch.tanh(before) ** 2
    assert torch.linalg.eigvals(J).real.max() <= 1e-15
    scaled = D.rsqrt().unsqueeze(1) * J * D.sqrt()
    assert_close(scaled, -scaled.T, rtol=0, atol=1e-15)
    assert log_norm(J) > 0.01


@pytest.mark.parametrize(
    ("gamma", "holds"),
    [
        ([0.01], True),
        ([0.0], False),
        ([1.0, 0.2], True),
        ([1.0, 0.0], False),
        ([0.0, 0.2], False),
        ([1.0, 2.0, 2.0], True),
        # gamma_2 gamma_1 > gamma_0 fails
        ([1.0, 0.9, 1.0], False),
        ([1.0, 1.1, 1.0], True),
    ],
)
def test_c8_hurwitz(gamma: list[float], holds: bool) -> None:
    assert bool(linear_part_decays(double(gamma)).holds) is holds


def test_c8_the_companion_block_is_the_equation() -> None:
    assert_close(companion(double([1, 2, 2])), double([[0, 1, 0], [0, 0, 1], [-1, -2, -2]]), **tolerance.EXACT)
    assert companion(torch.ones(5, 3)).shape == (5, 3, 3)


def answers(scheme: Tableau | None, gamma: Tensor, h: float) -> list[Tensor]:
    """What a force of 1 at one stage only adds to (y, y') from rest, for each stage."""
    if scheme is None:
        return [double([h**2, h])]
    found, J = [], companion(gamma)
    for forced in range(scheme.stages):
        stage = iter(range(scheme.stages))
        push = double([0, 1])
        found.append(
            scheme.step(lambda Z, c: J @ Z + (push if next(stage) == forced else 0 * push), double([0, 0]), h)  # noqa: B023
        )
    return found


@pytest.mark.parametrize("name", [*TABLEAUX, "semi-implicit"])
def test_c8_a_linear_part_that_decays_in_steps_bounds_the_motion_under_any_force(name: str) -> None:
    gamma, h = double([0.8, 0.9]), 0.2
    scheme = TABLEAUX.get(name)
    check = linear_part_steps(scheme, gamma, h)
    assert check.value < 1
    R = companion(gamma)
    R = scheme.transition(R, h) if scheme else double([[1 - 0.8 * h**2, h - 0.9 * h**2], [-0.8 * h, 1 - 0.9 * h]])
    assert_close(torch.linalg.eigvals(R).abs().amax(), check.value, **tolerance.ROUNDING)
    # the worst force of size 1 at every stage of every step
    bound = sum((torch.matrix_power(R, k) @ b).abs() for b in answers(scheme, gamma, h) for k in range(1000))
    cell = ODERNNCell(1, 3, tableau=name, dt=h, gamma=gamma, dtype=torch.float64)
    with torch.no_grad():
        cell.W.mul_(100)
        state, largest = cell.initial_state(4), torch.zeros(2).double()
        for drive in 100 * torch.randn(500, 4, 3).double():
            state = cell.step(state, drive)
            largest = torch.maximum(largest, state.Z.reshape(4, 2, 3).abs().amax((0, 2)))
    assert (largest <= bound).all()
    # and a force that never turns comes to 1/gamma_0, which no bound can be below
    assert bound[0] >= 1 / 0.8 * (1 - tolerance.BOUND)


@pytest.mark.parametrize("h", [0.1, [0.1, 0.2, 0.3]])
def test_c8_every_unit_has_its_own_block(h: Any) -> None:
    gamma = double([[1.0, 0.2], [2.0, 0.1], [4.0, 0.0]])
    steps = double(h).expand(3)
    for scheme in (TABLEAUX["euler"], TABLEAUX["rk4"], None):
        together = linear_part_steps(scheme, gamma, double(h))
        alone = [linear_part_steps(scheme, g, s) for g, s in zip(gamma, steps, strict=True)]
        assert_close(together.value, torch.stack([a.value for a in alone]), **tolerance.ROUNDING)
        assert together.holds.tolist() == [bool(a.holds) for a in alone]


def test_c9_a_sum_of_at_most_one_meets_the_root_condition() -> None:
    for _ in range(100):
        alpha = torch.randn(3).double()
        assert delay_roots(alpha / alpha.abs().sum()).holds
    # 2 y_k - y_{k-1}: a double root at 1
    assert not delay_roots(double([2, -1])).holds
    assert delay_roots(double([0, 1])).holds
    assert delay_roots(double([0.5])).holds


def test_c10_two_lstm_states_come_closer_by_at_least_the_matrix() -> None:
    lstm = nn.LSTM(2, 3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.mul_(0.5)
        U = lstm.weight_hh_l0
        start = 0.5 * torch.randn(2, 1, 3).double(), 0.5 * torch.randn(2, 1, 3).double()
        x, gaps, f_max, c_max = torch.randn(20, 1, 2).double(), [], 0.0, 0.0
        states = [tuple(s[k : k + 1] for s in start) for k in range(2)]
        for u in x:
            gaps.append(double([float((states[0][k] - states[1][k]).abs().max()) for k in (1, 0)]))
            for k, (h, c) in enumerate(states):
                a = u @ lstm.weight_ih_l0.T + h[0] @ U.T + lstm.bias_ih_l0 + lstm.bias_hh_l0
                f_max, c_max = max(f_max, float(torch.sigmoid(a[:, 3:6]).max())), max(c_max, float(c.abs().max()))
                states[k] = lstm(u.unsqueeze(0), (h, c))[1]
        P = lstm_matrix(U, f_max, c_max)
        assert all((b <= P @ a * (1 + tolerance.BOUND) + 1e-15).all() for a, b in pairwise(gaps))
        assert lstm_contracts(0.1 * U, 0.5).holds
        assert not lstm_contracts(20 * U, 0.9).holds
        # from rest no cell state exceeds 1/(1 - f_max)
        assert_close(lstm_matrix(U, 0.5), lstm_matrix(U, 0.5, 2.0), **tolerance.EXACT)


def test_c11_gradients_lie_between_the_products_of_the_singular_values() -> None:
    M = EYE + 0.3 * torch.randn(12, 4, 4).double()
    values = torch.linalg.svdvals(M)
    upper, lower = gradient_bounds(values[:, 0], values[:, -1])
    product = torch.linalg.svdvals(torch.linalg.multi_dot(list(M)))
    assert product[0].log() <= upper + tolerance.BOUND
    assert product[-1].log() >= lower - tolerance.BOUND


def test_a_scheme_of_ones_own_gets_its_own_conditions() -> None:
    two_halves = Tableau(((0, 0), (0.5, 0)), (0.5, 0.5))
    assert ssp_step(two_halves, 1.0) == pytest.approx(2)
