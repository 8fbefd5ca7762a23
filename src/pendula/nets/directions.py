"""Reading a sequence from its end, within its length."""

from __future__ import annotations

import torch
from torch import Tensor


def backwards(lengths: Tensor | None, steps: int, batch: int, device: torch.device) -> Tensor:
    """(T, B): where each step of a reversed sequence comes from; padding stays where it is."""
    t = torch.arange(steps, device=device).unsqueeze(1).expand(steps, batch)
    if lengths is None:
        return t.flip(0)
    return torch.where(t < lengths, lengths - 1 - t, t)


def take(x: Tensor, index: Tensor) -> Tensor:
    """The steps (T, B, F) of a sequence in the order of an index (T, B)."""
    return x.gather(0, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
