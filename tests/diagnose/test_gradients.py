"""Gradients of states against the time lag: equal to those of a plain loop, honest verdicts, advice that helps."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CELLS, Cell
from pendula.diagnose import forward, probes
from pendula.diagnose.advice import advise
from pendula.diagnose.gradients import gradient_flow
from pendula.diagnose.reasons import RULES
from pendula.diagnose.verdict import FADED
from pendula.nets.spec import ModelSpec, Node
from pendula.tasks.base import Batch
from pendula.tasks.synthetic import Adding
from tests import tolerance

I, N, T, B = 2, 4, 13, 3
LENGTHS = torch.tensor([9, 13, 1])


def model(network: str, pool: str = "last", **options: Any) -> pendula.Model:
    return pendula.Model(ModelSpec(I, 2, (Node(network, N, **options),), pool=pool), dtype=torch.float64)


def batch(lengths: Tensor | None = None, timespans: Tensor | None = None, steps: int = T) -> Batch:
    return Batch(torch.randn(steps, B, I).double(), torch.randn(B, 2).double(), lengths, timespans)


def loss(output: Tensor, batch: Batch) -> Tensor:
    return (output - batch.y).square().mean()


def far_too_good(output: Tensor, batch: Batch) -> Tensor:
    return 1e-12 * loss(output, batch)


class Looped:
    """The same scan step by step in Python, every state kept on the tape."""

    def __init__(self) -> None:
        self.states: dict[str, list[tuple[Tensor, ...]]] = {}

    def __call__(
        self, place: forward.Place, cell: Cell, x: Tensor, lengths: Tensor | None, tau: Tensor | None, backend: str
    ) -> Tensor:
        steps, size = x.shape[:2]
        count = torch.full((size,), steps) if lengths is None else lengths
        state = cell.State(*(s + torch.zeros_like(s).requires_grad_() for s in cell.initial_state(size)))
        kept, outputs = [state], []
        for t in range(steps):
            drive = cell.drive(x[t : t + 1])[0]
            new = cell.step(state, drive, tau=None if tau is None else tau[t].unsqueeze(1))
            runs = (count > t).unsqueeze(1)
            state = cell.State(*(torch.where(runs, n, o) for n, o in zip(new, state, strict=True)))
            kept.append(state)
            outputs.append(torch.where(runs, cell.output(state, drive), 0))
        self.states[place.name] = kept
        return torch.stack(outputs)


def expected(network: forward.Network, given: Batch, value_of: Any = loss) -> dict[str, Tensor]:
    """Norms of dLoss/dstate after every step, from the first on: place -> (T + 1, B)."""
    looped = Looped()
    outputs = forward.outputs_of(network, given, looped)
    value = value_of(forward.read_out(network, outputs, given), given)
    found = {}
    for name, states in looped.states.items():
        flat = [s for state in states for s in state]
        slopes = torch.autograd.grad(value, flat, retain_graph=True, materialize_grads=True)
        fields = len(states[0])
        rows = [torch.cat(slopes[i : i + fields], -1).norm(dim=-1) for i in range(0, len(slopes), fields)]
        found[name] = torch.stack(rows)
    return found


def means(norms: Tensor, lags: tuple[int, ...], lengths: Tensor) -> list[float]:
    """The mean over the sequences that are as long as the lag."""
    rows = torch.arange(B)
    return [float(norms[(lengths - lag).clamp(min=0), rows][lengths >= lag].mean()) for lag in lags]


def agree(network: forward.Network, given: Batch, value_of: Any = loss) -> None:
    flow = gradient_flow(network, given, value_of, outputs="all")
    norms = expected(network, given, value_of)
    lengths = torch.full((B,), len(given.x)) if given.lengths is None else given.lengths
    assert [layer.name for layer in flow.layers] == list(norms)
    for layer in flow.layers:
        assert layer.lags[-1] == int(lengths.max())
        wanted = means(norms[layer.name], layer.lags, lengths)
        assert_close(torch.tensor(layer.mean).double(), torch.tensor(wanted).double(), **tolerance.ROUNDING)


@pytest.mark.parametrize("network", CELLS)
def test_they_are_those_of_a_loop_with_all_states_on_the_tape(network: str) -> None:
    agree(model(network), batch(LENGTHS))


@pytest.mark.parametrize("network", ["CoRNN", "LinOSS", "ODERNN"])
def test_time_spans_count(network: str) -> None:
    agree(model(network), batch(LENGTHS, 0.5 + torch.rand(T, B).double()))


@pytest.mark.parametrize("network", ["CoRNN", "URNN", "GRU"])
@pytest.mark.parametrize("pool", ["last", "mean", "steps"])
def test_a_lag_counts_the_steps_of_each_direction_and_layer(network: str, pool: str) -> None:
    def wide(output: Tensor, batch: Batch) -> Tensor:
        return output.square().mean() + output.sum()

    agree(model(network, pool, num_layers=2, bidirectional=True, residual=True), batch(LENGTHS), wide)


def test_a_graph_of_nodes_is_walked_as_the_model_walks_it() -> None:
    nodes = (
        Node("CoRNN", N, name="a", inputs=("input",)),
        Node("GRU", N, name="b", inputs=("input", "a")),
        Node("UnICORNN", N, name="c", inputs=("a", "b"), merge="sum"),
    )
    agree(pendula.Model(ModelSpec(I, 2, nodes, standardise=True), dtype=torch.float64), batch(LENGTHS))


@pytest.mark.parametrize("network", CELLS)
def test_the_walk_gives_the_predictions_of_the_model(network: str) -> None:
    net, given = model(network, num_layers=2, bidirectional=True, dropout=0.5), batch(LENGTHS)
    modes = {name: m.training for name, m in net.named_modules()}
    with forward.evaluating(net):
        walked = forward.read_out(net, forward.outputs_of(net, given, probes.Probes((0, 3, 13))), given)
        assert_close(walked, net(given.x, lengths=LENGTHS)[0], **tolerance.ROUNDING)
    assert modes == {name: m.training for name, m in net.named_modules()}


def test_many_pieces_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = model("CoRNN"), batch(torch.tensor([70, 40, 3]), steps=70)
    whole = gradient_flow(net, given, loss)
    monkeypatch.setattr(probes, "PIECE", 7)
    for a, b in zip(whole.layers, gradient_flow(net, given, loss).layers, strict=True):
        assert_close(torch.tensor(a.mean).double(), torch.tensor(b.mean).double(), **tolerance.ROUNDING)


def test_what_stands_in_the_padding_has_no_influence() -> None:
    net, given = model("CoRNN"), batch(LENGTHS, torch.rand(T, B).double() + 0.5)
    spoilt = replace(given, x=given.x.clone(), timespans=given.timespans.clone())
    for b, length in enumerate(LENGTHS.tolist()):
        spoilt.x[length:, b], spoilt.timespans[length:, b] = math.nan, math.nan
    assert gradient_flow(net, spoilt, loss) == gradient_flow(net, given, loss)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_by_default_they_come_back_from_the_last_outputs_alone(bidirectional: bool) -> None:
    net, given = model("CoRNN", "mean", bidirectional=bidirectional), batch(LENGTHS)
    ends = torch.arange(B), (LENGTHS - 1)

    def of_last(output: Tensor, batch: Batch) -> Tensor:
        return (output / LENGTHS.unsqueeze(1)).sum()

    def of_mean(output: Tensor, batch: Batch) -> Tensor:
        return output.sum()

    last = pendula.Model(replace(net.spec, pool="last"), dtype=torch.float64)
    last.load_state_dict(net.state_dict())
    found, wanted = gradient_flow(net, given, of_mean), gradient_flow(last, given, of_last)
    assert ends[0].numel() == B
    for a, b in zip(found.layers, wanted.layers, strict=True):
        assert_close(torch.tensor(a.mean).double(), torch.tensor(b.mean).double(), **tolerance.ROUNDING)
    assert found.layers != gradient_flow(net, given, of_mean, outputs="all").layers


def test_a_layer_alone_gives_its_outputs_to_the_loss() -> None:
    layer = pendula.LEM(I, N, num_layers=2, dtype=torch.float64)
    agree(layer, batch(), lambda y, _: y[-1].square().sum())
    assert [g.name for g in gradient_flow(layer, batch(), lambda y, _: y[-1].sum()).layers] == ["layer.0", "layer.1"]


def test_the_network_is_left_as_it_was() -> None:
    net, given = model("CoRNN", dropout=0.5), batch()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    gradient_flow(net.train(), given, loss, compare="LSTM")
    assert all(p.grad is None for p in net.parameters())
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_frozen_network_has_gradients_of_states_and_none_of_parameters() -> None:
    net, given = model("CoRNN"), batch(LENGTHS)
    wanted = gradient_flow(net, given, loss).layers[0]
    with torch.no_grad():
        found = gradient_flow(net.requires_grad_(False), given, loss).layers[0]
    assert found == replace(wanted, parameter=None)


def test_tokens_pass_through_the_embedding() -> None:
    net = pendula.Model(ModelSpec(I, 2, (Node("CoRNN", N),), vocabulary=9), dtype=torch.float64)
    given = Batch(torch.randint(1, 9, (T, B)), torch.randn(B, 2).double(), LENGTHS)
    agree(net, given)


ADDING = {"dt": 0.06, "gamma": 66.0, "epsilon": 15.0, "init": "concat"}
"""The authors' adding script: spec sheet cornn.md 4.5 and 4.8."""


