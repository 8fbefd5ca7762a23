"""LSTM and GRU against their twins in torch.nn."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import pendula
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


@pytest.mark.parametrize("width", [128, 256, 512])
def test_lstm_counts_are_the_published_ones(width: int) -> None:
    # baselines.md B11, ten classes: one bias vector there, two in PyTorch (4 N more)
    published = {128: 67_850, 256: 266_762, 512: 1_057_802}[width]
    model = pendula.Model(pendula.ModelSpec(1, 10, (pendula.Node("LSTM", width),)))
    assert model.parameter_count == published + 4 * width
