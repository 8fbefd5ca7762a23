"""LEM over time in one call: `pendula::lem_scan` and its backward operator, on the compiled scans.

On a GPU the same operators run in Triton: `pendula.ops.gpu.lem`. `products` says what the operands of products with W
and W_y are rounded to (`pendula.ops.gpu.product`); a processor rounds them, forward those with V, and backward those
with its transpose beyond 16 inputs, to bfloat16 where that is asked for and it has an instruction for it.
"""

from __future__ import annotations

import ctypes
import typing
from typing import Any

import torch
from torch import Tensor

from pendula.ops import native
from pendula.ops.direct import Direct

CACHED = 1 << 18
"""Numbers of a chunk of steps, so that what a chunk took is in cache when the gradients of the weights are summed."""


def chunk_of(batch: int, units: int) -> int:
    """Steps of a chunk: the memory z before each is kept, and rebuilt within it from the kept gates."""
    return native.clamp(CACHED // (4 * batch * units), 8, 512)


def kept_of(x: Tensor, units: int) -> int:
    """How many z the backward pass is given: on a GPU all, here the one before each chunk but the first.

    And two that nobody reads: to `torch.compile` sizes of 0 and 1 would be other programs.
    """
    return x.shape[0] if x.is_cuda else 2 + (x.shape[0] - 1) // chunk_of(x.shape[1], units)


def _forward(
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    W: Tensor,
    W_y: Tensor,
    V: Tensor,
    b: Tensor | None,
    dt: Tensor,
    tau: Tensor | None,
    lengths: Tensor | None,
    keep: bool,
    products: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs (T, B, N), last y and z (B, N), and with `keep` for the backward pass all gates and some z.

    x (T, B, I); b (4 N,) the sum of both biases; dt (N,); the rest as in `pendula.cells.LEMCell`. The gates are
    s_1, s_2, tanh of z's and of y's goal, (T, B, 4 N).
    """
    _check(x, y0, z0, W, W_y, V, b, dt, tau, lengths)
    steps, batch, inputs = x.shape
    units, dtype = W_y.shape[0], x.dtype
    x, y0, z0, W, W_y, V, b, dt, tau, lengths = native.contiguous(x, y0, z0, W, W_y, V, b, dt, tau, lengths)
    y, y_last, z_last = native.fresh(x, steps, batch, units), torch.empty_like(y0), torch.empty_like(z0)
    every = chunk_of(batch, units)
    gates = native.fresh(x, steps, batch, 4 * units) if keep else x.new_empty(0)
    kept = x.new_empty(kept_of(x, units) if keep else 0, batch, units)
    if keep:
        kept[-2:] = 0
    scratch = x.new_empty(native.library().pendula_lem_forward_scratch(dtype.itemsize, units, inputs, batch))
    arguments = native.structure(
        native.LEMForward,
        steps=steps,
        batch=batch,
        units=units,
        inputs=inputs,
        every=every,
        threads=torch.get_num_threads(),
        x=x,
        y0=y0,
        z0=z0,
        W=W,
        W_y=W_y,
        V=V,
        b=b,
        dt=dt,
        tau=tau,
        lengths=lengths,
        y=y,
        gates=gates if keep else None,
        kept=kept if keep else None,
        y_last=y_last,
        z_last=z_last,
        scratch=scratch,
        narrow=native.rounds(products, dtype),
    )
    native.call("pendula_lem_forward_run", arguments, dtype)
    return y, y_last, z_last, gates, kept


lem_scan = torch.library.custom_op("pendula::lem_scan", _forward, mutates_args=())


@lem_scan.register_fake
def _(
    x: Tensor, y0: Tensor, z0: Tensor, W: Tensor, W_y: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    # from the front: a default at the end may be left out
    keep = rest[5]
    steps, batch, units = x.shape[0], x.shape[1], W_y.shape[0]
    last = [x.new_empty(batch, units) for _ in range(2)]
    gates = x.new_empty((steps, batch, 4 * units) if keep else (0,))
    # sizes may be symbols here
    kept = x.new_empty(kept_of(x, units) if keep else 0, batch, units)
    return x.new_empty(steps, batch, units), last[0], last[1], gates, kept


@lem_scan.register_kernel("cuda")
def _(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from pendula.ops.gpu import lem as on_gpu

    return on_gpu.forward(*given)


def _run_backward(
    by_y: Tensor | None,
    by_y_last: Tensor | None,
    by_z_last: Tensor | None,
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    W: Tensor,
    W_y: Tensor,
    V: Tensor,
    dt: Tensor,
    tau: Tensor | None,
    lengths: Tensor | None,
    y: Tensor,
    gates: Tensor,
    kept: Tensor,
    wants_x: bool,
    wants_dt: bool,
    products: int = 0,
) -> typing.List[Tensor]:  # noqa: UP006 (not every torch that we take knows another name of it)
    """Gradients of x, y0, z0, W, W_y, V, b, dt, tau; those of x, dt and tau are empty where not wanted."""
    _check(x, y0, z0, W, W_y, V, None, dt, tau, lengths)
    _check_kept(x, W_y.shape[0], by_y, by_y_last, by_z_last, y, gates, kept)
    steps, batch, inputs = x.shape
    units, dtype, threads = W_y.shape[0], x.dtype, torch.get_num_threads()
    x, y0, z0, W, W_y, V, dt, tau, lengths = native.contiguous(x, y0, z0, W, W_y, V, dt, tau, lengths)
    y, gates, kept, by_y = native.contiguous(y, gates, kept, by_y)
    state_y, state_z = (
        torch.zeros_like(y0) if g is None else g.clone(memory_format=torch.contiguous_format)
        for g in (by_y_last, by_z_last)
    )
    by_x, by_tau = x.new_empty(x.shape if wants_x else 0), x.new_empty(0 if tau is None else tau.shape)
    by_W, by_W_y, by_V, by_b = torch.empty_like(W), torch.empty_like(W_y), torch.empty_like(V), x.new_empty(4 * units)
    by_dt = torch.zeros((threads if wants_dt else 0, units), dtype=torch.float64)
    arguments = native.structure(
        native.LEMBackward,
        steps=steps,
        batch=batch,
        units=units,
        inputs=inputs,
        every=chunk_of(batch, units),
        threads=threads,
        narrow=native.rounds(products, dtype),
        x=x,
        W=W,
        W_y=W_y,
        V=V,
        dt=dt,
        tau=tau,
        lengths=lengths,
        y0=y0,
        z0=z0,
        y=y,
        gates=gates,
        kept=kept,
        by_y=by_y,
        by_state_y=state_y,
        by_state_z=state_z,
        by_x=by_x if wants_x else None,
        by_W=by_W,
        by_W_y=by_W_y,
        by_V=by_V,
        by_b=by_b,
        by_dt=by_dt if wants_dt else None,
        by_tau=None if tau is None else by_tau,
    )
    scratch = x.new_empty(native.library().pendula_lem_backward_scratch(ctypes.byref(arguments), dtype.itemsize))
    arguments.scratch = scratch.data_ptr()
    native.call("pendula_lem_backward_run", arguments, dtype)
    summed = by_dt.sum(0).to(dtype) if wants_dt else x.new_empty(0)
    return [by_x, state_y, state_z, by_W, by_W_y, by_V, by_b, summed, by_tau]


lem_scan_backward = torch.library.custom_op("pendula::lem_scan_backward", _run_backward, mutates_args=())
_direct_backward = Direct(lem_scan_backward, _run_backward)


@lem_scan_backward.register_fake
def _(
    by_y: Any,
    by_y_last: Any,
    by_z_last: Any,
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    W: Tensor,
    W_y: Tensor,
    V: Tensor,
    *rest: Any,
) -> list[Tensor]:
    tau, wants_x, wants_dt = rest[1], rest[6], rest[7]
    units = W_y.shape[0]
    by_x, by_tau = x.new_empty(x.shape if wants_x else 0), x.new_empty(0 if tau is None else tau.shape)
    alike = [torch.empty_like(a, memory_format=torch.contiguous_format) for a in (y0, z0, W, W_y, V)]
    return [by_x, *alike, x.new_empty(4 * units), x.new_empty(units if wants_dt else 0), by_tau]


@lem_scan_backward.register_kernel("cuda")
def _(*given: Any) -> list[Tensor]:
    from pendula.ops.gpu import lem as on_gpu

    return on_gpu.backward(*given)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y0, z0, W, W_y, V, b, dt, tau, lengths, keep, products = inputs
    assert keep, "the scan was run without what its backward pass needs"
    y, _, _, gates, kept = output
    ctx.save_for_backward(x, y0, z0, W, W_y, V, dt, tau, lengths, y, gates, kept)
    ctx.biased, ctx.products = b is not None, products
    ctx.wants_x, ctx.wants_dt = ctx.needs_input_grad[0], ctx.needs_input_grad[7]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_y: Any, by_y_last: Any, by_z_last: Any, *_: Any) -> tuple[Tensor | None, ...]:
    # read once: under activation checkpointing a second reading is refused
    saved = ctx.saved_tensors
    found = _direct_backward(by_y, by_y_last, by_z_last, *saved, ctx.wants_x, ctx.wants_dt, ctx.products)
    wanted = (ctx.wants_x, *[True] * 5, ctx.biased, ctx.wants_dt, saved[7] is not None)
    return (*(g if want else None for g, want in zip(found, wanted, strict=True)), None, None, None)


lem_scan.register_autograd(_backward, setup_context=_setup)
direct = Direct(lem_scan, _forward, _backward, _setup)


def _check(x: Tensor, *others: Tensor | None) -> None:
    """No pointer goes out that the sizes of x and W_y don't vouch for."""
    names = ("y0", "z0", "W", "W_y", "V", "b", "dt", "tau", "lengths")
    weight = others[3]
    assert weight is not None
    (steps, batch, inputs), n = x.shape, weight.shape[0]
    state, spans = (batch, n), (steps, batch)
    sizes = [state, state, (3 * n, n), (n, n), (4 * n, inputs), (4 * n,), (n,), spans, (batch,)]
    native.check("lem_scan", x, names, others, sizes)


def _check_kept(x: Tensor, n: int, *others: Tensor | None) -> None:
    names = ("by_y", "by_y_last", "by_z_last", "y", "gates", "kept")
    steps, batch = x.shape[:2]
    shown, state = (steps, batch, n), (batch, n)
    sizes = [shown, state, state, shown, (steps, batch, 4 * n), (kept_of(x, n), batch, n)]
    native.check("lem_scan_backward", x, names, others, sizes)
