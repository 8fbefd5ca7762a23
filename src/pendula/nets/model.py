"""A model built from its spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula import _check
from pendula.cells import State
from pendula.nets.embedding import Embedding
from pendula.nets.layers import LAYERS
from pendula.nets.recurrent import Recurrent
from pendula.nets.scan import BACKENDS
from pendula.nets.spec import INPUT, ModelSpec


class Model(nn.Module):
    """Recurrent layers and a linear read-out, as a `ModelSpec` says.

    Shapes: input (T, B, I), or token ids (T, B) where the spec has a vocabulary; output (B, C), or (T, B, C) when the
    spec pools "steps"; state: a dict from the names of the nodes to the states of their layers.

    >>> from pendula.nets.spec import Node
    >>> model = Model(ModelSpec(3, 2, (Node("CoRNN", 8),)))
    >>> logits, state = model(torch.zeros(5, 4, 3))
    >>> logits.shape, state["layer0"].y.shape
    (torch.Size([4, 2]), torch.Size([1, 4, 8]))
    >>> reader = Model(ModelSpec(3, 2, (Node("CoRNN", 8),), vocabulary=100))
    >>> reader(torch.tensor([[7, 99], [12, 0]]), lengths=[2, 1])[0].shape
    torch.Size([2, 2])
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
        layers: dict[str, Recurrent] = {}
        sizes = {INPUT: spec.input_size}
        for node in spec.nodes:
            given = [sizes[source] for source in node.inputs]
            if node.merge == "sum" and len(set(given)) > 1:
                raise _check.ShapeError(f"node {node.name!r} adds inputs of different sizes {given}: merge='concat'")
            layers[node.name] = LAYERS[node.network](
                given[0] if node.merge == "sum" else sum(given),
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
            sizes[node.name] = layers[node.name].output_size
        self.layers = nn.ModuleDict(layers)
        self.readout = nn.Linear(sizes[spec.nodes[-1].name], spec.output_size, **place)

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
        """Predictions and final states; `lengths` and `timespans` as in `pendula.Recurrent`."""
        if self.embedding is None:
            _check.sequence_input(input, self.spec.input_size, self.readout.weight)
        if state is not None:
            _check.known_keys("state", state, list(self.layers))
            missing = [name for name in self.layers if name not in state]
            if missing:
                raise ValueError(f"state lacks {', '.join(missing)}: give the state as the model returned it")
        x = input if self.embedding is None else self.embedding(input)
        if self.spec.standardise:
            x = (x - self.get_buffer("input_mean")) / self.get_buffer("input_scale")
        if lengths is not None:
            lengths = _check.lengths_of(lengths, x.shape[0], x.shape[1], x.device)
        seen, final = {INPUT: x}, {}
        for node in self.spec.nodes:
            sources = [seen[name] for name in node.inputs]
            merged = sources[0] if len(sources) == 1 else _merge(sources, node.merge)
            before = None if state is None else state[node.name]
            layer = self.layers[node.name]
            seen[node.name], final[node.name] = layer(merged, before, lengths=lengths, timespans=timespans)
        pooled = self._pool(seen[self.spec.nodes[-1].name], lengths)
        return linear(pooled, self.readout.weight, self.readout.bias), final

    def _pool(self, outputs: Tensor, lengths: Tensor | None) -> Tensor:
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


def _merge(sources: list[Tensor], how: str) -> Tensor:
    return torch.cat(sources, -1) if how == "concat" else torch.stack(sources).sum(0)
