"""FastRNN and FastGRNN: B6 and section 1.6 of the spec sheet baselines.md."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula import FastGRNN, FastRNN, Model, ModelSpec, Node, scan
from pendula.cells import FastGRNNCell, FastRNNCell
from pendula.cells.fast import FastState
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import LayerContract, sequences

CELLS = pytest.mark.parametrize("cell_type", [FastRNNCell, FastGRNNCell])


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("cell_type", "expected"),
    [
        (FastRNNCell, [0.22146267202902, 0.511233779895264, 0.36397461166474]),
        (FastGRNNCell, [0.305651182437469, 0.539094853633712, 0.414473509649922]),
    ],
)
def test_b6_step(cell_type: Any, expected: list[float]) -> None:
    # biases start at 1, the scalars at -3, 3 and 1, -4
    cell = cell_type(2, 3, dtype=torch.float64)
    with torch.no_grad():
        # the sheet has states as rows
        cell.W.copy_(det((2, 3), 0.1, 0.5).T)
        cell.U.copy_(det((3, 3), 0.2, 0.5).T)
        (h,) = cell.step((det((1, 3), 0.4, 0.5),), cell.drive(double([[[0.3, -0.6]]]))[0])
    assert_close(h, double([expected]), **tolerance.PRINTED_16)


@CELLS
def test_low_rank_is_the_product_of_two_thin_matrices(cell_type: Any) -> None:
    thin, full = (cell_type(2, 5, dtype=torch.float64, **ranks) for ranks in ({"rank_w": 1, "rank_u": 2}, {}))
    assert [tuple(p.shape) for p in (thin.W_1, thin.W_2, thin.U_1, thin.U_2)] == [(5, 1), (2, 1), (5, 2), (5, 2)]
    with torch.no_grad():
        full.W.copy_(thin.W_1 @ thin.W_2.T)
        full.U.copy_(thin.U_1 @ thin.U_2.T)
    x = sequences()
    assert_close(scan(full, x), scan(thin, x), **tolerance.ROUNDING)


@pytest.mark.parametrize(
    ("network", "physics", "count"),
    [
        # W, U, biases, two scalars, and the read-out of 10 classes
        ("FastRNN", {}, 128 + 128**2 + 128 + 2 + 1290),
        ("FastGRNN", {}, 128 + 128**2 + 2 * 128 + 2 + 1290),
        ("FastGRNN", {"rank_w": 1, "rank_u": 30}, (128 + 1) + 2 * 30 * 128 + 2 * 128 + 2 + 1290),
    ],
)
def test_parameter_counts_with_readout(network: str, physics: dict[str, Any], count: int) -> None:
    assert Model(ModelSpec(1, 10, (Node(network, 128, physics=physics),))).parameter_count == count


def test_the_full_fastgrnn_has_the_published_size() -> None:
    # 71 KB at 4 bytes a number; the 6 KB of the other are thresholded and quantised
    count = Model(ModelSpec(1, 10, (Node("FastGRNN", 128),))).parameter_count
    assert round(4 * count / 1024) == 71


# --- gradients through time


def chain(cell: FastRNNCell, x: Tensor, h: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The matrix that takes the gradient of the last state to the first, by autograd, and U^T D_k of each step."""
    drives, factors = cell.drive(x), []

    def last(h: Tensor) -> Tensor:
        for d in drives:
            (h,) = cell.step((h,), d)
        return h

    whole = torch.autograd.functional.jacobian(last, h)
    assert isinstance(whole, Tensor)
    with torch.no_grad():
        for d in drives:
            slopes = 1 - torch.tanh(d + h @ cell.U.T) ** 2
            factors.append(cell.U.T * slopes)
            (h,) = cell.step((h,), d)
    return whole.reshape(h.shape[-1], -1).T, factors


def random_cell(units: int, alpha: float, beta: float) -> FastRNNCell:
    cell = FastRNNCell(2, units, alpha=alpha, beta=beta, dtype=torch.float64)
    with torch.no_grad():
        cell.U.copy_(torch.randn(units, units))
    return cell


@pytest.mark.parametrize("alpha", [-3.0, 0.5])
def test_the_gradient_chain_is_the_product_of_its_factors(alpha: float) -> None:
    cell = random_cell(4, alpha, 1.0)
    whole, factors = chain(cell, torch.randn(12, 1, 2).double(), 0.3 * torch.randn(1, 4).double())
    a, b = torch.sigmoid(cell.alpha.detach()), torch.sigmoid(cell.beta.detach())
    product = torch.eye(4).double()
    for factor in factors:
        product = product @ (a * factor + b * torch.eye(4).double())
    assert_close(whole, product, **tolerance.ROUNDING)


def condition_bound(ratio: float, spread: float, steps: int) -> float:
    return float(((1 + ratio * spread) / (1 - ratio * spread)) ** steps)


@pytest.mark.parametrize("alpha", [-5.0, -4.0])
def test_the_condition_of_the_chain_stays_below_its_bound(alpha: float) -> None:
    for _ in range(5):
        cell = random_cell(6, alpha, 3.0)
        whole, factors = chain(cell, torch.randn(20, 1, 2).double(), 0.3 * torch.randn(1, 6).double())
        spread = max(float(torch.linalg.matrix_norm(f, 2)) for f in factors)
        ratio = float((torch.sigmoid(cell.alpha) / torch.sigmoid(cell.beta)).detach())
        assert ratio * spread < 1
        assert 1 < torch.linalg.cond(whole) <= condition_bound(ratio, spread, 20) * (1 + tolerance.BOUND)


