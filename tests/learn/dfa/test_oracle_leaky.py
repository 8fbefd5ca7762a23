"""Oracle 4 of the spec sheet dfa.md: RFLO, the trace of a leaky network, as a kernel (rule R7)."""

from __future__ import annotations

import pytest
import torch
from tests.learn.dfa.recurrent import FAST, B, V, along_time, by_loop, elman_batch, leaky
from tests.learn.dfa.sheet import backpropagated, degrees, gradients, learned, numbers, same
from tests.tolerance import decimals
from torch import Tensor
from torch.testing import assert_close


def test_oracle_4_forward_pass_and_loss() -> None:
    model, batch = leaky(), elman_batch("steps")
    _, state = model(batch.x)
    assert_close(state["layer0"].h.flatten(), numbers(-0.0270681138, -0.1031437334, 0.1005919958), **decimals(10))
    loss, _ = learned(along_time("kernel", B), model, batch)
    assert_close(loss, numbers(0.5371901634758405), rtol=1e-14, atol=0.0)


def test_oracle_4_transposed_readout() -> None:
    model, batch = leaky(), elman_batch("steps")
    found = gradients(along_time("kernel", V.T), model, batch)[FAST["W"]]
    rows = [
        [0.0266559821, 0.0221889299, -0.0089196853],
        [0.005636318, -0.00319051, 0.0060203652],
        [-0.0125766007, -0.0100846425, 0.0038056994],
    ]
    assert_close(found, numbers(rows), **decimals(10))
    assert degrees(found, backpropagated(model, batch)[FAST["W"]]) == pytest.approx(5.635819, abs=5.1e-7)


def test_oracle_4_is_autograd_with_the_recurrent_input_detached_and_the_leak_not() -> None:
    model, batch = leaky(), elman_batch("steps")
    cell = model.layers["layer0"].cells[0]

    def step(state: tuple[Tensor, ...], drive: Tensor) -> tuple[Tensor, ...]:
        (h,) = state
        update = torch.tanh(drive + h.detach() @ cell.U.T)
        return (torch.sigmoid(cell.alpha) * update + torch.sigmoid(cell.beta) * h,)

    same(gradients(along_time("kernel", V.T), model, batch), by_loop(model, batch, step), atol=1e-15)


def test_oracle_4_random_feedback() -> None:
    model, batch = leaky(), elman_batch("steps")
    found = gradients(along_time("kernel", B), model, batch)[FAST["W"]]
    assert_close(found[0], numbers(-0.028445227, -0.0065027375, -0.0079416997), **decimals(10))
    assert degrees(found, backpropagated(model, batch)[FAST["W"]]) == pytest.approx(119.047742, abs=5.1e-7)
