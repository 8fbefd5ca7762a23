"""The deterministic tensors of the spec sheets odernn.md, urnn.md, spectral.md and baselines.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def det(shape: Sequence[int], phase: float, scale: float) -> Tensor:
    """float64, filled row by row with scale * sin(phase + m), m = 0, 1, 2, ..."""
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(phase + m)).reshape(tuple(shape))
