"""Cells whose step is affine in the state: they run over time in logarithmic depth."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from pendula.cells.base import Cell
from pendula.math.associative import linear_recurrence, matvec


class LinearCell(Cell):
    """A cell with ``s_n = M_n s_{n-1} + F_n``, a small matrix per unit.

    A network gives `affine`; `step` and `states` follow from it. A `State` has k tensors of the same width.
    """

    @abstractmethod
    def affine(self, drive: Tensor, tau: Tensor | None) -> tuple[Tensor, Tensor]:
        """M and F of one step or of all: drive (..., D) and tau (..., 1) to M (k, k, [...,] P) and F (k, ..., P).

        Without tau, M has no leading dimensions: it is the same for all times and sequences.
        """

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> tuple[Tensor, ...]:
        M, F = self.affine(drive, tau)
        new: tuple[Tensor, ...] = self.State(*(matvec(M, torch.stack(tuple(state))) + F).unbind(0))
        return new

    def states(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> tuple[Tensor, ...]:
        """The states after every step, by the associative scan: drive (T, B, D), tau (T, B, 1), each (T, B, P)."""
        M, F = self.affine(drive, tau)
        seen: tuple[Tensor, ...] = self.State(*linear_recurrence(M, F, torch.stack(tuple(state))).unbind(0))
        return seen
