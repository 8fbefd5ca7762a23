"""A cell run over a batch in short stretches, so that what is watched never needs all states at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from pendula.cells import Cell, State
from pendula.diagnose.certificate import Certificate, Statement
from pendula.nets.jacobian import step_jacobian
from pendula.nets.scan import valid_steps

C = TypeVar("C", bound=Cell)

# numbers of a state, times sequences, times steps, that are held at once: some 30 MB each
HELD = 2**22
LONGEST = 256
# how many moments, and sequences at each, have their step Jacobian taken: each costs as many backward passes as
# the state has numbers
MOMENTS, ROWS = 8, 2
# a formula for a derivative may be off by this share: rounding
CONFIRMED = 1e-9
# lengths of a step that are looked at, where a batch has many
LENGTHS = 32


class Point(NamedTuple):
    """A state that was visited, with the drive and tau of the step from there: a few sequences, each (b, ...)."""

    step: int
    state: tuple[Tensor, ...]
    drive: Tensor
    tau: Tensor | None


class Stretch(NamedTuple):
    """K consecutive steps of B sequences.

    states: tensors (K + 1, B, units), before the first step and after each; drive (K, B, D); tau (K, B, 1) or None;
    runs (K, B): whether the sequence takes the step; first: the number of the first step, from 0.
    """

    states: tuple[Tensor, ...]
    drive: Tensor
    tau: Tensor | None
    runs: Tensor
    first: int

    @property
    def before(self) -> tuple[Tensor, ...]:
        return tuple(s[:-1] for s in self.states)

    @property
    def after(self) -> tuple[Tensor, ...]:
        return tuple(s[1:] for s in self.states)


class Observer(ABC, Generic[C]):
    """Watches one cell over a batch, stretch by stretch, and says in the end which statements hold.

    A batch may come in groups of sequences: `begin` opens each, `see` gets its stretches in order.

    `copies` is how often each group runs side by side; a subclass with more than one says by `inputs` what the others
    see, and finds them behind one another in the batch of a stretch.
    """

    copies = 1

    def __init__(self, cell: C, where: str, stored: torch.dtype) -> None:
        self.cell, self.where, self.stored = cell, where, stored
        self.moments: set[int] = set()
        self.shortest, self.longest = math.inf, 0.0
        self.lengths: set[float] = set()

    def inputs(self, x: Tensor) -> Tensor:
        """Inputs (K, copies * B, I) of all copies, from those of the first."""
        return x

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        """A group of sequences: x (T, B, I), lengths (B,), tau (T, B)."""
        steps = x.shape[0]
        width = sum(s.shape[1] for s in self.cell.initial_state(1))
        moments = MOMENTS if width <= 128 else MOMENTS // 2 if width <= 512 else MOMENTS // 4
        self.moments = set(torch.linspace(0, steps - 1, moments).long().tolist())
        spans = torch.ones(1) if tau is None else tau if lengths is None else tau[valid_steps(lengths, steps)]
        order = spans.flatten().sort().values
        self.lengths |= set(order[torch.linspace(0, len(order) - 1, LENGTHS).long()].tolist())
        self.shortest = min(self.shortest, float(spans.min()))
        self.longest = max(self.longest, float(spans.max()))

    @abstractmethod
    def see(self, stretch: Stretch) -> None:
        """The next stretch of the group."""

    @abstractmethod
    def certificates(self) -> list[Certificate]:
        """What came out."""

    @property
    def even(self) -> bool:
        """Whether all steps were equally long."""
        return self.shortest == self.longest

    def points(self, stretch: Stretch, size: int) -> Iterator[Point]:
        """The chosen moments of a stretch, for up to `ROWS` running sequences of the first `size`."""
        for k in range(len(stretch.drive)):
            rows = stretch.runs[k, :size].nonzero().squeeze(1)[:ROWS]
            if stretch.first + k in self.moments and len(rows):
                tau = None if stretch.tau is None else stretch.tau[k, rows]
                yield Point(stretch.first + k, tuple(s[k, rows] for s in stretch.states), stretch.drive[k, rows], tau)

    def jacobian(self, point: Point) -> Tensor:
        """d new state / d state of the step from a point: (b, S, S)."""
        return step_jacobian(self.cell, self.cell.State(*point.state), point.drive, tau=point.tau)

    @property
    def spans(self) -> str:
        """Which steps there were, for the words of a condition."""
        if self.even:
            return "" if self.longest == 1 else f" (steps of {self.longest:.4g} dt)"
        return f" (steps of {self.shortest:.4g} to {self.longest:.4g} dt)"


def push(cell: Cell, state: tuple[Tensor, ...], drive: Tensor, tau: Tensor | None, change: tuple[Tensor, ...]) -> State:
    """What the cell's own step makes of a small change of the state, at any number of states: J v, each (b, units)."""
    with torch.enable_grad():
        at = [s.detach().requires_grad_() for s in state]
        new = cell.step(cell.State(*at), drive, tau=tau)
        # what goes back is linear in the cotangents: its own derivative goes forward
        cotangents = [torch.zeros_like(n).requires_grad_() for n in new]
        back = torch.autograd.grad(tuple(new), at, cotangents, create_graph=True, materialize_grads=True)
        found = torch.autograd.grad(back, cotangents, change, materialize_grads=True)
    return tuple(f.detach() for f in found)


