"""Models from the weights of the papers' own scripts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pendula.cells.cornn import author_weights
from pendula.nets.model import Model
from pendula.nets.spec import ModelSpec, Node


def model_from_authors(
    state_dict: Mapping[str, Tensor], *, dt: float, gamma: float, epsilon: float, pool: str = "last"
) -> Model:
    """A coRNN model from the weights of the authors' scripts, in any of their three layouts.

    Their checkpoints hold neither dt, gamma nor epsilon: give the ones that the script was run with. Open the file
    yourself with ``torch.load(path, weights_only=True)``.
    """
    weights = author_weights(state_dict)
    found = {".".join(key.split(".")[-2:]): value for key, value in state_dict.items()}
    if "readout.weight" not in found or "readout.bias" not in found:
        raise ValueError(f"the state dict has no readout.weight and readout.bias, it has {', '.join(state_dict)}")
    units, inputs = weights["V"].shape
    node = Node("CoRNN", units, physics={"dt": dt, "gamma": gamma, "epsilon": epsilon})
    spec = ModelSpec(inputs, found["readout.weight"].shape[0], (node,), pool=pool)
    model = Model(spec, dtype=weights["V"].dtype)
    own = model.state_dict()
    own.update({f"layers.layer0.cells.0.{name}": value for name, value in weights.items()})
    own.update({"readout.weight": found["readout.weight"], "readout.bias": found["readout.bias"]})
    model.load_state_dict(own)
    return model.eval()
