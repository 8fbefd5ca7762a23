"""One oscillator: its matrix is the cell's step, its stability limits and bounds hold at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from pendula.math.oscillator import (
    VARIANTS,
    critical_step,
    energy,
    energy_bound,
    growth_rate,
    spectral_radius,
    stability_objections,
    transition,
    uniform_bound,
)
from tests import tolerance
from tests.cells.cornn_cases import double, filled, jacobian, larger, lone, trajectory

BOTH = pytest.mark.parametrize("variant", VARIANTS)


@BOTH
def test_the_matrix_is_the_jacobian_of_an_unforced_step(variant: str) -> None:
    cell = lone(variant, dt=0.1)
    zero = torch.zeros(1).double()
    matrix, _ = transition(cell.dt, cell.gamma, cell.epsilon, variant)
    assert_close(matrix, jacobian(cell, zero, zero, zero), **tolerance.ROUNDING)


@BOTH
def test_the_column_is_the_answer_to_a_full_force(variant: str) -> None:
    cell = lone(variant, dt=0.1)
    _, column = transition(cell.dt, cell.gamma, cell.epsilon, variant)
    state = cell.step(cell.initial_state(1), double([[1e3]]))
    assert_close(torch.cat(state).flatten(), column, **tolerance.ROUNDING)


@BOTH
def test_the_objection_appears_at_the_critical_step(variant: str) -> None:
    edge = critical_step(4.0, 0.5, variant)
    below, above = (
        [s for s in stability_objections(double(edge * k), double(4.0), double(0.5), variant) if "unstable" in s]
        for k in (0.999, 1.001)
    )
    assert (len(below), len(above)) == (0, 1)


@BOTH
def test_without_a_contraction_the_uniform_bound_is_infinite(variant: str) -> None:
    edge = critical_step(4.0, 0.5, variant)
    assert uniform_bound(1.001 * edge, 4.0, 0.5, variant) == (math.inf, math.inf)


def test_the_uniform_bound_of_a_step_that_forgets_all_in_two_is_finite() -> None:
    # A = [[0, 0], [-1, 0]]: the spectral radius is 0, so that its logarithm is not a number to divide by
    assert uniform_bound(1.0, 1.0, 1.0, "explicit") == (1.0, 2.0)


@pytest.mark.parametrize("gamma", [0.2, 0.4, 1.3])
def test_with_positive_real_eigenvalues_the_position_bound_is_one_over_gamma(gamma: float) -> None:
    assert uniform_bound(0.05, gamma, 8.0, "explicit")[0] == pytest.approx(1 / gamma, rel=tolerance.BOUND)


@BOTH
def test_spectral_radius_of_many_units_is_that_of_each(variant: str) -> None:
    dt, gamma, epsilon = double([0.05, 0.1, 0.2]), double(2.0), double([3.0, 2.0, 1.0])
    together = spectral_radius(dt, gamma, epsilon, variant)
    alone = torch.stack([spectral_radius(d, gamma, e, variant) for d, e in zip(dt, epsilon, strict=True)])
    assert_close(together, alone, **tolerance.ROUNDING)


@BOTH
@pytest.mark.parametrize("size", [0.3, 3.0, 30.0])
def test_no_forced_network_exceeds_the_energy_bound(variant: str, size: float) -> None:
    cell = larger(variant, dt=0.05, gamma=2.0, epsilon=3.0)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
        y, z = trajectory(cell, torch.randn(400, 8, 2).double())
    physics = cell.dt, cell.gamma, cell.epsilon
    elapsed = 0.05 * torch.arange(1, 401).double().unsqueeze(1)
    ratio = energy(y, z, *physics, variant) / energy_bound(4, elapsed, *physics)
    assert ratio.max() <= 1 + tolerance.BOUND


@BOTH
def test_no_step_jacobian_exceeds_the_growth_rate(variant: str) -> None:
    dt, gamma, epsilon = 0.05, 2.0, 3.0
    omega = 1 - epsilon * dt if variant == "explicit" else 1.0
    scale = double([gamma] * 4 + [omega] * 4).sqrt()
    for _ in range(25):
        w, w_z = (4 * torch.rand(()).double() * torch.randn(4, 4).double() for _ in range(2))
        cell = filled(larger(variant, dt=dt, gamma=gamma, epsilon=epsilon), W=w, W_z=w_z)
        matrix = jacobian(cell, torch.randn(4).double(), torch.randn(4).double(), torch.randn(4).double())
        norm = torch.linalg.matrix_norm(scale.unsqueeze(1) * matrix / scale, 2)
        assert norm <= (1 + dt * growth_rate(w, w_z, dt, gamma, epsilon, variant)) * (1 + tolerance.BOUND)
