"""A network's forward pass with a scan of the caller's, so that each layer and direction can be looked into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula import _check
from pendula.cells import Cell
from pendula.nets.directions import backwards, take
from pendula.nets.model import Model
from pendula.nets.recurrent import Recurrent
from pendula.nets.scan import valid_steps
from pendula.nets.spec import INPUT
from pendula.tasks.base import Batch

Network = Model | Recurrent
Loss = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class Place:
    """One scan of a network: the node of its spec ("layer" for a lone layer), where in the stack, which direction."""

    node: str
    layer: int
    direction: int
    stacked: bool

    @property
    def name(self) -> str:
        number = f".{self.layer}" if self.stacked else ""
        return f"{self.node}{number}{' backwards' if self.direction else ''}"


class LayerScan(Protocol):
    """Runs a cell over x (T, B, I), in the order in which its direction sees it; gives the outputs (T, B, O).

    `lengths` (B,) and `tau` (T, B) are as in `pendula.nets.scan.run`; what stands in the padding must not matter.
    """

    def __call__(
        self, place: Place, cell: Cell, x: Tensor, lengths: Tensor | None, tau: Tensor | None, backend: str
    ) -> Tensor: ...


def known(network: object) -> None:
    """Refuse what is neither a model nor a layer."""
    if not isinstance(network, (Model, Recurrent)):
        raise ValueError(
            f"network must be a pendula.Model or a layer such as pendula.CoRNN, got {type(network).__name__}"
        )
    recurrent(network)


def recurrent(network: nn.Module) -> None:
    """Refuse a model that has no states to look at."""
    if isinstance(network, Model) and stateless(network):
        names = ", ".join(dict.fromkeys(node.network for node in network.spec.nodes))
        raise ValueError(f"this model has no recurrent layer, only {names}: it has no states over time to look at")


def stateless(model: Model) -> bool:
    """Whether no layer of it is recurrent."""
    return all(node.is_map for node in model.spec.nodes)


def cells_of(network: Network) -> dict[Place, Cell]:
    """The cells of a network, in the order of the forward pass."""
    if isinstance(network, Recurrent):
        return dict(_places("layer", network))
    layers = ((name, layer) for name, layer in network.layers.items() if isinstance(layer, Recurrent))
    return {place: cell for name, layer in layers for place, cell in _places(name, layer)}


def _places(node: str, layer: Recurrent) -> Iterator[tuple[Place, Cell]]:
    for index in range(len(layer.cells)):
        depth, direction = divmod(index, layer.directions)
        yield Place(node, depth, direction, layer.num_layers > 1), layer.cell(index)


def outputs_of(network: Network, batch: Batch, scan: LayerScan) -> Tensor:
    """The outputs (T, B, O) of the last layer, as `Model.forward` and `Recurrent.forward` make them without dropout."""
    if isinstance(network, Recurrent):
        return _through(network, "layer", *_checked(network, batch, batch.x), scan)
    seen = {INPUT: network.prepare(batch.x, batch.lengths)}
    for node in network.spec.nodes:
        merged, layer = network.gather(node, seen), network.layers[node.name]
        if isinstance(layer, Recurrent):
            seen[node.name] = _through(layer, node.name, *_checked(layer, batch, merged), scan)
        else:
            seen[node.name], _ = network.through(node, merged, lengths=batch.lengths)
    return seen[network.spec.nodes[-1].name]


def read_out(network: Network, outputs: Tensor, batch: Batch) -> Tensor:
    """What the loss sees of the outputs of the last layer."""
    if isinstance(network, Recurrent):
        return outputs
    lengths = None if batch.lengths is None else batch.lengths.to(outputs.device)
    return linear(network.pool(outputs, lengths), network.readout.weight, network.readout.bias)


def _checked(layer: Recurrent, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Input, lengths and time spans of a layer, refused as the layer itself would refuse them."""
    like = next(layer.parameters())
    _check.sequence_input(x, layer.input_size, like)
    steps, sequences = x.shape[:2]
    lengths = None if batch.lengths is None else _check.lengths_of(batch.lengths, steps, sequences, x.device)
    if batch.timespans is None:
        return x, lengths, None
    tau = _check.timespans_of(batch.timespans, steps, sequences, like)
    _check.positive_timespans(tau, None if lengths is None else valid_steps(lengths, steps))
    if not layer.cell_type.has_time_step:
        name = layer.cell_type.__name__.removesuffix("Cell")
        raise ValueError(f"{name} has no time step, so timespans can't scale it: leave timespans out")
    return x, lengths, tau


def _through(
    layer: Recurrent, node: str, x: Tensor, lengths: Tensor | None, tau: Tensor | None, scan: LayerScan
) -> Tensor:
    steps, batch = x.shape[:2]
    back = backwards(lengths, steps, batch, x.device)
    sides: list[Tensor] = []
    for place, cell in _places(node, layer):
        if place.direction == 0:
            sides = [scan(place, cell, x, lengths, tau, layer.backend)]
        else:
            spans = None if tau is None else torch.cat((tau[:1], tau.gather(0, back)[:-1]))
            sides.append(take(scan(place, cell, take(x, back), lengths, spans, layer.backend), back))
        if len(sides) == layer.directions:
            out = sides[0] if len(sides) == 1 else torch.cat(sides, -1)
            x = x + out if layer.residual and place.layer else out
    return x


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within, dropout is off; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
