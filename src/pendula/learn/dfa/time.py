"""Learning without running backwards in time: two passes forwards, in stretches, with memory that does not grow.

The first pass gives the error of the read-out. In the second, each stretch of time runs again, one step of the cell
is taken for all its times and sequences at once from states that carry no gradient, and gets <output, B e> with what
the time rule says of the errors that lie ahead (spec sheet ``dfa.md`` 3.4, 7.3 and 7.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pendula.cells import Cell, State
from pendula.learn.dfa.depth import checked
from pendula.learn.dfa.lags import Arriving, weights
from pendula.learn.dfa.plan import EMBEDDING, Block, blocks_of
from pendula.learn.dfa.store import Feedback
from pendula.learn.dfa.trace import Traces
from pendula.nets import Model
from pendula.nets.recurrent import Recurrent
from pendula.nets.scan import run, valid_steps
from pendula.nets.spec import INPUT
from pendula.tasks.base import Batch

TIMES = ("bptt", "local", "broadcast", "discounted", "kernel", "trace", "windows", "lags", "fa")
# steps of one stretch: long enough to fill a processor, short enough to be nothing beside the data
STRETCH = 64


@dataclass
class Walk:
    """A model that is run stretch by stretch: the state of each cell, the dropout masks, what is valid."""

    model: Model
    batch: Batch
    stretch: int

    def __post_init__(self) -> None:
        self.blocks = blocks_of(self.model)
        self.steps, size = self.batch.x.shape[:2]
        given, self.spans = checked(self.model, self.batch)
        self.lengths = torch.full((size,), self.steps) if given is None else given
        self.lengths = self.lengths.to(self.batch.x.device)
        self.padded = given is not None
        self.nodes = {node.name: node for node in self.model.spec.nodes}
        self.masks: dict[str, Tensor | None] = {}

    def cell(self, block: Block) -> Cell | None:
        layer = None if block.name == EMBEDDING else self.model.layers[block.node]
        return layer.cell(block.layer or 0) if isinstance(layer, Recurrent) else None

    def stretches(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """First step, input (K, B, I) and time spans (K, B) of each stretch; states start anew."""
        size = self.batch.x.shape[1]
        cells = {block.name: self.cell(block) for block in self.blocks}
        with torch.no_grad():
            self.states = {name: cell.initial_state(size) for name, cell in cells.items() if cell is not None}
        runs = valid_steps(self.lengths, self.steps) if self.padded else None
        for first in range(0, self.steps, self.stretch):
            part = slice(first, first + self.stretch)
            x, spans = self.batch.x[part], None if self.spans is None else self.spans[part]
            if runs is not None:
                # padding may hold anything; what the states do there is never looked at
                idle = ~runs[part]
                x = x.masked_fill(idle.unsqueeze(-1) if x.dim() == 3 else idle, 0)
                spans = None if spans is None else spans.masked_fill(idle, 1)
            yield first, x, spans

    def gathered(self, block: Block, seen: dict[str, Tensor]) -> Tensor:
        if block.name == EMBEDDING:
            return self.model.prepare(seen[INPUT])
        if block.layer:
            return seen[block.sources[0]]
        node = self.nodes[block.node]
        return self.model.gather(node, dict(zip(node.inputs, (seen[s] for s in block.sources), strict=True)))

    def shown(self, block: Block, x: Tensor, out: Tensor) -> Tensor:
        """What a recurrent layer hands on: with its dropout, the same in both passes, and its residual connection."""
        mask = self.mask(block, out)
        out = out if mask is None else out * mask
        layer = self.model.layers[block.node]
        return x + out if isinstance(layer, Recurrent) and layer.residual and block.layer else out

    def mask(self, block: Block, out: Tensor) -> Tensor | None:
        """Drawn once, and held over all stretches of both passes."""
        if block.name not in self.masks:
            layer = self.model.layers[block.node]
            assert isinstance(layer, Recurrent)
            self.masks[block.name] = layer.mask(block.layer or 0, out[0].detach())
        return self.masks[block.name]

    def forward(self, x: Tensor, spans: Tensor | None) -> Tensor:
        """The outputs of the last layer over a stretch, without gradients; the states move on."""
        seen = {INPUT: x if self.model.embedding is not None else self.model.prepare(x)}
        for block in self.blocks:
            merged, cell = self.gathered(block, seen), self.cell(block)
            if cell is None:
                seen[block.name] = merged if block.name == EMBEDDING else self.model.layers[block.node](merged)
                continue
            out, self.states[block.name] = run(
                cell, merged, self.states[block.name], lengths=None, tau=spans, backend="auto"
            )
            seen[block.name] = self.shown(block, merged, out)
        return seen[self.blocks[-1].name]


def learn(
    model: Model,
    batch: Batch,
    loss: Callable[[Tensor, Batch], Tensor],
    backward: Callable[..., Any],
    feedback: Feedback,
    *,
    time: str,
    discount: float,
    window: int | None,
) -> Tensor:
    """Leave gradients by a time rule, and return the loss. Each layer hears of the errors through a map of its own."""
    whole = time in ("fa", "lags")
    walk = Walk(model, batch, batch.x.shape[0] if whole else window or STRETCH)
    pool = model.spec.pool
    outputs: list[Tensor] = []
    with torch.no_grad():
        for first, x, spans in walk.stretches():
            out = walk.forward(x, spans)
            # of predictions at every step, they are kept: far fewer numbers than what they are read from
            _pooled(outputs, pool, model.readout(out) if pool == "steps" else out, first, walk.lengths)
    logits = torch.cat(outputs).requires_grad_() if pool == "steps" else model.readout(outputs[0])
    value = loss(logits, batch)
    (error,) = torch.autograd.grad(value * batch.share, logits, retain_graph=True)
    # the read-out learns from the true gradient, whatever the rule
    if pool != "steps":
        backward((logits * error).sum())
    arriving = {}
    for block in walk.blocks:
        wide = _width(model, block)
        table = weights(time, discount, walk.cell(block), walk.steps, error)
        B = feedback.matrix(block.name, wide, error.shape[-1], error)
        arriving[block.name] = Arriving(error, table, B, pool, walk.lengths)
    traces: dict[str, Traces] = {}
    for first, x, spans in walk.stretches():
        learned = _stretch(walk, first, x, spans, arriving, time, feedback, error, traces)
        if learned.requires_grad:
            backward(learned)
    for trace in traces.values():
        backward(trace.surrogate())
    return value.detach()


def _stretch(
    walk: Walk,
    first: int,
    x: Tensor,
    spans: Tensor | None,
    arriving: dict[str, Arriving],
    time: str,
    feedback: Feedback,
    error: Tensor,
    traces: dict[str, Traces],
) -> Tensor:
    model, count = walk.model, len(x)
    seen = {INPUT: x if model.embedding is not None else model.prepare(x)}
    total = x.new_zeros((), dtype=error.dtype)
    for block in walk.blocks:
        merged, cell = walk.gathered(block, seen), walk.cell(block)
        wanted = arriving[block.name].at(first, count)
        if cell is None:
            out = merged if block.name == EMBEDDING else model.layers[block.node](merged)
            total = total + (out * wanted).sum()
        elif time == "windows":
            start = type(walk.states[block.name])(*(s.detach() for s in walk.states[block.name]))
            out, walk.states[block.name] = run(cell, merged, start, lengths=None, tau=spans, backend="auto")
            out = walk.shown(block, merged, out)
            total = total + (out * _window_errors(arriving[block.name], first, count, walk)).sum()
        else:
            before, out = _states(cell, merged, walk.states[block.name], spans)
            walk.states[block.name] = before.pop()
            if time == "lags":
                wanted = _per_lag(feedback, block.name, wanted.shape[-1], error, walk)
            if time == "trace":
                traces.setdefault(block.name, Traces(cell, merged.shape[1]))
                mask = walk.mask(block, out)
                traces[block.name].follow(before, merged, spans, wanted if mask is None else wanted * mask)
                out = walk.shown(block, merged, out)
            else:
                if time == "fa":
                    wanted = _sent_back(cell, before, merged, spans, wanted, feedback, block.name)
                with cell.keeping():
                    out = walk.shown(block, merged, _all_at_once(cell, before, merged, spans))
                total = total + (out * wanted).sum()
        seen[block.name] = out.detach()
    if model.spec.pool == "steps":
        total = total + (model.readout(seen[walk.blocks[-1].name]) * error[first : first + count]).sum()
    return total


def _states(cell: Cell, x: Tensor, state: State, spans: Tensor | None) -> tuple[list[State], Tensor]:
    """The states before each step, and the one after the last; the outputs (K, B, O)."""
    states, outputs = [state], []
    with torch.no_grad(), cell.keeping():
        for t, d in enumerate(cell.drive(x).to(state[0].dtype).unbind(0)):
            states.append(cell.step(states[-1], d, tau=None if spans is None else spans[t].unsqueeze(-1)))
            outputs.append(cell.output(states[-1], d))
    return states, torch.stack(outputs)


def _all_at_once(cell: Cell, before: list[State], x: Tensor, spans: Tensor | None) -> Tensor:
    """The outputs (K, B, O) of one step from each of the states, which carry no gradient."""
    drive = cell.drive(x).to(before[0][0].dtype)
    rows = cell.State(*(torch.cat(parts) for parts in zip(*before, strict=True)))
    flat = drive.flatten(0, 1)
    new = cell.step(rows, flat, tau=None if spans is None else spans.reshape(-1, 1))
    return cell.output(new, flat).view(*drive.shape[:2], -1)


def _sent_back(
    cell: Cell, before: list[State], x: Tensor, spans: Tensor | None, wanted: Tensor, feedback: Feedback, name: str
) -> Tensor:
    """Errors that run backwards in time through a fixed matrix, from a step's drive to the output before it."""
    total = wanted.clone()
    drives = cell.drive(x).detach().to(wanted.dtype)
    back = feedback.matrix(f"{name} back in time", wanted.shape[-1], drives.shape[-1], wanted)
    for t in range(len(before) - 1, 0, -1):
        with torch.enable_grad():
            d = drives[t].detach().requires_grad_()
            new = cell.step(before[t], d, tau=None if spans is None else spans[t].unsqueeze(-1))
            (by,) = torch.autograd.grad(cell.output(new, d), d, total[t])
        total[t - 1] += by @ back.T
    return total


