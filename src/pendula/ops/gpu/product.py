"""What the products of a scan on a GPU are rounded to, and weights in that form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SPLIT, HALF, BFLOAT16 = range(3)
"""float32 as two float16 numbers; float16; bfloat16. The sums are float32 in all of them."""


LARGEST = 128
"""Units whose weights fit the shared memory of an H100 as two float16 numbers each."""
WIDEST = 512
"""Units up to which weights are streamed from the caches of the GPU: each program then reads 2 MiB at each step."""
BLOCK = 16
"""Sequences of a program: rows of a product on the tensor cores."""
WARP = 16
"""Columns of a product that each warp has."""


def products_of(x: Tensor) -> int:
    """What autocast asks of a scan's products, if it does, on the device of x."""
    device = x.device.type
    if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return SPLIT
    return {torch.bfloat16: BFLOAT16, torch.float16: HALF}.get(torch.get_autocast_dtype(device), SPLIT)


def packed(products: int, padded: int, *weights: Tensor) -> Tensor:
    """Square matrices (N, N) as (K, padded, padded): all rounded, then (SPLIT) 2048 times what that lost."""
    whole = torch.stack([torch.nn.functional.pad(W, (0, padded - len(W)) * 2) for W in weights])
    if products == BFLOAT16:
        return whole.bfloat16()
    high = whole.half()
    return torch.cat((high, ((whole - high.float()) * 2048).half())) if products == SPLIT else high


def shared_needed(products: int, padded: int) -> int:
    """Bytes of shared memory that two square matrices and the operands of BLOCK sequences take."""
    return (2 if products == SPLIT else 1) * 2 * 2 * padded * (padded + BLOCK)


FOUR_HELD = 64
"""Units up to which four matrices fit the shared memory of an H100 as two float16 numbers each."""


def shared_needed_of_four(products: int, padded: int) -> int:
    """As `shared_needed`, of four matrices: beyond FOUR_HELD one low half is held, and one of the others on its way."""
    halves = 4 if products != SPLIT else 8 if padded <= FOUR_HELD else 6
    return 2 * padded * (halves * padded + 4 * BLOCK)


def held(products: int, units: int, shared: int) -> bool:
    """Whether two square matrices stay in so many bytes of shared memory; else they are streamed."""
    return units <= LARGEST and shared_needed(products, padded_to(units)) <= shared


class Tiling(NamedTuple):
    """How two square matrices are streamed: columns at a time, rows of a tile, tiles held at once and one more, warps.

    Chosen by what the compiler makes of it for an H100: no register is spilled, and tiles of 64 KiB are under way.
    """

    columns: int = 128
    rows: int = 32
    stages: int = 4
    warps: int = 8

    def shared_needed(self, products: int) -> int:
        """Bytes of shared memory that the tiles of weights and operands take."""
        return (self.stages - 1) * 2 * 2 * (2 if products == SPLIT else 1) * self.rows * (self.columns + BLOCK)


def streamed(products: int, shared: int) -> Tiling:
    """The tiling for so many bytes of shared memory; every GPU that Triton compiles for has enough for one of them."""
    tiling = Tiling()
    return tiling if tiling.shared_needed(products) <= shared else tiling._replace(stages=3)


def padded_to(units: int) -> int:
    """The tensor cores multiply blocks of 16."""
    return max(16, 1 << (units - 1).bit_length())
