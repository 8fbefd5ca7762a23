"""How much of an error reaches the steps before it: the weights of the time rules (spec sheet ``dfa.md`` 3.4, 7.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from pendula.cells import Cell


def weights(time: str, discount: float, cell: Cell | None, steps: int, like: Tensor) -> Tensor:
    """What an error weighs k = 0, 1, ..., steps - 1 steps before it: (steps,), or (steps, N) where units differ.

    local: only at its own step; broadcast: equally; discounted: discount^k; kernel: as the cell's own response to an
    impulse falls and swings, relative to that at its own step (`Cell.response`).
    """
    lags = torch.arange(steps, device=like.device, dtype=like.dtype)
    if time == "kernel" and cell is not None:
        table = cell.response(steps)
        assert table is not None
        table = table.detach().to(like)
        # of units that are alike, one column is kept
        alike = table.stride(1) == 0 or bool((table == table[:, :1]).all())
        return table[:, 0].clone() if alike else table
    if time == "discounted":
        return torch.pow(torch.as_tensor(discount, dtype=like.dtype, device=like.device), lags)
    if time in ("broadcast", "kernel"):
        return torch.ones_like(lags)
    return (lags == 0).to(like)


class Arriving:
    """The error of a layer's outputs at any stretch of time, B times the errors at and after each step.

    Args:
        error: dLoss/dlogits: (B, C) of what was pooled over time, or (T, B, C) per step.
        table: `weights`.
        feedback: B (N, C).
        pool: of the read-out: "last", "mean" or "steps".
        lengths: (B,).
    """

    def __init__(self, error: Tensor, table: Tensor, feedback: Tensor, pool: str, lengths: Tensor) -> None:
        self.table, self.feedback, self.pool, self.lengths = table, feedback, pool, lengths
        if pool != "steps":
            self.carried = error @ feedback.T
            if pool == "mean":
                self.table = table.cumsum(0)
        elif table.dim() == 1:
            # the same for all units: the few numbers of the error are added up, not the many of the layer
            self.sums = _summed(error, table)
        else:
            self.sums = _summed(error @ feedback.T, table)

    def at(self, first: int, count: int) -> Tensor:
        """(count, B, N) from step `first` on; zero in the padding."""
        if self.pool == "steps":
            part = self.sums[first : first + count]
            return part @ self.feedback.T if self.table.dim() == 1 else part
        t = torch.arange(first, first + count, device=self.lengths.device).unsqueeze(1)
        left = self.lengths - 1 - t
        weight = self.table[left.clamp(min=0)] if self.table.dim() == 2 else self.table[left.clamp(min=0)].unsqueeze(-1)
        if self.pool == "mean":
            weight = weight / self.lengths.unsqueeze(-1)
        return (weight * self.carried).masked_fill((left < 0).unsqueeze(-1), 0)


def _summed(error: Tensor, table: Tensor) -> Tensor:
    """sum_k table[k] error[t + k] for every t: (T, B, N), by Fourier transforms."""
    steps = len(error)
    if not bool(table[1:].any()):
        return error * table[0]
    wide = table.view(steps, 1, -1)
    n = 2 * steps
    spectrum = torch.fft.rfft(error, n, dim=0) * torch.fft.rfft(wide, n, dim=0).conj()
    summed: Tensor = torch.fft.irfft(spectrum, n, dim=0)
    return summed[:steps]