@pytest.mark.parametrize("steps", [10, 100, 400])
def test_with_a_share_of_one_in_t_the_condition_does_not_grow_with_the_length(steps: int) -> None:
    cell = random_cell(6, 0.0, 0.0)
    # at least the spread of any factor, since slopes are at most 1
    spread = float(torch.linalg.matrix_norm(cell.U.detach(), 2))
    share = 1 / (steps * spread)
    with torch.no_grad():
        cell.alpha.fill_(math.log(share / (1 - share)))
        # sigmoid(beta) = 1 - sigmoid(alpha)
        cell.beta.fill_(-cell.alpha)
    whole, _ = chain(cell, torch.randn(steps, 1, 2).double(), torch.zeros(1, 6).double())
    bound = condition_bound(share / (1 - share), spread, steps)
    assert torch.linalg.cond(whole) <= bound * (1 + tolerance.BOUND)
    # it tends to e^2
    assert bound < math.exp(2) * (1 + 2 / steps)


def test_at_the_default_start_a_fastrnn_is_a_mean_and_stays_within_one() -> None:
    cell = FastRNNCell(2, 5, dtype=torch.float64)
    assert_close(torch.sigmoid(cell.alpha) + torch.sigmoid(cell.beta), double(1.0), **tolerance.ROUNDING)
    with torch.no_grad():
        outputs, _ = scan(cell, 1000 * sequences(300).abs())
    assert 0.9 < outputs.abs().max() <= 1 + tolerance.BOUND


# --- starting weights, options and refusals


@CELLS
def test_starting_weights(cell_type: Any) -> None:
    cell = cell_type(256, 256, rank_w=128)
    for weight in (cell.W_1, cell.W_2, cell.U):
        # 32 768 numbers or more: five standard errors of a standard deviation are 2 %
        assert float(weight.detach().std()) == pytest.approx(0.1, rel=0.02)
    start = {name: float(p.detach()) for name, p in cell.named_parameters() if p.dim() == 0}
    assert start == ({"alpha": -3, "beta": 3} if cell_type is FastRNNCell else {"zeta": 1, "nu": -4})
    biases = [p for p in cell.parameters() if p.dim() == 1]
    assert len(biases) == (1 if cell_type is FastRNNCell else 2)
    assert all(bool((b == 1).all()) for b in biases)
    assert cell.order() == (1, 1)


@CELLS
def test_without_a_bias_the_numbers_are_those_of_a_bias_of_zero(cell_type: Any) -> None:
    cell, without = (cell_type(2, 3, bias, dtype=torch.float64) for bias in (True, False))
    zero = {name: torch.zeros(3) for name in cell.state_dict().keys() - without.state_dict().keys()}
    assert zero.keys() == set(cell.biases)
    cell.load_state_dict(without.state_dict() | zero)
    x = sequences()
    assert_close(scan(cell, x), scan(without, x), **tolerance.EXACT)


def test_relu_is_the_other_nonlinearity() -> None:
    cell = FastRNNCell(1, 2, nonlinearity="relu", alpha=0.0, beta=0.0, dtype=torch.float64)
    with torch.no_grad():
        cell.U.zero_()
        cell.W.copy_(double([[5.0], [-5.0]]))
        (h,) = cell.step(cell.initial_state(1), cell.drive(torch.ones(1, 1, 1).double())[0])
    assert_close(h, double([[3.0, 0.0]]), **tolerance.EXACT)


@CELLS
def test_a_time_span_is_refused(cell_type: Any) -> None:
    cell = cell_type(2, 3)
    with pytest.raises(ValueError, match=f"{cell_type.__name__} has no time step"):
        cell.step(cell.initial_state(1), cell.drive(torch.zeros(1, 1, 2))[0], tau=torch.ones(1, 1))


@CELLS
@pytest.mark.parametrize(
    ("physics", "said"),
    [
        ({"rank_w": 3}, "rank_w must be at most 2, got 3: leave it out for a full matrix"),
        ({"rank_u": 5}, "rank_u must be at most 4, got 5"),
        ({"rank_u": 0}, "rank_u must be a whole number, at least 1, got 0"),
        ({"rank_w": 1.5}, "rank_w must be a whole number, at least 1, got 1.5"),
    ],
)
def test_an_impossible_rank_is_refused(cell_type: Any, physics: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cell_type(2, 4, **physics)


def test_a_scalar_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha must be a finite number, got nan"):
        FastRNNCell(2, 4, alpha=math.nan)
    with pytest.raises(ValueError, match="nu must be a finite number, got 'a'"):
        FastGRNNCell(2, 4, nu="a")  # type: ignore[arg-type]


def test_an_unknown_nonlinearity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nonlinearity must be one of tanh, relu, got 'tahn'.*'tanh'"):
        FastRNNCell(2, 4, nonlinearity="tahn")


@pytest.mark.parametrize("layer_type", [FastRNN, FastGRNN])
def test_each_layer_has_its_own_rank_and_one_unit_works(layer_type: Any) -> None:
    layer = layer_type(1, 4, 2, rank_w=[1, 3])
    assert [cell.W_2.shape for cell in layer.cells] == [(1, 1), (4, 3)]
    assert isinstance(layer_type(1, 1)(torch.ones(3, 2, 1))[1], FastState)


class TestFastRNN(LayerContract):
    network = "FastRNN"
    physics: ClassVar = {"alpha": -0.5, "beta": 1.0}


class TestLowRankFastRNN(LayerContract):
    network = "FastRNN"
    physics: ClassVar = {"alpha": -0.5, "beta": 1.0, "rank_w": 1, "rank_u": 2}


class TestFastGRNN(LayerContract):
    network = "FastGRNN"


class TestLowRankFastGRNN(LayerContract):
    network = "FastGRNN"
    physics: ClassVar = {"rank_w": 1, "rank_u": 2}
