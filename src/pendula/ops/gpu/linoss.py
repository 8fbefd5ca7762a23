"""`pendula::linoss_scan` and its backward operator on a GPU: tensors in, kernels started, tensors out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pendula.ops.gpu import device, linoss_kernels

LANES = 1 << 17
"""So many lanes, each with some numbers on their way, keep the memory of a large GPU busy."""
SHORTEST = 16
"""Steps of a chunk at least, and what a lane has on its way."""
MANY = 32768
"""Below so many chains, blocks of 64 lanes reach more of the GPU than blocks of 128."""


def chunk_of(steps: int, chains: int) -> int:
    """Steps of a chunk, a power of two: as few chunks as fill the GPU, and no more chunks than they have steps."""
    wanted = max(SHORTEST, math.isqrt(steps), steps * chains // LANES)
    return 1 << (wanted - 1).bit_length()


def forward(force: Tensor, matrix: Tensor, z0: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
    """What `linoss_scan` gives."""
    _check(force, matrix, z0, y0)
    force, matrix, z0, y0 = _by_unit(force), *device.contiguous(matrix, z0, y0)
    every = chunk_of(force.shape[0], z0.numel())
    count = -(-force.shape[0] // every)
    entries = force.new_empty(count, 2, *z0.shape)
    z, y = (force.new_empty(force.shape) for _ in range(2))
    _launch("forward", count - 1, force, matrix, every, entries=entries, z=None, y=None)
    _carry(entries, matrix, every, z0, y0)
    _launch("forward", count, force, matrix, every, entries=entries, z=z, y=y)
    return z, y


def backward(
    by_z: Tensor | None,
    by_y: Tensor | None,
    force: Tensor,
    matrix: Tensor,
    z0: Tensor,
    y0: Tensor,
    z: Tensor,
    y: Tensor,
    wants_matrix: bool,
) -> list[Tensor]:
    """What `linoss_scan_backward` gives."""
    _check(force, matrix, z0, y0, by_z, by_y, z, y)
    force = _by_unit(force)
    by_z, by_y, matrix, z0, y0, z, y = device.contiguous(by_z, by_y, matrix, z0, y0, z, y)
    every = chunk_of(force.shape[0], z0.numel())
    count = -(-force.shape[0] // every)
    entries = force.new_empty(count, 2, *z0.shape)
    by_force, by_z0, by_y0 = force.new_empty(force.shape), torch.empty_like(z0), torch.empty_like(y0)
    sums = force.new_empty(count, 2, 3, *z0.shape) if wants_matrix else None
    given = {"by_z": by_z, "by_y": by_y, "z0": z0, "y0": y0, "z": z, "y": y, "entries": entries}
    nothing = dict.fromkeys(("by_force", "sums", "by_z0", "by_y0"))
    _launch("backward", count - 1, force, matrix, every, **given, **nothing)
    _carry(entries, matrix, every, None, None)
    all_of_it = {"by_force": by_force, "sums": sums, "by_z0": by_z0, "by_y0": by_y0}
    _launch("backward", count, force, matrix, every, **given, **all_of_it)
    by_matrix = matrix.new_empty(0)
    if sums is not None:
        by_matrix = sums.sum((0, 3), dtype=torch.float64).to(matrix.dtype)
    return [by_force, by_matrix, by_z0, by_y0]


def _launch(name: str, count: int, force: Tensor, matrix: Tensor, every: int, **arrays: Tensor | None) -> None:
    if count == 0:
        return
    (steps, batch, units), streams = force.shape, 1
    if name == "backward":
        streams = sum(arrays[g] is not None for g in ("by_z", "by_y")) + (3 if arrays["sums"] is not None else 0)
    block = _block(batch * units)
    blocks = -(-batch * units // block)
    ahead = SHORTEST if streams <= 2 else SHORTEST // 2
    device.launch(
        getattr(linoss_kernels, name),
        blocks * count,
        force,
        warps=block // 32,
        force=force,
        matrix=matrix,
        **arrays,
        steps=steps,
        every=every,
        blocks=blocks,
        batch=batch,
        units=units,
        force_step=force.stride(0),
        force_row=force.stride(1),
        U=ahead,
        TAIL=steps % ahead != 0,
        BLOCK=block,
    )


def _carry(entries: Tensor, matrix: Tensor, every: int, z0: Tensor | None, y0: Tensor | None) -> None:
    count, _, batch, units = entries.shape
    block = _block(batch * units)
    device.launch(
        linoss_kernels.carry,
        -(-batch * units // block),
        entries,
        warps=block // 32,
        matrix=matrix,
        entries=entries,
        start_z=z0,
        start_y=y0,
        count=count,
        levels=every.bit_length() - 1,
        batch=batch,
        units=units,
        BACK=z0 is None,
        U=SHORTEST,
        BLOCK=block,
    )


def _block(chains: int) -> int:
    return 64 if chains < MANY else 128


def _by_unit(force: Tensor) -> Tensor:
    """Part of a wider drive is read where it lies."""
    return force if force.stride(2) == 1 else force.contiguous()


def _check(force: Tensor, *others: Tensor | None) -> None:
    names = ("matrix", "z0", "y0", "by_z", "by_y", "z", "y")
    steps, batch, units = force.shape
    sizes: list[tuple[int, ...]] = [(2, 3, units), *[(batch, units)] * 2, *[(steps, batch, units)] * 4]
    given: Any = zip(names, zip(others, sizes, strict=False), strict=False)
    device.check("linoss_scan", force, dict(given))
