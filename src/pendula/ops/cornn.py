"""coRNN over time in one call: `pendula::cornn_scan` and its backward operator, on the compiled scans.

On a GPU the same operators run in Triton: `pendula.ops.gpu.cornn`. `products` says what the operands of products with W
and W_z are rounded to (`pendula.ops.gpu.product`); a processor rounds them, and those with V, to bfloat16 where that is
asked for and it has an instruction for it, and nothing else.
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
    """Steps of a chunk: the velocity before each is kept, and rebuilt within it from the kept tanh."""
    return native.clamp(CACHED // (batch * units), 8, 512)


def kept_of(x: Tensor, units: int) -> int:
    """How many velocities the backward pass is given: on a GPU all, here the one before each chunk but the first.

    And two that nobody reads: to `torch.compile` sizes of 0 and 1 would be other programs.
    """
    return x.shape[0] if x.is_cuda else 2 + (x.shape[0] - 1) // chunk_of(x.shape[1], units)


def _forward(
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    W: Tensor,
    W_z: Tensor,
    V: Tensor,
    b: Tensor | None,
    dt: Tensor,
    gamma: Tensor,
    epsilon: Tensor,
    tau: Tensor | None,
    lengths: Tensor | None,
    implicit: bool,
    keep: bool,
    products: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs (T, B, N), last y and z (B, N), and with `keep` for the backward pass all tanh (T, B, N) and some z.

    x (T, B, I); dt, gamma, epsilon (N,); the rest as in `pendula.cells.CoRNNCell`.
    """
    check_sizes(x, y0, z0, W, W_z, V, b, dt, gamma, epsilon, tau, lengths)
    steps, batch, inputs = x.shape
    units, dtype = W.shape[0], x.dtype
    x, y0, z0, W, W_z, V, b = native.contiguous(x, y0, z0, W, W_z, V, b)
    dt, gamma, epsilon, tau, lengths = native.contiguous(dt, gamma, epsilon, tau, lengths)
    y, y_last, z_last = native.fresh(x, steps, batch, units), torch.empty_like(y0), torch.empty_like(z0)
    s = native.fresh(x, steps, batch, units) if keep else x.new_empty(0)
    kept = x.new_empty(kept_of(x, units) if keep else 0, batch, units)
    if keep:
        kept[-2:] = 0
    size = native.library().pendula_cornn_forward_scratch(dtype.itemsize, units, inputs, batch)
    scratch = x.new_empty(size)
    arguments = native.structure(
        native.CoRNNForward,
        steps=steps,
        batch=batch,
        units=units,
        inputs=inputs,
        implicit=implicit,
        threads=torch.get_num_threads(),
        x=x,
        y0=y0,
        z0=z0,
        W=W,
        W_z=W_z,
        V=V,
        b=b,
        dt=dt,
        gamma=gamma,
        epsilon=epsilon,
        tau=tau,
        lengths=lengths,
        y=y,
        s=s if keep else None,
        kept=kept if keep else None,
        y_last=y_last,
        z_last=z_last,
        scratch=scratch,
        every=chunk_of(batch, units),
        narrow=native.rounds(products, dtype),
    )
    native.call("pendula_cornn_forward_run", arguments, dtype)
    return y, y_last, z_last, s, kept


cornn_scan = torch.library.custom_op("pendula::cornn_scan", _forward, mutates_args=())


