"""UnICORNN over time in one call: `pendula::unicornn_scan` and its backward operator, on the compiled scans.

On a GPU the same operators run in Triton: `pendula.ops.gpu.unicornn`. `products` says what the operands of V x, and
backward of the product with the transpose of V, are rounded to (`pendula.ops.gpu.product`): on a processor to bfloat16
where that is asked for, it has an instruction for it and more than 32 inputs make it worth it; on a GPU nothing is.
"""

from __future__ import annotations

import ctypes
import typing
from typing import Any

import torch
from torch import Tensor

from pendula.ops import native
from pendula.ops.direct import Direct

STORE, CHECKPOINT, REVERSE, TANH = range(4)
"""What the backward pass has: the outputs; some states; the last state alone; the outputs and all tanh (no GPU)."""


def _forward(
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
    products: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (T, B, N), last y and z (B, N), and with CHECKPOINT the states at every `every`-th step (K, 2, B, N).

    x (T, B, I); w, h, alpha (N,), h the step of each oscillator; the rest as in `pendula.cells.UnICORNNCell`. With TANH
    the last tensor has the tanh of all steps (T, B, N).
    """
    _check(x, y0, z0, w, h, alpha, V, b, tau, lengths)
    x, w, h, alpha, V, b, tau, lengths = native.contiguous(x, w, h, alpha, V, b, tau, lengths)
    steps, batch, units = x.shape[0], x.shape[1], w.shape[0]
    y, z = (s.clone(memory_format=torch.contiguous_format) for s in (y0, z0))
    outputs = native.fresh(x, steps, batch, units)
    kept = native.fresh(x, *_kept_size(steps, batch, units, memory, every))
    arguments = native.structure(
        native.UnICORNNForward,
        steps=steps,
        batch=batch,
        units=units,
        inputs=x.shape[2],
        every=every,
        threads=torch.get_num_threads(),
        x=x,
        w=w,
        h=h,
        alpha=alpha,
        V=V,
        b=b,
        tau=tau,
        lengths=lengths,
        y=y,
        z=z,
        outputs=outputs,
        s=kept if memory == TANH else None,
        kept=kept if memory == CHECKPOINT else None,
        narrow=native.rounds(products, x.dtype),
    )
    size = native.library().pendula_unicornn_forward_scratch(ctypes.byref(arguments), x.itemsize)
    scratch = x.new_empty(size)
    arguments.scratch = scratch.data_ptr()
    native.call("pendula_unicornn_forward_run", arguments, x.dtype)
    return outputs, y, z, kept


unicornn_scan = torch.library.custom_op("pendula::unicornn_scan", _forward, mutates_args=())


@unicornn_scan.register_fake
def _(x: Tensor, y0: Tensor, z0: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # from the front: a default at the end may be left out
    memory, every = rest[6:8]
    steps, batch, units = x.shape[0], x.shape[1], w.shape[0]
    last = [x.new_empty(batch, units) for _ in range(2)]
    kept = x.new_empty(_kept_size(steps, batch, units, memory, every))
    return x.new_empty(steps, batch, units), last[0], last[1], kept


@unicornn_scan.register_kernel("cuda")
def _(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from pendula.ops.gpu import unicornn as on_gpu

    return on_gpu.forward(*given)


def _run_backward(
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
    products: int = 0,
) -> typing.List[Tensor]:  # noqa: UP006 (not every torch that we take knows another name of it)
    """Gradients of x (empty without `input`), y0, z0, w, h, alpha, V, b and tau (empty without it)."""
    _check(x, y0, z0, w, h, alpha, V, b, tau, lengths)
    steps, batch, units = x.shape[0], x.shape[1], w.shape[0]
    _check_kept(x, units, memory, every, by_outputs, by_y, by_z, outputs, y, z, kept)
    x, y0, w, h, alpha, V, b, tau, lengths = native.contiguous(x, y0, w, h, alpha, V, b, tau, lengths)
    y, z, kept, outputs, by_outputs = native.contiguous(y, z, kept, outputs, by_outputs)
    state_y, state_z = (
        torch.zeros_like(y) if g is None else g.clone(memory_format=torch.contiguous_format) for g in (by_y, by_z)
    )
    sums = [x.new_empty(batch, units) for _ in range(4)]
    by_x, by_V = native.fresh(x, *x.shape) if input else x.new_empty(0), torch.empty_like(V)
    by_tau = x.new_empty(0) if tau is None else torch.empty_like(tau)
    arguments = native.structure(
        native.UnICORNNBackward,
        steps=steps,
        batch=batch,
        units=units,
        inputs=x.shape[2],
        every=every,
        threads=torch.get_num_threads(),
        x=x,
        w=w,
        h=h,
        alpha=alpha,
        V=V,
        b=b,
        tau=tau,
        lengths=lengths,
        y0=y0,
        outputs=outputs if memory in (STORE, TANH) else None,
        s=kept if memory == TANH else None,
        kept=kept if memory == CHECKPOINT else None,
        by_outputs=by_outputs,
        y=y,
        z=z,
        by_y=state_y,
        by_z=state_z,
        by_x=by_x if input else None,
        by_V=by_V,
        by_w=sums[0],
        by_h=sums[1],
        by_alpha=sums[2],
        by_b=sums[3],
        by_tau=None if tau is None else by_tau,
        narrow=native.rounds(products, x.dtype),
    )
    size = native.library().pendula_unicornn_backward_scratch(ctypes.byref(arguments), x.itemsize)
    scratch = x.new_empty(size)
    arguments.scratch = scratch.data_ptr()
    native.call("pendula_unicornn_backward_run", arguments, x.dtype)
    by_w, by_h, by_alpha, by_b = (part.sum(0) for part in sums)
    return [by_x, state_y, state_z, by_w, by_h, by_alpha, by_V, by_b, by_tau]


unicornn_scan_backward = torch.library.custom_op("pendula::unicornn_scan_backward", _run_backward, mutates_args=())
_direct_backward = Direct(unicornn_scan_backward, _run_backward)


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
    tau, input = rest[1], rest[9]
    alike = [torch.empty_like(a, memory_format=torch.contiguous_format) for a in (x, y0, z0, w, h, alpha, V)]
    alike[0] = alike[0] if input else x.new_empty(0)
    return [*alike, x.new_empty(w.shape[0]), x.new_empty(0) if tau is None else torch.empty_like(tau)]


@unicornn_scan_backward.register_kernel("cuda")
def _(*given: Any) -> list[Tensor]:
    from pendula.ops.gpu import unicornn as on_gpu

    return on_gpu.backward(*given)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y0, z0, w, h, alpha, V, b, tau, lengths, memory, every, products = inputs
    outputs, y, z, kept = output
    shown = outputs if memory in (STORE, TANH) else x.new_empty(0)
    ctx.save_for_backward(x, y0, z0, w, h, alpha, V, b, tau, lengths, shown, y, z, kept)
    ctx.memory, ctx.every, ctx.products = memory, every, products
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_outputs: Any, by_y: Any, by_z: Any, _: Any) -> tuple[Tensor | None, ...]:
    # read once: under activation checkpointing a second reading is refused
    saved = ctx.saved_tensors
    found = _direct_backward(
        by_outputs, by_y, by_z, *saved, ctx.memory, ctx.every, ctx.needs_input_grad[0], ctx.products
    )
    bias = found[7] if saved[7] is not None else None
    span = found[8] if saved[8] is not None else None
    by_x = found[0] if ctx.needs_input_grad[0] else None
    return (by_x, *found[1:7], bias, span, None, None, None, None)


unicornn_scan.register_autograd(_backward, setup_context=_setup)
direct = Direct(unicornn_scan, _forward, _backward, _setup)


def _kept_size(steps: int, batch: int, units: int, memory: int, every: int) -> tuple[int, ...]:
    if memory == TANH:
        return steps, batch, units
    return (steps - 1) // every if memory == CHECKPOINT else 0, 2, batch, units


def _check(x: Tensor, *others: Tensor | None) -> None:
    """No pointer goes out that the sizes of x and w don't vouch for."""
    names = ("y0", "z0", "w", "h", "alpha", "V", "b", "tau", "lengths")
    weight = others[2]
    assert weight is not None
    (steps, batch, inputs), n = x.shape, weight.shape[0]
    sizes = [(batch, n), (batch, n), (n,), (n,), (n,), (n, inputs), (n,), (steps, batch), (batch,)]
    native.check("unicornn_scan", x, names, others, sizes)


def _check_kept(x: Tensor, n: int, memory: int, every: int, *others: Tensor | None) -> None:
    names = ("by_outputs", "by_y", "by_z", "outputs", "y", "z", "kept")
    steps, batch = x.shape[:2]
    shown, state = (steps, batch, n), (batch, n)
    outputs = shown if memory in (STORE, TANH) else (0,)
    sizes = [shown, state, state, outputs, state, state, _kept_size(steps, batch, n, memory, every)]
    native.check("unicornn_scan_backward", x, names, others, sizes)
