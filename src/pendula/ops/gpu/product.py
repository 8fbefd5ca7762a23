"""What the products of a scan on a GPU are rounded to, and weights in that form."""

from __future__ import annotations

import torch
from torch import Tensor

SPLIT, HALF, BFLOAT16 = range(3)
"""float32 as two float16 numbers; float16; bfloat16. The sums are float32 in all of them."""


LARGEST = 128
"""Units whose weights fit the shared memory of an H100 as two float16 numbers each."""
BLOCK = 16
"""Sequences of a program: rows of a product on the tensor cores."""
WARP = 16
"""Columns of a product that each warp has."""


def products_of(x: Tensor) -> int:
    """What autocast asks of products, if it does: of a scan's products on a GPU, and of no others."""
    if not x.is_cuda or not torch.is_autocast_enabled("cuda"):
        return SPLIT
    return BFLOAT16 if torch.get_autocast_dtype("cuda") == torch.bfloat16 else HALF


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


def padded_to(units: int) -> int:
    """The tensor cores multiply blocks of 16."""
    return max(16, 1 << (units - 1).bit_length())
