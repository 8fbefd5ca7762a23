"""A cell run over time: the only place that chooses between the reference and a fused scan."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from pendula import _check
from pendula.cells.base import Cell, State
from pendula.cells.linear import LinearCell
from pendula.cells.reversible import ReversibleCell
from pendula.nets import newton
from pendula.nets.newton import NewtonReport
from pendula.nets.reversible import reversible
from pendula.ops.direct import transformed
from pendula.ops.unicornn_newton import TOLERANCE, say_stepped

BACKENDS = ("auto", "reference", "fused")
METHODS = ("sequential", "newton")

_said: set[tuple[str, str]] = set()

_F = TypeVar("_F", bound=Callable[..., Any])


def _between_graphs(reason: str) -> Callable[[_F], _F]:
    """Marks what `torch.compile` puts in no graph: where it may have one only, its error gives the reason."""
    disable: Any = torch.compiler.disable
    marked: Callable[[_F], _F] = disable(reason=reason)
    return marked


def scan(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    *,
    lengths: Tensor | None = None,
    timespans: Tensor | None = None,
    backend: str = "auto",
    method: str = "sequential",
    tolerance: float | None = None,
    report: Callable[[NewtonReport], object] | None = None,
) -> tuple[Tensor, State]:
    """Run a cell over a batch of sequences.

    Args:
        cell: any `pendula.cells.Cell`.
        x: input (T, B, I).
        state: the cell's state before the first step, each tensor (B, units); its own initial state when None.
        lengths: (B,) whole numbers from 1 to T for padded input. What stands in the padding has no influence.
        timespans: (T, B), positive: scales the time step of each step of each sequence.
        backend: "auto" takes a fused scan where there is one and it can (for a linear cell, the associative scan);
            "reference" steps the cell in Python; "fused" raises `BackendError` with the reason where it can't.
        method: "sequential" takes one step after another; "newton" solves many at once (`pendula.nets.newton`), for
            UnICORNN: a `ValueError` names who can. It is checked against the cell's steps while it runs; where it
            stalls, or rounding decides the result, the sequential scan runs instead, and a warning says so once.
            On a GPU it is one call, if `backend` lets it, and `torch.compile(fullgraph=True)` takes it; elsewhere it
            runs between two graphs, which `fullgraph=True` refuses.
        tolerance: for "newton": by how much, as a share of the largest values, it may differ from the sequential scan
            (estimated; two float32 runs of thousands of steps differ by some 1e-5). None: by 1e-5; pass
            more for sequences of tens of thousands of steps.
        report: for "newton": called with the `NewtonReport` of the scan: iterations, and why there was a fallback.
            `torch.compile` ends a graph there, so that `fullgraph=True` refuses it.

    Returns:
        Outputs (T, B, O), zero in the padding, and the state after each sequence's last step.

    >>> from pendula.cells import CoRNNCell
    >>> outputs, state = scan(CoRNNCell(3, 8), torch.zeros(5, 2, 3))
    >>> outputs.shape, state.y.shape
    (torch.Size([5, 2, 8]), torch.Size([2, 8]))
    """
    _check.one_of("backend", backend, BACKENDS)
    _check.one_of("method", method, METHODS)
    if method != "newton" and (tolerance is not None or report is not None):
        raise ValueError(f"tolerance and report belong to method='newton', got method={method!r}")
    if tolerance is not None:
        _check.at_least_zero("tolerance", tolerance)
    like = next(cell.parameters())
    _check.sequence_input(x, cell.input_size, like)
    steps, batch = x.shape[:2]
    count = None if lengths is None else _check.lengths_of(lengths, steps, batch, x.device)
    spans = None if timespans is None else _check.timespans_of(timespans, steps, batch, like)
    if spans is not None:
        _check.positive_timespans(spans, None if count is None else valid_steps(count, steps))
    if method == "sequential":
        return run(cell, x, state, lengths=count, tau=spans, backend=backend)
    objection = newton.objection(cell)
    if objection is not None:
        raise ValueError(objection)
    return _newton(cell, x, state, count, spans, backend, TOLERANCE if tolerance is None else tolerance, report)


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """(T, B), true where a sequence still runs."""
    return torch.arange(steps, device=lengths.device).unsqueeze(1) < lengths


def run(
    cell: Cell, x: Tensor, state: State | None, *, lengths: Tensor | None, tau: Tensor | None, backend: str
) -> tuple[Tensor, State]:
    """`scan` on arguments that were checked where they entered."""
    if tau is not None and not cell.has_time_step:
        raise ValueError(f"{type(cell).__name__} has no time step, so timespans can't scale it: leave timespans out")
    state = cell.initial_state(x.shape[1]) if state is None else state
    x, valid, tau = _without_padding(x, lengths, tau)
    with cell.keeping():
        if isinstance(cell, LinearCell) and backend != "reference":
            return _associative(cell, x, state, lengths, valid, tau)
        operands = cell.operands() if cell.fused is not None and backend != "reference" else ()
        if _choose(cell, x, operands, lengths, tau, backend):
            assert cell.fused is not None
            outputs, final = cell.fused(x, state, operands, lengths=lengths, tau=tau)
            return _typed(outputs, state[0]), cell.State(*map(_typed, final, state))
        return _reference(cell, x, state, valid, tau)


def _typed(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the type of another one."""
    return tensor if tensor.dtype == like.dtype else tensor.to(like.dtype)


