"""Which layers a model has to be trained one by one, and which of them form a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pendula._check import did_you_mean
from pendula.nets import Model
from pendula.nets.maps import Conv
from pendula.nets.recurrent import Recurrent
from pendula.nets.spec import INPUT

PLANS = ("layers", "stages", "whole")
EMBEDDING = "embedding"
Plan = str | Sequence[Sequence[str]]


@dataclass(frozen=True)
class Block:
    """One layer with parameters of its own.

    name: that of its node, with ".0", ".1", … where a node stacks several layers; layer: its place in such a stack,
    None for maps without a state; sources: names of the blocks it reads, or "input"; module: the node's.
    """

    name: str
    node: str
    layer: int | None
    sources: tuple[str, ...]
    module: str = ""


def blocks_of(model: Model) -> tuple[Block, ...]:
    """The layers of a model in the order of its forward pass; an embedding is the first of them."""
    found: list[Block] = []
    tops = {INPUT: INPUT}
    if model.embedding is not None:
        found.append(Block(EMBEDDING, EMBEDDING, None, (INPUT,)))
        tops[INPUT] = EMBEDDING
    for node in model.spec.nodes:
        sources = tuple(tops[name] for name in node.inputs)
        layer = model.layers[node.name]
        if isinstance(layer, Recurrent):
            for k in range(layer.num_layers):
                name = f"{node.name}.{k}" if layer.num_layers > 1 else node.name
                found.append(Block(name, node.name, k, sources, node.module))
                sources = (name,)
        else:
            found.append(Block(node.name, node.name, None, sources, node.module))
        tops[node.name] = found[-1].name
    return tuple(found)


def run_block(
    model: Model, block: Block, sources: Sequence[Tensor], lengths: Tensor | None, timespans: Tensor | None
) -> Tensor:
    """The output of one layer, from those of the layers it reads (or from the model's input, as it was given)."""
    if block.name == EMBEDDING:
        return model.prepare(sources[0], lengths)
    if block.layer:
        merged = sources[0]
    else:
        node = next(node for node in model.spec.nodes if node.name == block.node)
        merged = model.gather(node, dict(zip(node.inputs, sources, strict=True)))
    layer = model.layers[block.node]
    if isinstance(layer, Recurrent):
        return layer.run_layer(block.layer or 0, merged, None, lengths, timespans)[0]
    # as the model has it: zero in the padding, which pooling and layers above count on
    return model.through(node, merged, lengths=lengths)[0]


def parameters_of(model: Model) -> dict[str, list[str]]:
    """The names of each layer's parameters, by block, and those of the read-out."""
    named = dict(model.named_parameters())
    found: dict[str, list[str]] = {}
    for block in blocks_of(model):
        starts = [f"{EMBEDDING}."] if block.name == EMBEDDING else [f"layers.{block.node}.", f"merges.{block.node}."]
        layer = None if block.name == EMBEDDING else model.layers[block.node]
        if isinstance(layer, Recurrent) and block.layer is not None:
            cells = range(block.layer * layer.directions, (block.layer + 1) * layer.directions)
            starts = [f"layers.{block.node}.cells.{k}." for k in cells]
            starts += [] if block.layer else [f"merges.{block.node}."]
        found[block.name] = [name for name in named if name.startswith(tuple(starts))]
    return {**found, "readout": [name for name in named if name.startswith("readout.")]}


def modules_of(model: Model, plan: Plan) -> tuple[tuple[Block, ...], ...]:
    """The layers in modules: "layers" (each alone), "stages" (as the nodes say), "whole" (one), or lists of names.

    Errors: ValueError for a layer that is not there, left out, named twice or out of order.
    """
    blocks = blocks_of(model)
    names = [block.name for block in blocks]
    if plan == "layers":
        return tuple((block,) for block in blocks)
    if plan == "whole":
        return (blocks,)
    if plan == "stages":
        modules: list[list[Block]] = []
        for block in blocks:
            if modules and block.module and block.module == modules[-1][-1].module:
                modules[-1].append(block)
            else:
                modules.append([block])
        return tuple(tuple(module) for module in modules)
    if isinstance(plan, str):
        raise ValueError(f"plan must be one of {', '.join(PLANS)}, or lists of names, got {plan!r}")
    by_name = dict(zip(names, blocks, strict=True))
    flat = [name for module in plan for name in module]
    for name in flat:
        if name not in by_name:
            raise ValueError(
                f"the plan names {name!r}, which is no layer of the model{did_you_mean(name, names)}; "
                f"they are: {', '.join(names)}"
            )
    if flat != names:
        raise ValueError(
            f"the plan must hold every layer once and in order ({', '.join(names)}), got {', '.join(flat)}"
        )
    return tuple(tuple(by_name[name] for name in module) for module in plan if module)


def distances(model: Model, module: Sequence[Block]) -> dict[str, int]:
    """How many pixels to each side the module's output sees of a layer's output, on the widest way; at least 1.

    One for each 3 x 3 convolution in between: a 3 x 3 kernel with that dilation spans the same square.
    """
    far = {module[-1].name: 0}
    for block in reversed(module):
        layer = None if block.name == EMBEDDING else model.layers[block.node]
        wide = max(layer.conv.kernel_size) // 2 * max(layer.conv.dilation) if isinstance(layer, Conv) else 0
        for source in block.sources:
            if any(source == other.name for other in module) and block.name in far:
                far[source] = max(far.get(source, 0), far[block.name] + wide)
    return {block.name: max(far.get(block.name, 1), 1) for block in module}


def bare(model: Model, blocks: Sequence[Block]) -> set[str]:
    """The names of the layers that have nothing to learn."""
    learned = parameters_of(model)
    return {block.name for block in blocks if not learned[block.name]}
