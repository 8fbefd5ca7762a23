"""Zeros that are added to the states at chosen lags: their gradients are those of the states, at the price of a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pendula.cells import Cell, State
from pendula.diagnose.forward import Place
from pendula.nets.directions import take
from pendula.nets.scan import run

Scan = Callable[..., tuple[Tensor, State]]

# steps that are on the tape at once in the backward pass; between them only states and outputs are kept
PIECE = 256


class Probes:
    """A scan for `pendula.diagnose.forward.outputs_of` with a probe, zero, added to the state at each of some lags.

    The state at lag k is the one with k steps of its sequence still to come; it also speaks through the output of the
    step that made it. Sequences end together here, whatever their lengths, so one cut serves all of them. Between two
    cuts the layer's own scan runs, compiled where there is one, and is run again in the backward pass.

    Args:
        lags: from 0 to the longest length, ascending, both included.

    Attributes: `found` maps a place to its probes, one (B, S) per lag; `cells` maps it to its cell.
    """

    def __init__(self, lags: Sequence[int]) -> None:
        self.lags = tuple(lags)
        longest = self.lags[-1]
        self.cuts = sorted({*self.lags, *range(0, longest, PIECE)}, reverse=True)
        self.found: dict[Place, list[Tensor]] = {}
        self.cells: dict[Place, Cell] = {}

    def __call__(
        self, place: Place, cell: Cell, x: Tensor, lengths: Tensor | None, tau: Tensor | None, backend: str
    ) -> Tensor:
        steps, batch = x.shape[:2]
        longest = self.cuts[0]
        count = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
        self.cells[place] = cell
        probes: dict[int, Tensor] = {}

        def probed(state: State, lag: int) -> State:
            if lag not in self.lags:
                return state
            widths = [s.shape[-1] for s in state]
            probe = probes[lag] = state[0].new_zeros(batch, sum(widths)).requires_grad_()
            # a sequence that is shorter than the lag has no state there
            parts = torch.split(torch.where((count >= lag).unsqueeze(-1), probe, 0), widths, -1)
            moved: State = cell.State(*(s + p for s, p in zip(state, parts, strict=True)))
            return moved

        late = longest - count
        sizes = [before - after for before, after in pairwise(self.cuts)]
        inputs = torch.split(_shifted(x[:longest], late), sizes)
        spans: Sequence[Tensor | None] = [None] * len(sizes)
        if tau is not None:
            spans = torch.split(_shifted(tau[:longest].unsqueeze(-1), late), sizes)
        state, outputs = probed(cell.initial_state(batch), longest), []
        for (before, after), piece, span in zip(pairwise(self.cuts), inputs, spans, strict=True):
            rows = (count > after).nonzero().squeeze(1)
            first = (before - count[rows]).clamp(min=0)
            part, own = piece[:, rows], cell.State(*(s[rows] for s in state))
            given = _shifted(part, -first)
            by = None if span is None else _shifted(span[:, rows], -first).squeeze(-1)
            ends = before - after - first if bool(first.any()) else None
            out, own = _again(cell, given, ends, by, backend, own)
            state = probed(cell.State(*(s.index_copy(0, rows, o) for s, o in zip(state, own, strict=True))), after)
            out = _shifted(out, first)
            if after in self.lags:
                drive = cell.drive(part[-1:])[0].to(state[0].dtype)
                shown = cell.output(cell.State(*(s[rows] for s in state)), drive)
                out = torch.cat((out[:-1], shown.unsqueeze(0)))
            outputs.append(out.new_zeros(len(out), batch, out.shape[-1]).index_copy(1, rows, out))
        self.found[place] = [probes[lag] for lag in self.lags]
        whole = _shifted(torch.cat(outputs), -late)
        return torch.cat((whole, whole.new_zeros(steps - longest, *whole.shape[1:])))


class _Piece(torch.autograd.Function):
    """A scan that keeps what it was given, and is run again, on PyTorch's tape, in the backward pass.

    `torch.utils.checkpoint` can't do that for backward passes that look at what they kept more than once.
    """

    @staticmethod
    def forward(ctx: Any, scan: Scan, learned: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.scan, ctx.learned = scan, learned
        ctx.save_for_backward(*tensors)
        outputs, final = scan(*tensors[learned:])
        return outputs, *final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        kept = ctx.saved_tensors
        with torch.enable_grad():
            given = [t.detach().requires_grad_() for t in kept[ctx.learned :]]
            outputs, final = ctx.scan(*given)
            wanted = [*kept[: ctx.learned], *given]
            found = torch.autograd.grad((outputs, *final), wanted, gradients, allow_unused=True)
        return None, None, *found


def _again(
    cell: Cell, x: Tensor, lengths: Tensor | None, tau: Tensor | None, backend: str, state: State
) -> tuple[Tensor, State]:
    """One piece of a scan, whose tape is made in the backward pass only."""

    def scan(x: Tensor, *state: Tensor) -> tuple[Tensor, State]:
        return run(cell, x, cell.State(*state), lengths=lengths, tau=tau, backend=backend)

    learned = [p for p in cell.parameters() if p.requires_grad]
    # the types that torch ships for a Function's apply don't know its arguments
    apply = cast(Callable[..., tuple[Tensor, ...]], _Piece.apply)
    outputs, *final = apply(scan, len(learned), *learned, x, *state)
    return outputs, cell.State(*final)


def _shifted(x: Tensor, later: Tensor) -> Tensor:
    """Each sequence of x (T, B, F) a number of steps later (B,), earlier where negative; zeros come in."""
    if not bool(later.any()):
        return x
    t = torch.arange(len(x), device=x.device).unsqueeze(1) - later
    inside = (t >= 0) & (t < len(x))
    return take(x, t.clamp(0, len(x) - 1)).masked_fill(~inside.unsqueeze(-1), 0)