def adding(network: str, units: int = 128, steps: int = 100, **physics: Any) -> tuple[pendula.Model, Batch, Adding]:
    task = Adding(steps)
    net = pendula.Model(ModelSpec(2, 1, (Node(network, units, physics=physics),)))
    return net, next(task.batches("train", 20)), task


def test_the_adding_problem_of_cornn_starts_with_gradients_of_1e_14() -> None:
    net, given, task = adding("CoRNN", **ADDING)
    (layer,) = gradient_flow(net, given, task.loss).layers
    assert layer.verdict == "vanishing"
    # the sheet measured 2e-14 on one draw, for a random read-out
    assert 2e-15 < layer.remains < 2e-13
    assert layer.slope == pytest.approx(math.log(0.724344), rel=0.05)
    assert layer.memory < 40
    for words in ("vanishing", "lost in float32", "Adam's eps of 1e-08"):
        assert words in layer.sentence


def test_with_the_values_recalled_for_5000_steps_they_underflow_and_are_said_to() -> None:
    net, given, task = adding("CoRNN", 32, 3000, dt=0.016, gamma=94.5, epsilon=9.5)
    (layer,) = gradient_flow(net, Batch(given.x[:, :2], given.y[:2]), task.loss).layers
    assert layer.verdict == "vanishing"
    assert layer.underflow_from in layer.lags
    assert f"From {layer.underflow_from} steps on it is too small" in layer.sentence
    # what is left of numbers below the smallest normal one is no slope
    assert layer.slope == pytest.approx(math.log(0.920869), rel=0.1)


