"""UnICORNN at many times at once, on a GPU: `pendula::unicornn_newton`, whose backward pass is the scan's.

Newton's method in windows, as `pendula.nets.newton` has it for every device; here each oscillator moves for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pendula.ops.gpu import device
from pendula.ops.unicornn import STORE, unicornn_scan_backward


@torch.library.custom_op("pendula::unicornn_newton", mutates_args=(), device_types="cuda")
def unicornn_newton(
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    w: Tensor,
    h: Tensor,
    alpha: Tensor,
    V: Tensor,
    b: Tensor | None,
    tau: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs (T, B, N), last y and z (B, N), counts (B, N, 2) and differences (B, N).

    Counts are the steps that were solved, fewer than there are where it was given up, and the iterations this took;
    differences are what `pendula.nets.newton.NewtonReport.difference` estimates. Arguments as in `unicornn_scan`.
    """
    from pendula.ops.gpu import newton as on_gpu

    return on_gpu.forward(x, y0, z0, w, h, alpha, V, b, tau, lengths)


@unicornn_newton.register_fake
def _(x: Tensor, y0: Tensor, z0: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    steps, batch, units = x.shape[0], x.shape[1], w.shape[0]
    y, z, differences = (x.new_empty(batch, units) for _ in range(3))
    return x.new_empty(steps, batch, units), y, z, x.new_empty(batch, units, 2, dtype=torch.int32), differences


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    outputs, y, z, counts, differences = output
    ctx.save_for_backward(*inputs, outputs, y, z)
    ctx.mark_non_differentiable(counts, differences)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_outputs: Any, by_y: Any, by_z: Any, *_: Any) -> tuple[Tensor | None, ...]:
    # read once: under activation checkpointing a second reading is refused
    saved = ctx.saved_tensors
    x, y0 = saved[0], saved[1]
    nothing = x.new_empty(0, 2, *y0.shape)
    # with every position kept the scan's backward pass has nothing to solve
    found = unicornn_scan_backward(by_outputs, by_y, by_z, *saved, nothing, STORE, 1, ctx.needs_input_grad[0])
    by_x = found[0] if ctx.needs_input_grad[0] else None
    bias = found[7] if saved[7] is not None else None
    return (by_x, *found[1:7], bias, found[8] if saved[8] is not None else None, None)


unicornn_newton.register_autograd(_backward, setup_context=_setup)


@dataclass(frozen=True)
class UnICORNNNewton:
    """The scan by Newton's method in one call; operands: w, h, alpha, V, b or None."""

    name: str = "pendula::unicornn_newton"

    def objection(self, x: Tensor, operands: tuple[Any, ...]) -> str | None:
        """Why it can't run on these arguments, as a sentence; None when it can."""
        if not x.is_cuda:
            return f"{self.name} is written for a GPU"
        return device.objection(self.name, x, *(t for t in operands if isinstance(t, Tensor)))

    def __call__(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        operands: tuple[Any, ...],
        *,
        lengths: Tensor | None,
        tau: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor, Tensor]:
        """Outputs and last state, counts and differences."""
        w, h, alpha, V, b = operands
        outputs, y, z, counts, differences = unicornn_newton(
            x.to(w.dtype), *state, w, h, alpha.expand(w.shape[0]), V, b, tau, lengths
        )
        return outputs, (y, z), counts, differences


UNICORNN_NEWTON = UnICORNNNewton()
