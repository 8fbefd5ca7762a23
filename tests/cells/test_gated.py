"""LSTM and GRU against their twins in torch.nn."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import pendula
from pendula.cells import GRUCell, LSTMCell
from pendula.cells.gated import GRUState, LSTMState
from tests import tolerance
from tests.contracts.layer import DIRECTIONS, LAYERS, LENGTHS, B, I, LayerContract, N, T, gradients, sequences, weigh


class TorchTwin(LayerContract):
    """A network that PyTorch has too."""

    twin: ClassVar[type[nn.RNNBase]]

    def pair(self, num_layers: int, bidirectional: bool) -> tuple[pendula.Recurrent, nn.RNNBase]:
        layer = self.layer(num_layers, bidirectional=bidirectional)
        twin = self.twin(I, N, num_layers, bidirectional=bidirectional, dtype=torch.float64)
        for index, cell in enumerate(layer.cells):
            depth, direction = divmod(index, layer.directions)
            for name, value in cell.rnn.state_dict().items():
                own = name.replace("_l0", f"_l{depth}") + "_reverse" * direction
                twin.get_parameter(own).data.copy_(value)
        return layer, twin

    def twin_state(self, state: Any) -> Any:
        return tuple(state) if len(state) > 1 else state[0]

    @LAYERS
    @DIRECTIONS
    def test_numbers_are_those_of_torch(self, num_layers: int, bidirectional: bool) -> None:
        layer, twin = self.pair(num_layers, bidirectional)
        x, state = sequences(), self.state(layer)
        outputs, final = layer(x, state)
        expected, last = twin(x, self.twin_state(state))
        assert_close(outputs, expected, **tolerance.ROUNDING)
        assert_close(tuple(final), last if isinstance(last, tuple) else (last,), **tolerance.ROUNDING)

    @LAYERS
    @DIRECTIONS
    def test_numbers_of_packed_sequences_are_those_of_torch(self, num_layers: int, bidirectional: bool) -> None:
        layer, twin = self.pair(num_layers, bidirectional)
        state = self.state(layer)
        packed = pack_padded_sequence(sequences(), torch.tensor(LENGTHS), enforce_sorted=False)
        outputs, final = layer(packed, state)
        expected, last = twin(packed, self.twin_state(state))
        assert_close(outputs.data, expected.data, **tolerance.ROUNDING)
        assert_close(tuple(final), last if isinstance(last, tuple) else (last,), **tolerance.ROUNDING)

    def test_gradients_are_those_of_torch(self) -> None:
        layer, twin = self.pair(1, False)
        x = sequences()
        weigh(layer(x)[0]).backward()
        weigh(twin(x)[0]).backward()
        assert_close(
            {n.removeprefix("cells.0.rnn."): g for n, g in gradients(layer).items()},
            gradients(twin),
            **tolerance.ROUNDING,
        )

    def test_there_are_as_many_parameters_as_in_torch(self) -> None:
        layer, twin = self.pair(2, True)
        assert sum(p.numel() for p in layer.parameters()) == sum(p.numel() for p in twin.parameters())

    def test_in_evaluation_gradients_flow_too(self) -> None:
        layer = self.layer().eval()
        weigh(layer(sequences(T, B))[0]).backward()
        assert all(p.grad is not None for p in layer.parameters())


class TestLSTM(TorchTwin):
    network = "LSTM"
    twin = nn.LSTM


class TestGRU(TorchTwin):
    network = "GRU"
    twin = nn.GRU


class TestLSTMWithChrono(LayerContract):
    network = "LSTM"
    physics: ClassVar = {"chrono": 20.0}
    # it also builds layers without biases, which chrono refuses; the shapes are those of TestLSTM
    test_shapes_are_those_of_torch_nn_lstm = None


class TestGRUWithChrono(LayerContract):
    network = "GRU"
    physics: ClassVar = {"chrono": 20.0}
    test_shapes_are_those_of_torch_nn_lstm = None


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def biases(cell: LSTMCell, gates: int) -> Tensor:
    """(gates, N) in PyTorch's order; the second vector must be zero."""
    assert not cell.rnn.get_parameter("bias_hh_l0").any()
    return cell.rnn.get_parameter("bias_ih_l0").detach().reshape(gates, -1)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """B10 of baselines.md: the u that chance gives."""
    u = double([1, 10, 783])

    def draw(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        return tensor.copy_(u) if tensor.shape == (3,) else tensor.zero_()

    monkeypatch.setattr(Tensor, "uniform_", draw)
    return u


def test_b10_chrono_starts_the_gates_of_an_lstm(drawn: Tensor) -> None:
    cell = LSTMCell(2, 3, chrono=784, dtype=torch.float64)
    i, f, g, o = biases(cell, 4)
    assert_close(f, double([0, 2.30258509299405, 6.6631326959908]), **tolerance.PRINTED_16)
    assert_close(i, -f, **tolerance.EXACT)
    assert not g.any()
    assert not o.any()
    # the weights are zero here too, so the cell state shows the forget gate
    state = cell.step(LSTMState(torch.zeros(1, 3).double(), torch.ones(1, 3).double()), torch.zeros(1, 2).double())
    forget = double([[0.5, 0.909090909090909, 0.998724489795918]])
    assert_close(state[1].detach(), forget, **tolerance.decimals(15))
    assert_close(torch.sigmoid(i), 1 / (1 + drawn), **tolerance.ROUNDING)


def test_b10_chrono_starts_the_update_gate_of_a_gru(drawn: Tensor) -> None:
    r, z, n = biases(GRUCell(2, 3, chrono=784, dtype=torch.float64), 3)
    assert_close(z, drawn.log(), **tolerance.ROUNDING)
    assert not r.any()
    assert not n.any()


def test_b10_an_update_gate_of_log_9_keeps_nine_tenths() -> None:
    cell = GRUCell(2, 3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.rnn.get_parameter("bias_ih_l0")[3:6] = math.log(9)
    _, state = pendula.scan(cell, torch.randn(10, 1, 2).double(), GRUState(torch.ones(1, 3).double()))
    assert_close(state[0].detach(), double([[0.3486784401] * 3]), **tolerance.ROUNDING)


@pytest.mark.parametrize("cell", [LSTMCell, GRUCell])
def test_chrono_draws_memories_up_to_the_longest(cell: type[LSTMCell]) -> None:
    gates = 3 if cell is GRUCell else 4
    u = biases(cell(1, 4096, chrono=101.0, dtype=torch.float64), gates)[1].exp()
    assert 1 <= u.min() < 1.2
    assert 99.8 < u.max() <= 100
    # five standard errors of a uniform mean
    assert u.mean().item() == pytest.approx(50.5, abs=5 * 99 / math.sqrt(12 * 4096))


def test_reset_starts_the_gates_anew() -> None:
    cell = LSTMCell(1, 64, chrono=50)
    before = biases(cell, 4)[1].clone()
    with torch.no_grad():
        cell.rnn.get_parameter("bias_hh_l0").fill_(1.0)
    cell.reset_parameters()
    after = biases(cell, 4)[1]
    assert not torch.equal(before, after)
    assert 0 <= after.min() < after.max() <= math.log(49)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chrono": 1.9}, "chrono must be at least 2, .*got 1.9"),
        ({"chrono": -3}, "chrono must be at least 2, .*got -3"),
        ({"chrono": float("nan")}, "chrono must be a finite number, got nan"),
        ({"chrono": "784"}, "chrono must be a finite number, got '784'"),
        ({"chrono": True}, "chrono must be a finite number, got True"),
        ({"chrono": 784, "bias": False}, "chrono starts the biases of the gates, and bias=False has none"),
    ],
)
def test_an_impossible_chrono_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pendula.LSTM(1, 2, **options)


@pytest.mark.parametrize("width", [128, 256, 512])
def test_lstm_counts_are_the_published_ones(width: int) -> None:
    # baselines.md B11, ten classes: one bias vector there, two in PyTorch (4 N more)
    published = {128: 67_850, 256: 266_762, 512: 1_057_802}[width]
    model = pendula.Model(pendula.ModelSpec(1, 10, (pendula.Node("LSTM", width),)))
    assert model.parameter_count == published + 4 * width


def test_the_count_of_torchs_lstm_is_the_published_one() -> None:
    # baselines.md B11: two bias vectors
    model = pendula.Model(pendula.ModelSpec(1, 10, (pendula.Node("LSTM", 128),)))
    assert model.parameter_count == 68_362