def test_of_psmnist_they_are_steady() -> None:
    net, given, task = adding("CoRNN", steps=784, dt=0.076, gamma=0.4, epsilon=8.0, init="concat")
    (layer,) = gradient_flow(net, Batch(given.x[:, :2], given.y[:2]), task.loss).layers
    # the sheet measured 0.41 with 256 units on its data
    assert layer.remains > 0.1
    assert (layer.verdict, layer.reaches) == ("steady", True)


def test_of_undamped_oscillators_they_are_steady_however_many_layers() -> None:
    # in a lower layer they grow like a power of the lag, which is no explosion (unicornn.md 4.7)
    net = model("UnICORNN", num_layers=3, physics={"dt": 0.002, "alpha": 0.0})
    given = batch(steps=300)
    flow = gradient_flow(net, given, loss)
    assert [g.verdict for g in flow.layers] == ["steady"] * 3
    first = flow.layers[0]
    assert first.median[-1] > 1e6 * first.median[0]
    assert any("residual=True" in a.what for a in advise(net, flow))


def grower(by: float) -> pendula.Model:
    net = model("Elman")
    with torch.no_grad():
        cell: Any = net.layers["layer0"].cell(0)
        cell.W.copy_(by * torch.eye(N))
        cell.V.mul_(1e-8)
    return net