def _without_padding(
    x: Tensor, lengths: Tensor | None, tau: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Input, the steps that count (T, B), and time spans."""
    if lengths is None:
        return x, None, tau
    valid = valid_steps(lengths, x.shape[0])
    # padding may hold anything, NaN included; times zero in a backward pass it would still be NaN
    return x.masked_fill(~valid.unsqueeze(-1), 0), valid, None if tau is None else tau.masked_fill(~valid, 1)


def _newton(
    cell: Cell,
    x: Tensor,
    state: State | None,
    lengths: Tensor | None,
    tau: Tensor | None,
    backend: str,
    tolerance: float,
    report: Callable[[NewtonReport], object] | None,
) -> tuple[Tensor, State]:
    state = cell.initial_state(x.shape[1]) if state is None else state
    known, valid, spans = _without_padding(x, lengths, tau)
    found = None
    with cell.keeping():
        if backend != "reference" and _newton_in_one_call(cell, known, backend):
            found = newton.in_one_call(cell, known, state, lengths=lengths, tau=spans, tolerance=tolerance)
    # no graph may end within the context
    if found is None:
        return _newton_on_reference(cell, known, state, lengths, valid, spans, backend, tolerance, report)
    outputs, last, how = found
    if report is not None:
        _tell(report, cell, how, tolerance, outputs.dtype)
    return outputs, last


@_between_graphs("report is called on the host: leave report out, or fullgraph=True")
def _tell(
    report: Callable[[NewtonReport], object], cell: Cell, how: Tensor, tolerance: float, dtype: torch.dtype
) -> None:
    report(newton.report_of(cell, how, tolerance, dtype))


@_between_graphs(
    "Newton's method on the reference scan iterates as often as the numbers need, which no graph can hold: leave "
    "fullgraph=True out; on a GPU, backend='fused' says why it is not one call"
)
def _newton_on_reference(
    cell: Cell,
    x: Tensor,
    state: State,
    lengths: Tensor | None,
    valid: Tensor | None,
    tau: Tensor | None,
    backend: str,
    tolerance: float,
    report: Callable[[NewtonReport], object] | None,
) -> tuple[Tensor, State]:
    with cell.keeping():
        drive = cell.drive(x).to(state[0].dtype)
        seen, found = newton.solve(cell, drive, state, valid=valid, tau=tau, tolerance=tolerance)
        if report is not None:
            report(found)
        if seen is not None:
            return _shown(cell, seen, drive, lengths, valid)
    say_stepped(type(cell).__name__.removesuffix("Cell"), str(found.fallback))
    return run(cell, x, state, lengths=lengths, tau=tau, backend=backend)


def _newton_in_one_call(cell: Cell, x: Tensor, backend: str) -> bool:
    reason = newton.one_call_objection(cell, x)
    if reason is None:
        return True
    if backend == "fused":
        raise _check.BackendError(f"{reason}: use backend='auto' or 'reference'")
    network = type(cell).__name__.removesuffix("Cell")
    if x.is_cuda and (network, reason) not in _said:
        _said.add((network, reason))
        warnings.warn(f"{network} runs Newton's method on the reference scan: {reason}", stacklevel=4)
    return False


def _choose(
    cell: Cell, x: Tensor, operands: tuple[Any, ...], lengths: Tensor | None, tau: Tensor | None, backend: str
) -> bool:
    if backend == "reference":
        return False
    if backend == "auto" and isinstance(cell, ReversibleCell) and cell.memory == "tape":
        # that is what the tape was asked for
        return False
    network = type(cell).__name__.removesuffix("Cell")
    if cell.fused is None:
        reason: str | None = f"{network} has no fused scan"
    else:
        reason = cell.fused.objection(x, operands, lengths=lengths, tau=tau)
    if reason is None:
        return True
    if backend == "fused":
        raise _check.BackendError(f"{reason}: use backend='auto' or 'reference'")
    if cell.fused is not None and (network, reason) not in _said:
        _said.add((network, reason))
        warnings.warn(f"{network} runs on the reference scan: {reason}", stacklevel=4)
    return False


def _associative(
    cell: LinearCell, x: Tensor, state: State, lengths: Tensor | None, valid: Tensor | None, tau: Tensor | None
) -> tuple[Tensor, State]:
    drive = cell.drive(x).to(state[0].dtype)
    seen = cell.State(*cell.states(state, drive, tau=None if tau is None else tau.unsqueeze(-1)))
    return _shown(cell, seen, drive, lengths, valid)


def _shown(
    cell: Cell, seen: State, drive: Tensor, lengths: Tensor | None, valid: Tensor | None
) -> tuple[Tensor, State]:
    """Outputs and last states, from the states after all steps, each (T, B, units)."""
    outputs = cell.output(seen, drive)
    if lengths is None or valid is None:
        return outputs, cell.State(*(s[-1] for s in seen))
    last = lengths - 1, torch.arange(len(lengths), device=lengths.device)
    return outputs.masked_fill(~valid.unsqueeze(-1), 0), cell.State(*(s[last] for s in seen))


def _reference(cell: Cell, x: Tensor, state: State, valid: Tensor | None, tau: Tensor | None) -> tuple[Tensor, State]:
    # the state keeps its type under autocast: only products are narrow
    drive = cell.drive(x).to(state[0].dtype)
    rebuilt = isinstance(cell, ReversibleCell) and cell.memory != "tape" and torch.is_grad_enabled()
    # a function transform follows every step
    if rebuilt and (torch.compiler.is_compiling() or not transformed()):
        assert isinstance(cell, ReversibleCell)
        stacked, state = reversible(cell, drive, state, valid, tau)
        return stacked if valid is None else stacked.masked_fill(~valid.unsqueeze(-1), 0), state
    outputs = []
    for t, d in enumerate(drive.unbind(0)):
        new = cell.step(state, d, tau=None if tau is None else tau[t].unsqueeze(-1))
        outputs.append(cell.output(new, d))
        if valid is None:
            state = new
        else:
            runs = valid[t].unsqueeze(-1)
            state = cell.State(*(torch.where(runs, n, o) for n, o in zip(new, state, strict=True)))
    stacked = torch.stack(outputs)
    if valid is not None:
        stacked = stacked.masked_fill(~valid.unsqueeze(-1), 0)
    return stacked, state
