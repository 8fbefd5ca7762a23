"""`pendula::cornn_scan` and its backward operator on a GPU: tensors in, kernels started, tensors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pendula.ops.gpu import cornn_kernels, cornn_wide_kernels, device
from pendula.ops.gpu.product import BFLOAT16, BLOCK, WARP, WIDEST, held, packed, padded_to, streamed

NARROW = 1
"""Up to so many features of the input the kernel makes its own drive."""


def forward(
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
    """What `cornn_scan` gives; all velocities are kept."""
    steps, batch, units = _check(x, y0, z0, W, W_z, V, b, dt, gamma, epsilon, tau, lengths)
    x, y0, z0, V, b, tau, lengths = device.contiguous(x, y0, z0, V, b, tau, lengths)
    outputs, y, z = x.new_empty(steps, batch, units), torch.empty_like(y0), torch.empty_like(z0)
    tanhs = torch.empty_like(outputs) if keep else x.new_empty(0)
    velocities = x.new_empty(steps if keep else 0, batch, units)
    narrow = x.shape[2] <= NARROW
    _launch(
        "forward",
        (W, W_z, dt, gamma, epsilon, tau, lengths),
        (steps, batch, implicit, products),
        x=x if narrow else None,
        V=V if narrow else None,
        b=b if narrow else None,
        drive=None if narrow else device.drive(x, V, b),
        y0=y0,
        z0=z0,
        outputs=outputs,
        tanhs=tanhs if keep else None,
        velocities=velocities if keep else None,
        y_last=y,
        z_last=z,
        INPUTS=x.shape[2] if narrow else 0,
    )
    return outputs, y, z, tanhs, velocities


def backward(
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
) -> list[Tensor]:
    """What `cornn_scan_backward` gives."""
    steps, batch, units = _check(x, y0, z0, W, W_z, V, None, dt, gamma, epsilon, tau, lengths)
    _check_kept(x, units, by_y, by_y_last, by_z_last, y, s, kept)
    by_y, x, y0, z0, V, tau, lengths = device.contiguous(by_y, x, y0, z0, V, tau, lengths)
    y, s, kept = device.contiguous(y, s, kept)
    state_y, state_z = (
        torch.zeros_like(y0) if g is None else g.clone(memory_format=torch.contiguous_format)
        for g in (by_y_last, by_z_last)
    )
    p = x.new_empty(steps, batch, units)
    moved, pulls = (torch.empty_like(p) if constants or tau is not None else None for _ in range(2))
    _launch(
        "backward",
        (W, W_z, dt, gamma, epsilon, tau, lengths),
        (steps, batch, implicit, products),
        tanhs=s,
        by_outputs=by_y,
        by_y=state_y,
        by_z=state_z,
        by_drive=p,
        by_moved=moved,
        pulls=pulls,
    )
    rows, first = p.flatten(0, 1), p[0].mT
    with device.full_precision():
        # of the states before each step: the initial one, then those that were kept
        by_W = torch.mm(first, y0).addmm_(p[1:].flatten(0, 1).mT, y[:-1].flatten(0, 1))
        by_W_z = torch.mm(first, z0).addmm_(p[1:].flatten(0, 1).mT, kept[:-1].flatten(0, 1))
        by_V = torch.mm(rows.mT, x.flatten(0, 1))
        by_x = torch.mm(rows, V).view(x.shape) if input else x.new_empty(0)
    by_constants, by_tau = [x.new_empty(0) for _ in range(3)], x.new_empty(0)
    if moved is not None and pulls is not None:
        before = torch.cat((y0.unsqueeze(0), y[:-1]))
        damped = kept if implicit else torch.cat((z0.unsqueeze(0), kept[:-1]))
        # by the length of each step: what moved y, and what moved z (pulls are zero behind a sequence's end)
        by_step = moved * kept + pulls * (s - gamma * before - epsilon * damped)
        if lengths is not None:
            by_step.masked_fill_((torch.arange(steps, device=x.device)[:, None] >= lengths).unsqueeze(2), 0)
        forces = pulls * dt
        if tau is not None:
            by_tau = by_step @ dt
            by_step, forces = by_step * tau.unsqueeze(2), forces * tau.unsqueeze(2)
        if constants:
            parts = (by_step, -forces * before, -forces * damped)
            by_constants = [part.sum((0, 1), dtype=torch.float64).to(x.dtype) for part in parts]
    return [by_x, state_y, state_z, by_W, by_W_z, by_V, rows.sum(0), *by_constants, by_tau]


def _launch(name: str, given: tuple[Any, ...], mode: tuple[int, int, bool, int], **arguments: Any) -> None:
    W, W_z, dt, gamma, epsilon, tau, lengths = given
    steps, batch, implicit, products = mode
    units, programs = len(W), -(-batch // BLOCK)
    dt, gamma, epsilon = device.contiguous(dt, gamma, epsilon)
    shared = device.shared_of(W)
    if held(products, units, shared):
        padded = padded_to(units)
        warps, kernel = max(1, padded // WARP), getattr(cornn_kernels, name)
        arguments |= {"weights": packed(products, padded, W, W_z)}
    else:
        tiling = streamed(products, shared)
        padded = -(-units // tiling.columns) * tiling.columns
        warps, kernel = tiling.warps, getattr(cornn_wide_kernels, name)
        # a matrix is read along its rows
        pair = (W.mT, W_z.mT) if name == "forward" else (W, W_z)
        numbers = programs * BLOCK * padded * (8 if name == "forward" else 2)
        arguments |= {
            "weights": packed(products, padded, *pair),
            "scratch": W.new_empty(numbers, dtype=torch.bfloat16 if products == BFLOAT16 else torch.float16),
            "COLUMNS": tiling.columns,
            "TILE": tiling.rows,
            "STAGES": tiling.stages,
        }
    device.launch(
        kernel,
        programs,
        W,
        warps=warps,
        dt=dt,
        gamma=gamma,
        epsilon=epsilon,
        tau=tau,
        lengths=lengths,
        **arguments,
        steps=steps,
        batch=batch,
        units=units,
        IMPLICIT=implicit,
        PRODUCTS=products,
        M=padded,
        BLOCK=BLOCK,
    )


def _check(x: Tensor, *others: Tensor | None) -> tuple[int, int, int]:
    names = ("y0", "z0", "W", "W_z", "V", "b", "dt", "gamma", "epsilon", "tau", "lengths")
    weight = others[2]
    assert weight is not None
    (steps, batch, inputs), n = x.shape, weight.shape[0]
    sizes = [(batch, n), (batch, n), (n, n), (n, n), (n, inputs), *[(n,)] * 4, (steps, batch), (batch,)]
    if n > WIDEST:
        raise ValueError(f"cornn_scan takes up to {WIDEST} units on a GPU, got {n}")
    device.check("cornn_scan", x, dict(zip(names, zip(others, sizes, strict=True), strict=True)))
    return steps, batch, n


def _check_kept(x: Tensor, n: int, *others: Tensor | None) -> None:
    names = ("by_y", "by_y_last", "by_z_last", "y", "s", "kept")
    steps, batch = x.shape[:2]
    shown, state = (steps, batch, n), (batch, n)
    sizes = [shown, state, state, shown, shown, shown]
    device.check("cornn_scan_backward", x, dict(zip(names, zip(others, sizes, strict=True), strict=True)))