def test_a_network_that_doubles_every_change_explodes() -> None:
    (layer,) = gradient_flow(grower(1.4), batch(steps=40), loss).layers
    assert layer.verdict == "exploding"
    assert layer.slope == pytest.approx(math.log(1.4), rel=1e-3)
    assert layer.memory == 40


def stretching(steps: int) -> tuple[pendula.Recurrent, Batch]:
    layer = pendula.IRNN(I, N, dtype=torch.float64)
    with torch.no_grad():
        layer.cell(0).W.copy_(1e30 * torch.eye(N))
        layer.cell(0).V.abs_()
    return layer, Batch(torch.full((steps, B, I), 1e-300, dtype=torch.float64), torch.zeros(B))


def test_an_overflow_is_said_to_be_one() -> None:
    layer, given = stretching(15)
    flow = gradient_flow(layer, given, lambda y, _: y[-1].sum())
    assert flow.layers[0].verdict == "not finite"
    # 1e30^10 is the last power that float64 holds
    assert "at a lag of 11 steps" in flow.layers[0].sentence
    assert any("clip" in a.what for a in advise(layer, flow))
    json.dumps(flow.to_dict(), allow_nan=False)


def test_a_loss_that_is_no_number_is_no_vanishing_gradient() -> None:
    layer, given = stretching(40)
    flow = gradient_flow(layer, given, lambda y, _: y[-1].sum())
    assert not math.isfinite(flow.loss)
    assert flow.layers[0].verdict == "not finite"


@pytest.mark.parametrize("network", CELLS)
def test_weights_that_are_no_numbers_are_reported_and_break_nothing(network: str) -> None:
    net = model(network)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(math.nan)
    flow = gradient_flow(net, batch(), loss)
    assert flow.layers[0].verdict == "not finite"
    assert any("before" in a.what for a in advise(net, flow))


def test_their_squares_may_leave_the_range_of_numbers() -> None:
    (layer,) = gradient_flow(grower(1e-20), batch(steps=12), loss).layers
    assert layer.median[-1] > 0
    assert layer.slope == pytest.approx(math.log(1e-20), rel=1e-2)


def test_a_network_that_nothing_reads_has_no_gradients_and_no_verdict_of_memory() -> None:
    net = model("CoRNN")
    torch.nn.init.zeros_(net.readout.weight)
    (layer,) = gradient_flow(net, batch(), loss).layers
    assert (layer.verdict, layer.memory, layer.remains, layer.underflow_from) == ("zero", 0, 0.0, 0)


def test_gradients_of_parameters_below_adams_eps_are_said_to_be() -> None:
    net, given = model("UnICORNN"), batch()
    flow = gradient_flow(net, given, far_too_good)
    wanted = torch.autograd.grad(far_too_good(net(given.x)[0], given), list(net.layers.parameters()))
    assert flow.layers[0].parameter == pytest.approx(max(float(g.abs().max()) for g in wanted), rel=1e-9)
    assert "below Adam's eps" in flow.layers[0].sentence
    assert any("loss larger" in a.what for a in advise(net, flow))