@cornn_scan.register_fake
def _(x: Tensor, y0: Tensor, z0: Tensor, W: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    # from the front: a default at the end may be left out
    keep = rest[9]
    y = x.new_empty(x.shape[0], x.shape[1], W.shape[0])
    last = [x.new_empty(x.shape[1], W.shape[0]) for _ in range(2)]
    s = torch.empty_like(y) if keep else x.new_empty(0)
    # sizes may be symbols here
    return y, last[0], last[1], s, x.new_empty(kept_of(x, W.shape[0]) if keep else 0, x.shape[1], W.shape[0])


@cornn_scan.register_kernel("cuda")
def _(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from pendula.ops.gpu import cornn as on_gpu

    return on_gpu.forward(*given)


def _run_backward(
    by_y: Tensor | None,
    by_y_last: Tensor | None,
    by_z_last: Tensor | None,
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    W: Tensor,
    W_z: Tensor,
    V: Tensor,
    dt: Tensor,
    gamma: Tensor,
    epsilon: Tensor,
    tau: Tensor | None,
    lengths: Tensor | None,
    y: Tensor,
    s: Tensor,
    kept: Tensor,
    implicit: bool,
    input: bool,
    constants: bool,
    products: int = 0,
) -> typing.List[Tensor]:  # noqa: UP006 (not every torch that we take knows another name of it)
    """Gradients of x (empty without `input`), y0, z0, W, W_z, V, b; of dt, gamma, epsilon (empty without `constants`);
    of tau (empty without it)."""
    check_sizes(x, y0, z0, W, W_z, V, None, dt, gamma, epsilon, tau, lengths)
    _check_kept(x, W.shape[0], by_y, by_y_last, by_z_last, y, s, kept)
    steps, batch, inputs = x.shape
    units, dtype, threads = W.shape[0], x.dtype, torch.get_num_threads()
    x, y0, z0, W, W_z, V, y, s, kept, by_y = native.contiguous(x, y0, z0, W, W_z, V, y, s, kept, by_y)
    dt, gamma, epsilon, tau, lengths = native.contiguous(dt, gamma, epsilon, tau, lengths)
    state_y, state_z = (
        torch.zeros_like(y0) if g is None else g.clone(memory_format=torch.contiguous_format)
        for g in (by_y_last, by_z_last)
    )
    by_x, by_b = torch.empty_like(x) if input else x.new_empty(0), x.new_empty(units)
    by_W, by_W_z, by_V = torch.empty_like(W), torch.empty_like(W_z), torch.empty_like(V)
    sums = torch.zeros((3, threads, units), dtype=torch.float64) if constants else None
    by_tau = x.new_empty(0) if tau is None else torch.empty_like(tau)
    arguments = native.structure(
        native.CoRNNBackward,
        steps=steps,
        batch=batch,
        units=units,
        inputs=inputs,
        every=chunk_of(batch, units),
        implicit=implicit,
        threads=threads,
        x=x,
        W=W,
        W_z=W_z,
        V=V,
        dt=dt,
        gamma=gamma,
        epsilon=epsilon,
        tau=tau,
        lengths=lengths,
        y0=y0,
        z0=z0,
        y=y,
        s=s,
        kept=kept,
        by_y=by_y,
        by_state_y=state_y,
        by_state_z=state_z,
        by_x=by_x if input else None,
        by_W=by_W,
        by_W_z=by_W_z,
        by_V=by_V,
        by_b=by_b,
        by_dt=None if sums is None else sums[0],
        by_gamma=None if sums is None else sums[1],
        by_epsilon=None if sums is None else sums[2],
        by_tau=None if tau is None else by_tau,
        narrow=native.rounds(products, dtype),
    )
    scratch = x.new_empty(native.library().pendula_cornn_backward_scratch(ctypes.byref(arguments), dtype.itemsize))
    arguments.scratch = scratch.data_ptr()
    native.call("pendula_cornn_backward_run", arguments, dtype)
    summed = [x.new_empty(0) if sums is None else sums[i].sum(0).to(dtype) for i in range(3)]
    return [by_x, state_y, state_z, by_W, by_W_z, by_V, by_b, *summed, by_tau]


cornn_scan_backward = torch.library.custom_op("pendula::cornn_scan_backward", _run_backward, mutates_args=())
_direct_backward = Direct(cornn_scan_backward, _run_backward)


@cornn_scan_backward.register_fake
def _(
    by_y: Any,
    by_y_last: Any,
    by_z_last: Any,
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    W: Tensor,
    W_z: Tensor,
    V: Tensor,
    *rest: Any,
) -> list[Tensor]:
    tau, input, constants = rest[3], rest[9], rest[10]
    units = W.shape[0]
    sums = [x.new_empty(units if constants else 0) for _ in range(3)]
    by_tau = x.new_empty(0) if tau is None else torch.empty_like(tau)
    alike = [torch.empty_like(a, memory_format=torch.contiguous_format) for a in (x, y0, z0, W, W_z, V)]
    return [alike[0] if input else x.new_empty(0), *alike[1:], x.new_empty(units), *sums, by_tau]


@cornn_scan_backward.register_kernel("cuda")
def _(*given: Any) -> list[Tensor]:
    from pendula.ops.gpu import cornn as on_gpu

    return on_gpu.backward(*given)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y0, z0, W, W_z, V, b, dt, gamma, epsilon, tau, lengths, implicit, keep, products = inputs
    assert keep, "the scan was run without what its backward pass needs"
    y, _, _, s, kept = output
    ctx.save_for_backward(x, y0, z0, W, W_z, V, dt, gamma, epsilon, tau, lengths, y, s, kept)
    ctx.implicit, ctx.biased, ctx.products = implicit, b is not None, products
    ctx.constants = any(ctx.needs_input_grad[7:10])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_y: Any, by_y_last: Any, by_z_last: Any, *_: Any) -> tuple[Tensor | None, ...]:
    # read once: under activation checkpointing a second reading is refused
    saved = ctx.saved_tensors
    *found, by_dt, by_gamma, by_epsilon, by_tau = _direct_backward(
        by_y, by_y_last, by_z_last, *saved, ctx.implicit, ctx.needs_input_grad[0], ctx.constants, ctx.products
    )
    constants = (by_dt, by_gamma, by_epsilon) if ctx.constants else (None, None, None)
    spans = by_tau if saved[9] is not None else None
    bias = found[6] if ctx.biased else None
    by_x = found[0] if ctx.needs_input_grad[0] else None
    return (by_x, *found[1:6], bias, *constants, spans, None, None, None, None)


cornn_scan.register_autograd(_backward, setup_context=_setup)
direct = Direct(cornn_scan, _forward, _backward, _setup)


def check_sizes(x: Tensor, *others: Tensor | None) -> None:
    """No pointer goes out that the sizes of x and W don't vouch for."""
    names = ("y0", "z0", "W", "W_z", "V", "b", "dt", "gamma", "epsilon", "tau", "lengths")
    weight = others[2]
    assert weight is not None
    (steps, batch, inputs), n = x.shape, weight.shape[0]
    sizes = [(batch, n), (batch, n), (n, n), (n, n), (n, inputs), *[(n,)] * 4, (steps, batch), (batch,)]
    native.check("cornn_scan", x, names, others, sizes)


def _check_kept(x: Tensor, n: int, *others: Tensor | None) -> None:
    names = ("by_y", "by_y_last", "by_z_last", "y", "s", "kept")
    steps, batch = x.shape[:2]
    shown, state = (steps, batch, n), (batch, n)
    sizes = [shown, state, state, shown, shown, (kept_of(x, n), batch, n)]
    native.check("cornn_scan_backward", x, names, others, sizes)