def _per_lag(feedback: Feedback, name: str, wide: int, error: Tensor, walk: Walk) -> Tensor:
    """A matrix of its own for each lag between a step and the end of its sequence: (T, B, N)."""
    left = walk.lengths - 1 - torch.arange(walk.steps, device=error.device).unsqueeze(1)
    found = error.new_zeros(walk.steps, len(walk.lengths), wide)
    for lag in range(walk.steps):
        B = feedback.matrix(name if lag == 0 else f"{name} lag {lag}", wide, error.shape[-1], error)
        found += (error @ B.T) * (left == lag).unsqueeze(-1)
    return found


def _window_errors(errors: Arriving, first: int, count: int, walk: Walk) -> Tensor:
    """Per step, or averaged over steps: its own. Of the last step: at the end of each window, or of the sequence."""
    if errors.pool != "last":
        return errors.at(first, count)
    t = torch.arange(first, first + count, device=walk.lengths.device).unsqueeze(1)
    ends = torch.minimum(walk.lengths - 1, torch.as_tensor(first + count - 1, device=walk.lengths.device))
    return errors.carried * (t == ends).unsqueeze(-1)


def _pooled(outputs: list[Tensor], pool: str, out: Tensor, first: int, lengths: Tensor) -> None:
    """Add a stretch to what the read-out will see."""
    if pool == "steps":
        outputs.append(out)
        return
    t = torch.arange(first, first + len(out), device=lengths.device).unsqueeze(1)
    counted = t == lengths - 1 if pool == "last" else t < lengths
    part = (out * counted.unsqueeze(-1)).sum(0)
    if pool == "mean":
        part = part / lengths.unsqueeze(-1)
    outputs[:] = [part + outputs[0]] if outputs else [part]


def _width(model: Model, block: Block) -> int:
    if block.name == EMBEDDING:
        return model.spec.input_size
    return model.shapes[block.node][0]
