"""UnICORNN at many times at once, on a GPU: `pendula::unicornn_newton`, whose backward pass is the scan's.

Newton's method in windows, as `pendula.nets.newton` has it for every device; here each oscillator moves for itself.
The operator decides whether it runs step by step after all. So the rule stands here, for both, and what was said of it.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pendula.ops.gpu import device
from pendula.ops.unicornn import STORE, unicornn_scan_backward

SLOW, PATIENCE = 16, 8
"""Fewer steps than SLOW per iteration, over PATIENCE of them, and stepping is faster: `gpu-kernels.md` 2.5."""

TOLERANCE = 1e-5
"""What a result may differ by from that of stepping, unless another share of its largest values is asked for."""

_said: set[tuple[str, str]] = set()

# the host waits within, so it can't lie in a CUDA graph; not every PyTorch knows such a mark
_MARKS: dict[str, Any] = {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}


@torch.library.custom_op("pendula::unicornn_newton", mutates_args=(), device_types="cuda", **_MARKS)
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
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (T, B, N), last y and z (B, N), and how it went (3,), on the processor.

    That is: steps that were solved, iterations this took and the estimated difference, as in
    `pendula.nets.newton.NewtonReport`; a difference that is no number means that it was given up. Where it was, or the
    difference is not within the tolerance, the result is that of `unicornn_scan`, whose other arguments these are.
    """
    from pendula.ops.gpu import newton as on_gpu

    return on_gpu.forward(x, y0, z0, w, h, alpha, V, b, tau, lengths, tolerance)


@unicornn_newton.register_fake
def _(x: Tensor, y0: Tensor, z0: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps, batch, units = x.shape[0], x.shape[1], w.shape[0]
    y, z = (x.new_empty(batch, units) for _ in range(2))
    return x.new_empty(steps, batch, units), y, z, torch.empty(3, dtype=torch.float64, device="cpu")


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    outputs, y, z, how = output
    ctx.save_for_backward(*inputs[:-1], outputs, y, z)
    ctx.mark_non_differentiable(how)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_outputs: Any, by_y: Any, by_z: Any, _: Any) -> tuple[Tensor | None, ...]:
    # read once: under activation checkpointing a second reading is refused
    saved = ctx.saved_tensors
    x, y0 = saved[0], saved[1]
    nothing = x.new_empty(0, 2, *y0.shape)
    # with every position kept the scan's backward pass has nothing to solve, and asks nobody where they are from
    found = unicornn_scan_backward(by_outputs, by_y, by_z, *saved, nothing, STORE, 1, ctx.needs_input_grad[0])
    by_x = found[0] if ctx.needs_input_grad[0] else None
    bias = found[7] if saved[7] is not None else None
    return (by_x, *found[1:7], bias, found[8] if saved[8] is not None else None, None, None)


unicornn_newton.register_autograd(_backward, setup_context=_setup)


def why_stepped(network: str, difference: float | None, tolerance: float, dtype: torch.dtype) -> str | None:
    """Why the steps are run one after another after all, as a sentence; None where they are not.

    `difference` is that of `pendula.nets.newton.NewtonReport`: None where Newton's method was given up.
    """
    if difference is None:
        return (
            f"Newton's method accepted fewer than {SLOW} steps per iteration: the steps are too long, or the weights "
            f"and the drive too strong, for {network} to be solved at many times at once"
        )
    if difference <= tolerance:
        return None
    return (
        f"rounding grows along the trajectory, so that two ways to compute it in {dtype} may differ by more than "
        f"tolerance={tolerance:.2g} of its size"
    )


def say_stepped(network: str, reason: str) -> None:
    """Warn that the steps are run one after another, once per network and reason, at the line that asked for it all."""
    if (network, reason) in _said:
        return
    _said.add((network, reason))
    # from within an operator, or a compiled graph, that line lies behind many of PyTorch's; a graph's have no module
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "torch").partition(".")[0] in ("torch", "pendula"):
        frame, level = frame.f_back, level + 1
    warnings.warn(f"{network} runs step by step: {reason}", stacklevel=level)


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
        tolerance: float,
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Outputs and last state, by Newton's method or step by step, and how it went."""
        w, h, alpha, V, b = operands
        outputs, y, z, how = unicornn_newton(
            x.to(w.dtype), *state, w, h, alpha.expand(w.shape[0]), V, b, tau, lengths, tolerance
        )
        return outputs, (y, z), how


UNICORNN_NEWTON = UnICORNNNewton()
