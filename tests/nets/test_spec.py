"""A spec is plain data: it says a graph of layers, refuses what it cannot mean, and survives JSON unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pendula import Model, ModelSpec, Node, ShapeError
from tests import tolerance

GRAPH = ModelSpec(
    3,
    4,
    (
        Node("CoRNN", 5, name="slow", physics={"dt": 0.05, "variant": "implicit", "learnable": ("dt", "gamma")}),
        Node("GRU", 5, name="fast", inputs=("input",), bias=False),
        Node("LSTM", 6, name="both", inputs=("slow", "fast", "input"), num_layers=2, dropout=0.1, bidirectional=True),
        Node("CoRNN", 7, name="sum", inputs=("slow", "fast"), merge="sum"),
    ),
    pool="mean",
    standardise=True,
    labels=("a", "b", "c", "d"),
)


def through_json(spec: ModelSpec) -> ModelSpec:
    return ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))


def test_a_graph_survives_json() -> None:
    assert through_json(GRAPH) == GRAPH


@pytest.mark.parametrize(
    "physics",
    [
        {"dt": [0.1, 0.2]},
        {"dt": (0.1, 0.2)},
        {"dt": ((0.1, 0.15, 0.2), (0.1, 0.2, 0.1))},
        {"dt": [torch.tensor([0.1, 0.15, 0.2]), 0.1]},
        {"dt": torch.tensor([0.1, 0.15, 0.2])},
        {"dt": torch.tensor(0.1, dtype=torch.float64)},
        {"variant": "implicit"},
        {"learnable": ("dt",)},
        {"learnable": ()},
    ],
)
def test_physics_survives_json_and_builds(physics: dict[str, Any]) -> None:
    spec = ModelSpec(2, 1, (Node("CoRNN", 3, num_layers=2, physics=physics),))
    assert Model(through_json(spec)).spec == spec


def test_what_a_node_or_model_does_not_use_is_not_written() -> None:
    # runs under way compare specs: a new key must not stand in those that were written without it
    data = ModelSpec(2, 1, (Node("GRU", 3),)).to_dict()
    assert list(data) == ["input_size", "output_size", "nodes", "pool", "standardise"]
    (written,) = data["nodes"]
    layer = ["network", "hidden_size", "name", "inputs", "merge", "num_layers", "bias", "dropout", "bidirectional"]
    assert list(written) == [*layer, "residual", "dropout_last", "physics"]


def test_modules_and_resolutions_survive_json() -> None:
    nodes = (Node("Conv", 4, module="first"), Node("Identity", 4, module="second", resolution=(2, 2)))
    made = ModelSpec(2, 1, nodes, pool="mean", image=(4, 4))
    assert through_json(made) == made
    assert [node.module for node in made.nodes] == ["first", "second"]


def test_a_list_of_numbers_is_one_per_layer() -> None:
    model = Model(ModelSpec(2, 1, (Node("CoRNN", 2, num_layers=2, physics={"dt": [0.1, 0.2]}),)), dtype=torch.float64)
    assert [float(cell.dt) for cell in model.layers["layer0"].cells] == [0.1, 0.2]


def test_a_tensor_is_one_number_per_unit_of_every_layer() -> None:
    dt = torch.tensor([0.1, 0.2], dtype=torch.float64)
    model = Model(ModelSpec(2, 1, (Node("CoRNN", 2, num_layers=2, physics={"dt": dt}),)), dtype=torch.float64)
    for cell in model.layers["layer0"].cells:
        assert_close(cell.dt, dt, **tolerance.EXACT)


def test_both_directions_of_a_layer_have_the_physics_of_the_layer() -> None:
    node = Node("CoRNN", 2, num_layers=2, bidirectional=True, physics={"dt": [0.1, 0.2]})
    model = Model(ModelSpec(2, 1, (node,)), dtype=torch.float64)
    assert [float(cell.dt) for cell in model.layers["layer0"].cells] == [0.1, 0.1, 0.2, 0.2]


def test_a_list_of_another_length_than_the_layers_is_refused() -> None:
    spec = ModelSpec(2, 1, (Node("CoRNN", 3, num_layers=2, physics={"dt": [0.1, 0.1, 0.1]}),))
    with pytest.raises(
        ValueError, match=r"dt as a list must have one value per layer \(2\), got 3.*a tensor for one value"
    ):
        Model(spec)


def test_nodes_without_a_name_are_numbered_and_read_the_node_before() -> None:
    spec = ModelSpec(2, 1, (Node("CoRNN", 3), Node("GRU", 3), Node("GRU", 3, inputs=("layer0",))))
    assert [(n.name, n.inputs) for n in spec.nodes] == [
        ("layer0", ("input",)),
        ("layer1", ("layer0",)),
        ("layer2", ("layer0",)),
    ]


def node(**values: Any) -> dict[str, Any]:
    return {"network": "CoRNN", "hidden_size": 3, **values}


def spec(**values: Any) -> dict[str, Any]:
    return {"input_size": 2, "output_size": 1, "nodes": [node()], **values}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (spec(poool="last"), "a model spec has no 'poool'.*did you mean 'pool'"),
        (spec(nodes=[node(hiden_size=3)]), "a node of a model spec has no 'hiden_size'.*did you mean 'hidden_size'"),
        (spec(nodes=[node(physics={"gama": 1.0})]), "CoRNN has no 'gama'.*did you mean 'gamma'"),
        (spec(nodes=[node(physics=[0.1])]), "physics must be a table of names and values, got list"),
        (spec(nodes=[node(network="CoRN")]), "network must be one of .*, got 'CoRN'.*'CoRNN'"),
        (spec(nodes=[node(physics={"dt": float("inf")})]), "physics must be finite, got inf"),
        (spec(nodes=[node(merge="add")]), "merge must be one of concat, sum, mean, weighted, attention, got 'add'"),
        (spec(nodes=[node(hidden_size=0)]), "hidden_size must be a whole number, at least 1, got 0"),
        (spec(nodes=[node(num_layers=0)]), "num_layers must be a whole number"),
        (spec(nodes=[node(dropout=1.0)]), r"dropout must be in \[0, 1\), got 1.0"),
        (spec(nodes=[]), "nodes must hold at least one layer, got none"),
        (spec(nodes=["CoRNN"]), "a node of a model spec must be a table of keys and values, got str"),
        (spec(nodes=[{"network": "CoRNN"}]), "a node of a model spec needs 'hidden_size'"),
        ({"input_size": 2, "output_size": 1}, "a model spec needs 'nodes'"),
        (spec(pool="max"), "pool must be one of last, mean, steps, flatten, got 'max'"),
        (spec(input_size=0), "input_size must be a whole number"),
        (spec(labels=["a", "b", "c"]), "labels must name 2 classes, got 3"),
        (spec(output_size=3, labels=["a"]), "labels must name 3 classes, got 1"),
        ([], "a model spec must be a table of keys and values, got list"),
    ],
)
def test_what_a_spec_cannot_mean_is_refused(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelSpec.from_dict(data)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([node(inputs=["later"]), node(name="later")], "'layer0' reads 'later', which is not before it.*input"),
        ([node(name="slow", inputs=["slow"])], "'slow' reads 'slow', which is not before it"),
        ([node(name="slow"), node(inputs=["slwo"])], "reads 'slwo'.*did you mean 'slow'.*it can read: input, slow"),
        ([node(name="a"), node(name="a")], "node names must be unique.*got 'a'"),
        ([node(name="input")], "node names must be unique.*got 'input'"),
        ([node(name="layer1"), node()], "node names must be unique.*got 'layer1'"),
        ([node(name="a.b")], "without dots.*got 'a.b'"),
        ([node(name="values")], "not taken by torch, got 'values'"),
        ([node(name="training")], "not taken by torch, got 'training'"),
    ],
)
def test_a_graph_that_cannot_run_in_order_is_refused(nodes: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelSpec.from_dict(spec(nodes=nodes))


def test_a_sum_of_different_sizes_is_refused() -> None:
    nodes = (Node("GRU", 3), Node("GRU", 4), Node("GRU", 5, inputs=("layer0", "layer1"), merge="sum"))
    with pytest.raises(ShapeError, match=r"'layer2' adds inputs of different sizes \[3, 4\]: merge='concat'"):
        Model(ModelSpec(2, 1, nodes))


def test_labels_of_one_output_name_both_classes() -> None:
    assert through_json(ModelSpec(2, 1, (Node("GRU", 3),), labels=("no", "yes"))).labels == ("no", "yes")


def test_nodes_side_by_side_are_concatenated_in_the_order_named() -> None:
    nodes = (
        Node("CoRNN", 3, name="a"),
        Node("GRU", 4, name="b", inputs=("input",)),
        Node("LSTM", 5, name="c", inputs=("b", "input", "a")),
    )
    model = Model(ModelSpec(2, 1, nodes), dtype=torch.float64)
    x = torch.randn(6, 3, 2).double()
    a, b = model.layers["a"](x)[0], model.layers["b"](x)[0]
    c = model.layers["c"](torch.cat((b, x, a), -1))[0]
    assert_close(model(x)[0], model.readout(c[-1]), **tolerance.ROUNDING)


def test_nodes_that_are_summed_are_added() -> None:
    nodes = (
        Node("CoRNN", 3, name="a"),
        Node("GRU", 3, name="b", inputs=("input",)),
        Node("LSTM", 5, name="c", inputs=("a", "b"), merge="sum"),
    )
    model = Model(ModelSpec(2, 1, nodes), dtype=torch.float64)
    x = torch.randn(6, 3, 2).double()
    c = model.layers["c"](model.layers["a"](x)[0] + model.layers["b"](x)[0])[0]
    assert_close(model(x)[0], model.readout(c[-1]), **tolerance.ROUNDING)
