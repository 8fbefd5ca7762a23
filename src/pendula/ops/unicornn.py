"""UnICORNN over time in one call: `pendula::unicornn_scan` and its backward operator, on the compiled scans.

On a GPU the same operators run in Triton: `pendula.ops.gpu.unicornn`.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pendula.ops import native
from pendula.ops.gpu import device

STORE, CHECKPOINT, REVERSE = range(3)
CACHED = 1 << 16
"""Numbers of the drive that are computed at once: what one product makes, the scan reads while it is in cache."""


@torch.library.custom_op("pendula::unicornn_scan", mutates_args=())
def unicornn_scan(
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
    memory: int,
    every: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (T, B, N), last y and z (B, N), and with CHECKPOINT the states at every `every`-th step (K, 2, B, N).

    x (T, B, I); w, h, alpha (N,), h the step of each oscillator; the rest as in `pendula.cells.UnICORNNCell`.
    """
    _check(x, y0, z0, w, h, alpha, V, b, tau, lengths)
    x, w, h, alpha, V = (a.contiguous() for a in (x, w, h, alpha, V))
    steps, batch, units = x.shape[0], x.shape[1], w.shape[0]
    y, z = (s.clone(memory_format=torch.contiguous_format) for s in (y0, z0))
    outputs = native.fresh(x, steps, batch, units)
    kept = []
    for first, last in _chunks(steps, batch * units, memory, every):
        if memory == CHECKPOINT and first:
            kept.append(torch.stack((y, z)))
        left, span = _part(lengths, tau, first, last)
        arguments = native.structure(
            native.UnICORNNForward,
            x.dtype,
            steps=last - first,
            batch=batch,
            units=units,
            threads=torch.get_num_threads(),
            w=w,
            h=h,
            alpha=alpha,
            drive=_drive(x[first:last], V, b),
            tau=span,
            left=left,
            y=y,
            z=z,
            outputs=outputs[first:last],
        )
        native.call("pendula_unicornn_forward_run", arguments, x.dtype)
    return outputs, y, z, torch.stack(kept) if kept else x.new_empty(0, 2, batch, units)


