"""`pendula::lem_scan` and its backward operator on a GPU: tensors in, kernels started, tensors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pendula.ops.gpu import device, lem_kernels
from pendula.ops.gpu.product import BLOCK, FOUR_HELD, LARGEST, WARP, packed, padded_to

WIDTH = 16
"""Units are a multiple of it: of any other width each number has an address of its own, and registers run out."""


def forward(
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
    """What `lem_scan` gives; all z are kept."""
    steps, batch, units = _check(x, y0, z0, W, W_y, V, b, dt, tau, lengths)
    wide_units = -(-units // WIDTH) * WIDTH
    if wide_units != units:
        wide = _weights(wide_units, W, W_y, V)
        y0, z0, dt = (_sized(a, wide_units) for a in (y0, z0, dt))
        b = _sized(b, wide_units, 4)
        *found, gates, memories = forward(x, y0, z0, *wide, b, dt, tau, lengths, keep, products)
        outputs, y, z, memories = (_sized(a, units) for a in (*found, memories))
        return outputs, y, z, _sized(gates, units, 4) if keep else gates, memories
    x, y0, z0, V, b, tau, lengths = device.contiguous(x, y0, z0, V, b, tau, lengths)
    outputs, y, z = x.new_empty(steps, batch, units), torch.empty_like(y0), torch.empty_like(z0)
    rows = steps if keep else 1
    gates, memories = x.new_empty(rows, batch, 4 * units), x.new_empty(rows, batch, units)
    _launch(
        lem_kernels.forward,
        (W, W_y, dt, tau, lengths),
        (steps, batch, products),
        drive=device.drive(x, V, b),
        y0=y0,
        z0=z0,
        outputs=outputs,
        gates=gates,
        memories=memories,
        y_last=y,
        z_last=z,
        KEEP=keep,
    )
    return outputs, y, z, gates if keep else x.new_empty(0), memories if keep else x.new_empty(0, batch, units)


def backward(
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
) -> list[Tensor]:
    """What `lem_scan_backward` gives."""
    steps, batch, units = _check(x, y0, z0, W, W_y, V, None, dt, tau, lengths)
    _check_kept(x, units, by_y, by_y_last, by_z_last, y, gates, kept)
    wide_units = -(-units // WIDTH) * WIDTH
    if wide_units != units:
        wide = _weights(wide_units, W, W_y, V)
        by_y, by_y_last, by_z_last, y0, z0, dt, y, kept = (
            _sized(a, wide_units) for a in (by_y, by_y_last, by_z_last, y0, z0, dt, y, kept)
        )
        gates = _sized(gates, wide_units, 4)
        given = (by_y, by_y_last, by_z_last, x, y0, z0, *wide, dt, tau, lengths, y, gates, kept)
        by_x, by_y0, by_z0, by_W, by_W_y, by_V, by_b, by_dt, by_tau = backward(*given, wants_x, wants_dt, products)
        by_y0, by_z0 = _sized(by_y0, units), _sized(by_z0, units)
        by_dt = _sized(by_dt, units) if wants_dt else by_dt
        return [by_x, by_y0, by_z0, *_weights(units, by_W, by_W_y, by_V), _sized(by_b, units, 4), by_dt, by_tau]
    by_y, x, y0, z0, V, tau, lengths = device.contiguous(by_y, x, y0, z0, V, tau, lengths)
    y, gates, kept = device.contiguous(y, gates, kept)
    state_y, state_z = (torch.zeros_like(y0) if g is None else g.contiguous() for g in (by_y_last, by_z_last))
    p, by_y0, by_z0 = torch.empty_like(gates), torch.empty_like(y0), torch.empty_like(z0)
    # of both halves of each step
    by_steps = x.new_empty(steps, 2, batch, units) if wants_dt or tau is not None else None
    _launch(
        lem_kernels.backward,
        (W, W_y, dt, tau, lengths),
        (steps, batch, products),
        y0=y0,
        z0=z0,
        outputs=y,
        gates=gates,
        memories=kept,
        by_outputs=by_y,
        by_y=state_y,
        by_z=state_z,
        by_drive=p,
        by_steps=by_steps,
        by_y0=by_y0,
        by_z0=by_z0,
    )
    rows = p.flatten(0, 1)
    of_y, of_z = rows[:, : 3 * units], rows[:, 3 * units :]
    with device.full_precision():
        # the gates and z's goal saw the state y before the step, y's goal the new z
        by_W = torch.mm(of_y[:batch].mT, y0).addmm_(of_y[batch:].mT, y[:-1].flatten(0, 1))
        by_W_y = torch.mm(of_z.mT, kept.flatten(0, 1))
        by_V = torch.mm(rows.mT, x.flatten(0, 1))
        by_x = torch.mm(rows, V).view(x.shape) if wants_x else x.new_empty(0)
    by_dt, by_tau = x.new_empty(0), x.new_empty(0)
    if by_steps is not None:
        by_step = by_steps.sum(1)
        if tau is not None:
            by_tau = by_step @ dt
            by_step *= tau.unsqueeze(2)
        if wants_dt:
            by_dt = by_step.sum((0, 1), dtype=torch.float64).to(x.dtype)
    return [by_x, by_y0, by_z0, by_W, by_W_y, by_V, rows.sum(0), by_dt, by_tau]


def _launch(kernel: Any, given: tuple[Any, ...], mode: tuple[int, int, int], **arguments: Any) -> None:
    W, W_y, dt, tau, lengths = given
    steps, batch, products = mode
    units, padded = len(W_y), padded_to(len(W_y))
    device.launch(
        kernel,
        -(-batch // BLOCK),
        W,
        warps=max(1, padded // WARP),
        weights=packed(products, padded, *W.chunk(3), W_y),
        dt=dt.contiguous(),
        tau=tau,
        lengths=lengths,
        **arguments,
        steps=steps,
        batch=batch,
        units=units,
        HELD=4 if padded <= FOUR_HELD else 1,
        PRODUCTS=products,
        M=padded,
        BLOCK=BLOCK,
    )


def _sized(a: Any, units: int, blocks: int = 1, axis: int = -1) -> Any:
    """With so many units in each of the blocks of an axis: those there are and zeros, or the first of them."""
    if a is None:
        return None
    parts = a.movedim(axis, -1).unflatten(-1, (blocks, -1))
    return torch.nn.functional.pad(parts, (0, units - parts.shape[-1])).flatten(-2).movedim(-1, axis).contiguous()


def _weights(units: int, W: Tensor, W_y: Tensor, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _sized(_sized(W, units), units, 3, 0), _sized(_sized(W_y, units), units, 1, 0), _sized(V, units, 4, 0)


def _check(x: Tensor, *others: Tensor | None) -> tuple[int, int, int]:
    names = ("y0", "z0", "W", "W_y", "V", "b", "dt", "tau", "lengths")
    weight = others[3]
    assert weight is not None
    (steps, batch, inputs), n = x.shape, weight.shape[0]
    sizes = [(batch, n), (batch, n), (3 * n, n), (n, n), (4 * n, inputs), (4 * n,), (n,), (steps, batch), (batch,)]
    if n > LARGEST:
        raise ValueError(f"lem_scan holds the weights of up to {LARGEST} units on a GPU, got {n}")
    device.check("lem_scan", x, dict(zip(names, zip(others, sizes, strict=True), strict=True)))
    return steps, batch, n


def _check_kept(x: Tensor, n: int, *others: Tensor | None) -> None:
    names = ("by_y", "by_y_last", "by_z_last", "y", "gates", "kept")
    steps, batch = x.shape[:2]
    shown, state = (steps, batch, n), (batch, n)
    sizes = [shown, state, state, shown, (steps, batch, 4 * n), shown]
    device.check("lem_scan_backward", x, dict(zip(names, zip(others, sizes, strict=True), strict=True)))
