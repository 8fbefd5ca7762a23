"""Models from the weights of the papers' own scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pendula._check import one_of
from pendula.cells import cornn, lem, unicornn, urnn
from pendula.nets.model import Model
from pendula.nets.spec import ModelSpec, Node

Layers = list[dict[str, Tensor]]


class Authors(NamedTuple):
    """How to read what a network's authors saved.

    `read` gives the weights of each layer, `readout` weight and bias of the read-out; `rows` is how many rows of the
    input map V belong to a unit; `constants` is the physics that their files leave out, `theirs` what it always is.
    """

    read: Callable[[Mapping[str, Tensor]], Layers]
    readout: Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]
    rows: int = 1
    constants: tuple[str, ...] = ()
    theirs: Mapping[str, Any] = {}


def _linear(name: str) -> Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]:
    def read(state_dict: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        found = {".".join(key.split(".")[-2:]): value for key, value in state_dict.items()}
        if f"{name}.weight" not in found or f"{name}.bias" not in found:
            raise ValueError(f"the state dict has no {name}.weight and {name}.bias, it has {', '.join(state_dict)}")
        return found[f"{name}.weight"], found[f"{name}.bias"]

    return read


def _urnn_readout(state: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    if "U" not in state or "out_bias" not in state:
        raise ValueError(f"the weights have no U and out_bias, they have {', '.join(state)}")
    return torch.as_tensor(state["U"]).T, torch.as_tensor(state["out_bias"]).flatten()


AUTHORS = {
    "CoRNN": Authors(lambda s: [cornn.author_weights(s)], _linear("readout"), constants=("dt", "gamma", "epsilon")),
    "UnICORNN": Authors(unicornn.author_weights, _linear("classifier"), constants=("dt", "alpha")),
    "LEM": Authors(lambda s: [lem.lem_author_weights(s)], _linear("classifier"), rows=4, constants=("dt",)),
    "URNN": Authors(lambda s: [urnn.urnn_author_weights(s)], _urnn_readout, rows=2, theirs={"eps": 1e-5}),
}


def model_from_authors(
    state_dict: Mapping[str, Tensor], network: str = "CoRNN", *, pool: str = "last", **physics: Any
) -> Model:
    """A model from the weights of the authors' scripts.

    Their checkpoints don't hold the constants of the network (dt, gamma and epsilon of coRNN; dt and alpha of
    UnICORNN; dt of LEM): give the ones that the script was run with. Open the file yourself with
    ``torch.load(path, weights_only=True)``. The uRNN's authors saved lists of arrays:
    `pendula.cells.urnn.urnn_author_weights` tells their names, their order and the permutation, which is not saved.

    Args:
        state_dict: names and tensors as the authors' script saved them. Word embeddings (UnICORNN on IMDB) are no part
            of the model: take ``embedding.weight`` out, and give embedded words as input.
        network: CoRNN (any of the authors' three layouts), UnICORNN, LEM or URNN.
        pool: what the read-out sees, as in `ModelSpec`.
        physics: keyword arguments of the network; a list gives one value per layer.

    Errors: ValueError naming what is missing, of another size, or not known.
    """
    authors = AUTHORS[one_of("network", network, AUTHORS)]
    missing = [name for name in authors.constants if name not in physics]
    if missing:
        raise ValueError(f"the authors' files don't hold {', '.join(missing)}: give what the script was run with")
    if any(key.endswith("embedding.weight") for key in state_dict):
        raise ValueError(
            "the state dict holds word embeddings (embedding.weight): take them out, and give embedded words as input"
        )
    layers = authors.read(state_dict)
    weight, bias = authors.readout(state_dict)
    rows, inputs = layers[0]["V"].shape
    node = Node(network, rows // authors.rows, num_layers=len(layers), physics={**authors.theirs, **physics})
    model = Model(ModelSpec(inputs, weight.shape[0], (node,), pool=pool), dtype=layers[0]["V"].dtype)
    own = model.state_dict()
    for depth, weights in enumerate(layers):
        own.update({f"layers.layer0.cells.{depth}.{name}": value for name, value in weights.items()})
    own.update({"readout.weight": weight, "readout.bias": bias})
    model.load_state_dict(own)
    return model.eval()
