"""Lyapunov exponents of a cell along a driven trajectory, by QR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pendula.cells import Cell, State
from pendula.nets.scan import run

# steps between two QR decompositions; all of a state's exponents need one at each step, since float64 loses the small
# ones beside the large ones
STRIDE = 8


@dataclass(frozen=True)
class Lyapunov:
    """The leading Lyapunov exponents: how fast small changes of the state grow, in the logarithm.

    Attributes:
        exponents: per step, largest first, mean over the sequences, each weighing as many steps as it has; -inf where a
            direction is forgotten in one step.
        spread: their standard deviation over the sequences, weighed in the same way.
        per_time: per unit of time, where the cell has one time step for all units; else None.
        steps: how many were averaged over in a sequence (the mean that goes with these weights); sequences: how many.
        complete: whether there is an exponent for every number of the state, so that they add up to ln |det|.
        tolerance: 2 ln(steps) / steps; growth like a power of the time, which is not exponential, looks as large.
        sign: of the largest, "negative", "zero" (within the tolerance) or "positive"; "not finite".
    """

    exponents: tuple[float, ...]
    spread: tuple[float, ...]
    per_time: tuple[float, ...] | None
    steps: float
    sequences: int
    complete: bool
    tolerance: float
    sign: str


def states_at(
    cell: Cell, x: Tensor, lengths: Tensor, tau: Tensor | None, cuts: Sequence[int], backend: str
) -> list[State]:
    """The states before the steps with the numbers `cuts`, which start at 0; of ended sequences, the last ones."""
    state = cell.initial_state(x.shape[1])
    seen = [state]
    for start, end in pairwise(cuts):
        rows = (lengths > start).nonzero().squeeze(1)
        own = cell.State(*(s[rows] for s in state))
        ends, spans = (lengths[rows] - start).clamp(max=end - start), None if tau is None else tau[start:end, rows]
        _, own = run(cell, x[start:end, rows], own, lengths=ends, tau=spans, backend=backend)
        state = cell.State(*(s.index_copy(0, rows, o) for s, o in zip(state, own, strict=True)))
        seen.append(state)
    return seen


def lyapunov(
    cell: Cell,
    x: Tensor,
    lengths: Tensor,
    tau: Tensor | None,
    *,
    cuts: Sequence[int],
    states: Sequence[State],
    count: int,
    backend: str = "auto",
) -> Lyapunov:
    """The leading exponents along the trajectories of a batch.

    A frame of `count` vectors is pulled back through the steps, last one first, as gradients are: the exponents are
    those of the forward steps, and the layer's own scan does the work. The frame is made orthogonal at each cut; what
    was pulled through the last tenth of a sequence only turns it.

    Args:
        x, lengths, tau: input (T, B, I) in float64, steps (B,), time spans (T, B) or None.
        cuts: numbers of steps, ascending from 0, the last one T, close to one another (`STRIDE`).
        states: those before the steps at the cuts (`states_at`).
        count: how many exponents, at most the numbers of a state.
    """
    batch, widths = x.shape[1], [s.shape[-1] for s in states[0]]
    size = sum(widths)
    count = min(count, size)
    draw = torch.Generator().manual_seed(0)
    frame = torch.linalg.qr(torch.randn(batch, size, count, generator=draw, dtype=torch.float64))[0].to(x)
    logs, counted = x.new_zeros(batch, count), torch.zeros_like(lengths)
    for (start, end), state in reversed(list(zip(pairwise(cuts), states, strict=False))):
        rows = (lengths > start).nonzero().squeeze(1)
        ends = (lengths[rows] - start).clamp(max=end - start)
        frame[rows], stretch = _pulled(cell, x[start:end], ends, tau, (start, end), state, rows, frame[rows], backend)
        # how much of the sequence has been pulled through before
        settled = lengths[rows] - start - ends >= lengths[rows] // 10
        logs[rows] += torch.where(settled.unsqueeze(1), stretch.abs().log(), 0)
        counted[rows] += torch.where(settled, ends, 0)
    each = (logs / counted.unsqueeze(1)).sort(-1, descending=True).values
    if not all(bool(s.isfinite().all()) for s in states[-1]):
        each = torch.full_like(each, math.nan)
    share = (counted.to(x) / counted.sum()).unsqueeze(1)
    mean, steps = (each * share).sum(0), float((counted * share.squeeze(1)).sum())
    tolerance = 2 * math.log(max(steps, 2)) / steps
    largest = float(mean[0])
    if math.isnan(largest) or largest == math.inf:
        sign = "not finite"
    else:
        sign = "zero" if abs(largest) <= tolerance else "positive" if largest > 0 else "negative"
    dt = one_step(cell)
    if dt is not None and tau is not None:
        valid = torch.arange(len(tau), device=tau.device).unsqueeze(1) < lengths
        dt *= float(tau[valid].mean())
    # -inf - -inf is not a number
    spread = ((each - mean).nan_to_num(0.0).square() * share).sum(0).sqrt()
    return Lyapunov(
        exponents=tuple(mean.tolist()),
        spread=tuple(spread.tolist()),
        per_time=None if dt is None else tuple((mean / dt).tolist()),
        steps=steps,
        sequences=batch,
        complete=count == size,
        tolerance=tolerance,
        sign=sign,
    )


def _pulled(
    cell: Cell,
    x: Tensor,
    ends: Tensor,
    tau: Tensor | None,
    piece: tuple[int, int],
    state: State,
    rows: Tensor,
    frame: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The frames (R, S, k) before a piece, orthogonal again, and by how much they were stretched (R, k)."""
    count = frame.shape[-1]
    # the sequences of a batch do not see one another: each stands there once for every vector of its frame
    copies = rows.repeat_interleave(count)
    spans = None if tau is None else tau[piece[0] : piece[1], copies]
    with torch.enable_grad():
        before = [s[copies].detach().requires_grad_() for s in state]
        ends = ends.repeat_interleave(count)
        _, after = run(cell, x[:, copies], cell.State(*before), lengths=ends, tau=spans, backend=backend)
        vectors = torch.split(frame.mT.flatten(0, 1), [s.shape[-1] for s in state], -1)
        found = torch.autograd.grad(after, before, vectors, materialize_grads=True)
    pulled = torch.cat(found, -1).reshape(len(rows), count, -1).mT
    if not bool(pulled.isfinite().all()):
        return torch.full_like(frame, math.nan), torch.full_like(frame[:, 0], math.nan)
    turned, stretch = torch.linalg.qr(pulled)
    return turned, stretch.diagonal(dim1=-2, dim2=-1)


def one_step(cell: Cell) -> float | None:
    """The time step of a cell, where it has one and all units share it."""
    dt = getattr(cell, "dt", None) if cell.has_time_step else None
    if dt is None:
        return None
    values = dt.detach().flatten()
    return float(values[0]) if bool((values == values[0]).all()) else None
