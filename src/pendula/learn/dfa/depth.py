"""Learning layer by layer: each gets its error from a fixed map or from the layer above, and its own exact step.

Everything is a sum of <output of a layer, fixed seed>, with detached inputs: no hooks, and the local derivatives
(activation, normalisation, the scan of a recurrent layer) are autograd's (spec sheet ``dfa.md`` 3.1, 3.2 and 3.6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import linear

from pendula import _check
from pendula.learn.dfa.plan import Block, Plan, bare, blocks_of, distances, modules_of, run_block
from pendula.learn.dfa.store import Feedback
from pendula.nets import Model
from pendula.nets.scan import valid_steps
from pendula.nets.spec import INPUT
from pendula.tasks.base import Batch

Loss = Callable[[Tensor, Batch], Tensor]
BOUNDARIES = ("bp", "lower", "dfa", "dfa_between", "fa")
SOURCES = ("module", "output")


@dataclass
class Apart:
    """A forward pass in which each layer has a graph of its own.

    leaves: by block, its detached inputs; outputs: by block, with the graph from those inputs; top: the detached output
    of the last block; logits: what the loss sees, with the graph of the read-out from `top`.
    """

    blocks: tuple[Block, ...]
    lengths: Tensor | None
    logits: Tensor
    top: Tensor
    leaves: dict[str, list[Tensor]] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


def forward_apart(model: Model, batch: Batch, *, reach: bool) -> Apart:
    """Run the layers one by one. `reach`: whether anything will be sent through a layer to the ones it reads."""
    blocks = blocks_of(model)
    lengths, spans = checked(model, batch)
    leaves: dict[str, list[Tensor]] = {}
    outputs: dict[str, Tensor] = {}
    x = batch.x if model.embedding is not None else model.prepare(batch.x, lengths)
    for block in blocks:
        given = [x if source == INPUT else outputs[source].detach().requires_grad_(reach) for source in block.sources]
        leaves[block.name] = given
        outputs[block.name] = run_block(model, block, given, lengths, spans)
    top = outputs[blocks[-1].name].detach()
    top.requires_grad_(torch.is_grad_enabled())
    logits = read_out(model, top, batch)
    return Apart(blocks, lengths, logits, top, leaves, outputs)


def read_out(model: Model, outputs: Tensor, batch: Batch) -> Tensor:
    """What the loss sees of the outputs of the last layer."""
    lengths, _ = checked(model, batch)
    return linear(model.pool(outputs, lengths), model.readout.weight, model.readout.bias)


def checked(model: Model, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
    """Lengths and time spans of a batch, refused as a layer would refuse them."""
    steps, size = batch.x.shape[:2]
    like = model.readout.weight
    lengths = None if batch.lengths is None else _check.lengths_of(batch.lengths, steps, size, batch.x.device)
    if batch.timespans is None:
        return lengths, None
    spans = _check.timespans_of(batch.timespans, steps, size, like)
    _check.positive_timespans(spans, None if lengths is None else valid_steps(lengths, steps))
    return lengths, spans


def seeds(
    model: Model, run: Apart, error: Tensor, top: Tensor, feedback: Feedback, plan: Plan, boundary: str, source: str
) -> dict[str, Tensor]:
    """What stands for dLoss/doutput of each layer, by block.

    Args:
        error: dLoss/dlogits, (B, C), or (T, B, C) with a target at every step.
        top: dLoss/d(output of the last layer), exact.
        plan, boundary, source: as in `pendula.learn.dfa.DFA`.
    """
    outputs = {name: output.detach() for name, output in run.outputs.items()}

    def direct(name: str) -> Tensor:
        like = outputs[name]
        if error.dim() == like.dim() or like.dim() != 3:
            return feedback.carry(name, error, like)
        # one error per sequence: it arrives at the steps that the read-out looks at
        carried = feedback.carry(name, error, like[0])
        return pooled_back(model, carried, like, run.lengths)

    modules, idle = modules_of(model, plan), bare(model, run.blocks)
    if boundary == "dfa" and source == "output":
        return {name: direct(name) for name in outputs if name not in idle}
    found: dict[str, Tensor] = {}
    # what has arrived so far at the output of each block
    arrived = {run.blocks[-1].name: top}
    for place in range(len(modules) - 1, -1, -1):
        module, last = modules[place], modules[place][-1].name
        if last not in arrived:
            # nothing that the loss depends on reads this module
            found |= {block.name: torch.zeros_like(outputs[block.name]) for block in module}
            continue
        far = distances(model, module)
        inside = {block.name for block in module}
        exact = boundary in ("bp", "dfa_between")
        for block in reversed(module):
            name = block.name
            if name == last or name in idle or boundary == "dfa_between":
                # what has nothing to learn only passes on what it gets
                found[name] = arrived.get(name, torch.zeros_like(outputs[name]))
            elif source == "output":
                found[name] = direct(name)
            else:
                found[name] = feedback.carry(name, arrived[last], outputs[name], far[name])
            onward = [s for s in block.sources if s != INPUT]
            if boundary == "lower":
                onward = [s for s in onward if s in idle or s not in inside]
            elif not exact:
                onward = []
            if boundary == "dfa_between":
                onward = [s for s in onward if s in inside]
            sent = arrived.get(name) if exact else found[name]
            if onward and sent is not None:
                _send(run, block, sent, onward, arrived)
        if place and boundary in ("dfa", "dfa_between"):
            below = modules[place - 1][-1].name
            name = f"{below} from above"
            if boundary == "dfa_between":
                arrived[below] = direct(below)
            else:
                arrived[below] = feedback.carry(name, arrived[last], outputs[below])
    return {name: seed for name, seed in found.items() if name not in idle}


def _send(run: Apart, block: Block, sent: Tensor, onward: Sequence[str], arrived: dict[str, Tensor]) -> None:
    """The exact vector-Jacobian product through one layer, added to what its sources have got."""
    leaves = [leaf for leaf, s in zip(run.leaves[block.name], block.sources, strict=True) if s in onward]
    names = [s for s in block.sources if s in onward]
    for name, by in zip(
        names, torch.autograd.grad(run.outputs[block.name], leaves, sent, retain_graph=True), strict=True
    ):
        arrived[name] = arrived[name] + by if name in arrived else by


def pooled_back(model: Model, error: Tensor, like: Tensor, lengths: Tensor | None) -> Tensor:
    """The error (B, n) of what the read-out sees, at the steps (T, B, n) that it was pooled from."""
    with torch.enable_grad():
        leaf = torch.zeros_like(like).requires_grad_()
        (found,) = torch.autograd.grad(model.pool(leaf, lengths), leaf, error)
    return found
