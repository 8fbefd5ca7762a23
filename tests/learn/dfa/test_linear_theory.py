"""Oracle 2 (b) and (c) of the spec sheet dfa.md: what is conserved while a linear network learns (T1, T2; P6, P7)."""

from __future__ import annotations

import pytest
import torch
from tests.learn.dfa.sheet import F, degrees, half_squared, model_of, numbers, with_feedback
from tests.tolerance import decimals
from torch import Tensor
from torch.testing import assert_close

from pendula import Model, Node
from pendula.learn.dfa import DFA
from pendula.tasks.base import Batch

A, W = "layers.layer0.linear.weight", "readout.weight"
B = F(14, (4, 2))
TEACHER, X = F(9, (2, 3)), F(11, (3, 8))


def network(**weights: Tensor) -> Model:
    return model_of([Node("Linear", 4, bias=False)], (3, 2), weights)


def mean_loss(output: Tensor, batch: Batch) -> Tensor:
    return half_squared(output, batch) / 8


def batch() -> Batch:
    return Batch(X.T.unsqueeze(0), (TEACHER @ X).T)


def descend(model: Model, rate: float, steps: int) -> Tensor:
    """Simultaneous Euler steps by the rule; the loss after them."""
    rule, given = with_feedback(DFA(plan="whole", boundary="dfa", source="output"), {"layer0": B}), batch()
    rule.prepare(model)
    moved = [p for name, p in model.named_parameters() if name in (A, W)]
    for _ in range(steps):
        rule(model, given, mean_loss, lambda value, **words: value.backward(**words))
        with torch.no_grad():
            for parameter in moved:
                parameter -= rate * parameter.grad
        model.zero_grad()
    return mean_loss(model(given.x)[0].detach(), given)


def conserved(model: Model) -> Tensor:
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return B @ weights[W] + (B @ weights[W]).T - weights[A] @ weights[A].T


def drift(rate: float, steps: int) -> tuple[float, Tensor]:
    """How far the conserved matrix is from its start at time 2, and the loss there."""
    model = network(**{A: F(12, (4, 3), 0.3), W: F(13, (2, 4), 0.3)})
    start = conserved(model)
    loss = descend(model, rate, steps)
    return float((conserved(model) - start).abs().max()), loss


def test_oracle_2b_starting_loss() -> None:
    model = network(**{A: F(12, (4, 3), 0.3), W: F(13, (2, 4), 0.3)})
    assert_close(descend(model, 0.0, 0), numbers(0.5660523737850957), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize(
    ("steps", "residual", "loss"),
    [(200, 0.008209255701, 0.192184597117), (2000, 0.000817519027, 0.192243340901)],
)
def test_oracle_2b_conservation_law_holds_up_to_the_step(steps: int, residual: float, loss: float) -> None:
    moved, left = drift(2 / steps, steps)
    assert moved == pytest.approx(residual, abs=5e-13)
    assert_close(left, numbers(loss), **decimals(12))


def test_the_residual_of_the_conservation_law_is_proportional_to_the_step() -> None:
    # P6
    assert drift(2e-2, 100)[0] / drift(2e-3, 1000)[0] == pytest.approx(10, rel=0.01)


def distance_from_columns(M: Tensor) -> float:
    """Of the columns of a matrix from the column space of B, relative to the matrix."""
    Q, _ = torch.linalg.qr(B)
    return float((M - Q @ (Q.T @ M)).norm() / M.norm())


def test_oracle_2c_weights_never_leave_the_columns_of_the_feedback() -> None:
    model = network()
    descend(model, 0.05, 1000)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    assert distance_from_columns(weights[A]) < 1e-14
    assert distance_from_columns(weights[W].T) < 1e-14


@pytest.mark.parametrize(
    ("steps", "loss", "angle"),
    [(2, 0.459411854853, 32.250930), (100, 0.0258450705897, 24.880771), (400, 1.3401496679e-08, 5.296178)],
)
def test_oracle_2c_loss_and_angle_of_what_is_fed_back(steps: int, loss: float, angle: float) -> None:
    model = network()
    assert_close(descend(model, 0.05, steps), numbers(loss), rtol=1e-10, atol=1e-12)
    given = batch()
    E = (given.y - model(given.x)[0].detach()).T
    assert degrees(dict(model.named_parameters())[W].detach().T @ E, B @ E) == pytest.approx(angle, abs=1e-6)
