"""Maps: nodes without a state, and merges, on images and on sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d
from torch.testing import assert_close

from pendula import Model, ModelSpec, Node, ShapeError
from pendula.diagnose import certify, gradient_flow
from pendula.nets.map import Map
from pendula.nets.maps import MAPS, Conv, Identity, Linear, Pool
from pendula.nets.merge import Attention, Weighted
from pendula.tasks.base import Batch
from tests import tolerance

F64: dict[str, Any] = {"dtype": torch.float64}


def images(channels: int = 2, height: int = 6, width: int = 5) -> Tensor:
    return torch.randn(3, channels, height, width, dtype=torch.float64)


def looker(*nodes: Node, image: tuple[int, int] = (8, 6), pool: str = "flatten", **options: Any) -> Model:
    return Model(ModelSpec(2, 3, nodes, pool=pool, image=image, **options), dtype=torch.float64)


def pixels(image: tuple[int, int] = (8, 6), batch: int = 4) -> Tensor:
    return torch.randn(image[0] * image[1], batch, 2, dtype=torch.float64)


def test_the_table_has_every_map() -> None:
    assert {kind.__name__: kind for kind in Map.__subclasses__()} == MAPS


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 5, "dilation": 2},
        {"kernel_size": (1, 3), "stride": 2},
        {"kernel_size": (5, 1), "pool": 2},
        {"stride": 3, "groups": 2, "pool": 2},
        {"norm": "none", "order": "act-conv-norm"},
    ],
)
def test_a_convolution_gives_the_shape_that_it_foretells(options: dict[str, Any]) -> None:
    made = Conv(2, 4, **options, **F64)
    assert made(images()).shape[1:] == made.shape((2, 6, 5))


def test_a_convolution_keeps_the_size_of_the_image() -> None:
    assert Conv(2, 4, kernel_size=(3, 5), dilation=2).shape((2, 6, 5)) == (4, 6, 5)


@pytest.mark.parametrize("options", [{}, {"kind": "max"}, {"kernel_size": 3, "stride": 1}, {"kernel_size": 5}])
def test_a_pool_gives_the_shape_that_it_foretells(options: dict[str, Any]) -> None:
    made = Pool(2, 2, **options)
    assert made(images()).shape[1:] == made.shape((2, 6, 5))


def test_the_orders_are_the_formulas_that_they_say() -> None:
    x = images()
    for order, formula in {
        "conv-norm-act": lambda made: made.norm(made.conv(x)).relu(),
        "act-conv-norm": lambda made: made.norm(made.conv(x.relu())),
    }.items():
        made = Conv(2, 4, order=order, **F64)
        assert_close(made(x), formula(made), **tolerance.EXACT)


def test_max_pooling_comes_behind_the_activation() -> None:
    made, x = Conv(2, 4, norm="none", activation="tanh", pool=2, **F64), images()
    plain = conv2d(x, made.conv.weight, made.conv.bias, padding=1).tanh()
    assert_close(made(x), torch.nn.functional.max_pool2d(plain, 2), **tolerance.ROUNDING)


def test_a_mean_at_the_border_is_over_the_pixels_that_there_are() -> None:
    made = Pool(1, 1, kernel_size=3, stride=1)
    assert_close(made(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_linear_maps_the_pixels_of_an_image_and_the_features_of_a_step() -> None:
    made, x = Linear(60, 4, activation="tanh", **F64), images()
    expected = made.linear(x.flatten(1)).tanh()
    assert_close(made(x), expected, **tolerance.ROUNDING)
    assert_close(made(x.flatten(1).expand(7, -1, -1)), expected.expand(7, -1, -1), **tolerance.ROUNDING)


@pytest.mark.parametrize(
    ("made", "parameters"),
    [
        # 3 * 3 taps of 2 channels to 4; a bias and two numbers of the normalisation each
        (Conv(2, 4), 72 + 4 + 8),
        (Conv(2, 4, False), 72 + 8),
        (Conv(2, 4, False, kernel_size=(1, 3), groups=2, norm="none"), 12),
        (Linear(60, 4), 240 + 4),
        (Linear(60, 4, False), 240),
        (Identity(3, 3), 0),
        (Pool(3, 3), 0),
    ],
)
def test_parameters_are_those_counted_by_hand(made: Map, parameters: int) -> None:
    assert sum(p.numel() for p in made.parameters()) == parameters


@pytest.mark.parametrize(
    ("x", "held"),
    [
        (torch.ones(5, 6, 40), lambda y: (y == y[0]).all()),
        (torch.ones(5, 6, 4, 3), lambda y: (y == y[:, :, :1, :1]).all()),
        (torch.ones(5, 40), lambda y: (y != y[0]).any()),
    ],
)
def test_dropout_has_one_mask_for_all_times_or_pixels(x: Tensor, held: Callable[[Tensor], Tensor]) -> None:
    size = x.shape[1] if x.dim() == 4 else x.shape[-1]
    y = Identity(size, size, dropout=0.5)(x)
    assert held(y)
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_dropout_is_off_in_evaluation() -> None:
    x = images()
    assert_close(Identity(2, 2, dropout=0.5).eval()(x), x, **tolerance.EXACT)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"network": "Conv", "physics": {"kernl_size": 3}}, "Conv has no 'kernl_size'.*did you mean 'kernel_size'"),
        ({"network": "Conv", "physics": {"kernel_size": 4}}, "kernel_size must be odd.*got 4"),
        ({"network": "Conv", "physics": {"kernel_size": [3]}}, r"a whole number or a pair of them, got \[3\]"),
        ({"network": "Conv", "physics": {"kernel_size": [3, 2]}}, r"kernel_size must be odd.*got \[3, 2\]"),
        ({"network": "Conv", "physics": {"stride": 0}}, "stride must be a whole number"),
        ({"network": "Conv", "physics": {"norm": "bach"}}, "norm must be one of batch, none, got 'bach'.*'batch'"),
        ({"network": "Conv", "physics": {"order": "norm"}}, "order must be one of conv-norm-act, act-conv-norm"),
        ({"network": "Pool", "physics": {"kind": "average"}}, "kind must be one of mean, max"),
        ({"network": "Pool", "physics": {"kernel_size": 0}}, "kernel_size must be a whole number"),
        ({"network": "Linear", "physics": {"activation": "Relu"}}, "activation must be one of none, relu, tanh"),
        ({"network": "Conv", "num_layers": 2}, "Conv is one map and has no num_layers: leave num_layers out"),
        ({"network": "Linear", "bidirectional": True}, "Linear is one map and has no bidirectional"),
        ({"network": "Linear", "residual": True}, "Linear is one map and has no residual"),
        ({"network": "Linear", "dropout_last": True}, "Linear is one map and has no dropout_last"),
        ({"network": "Identity", "bias": False}, "Identity is one map and has no bias"),
        ({"network": "Conv", "resolution": [4]}, r"resolution must be two whole numbers, height and width, got \[4\]"),
        ({"network": "Conv", "module": 3}, "module must be a name, got 3"),
    ],
)
def test_what_a_map_cannot_be_is_refused(node: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Node(**{"hidden_size": 4, **node})


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ((Node("Conv", 4, physics={"groups": 4}),), "'layer0': groups=4 must divide both 2 and 4 channels"),
        ((Node("Identity", 4),), "'layer0': Identity keeps the size it reads, 2: hidden_size must be that, got 4"),
        ((Node("Conv", 4, physics={"pool": 7}),), "'layer0': pool=7 leaves nothing of 8 x 6 pixels: pool less"),
        ((Node("Pool", 2, physics={"kernel_size": 8}),), "'layer0': a window of 8 is larger than 8 x 6 pixels"),
        ((Node("Linear", 4), Node("Conv", 4)), r"'layer1' \(Conv\) reads images, and gets 4 features"),
        (
            (Node("Linear", 2, name="flat"), Node("Conv", 2, inputs=("flat", "input"))),
            r"'layer1' reads images and features \[\(2,\), \(2, 8, 6\)\]: put a Linear between",
        ),
        ((Node("Linear", 4), Node("Linear", 4, resolution=(2, 2))), r"\(2, 2\), and reads features, which have no"),
        ((Node("Conv", 4, resolution=(9, 6)),), r"resolution \(9, 6\), and an input of only \(8, 6\)"),
        (
            (Node("Conv", 4, name="a"), Node("Identity", 4, inputs=("input", "a"), merge="mean")),
            r"'layer1' averages inputs of different sizes \[2, 4\]: merge='concat', or 'weighted'",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused_when_the_model_is_built(nodes: tuple[Node, ...], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        looker(*nodes)


def branches(merge: str, last: Node | None = None) -> tuple[Node, ...]:
    small = Node("Conv", 3, "small", ("input",), physics={"stride": 2})
    large = Node("Conv", 3, "large", ("input",))
    return small, large, last or Node("Conv", 4, "both", ("large", "small"), merge=merge)


def outputs(model: Model, x: Tensor) -> dict[str, Tensor]:
    seen = {"input": model.prepare(x)}
    for node in model.spec.nodes:
        seen[node.name], _ = model.through(node, model.gather(node, seen))
    return seen


@pytest.mark.parametrize(
    ("merge", "formula"),
    [
        ("concat", lambda a, b: torch.cat((a, b), 1)),
        ("sum", lambda a, b: a + b),
        ("mean", lambda a, b: (a + b) / 2),
    ],
)
def test_images_are_pooled_to_the_smallest_and_then_merged(
    merge: str, formula: Callable[[Tensor, Tensor], Tensor]
) -> None:
    model, x = looker(*branches(merge)), pixels()
    seen = outputs(model, x)
    expected = formula(adaptive_avg_pool2d(seen["large"], (4, 3)), seen["small"])
    assert_close(model.gather(model.spec.nodes[-1], seen), expected, **tolerance.ROUNDING)


def test_a_resolution_pools_a_single_input_and_several() -> None:
    model = looker(*branches("sum", Node("Identity", 3, "both", ("large", "small"), "sum", resolution=(2, 2))))
    seen = outputs(model, pixels())
    large, small = (adaptive_avg_pool2d(seen[name], (2, 2)) for name in ("large", "small"))
    assert_close(seen["both"], large + small, **tolerance.ROUNDING)
    alone = looker(Node("Identity", 2, resolution=(2, 3)))
    x = pixels()
    assert_close(outputs(alone, x)["layer0"], adaptive_avg_pool2d(alone.prepare(x), (2, 3)), **tolerance.ROUNDING)


# spec sheet nago.md, oracle 5
@pytest.mark.parametrize(("count", "value"), [(2, 1.4621171572600098), (3, 2.193175735890015)])
@pytest.mark.parametrize("shape", [(2, 4, 3), (5,)])
def test_ones_merge_to_the_sigmoids_of_the_weights(count: int, value: float, shape: tuple[int, ...]) -> None:
    x = torch.ones(6, *shape, dtype=torch.float64) if len(shape) == 3 else torch.ones(6, 2, *shape, dtype=torch.float64)
    merged = Weighted([shape] * count, **F64)([x] * count)
    assert_close(merged, torch.full_like(x, value), **tolerance.PRINTED_16)


def test_attention_is_its_formula() -> None:
    made = Attention([(3, 4, 4), (2, 4, 4), (2, 4, 4)], **F64)
    sources = [torch.randn(5, channels, 4, 4, dtype=torch.float64) for channels in (3, 2, 2)]
    first = made.projections["0"](sources[0])
    low, high = first.flatten(1).min(1).values, first.flatten(1).max(1).values
    mask = (first - low.reshape(-1, 1, 1, 1)) / (high - low).reshape(-1, 1, 1, 1)
    total = made.gates.sigmoid()[0] * sources[1] + made.gates.sigmoid()[1] * sources[2]
    assert_close(made(sources), made.share.sigmoid() * total + total * mask, **tolerance.ROUNDING)


def test_attention_to_an_input_without_differences_has_finite_gradients() -> None:
    made, x = Attention([(2, 3, 3)] * 2, **F64), torch.zeros(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    made([x, x + 1]).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("merge", ["weighted", "attention"])
def test_a_sequence_is_merged_as_if_it_were_alone(merge: str) -> None:
    nodes = (
        Node("CoRNN", 4, "a"),
        Node("Linear", 3, "b", inputs=("input",)),
        Node("GRU", 3, "c", inputs=("input", "a", "b"), merge=merge),
    )
    model = Model(ModelSpec(2, 3, nodes, pool="mean"), dtype=torch.float64)
    x, lengths = torch.randn(6, 3, 2, dtype=torch.float64), [3, 1, 6]
    for b, length in enumerate(lengths):
        x[length:, b] = float("nan")
    together, _ = model(x, lengths=lengths)
    together.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    for b, length in enumerate(lengths):
        assert_close(together[b], model(x[:length, b : b + 1])[0][0], **tolerance.ROUNDING)


@pytest.mark.parametrize(
    ("merge", "parameters"),
    # projections of 4 and of 2 to 3 numbers, with biases; one gate, and the share of attention
    [("weighted", 15 + 9 + 1), ("attention", 15 + 9 + 2), ("concat", 0)],
)
def test_a_merge_has_the_parameters_counted_by_hand(merge: str, parameters: int) -> None:
    nodes = (
        Node("GRU", 4, "a"),
        Node("GRU", 3, "b", inputs=("input",)),
        Node("Linear", 1, "c", inputs=("input", "a", "b"), merge=merge),
    )
    assert sum(p.numel() for p in Model(ModelSpec(2, 3, nodes)).merges.parameters()) == parameters


def test_a_linear_map_between_layers_sees_no_padding_and_gives_none() -> None:
    nodes = (Node("Linear", 4, physics={"activation": "tanh"}), Node("GRU", 3), Node("Linear", 5))
    model = Model(ModelSpec(2, 3, nodes, pool="mean"), dtype=torch.float64)
    x, lengths = torch.randn(6, 3, 2, dtype=torch.float64), [3, 1, 6]
    alone = torch.cat([model(x[:length, b : b + 1])[0] for b, length in enumerate(lengths)])
    x[3:, 0] = float("nan")
    assert_close(model(x, lengths=lengths)[0], alone, **tolerance.ROUNDING)


def test_only_recurrent_layers_have_a_state() -> None:
    model = Model(ModelSpec(2, 3, (Node("Linear", 4), Node("GRU", 3))), dtype=torch.float64)
    x = torch.randn(6, 3, 2, dtype=torch.float64)
    _, state = model(x[:4])
    assert list(state) == ["layer1"]
    assert_close(model(x[4:], state)[0], model(x)[0], **tolerance.ROUNDING)


def test_time_spans_go_to_the_recurrent_layers_alone() -> None:
    model = Model(ModelSpec(2, 3, (Node("Linear", 4), Node("CoRNN", 3))), dtype=torch.float64)
    x, spans = torch.randn(6, 3, 2, dtype=torch.float64), 0.5 + torch.rand(6, 3, dtype=torch.float64)
    outputs, _ = model.layers["layer1"](model.layers["layer0"](x), timespans=spans)
    assert_close(model(x, timespans=spans)[0], model.readout(outputs[-1]), **tolerance.ROUNDING)


def test_time_spans_are_refused_where_nothing_has_a_time_step() -> None:
    model = Model(ModelSpec(2, 3, (Node("Linear", 4),)))
    with pytest.raises(ValueError, match="timespans scale the time steps of recurrent layers, and this model has none"):
        model(torch.zeros(6, 3, 2), timespans=torch.ones(6, 3))


def test_diagnosis_sees_the_recurrent_layers_between_the_maps() -> None:
    nodes = (
        Node("CoRNN", 4, "a", bidirectional=True),
        Node("Linear", 3, "b", inputs=("input",)),
        Node("GRU", 3, "c", inputs=("a", "b"), merge="weighted"),
        Node("Linear", 3, "d"),
    )
    model = Model(ModelSpec(2, 3, nodes, pool="mean"), dtype=torch.float64)
    batch = Batch(torch.randn(6, 3, 2, dtype=torch.float64), torch.zeros(3), lengths=torch.tensor([3, 1, 6]))
    flow = gradient_flow(model, batch, lambda output, _: output.square().sum(), compare="LSTM")
    expected = model(batch.x, lengths=batch.lengths)[0].detach().square().sum()
    assert flow.loss == pytest.approx(float(expected), rel=1e-12)
    assert [layer.name for layer in flow.layers] == ["a", "a backwards", "c"]
    assert flow.rival is not None
    assert {layer.network for layer in flow.rival.layers} == {"LSTM"}


def test_diagnosis_refuses_a_model_without_states() -> None:
    model, batch = looker(Node("Conv", 4)), Batch(pixels(), torch.zeros(4))
    with pytest.raises(ValueError, match="this model has no recurrent layer, only Conv: it has no states over time"):
        gradient_flow(model, batch, lambda output, _: output.sum())
    with pytest.raises(ValueError, match="this model has no recurrent layer, only Conv"):
        certify(model, batch)
