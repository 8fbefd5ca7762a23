"""The scan chooses between the reference and a fused scan, says so, and never changes the numbers."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula import BackendError, ShapeError
from pendula.cells import CELLS, CoRNNCell
from tests import tolerance

NETWORKS = pytest.mark.parametrize("network", sorted(CELLS))


class Declining:
    """A fused scan that can't do long sequences, and calls the reference otherwise."""

    name = "declining"

    def objection(self, x: Tensor, operands: Any, *, lengths: Any, tau: Any) -> str | None:
        return f"{x.shape[0]} steps are too many" if x.shape[0] > 3 else None

    def __call__(self, x: Tensor, state: Any, operands: Any, *, lengths: Any, tau: Any) -> Any:
        steps, batch = x.shape[:2]
        return torch.full((steps, batch, 4), 7.0), tuple(torch.full((batch, 4), 8.0) for _ in state)


class OftenFusedCell(CoRNNCell):
    fused: ClassVar = Declining()


def test_auto_takes_the_fused_scan_where_it_can() -> None:
    outputs, state = pendula.scan(OftenFusedCell(2, 4), torch.zeros(3, 1, 2))
    assert (float(outputs.mean()), float(state.z.mean())) == (7.0, 8.0)


def test_reference_never_takes_the_fused_scan() -> None:
    outputs, _ = pendula.scan(OftenFusedCell(2, 4), torch.zeros(3, 1, 2), backend="reference")
    assert not (outputs == 7).any()


def test_auto_reports_the_reason_for_the_reference_once() -> None:
    cell = OftenFusedCell(2, 4)
    with pytest.warns(UserWarning, match="OftenFused runs on the reference scan: 5 steps are too many"):
        pendula.scan(cell, torch.zeros(5, 1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pendula.scan(cell, torch.zeros(5, 1, 2))


def test_fused_raises_the_reason() -> None:
    with pytest.raises(BackendError, match="5 steps are too many: use backend='auto' or 'reference'"):
        pendula.scan(OftenFusedCell(2, 4), torch.zeros(5, 1, 2), backend="fused")


@NETWORKS
def test_a_cell_steps_as_its_scan(network: str) -> None:
    cell = CELLS[network](2, 4, dtype=torch.float64)
    x = torch.randn(5, 3, 2).double()
    state = cell.initial_state(3)
    seen = []
    for drive in cell.drive(x):
        state = cell.step(state, drive)
        seen.append(cell.output(state, drive))
    outputs, final = pendula.scan(cell, x)
    assert_close((torch.stack(seen), state), (outputs, final), **tolerance.ROUNDING)


@NETWORKS
def test_a_cell_without_bias_has_fewer_parameters_and_the_same_scan_in_all_backends(network: str) -> None:
    cell = CELLS[network](2, 4, False, dtype=torch.float64)
    x = torch.randn(5, 3, 2).double()
    reference = pendula.scan(cell, x, backend="reference")
    assert_close(pendula.scan(cell, x), reference, **tolerance.ROUNDING)
    assert sum(p.numel() for p in cell.parameters()) < sum(p.numel() for p in CELLS[network](2, 4).parameters())


@NETWORKS
def test_a_cell_says_where_it_comes_from(network: str) -> None:
    cell = CELLS[network]
    assert cell.__doc__
    assert cell.equation
    assert cell.source


@pytest.mark.parametrize("network", [n for n in sorted(CELLS) if not CELLS[n].has_time_step])
def test_a_cell_without_a_time_step_refuses_tau(network: str) -> None:
    cell = CELLS[network](2, 4)
    with pytest.raises(ValueError, match=f"{network}Cell has no time step"):
        cell.step(cell.initial_state(3), torch.zeros(3, 2), tau=torch.ones(3, 1))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"x": torch.zeros(5, 3, 4)}, ShapeError, r"input must be \(time, batch, 2\), got \(5, 3, 4\)"),
        ({"x": torch.zeros(5, 2)}, ShapeError, r"input must be \(time, batch, 2\), got \(5, 2\)"),
        ({"lengths": torch.tensor([0, 1, 1])}, ValueError, "lengths must be from 1 to 5"),
        ({"timespans": torch.ones(3, 5)}, ShapeError, r"timespans must .*shape \(5, 3\), got \(3, 5\)"),
        ({"timespans": -torch.ones(5, 3)}, ValueError, "timespans must be positive and finite, got -1.0"),
        ({"backend": "fast"}, ValueError, "backend must be one of auto, reference, fused, got 'fast'"),
    ],
)
def test_a_bad_call_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        pendula.scan(CoRNNCell(2, 4), **{"x": torch.zeros(5, 3, 2), **options})
