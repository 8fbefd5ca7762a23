"""The compiled scan of ODERNN as a cell's `fused`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pendula.ops import native
from pendula.ops.direct import followed
from pendula.ops.odernn import direct


@dataclass(frozen=True)
class ODERNNScan:
    """The compiled scan as a cell's `fused`; operands: W, U, b or None, dt, gamma, tableau, semi_implicit, linear.

    dt is one number or (N,), gamma (t,) or (t, N), the tableau a list of n rows of A, then b.
    """

    name: str = "pendula::odernn_scan"

    def objection(
        self, x: Tensor, operands: tuple[Any, ...], *, lengths: Tensor | None, tau: Tensor | None
    ) -> str | None:
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
        W, U, b, dt, gamma, *scheme = operands
        order, units = W.shape[:2]
        x, dt, gamma = x.to(W.dtype), dt.expand(units), gamma.reshape(order, -1).expand(order, units)
        keep = followed(x, *state, W, U, b, dt, gamma, tau)
        y, Z, _, _ = direct(x, *state, W, U, b, dt, gamma, tau, lengths, *scheme, keep)
        return y, (Z,)


ODERNN_SCAN = ODERNNScan()
