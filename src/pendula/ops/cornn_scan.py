"""The compiled scan of coRNN as a cell's `fused`, and one step after another without the dispatcher."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pendula.ops import native
from pendula.ops.cornn import check_sizes, direct
from pendula.ops.direct import followed
from pendula.ops.gpu import device, product


@dataclass(frozen=True)
class CoRNNScan:
    """The compiled scan as a cell's `fused`; operands: W, W_z, V, b or None, dt, gamma, epsilon, implicit.

    On a GPU it is the scan in Triton.
    """

    name: str = "pendula::cornn_scan"

    def objection(
        self, x: Tensor, operands: tuple[Any, ...], *, lengths: Tensor | None, tau: Tensor | None
    ) -> str | None:
        if x.is_cuda:
            tensors = (t for t in operands if isinstance(t, Tensor))
            reason, units = device.objection(self.name, x, *tensors), len(operands[0])
            if reason is None and units > product.WIDEST:
                return f"{self.name} takes up to {product.WIDEST} units on a GPU, got {units}"
            return reason
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
        W, W_z, V, b, dt, gamma, epsilon, implicit = operands
        # made whole once, for both passes
        constants = [c.expand(W.shape[0]).contiguous() for c in (dt, gamma, epsilon)]
        x, products = x.to(W.dtype), product.products_of(x)
        keep = followed(x, *state, W, W_z, V, b, *constants, tau)
        y, y_last, z_last, _, _ = direct(x, *state, W, W_z, V, b, *constants, tau, lengths, implicit, keep, products)
        return y, (y_last, z_last)

    def stepper(self, state: tuple[Tensor, ...], operands: tuple[Any, ...]) -> CoRNNStepper:
        """Steps from a state on, each in one call without the dispatcher (see `Stepper`)."""
        return CoRNNStepper(state, operands)


class CoRNNStepper:
    def __init__(self, state: tuple[Tensor, ...], operands: tuple[Any, ...]) -> None:
        W, W_z, V, b, dt, gamma, epsilon, implicit = operands
        (batch, units), inputs, dtype = state[0].shape, V.shape[1], W.dtype
        constants = [c.detach().expand(units).contiguous() for c in (dt, gamma, epsilon)]
        weights = [w.detach().contiguous() for w in (W, W_z, V)]
        bias = None if b is None else b.detach().contiguous()
        self.state = tuple(s.detach().clone(memory_format=torch.contiguous_format) for s in state)
        self.x, self.output = V.new_zeros(batch, inputs), V.new_zeros(batch, units)
        check_sizes(self.x.unsqueeze(0), *self.state, *weights, bias, *constants, None, None)
        y, z = self.state
        self.arguments = native.structure(
            native.CoRNNForward,
            steps=1,
            batch=batch,
            units=units,
            inputs=inputs,
            implicit=implicit,
            threads=1,
            x=self.x,
            y0=y,
            z0=z,
            W=weights[0],
            W_z=weights[1],
            V=weights[2],
            b=bias,
            dt=constants[0],
            gamma=constants[1],
            epsilon=constants[2],
            y=self.output,
            y_last=y,
            z_last=z,
            scratch=V.new_empty(native.library().pendula_cornn_forward_scratch(dtype.itemsize, units, inputs, batch)),
            every=1,
        )
        self.entry, self.bytes = native.library().pendula_cornn_forward_run, dtype.itemsize
        self.pointer = ctypes.byref(self.arguments)

    def __call__(self) -> None:
        self.entry(self.pointer, self.bytes)
        # the first call packs the weights, which the others find packed
        self.arguments.packed = 1


CORNN_SCAN = CoRNNScan()
