"""A model built from its spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula import _check
from pendula.cells import State
from pendula.nets.embedding import Embedding
from pendula.nets.layers import LAYERS
from pendula.nets.map import Map, Shape
from pendula.nets.maps import MAPS
from pendula.nets.merge import LEARNED, Weighted, combined, merged_shape, pooled_to
from pendula.nets.recurrent import Recurrent
from pendula.nets.scan import BACKENDS, valid_steps
from pendula.nets.spec import INPUT, ModelSpec, Node


class Model(nn.Module):
    """Layers and a linear read-out, as a `ModelSpec` says.

    Shapes: input (T, B, I), or token ids (T, B) where the spec has a vocabulary; output (B, C), or (T, B, C) when the
    spec pools "steps"; state: a dict from the names of the recurrent nodes to the states of their layers. Of images, T
    = H W pixels row by row, and the state is empty.

    `forward` is made of the steps `prepare`, `gather`, `through`, `pool`, for rules that go node by node.

    Attributes:
        layers: name of the node -> its `Recurrent` or `Map`.
        merges: name of the node -> how it merges its inputs, where that has parameters.
        shapes: name of the node, or "input" -> (C, H, W) of its images, or (F,) of its features.

    >>> from pendula.nets.spec import Node
    >>> model = Model(ModelSpec(3, 2, (Node("CoRNN", 8),)))
    >>> logits, state = model(torch.zeros(5, 4, 3))
    >>> logits.shape, state["layer0"].y.shape
    (torch.Size([4, 2]), torch.Size([1, 4, 8]))
    >>> reader = Model(ModelSpec(3, 2, (Node("CoRNN", 8),), vocabulary=100))
    >>> reader(torch.tensor([[7, 99], [12, 0]]), lengths=[2, 1])[0].shape
    torch.Size([2, 2])
    >>> looker = Model(ModelSpec(1, 2, (Node("Conv", 8),), pool="mean", image=(6, 5)))
    >>> looker(torch.zeros(30, 4, 1))[0].shape
    torch.Size([4, 2])
    """

    def __init__(self, spec: ModelSpec, *, backend: str = "auto", device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.spec = spec
        place = {"device": device, "dtype": dtype}
        if spec.standardise:
            self.register_buffer("input_mean", torch.zeros(spec.input_size, **place))
            self.register_buffer("input_scale", torch.ones(spec.input_size, **place))
        self.embedding = None
        if spec.vocabulary is not None:
            drops = {"dropout": spec.embedding_dropout, "token_dropout": spec.token_dropout}
            self.embedding = Embedding(spec.vocabulary, spec.input_size, **drops, **place)
        layers: dict[str, Recurrent | Map] = {}
        merges: dict[str, Weighted] = {}
        self.shapes: dict[str, Shape] = {INPUT: (spec.input_size, *(spec.image or ()))}
        self._merged: dict[str, Shape] = {}
        for node in spec.nodes:
            given = [self.shapes[source] for source in node.inputs]
            shape = self._merged[node.name] = merged_shape(node, given)
            if node.merge in LEARNED and len(given) > 1:
                merges[node.name] = LEARNED[node.merge](given, **place)
            if node.is_map:
                layers[node.name], self.shapes[node.name] = _map(node, shape, place)
                continue
            made = layers[node.name] = LAYERS[node.network](
                shape[0],
                node.hidden_size,
                node.num_layers,
                bias=node.bias,
                dropout=node.dropout,
                bidirectional=node.bidirectional,
                residual=node.residual,
                dropout_last=node.dropout_last,
                backend=_check.one_of("backend", backend, BACKENDS),
                **place,
                **node.physics,
            )
            self.shapes[node.name] = (made.output_size,)
        self.layers = nn.ModuleDict(layers)
        self.merges = nn.ModuleDict(merges)
        self._clean = bool(merges) or any(node.is_map for node in spec.nodes)
        self.readout = nn.Linear(_pooled_size(spec, self.shapes[spec.nodes[-1].name]), spec.output_size, **place)

    def set_standard(self, mean: Tensor, scale: Tensor) -> None:
        """Keep mean and scale (I,) of the training inputs with the weights. Errors: ValueError if the spec has none."""
        if not self.spec.standardise:
            raise ValueError("the spec has standardise=False: build it with standardise=True")
        self.get_buffer("input_mean").copy_(mean)
        self.get_buffer("input_scale").copy_(scale)

    def forward(
        self,
        input: Tensor,
        state: Mapping[str, State] | None = None,
        *,
        lengths: Any = None,
        timespans: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, State]]:
        """Predictions and final states; `lengths` and `timespans` as in `pendula.Recurrent`, and refused by images."""
        self._refuse(state, lengths, timespans)
        x = self.prepare(input, lengths)
        if lengths is not None:
            lengths = _check.lengths_of(lengths, x.shape[0], x.shape[1], x.device)
        seen: dict[str, Tensor] = {INPUT: x}
        final: dict[str, State] = {}
        for node in self.spec.nodes:
            before = None if state is None else state.get(node.name)
            words = {"lengths": lengths, "timespans": timespans}
            seen[node.name], after = self.through(node, self.gather(node, seen), before, **words)
            if after is not None:
                final[node.name] = after
        pooled = self.pool(seen[self.spec.nodes[-1].name], lengths)
        return linear(pooled, self.readout.weight, self.readout.bias), final

    def prepare(self, input: Tensor, lengths: Any = None) -> Tensor:
        """What the nodes see as "input": tokens embedded, numbers standardised, pixels as images (B, I, H, W).

        Args:
            input: as for `forward`.
            lengths: (B,) valid steps; where a map or a learned merge could see the padding, it becomes zero.

        Errors: ShapeError or TypeError for input that does not fit the spec.
        """
        spec = self.spec
        if self.embedding is None:
            _check.sequence_input(input, spec.input_size, self.readout.weight)
        x = input if self.embedding is None else self.embedding(input)
        if spec.standardise:
            x = (x - self.get_buffer("input_mean")) / self.get_buffer("input_scale")
        if spec.image is not None:
            height, width = spec.image
            steps, batch, channels = x.shape
            if steps != height * width:
                raise _check.ShapeError(
                    f"this model reads images of {height} x {width} = {height * width} pixels, got {steps} steps"
                )
            # laid out with the channels last, which the convolutions take over: up to twice as fast on a processor
            pixels = x.transpose(0, 1).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
            return pixels.contiguous(memory_format=torch.channels_last)
        return self._without_padding(x, lengths) if self._clean else x

    def gather(self, node: Node, seen: Mapping[str, Tensor]) -> Tensor:
        """The input of a node, merged from what the nodes before it gave (name -> tensor)."""
        sources = pooled_to(self._merged[node.name], [seen[name] for name in node.inputs])
        if len(sources) == 1:
            return sources[0]
        if node.name in self.merges:
            merged: Tensor = self.merges[node.name](sources)
            return merged
        return combined(sources, node.merge)

    def through(
        self, node: Node, x: Tensor, before: State | None = None, *, lengths: Any = None, timespans: Any = None
    ) -> tuple[Tensor, State | None]:
        """The output of a node, and its final state (None of a map), for its merged input and the state before."""
        layer = self.layers[node.name]
        if not node.is_map:
            output, final = layer(x, before, lengths=lengths, timespans=timespans)
            return output, final
        return self._without_padding(layer(x), lengths), None

    def pool(self, outputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the read-out sees of the outputs of the last node."""
        if self.spec.image is not None:
            return outputs.mean((2, 3)) if self.spec.pool == "mean" else outputs.flatten(1)
        if self.spec.pool == "steps":
            return outputs
        if self.spec.pool == "mean":
            # outputs are zero in the padding
            total = outputs.sum(0)
            return total / outputs.shape[0] if lengths is None else total / lengths.unsqueeze(1)
        node = self.spec.nodes[-1]
        if lengths is None:
            last = outputs[-1]
        else:
            last = outputs[lengths - 1, torch.arange(outputs.shape[1], device=outputs.device)]
        if not node.bidirectional:
            return last
        # the second direction has read the whole sequence when it arrives at the first step
        half = outputs.shape[2] // 2
        return torch.cat((last[:, :half], outputs[0, :, half:]), -1)

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def _refuse(self, state: Mapping[str, State] | None, lengths: Any, timespans: Any) -> None:
        recurrent = [node.name for node in self.spec.nodes if not node.is_map]
        if self.spec.image is not None and lengths is not None:
            raise ValueError("an image has all its pixels: leave lengths out")
        if not recurrent and timespans is not None:
            raise ValueError(
                "timespans scale the time steps of recurrent layers, and this model has none: leave them out"
            )
        if state is not None:
            _check.known_keys("state", state, recurrent)
            missing = [name for name in recurrent if name not in state]
            if missing:
                raise ValueError(f"state lacks {', '.join(missing)}: give the state as the model returned it")

    def _without_padding(self, x: Tensor, lengths: Any) -> Tensor:
        if lengths is None or x.dim() != 3:
            return x
        steps, batch = x.shape[:2]
        valid = valid_steps(_check.lengths_of(lengths, steps, batch, x.device), steps)
        return x.masked_fill(~valid.unsqueeze(-1), 0)


def _map(node: Node, shape: Shape, place: Mapping[str, Any]) -> tuple[Map, Shape]:
    """The map of a node for its merged input, and the shape of what it gives."""
    kind = MAPS[node.network]
    if kind.images_only and len(shape) == 1:
        raise _check.ShapeError(f"node {node.name!r} ({node.network}) reads images, and gets {shape[0]} features")
    bias = {"bias": node.bias} if kind.has_bias else {}
    options: dict[str, Any] = {"dropout": node.dropout, **bias, **place, **node.physics}
    build: Any = kind
    try:
        made: Map = build(math.prod(shape) if kind.flattens else shape[0], node.hidden_size, **options)
        return made, made.shape(shape)
    except _check.ShapeError as error:
        raise _check.ShapeError(f"node {node.name!r}: {error}") from error


def _pooled_size(spec: ModelSpec, shape: Shape) -> int:
    if spec.image is None or spec.pool == "flatten":
        return math.prod(shape)
    if len(shape) == 1:
        raise _check.ShapeError(
            f"pool='mean' averages pixels, and node {spec.nodes[-1].name!r} gives {shape[0]} features: pool='flatten'"
        )
    return shape[0]
