"""A model: pooling sees valid steps only, the state goes in and out, the standard of the inputs stays with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula import BackendError, Model, ModelSpec, Node, ShapeError
from tests import tolerance

NETWORKS = pytest.mark.parametrize("network", ["CoRNN", "GRU", "LSTM"])
POOLS = pytest.mark.parametrize("pool", ["last", "mean", "steps"])
LENGTHS = [3, 1, 6]
PLAIN = ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"]
WEIGHTS = {"CoRNN": ["W", "W_z", "V", "b", "dt", "gamma", "epsilon"], "GRU": PLAIN, "LSTM": PLAIN}


def model(network: str = "CoRNN", **options: Any) -> Model:
    node = Node(network, 4, num_layers=2, bidirectional=options.pop("bidirectional", False))
    return Model(ModelSpec(2, 3, (node,), **options), dtype=torch.float64)


def sequences() -> Tensor:
    return torch.randn(6, 3, 2).double()


@NETWORKS
@POOLS
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("padding", [float("nan"), 1e30])
def test_a_padded_batch_predicts_like_its_sequences_one_by_one(
    network: str, pool: str, bidirectional: bool, padding: float
) -> None:
    built = model(network, pool=pool, bidirectional=bidirectional, standardise=True)
    x = sequences()
    for b, length in enumerate(LENGTHS):
        x[length:, b] = padding
    together, _ = built(x, lengths=LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone, _ = built(x[:length, b : b + 1])
        got = together[:length, b] if pool == "steps" else together[b]
        assert_close(got, alone.select(-2, 0), **tolerance.ROUNDING)


def test_last_reads_the_output_at_the_last_valid_step() -> None:
    built, x = model(), sequences()
    outputs, _ = built.layers["layer0"](x, lengths=LENGTHS)
    last = torch.stack([outputs[length - 1, b] for b, length in enumerate(LENGTHS)])
    assert_close(built(x, lengths=LENGTHS)[0], built.readout(last), **tolerance.ROUNDING)


def test_mean_reads_the_mean_over_the_valid_steps() -> None:
    built, x = model(pool="mean"), sequences()
    outputs, _ = built.layers["layer0"](x, lengths=LENGTHS)
    mean = torch.stack([outputs[:length, b].mean(0) for b, length in enumerate(LENGTHS)])
    assert_close(built(x, lengths=LENGTHS)[0], built.readout(mean), **tolerance.ROUNDING)


def test_steps_reads_every_step() -> None:
    built, x = model(pool="steps"), sequences()
    assert_close(built(x)[0], built.readout(built.layers["layer0"](x)[0]), **tolerance.ROUNDING)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_last_of_two_directions_is_where_each_has_read_everything(lengths: list[int] | None) -> None:
    built, x = model(bidirectional=True), sequences()
    _, state = built.layers["layer0"](x, lengths=lengths)
    # the output of coRNN is its position, so the final states of the last layer are what each direction ends with
    ends = torch.cat((state.y[2], state.y[3]), -1)
    assert_close(built(x, lengths=lengths)[0], built.readout(ends), **tolerance.ROUNDING)


@NETWORKS
def test_a_carried_state_continues_the_sequence(network: str) -> None:
    built, x = model(network), sequences()
    _, state = built(x[:2])
    got, final = built(x[2:], state)
    expected, last = built(x)
    assert_close(got, expected, **tolerance.ROUNDING)
    assert_close(final["layer0"], last["layer0"], **tolerance.ROUNDING)


def test_time_spans_reach_every_layer() -> None:
    built, x = model(), sequences()
    spans = 0.5 + torch.rand(6, 3).double()
    outputs, _ = built.layers["layer0"](x, timespans=spans)
    assert_close(built(x, timespans=spans)[0], built.readout(outputs[-1]), **tolerance.ROUNDING)


def test_the_standard_of_the_inputs_is_applied() -> None:
    built, plain, x = model(standardise=True), model(), sequences()
    plain.load_state_dict({n: v for n, v in built.state_dict().items() if not n.startswith("input_")})
    mean, scale = torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 0.1]).double()
    built.set_standard(mean, scale)
    assert_close(built(x)[0], plain((x - mean) / scale)[0], **tolerance.EXACT)


def test_the_standard_of_the_inputs_is_kept_with_the_weights() -> None:
    built, other, x = model(standardise=True), model(standardise=True), sequences()
    built.set_standard(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.1]))
    other.load_state_dict(built.state_dict())
    assert_close(other(x)[0], built(x)[0], **tolerance.EXACT)


def test_the_standard_is_no_parameter() -> None:
    assert not [name for name, _ in model(standardise=True).named_parameters() if name.startswith("input_")]


def test_a_standard_is_refused_where_the_spec_has_none() -> None:
    with pytest.raises(ValueError, match="standardise=False: build it with standardise=True"):
        model().set_standard(torch.zeros(2), torch.ones(2))


@POOLS
def test_every_parameter_gets_a_gradient(pool: str) -> None:
    built = model(pool=pool, bidirectional=True)
    built(sequences(), lengths=LENGTHS)[0].square().sum().backward()
    assert [name for name, p in built.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"input": torch.zeros(6, 3, 5).double()}, ShapeError, r"input must be \(time, batch, 2\), got \(6, 3, 5\)"),
        ({"input": torch.zeros(6, 3, 2)}, TypeError, "input is torch.float32, the parameters are torch.float64"),
        ({"input": [[0.0]]}, TypeError, "input must be a tensor, got list"),
        ({"lengths": [7, 6, 1]}, ValueError, "lengths must be from 1 to 6"),
        ({"lengths": [1, 1]}, ShapeError, r"lengths must .*shape \(3,\), got \(2,\)"),
        ({"state": {"layr0": None}}, ValueError, "state has no 'layr0'.*did you mean 'layer0'"),
        ({"state": {}}, ValueError, "state lacks layer0: give the state as the model returned it"),
        ({"timespans": torch.zeros(6, 3)}, ValueError, "timespans must be positive"),
    ],
)
def test_a_bad_call_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        model()(**{"input": sequences(), **options})


def test_time_spans_are_refused_where_a_layer_has_no_time_step() -> None:
    with pytest.raises(ValueError, match=r"GRU.* has no time step"):
        model("GRU")(sequences(), timespans=torch.ones(6, 3))


def test_the_backend_is_handed_to_the_layers() -> None:
    built = Model(ModelSpec(2, 3, (Node("LipschitzRNN", 4),)), backend="fused")
    with pytest.raises(BackendError, match="LipschitzRNN has no fused scan"):
        built(torch.zeros(6, 3, 2))


@NETWORKS
def test_the_names_of_the_weights_are_those_that_files_have(network: str) -> None:
    nodes = (Node(network, 4, "a", num_layers=2), Node(network, 4, "b", inputs=("input", "a"), merge="concat"))
    names = list(Model(ModelSpec(2, 3, nodes, standardise=True)).state_dict())
    cells = [f"layers.{place}.{name}" for place in ("a.cells.0", "a.cells.1", "b.cells.0") for name in WEIGHTS[network]]
    assert names == ["input_mean", "input_scale", *cells, "readout.weight", "readout.bias"]


def test_the_steps_of_forward_make_forward() -> None:
    built, x = model(pool="mean", standardise=True), sequences()
    seen = {"input": built.prepare(x)}
    for node in built.spec.nodes:
        seen[node.name], _ = built.through(node, built.gather(node, seen), lengths=LENGTHS)
    pooled = built.pool(seen["layer0"], torch.tensor(LENGTHS))
    assert_close(built(x, lengths=LENGTHS)[0], built.readout(pooled), **tolerance.ROUNDING)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="backend must be one of auto, reference, fused, got 'cuda'"):
        Model(ModelSpec(2, 3, (Node("CoRNN", 4),)), backend="cuda")
