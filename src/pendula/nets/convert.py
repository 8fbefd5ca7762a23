"""Models from the weights of the papers' own scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from pendula._check import one_of
from pendula.cells import cornn, unicornn
from pendula.nets.model import Model
from pendula.nets.spec import ModelSpec, Node

Layers = list[dict[str, Tensor]]


class Authors(NamedTuple):
    """What a network's authors saved: how to read it, their name of the read-out, and the constants they left out."""

    read: Callable[[Mapping[str, Tensor]], Layers]
    readout: str
    constants: tuple[str, ...]


AUTHORS = {
    "CoRNN": Authors(lambda state_dict: [cornn.author_weights(state_dict)], "readout", ("dt", "gamma", "epsilon")),
    "UnICORNN": Authors(unicornn.author_weights, "classifier", ("dt", "alpha")),
}


def model_from_authors(
    state_dict: Mapping[str, Tensor], network: str = "CoRNN", *, pool: str = "last", **physics: Any
) -> Model:
    """A model from the weights of the authors' scripts.

    Their checkpoints don't hold the constants of the network (dt, gamma and epsilon of coRNN; dt and alpha of
    UnICORNN): give the ones that the script was run with. Open the file yourself with
    ``torch.load(path, weights_only=True)``.

    Args:
        state_dict: names and tensors as the authors' script saved them. Word embeddings (UnICORNN on IMDB) are no part
            of the model: take ``embedding.weight`` out, and give embedded words as input.
        network: CoRNN (any of the authors' three layouts) or UnICORNN.
        pool: what the read-out sees, as in `ModelSpec`.
        physics: keyword arguments of the network; a list gives one value per layer.

    Errors: ValueError naming what is missing, of another size, or not known.
    """
    read, readout, constants = AUTHORS[one_of("network", network, AUTHORS)]
    missing = [name for name in constants if name not in physics]
    if missing:
        raise ValueError(f"the authors' files don't hold {', '.join(missing)}: give what the script was run with")
    if any(key.endswith("embedding.weight") for key in state_dict):
        raise ValueError(
            "the state dict holds word embeddings (embedding.weight): take them out, and give embedded words as input"
        )
    layers = read(state_dict)
    found = {".".join(key.split(".")[-2:]): value for key, value in state_dict.items()}
    if f"{readout}.weight" not in found or f"{readout}.bias" not in found:
        raise ValueError(f"the state dict has no {readout}.weight and {readout}.bias, it has {', '.join(state_dict)}")
    units, inputs = layers[0]["V"].shape
    node = Node(network, units, num_layers=len(layers), physics=physics)
    spec = ModelSpec(inputs, found[f"{readout}.weight"].shape[0], (node,), pool=pool)
    model = Model(spec, dtype=layers[0]["V"].dtype)
    own = model.state_dict()
    for depth, weights in enumerate(layers):
        own.update({f"layers.layer0.cells.{depth}.{name}": value for name, value in weights.items()})
    own.update({"readout.weight": found[f"{readout}.weight"], "readout.bias": found[f"{readout}.bias"]})
    model.load_state_dict(own)
    return model.eval()