def test_the_effective_memory_is_where_a_thousandth_is_left() -> None:
    net = grower(0.5)
    (layer,) = gradient_flow(net, batch(steps=40), loss, samples=40).layers
    # 2^-9 > 1e-3 > 2^-10
    assert layer.memory == 9
    assert layer.remains == pytest.approx(0.5**40, rel=1e-6)


def test_it_is_compared_with_an_lstm_of_the_same_width() -> None:
    net, given, task = adding("UnICORNN", 16)
    given = replace(given, timespans=torch.ones(given.x.shape[:2]))
    flow = gradient_flow(net, given, task.loss, compare="LSTM")
    assert flow.rival is not None
    assert [(g.network, g.state_size, g.verdict) for g in flow.rival.layers] == [("LSTM", 32, "vanishing")]
    assert "LSTM of the same width" in " ".join(flow.sentences)
    assert flow == gradient_flow(net, given, task.loss, compare="LSTM")


def test_the_result_is_plain_data() -> None:
    flow = gradient_flow(model("CoRNN"), batch(LENGTHS), loss, compare="GRU")
    data = json.loads(json.dumps(flow.to_dict(), allow_nan=False))
    assert data["layers"][0]["lags"] == list(flow.layers[0].lags)
    assert data["layers"][0]["sentence"] == flow.layers[0].sentence
    assert data["layers"][0]["sequences"] == [int((lag <= LENGTHS).sum()) for lag in flow.layers[0].lags]
    assert data["rival"]["layers"][0]["network"] == "GRU"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outputs": "final"}, "outputs must be one of last, all, got 'final'"),
        ({"samples": 1}, "samples must be a whole number, at least 2, got 1"),
        ({"compare": "lstm"}, "did you mean 'LSTM'"),
        ({"loss": lambda y, _: y}, "one number that depends on the prediction, got \\(3, 2\\)"),
        ({"loss": lambda y, _: y.detach().sum()}, "got one without a gradient"),
        ({"loss": lambda y, _: 1.0}, "got float"),
        ({"network": torch.nn.Linear(2, 2)}, "pendula.Model or a layer .* got Linear"),
        ({"batch": batch(timespans=torch.zeros(T, B))}, "timespans must be positive"),
    ],
)
def test_what_it_cannot_use_it_refuses(change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"network": model("CoRNN"), "batch": batch(), "loss": loss, **change}
    with pytest.raises(ValueError, match=words):
        gradient_flow(**arguments)


# --- advice


def test_there_is_no_advice_on_gradients_that_need_none() -> None:
    for network in ("CoRNN", "UnICORNN", "LEM", "LSTM"):
        net = model(network)
        assert advise(net, gradient_flow(net, batch(steps=5), loss)) == ()


@pytest.mark.parametrize("name", ["gamma", "dt", "epsilon"])
def test_following_the_advice_on_cornn_the_gradients_reach_the_start(name: str) -> None:
    net, given, task = adding("CoRNN", 32, **ADDING)
    flow = gradient_flow(net, given, task.loss)
    first = advise(net, flow)[0]
    assert "0.7243^100 = 9.9e-15" in first.because
    assert f"{flow.layers[0].remains:.2g} of the gradient is left" in first.because
    value = float(first.what.split(f"{name} at most ")[1].split()[0].rstrip(","))
    better, _, _ = adding("CoRNN", 32, **{**ADDING, name: value * 0.98})
    assert gradient_flow(better, given, task.loss).layers[0].verdict == "steady"


