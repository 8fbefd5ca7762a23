"""UnICORNN's memory modes: the same gradients (U16), less kept, and the regime where float32 can't be undone (3.3)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula import StabilityWarning, UnICORNN, scan
from pendula.cells import UnICORNNCell
from tests.cells.test_unicornn import large
from tests.contracts.layer import weigh

REBUILDING = pytest.mark.parametrize("memory", ["store", "checkpoint", "reverse"])
U16 = {"rtol": 1e-10, "atol": 1e-13}
"""Sheet: equal to 1e-10 in float64 on U3."""


def gradients_of(cell: UnICORNNCell, x: Tensor, memory: str, spans: Tensor | None = None) -> dict[str, Tensor]:
    cell = copy.deepcopy(cell)
    cell.memory = memory
    x = x.clone().requires_grad_()
    spans = None if spans is None else spans.clone().requires_grad_()
    outputs, final = scan(cell, x, timespans=spans, backend="reference")
    weigh(outputs, *final).backward()
    found = {"x": x.grad, **{name: p.grad for name, p in cell.named_parameters()}}
    return found if spans is None else {**found, "spans": spans.grad}


@REBUILDING
@pytest.mark.parametrize("spanned", [False, True])
def test_u16_gradients_are_those_of_the_tape(memory: str, spanned: bool) -> None:
    cell, x = large()
    spans = 0.5 + torch.rand(x.shape[:2], dtype=torch.float64) if spanned else None
    assert_close(gradients_of(cell, x, memory, spans), gradients_of(cell, x, "tape", spans), **U16)


@REBUILDING
def test_u16_gradients_of_constants_are_those_of_the_tape(memory: str) -> None:
    found = []
    for mode in (memory, "tape"):
        cell, x = large()
        cell.memory = mode
        cell.dt.requires_grad_()
        cell.alpha.requires_grad_()
        weigh(scan(cell, x, backend="reference")[0]).backward()
        found.append([cell.dt.grad, cell.alpha.grad, cell.w.grad, cell.c.grad])
    assert_close(*found, **U16)


def unstable() -> tuple[UnICORNNCell, Tensor]:
    """Sheet 3.3, EigenWorms layer 2: dt 0.0343, alpha 0, w in (-3, 3), 17 984 steps; narrower than the sheet's."""
    torch.manual_seed(3)
    cell = UnICORNNCell(2, 8, dt=0.0343, alpha=0.0, dtype=torch.float64)
    with torch.no_grad():
        cell.w.uniform_(-3, 3)
    return cell, torch.randn(17_984, 1, 2, dtype=torch.float64)


def final_step_gradient(cell: UnICORNNCell, x: Tensor, memory: str, backend: str = "reference") -> Tensor:
    """Of the loss 1/2 |y_T|^2 with respect to w, in float64."""
    cell = copy.deepcopy(cell)
    cell.memory = memory
    _, final = scan(cell, x, backend=backend)
    (0.5 * final.y.square().sum()).backward()
    assert cell.w.grad is not None
    return cell.w.grad.double()


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_u16_in_float32_the_kept_outputs_hold_the_gradient_that_reversal_loses(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    cell, x = unstable()
    exact = final_step_gradient(cell, x, "tape")
    single, given = copy.deepcopy(cell).float(), x.float()

    def error(memory: str) -> float:
        return float((final_step_gradient(single, given, memory, backend) - exact).norm() / exact.norm())

    assert error("store") < 1e-3
    with pytest.warns(StabilityWarning, match=r"can't be run backwards.*memory='checkpoint' is used instead"):
        assert error("reverse") < 1e-3
    monkeypatch.setattr(UnICORNNCell, "reversal_objection", lambda cell: None)
    assert error("reverse") > 0.1


@pytest.mark.parametrize(
    ("alpha", "w", "safe"), [(0.0, 0.5, True), (0.0, -0.1, False), (1.0, -0.9, True), (1.0, -1.1, False)]
)
def test_reversal_is_refused_where_the_sheet_shows_it_failing(alpha: float, w: float, safe: bool) -> None:
    cell = UnICORNNCell(2, 4, alpha=alpha, dt=0.1)
    with torch.no_grad():
        cell.w[2] = w
    assert (cell.reversal_objection() is None) is safe


def kept(memory: str, steps: int) -> int:
    """Numbers that a forward pass keeps for the backward one, each storage once, beyond its input and output."""
    layer = UnICORNN(1, 32, memory=memory, checkpoint_every=50, backend="reference")
    x = torch.randn(steps, 4, 1)
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs, _ = layer(x)
    for own in (x, outputs, *layer.parameters()):
        sizes.pop(own.untyped_storage().data_ptr(), None)
    return sum(sizes.values())


def test_reversal_keeps_the_drive_and_nothing_that_grows() -> None:
    drive = 4 * 32
    state = kept("reverse", 100) - 100 * drive
    assert kept("reverse", 1000) == 1000 * drive + state
    assert kept("store", 1000) == kept("reverse", 1000)
    # a state is y and z
    assert kept("checkpoint", 1000) == kept("reverse", 1000) + (1000 // 50 - 1) * 2 * drive
    assert kept("tape", 1000) > 3.9 * kept("store", 1000)


def test_second_derivatives_need_the_tape() -> None:
    x = torch.randn(5, 2, 1, dtype=torch.float64, requires_grad=True)
    for memory in ("tape", "store"):
        layer = UnICORNN(1, 3, memory=memory, dtype=torch.float64, backend="reference")
        (first,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        if memory == "tape":
            first.sum().backward()
        else:
            with pytest.raises(RuntimeError, match="once_differentiable"):
                first.sum().backward()


def test_an_unknown_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory must be one of store, checkpoint, reverse, tape, got 'stor'"):
        UnICORNNCell(2, 4, memory="stor")
    with pytest.raises(ValueError, match="checkpoint_every must be a whole number, at least 1, got 0"):
        UnICORNNCell(2, 4, checkpoint_every=0)
