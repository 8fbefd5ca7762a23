"""Models that read images: pixels row by row in, the graph of maps on images, predictions out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import pendula
from pendula import Model, ModelSpec, Node, ShapeError
from pendula.nets.images import IMAGE_NETWORKS, conv_stack, resnet, vgg
from tests import tolerance

NETWORKS = pytest.mark.parametrize("network", sorted(IMAGE_NETWORKS))


def spec(network: str = "ConvStack", *, image: tuple[int, int] = (8, 8), **options: Any) -> ModelSpec:
    kind = IMAGE_NETWORKS[network]
    return ModelSpec(2, 3, kind.build(4, 2, **options), pool=kind.pool, standardise=True, image=image)


def pixels(steps: int = 64, batch: int = 5) -> Tensor:
    return torch.rand(steps, batch, 2, dtype=torch.float64)


def test_the_steps_are_the_pixels_row_by_row() -> None:
    model = Model(ModelSpec(2, 3, (Node("Conv", 4),), pool="mean", image=(2, 3)), dtype=torch.float64)
    x = torch.arange(6.0, dtype=torch.float64).reshape(6, 1, 1) * torch.tensor([1.0, 10.0], dtype=torch.float64)
    rows = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], dtype=torch.float64)
    assert_close(model.prepare(x), torch.stack((rows, 10 * rows)).unsqueeze(0), **tolerance.EXACT)


def test_a_stack_is_torch_s_own() -> None:
    nodes = conv_stack(4, 1, norm="none", activation="tanh")
    model = Model(ModelSpec(2, 3, nodes, pool="flatten", image=(8, 12)), dtype=torch.float64)
    plain = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 2 * 3, 16),
        nn.Tanh(),
        nn.Linear(16, 3),
    ).double()
    names = dict(zip(plain.state_dict(), model.state_dict().values(), strict=True))
    plain.load_state_dict(names)
    x = pixels(96)
    assert_close(model(x)[0], plain(x.permute(1, 2, 0).reshape(5, 2, 8, 12)), **tolerance.ROUNDING)


def test_a_residual_block_adds_what_it_reads() -> None:
    model = Model(spec("ResNet"), dtype=torch.float64)
    seen = {"input": model.prepare(pixels())}
    for node in model.spec.nodes:
        seen[node.name], _ = model.through(node, model.gather(node, seen))
    assert_close(seen["stage0_block0"], (seen["stem"] + seen["stage0_block0_b"]).relu(), **tolerance.EXACT)
    skipped = seen["stage1_block0_shortcut"]
    assert skipped.shape[1:] == (8, 4, 4)
    assert_close(seen["stage1_block0"], (skipped + seen["stage1_block0_b"]).relu(), **tolerance.EXACT)


@pytest.mark.parametrize(
    ("nodes", "pool", "parameters"),
    [
        # 9 taps a pair of channels, two numbers a channel in the normalisation
        (conv_stack(4, 1), "flatten", 9 * (2 * 4 + 4 * 8) + 2 * (4 + 8) + (32 * 16 + 16) + (16 * 3 + 3)),
        (conv_stack(4, 1, norm="none"), "flatten", 9 * (8 + 32) + 4 + 8 + (32 * 16 + 16) + (16 * 3 + 3)),
        (conv_stack(4, 1, norm="none", bias=False), "flatten", 9 * (8 + 32) + 32 * 16 + (16 * 3 + 3)),
        (vgg(4, 2), "mean", 9 * (8 + 16 + 32 + 64 + 128 + 256) + 2 * 2 * (4 + 8 + 16) + (16 * 3 + 3)),
        (vgg(4, 1), "flatten", 9 * (8 + 32 + 128) + 2 * (4 + 8 + 16) + (16 * 2 * 2 * 3 + 3)),
        # a convolution, and two per block; shortcuts of one tap from 4 to 8 and from 8 to 16
        (
            resnet(4, 1),
            "mean",
            9 * (8 + 2 * 16 + 32 + 64 + 128 + 256) + 32 + 128 + 2 * (4 + 2 * 4 + 3 * 8 + 3 * 16) + (16 * 3 + 3),
        ),
    ],
)
def test_parameters_are_those_counted_by_hand(nodes: tuple[Node, ...], pool: str, parameters: int) -> None:
    assert Model(ModelSpec(2, 3, nodes, pool=pool, image=(8, 8))).parameter_count == parameters


@NETWORKS
def test_a_module_has_one_resolution_and_one_width(network: str) -> None:
    model = Model(spec(network, image=(16, 16)))
    sizes: dict[str, set[tuple[int, ...]]] = {}
    for node in model.spec.nodes:
        if node.network == "Conv" or not node.module.startswith("stage"):
            sizes.setdefault(node.module, set()).add(model.shapes[node.name])
    stages = [found for module, found in sizes.items() if module.startswith("stage")]
    assert len(stages) == (2 if network == "ConvStack" else 3)
    assert all(len(found) == 1 for found in stages)


@NETWORKS
def test_modules_follow_one_another(network: str) -> None:
    modules = [node.module for node in spec(network).nodes]
    assert modules == sorted(modules, key=list(dict.fromkeys(modules)).index)
    assert "" not in modules


@NETWORKS
def test_it_survives_json(network: str) -> None:
    made = spec(network, kernel_size=(3, 5), activation="tanh")
    assert ModelSpec.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@NETWORKS
def test_it_comes_back_from_disk(network: str, tmp_path: Path) -> None:
    built = Model(spec(network), dtype=torch.float64)
    built.set_standard(torch.tensor([0.5, 0.1]), torch.tensor([2.0, 0.3]))
    # statistics of the normalisation that are not those of the start
    built(pixels())
    loaded = pendula.load(pendula.save(built, tmp_path / "model"))
    assert_close(dict(loaded.state_dict()), dict(built.state_dict()), **tolerance.EXACT)
    x = pixels()
    assert_close(loaded(x)[0], built.eval()(x)[0], **tolerance.EXACT)


@NETWORKS
def test_an_image_is_predicted_as_if_it_were_alone(network: str) -> None:
    model, x = Model(spec(network), dtype=torch.float64).eval(), pixels()
    alone = torch.cat([model(x[:, b : b + 1])[0] for b in range(5)])
    assert_close(model(x)[0], alone, **tolerance.ROUNDING)


@NETWORKS
def test_every_parameter_gets_a_gradient(network: str) -> None:
    model = Model(spec(network), dtype=torch.float64)
    model(pixels())[0].square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


@NETWORKS
def test_dropout_stands_in_front_of_the_read_out(network: str) -> None:
    rates = [node.dropout for node in spec(network, dropout=0.3).nodes]
    assert rates == [0.0] * (len(rates) - 1) + [0.3]


def test_the_standard_is_per_channel() -> None:
    model, x = Model(spec(), dtype=torch.float64), pixels()
    mean, scale = torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 0.1]).double()
    model.set_standard(mean, scale)
    expected = ((x - mean) / scale).permute(1, 2, 0).reshape(5, 2, 8, 8)
    assert_close(model.prepare(x), expected, **tolerance.EXACT)


def test_the_mean_is_over_the_pixels_and_flatten_takes_all() -> None:
    for pool, formula in {"mean": lambda y: y.mean((2, 3)), "flatten": lambda y: y.flatten(1)}.items():
        model = Model(ModelSpec(2, 3, (Node("Conv", 4),), pool=pool, image=(4, 3)), dtype=torch.float64)
        x = pixels(12)
        expected = model.readout(formula(model.layers["layer0"](model.prepare(x))))
        assert_close(model(x)[0], expected, **tolerance.ROUNDING)


def test_there_is_no_state() -> None:
    model, x = Model(spec(), dtype=torch.float64).eval(), pixels()
    output, state = model(x)
    assert state == {}
    assert_close(model(x, state)[0], output, **tolerance.EXACT)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"input": torch.zeros(60, 5, 2)}, ShapeError, "images of 8 x 8 = 64 pixels, got 60 steps"),
        ({"input": torch.zeros(64, 5, 3)}, ShapeError, r"input must be \(time, batch, 2\), got \(64, 5, 3\)"),
        ({"lengths": [64] * 5}, ValueError, "an image has all its pixels: leave lengths out"),
        ({"timespans": torch.ones(64, 5)}, ValueError, "this model has none: leave them out"),
        ({"state": {"stem": ()}}, ValueError, "state has no 'stem'; it has none"),
    ],
)
def test_a_bad_call_is_refused(words: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Model(spec())(**{"input": torch.zeros(64, 5, 2), **words})


CONV, GRU = {"network": "Conv", "hidden_size": 4}, {"network": "GRU", "hidden_size": 4}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nodes": [GRU]}, r"'layer0' is GRU, which reads sequences, and image=\(8, 8\) makes images.*take maps"),
        ({"pool": "last"}, "pool of images must be one of mean, flatten, got 'last'"),
        ({"vocabulary": 9}, "image makes the input pixels, and a vocabulary makes it tokens"),
        ({"image": [8]}, r"image must be two whole numbers, height and width, got \[8\]"),
        ({"image": [8, 0]}, "image must be a whole number, at least 1, got 0"),
        ({"image": None}, "'layer0' is Conv, which reads images, and the model reads sequences"),
        ({"image": None, "nodes": [{**GRU, "resolution": [2, 2]}]}, "'layer0' has a resolution, and the model reads"),
        ({"image": None, "nodes": [GRU], "pool": "flatten"}, "pool='flatten' is for images: take one of last, mean"),
    ],
)
def test_what_a_spec_of_images_cannot_mean_is_refused(given: dict[str, Any], said: str) -> None:
    usual = {"input_size": 2, "output_size": 3, "nodes": [CONV], "pool": "mean", "image": [8, 8]}
    with pytest.raises(ValueError, match=said):
        ModelSpec.from_dict({**usual, **given})


def test_the_mean_of_features_is_refused() -> None:
    with pytest.raises(
        ShapeError, match="pool='mean' averages pixels, and node 'head' gives 16 features: pool='flatten"
    ):
        Model(ModelSpec(2, 3, conv_stack(4, 1), pool="mean", image=(8, 8)))


@pytest.mark.parametrize(("hidden_size", "num_layers"), [(0, 1), (4, 0)])
@NETWORKS
def test_a_network_without_channels_or_layers_is_refused(network: str, hidden_size: int, num_layers: int) -> None:
    with pytest.raises(ValueError, match="must be a whole number, at least 1, got 0"):
        IMAGE_NETWORKS[network].build(hidden_size, num_layers)
