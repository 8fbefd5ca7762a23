"""Oracle 11 of the spec sheet dfa.md, the table of its section 6.3 (i): angles fall while a student learns (P8)."""

from __future__ import annotations

import numpy
import pytest
import torch
from tests.learn.dfa.sheet import backpropagated, degrees, gradients, half_squared, model_of, with_feedback
from torch import Tensor

from pendula import Node
from pendula.learn.dfa import DFA
from pendula.tasks.base import Batch

W = ("layers.layer0.linear.weight", "layers.layer1.linear.weight", "readout.weight")
# angles of both layers at steps 0, 100, 500 and 2000, and the losses at the first and the last of them
TABLE = {
    0: ((87.3, 90.3), (74.2, 68.2), (79.3, 55.8), (65.6, 48.3), (0.607, 0.0187)),
    1: ((100.7, 89.7), (83.3, 81.2), (75.2, 73.5), (59.2, 62.5), (0.710, 0.0106)),
    2: ((91.1, 86.1), (73.2, 75.3), (74.6, 69.2), (54.0, 46.0), (0.584, 0.0164)),
    3: ((97.8, 84.9), (76.9, 63.1), (65.2, 58.9), (64.4, 54.6), (1.405, 0.0149)),
    4: ((84.7, 89.1), (79.9, 81.5), (72.1, 69.7), (60.8, 60.2), (0.708, 0.0361)),
}


def mean_loss(output: Tensor, batch: Batch) -> Tensor:
    return half_squared(output, batch) / output.shape[0]


def taught(seed: int) -> dict[int, tuple[list[float], float]]:
    """Angles and loss before the steps of the table, by step."""
    draws = numpy.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(draws.standard_normal(shape) / shape[1] ** 0.5)

    T0, T1 = normal(20, 10), normal(3, 20)
    weights = dict(zip(W, (normal(30, 10), normal(30, 30), normal(3, 30)), strict=True))
    maps = {f"layer{k}": torch.from_numpy(draws.uniform(-1, 1, (30, 3)) / 3**0.5) for k in range(2)}
    nodes = [Node("Linear", 30, bias=False, physics={"activation": "tanh"}) for _ in range(2)]
    model, rule = model_of(nodes, (10, 3), weights), with_feedback(DFA(plan="whole"), maps)
    learned = [dict(model.named_parameters())[name] for name in W]
    found = {}
    for step in range(2001):
        x = torch.from_numpy(draws.standard_normal((10, 32)).T)
        batch = Batch(x.unsqueeze(0), torch.tanh(x @ T0.T) @ T1.T)
        if step in (0, 100, 500, 2000):
            ours, true = gradients(rule, model, batch, mean_loss), backpropagated(model, batch, mean_loss)
            loss = float(mean_loss(model(batch.x)[0].detach(), batch))
            found[step] = ([degrees(ours[name], true[name]) for name in W[:2]], loss)
        rule(model, batch, mean_loss, lambda value, **words: value.backward(**words))
        with torch.no_grad():
            for parameter in learned:
                parameter -= 0.05 * parameter.grad
        model.zero_grad()
    return found


@pytest.mark.parametrize("seed", TABLE)
def test_student_learns_with_angles_below_75_degrees(seed: int) -> None:
    found = taught(seed)
    angles, loss = found[2000]
    assert max(angles) < 75
    # below what training the read-out alone comes to, and the sheet's own bound
    assert loss < 0.04
    for step, wanted in zip((0, 100, 500, 2000), TABLE[seed], strict=False):
        assert found[step][0] == pytest.approx(wanted, abs=0.051), step
    assert [found[0][1], loss] == pytest.approx(TABLE[seed][4], rel=5e-3)
