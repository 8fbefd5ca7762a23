"""A model as plain data: a graph of layers with a read-out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn

from pendula import _check
from pendula.cells import CELLS
from pendula.nets.maps import MAPS

POOLS = ("last", "mean", "steps", "flatten")
IMAGE_POOLS = ("mean", "flatten")
MERGES = ("concat", "sum", "mean", "weighted", "attention")
INPUT = "input"
TOKEN_DROPOUTS = ("embedding_dropout", "token_dropout")


@dataclass(frozen=True)
class Node:
    """One layer of the graph: a recurrent one, or a map without state.

    Args:
        network: a name of `pendula.cells.CELLS`, or of `pendula.nets.maps.MAPS`.
        hidden_size: N, units of each cell; channels or features of a map.
        name: unique; "layer0", "layer1", … when empty.
        inputs: names of nodes before this one, or "input"; the node before when empty.
        merge: several inputs are set side by side ("concat"), added ("sum", same sizes), averaged ("mean", same sizes),
            or merged with learned weights ("weighted", "attention": `pendula.nets.merge`; all become as wide as the
            last).
        num_layers, bias, dropout, bidirectional, residual, dropout_last, physics: as in `pendula.Recurrent`; physics
            holds numbers, words and lists only (a list of numbers: one per layer; a list of lists: one per layer and
            unit). Of these, a map has bias (where it has one) and dropout, and its physics are its options.
        module: name of the group of nodes that it belongs to, for rules that learn group by group.
        resolution: (H, W) that images are average-pooled to before they are merged; the smallest height and width
            among the inputs when None.
    """

    network: str
    hidden_size: int
    name: str = ""
    inputs: tuple[str, ...] = ()
    merge: str = "concat"
    num_layers: int = 1
    bias: bool = True
    dropout: float = 0.0
    bidirectional: bool = False
    residual: bool = False
    dropout_last: bool | None = None
    physics: dict[str, Any] = field(default_factory=dict)
    module: str = ""
    resolution: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check.one_of("network", self.network, (*CELLS, *MAPS))
        _check.one_of("merge", self.merge, MERGES)
        _check.positive_int("hidden_size", self.hidden_size)
        _check.positive_int("num_layers", self.num_layers)
        _check.probability("dropout", self.dropout)
        if not isinstance(self.physics, Mapping):
            raise ValueError(f"physics must be a table of names and values, got {type(self.physics).__name__}")
        if not isinstance(self.module, str):
            raise ValueError(f"module must be a name, got {self.module!r}")
        kind = MAPS[self.network] if self.is_map else CELLS[self.network]
        kind.check_physics(self.physics)
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if self.resolution is not None:
            object.__setattr__(self, "resolution", _height_and_width("resolution", self.resolution))
        if self.is_map:
            self._check_map()
        # defaults are written out: a file must mean the same network when a later version changes them
        elif self.dropout_last is None:
            object.__setattr__(self, "dropout_last", CELLS[self.network].dropout_last)
        physics = {**kind.physics(), **self.physics}
        object.__setattr__(self, "physics", {k: _plain(v, self.num_layers) for k, v in physics.items()})

    @property
    def is_map(self) -> bool:
        """Whether the node carries no state."""
        return self.network in MAPS

    def _check_map(self) -> None:
        usual = {"num_layers": 1, "bidirectional": False, "residual": False, "dropout_last": None}
        usual |= {} if MAPS[self.network].has_bias else {"bias": True}
        for name, value in usual.items():
            if getattr(self, name) != value:
                raise ValueError(f"{self.network} is one map and has no {name}: leave {name} out")


@dataclass(frozen=True)
class ModelSpec:
    """A whole model: standardise, run the nodes in order, pool over time or pixels, read out linearly.

    Args:
        input_size: I, features of the input; with a vocabulary, numbers per token (the size of the embedding).
        output_size: C, numbers per prediction: classes, or regression targets.
        nodes: the layers, each after those it reads; the last one is read out.
        pool: what the read-out sees: "last" (the output at each sequence's last step; for two directions the last
            of each), "mean" (over the valid steps) or "steps" (a prediction at every step); of images "mean" (over the
            pixels) or "flatten" (all numbers).
        standardise: whether the model subtracts a mean and divides by a scale per feature, kept with its weights.
        labels: names of the classes, if there are any.
        vocabulary: V, for text: the input is token ids (T, B), int64, from 0 (padding) to V - 1, and a trained table
            with a row of `input_size` numbers per token stands before the nodes.
        embedding_dropout: probability that a column of that table is dropped, one mask per sequence.
        token_dropout: probability that a token's whole row is dropped, one mask per batch.
        image: (H, W), for images: the input is still a sequence (T, B, I), of the T = H W pixels row by row and their I
            channels; the nodes, all of them maps, see images.

    >>> spec = ModelSpec(9, 2, (Node("CoRNN", 64, physics={"dt": 0.1}),))
    >>> ModelSpec.from_dict(spec.to_dict()) == spec
    True
    """

    input_size: int
    output_size: int
    nodes: tuple[Node, ...]
    pool: str = "last"
    standardise: bool = False
    labels: tuple[str, ...] | None = None
    vocabulary: int | None = None
    embedding_dropout: float = 0.0
    token_dropout: float = 0.0
    image: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check.positive_int("input_size", self.input_size)
        _check.positive_int("output_size", self.output_size)
        _check.one_of("pool", self.pool, POOLS)
        self._check_tokens()
        if not self.nodes:
            raise ValueError("nodes must hold at least one layer, got none")
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
            # one output for two classes is the log-odds of the second
            classes = 2 if self.output_size == 1 else self.output_size
            if len(self.labels or ()) != classes:
                raise ValueError(f"labels must name {classes} classes, got {len(self.labels or ())}")
        named: list[Node] = []
        seen = [INPUT]
        for place, node in enumerate(self.nodes):
            name = node.name or f"layer{place}"
            # a layer stands under its node's name in a torch container, which has names of its own
            if name in seen or "." in name or hasattr(nn.ModuleDict(), name):
                raise ValueError(f"node names must be unique, without dots, and not taken by torch, got {name!r}")
            inputs = node.inputs or (seen[-1],)
            for source in inputs:
                if source not in seen:
                    raise ValueError(
                        f"node {name!r} reads {source!r}, which is not before it{_check.did_you_mean(source, seen)}; "
                        f"it can read: {', '.join(seen)}"
                    )
            named.append(Node(**{**_shallow(node), "name": name, "inputs": inputs}))
            seen.append(name)
        object.__setattr__(self, "nodes", tuple(named))
        self._check_image()

    def _check_tokens(self) -> None:
        for name in TOKEN_DROPOUTS:
            if _check.probability(name, getattr(self, name)) and self.vocabulary is None:
                raise ValueError(f"{name} drops from an embedding of tokens, and there is none without a vocabulary")
        if self.vocabulary is None:
            return
        # padding, and something to tell apart from it
        _check.positive_int("vocabulary", self.vocabulary, least=2)
        if self.standardise:
            raise ValueError("standardise=True scales numbers, and a vocabulary makes the input tokens: leave one out")

    def _check_image(self) -> None:
        if self.image is None:
            if self.pool == "flatten":
                raise ValueError(f"pool='flatten' is for images: take one of {', '.join(POOLS[:3])}, or give image")
            for node in self.nodes:
                if node.resolution or (node.is_map and MAPS[node.network].images_only):
                    what = "has a resolution" if node.resolution else f"is {node.network}, which reads images"
                    raise ValueError(f"node {node.name!r} {what}, and the model reads sequences: give image=(H, W)")
            return
        object.__setattr__(self, "image", _height_and_width("image", self.image))
        if self.vocabulary is not None:
            raise ValueError("image makes the input pixels, and a vocabulary makes it tokens: leave one out")
        if self.pool not in IMAGE_POOLS:
            raise ValueError(f"pool of images must be one of {', '.join(IMAGE_POOLS)}, got {self.pool!r}")
        for node in self.nodes:
            if not node.is_map:
                raise ValueError(
                    f"node {node.name!r} is {node.network}, which reads sequences, and image={self.image} makes images "
                    f"of them: take maps ({', '.join(MAPS)}), or leave image out"
                )

    def to_dict(self) -> dict[str, Any]:
        """Numbers, words, lists and dicts only: what JSON and TOML can hold."""
        data = cast(dict[str, Any], _listed(asdict(self)))
        for node in data["nodes"]:
            # as it was before there were modules: see below
            if not node["module"]:
                del node["module"]
        if self.vocabulary is None:
            # as it was before there were tokens: runs that are under way compare specs
            for name in TOKEN_DROPOUTS:
                del data[name]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_dict`. Errors: ValueError naming the unknown or missing key."""
        _refuse_keys("a model spec", data, cls)
        nodes = []
        for node in data["nodes"]:
            _refuse_keys("a node of a model spec", node, Node)
            nodes.append(Node(**node))
        return cls(**{**data, "nodes": tuple(nodes)})


def _height_and_width(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be two whole numbers, height and width, got {value!r}")
    return _check.positive_int(name, value[0]), _check.positive_int(name, value[1])


def _shallow(node: Any) -> dict[str, Any]:
    return {f.name: getattr(node, f.name) for f in fields(node)}


def _refuse_keys(where: str, data: Any, kind: type[Any]) -> None:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be a table of keys and values, got {type(data).__name__}")
    _check.known_keys(where, data, [f.name for f in fields(kind)])
    required = {ModelSpec: ("input_size", "output_size", "nodes"), Node: ("network", "hidden_size")}[kind]
    for key in required:
        if key not in data:
            raise ValueError(f"{where} needs {key!r}")


def _plain(value: Any, layers: int) -> Any:
    """Tensors become lists: (N,) for every layer, so that a list always has one entry per layer."""
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        value = torch.as_tensor(value)
    if isinstance(value, Tensor):
        return value.item() if value.dim() == 0 else [value.detach().to(torch.float64).tolist()] * layers
    if isinstance(value, (list, tuple)):
        return [list(v) if isinstance(v, tuple) else v.tolist() if hasattr(v, "tolist") else v for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"physics must be finite, got {value}")
    return value


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items() if v is not None}
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value
