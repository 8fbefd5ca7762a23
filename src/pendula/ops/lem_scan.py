"""The compiled scan of LEM as a cell's `fused`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pendula.ops import native
from pendula.ops.direct import followed
from pendula.ops.gpu import device, product
from pendula.ops.lem import direct


@dataclass(frozen=True)
class LEMScan:
    """The compiled scan as a cell's `fused`; operands: W, W_y, V, b (the sum of both) or None, dt.

    On a GPU it is the scan in Triton.
    """

    name: str = "pendula::lem_scan"

    def objection(
        self, x: Tensor, operands: tuple[Any, ...], *, lengths: Tensor | None, tau: Tensor | None
    ) -> str | None:
        if x.is_cuda:
            reason = device.objection(self.name, x, *(t for t in operands if t is not None))
            return reason or device.weights_objection(self.name, x, len(operands[1]), product.shared_needed_of_four)
        return native.objection(self.name, x, operands[0])

    def __call__(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        operands: tuple[Any, ...],
        *,
        lengths: Tensor | None,
        tau: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        W, W_y, V, b, dt = operands
        dt, x, products = dt.expand(W_y.shape[0]), x.to(W.dtype), product.products_of(x)
        keep = followed(x, *state, W, W_y, V, b, dt, tau)
        y, y_last, z_last, _, _ = direct(x, *state, W, W_y, V, b, dt, tau, lengths, keep, products)
        return y, (y_last, z_last)


LEM_SCAN = LEMScan()
