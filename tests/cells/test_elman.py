"""Elman's network and IRNN: the contract, and PyTorch's own as a twin."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import pendula
from pendula.cells import ElmanCell, IRNNCell
from tests import tolerance
from tests.contracts.layer import LENGTHS, B, I, LayerContract, N, sequences


class PlainNetwork(LayerContract):
    """A network that PyTorch has too, but with two bias vectors."""

    nonlinearity: ClassVar[str]

    @pytest.mark.parametrize("backend", ["reference", "fused"])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("lengths", [None, LENGTHS])
    def test_numbers_are_those_of_torch(self, backend: str, bias: bool, lengths: Any) -> None:
        layer = self.layer(bias=bias, backend=backend)
        twin = nn.RNN(I, N, nonlinearity=self.nonlinearity, bias=bias, dtype=torch.float64)
        cell = layer.cells[0]
        with torch.no_grad():
            twin.weight_ih_l0.copy_(cell.V)
            twin.weight_hh_l0.copy_(cell.W)
            if bias:
                twin.bias_ih_l0.copy_(cell.b)
                twin.bias_hh_l0.zero_()
        x, state = sequences(), self.state(layer)
        outputs, final = layer(x, state, lengths=lengths)
        if lengths is None:
            expected, last = twin(x, state.h)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
            expected, last = twin(packed, state.h)
            expected, _ = nn.utils.rnn.pad_packed_sequence(expected, total_length=len(x))
        assert_close(outputs, expected, **tolerance.ROUNDING)
        assert_close(final.h, last, **tolerance.ROUNDING)


class TestElman(PlainNetwork):
    network = "Elman"
    nonlinearity = "tanh"


class TestIRNN(PlainNetwork):
    network = "IRNN"
    nonlinearity = "relu"

    @pytest.fixture(autouse=True)
    def _awake(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every unit is on, or it would have no gradient; and W is not the identity, which is its own transpose."""
        born = IRNNCell.reset_parameters

        def awake(cell: IRNNCell) -> None:
            born(cell)
            with torch.no_grad():
                cell.W.add_(0.2 / cell.hidden_size * torch.randn(cell.W.shape).to(cell.W))
                cell.V.mul_(0.03)
                if cell.b is not None:
                    cell.b.add_(1.0)

        monkeypatch.setattr(IRNNCell, "reset_parameters", awake)


def test_an_irnn_starts_by_adding_up_its_input() -> None:
    cell = IRNNCell(3, 5, dtype=torch.float64)
    assert_close(cell.W.detach(), torch.eye(5).double(), **tolerance.EXACT)
    with torch.no_grad():
        cell.V.abs_()
        x = torch.rand(50, 2, 3).double()
        outputs, _ = pendula.scan(cell, x)
        assert_close(outputs, (x @ cell.V.T).cumsum(0), **tolerance.ROUNDING)


def test_an_elman_network_by_hand() -> None:
    cell = ElmanCell(1, 2, dtype=torch.float64)
    with torch.no_grad():
        cell.V.copy_(torch.tensor([[0.5], [-1.0]]))
        cell.W.copy_(torch.tensor([[0.1, 0.2], [0.3, -0.4]]))
        cell.b.copy_(torch.tensor([0.25, 0.75]))
        x = torch.tensor([1.0, -0.5]).double()
        first = torch.tanh(torch.tensor([0.75, -0.25]).double())
        second = torch.tanh(cell.W @ first + torch.tensor([0.0, 1.25]).double())
        outputs, _ = pendula.scan(cell, x.reshape(2, 1, 1))
    assert_close(outputs[:, 0], torch.stack((first, second)), **tolerance.ROUNDING)


@pytest.mark.parametrize("cell", [ElmanCell, IRNNCell])
def test_starting_distributions(cell: type[ElmanCell]) -> None:
    made = cell(7, 512)
    weights = [(made.V, (6 / 519) ** 0.5)] + ([(made.W, (6 / 1024) ** 0.5)] if cell is ElmanCell else [])
    for weight, bound in weights:
        assert 0.99 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)
    assert made.b is not None
    assert not made.b.any()


@pytest.mark.parametrize("network", ["Elman", "IRNN"])
def test_the_count_is_that_of_the_code_of_urnn_but_for_its_trained_start(network: str) -> None:
    # urnn.md 7.2: 17 025 for the adding problem, h_0 (128) among them, which is zero here
    model = pendula.Model(pendula.ModelSpec(2, 1, (pendula.Node(network, 128),)))
    assert model.parameter_count == 17_025 - 128


@pytest.mark.parametrize("network", ["Elman", "IRNN"])
def test_both_are_of_order_one_in_nonlinearity_and_memory(network: str) -> None:
    assert pendula.CELLS[network](I, N).order() == (1, 1)


@pytest.mark.parametrize("cell", [ElmanCell, IRNNCell])
def test_there_is_no_time_step(cell: type[ElmanCell]) -> None:
    made = cell(I, N)
    with pytest.raises(ValueError, match=r"no time step"):
        made.step(made.initial_state(B), torch.zeros(B, N), tau=torch.ones(B, 1))


@pytest.mark.parametrize("network", ["Elman", "IRNN"])
def test_one_unit_is_enough(network: str) -> None:
    assert pendula.LAYERS[network](1, 1)(torch.randn(4, 2, 1))[0].shape == (4, 2, 1)
