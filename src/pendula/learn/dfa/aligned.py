"""Feedback alignment: backpropagation with a fixed random map in the place of each transposed weight.

Lillicrap and others 2016 (spec sheet ``dfa.md`` 2, recalled there). Each layer is cut behind its product: what follows
it (normalisation, activation, pooling) and what stands before it keep their exact derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from pendula.learn.dfa.depth import checked, read_out
from pendula.learn.dfa.plan import blocks_of
from pendula.learn.dfa.store import Feedback
from pendula.nets import Model
from pendula.nets.map import Map
from pendula.nets.scan import valid_steps
from pendula.nets.spec import INPUT
from pendula.tasks.base import Batch


class _Cut(NamedTuple):
    """One layer in two pieces: leaves -> fed (the product's input), fed -> made; cut (made, detached) -> output."""

    leaves: list[Tensor]
    fed: Tensor
    made: Tensor
    cut: Tensor
    output: Tensor


def learn(
    model: Model, batch: Batch, loss: Callable[[Tensor, Batch], Tensor], feedback: Feedback
) -> tuple[Tensor, Tensor]:
    """The loss, and something whose gradient is that of feedback alignment in every parameter.

    The map behind a layer's product has its weights under "NAME backwards", in the shape (inputs, outputs) of a
    transposed matrix, or of the convolution's kernel; that of the read-out under the name of the last layer.
    """
    cuts: dict[str, _Cut] = {}
    lengths, _ = checked(model, batch)
    outputs: dict[str, Tensor] = {INPUT: model.prepare(batch.x, lengths)}
    gaps = None if lengths is None else ~valid_steps(lengths, len(batch.x)).unsqueeze(-1)
    nodes = {node.name: node for node in model.spec.nodes}
    blocks = blocks_of(model)
    for block in blocks:
        layer = model.layers[block.node]
        assert isinstance(layer, Map)
        leaves = [outputs[source].detach().requires_grad_() for source in block.sources]
        fed = layer.before(model.gather(nodes[block.node], dict(zip(block.sources, leaves, strict=True))))
        # what learns before the product (a merge) hears through the fixed map, not through the product's weights
        made = fed if layer.product is None else layer.product(fed.detach())
        cut = made.detach().requires_grad_()
        out = layer.dropped(layer.behind(cut))
        cuts[block.name] = _Cut(leaves, fed, made, cut, out if gaps is None else out.masked_fill(gaps, 0))
        outputs[block.name] = cuts[block.name].output
    logits = read_out(model, outputs[blocks[-1].name].detach(), batch)
    value = loss(logits, batch)
    (error,) = torch.autograd.grad(value * batch.share, logits, retain_graph=True)
    last = blocks[-1].name
    pooled = torch.zeros_like(outputs[last]).requires_grad_()
    seen = model.pool(pooled, lengths)
    carried = feedback.carry(last, error, seen.detach())
    (top,) = torch.autograd.grad(seen, pooled, carried)
    arrived = {last: top}
    surrogate = (logits * error).sum()
    for block in reversed(blocks):
        one, layer = cuts[block.name], model.layers[block.node]
        assert isinstance(layer, Map)
        by_output = arrived.get(block.name, torch.zeros_like(one.output)).detach()
        (delta,) = torch.autograd.grad(one.output, one.cut, by_output, retain_graph=True)
        surrogate = surrogate + (one.output * by_output).sum() + (one.made * delta).sum()
        below = [(leaf, source) for leaf, source in zip(one.leaves, block.sources, strict=True) if source != INPUT]
        if below or block.node in model.merges:
            sent = _backwards(feedback, f"{block.name} backwards", layer.product, delta, one.fed)
            if one.fed is not one.made:
                surrogate = surrogate + (one.fed * sent).sum()
            if not below:
                continue
            found = torch.autograd.grad(one.fed, [leaf for leaf, _ in below], sent, retain_graph=True)
            for (_, source), by in zip(below, found, strict=True):
                arrived[source] = arrived[source] + by if source in arrived else by
    return value.detach(), surrogate


def _backwards(
    feedback: Feedback, name: str, product: nn.Conv2d | nn.Linear | None, delta: Tensor, like: Tensor
) -> Tensor:
    """The error at a product's output in the shape of its input."""
    if product is None:
        return delta
    if isinstance(product, nn.Linear):
        return feedback.carry(name, delta, like)
    weight = product.weight
    B = feedback.matrix(name, weight.shape[1], weight[:, 0].numel(), weight)
    kernel = B.view(weight.shape[1], weight.shape[0], *weight.shape[2:]).transpose(0, 1)
    words = (product.stride, product.padding, product.dilation, product.groups)
    found: Tensor = conv2d_input(like.shape, kernel, delta, *words)  # type: ignore[no-untyped-call]
    return found
