"""ODERNN over time in one call: `pendula::odernn_scan` and its backward operator, on the compiled scans."""

from __future__ import annotations

import ctypes
import math
import typing
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pendula.ops import native
from pendula.ops.direct import Direct

CACHED = 1 << 18
"""Numbers of a chunk of steps, so that what a chunk took is in cache when the gradients of the weights are summed."""


def stages_of(tableau: Sequence[float]) -> int:
    """n of a tableau that is written as n rows of A, then b: n (n + 1) numbers."""
    return math.isqrt(len(tableau))


def chunk_of(batch: int, units: int, stages: int) -> int:
    """Steps of a chunk: the state before each is kept, and rebuilt within it from the kept tanh."""
    return native.clamp(CACHED // (batch * units * stages), 8, 512)


def kept_of(x: Tensor, units: int, stages: int) -> int:
    """How many states the backward pass is given: the one before each chunk but the first.

    And two that nobody reads: to `torch.compile` sizes of 0 and 1 would be other programs.
    """
    return 2 + (x.shape[0] - 1) // chunk_of(x.shape[1], units, stages)


def _forward(
    x: Tensor,
    Z0: Tensor,
    W: Tensor,
    U: Tensor,
    b: Tensor | None,
    dt: Tensor,
    gamma: Tensor,
    tau: Tensor | None,
    lengths: Tensor | None,
    tableau: typing.List[float],  # noqa: UP006 (not every torch that we take knows another name of it)
    semi_implicit: bool,
    linear: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (T, B, N), the last state, and with `keep` for the backward pass all tanh (T, n, B, N) and some states.

    x (T, B, I); dt (N,), gamma (t, N); the tableau as `stages_of` has it, [0, 1] where it is `semi_implicit`; `linear`:
    the input between two samples lies on their line, and the state has the last drive; the rest as in
    `pendula.cells.ODERNNCell`.
    """
    _check(x, Z0, W, U, b, dt, gamma, tau, lengths, tableau, semi_implicit, linear)
    steps, batch, inputs = x.shape
    order, units, dtype, stages = W.shape[0], W.shape[1], x.dtype, stages_of(tableau)
    x, Z0, W, U, b, dt, gamma, tau, lengths = native.contiguous(x, Z0, W, U, b, dt, gamma, tau, lengths)
    y, Z_last = native.fresh(x, steps, batch, units), torch.empty_like(Z0)
    s = native.fresh(x, steps, stages, batch, units) if keep else x.new_empty(0)
    kept = x.new_empty(kept_of(x, units, stages) if keep else 0, batch, order * units)
    if keep:
        kept[-2:] = 0
    arguments = native.structure(
        native.ODERNNForward,
        steps=steps,
        batch=batch,
        units=units,
        inputs=inputs,
        order=order,
        stages=stages,
        every=chunk_of(batch, units, stages),
        semi_implicit=semi_implicit,
        linear=linear,
        threads=torch.get_num_threads(),
        x=x,
        Z0=Z0,
        W=W,
        U=U,
        b=b,
        dt=dt,
        gamma=gamma,
        tableau=torch.tensor(tableau, dtype=torch.float64),
        tau=tau,
        lengths=lengths,
        y=y,
        s=s if keep else None,
        kept=kept if keep else None,
        Z_last=Z_last,
    )
    scratch = x.new_empty(native.library().pendula_odernn_forward_scratch(ctypes.byref(arguments), dtype.itemsize))
    arguments.scratch = scratch.data_ptr()
    native.call("pendula_odernn_forward_run", arguments, dtype)
    return y, Z_last, s, kept


odernn_scan = torch.library.custom_op("pendula::odernn_scan", _forward, mutates_args=())


@odernn_scan.register_fake
def _(x: Tensor, Z0: Tensor, W: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tableau, keep = rest[6], rest[9]
    steps, batch, units, stages = x.shape[0], x.shape[1], W.shape[1], stages_of(tableau)
    s = x.new_empty((steps, stages, batch, units) if keep else (0,))
    # sizes may be symbols here
    kept = x.new_empty(kept_of(x, units, stages) if keep else 0, batch, W.shape[0] * units)
    return x.new_empty(steps, batch, units), torch.empty_like(Z0, memory_format=torch.contiguous_format), s, kept


def _run_backward(
    by_y: Tensor | None,
    by_Z_last: Tensor | None,
    x: Tensor,
    Z0: Tensor,
    W: Tensor,
    U: Tensor,
    dt: Tensor,
    gamma: Tensor,
    tau: Tensor | None,
    lengths: Tensor | None,
    s: Tensor,
    kept: Tensor,
    tableau: typing.List[float],  # noqa: UP006 (as above)
    semi_implicit: bool,
    linear: bool,
    wants_x: bool,
    constants: bool,
) -> typing.List[Tensor]:  # noqa: UP006 (as above)
    """Gradients of x (empty without `wants_x`), Z0, W, U, b; of dt, gamma (empty without `constants`); of tau (empty
    without it)."""
    _check(x, Z0, W, U, None, dt, gamma, tau, lengths, tableau, semi_implicit, linear)
    _check_kept(x, Z0, W, by_y, by_Z_last, s, kept, stages_of(tableau))
    steps, batch, inputs = x.shape
    order, units, dtype, stages = W.shape[0], W.shape[1], x.dtype, stages_of(tableau)
    threads = torch.get_num_threads()
    x, Z0, W, U, dt, gamma, tau, lengths = native.contiguous(x, Z0, W, U, dt, gamma, tau, lengths)
    s, kept, by_y = native.contiguous(s, kept, by_y)
    by_Z = torch.zeros_like(Z0) if by_Z_last is None else by_Z_last.clone(memory_format=torch.contiguous_format)
    by_x, by_b = torch.empty_like(x) if wants_x else x.new_empty(0), x.new_empty(units)
    by_W, by_U = torch.empty_like(W), torch.empty_like(U)
    by_dt = torch.zeros((threads, units), dtype=torch.float64) if constants else None
    by_gamma = torch.zeros((threads, order, units), dtype=torch.float64) if constants else None
    by_tau = x.new_empty(0) if tau is None else torch.empty_like(tau)
    arguments = native.structure(
        native.ODERNNBackward,
        steps=steps,
        batch=batch,
        units=units,
        inputs=inputs,
        order=order,
        stages=stages,
        every=chunk_of(batch, units, stages),
        semi_implicit=semi_implicit,
        linear=linear,
        threads=threads,
        x=x,
        Z0=Z0,
        W=W,
        U=U,
        dt=dt,
        gamma=gamma,
        tableau=torch.tensor(tableau, dtype=torch.float64),
        tau=tau,
        lengths=lengths,
        s=s,
        kept=kept,
        by_y=by_y,
        by_Z=by_Z,
        by_x=by_x if wants_x else None,
        by_W=by_W,
        by_U=by_U,
        by_b=by_b,
        by_dt=by_dt,
        by_gamma=by_gamma,
        by_tau=None if tau is None else by_tau,
    )
    scratch = x.new_empty(native.library().pendula_odernn_backward_scratch(ctypes.byref(arguments), dtype.itemsize))
    arguments.scratch = scratch.data_ptr()
    native.call("pendula_odernn_backward_run", arguments, dtype)
    summed = [x.new_empty(0) if g is None else g.sum(0).to(dtype) for g in (by_dt, by_gamma)]
    return [by_x, by_Z, by_W, by_U, by_b, *summed, by_tau]


odernn_scan_backward = torch.library.custom_op("pendula::odernn_scan_backward", _run_backward, mutates_args=())
_direct_backward = Direct(odernn_scan_backward, _run_backward)


@odernn_scan_backward.register_fake
def _(
    by_y: Any, by_Z_last: Any, x: Tensor, Z0: Tensor, W: Tensor, U: Tensor, dt: Tensor, gamma: Tensor, *rest: Any
) -> list[Tensor]:
    tau, wants_x, constants = rest[0], rest[7], rest[8]
    alike = [torch.empty_like(a, memory_format=torch.contiguous_format) for a in (x, Z0, W, U)]
    sums = [x.new_empty(a.shape if constants else 0) for a in (dt, gamma)]
    by_tau = x.new_empty(0 if tau is None else tau.shape)
    return [alike[0] if wants_x else x.new_empty(0), *alike[1:], x.new_empty(W.shape[1]), *sums, by_tau]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, Z0, W, U, b, dt, gamma, tau, lengths, *scheme, keep = inputs
    assert keep, "the scan was run without what its backward pass needs"
    _, _, s, kept = output
    ctx.save_for_backward(x, Z0, W, U, dt, gamma, tau, lengths, s, kept)
    ctx.scheme, ctx.biased = scheme, b is not None
    ctx.wants_x, ctx.constants = ctx.needs_input_grad[0], any(ctx.needs_input_grad[5:7])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_y: Any, by_Z_last: Any, *_: Any) -> tuple[Tensor | None, ...]:
    # read once: under activation checkpointing a second reading is refused
    saved = ctx.saved_tensors
    found = _direct_backward(by_y, by_Z_last, *saved, *ctx.scheme, ctx.wants_x, ctx.constants)
    wanted = (ctx.wants_x, True, True, True, ctx.biased, ctx.constants, ctx.constants, saved[6] is not None)
    return (*(g if want else None for g, want in zip(found, wanted, strict=True)), *[None] * 5)


odernn_scan.register_autograd(_backward, setup_context=_setup)
direct = Direct(odernn_scan, _forward, _backward, _setup)


def _check(x: Tensor, *others: Any) -> None:
    """No pointer goes out that the sizes of x and W, and the number of stages, don't vouch for."""
    names = ("Z0", "W", "U", "b", "dt", "gamma", "tau", "lengths")
    *tensors, tableau, semi_implicit, linear = others
    (steps, batch, inputs), (order, n, _), stages = x.shape, others[1].shape, stages_of(tableau)
    if not stages or len(tableau) != stages * (stages + 1) or (semi_implicit and stages > 1):
        raise ValueError(
            "odernn_scan needs a tableau of n rows of n numbers and n weights, of one stage if it is semi-implicit, "
            f"got {len(tableau)} numbers"
        )
    width = (order + linear) * n
    sizes = [(batch, width), (order, n, n), (n, inputs), (n,), (n,), (order, n), (steps, batch), (batch,)]
    native.check("odernn_scan", x, names, tensors, sizes)


def _check_kept(x: Tensor, Z0: Tensor, W: Tensor, *others: Any) -> None:
    names = ("by_y", "by_Z_last", "s", "kept")
    *tensors, stages = others
    (steps, batch), (order, n) = x.shape[:2], W.shape[:2]
    sizes = [(steps, batch, n), tuple(Z0.shape), (steps, stages, batch, n), (kept_of(x, n, stages), batch, order * n)]
    native.check("odernn_scan_backward", x, names, tensors, sizes)