def follow(
    cell: Cell, stretch: Stretch, size: int, start: tuple[Tensor, ...], formula: Iterable[tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """What becomes of a small change (B, units) of the first `size` sequences after each step: tensors (K, B, units).

    A formula for it, which is fast, is believed as far as the derivatives of the cell's own steps confirm it.
    """
    seen = [start, *formula]
    states, drive = [s[:-1, :size] for s in stretch.states], stretch.drive[:, :size]
    tau = None if stretch.tau is None else stretch.tau[:, :size]
    before, after = (tuple(torch.stack(v) for v in zip(*part, strict=True)) for part in (seen[:-1], seen[1:]))
    flat = tuple(s.flatten(0, 1) for s in states)
    spans = None if tau is None else tau.flatten(0, 1)
    own = push(cell, flat, drive.flatten(0, 1), spans, tuple(v.flatten(0, 1) for v in before))
    off = sum((o - v.flatten(0, 1)).abs().amax(-1) for o, v in zip(own, after, strict=True))
    scale = sum(v.abs().amax(-1).flatten() for v in (*before, *after))
    if bool((torch.as_tensor(off) <= CONFIRMED * scale).all()):
        return after
    seen = [start]
    for k in range(len(drive)):
        seen.append(push(cell, tuple(s[k] for s in states), drive[k], None if tau is None else tau[k], seen[-1]))
    return tuple(torch.stack(v) for v in zip(*seen[1:], strict=True))


class Worst:
    """The moment at which a measured value came closest to its bound, or went farthest beyond it."""

    def __init__(self, *, logarithm: bool = False) -> None:
        self.logarithm = logarithm
        self.score, self.bound, self.measured = -math.inf, math.nan, math.nan
        self.step: int | None = None

    def see(self, bound: Tensor, measured: Tensor, runs: Tensor | None = None, first: int = 0) -> None:
        """Steps (K, B, ...), of which those count that `runs` (K, B) has; without it all count, whatever their step."""
        bound, measured = torch.broadcast_tensors(bound, measured)  # type: ignore[no-untyped-call]
        score = measured - bound if self.logarithm else measured / bound
        # not a number: nothing is worse
        score = score.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
        if runs is not None:
            score = score.masked_fill(~runs.reshape(*runs.shape, *[1] * (score.dim() - 2)), -math.inf)
        best, index = score.flatten().max(0)
        if float(best) > self.score or (self.step is None and math.isnan(self.bound)):
            self.score = float(best)
            self.bound, self.measured = float(bound.flatten()[index]), float(measured.flatten()[index])
            self.step = None if runs is None else first + int(index) // max(1, score[0].numel()) + 1

    def certificate(self, statement: Statement, where: str, condition: str) -> Certificate:
        return statement.checked(where, condition, self.bound, self.measured, self.step)


def walk(cell: Cell, x: Tensor, lengths: Tensor | None, tau: Tensor | None, observer: Observer[Cell]) -> Tensor:
    """Run a cell over x (T, B, I) as `pendula.nets.scan.run` does, showing an observer every step; the outputs."""
    steps, batch = x.shape[:2]
    valid = torch.ones(steps, batch, dtype=torch.bool) if lengths is None else valid_steps(lengths, steps)
    x = x.masked_fill(~valid.unsqueeze(-1), 0)
    tau = None if tau is None else tau.masked_fill(~valid, 1)
    copies = observer.copies
    state = cell.State(*(s.detach() for s in cell.initial_state(copies * batch)))
    piece = max(1, min(LONGEST, HELD // (copies * batch * max(s.shape[1] for s in state))))
    observer.begin(x, lengths, tau)
    outputs = []
    with torch.no_grad(), cell.keeping():
        for first in range(0, steps, piece):
            part = slice(first, first + piece)
            drive = cell.drive(observer.inputs(x[part]))
            runs = valid[part].repeat(1, copies)
            spans = None if tau is None else tau[part].repeat(1, copies).unsqueeze(-1)
            seen = [state]
            for k, d in enumerate(drive):
                new = cell.step(state, d, tau=None if spans is None else spans[k])
                if lengths is not None:
                    going = runs[k].unsqueeze(-1)
                    new = cell.State(*(torch.where(going, n, o) for n, o in zip(new, state, strict=True)))
                state = new
                seen.append(state)
            states = tuple(torch.stack(parts) for parts in zip(*seen, strict=True))
            observer.see(Stretch(states, drive, spans, runs, first))
            shown = tuple(s[1:, :batch].flatten(0, 1) for s in states)
            out = cell.output(cell.State(*shown), drive[:, :batch].flatten(0, 1))
            outputs.append(out.reshape(len(drive), batch, -1).masked_fill(~valid[part].unsqueeze(-1), 0))
    return torch.cat(outputs)


def largest_gain(M: Tensor) -> Tensor:
    """The largest singular value of matrices (b, S, S), as (b,); not a number where they are not numbers."""
    if not bool(M.isfinite().all()):
        return M.new_full(M.shape[:1], math.nan)
    gain: Tensor = torch.linalg.matrix_norm(M, 2)
    return gain


def numbers(**values: float) -> str:
    """The numbers of a condition in words: "epsilon dt = 0.6, ..."; underscores become spaces."""
    return ", ".join(f"{name.replace('_', ' ')} = {value:.6g}" for name, value in values.items())
