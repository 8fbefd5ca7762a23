"""A scan that is parallel in time: Newton's method for all steps of a window at once, with the steps as its judge."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pendula.cells import Cell, State, UnICORNNCell
from pendula.cells.linear import LinearCell
from pendula.math.associative import linear_adjoint, linear_recurrence, matvec
from pendula.ops.unicornn_newton import PATIENCE, SLOW, UNICORNN_NEWTON, UnICORNNNewton, why_stepped

WINDOW = 256
"""Steps that are solved at once: the window in which the study of ``gpu-kernels.md`` 2.5 counted its iterations."""

ACCEPTED = 128
"""Roundings that a step may be off by before the correction that is its last: behind it, about one is left."""

DRAWS = 4
"""So often rounding is drawn, and what grows furthest counts: chance decides how far one draw grows."""


@dataclass(frozen=True)
class NewtonReport:
    """How a Newton scan went.

    Attributes:
        steps: how many of the T steps were solved; all of them, unless it was given up on the way. All sequences
            together, since their windows move together; in one call on a GPU each oscillator moves for itself, and what
            is reported is the one that was given up first.
        iterations: how often a window was linearised and solved; in one call on a GPU, for the slowest oscillator.
        difference: by how much the result may differ from that of stepping, as a share of the largest value of each
            number of a state over time: what the rounding of each step, and what the steps are still off by, grow to
            along the trajectory. An estimate, more often too large than too small. None where no trajectory was found.
        fallback: why the steps were run one after another after all, as a sentence; None where they were not.

    >>> from pendula import scan
    >>> reports: list[NewtonReport] = []
    >>> outputs, state = scan(UnICORNNCell(3, 8), torch.ones(100, 2, 3), method="newton", report=reports.append)
    >>> reports[0].steps, reports[0].iterations < 10, reports[0].fallback
    (100, True, None)
    """

    steps: int
    iterations: int
    difference: float | None = None
    fallback: str | None = None

    @property
    def steps_per_iteration(self) -> float:
        """What parallel in time gains, as a count: stepping has 1."""
        return self.steps / self.iterations


def unicornn_blocks(cell: UnICORNNCell, state: tuple[Tensor, ...], drive: Tensor, tau: Tensor | None) -> Tensor:
    """d new (y, z) / d (y, z) of each oscillator, (2, 2, ..., N): their determinant is 1."""
    h = cell.h if tau is None else cell.h * tau
    t = torch.tanh(cell.w * state[0] + drive)
    pull = h * (cell.alpha + cell.w * (1 - t * t))
    h, one = h.expand_as(pull), torch.ones_like(pull)
    return torch.stack((torch.stack((one - h * pull, h)), torch.stack((-pull, one))))


BLOCKS: dict[type[Cell], Callable[[Any, tuple[Tensor, ...], Tensor, Tensor | None], Tensor]] = {
    UnICORNNCell: unicornn_blocks
}
"""Cell whose units see only themselves -> the Jacobian of a step, a matrix per unit. A subclass may differ: not run."""


KERNELS: dict[type[Cell], UnICORNNNewton] = {UnICORNNCell: UNICORNN_NEWTON}
"""Cell -> the same in one call, where that is written."""


def objection(cell: Cell) -> str | None:
    """Why Newton's method does not run a cell, as a sentence; None where it does."""
    if type(cell) in BLOCKS:
        return None
    network, able = type(cell).__name__.removesuffix("Cell"), ", ".join(c.__name__.removesuffix("Cell") for c in BLOCKS)
    if isinstance(cell, LinearCell):
        return f"{network} is linear and runs at all times at once anyway: leave method out"
    return f"method='newton' needs units that see only themselves: {able} has them, {network} does not"


def solve(
    cell: Cell, drive: Tensor, state: State, *, valid: Tensor | None, tau: Tensor | None, tolerance: float
) -> tuple[State | None, NewtonReport]:
    """The states after all steps, each (T, B, units), or None with the reason in the report.

    Newton's method on ``s_n = step(s_{n-1})`` for the steps of a window: each iteration solves the steps linearised at
    the states so far, an affine recurrence with a small matrix per unit, by the associative scan. The window then
    moves on over all leading steps that the cell's own step confirms. The first one is always among them, so it ends;
    what is found solves the same equations as stepping does, to the rounding of one step.

    Gradients are exact: those of the steps at the states found, through the adjoint of the linearised recurrence, which
    is another associative scan. `create_graph=True` is refused. Kept for them are the states and the matrices.

    Args:
        drive: (T, B, D); tau (T, B) or None; valid (T, B), true where a sequence still runs, or None.
        state: the state before the first step, each (B, units).
        tolerance: the `NewtonReport.difference` that is allowed.
    """
    spans = None if tau is None else tau.unsqueeze(-1)
    start = torch.stack(tuple(state))
    eps = torch.finfo(start.dtype).eps
    S, progress = _windows(cell, drive.detach(), start.detach(), valid, spans, ACCEPTED * eps)
    counts = sum(progress), len(progress)
    if S is None:
        return None, NewtonReport(*counts, None, why_stepped(_network(cell), None, tolerance, start.dtype))
    before = cell.State(*S[:, :-1].unbind(0))
    new = torch.stack(tuple(cell.step(before, drive, tau=spans)))
    J = BLOCKS[type(cell)](cell, before, drive, spans).detach()
    difference = _difference(S, J, new.detach() - S[:, 1:], valid)
    undecided = why_stepped(_network(cell), difference, tolerance, S.dtype)
    if undecided is not None:
        return None, NewtonReport(*counts, difference, undecided)
    seen = cast(Callable[..., Tensor], _Solved.apply)(S[:, 1:], J, new, start)
    return cell.State(*seen.unbind(0)), NewtonReport(*counts, difference)


