"""A scan whose backward pass computes stretches of it again: less memory, for one more forward pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pendula.cells.base import Cell, State
from pendula.nets.scan import run, valid_steps


def run_in_stretches(
    cell: Cell,
    x: Tensor,
    state: State | None,
    *,
    every: int | None,
    lengths: Tensor | None,
    tau: Tensor | None,
    backend: str,
) -> tuple[Tensor, State]:
    """`run`, keeping for the backward pass only the state at every so many steps; it computes the others again.

    Outputs and gradients are those of `run`, but for the order of sums. What is kept grows with T / `every`, and one
    stretch of `every` steps is whole at a time: it is least near the square root of T.

    Args:
        every: steps of a stretch; None: all is kept.
        cell, x, state, lengths, tau, backend: as for `pendula.nets.scan.run`. A cell that draws one mask for all times
            can't be cut.
    """
    if every is None or every >= x.shape[0] or not torch.is_grad_enabled():
        return run(cell, x, state, lengths=lengths, tau=tau, backend=backend)
    now = cell.initial_state(x.shape[1]) if state is None else state
    if lengths is not None:
        valid = valid_steps(lengths, x.shape[0]).unsqueeze(-1)
        # a sequence that is over runs on below, unseen: from what may stand in its padding nothing must come
        x = x.masked_fill(~valid, 0)
        tau = None if tau is None else tau.masked_fill(~valid.squeeze(-1), 1)

    def stretch(part: Tensor, count: Tensor | None, spans: Tensor | None, *fields: Tensor) -> tuple[Tensor, ...]:
        outputs, after = run(cell, part, cell.State(*fields), lengths=count, tau=spans, backend=backend)
        return outputs, *after

    shown = []
    for first in range(0, x.shape[0], every):
        part, spans = x[first : first + every], None if tau is None else tau[first : first + every]
        left = None if lengths is None else lengths - first
        count = None if left is None else left.clamp(1, len(part))
        outputs, *after = checkpoint(stretch, part, count, spans, *now, use_reentrant=False)
        if left is not None:
            goes_on = (left > 0).unsqueeze(-1)
            outputs = outputs.masked_fill(~goes_on, 0)
            after = [torch.where(goes_on, new, old) for new, old in zip(after, now, strict=True)]
        now = cell.State(*after)
        shown.append(outputs)
    return torch.cat(shown), now
