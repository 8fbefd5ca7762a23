"""A scan of a cell that can be undone: the backward pass rebuilds the states instead of keeping them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pendula.cells.base import State
from pendula.cells.reversible import ReversibleCell


def reversible(
    cell: ReversibleCell, drive: Tensor, state: State, valid: Tensor | None, tau: Tensor | None
) -> tuple[Tensor, State]:
    """The reference scan of a cell with `unstep`, with what `cell.memory` says kept for the backward pass.

    "store": the outputs, which the caller holds anyway; what they don't show is rebuilt. "checkpoint": the state at
    every `cell.checkpoint_every`-th step, undone in between. "reverse": the final state only. The drive is kept in all
    of them. Gradients are those of the reference up to rounding; they can't be differentiated again.
    """
    memory = cell.memory_of_now()
    # buffers too: somebody may ask for the gradient of a constant
    named = {**dict(cell.named_parameters()), **dict(cell.named_buffers())}
    learned = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
    # the types that torch ships for a Function's apply don't know its arguments
    apply = cast(Callable[..., tuple[Tensor, ...]], _Rebuilt.apply)
    outputs, *final = apply(cell, memory, tuple(learned), valid, drive, tau, *state, *learned.values())
    return outputs, cell.State(*final)


class _Rebuilt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cell: ReversibleCell, memory: str, names: tuple[str, ...], *tensors: Tensor | None) -> Any:
        valid, drive, tau, *rest = tensors
        assert drive is not None
        fields = len(cell.State._fields)
        start = state = tuple(cast(list[Tensor], rest[:fields]))
        outputs, kept = [], []
        for t, d in enumerate(drive.unbind(0)):
            if memory == "checkpoint" and t and t % cell.checkpoint_every == 0:
                kept.append(state)
            state = _where(_at(valid, t), cell.step(state, d, tau=_at(tau, t)), state)
            outputs.append(cell.output(state, d))
        stacked = torch.stack(outputs)
        checkpoints = tuple(torch.stack(parts) for parts in zip(*kept, strict=True))
        shown = stacked if memory == "store" else None
        ctx.cell, ctx.memory, ctx.names, ctx.fields, ctx.stretches = cell, memory, names, fields, len(kept)
        ctx.save_for_backward(valid, drive, tau, shown, *rest[fields:], *start, *state, *checkpoints)
        return (stacked, *state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        valid, drive, tau, shown, *rest = ctx.saved_tensors
        count, fields = len(ctx.names), ctx.fields
        parameters = [p.detach().requires_grad_() for p in rest[:count]]
        start, state = rest[count : count + fields], tuple(rest[count + fields : count + 2 * fields])
        checkpoints = rest[count + 2 * fields :]
        cell = _with_parameters(ctx.cell, ctx.names, parameters)
        by_output, by_state = gradients[0], gradients[1:]
        by_drive = torch.empty_like(drive)
        by_tau = None if tau is None else torch.zeros_like(tau)
        by_parameters = [torch.zeros_like(p) for p in parameters]
        for t in range(drive.shape[0] - 1, -1, -1):
            runs, span = _at(valid, t), _at(tau, t)
            stretch, first = divmod(t, cell.checkpoint_every)
            if t == 0:
                before = tuple(start)
            elif ctx.memory == "checkpoint" and first == 0:
                before = tuple(part[stretch - 1] for part in checkpoints)
            else:
                known = None if shown is None else shown[t - 1]
                before = _where(runs, cell.unstep(state, drive[t], tau=span, output=known), state)
            shown_by = by_output[t]
            moved_by = by_state
            if runs is not None:
                shown_by, moved_by = shown_by * runs, tuple(g * runs for g in by_state)
            found = cell.pullback(before, state, drive[t], shown_by, moved_by, tau=span)
            by_state = _where(runs, found.state, by_state)
            by_drive[t] = found.drive
            if by_tau is not None and found.tau is not None:
                by_tau[t] = found.tau.squeeze(-1)
            for total, name in zip(by_parameters, ctx.names, strict=True):
                if name in found.parameters:
                    total += found.parameters[name]
            state = before
        return None, None, None, None, by_drive, by_tau, *by_state, *by_parameters


def _at(x: Tensor | None, t: int) -> Tensor | None:
    return None if x is None else x[t].unsqueeze(-1)


def _where(runs: Tensor | None, moved: State, rested: State) -> State:
    """Sequences that have ended stay where they are."""
    if runs is None:
        return tuple(moved)
    return tuple(torch.where(runs, m, r) for m, r in zip(moved, rested, strict=True))


def _with_parameters(cell: ReversibleCell, names: tuple[str, ...], parameters: list[Tensor]) -> ReversibleCell:
    """The cell with the parameters of the forward pass, which may be others by now (`torch.func.functional_call`)."""
    twin = copy.copy(cell)
    given = dict(zip(names, cast(list[Any], parameters), strict=True))
    twin._parameters = {name: given.get(name, own) for name, own in cell._parameters.items()}
    twin._buffers = {name: given.get(name, own) for name, own in cell._buffers.items()}
    return twin
