"""Feedback alignment of maps: backpropagation where the maps are the transposed weights."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.learn.dfa.networks import half_squared_of_valid, images, looker, padded, random
from tests.learn.dfa.sheet import backpropagated, gradients, same, with_feedback
from torch import Tensor

from pendula import Model, ModelSpec, Node
from pendula.learn.dfa import DFA
from pendula.nets.maps import Conv
from pendula.tasks.base import Batch


def transposed(model: Model) -> dict[str, Tensor]:
    maps = {"head": model.readout.weight.detach().T}
    for name, layer in model.layers.items():
        if isinstance(layer, Conv):
            weight = layer.conv.weight.detach()
            maps[f"{name} backwards"] = weight.transpose(0, 1).flatten(1)
        elif name == "head":
            maps["head backwards"] = layer.linear.weight.detach().T
    return maps


def test_transposed_weights_are_backpropagation() -> None:
    model, batch = looker(), images()
    found = gradients(with_feedback(DFA(boundary="fa"), transposed(model)), copy.deepcopy(model), batch)
    same(found, backpropagated(model, batch), atol=1e-13)


def test_map_of_zeros_lets_nothing_through() -> None:
    # so no weight is transported, not even to the merge in front of the layer's product
    model, batch = looker(), images()
    rule = with_feedback(DFA(boundary="fa"), {"small backwards": torch.zeros(6, 54, dtype=torch.float64)})
    found = gradients(rule, model, batch)
    above = ("layers.small.", "layers.head.", "readout.")
    for name, gradient in found.items():
        # a bias in front of a normalisation has no effect
        if name != "layers.small.conv.bias":
            assert bool(gradient.any()) == name.startswith(above), name


@pytest.mark.parametrize("layer", ["left", "mixed", "small", "head"])
def test_random_maps_change_the_gradient_below_a_layer_and_not_above(layer: str) -> None:
    model, batch = looker(), images()
    maps = transposed(model)
    maps[f"{layer} backwards"] = torch.randn_like(maps[f"{layer} backwards"])
    found = gradients(with_feedback(DFA(boundary="fa"), maps), copy.deepcopy(model), batch)
    true = backpropagated(model, batch)
    names = list(model.layers)
    for place, name in enumerate(names):
        weight = next((n for n in true if n.startswith(f"layers.{name}.") and n.endswith("weight")), None)
        if weight is None:
            continue
        near = torch.allclose(found[weight], true[weight], rtol=1e-10, atol=1e-12)
        assert near or place < names.index(layer), name
    stem = "layers.stem.conv.weight"
    assert not torch.allclose(found[stem], true[stem])


@pytest.mark.parametrize("pool", ["last", "mean", "steps"])
def test_padded_batch_gives_the_gradients_of_its_sequences(pool: str) -> None:
    nodes = tuple(Node("Linear", 4, physics={"activation": "tanh"}) for _ in range(2))
    model, rule = random(ModelSpec(2, 3, nodes, pool=pool)), DFA(boundary="fa")
    together, alone = padded(pool)
    parts = [gradients(rule, model, batch, half_squared_of_valid) for batch in alone]
    wanted = {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
    same(gradients(rule, model, together, half_squared_of_valid), wanted, atol=1e-14)


def test_share_of_a_batch_multiplies_its_gradients() -> None:
    model, batch, rule = looker(), images(), DFA(boundary="fa")
    whole = gradients(rule, copy.deepcopy(model), batch)
    part = gradients(rule, copy.deepcopy(model), Batch(batch.x, batch.y, share=0.25))
    same(part, {name: 0.25 * gradient for name, gradient in whole.items()})