def in_one_call(
    cell: Cell, x: Tensor, state: State, *, lengths: Tensor | None, tau: Tensor | None, tolerance: float
) -> tuple[Tensor, State, Tensor]:
    """Outputs, last state, and how it went, for `report_of`: all of `pendula.scan` as one call, where a cell has that.

    It decides by itself whether it steps after all, and then says so; either way its backward pass is that of stepping.
    """
    run = KERNELS[type(cell)]
    outputs, last, how = run(x, tuple(state), _operands(cell), lengths=lengths, tau=tau, tolerance=tolerance)
    return outputs, cell.State(*last), how


def report_of(cell: Cell, how: Tensor, tolerance: float, dtype: torch.dtype) -> NewtonReport:
    """The report of `in_one_call`, read on the host."""
    steps, iterations, found = how.tolist()
    difference = None if math.isnan(found) else found
    fallback = why_stepped(_network(cell), difference, tolerance, dtype)
    return NewtonReport(int(steps), int(iterations), difference, fallback)


def one_call_objection(cell: Cell, x: Tensor) -> str | None:
    """Why a cell that Newton's method runs is not run in one call, as a sentence; None where it is."""
    return KERNELS[type(cell)].objection(x, _operands(cell))


def _operands(cell: Any) -> tuple[Any, ...]:
    # what it would keep for a backward pass of its own doesn't matter here
    return cell.w, cell.h, cell.alpha, cell.V, cell.b


def _network(cell: Cell) -> str:
    return type(cell).__name__.removesuffix("Cell")


class _Solved(torch.autograd.Function):
    """The states (k, T, B, units) that solve ``s_n = step(s_{n-1})``, with the gradients of this equation."""

    @staticmethod
    def forward(ctx: Any, seen: Tensor, J: Tensor, new: Tensor, start: Tensor) -> Tensor:
        ctx.save_for_backward(J)
        return seen.clone()

    @staticmethod
    def backward(ctx: Any, by_seen: Tensor) -> Any:
        if torch.is_grad_enabled():
            # the steps' own graph would give a part of the second derivatives, and nobody would notice
            raise RuntimeError(
                "a scan by Newton's method can't be differentiated twice (create_graph=True): use method='sequential' "
                "with backend='reference' and memory='tape'"
            )
        (J,) = ctx.saved_tensors
        by_new = linear_adjoint(J, by_seen)
        return None, None, by_new, matvec(J.transpose(0, 1)[:, :, 0], by_new[:, 0])


def _windows(
    cell: Cell, drive: Tensor, start: Tensor, valid: Tensor | None, tau: Tensor | None, share: float
) -> tuple[Tensor | None, list[int]]:
    """States (k, T + 1, B, units), the one before the first step included, and the steps that each iteration solved."""
    steps = drive.shape[0]
    S = start.unsqueeze(1).repeat(1, steps + 1, 1, 1)
    # the largest values so far: what rounding is measured by
    largest = start.abs().unsqueeze(1)
    progress: list[int] = []
    done = guessed = 0
    while done < steps:
        recent = progress[-PATIENCE:]
        if len(recent) == PATIENCE and sum(recent) < SLOW * PATIENCE:
            return None, progress
        end = min(done + WINDOW, steps)
        if guessed < end:
            S[:, guessed + 1 : end + 1] = S[:, guessed : guessed + 1]
            guessed = end
        before, window = cell.State(*S[:, done:end].unbind(0)), drive[done:end]
        spans = None if tau is None else tau[done:end]
        off = torch.stack(tuple(cell.step(before, window, tau=spans))).detach() - S[:, done + 1 : end + 1]
        J = BLOCKS[type(cell)](cell, before, window, spans).detach()
        # up to the time of a step: what comes behind it may be far off still
        sizes = torch.maximum(S[:, done + 1 : end + 1].abs().cummax(1).values, largest)
        fine = (off.abs() <= share * sizes).all(0).all(-1)
        if valid is not None:
            fine = fine | ~valid[done:end]
        wrong = (~fine.all(-1)).nonzero()
        taken = int(wrong[0]) if len(wrong) else end - done
        # those that are taken too: this correction is their last
        S[:, done + 1 : end + 1] += linear_recurrence(J, off, torch.zeros_like(start))
        S[:, done + 1 : end + 1].nan_to_num_(0.0, 0.0, 0.0)
        if taken:
            largest = sizes[:, taken - 1 : taken]
        done += taken
        progress.append(taken)
    return S, progress


def _difference(S: Tensor, J: Tensor, off: Tensor, valid: Tensor | None) -> float:
    """What the rounding of each number and step, and what the steps are off by, grow to: see `NewtonReport`."""
    draws = torch.Generator(S.device).manual_seed(0)
    rounding = torch.finfo(S.dtype).eps / 2 * torch.maximum(S[:, 1:].abs(), S[:, :-1].abs())
    sizes, shares = S[:, 1:].abs(), []
    if valid is not None:
        sizes = sizes.masked_fill(~valid.unsqueeze(-1), 0)
    largest = torch.maximum(sizes.amax(1), S[:, 0].abs()).clamp(min=torch.finfo(S.dtype).tiny)
    for _ in range(DRAWS):
        drawn = torch.rand(off.shape, generator=draws, device=S.device, dtype=S.dtype) * 2 - 1
        grown = linear_recurrence(J, off + drawn * rounding, torch.zeros_like(S[:, 0])).abs()
        if valid is not None:
            grown = grown.masked_fill(~valid.unsqueeze(-1), 0)
        shares.append((grown.amax(1) / largest).max())
    return float(torch.stack(shares).max())
