"""AntisymmetricRNN and LipschitzRNN: B5, B5b, B11 of the sheet baselines.md; C6, C7, O10, O11 of odernn.md."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula import AntisymmetricRNN, LipschitzRNN, Model, ModelSpec, Node
from pendula.cells import AntisymmetricRNNCell, Cell, LipschitzRNNCell
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import B, LayerContract, sequences

CELLS = pytest.mark.parametrize("cell_type", [AntisymmetricRNNCell, LipschitzRNNCell])


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def upper(W: Tensor) -> Tensor:
    """The parameter of the cell from a whole W."""
    i, j = torch.triu_indices(*W.shape, 1)
    return (W - W.T)[i, j]


def filled(cell: Any, **weights: Tensor) -> Any:
    """The cell with the weights given; zero where none is given."""
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            parameter.copy_(weights.get(name, torch.zeros_like(parameter)))
    return cell


def step_from_sheet(cell: Cell) -> Tensor:
    """One step from the state and with the input of B5, B5b and B6."""
    with torch.no_grad():
        (h,) = cell.step((det((1, 3), 0.4, 0.5),), cell.drive(double([[[0.3, -0.6]]]))[0])
    return h


def b5(**physics: Any) -> AntisymmetricRNNCell:
    cell = AntisymmetricRNNCell(2, 3, dt=0.1, gamma=0.01, dtype=torch.float64, **physics)
    weights = {"upper": upper(det((3, 3), 0.1, 0.7)), "V": det((3, 2), 0.2, 0.5), "b": det((3,), 0.3, 0.1)}
    weights |= {"V_z": det((3, 2), 0.6, 0.5), "b_z": det((3,), 0.7, 0.1)}
    return filled(cell, **weights)


def test_b5_antisymmetric_step() -> None:
    expected = [[0.225476621356681, 0.465731086169101, 0.393795170512279]]
    assert_close(step_from_sheet(b5()), double(expected), **tolerance.PRINTED_16)


def test_b5_gated_step() -> None:
    expected = [[0.213036600759264, 0.480591163552175, 0.372733577995291]]
    assert_close(step_from_sheet(b5(gated=True)), double(expected), **tolerance.PRINTED_16)


def test_b5b_lipschitz_step() -> None:
    cell = LipschitzRNNCell(2, 3, dt=0.03, beta=0.75, gamma=0.001, dtype=torch.float64)
    weights = {"B": det((3, 3), 0.1, 0.3), "C": det((3, 3), 0.2, 0.3), "E": det((3, 2), 0.5, 0.5)}
    expected = [[0.182610070470908, 0.507732941356919, 0.335874956890159]]
    assert_close(
        step_from_sheet(filled(cell, e=det((3,), 0.6, 0.1), **weights)), double(expected), **tolerance.PRINTED_16
    )


@pytest.mark.parametrize(
    ("network", "physics", "count"),
    [
        ("AntisymmetricRNN", {}, 9_674),
        # another map and bias, no other recurrent matrix
        ("AntisymmetricRNN", {"gated": True}, 9_674 + 2 * 128),
        # "34k" on the sheet
        ("LipschitzRNN", {}, 34_314),
    ],
)
def test_b11_parameter_counts_with_readout(network: str, physics: dict[str, Any], count: int) -> None:
    assert Model(ModelSpec(1, 10, (Node(network, 128, physics=physics),))).parameter_count == count


def test_the_published_parametrisation_by_a_whole_matrix_has_the_gradient_of_the_triangle() -> None:
    W = det((3, 3), 0.1, 0.7).requires_grad_()
    cell, h, d = b5(), det((1, 3), 0.4, 0.5), det((1, 3), 0.9, 0.3)
    a = h @ (W - W.T - 0.01 * torch.eye(3).double()).T + d
    (h + 0.1 * torch.tanh(a)).square().sum().backward()
    cell.step((h,), d).h.square().sum().backward()
    assert W.grad is not None
    assert_close(cell.upper.grad, W.grad[*torch.triu_indices(3, 3, 1)], **tolerance.ROUNDING)


def test_a_wholly_antisymmetric_lipschitz_rnn_without_linear_part_is_an_antisymmetric_rnn() -> None:
    # the row form turns C - C^T over
    C, V, b = det((3, 3), 0.2, 0.6), det((3, 2), 0.5, 0.5), det((3,), 0.6, 0.1)
    one = LipschitzRNNCell(2, 3, dt=0.2, beta=1.0, gamma=0.0, dtype=torch.float64)
    other = AntisymmetricRNNCell(2, 3, dt=0.2, gamma=0.0, dtype=torch.float64)
    expected = step_from_sheet(filled(other, upper=upper(C.T), V=V, b=b))
    assert_close(step_from_sheet(filled(one, C=C, E=V, e=b)), expected, **tolerance.ROUNDING)


@pytest.mark.parametrize(("beta", "sign"), [(0.0, 1), (1.0, -1)])
def test_beta_goes_from_symmetric_to_antisymmetric(beta: float, sign: int) -> None:
    cell = LipschitzRNNCell(2, 4, beta=beta, gamma=0.5, init_std=3.0, dtype=torch.float64)
    for matrix in (cell.A, cell.W):
        free = matrix.detach() + 0.5 * torch.eye(4).double()
        assert_close(free.T, sign * free, **tolerance.ROUNDING)
        assert free.abs().max() > 0.1


# --- stability


def o10() -> AntisymmetricRNNCell:
    cell = AntisymmetricRNNCell(1, 4, dt=1.0, gamma=0.1, dtype=torch.float64)
    return filled(cell, upper=upper(det((4, 4), 2.0, 0.4)))


def at_rest(cell: AntisymmetricRNNCell, step: float) -> Tensor:
    """The gain of a step of that length, from zero with no input."""
    rest = torch.zeros(1, cell.hidden_size).double()
    with torch.no_grad():
        return cell.gain((rest,), rest, tau=double([[step]]) / cell.dt)


def test_o10_largest_contractive_step() -> None:
    with torch.no_grad():
        assert_close(o10().contractive_dt(), double(0.19006268879345847), **tolerance.ORACLE)
        values = torch.linalg.svdvals(o10().S)
    sigma = [1.02092330131368] * 2 + [0.569085965080692] * 2
    assert_close(values, double(sigma), **tolerance.PRINTED_16)


@pytest.mark.parametrize(("share", "gain"), [(0.9, 0.998287970277974), (1.0, 1.0), (1.1, 1.00208850864255)])
def test_o10_gain_of_a_step_at_rest(share: float, gain: float) -> None:
    cell = o10()
    assert_close(at_rest(cell, share * float(cell.contractive_dt().detach())), double([gain]), **tolerance.PRINTED_16)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("h", [0.01, 0.3])
def test_c6_gain_has_its_closed_form(gamma: float, h: float) -> None:
    cell = AntisymmetricRNNCell(1, 5, dt=h, gamma=gamma, init_std=3.0, dtype=torch.float64)
    sigma = float(torch.linalg.matrix_norm(cell.S.detach(), 2))
    # n = 5: the odd unit only shrinks
    expected = max(math.hypot(1 - h * gamma, h * sigma), abs(1 - h * gamma))
    assert_close(at_rest(cell, h), double([expected]), **tolerance.ROUNDING)


def test_c6_without_damping_the_linear_part_expands_by_its_closed_form_and_no_more() -> None:
    cell = AntisymmetricRNNCell(1, 4, dt=0.1, gamma=0.0, init_std=3.0, dtype=torch.float64)
    with torch.no_grad():
        sigma = torch.linalg.matrix_norm(cell.S, 2)
        power = torch.linalg.matrix_power(torch.eye(4).double() + 0.1 * cell.S, 200)
        assert cell.contractive_dt() == 0
    grown = torch.linalg.matrix_norm(power, 2)
    assert_close(grown, (1 + 0.01 * sigma**2) ** 100, rtol=1e-11, atol=0)
    assert 1 < grown <= torch.exp(200 * 0.01 * sigma**2 / 2)


def test_without_matrix_and_damping_every_step_keeps_the_state() -> None:
    cell = AntisymmetricRNNCell(1, 4, gamma=0.0, init_std=0.0, dtype=torch.float64)
    assert cell.contractive_dt() == math.inf
    assert_close(at_rest(cell, 7.0), double([1.0]), **tolerance.ROUNDING)


@pytest.mark.parametrize("units", [3, 17, 128])
def test_the_default_start_does_not_expand(units: int) -> None:
    cell = AntisymmetricRNNCell(1, units)
    assert cell.dt < cell.contractive_dt()


@pytest.mark.parametrize("gated", [False, True])
def test_gain_is_the_norm_of_the_step_jacobian(gated: bool) -> None:
    cell = AntisymmetricRNNCell(2, 5, dt=[0.1, 0.2, 0.3, 0.4, 0.5], gamma=0.2, gated=gated, init_std=5.0).double()
    h, tau = torch.randn(3, 5).double(), double([[0.5], [1.0], [2.0]])
    drive = cell.drive(sequences(1))[0]
    with torch.no_grad():
        found = cell.gain((h,), drive, tau=tau)
    for k in range(3):
        at = slice(k, k + 1)
        jacobian = torch.autograd.functional.jacobian(lambda h, at=at: cell.step((h,), drive[at], tau=tau[at]).h, h[at])
        assert_close(found[k], torch.linalg.matrix_norm(jacobian.reshape(5, 5), 2), **tolerance.ROUNDING)


def turning(gamma: float) -> AntisymmetricRNNCell:
    """O11: S = [[0, 1], [-1, 0]]."""
    cell = AntisymmetricRNNCell(1, 2, dt=0.01, gamma=gamma, dtype=torch.float64)
    return filled(cell, upper=double([1.0]))


def held(cell: AntisymmetricRNNCell, slow: int) -> tuple[Tensor, Tensor]:
    """State zero, and a drive that gives one unit the slope 0.01 and the other the slope 1."""
    drive = torch.zeros(1, 2).double()
    drive[0, slow] = math.atanh(math.sqrt(0.99))
    return cell.initial_state(1)[0], drive


def field_jacobian(cell: AntisymmetricRNNCell, h: Tensor, drive: Tensor) -> Tensor:
    found = torch.autograd.functional.jacobian(lambda h: cell.vector_field((h,), drive).h, h)
    assert isinstance(found, Tensor)
    return found.reshape(2, 2)


@pytest.mark.parametrize(("gamma", "real"), [(0.0, 0.0), (0.01, -0.00505), (0.05, -0.02525)])
def test_c7_each_jacobian_has_no_eigenvalue_to_the_right(gamma: float, real: float) -> None:
    cell = turning(gamma)
    for slow in (0, 1):
        values = torch.linalg.eigvals(field_jacobian(cell, *held(cell, slow)))
        assert_close(values.real, double([real, real]), rtol=1e-11, atol=1e-15)
        if gamma == 0:
            assert_close(values.imag.abs(), double([0.1, 0.1]), rtol=1e-11, atol=0)


@pytest.mark.parametrize(("gamma", "radius"), [(0.0, 100.0), (0.01, 85.542961997), (0.05, 48.131292251)])
def test_o11_and_yet_their_product_grows(gamma: float, radius: float) -> None:
    cell = turning(gamma)
    # q is a quarter of the period without damping
    first, second = (torch.matrix_exp(5 * math.pi * field_jacobian(cell, *held(cell, slow))) for slow in (1, 0))
    grown = torch.linalg.eigvals(second @ first).abs().max()
    assert_close(grown, double(radius), **tolerance.PRINTED_10)


def test_c7_a_step_below_the_bound_of_the_linear_part_can_stretch() -> None:
    cell = turning(0.05)
    assert cell.dt < cell.contractive_dt()
    with torch.no_grad():
        assert at_rest(cell, 0.01) < 1
        h, drive = held(cell, 1)
        assert cell.gain((h,), drive) > 1.004


def test_c7_any_jacobian_of_the_plain_cell_is_without_growing_modes() -> None:
    cell = AntisymmetricRNNCell(2, 4, gamma=0.03, init_std=8.0, dtype=torch.float64)
    for _ in range(20):
        slopes = torch.rand(4).double()
        assert torch.linalg.eigvals(slopes.unsqueeze(-1) * cell.M.detach()).real.max() <= 0


@pytest.mark.parametrize("gated", [False, True])
def test_no_unit_moves_faster_than_one(gated: bool) -> None:
    layer = AntisymmetricRNN(2, 5, dt=0.3, gated=gated, init_std=50.0, dtype=torch.float64)
    with torch.no_grad():
        outputs, _ = layer(100 * sequences(30))
    assert outputs.diff(dim=0).abs().max() <= 0.3 * (1 + tolerance.BOUND)


# --- starting weights and refusals


def test_starting_weights_are_those_of_the_later_implementation() -> None:
    torch.manual_seed(0)
    cell, other = AntisymmetricRNNCell(64, 256, gated=True), LipschitzRNNCell(64, 256)
    glorot = math.sqrt(2 / (64 + 256))
    for weight, std in [
        (cell.upper, math.sqrt(2) * 0.1 / 256),
        *((V, glorot) for V in (cell.V, cell.V_z, other.E)),
        (other.B, 0.1 / 256),
        (other.C, 0.1 / 256),
    ]:
        # 16 384 numbers or more: five standard errors of a standard deviation are 2.8 %
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.028)
    assert not any(b.any() for b in (cell.b, cell.b_z, other.e))


@CELLS
def test_without_a_bias_there_is_none(cell_type: Any) -> None:
    names = dict(cell_type(2, 3, bias=False).named_parameters())
    assert not {"b", "b_z", "e"} & names.keys()


def test_without_a_bias_the_gate_has_none_either() -> None:
    cell = AntisymmetricRNNCell(2, 3, bias=False, gated=True)
    assert dict(cell.named_parameters()).keys() == {"upper", "V", "V_z"}


def test_one_unit_has_no_antisymmetric_part() -> None:
    with pytest.raises(ValueError, match="hidden_size must be at least 2, got 1: one unit has no antisymmetric part"):
        AntisymmetricRNNCell(2, 1)


def test_a_lipschitz_rnn_of_one_unit_works() -> None:
    outputs, _ = LipschitzRNN(1, 1, dtype=torch.float64)(torch.ones(4, 2, 1).double())
    assert outputs.shape == (4, 2, 1)


@CELLS
@pytest.mark.parametrize(
    ("physics", "said"),
    [
        ({"gamma": -0.1}, "gamma must be at least 0, got -0.1"),
        ({"gamma": "a"}, "gamma must be a finite number, got 'a'"),
        ({"dt": 0}, "dt must be positive and finite, got 0"),
        ({"init_std": -1}, "init_std must be at least 0, got -1"),
    ],
)
def test_impossible_physics_is_refused(cell_type: Any, physics: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cell_type(2, 4, **physics)


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_a_share_outside_its_range_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=f"beta must be from 0 to 1, got {beta}"):
        LipschitzRNNCell(2, 4, beta=beta)


def test_a_gate_that_is_no_yes_or_no_is_refused() -> None:
    with pytest.raises(ValueError, match="gated must be True or False, got 'yes'"):
        AntisymmetricRNNCell(2, 4, gated="yes")


@CELLS
def test_physics_is_kept_in_the_type_of_the_weights(cell_type: Any) -> None:
    cell = cell_type(2, 4, gamma=0.001, dtype=torch.float64)
    assert float(cell.gamma) == 0.001
    assert cell.order() == (1, 1)


class ExplicitEuler(LayerContract):
    """A network whose step is the slope at its start, at any length."""

    def test_the_step_tends_to_the_differential_equation(self) -> None:
        layer = self.layer()
        cell, start = layer.cells[0], layer.cell_type.State(*(s[0] for s in self.state(layer)))
        drive = cell.drive(sequences(1))[0]
        for tau in (1e-3, 0.5, 20.0):
            moved = cell.step(start, drive, tau=torch.full((B, 1), tau, dtype=torch.float64))
            slope = (moved.h - start.h) / (tau * cell.dt)
            # the difference of states of order one, over a step of 3e-5 or more
            assert_close(slope, cell.vector_field(start, drive).h, rtol=0, atol=1e-11)


class TestAntisymmetricRNN(ExplicitEuler):
    network = "AntisymmetricRNN"
    physics: ClassVar = {"dt": 0.3, "gamma": 0.1, "init_std": 2.0}


class TestGatedAntisymmetricRNN(ExplicitEuler):
    network = "AntisymmetricRNN"
    physics: ClassVar = {"dt": 0.3, "gamma": 0.1, "init_std": 2.0, "gated": True}


class TestLipschitzRNN(ExplicitEuler):
    network = "LipschitzRNN"
    physics: ClassVar = {"dt": 0.3, "beta": 0.7, "gamma": 0.1, "init_std": 2.0}
