"""How far gradients reach: the norm of dLoss/dstate against the time lag, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor

from pendula import _check
from pendula.cells import CELLS
from pendula.diagnose.forward import Loss, Network, Place, evaluating, known, outputs_of, read_out
from pendula.diagnose.plain import plain
from pendula.diagnose.probes import Probes
from pendula.diagnose.verdict import LayerGradients, judged
from pendula.nets.layers import LAYERS
from pendula.nets.model import Model
from pendula.nets.recurrent import Recurrent
from pendula.nets.spec import Node
from pendula.tasks.base import Batch


@dataclass(frozen=True)
class GradientFlow:
    """The gradients of the states of all layers of a network, for one batch.

    Attributes:
        steps, batch: T and B; dtype: what they were computed in; outputs: "last" or "all", see `gradient_flow`.
        loss: the value of the loss; layers: in the order of the forward pass.
        rival: the same for the network that it is compared with, at its initial weights; None without one.
    """

    steps: int
    batch: int
    dtype: str
    outputs: str
    loss: float
    layers: tuple[LayerGradients, ...]
    rival: GradientFlow | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, layer by layer, then the rival's."""
        own = tuple(layer.sentence for layer in self.layers)
        if self.rival is None:
            return own
        start = f"For comparison, {self.rival.layers[0].network} of the same width at its initial weights."
        return (*own, start, *self.rival.sentences)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, words, lists and dicts only; None where a number is not finite."""
        data = {name: getattr(self, name) for name in ("steps", "batch", "dtype", "outputs")}
        rival = None if self.rival is None else self.rival.to_dict()
        return {**data, "loss": plain(self.loss), "layers": [x.to_dict() for x in self.layers], "rival": rival}


def gradient_flow(
    network: Network,
    batch: Batch,
    loss: Loss,
    *,
    samples: int = 40,
    outputs: str = "last",
    compare: str | None = None,
) -> GradientFlow:
    """The norm of dLoss/dstate against the time lag, for each layer and direction.

    Lags are counted from each sequence's own end, in steps of the direction at hand, and spaced logarithmically. The
    layers run on their own scans (`pendula.diagnose.probes`), in evaluation mode, in the type of the weights; the tape
    never holds more than some hundred steps, so 17 984 of them fit into memory. Nothing in the network is changed, and
    what the cells add to the loss in training (`Cell.penalty`) is left out.

    Args:
        network: a `pendula.Model`, or a layer such as `pendula.CoRNN` alone, whose outputs the loss then sees.
        batch: time-major, as tasks make them; lengths and timespans are respected.
        loss: of the prediction and the batch, one number, such as `task.loss`.
        samples: about how many lags; short ones are whole numbers, so there are fewer.
        outputs: through which outputs of the last layer the gradient comes back: "last", each direction's last step,
            so that a lag is a distance that the gradient has travelled; "all", as in training. The same where the
            model pools "last"; with a target at every step, "all" is mostly made of short ways.
        compare: a name of `pendula.CELLS`, such as "LSTM": the same spec with that network, with its default physics,
            drawn from a seed of its own.

    Errors: ValueError for a loss that is not one number or has no gradient, an unknown word, or input that the network
    itself refuses.

    >>> from pendula import CoRNN
    >>> batch = Batch(torch.randn(50, 4, 3), torch.zeros(4))
    >>> flow = gradient_flow(CoRNN(3, 8, gamma=4.0), batch, lambda y, _: y[-1].square().mean())
    >>> flow.layers[0].verdict
    'vanishing'
    """
    _check.one_of("outputs", outputs, ("last", "all"))
    known(network)
    steps, size = batch.x.shape[:2]
    longest = steps if batch.lengths is None else int(torch.as_tensor(batch.lengths).max())
    lags = _spaced(longest, _check.positive_int("samples", samples, least=2))
    probes = Probes(lags)
    with evaluating(network), torch.enable_grad():
        seen = outputs_of(network, batch, probes)
        value = _number(loss(read_out(network, seen, batch), batch))
        learned = {place: [p for p in cell.parameters() if p.requires_grad] for place, cell in probes.cells.items()}
        by_parameter = _gradients(value, learned)
        if outputs == "last":
            value = _number(loss(read_out(network, _last_only(network, seen, batch), batch), batch))
        by_state = _gradients(value, probes.found)
    count = torch.full((size,), steps) if batch.lengths is None else torch.as_tensor(batch.lengths).cpu()
    layers = []
    for place, cell in probes.cells.items():
        norms = torch.stack([_norm(g.double()) for g in by_state[place]]).cpu()
        largest = max((float(g.abs().max()) for g in by_parameter[place]), default=None)
        where: dict[str, Any] = {"name": place.name, "network": type(cell).__name__.removesuffix("Cell")}
        where["state_size"] = by_state[place][0].shape[-1]
        layers.append(judged(lags, norms, count, loss=value.detach(), parameter=largest, **where))
    dtype = str(value.dtype).removeprefix("torch.")
    found = GradientFlow(steps, size, dtype, outputs, float(value.detach()), tuple(layers))
    if compare is None:
        return found
    rival = _rival(network, _check.one_of("compare", compare, CELLS))
    # a network without a time step takes the samples as they come
    plainly = batch if CELLS[compare].has_time_step else replace(batch, timespans=None)
    return replace(found, rival=gradient_flow(rival, plainly, loss, samples=samples, outputs=outputs))


def _spaced(longest: int, samples: int) -> tuple[int, ...]:
    wanted = numpy.geomspace(1, longest, samples).round().astype(int).tolist()
    return tuple(sorted({0, *wanted, longest}))


def _norm(g: Tensor) -> Tensor:
    """|g|, whose square may be too large or too small for a number."""
    size = g.abs().amax(-1, keepdim=True)
    scale = torch.where((size > 0) & size.isfinite(), size, 1)
    norm: Tensor = torch.linalg.vector_norm(g / scale, dim=-1) * scale.squeeze(-1)
    return norm


def _number(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        got = f"{tuple(value.shape)}" if isinstance(value, Tensor) and value.numel() != 1 else "one without a gradient"
        got = got if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return a tensor with one number that depends on the prediction, got {got}")
    return value.reshape(())


def _gradients(value: Tensor, of: Mapping[Place, Sequence[Tensor]]) -> dict[Place, list[Tensor]]:
    flat = [tensor for tensors in of.values() for tensor in tensors]
    # a network that is frozen has none
    grads = torch.autograd.grad(value, flat, retain_graph=True, materialize_grads=True) if flat else ()
    found = iter(grads)
    return {place: [next(found) for _ in tensors] for place, tensors in of.items()}


def _last_only(network: Network, outputs: Tensor, batch: Batch) -> Tensor:
    """The same numbers, with a gradient at the last step of each direction only."""
    last = network if isinstance(network, Recurrent) else network.layers[network.spec.nodes[-1].name]
    two = isinstance(last, Recurrent) and last.bidirectional
    steps, size, width = outputs.shape
    t = torch.arange(steps, device=outputs.device).reshape(-1, 1, 1)
    ends = torch.full((size,), steps) if batch.lengths is None else torch.as_tensor(batch.lengths)
    keep = (t == ends.to(t.device).reshape(1, -1, 1) - 1).expand(steps, size, width // (1 + two))
    if two:
        keep = torch.cat((keep, (t == 0).expand_as(keep)), -1)
    return torch.where(keep, outputs, outputs.detach())


def _rival(network: Network, name: str) -> Network:
    """The same network with other cells, of the same width, at their initial weights, on the same device and type."""
    like = next(network.parameters())
    place: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if isinstance(network, Recurrent):
            options: dict[str, Any] = {"bidirectional": network.bidirectional, "residual": network.residual}
            return LAYERS[name](
                network.input_size, network.hidden_size, network.num_layers, network.bias, **options, **place
            )
        kept = ("hidden_size", "name", "inputs", "merge", "num_layers", "bias", "bidirectional", "residual")
        nodes = tuple(
            node if node.is_map else Node(network=name, **{k: getattr(node, k) for k in kept})
            for node in network.spec.nodes
        )
        rival = Model(replace(network.spec, nodes=nodes), **place)
    shared = {k: v for k, v in network.state_dict().items() if k.startswith(("embedding.", "input_"))}
    rival.load_state_dict(shared, strict=False)
    return rival
