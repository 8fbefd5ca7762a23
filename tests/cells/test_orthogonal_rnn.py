"""expRNN, scoRNN and the real EURNN: oracles B1, B2 and the counts of the spec sheet baselines.md."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula import Model, ModelSpec, Node, scan
from pendula.cells import ExpRNNCell, RealEURNNCell, ScoRNNCell
from pendula.learn.geodesic import make_optimiser
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import LayerContract, sequences

PRINTED = {"rtol": 1e-13, "atol": 1e-15}
"""Sheet numbers with 15 digits, a few operations from their input."""


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


UPPER = det((4, 4), 0.2, 1)[tuple(torch.triu_indices(4, 4, 1))]


def test_b1_cell() -> None:
    expected = [-0.40934279719731, 0.72889426596425, 0.38669872207132, -0.0414282782710302]
    cell = ExpRNNCell(1, 4, dtype=torch.float64)
    with torch.no_grad():
        cell.W.A.copy_(UPPER)
        cell.V.copy_(det((1, 4), 0.4, 0.5).T)
        cell.b.copy_(det((4,), 0.5, 0.05))
        (new,) = cell.step(cell.State(det((1, 4), 0.3, 0.5)), cell.drive(double([[[0.7]]]))[0])
    assert_close(new[0], double(expected), **PRINTED)


def row_form(cell: Any, h: Tensor, x: Tensor) -> Tensor:
    a = h @ cell.W.dense() + x @ cell.V.T
    return torch.sign(a) * torch.relu(a.abs() + cell.b)


@pytest.mark.parametrize("make", [ExpRNNCell, ScoRNNCell])
def test_the_cell_is_the_row_form_of_the_sheet(make: Any) -> None:
    cell, x = make(2, 5, dtype=torch.float64), sequences(7)
    h = torch.zeros(3, 5).double()
    with torch.no_grad():
        cell.b.uniform_(-0.1, 0.1)
        cell.V.uniform_(-1, 1)
        outputs, _ = scan(cell, x)
        for u, out in zip(x, outputs, strict=True):
            h = row_form(cell, h, u)
            assert_close(out, h, **tolerance.ROUNDING)
    assert (outputs == 0).any()


def count(network: str, units: int, **physics: Any) -> int:
    """Trained numbers with a read-out of ten classes of one feature."""
    model = Model(ModelSpec(1, 10, (Node(network, units, physics=physics),)), device="meta")
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("network", ["ExpRNN", "ScoRNN"])
@pytest.mark.parametrize(("units", "numbers"), [(170, 16415), (360, 68950), (512, 136970)])
def test_counts(network: str, units: int, numbers: int) -> None:
    assert count(network, units) == numbers == units * (units - 1) // 2 + 2 * units + 10 * units + 10


def test_b11_the_count_of_the_real_eurnn() -> None:
    assert count("RealEURNN", 1024, capacity=2) == 13321 == 1023 + 1024 + 1024 + 10250


def test_b11_a_butterfly_has_half_n_angles_in_each_layer() -> None:
    assert RealEURNNCell(1, 16, pairing="fft").W.theta.numel() == 8 * 4


@pytest.mark.parametrize("make", [ExpRNNCell, ScoRNNCell, RealEURNNCell])
def test_p5_without_input_and_bias_the_norm_stays(make: Any) -> None:
    cell = make(2, 7, False, dtype=torch.float64)
    start = cell.State(torch.randn(3, 7).double())
    with torch.no_grad():
        outputs, _ = scan(cell, torch.zeros(200, 3, 2).double(), start)
    assert_close(outputs.norm(dim=-1), start.h.norm(dim=-1).expand(200, 3), rtol=1e-12, atol=0)


@pytest.mark.parametrize("make", [ExpRNNCell, ScoRNNCell, RealEURNNCell])
def test_gradients_do_not_grow_where_no_bias_is_positive(make: Any) -> None:
    cell = make(2, 7, dtype=torch.float64)
    torch.nn.init.uniform_(cell.b, -0.3, -0.01)
    torch.nn.init.uniform_(cell.V, -1, 1)
    states = [cell.State(torch.randn(1, 7).double().requires_grad_())]
    for drive in cell.drive(torch.randn(30, 1, 2).double()):
        states.append(cell.step(states[-1], drive))
        states[-1].h.retain_grad()
    states[-1].h.sum().backward()
    norms = torch.stack([s.h.grad.norm() for s in states])
    assert (norms[:-1] <= norms[1:] * (1 + tolerance.BOUND)).all()


def test_the_starting_distributions() -> None:
    exp, sco = ExpRNNCell(50, 2000), ScoRNNCell(50, 400)
    assert exp.V.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.02)
    assert 0.0099 < exp.b.abs().max().item() <= 0.01
    assert 0.0099 < sco.V.abs().max().item() <= 0.01
    assert not sco.b.any()
    assert not any(s.any() for cell in (exp, sco) for s in cell.initial_state(2))
    assert (sco.W.D == -1).sum() == 200
    assert torch.count_nonzero(exp.W.A) == 1000


def test_real_eurnn_takes_the_modulus_with_its_offset_above_and_below() -> None:
    cell = RealEURNNCell(2, 4, dtype=torch.float64)
    torch.nn.init.uniform_(cell.b, -0.2, 0.2)
    torch.nn.init.uniform_(cell.V, -1, 1)
    h, drive = torch.randn(3, 4).double(), cell.drive(sequences(1))[0]
    z = h @ cell.W.dense().mT + drive
    size = z.abs() + 0.01
    assert_close(cell.step(cell.State(h), drive).h, torch.relu(size + cell.b) * z / size, **tolerance.ROUNDING)


def test_rebasing_between_steps_leaves_the_numbers() -> None:
    cell, x = ExpRNNCell(2, 5, init="henaff", dtype=torch.float64), sequences()
    before, _ = scan(cell, x)
    cell.W.rebase()
    after, _ = scan(cell, x)
    assert_close(after, before, **tolerance.ROUNDING)


@pytest.mark.parametrize("network", ["ExpRNN", "ScoRNN"])
def test_the_skew_matrix_learns_at_a_tenth_of_the_rate(network: str) -> None:
    layer = pendula.LAYERS[network](2, 4, 2)
    slow = {p for cell in layer.cells for p in cell.W.parameters()}
    for group in make_optimiser(layer, "rmsprop", lr=1e-3).param_groups:
        assert group["lr"] == pytest.approx(1e-4 if set(group["params"]) & slow else 1e-3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ExpRNNCell(2, 3, init="haar"), "init must be one of henaff, cayley, got 'haar'"),
        (lambda: ExpRNNCell(2, 3, eps=-1.0), "eps must be at least 0, got -1.0"),
        (lambda: ExpRNNCell(2, 3, bias_range=float("nan")), "bias_range must be a finite number"),
        (lambda: ExpRNNCell(2, True), "hidden_size must be a whole number"),
        (lambda: ScoRNNCell(2, 3, rho=4), "rho must be at most the 3 units, got 4"),
        (lambda: RealEURNNCell(2, 1), "rotations need at least 2 units, got 1"),
        (lambda: RealEURNNCell(2, 3, pairing="fft"), "needs 2, 4, 8, ... units, got 3"),
    ],
)
def test_impossible_arguments_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("make", [ExpRNNCell, ScoRNNCell])
def test_one_unit_is_enough(make: Any) -> None:
    outputs, _ = scan(make(1, 1), torch.randn(5, 2, 1))
    assert outputs.shape == (5, 2, 1)
    outputs.sum().backward()


@pytest.mark.parametrize("make", [ExpRNNCell, ScoRNNCell, RealEURNNCell])
def test_tau_is_refused(make: Any) -> None:
    cell = make(2, 4)
    with pytest.raises(ValueError, match="has no time step, so tau"):
        cell.step(cell.initial_state(1), torch.zeros(1, 4), tau=torch.ones(1, 1))


class LivelyContract(LayerContract):
    """Some units die, most don't; inputs that a second layer can see."""

    def layer(self, *arguments: Any, **options: Any) -> pendula.Recurrent:
        layer = super().layer(*arguments, **options)
        for cell in layer.cells:
            torch.nn.init.uniform_(cell.V, -0.7, 0.7)
            if cell.b is not None:
                torch.nn.init.uniform_(cell.b, -0.03, 0.03)
        return layer


# bias_range 0: a unit that is dead at the start would make 0 / 0 of the mask that a test divides out


class TestExpRNN(LivelyContract):
    network = "ExpRNN"
    physics: ClassVar = {"bias_range": 0.0}


class TestExpRNNHenaff(LivelyContract):
    network = "ExpRNN"
    physics: ClassVar = {"init": "henaff", "bias_range": 0.0}


class TestScoRNN(LivelyContract):
    network = "ScoRNN"
    physics: ClassVar = {"rho": 1}


class TestRealEURNN(LivelyContract):
    network = "RealEURNN"
    physics: ClassVar = {"capacity": 2}
