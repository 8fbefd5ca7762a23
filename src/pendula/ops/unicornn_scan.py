"""The compiled scan of UnICORNN as a cell's `fused`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pendula.ops import native
from pendula.ops.gpu import device, product
from pendula.ops.unicornn import CHECKPOINT, REVERSE, STORE, TANH, direct

WIDE = 64
"""Up to so many inputs the drive is computed again faster than its tanh is stored and read."""


@dataclass(frozen=True)
class UnICORNNScan:
    """The compiled scan as a cell's `fused`; operands: w, h, alpha, V, b or None, memory's name, checkpoint_every.

    On a GPU it is the scan in Triton.
    """

    name: str = "pendula::unicornn_scan"

    def objection(
        self, x: Tensor, operands: tuple[Any, ...], *, lengths: Tensor | None, tau: Tensor | None
    ) -> str | None:
        if operands[5] == "tape":
            return f"memory='tape' keeps everything on PyTorch's tape, and {self.name} does not"
        if x.is_cuda:
            return device.objection(self.name, x, *(t for t in operands if isinstance(t, Tensor)))
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
        w, h, alpha, V, b, memory, every = operands
        mode = {"store": STORE, "checkpoint": CHECKPOINT, "reverse": REVERSE}[memory]
        alpha = alpha.expand(w.shape[0])
        x, products = x.to(w.dtype), product.products_of(x)
        if mode == STORE and x.shape[2] > WIDE and not x.is_cuda and torch.is_grad_enabled():
            given = (x, *state, w, h, alpha, V, b, tau)
            mode = TANH if any(t is not None and t.requires_grad for t in given) else mode
        outputs, y, z, _ = direct(x, *state, w, h, alpha, V, b, tau, lengths, mode, every, products)
        return outputs, (y, z)


UNICORNN_SCAN = UnICORNNScan()