@unicornn_scan.register_fake
def _(x: Tensor, y0: Tensor, z0: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    memory, every = rest[-2:]
    steps, batch, units = x.shape[0], x.shape[1], w.shape[0]
    last = [x.new_empty(batch, units) for _ in range(2)]
    kept = (steps - 1) // every if memory == CHECKPOINT else 0
    return x.new_empty(steps, batch, units), last[0], last[1], x.new_empty(kept, 2, batch, units)


@unicornn_scan.register_kernel("cuda")
def _(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from pendula.ops.gpu import unicornn as on_gpu

    return on_gpu.forward(*given)


@torch.library.custom_op("pendula::unicornn_scan_backward", mutates_args=())
def unicornn_scan_backward(
    by_outputs: Tensor | None,
    by_y: Tensor | None,
    by_z: Tensor | None,
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
    outputs: Tensor,
    y: Tensor,
    z: Tensor,
    kept: Tensor,
    memory: int,
    every: int,
    input: bool,
) -> typing.List[Tensor]:  # noqa: UP006 (torch 2.6 knows no other name of it)
    """Gradients of x (empty without `input`), y0, z0, w, h, alpha, V, b and tau (empty without it)."""
    _check(x, y0, z0, w, h, alpha, V, b, tau, lengths)
    steps, batch, units = x.shape[0], x.shape[1], w.shape[0]
    _check_kept(x, units, memory, every, by_outputs, by_y, by_z, outputs, y, z, kept)
    x, w, h, alpha, V, y0 = (a.contiguous() for a in (x, w, h, alpha, V, y0))
    outputs = outputs.contiguous() if memory == STORE else outputs
    by_outputs = None if by_outputs is None else by_outputs.contiguous()
    y, z = (s.clone(memory_format=torch.contiguous_format) for s in (y, z))
    state_y, state_z = (
        torch.zeros_like(y) if g is None else g.clone(memory_format=torch.contiguous_format) for g in (by_y, by_z)
    )
    sums = [x.new_zeros(batch, units) for _ in range(3)]
    by_x, by_V, by_b = native.fresh(x, *x.shape) if input else x.new_empty(0), torch.zeros_like(V), x.new_zeros(units)
    by_tau = x.new_empty(0) if tau is None else torch.zeros_like(tau, memory_format=torch.contiguous_format)
    for first, last in reversed(_chunks(steps, batch * units, memory, every)):
        if memory == CHECKPOINT and last < steps:
            y, z = (part.clone() for part in kept[last // every - 1])
        left, span = _part(lengths, tau, first, last)
        p = x.new_empty(last - first, batch, units)
        arguments = native.structure(
            native.UnICORNNBackward,
            x.dtype,
            steps=last - first,
            batch=batch,
            units=units,
            threads=torch.get_num_threads(),
            rebuild=memory != STORE,
            w=w,
            h=h,
            alpha=alpha,
            drive=_drive(x[first:last], V, b),
            tau=span,
            left=left,
            before=outputs[first - 1] if first and memory == STORE else y0,
            outputs=outputs[first:last] if memory == STORE else None,
            by_outputs=None if by_outputs is None else by_outputs[first:last],
            y=y,
            z=z,
            by_y=state_y,
            by_z=state_z,
            by_drive=p,
            by_w=sums[0],
            by_h=sums[1],
            by_alpha=sums[2],
            by_tau=None if tau is None else by_tau[first:last],
        )
        native.call("pendula_unicornn_backward_run", arguments, x.dtype)
        rows = p.flatten(0, 1)
        with native.full_precision():
            by_V.addmm_(rows.mT, x[first:last].flatten(0, 1))
            if input:
                torch.mm(rows, V, out=by_x[first:last].view(-1, x.shape[2]))
        by_b += rows.sum(0)
    return [by_x, state_y, state_z, *(part.sum(0) for part in sums), by_V, by_b, by_tau]


@unicornn_scan_backward.register_fake
def _(
    by_outputs: Any,
    by_y: Any,
    by_z: Any,
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    w: Tensor,
    h: Tensor,
    alpha: Tensor,
    V: Tensor,
    *rest: Any,
) -> list[Tensor]:
    tau, input = rest[1], rest[-1]
    alike = [torch.empty_like(a, memory_format=torch.contiguous_format) for a in (x, y0, z0, w, h, alpha, V)]
    alike[0] = alike[0] if input else x.new_empty(0)
    return [*alike, x.new_empty(w.shape[0]), x.new_empty(0) if tau is None else torch.empty_like(tau)]


@unicornn_scan_backward.register_kernel("cuda")
def _(*given: Any) -> list[Tensor]:
    from pendula.ops.gpu import unicornn as on_gpu

    return on_gpu.backward(*given)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y0, z0, w, h, alpha, V, b, tau, lengths, memory, every = inputs
    outputs, y, z, kept = output
    shown = outputs if memory == STORE else x.new_empty(0)
    ctx.save_for_backward(x, y0, z0, w, h, alpha, V, b, tau, lengths, shown, y, z, kept)
    ctx.memory, ctx.every = memory, every
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_outputs: Any, by_y: Any, by_z: Any, _: Any) -> tuple[Tensor | None, ...]:
    # read once: under activation checkpointing a second reading is refused
    saved = ctx.saved_tensors
    found = unicornn_scan_backward(by_outputs, by_y, by_z, *saved, ctx.memory, ctx.every, ctx.needs_input_grad[0])
    bias = found[7] if saved[7] is not None else None
    span = found[8] if saved[8] is not None else None
    by_x = found[0] if ctx.needs_input_grad[0] else None
    return (by_x, *found[1:7], bias, span, None, None, None)


unicornn_scan.register_autograd(_backward, setup_context=_setup)


def _chunks(steps: int, width: int, memory: int, every: int) -> list[tuple[int, int]]:
    if memory == CHECKPOINT:
        length = every
    else:
        length = max(8, CACHED // width)
        if torch.get_num_threads() > 1:
            # PyTorch's threads wait busily behind each product, and hold up the scan's: few products, not many
            length = max(length, -(-steps // 8))
    return [(first, min(first + length, steps)) for first in range(0, steps, length)]


def _drive(x: Tensor, V: Tensor, b: Tensor | None) -> Tensor:
    rows = x.flatten(0, 1)
    with native.full_precision():
        drive = torch.mm(rows, V.mT) if b is None else torch.addmm(b, rows, V.mT)
    return drive.view(x.shape[0], x.shape[1], -1)


def _part(lengths: Tensor | None, tau: Tensor | None, first: int, last: int) -> tuple[Tensor | None, Tensor | None]:
    left = None if lengths is None else (lengths - first).clamp(min=0).contiguous()
    return left, None if tau is None else tau[first:last].contiguous()


def _check(x: Tensor, *others: Tensor | None) -> None:
    """No pointer goes out that the sizes of x and w don't vouch for."""
    names = ("y0", "z0", "w", "h", "alpha", "V", "b", "tau", "lengths")
    weight = others[2]
    assert weight is not None
    (steps, batch, inputs), n = x.shape, weight.shape[0]
    sizes = [(batch, n), (batch, n), (n,), (n,), (n,), (n, inputs), (n,), (steps, batch), (batch,)]
    native.check("unicornn_scan", x, dict(zip(names, zip(others, sizes, strict=True), strict=True)))


def _check_kept(x: Tensor, n: int, memory: int, every: int, *others: Tensor | None) -> None:
    names = ("by_outputs", "by_y", "by_z", "outputs", "y", "z", "kept")
    steps, batch = x.shape[:2]
    shown, state = (steps, batch, n), (batch, n)
    count = (steps - 1) // every if memory == CHECKPOINT else 0
    sizes = [shown, state, state, shown if memory == STORE else (0,), state, state, (count, 2, batch, n)]
    native.check("unicornn_scan_backward", x, dict(zip(names, zip(others, sizes, strict=True), strict=True)))


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
        x = x.to(w.dtype)
        outputs, y, z, _ = unicornn_scan(x, *state, w, h, alpha, V, b, tau, lengths, mode, every)
        return outputs, (y, z)


UNICORNN_SCAN = UnICORNNScan()