@pytest.mark.parametrize(
    ("network", "physics", "better"),
    [
        ("LSTM", {}, {"chrono": 300}),
        ("GRU", {}, {"chrono": 300}),
        ("LEM", {}, {"dt": 0.045}),
        ("AntisymmetricRNN", {"gamma": 0.3}, {"gamma": 0.07}),
        ("FastRNN", {}, {"beta": 3.75, "alpha": -3.75}),
        ("LinOSS", {"discretisation": "im", "dt": 10.0}, {"discretisation": "imex"}),
        ("DLinOSS", {"r_min": 0.5, "r_max": 0.6}, {"r_min": 0.98, "r_max": 1.0}),
        ("ODERNN", {"dt": 1.0}, {"dt": 0.02}),
        ("QUNN", {}, {"lags": 1}),
    ],
)
def test_what_is_advised_is_what_helps(network: str, physics: dict[str, Any], better: dict[str, Any]) -> None:
    net, given, task = adding(network, 16, 300, **physics)
    given = Batch(given.x[:, :4], given.y[:4])
    flow = gradient_flow(net, given, task.loss)
    assert flow.layers[0].verdict == "vanishing"
    said = advise(net, flow)[0]
    assert next(iter(better)) in said.what
    assert said.source
    helped, _, _ = adding(network, 16, 300, **{**physics, **better})
    after = gradient_flow(helped, given, task.loss).layers[0]
    assert after.verdict == "steady" or after.remains > 1e6 * flow.layers[0].remains


def test_a_shrinking_matrix_is_told_its_margin() -> None:
    net = model("SpectralRNN", physics={"margin": 0.5})
    with torch.no_grad():
        net.layers["layer0"].cell(0).factorise_(0.6 * torch.eye(N))
    (said,) = advise(net, gradient_flow(net, batch(steps=100), loss))
    assert said.what == "take margin at most 0.067"
    assert "the smallest singular value of W, 0.6" in said.because


def test_growing_cornn_is_told_how_fast_it_may_grow() -> None:
    net = model("CoRNN", physics={"dt": 0.2, "gamma": 0.1, "epsilon": 0.5})
    with torch.no_grad():
        net.layers["layer0"].cell(0).W.copy_(6 * torch.eye(N))
        net.layers["layer0"].cell(0).b.zero_()
        net.layers["layer0"].cell(0).V.mul_(1e-9)
    flow = gradient_flow(net, batch(steps=40), loss)
    assert flow.layers[0].verdict == "exploding"
    assert [a.source.split(",")[0] for a in advise(net, flow)][1] == "cornn.md 4.7"


def test_a_runaway_oscillator_is_told_its_stiffness() -> None:
    net = model("UnICORNN", physics={"alpha": 0.0, "dt": 0.5})
    with torch.no_grad():
        net.layers["layer0"].cell(0).w.fill_(-2.0)
        net.layers["layer0"].cell(0).V.mul_(1e-12)
    flow = gradient_flow(net, batch(steps=60), loss)
    assert flow.layers[0].verdict == "exploding"
    assert any("alpha at least 2" in a.what for a in advise(net, flow))


def test_oscillators_too_stiff_for_their_readout_are_named() -> None:
    net, given, task = adding("CoRNN", 32, **ADDING)
    said = [a for a in advise(net, gradient_flow(net, given, task.loss)) if "gain" in a.what]
    assert [a.what for a in said] == ["let what reads this layer have a gain of order 66"]


def test_a_unitary_network_is_sent_to_its_learning_rate() -> None:
    net = model("URNN")
    (said,) = advise(net, gradient_flow(net, batch(steps=40), loss))
    assert "learning rate" in said.what
    assert said.to_dict()["sentence"] == said.sentence


def test_a_rule_names_a_network_that_there_is() -> None:
    assert set(RULES) <= set(CELLS)


def test_every_advice_has_a_number_in_its_reason() -> None:
    for network in CELLS:
        net = model(network)
        for said in advise(net, gradient_flow(net, batch(steps=60), loss)):
            assert any(c.isdigit() for c in said.because)


def test_thresholds_are_those_that_are_written_down() -> None:
    (layer,) = gradient_flow(grower((1.01 * FADED) ** (1 / 40)), batch(steps=40), loss).layers
    (below,) = gradient_flow(grower((0.99 * FADED) ** (1 / 40)), batch(steps=40), loss).layers
    assert (layer.verdict, below.verdict) == ("steady", "vanishing")
