"""Jacobians of steps along a trajectory, and the bounds on gradients that they give (C11)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

import pendula
from pendula import ShapeError
from pendula.cells import CELLS, CoRNNCell, LSTMCell, ODERNNCell, UnICORNNCell
from pendula.math.schemes import TABLEAUX
from pendula.math.stability import gradient_bounds
from pendula.nets.jacobian import step_gains, step_jacobian
from tests import tolerance

I, N, T, B = 2, 3, 6, 4


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN", "LSTM", "GRU", "ODERNN"])
def test_the_jacobian_of_a_batch_is_that_of_each_sequence(network: str) -> None:
    cell = CELLS[network](I, N, dtype=torch.float64)
    state = cell.State(*(torch.randn_like(s) for s in cell.initial_state(B)))
    drive = cell.drive(torch.randn(1, B, I).double())[0]
    M, widths = step_jacobian(cell, state, drive), [s.shape[-1] for s in state]
    for b in range(B):

        def step(flat: torch.Tensor, b: int = b) -> torch.Tensor:
            parts = flat.unsqueeze(0).split(widths, -1)
            return torch.cat(cell.step(cell.State(*parts), drive[b : b + 1]), -1)[0]

        expected = torch.autograd.functional.jacobian(step, torch.cat([s[b] for s in state]))
        assert_close(M[b], expected, **tolerance.ROUNDING)


@pytest.mark.parametrize("tableau", list(TABLEAUX))
def test_without_weights_it_is_the_transition_of_the_linear_part(tableau: str) -> None:
    gamma = torch.tensor([2.0, 0.7], dtype=torch.float64)
    cell = ODERNNCell(1, 1, tableau=tableau, gamma=gamma, dt=0.3, dtype=torch.float64)
    with torch.no_grad():
        cell.W.zero_()
    J = torch.tensor([[0, 1], [-2, -0.7]], dtype=torch.float64)
    M = step_jacobian(cell, cell.initial_state(1), torch.randn(1, 1).double())
    assert_close(M[0], TABLEAUX[tableau].transition(J, 0.3), **tolerance.ROUNDING)


def test_the_last_gradient_lies_between_the_bounds_of_the_trajectory() -> None:
    cell = CoRNNCell(I, N, dtype=torch.float64)
    x, spans = torch.randn(T, B, I).double(), 0.5 + torch.rand(T, B).double()
    upper, lower = gradient_bounds(*step_gains(cell, x, timespans=spans))
    start = cell.State(*(s.requires_grad_() for s in cell.initial_state(B)))
    _, final = pendula.scan(cell, x, start, timespans=spans)
    cotangent = torch.randn(B, 2 * N).double()
    found = torch.autograd.grad(torch.cat(final, -1), tuple(start), cotangent)
    change = (torch.cat(found, -1).norm(dim=-1) / cotangent.norm(dim=-1)).log()
    assert (change <= upper + tolerance.BOUND).all()
    assert (change >= lower - tolerance.BOUND).all()
    assert (lower < upper).all()


def test_the_trajectory_is_that_of_the_scan() -> None:
    cell, x = UnICORNNCell(I, N, dtype=torch.float64), torch.randn(T, B, I).double()
    gains = step_gains(cell, x)
    state = pendula.scan(cell, x[:-1])[1]
    values = torch.linalg.svdvals(step_jacobian(cell, state, cell.drive(x)[-1]))
    assert_close((gains.largest[-1], gains.smallest[-1]), (values[:, 0], values[:, -1]), **tolerance.ROUNDING)


def test_from_no_input_yet_the_gains_are_finite() -> None:
    cell = ODERNNCell(I, N, input="linear", dtype=torch.float64)
    gains = step_gains(cell, torch.randn(T, B, I).double())
    assert bool(torch.isfinite(gains.largest).all())
    # the drive that the state keeps is overwritten at every step
    assert float(gains.smallest.abs().max()) == pytest.approx(0, abs=1e-15)
    assert gradient_bounds(*gains)[1].max() < math.log(1e-15)


def test_nothing_is_trained_through_it_and_no_gradient_is_left() -> None:
    cell = CoRNNCell(I, N)
    with torch.no_grad():
        gains = step_gains(cell, torch.randn(T, B, I))
    assert not gains.largest.requires_grad
    assert all(p.grad is None for p in cell.parameters())


def test_a_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"input must be \(time, batch, 2\), got \(6, 4, 3\)"):
        step_gains(CoRNNCell(I, N), torch.zeros(T, B, I + 1))


def test_time_spans_of_a_network_without_a_time_step_are_refused() -> None:
    with pytest.raises(ValueError, match="LSTMCell has no time step"):
        step_gains(LSTMCell(I, N), torch.zeros(T, B, I), timespans=torch.ones(T, B))
