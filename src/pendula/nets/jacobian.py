"""Jacobians of the steps of a cell, measured along a trajectory: what C11 of the spec sheet ``odernn.md`` asks for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pendula import _check
from pendula.cells import Cell, State


def step_jacobian(cell: Cell, state: State, drive: Tensor, *, tau: Tensor | None = None) -> Tensor:
    """The derivative of the new state in the old one, for each sequence of the batch: (B, S, S).

    S counts the numbers of a state, its tensors side by side. Detached: nothing is trained through it.

    >>> from pendula.cells import UnICORNNCell
    >>> cell = UnICORNNCell(3, 4)
    >>> M = step_jacobian(cell, cell.initial_state(2), torch.zeros(2, 4))
    >>> M.shape, torch.linalg.det(M).allclose(torch.ones(2))
    (torch.Size([2, 8, 8]), True)
    """
    _, M = _step_and_jacobian(cell, state, drive, tau)
    return M


def _step_and_jacobian(cell: Cell, state: State, drive: Tensor, tau: Tensor | None) -> tuple[State, Tensor]:
    with torch.enable_grad():
        flat = torch.cat([s.detach() for s in state], -1).requires_grad_()
        parts = torch.split(flat, [s.shape[-1] for s in state], -1)
        new = cell.step(cell.State(*parts), drive.detach(), tau=tau)
        after = torch.cat(new, -1)
        # the sequences of a batch do not see one another, so one sum serves them all
        rows = [torch.autograd.grad(total, flat, retain_graph=True)[0] for total in after.sum(0)]
    return cell.State(*(s.detach() for s in new)), torch.stack(rows, 1)


class Gains(NamedTuple):
    """Largest and smallest singular value of every step's Jacobian, each (T, B)."""

    largest: Tensor
    smallest: Tensor


def step_gains(cell: Cell, x: Tensor, state: State | None = None, *, timespans: Tensor | None = None) -> Gains:
    """How much one step can stretch and shrink a small change of the state, along a trajectory.

    The products over time bound what a gradient can grow and shrink by (`pendula.math.stability.gradient_bounds`).
    A smallest value of 0 is exact where a cell overwrites part of its state, such as GRU's or a kept input.

    Args:
        cell: any `pendula.cells.Cell`.
        x: input (T, B, I).
        state: the state before the first step; the cell's own when None.
        timespans: (T, B), as in `pendula.scan`.

    >>> from pendula.cells import CoRNNCell
    >>> step_gains(CoRNNCell(3, 4), torch.zeros(5, 2, 3)).largest.shape
    torch.Size([5, 2])
    """
    like = next(cell.parameters())
    _check.sequence_input(x, cell.input_size, like)
    steps, batch = x.shape[:2]
    if timespans is not None:
        if not cell.has_time_step:
            raise ValueError(f"{type(cell).__name__} has no time step, so timespans can't scale it: leave them out")
        timespans = _check.timespans_of(timespans, steps, batch, like)
        _check.positive_timespans(timespans, None)
    state = cell.initial_state(batch) if state is None else state
    largest, smallest = [], []
    with cell.keeping():
        for t, drive in enumerate(cell.drive(x).detach().to(state[0].dtype)):
            tau = None if timespans is None else timespans[t].unsqueeze(-1)
            state, M = _step_and_jacobian(cell, state, drive, tau)
            values = torch.linalg.svdvals(M)
            largest.append(values[:, 0])
            smallest.append(values[:, -1])
    return Gains(torch.stack(largest), torch.stack(smallest))
