"""QUNN: oracle O14 of the spec sheet odernn.md, parameter counts and the stability statements of its section 6."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula import scan
from pendula.cells import QUNNCell, QUNNRegisterCell
from pendula.cells.qunn import QubitCell, QUNNState
from pendula.math.qubits import expectations, flow
from pendula.math.unitary import modrelu
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import LayerContract

STEPS = 200
FLOWS = pytest.mark.parametrize("physics", [{"flow": "exact"}, {"flow": "trotter", "trotter_steps": 1}], ids=str)
FORMS = pytest.mark.parametrize("form", [QUNNCell, QUNNRegisterCell])


def psi_of(state: tuple[Tensor, ...]) -> Tensor:
    return torch.complex(*state)


def pair(psi: Tensor) -> QUNNState:
    return QUNNState(psi.real, psi.imag)


def some_psi(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128)


def moved(cell: QubitCell, beta: float = 0.0) -> QubitCell:
    """Weights of the lags and the bias away from where they start."""
    with torch.no_grad():
        if isinstance(cell, QUNNCell):
            cell.omega.normal_()
        if cell.beta is not None:
            cell.beta.fill_(beta)
    return cell


def none_grew(old: Tensor, new: Tensor) -> bool:
    # what has shrunk to nothing is the rounding of states of norm 10
    return bool((new <= old * (1 + tolerance.BOUND) + 1e-13).all())


def lag_norms(cell: QUNNCell, state: tuple[Tensor, ...]) -> Tensor:
    """(B,): the largest norm in the window."""
    return psi_of(state).unflatten(-1, (cell.lags, -1)).norm(dim=-1).amax(-1)


def steps_of(cell: QubitCell, state: tuple[Tensor, ...], x: Tensor) -> list[tuple[Tensor, ...]]:
    states = []
    with torch.no_grad(), cell.keeping():
        for drive in cell.drive(x):
            state = cell.step(state, drive)
            states.append(state)
    return states


def count(cell: QubitCell) -> int:
    return sum(p.numel() for p in cell.parameters())


# --- O14


def o14(**physics: Any) -> QUNNCell:
    cell = QUNNCell(4, 4, lags=2, eta=0.5, encoding="amplitude", dtype=torch.float64, **physics)
    with torch.no_grad():
        for weight, sites, phase in ((cell.a, 2, 0.1), (cell.b, 2, 0.3), (cell.J, 1, 0.5)):
            weight.copy_(torch.stack((det((sites,), phase, 1), det((sites,), phase + 0.1, 1))))
        cell.omega.copy_(torch.tensor([0, math.log(3)], dtype=torch.float64))
        assert cell.beta is not None
        cell.beta.fill_(-0.05)
    return cell


def test_o14_six_steps_from_zero() -> None:
    cell, zero = o14(), torch.zeros(1, 8, dtype=torch.float64)
    outputs, state = scan(cell, det((6, 4), 0.7, 0.2).unsqueeze(1), QUNNState(zero, zero))
    expected = torch.tensor(
        [
            0.119558766974459 - 0.000548840127601829j,
            0.0447645508094793 + 0.0225915000652124j,
            -0.00861332204398476 - 0.00330066768879211j,
            -0.120257665810546 - 0.0194471163800582j,
        ],
        dtype=torch.complex128,
    )
    psi = psi_of(state)[0, :4]
    assert_close(psi.detach(), expected, **tolerance.PRINTED_16)
    assert psi.norm().item() == pytest.approx(0.178140453339031, rel=1e-12)
    assert_close(outputs[-1, 0], torch.cat((psi.real, psi.imag)), **tolerance.EXACT)


def test_o14_without_input_and_bias_no_window_norm_grows() -> None:
    cell = o14()
    assert cell.beta is not None
    torch.nn.init.zeros_(cell.beta)
    start = pair(some_psi(20, 8))
    norms = [lag_norms(cell, s) for s in (start, *steps_of(cell, start, torch.zeros(STEPS, 20, 4).double()))]
    assert all(none_grew(old, new) for old, new in pairwise(norms))


# --- parameters


@pytest.mark.parametrize("t", [1, 2, 4, 7])
@pytest.mark.parametrize(("N", "q"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (64, 6), (1000, 10), (1024, 10)])
def test_parameters_are_linear_in_the_lags_and_logarithmic_in_the_amplitudes(t: int, N: int, q: int) -> None:
    cell = QUNNCell(1, N, lags=t, encoding="amplitude")
    assert cell.qubits == q
    assert count(cell) == t * (3 * q - 1) + t + 1
    tied = QUNNCell(1, N, lags=t, encoding="amplitude", tied=True)
    # a lone qubit has no neighbour to be coupled to
    assert count(tied) == (3 * t + t + 1 if q > 1 else 2 * t + t + 1)


def test_parameters_of_the_sheet() -> None:
    cell = QUNNCell(1024, 1024, lags=4, encoding="amplitude")
    assert count(cell) == 121
    assert count(QUNNCell(1024, 1024, lags=4, encoding="amplitude", tied=True)) == 17
    assert 4 * cell.output_size**2 // 4 == 4 * 1024**2 == 4_194_304


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize(("N", "q"), [(1, 1), (6, 3), (16, 4)])
def test_the_register_has_one_hamiltonian_on_the_whole_chain(m: int, N: int, q: int) -> None:
    cell = QUNNRegisterCell(1, N, bias=False, memory_qubits=m, encoding="amplitude")
    assert count(cell) == 3 * (q + m) - 1
    assert count(QUNNRegisterCell(1, N, bias=False, memory_qubits=m, encoding="amplitude", tied=True)) == 3
    assert cell.initial_state(2).re.shape == (2, 2 ** (q + m))


@FORMS
def test_a_linear_encoding_adds_a_complex_matrix_and_no_bias_takes_one_number_away(form: type[QubitCell]) -> None:
    plain = count(form(5, 8, encoding="amplitude"))
    assert count(form(5, 8, encoding="linear")) == plain + 2 * 8 * 5
    assert count(form(5, 8, bias=False, encoding="amplitude")) == plain - 1


@FORMS
def test_starting_values(form: type[QubitCell]) -> None:
    cell = form(3, 1024, eta=0.2)
    for coupling in (cell.a, cell.b, cell.J):
        assert 0.5 < (0.2 * coupling).abs().max() / (math.pi / 4) <= 1 + 1e-6
    assert cell.beta is not None
    assert not cell.beta.any()
    assert not isinstance(cell, QUNNCell) or not cell.omega.any()
    state = cell.initial_state(2)
    window = psi_of(state).unflatten(-1, (-1, 2**cell.chain))
    assert_close(window.norm(dim=-1), torch.ones(window.shape[:-1]))
    assert_close(window, window[:1, :1, :1].expand_as(window), **tolerance.EXACT)


# --- the equations


@pytest.mark.parametrize("bias", [True, False])
def test_with_one_lag_it_is_a_urnn(bias: bool) -> None:
    cell = moved(QUNNCell(3, 8, bias, lags=1, eta=0.4, dtype=torch.float64), beta=-0.2)
    psi, x = some_psi(5, 8), torch.randn(1, 5, 3).double()
    V = torch.complex(*cell.V)
    z = psi @ flow(cell.a[0], cell.b[0], cell.J[0], 0.4).T + x[0].to(psi.dtype) @ V.T
    expected = modrelu(z, cell.beta) if bias else z
    assert_close(psi_of(cell.step(pair(psi), cell.drive(x)[0])), expected, **tolerance.ROUNDING)


def test_a_state_comes_back_through_the_unitary_of_its_lag_and_is_then_forgotten() -> None:
    cell = QUNNCell(3, 4, bias=False, lags=3, dtype=torch.float64)
    with torch.no_grad():
        # all weight on the third lag
        cell.omega.copy_(torch.tensor([-1e9, -1e9, 0.0]))
    window, x = some_psi(5, 3, 4), torch.zeros(3, 5, 3).double()
    states = steps_of(cell, pair(window.flatten(1)), x)
    U = flow(cell.a[2], cell.b[2], cell.J[2], 1.0).detach()
    for k, state in enumerate(states):
        assert_close(psi_of(state)[:, :4], window[:, 2 - k] @ U.T, **tolerance.ROUNDING)


@FORMS
def test_amplitude_encoding_adds_the_input_to_the_first_amplitudes(form: type[QubitCell]) -> None:
    cell = form(3, 4, bias=False, encoding="amplitude", dtype=torch.float64)
    x = torch.randn(1, 5, 3).double()
    nothing = pair(torch.zeros_like(psi_of(cell.initial_state(5))))
    psi = psi_of(cell.step(nothing, cell.drive(x)[0])).detach()
    # in the register the data stands where all memory qubits, the last of the chain, are zero
    spacing = 2 ** (cell.chain - cell.qubits)
    expected = torch.zeros_like(psi)
    expected[:, : 3 * spacing : spacing] = x[0].to(psi.dtype)
    assert_close(psi, expected, **tolerance.EXACT)


@FORMS
def test_expectations_are_read_off_the_data_qubits_of_the_newest_state(form: type[QubitCell]) -> None:
    cell = form(3, 4, readout="expectations", dtype=torch.float64)
    state = pair(some_psi(*psi_of(cell.initial_state(5)).shape))
    expected = expectations(psi_of(state)[:, : 2**cell.chain])[:, :2]
    assert_close(cell.output(state, cell.drive(torch.zeros(1, 5, 3).double())[0]), expected, **tolerance.EXACT)
    assert cell.output_size == 2


@FORMS
def test_tied_couplings_are_the_same_at_all_sites(form: type[QubitCell]) -> None:
    tied = moved(form(3, 8, tied=True, dtype=torch.float64), beta=-0.1)
    free = form(3, 8, dtype=torch.float64)
    weights = tied.state_dict() | dict(zip("abJ", tied.couplings(), strict=True))
    free.load_state_dict(weights)
    x = torch.randn(6, 5, 3).double()
    assert_close(scan(free, x), scan(tied, x), **tolerance.ROUNDING)


@FORMS
def test_trotter_tends_to_exact_to_second_order(form: type[QubitCell]) -> None:
    exact = moved(form(3, 8, eta=0.5, dtype=torch.float64), beta=-0.02)
    x, errors = torch.randn(10, 5, 3).double(), []
    expected, _ = scan(exact, x)
    for steps in (8, 16, 32):
        cell = form(3, 8, eta=0.5, flow="trotter", trotter_steps=steps, dtype=torch.float64)
        cell.load_state_dict(exact.state_dict())
        errors.append((scan(cell, x)[0] - expected).abs().max().item())
    assert [math.log2(a / b) for a, b in pairwise(errors)] == pytest.approx([2, 2], abs=0.05)
    assert errors[-1] < 5e-3


# --- stability


@FLOWS
@pytest.mark.parametrize("cell", ["lag", "register"])
@pytest.mark.parametrize("bias", [True, False])
def test_without_bias_and_input_the_norm_stays(physics: dict[str, Any], cell: str, bias: bool) -> None:
    made = (
        QUNNCell(3, 8, bias, lags=1, dtype=torch.float64, **physics)
        if cell == "lag"
        else QUNNRegisterCell(3, 8, bias, memory_qubits=2, dtype=torch.float64, **physics)
    )
    start = some_psi(*psi_of(made.initial_state(5)).shape)
    for state in steps_of(made, pair(start), torch.zeros(STEPS, 5, 3).double()):
        assert_close(psi_of(state).norm(dim=-1), start.norm(dim=-1), rtol=tolerance.BOUND, atol=0)


@FLOWS
@pytest.mark.parametrize("beta", [0.0, -0.3])
@pytest.mark.parametrize("lags", [1, 2, 5])
def test_no_step_drives_two_windows_apart_or_one_beyond_its_input(
    physics: dict[str, Any], beta: float, lags: int
) -> None:
    cell = moved(QUNNCell(3, 8, lags=lags, dtype=torch.float64, **physics), beta)
    assert isinstance(cell, QUNNCell)
    x = torch.randn(STEPS, 20, 3).double()
    starts = [pair(some_psi(20, lags * 8)) for _ in range(2)]
    paths = [[s, *steps_of(cell, s, x)] for s in starts]
    gaps = [lag_norms(cell, pair(psi_of(a) - psi_of(b))) for a, b in zip(*paths, strict=True)]
    assert all(none_grew(old, new) for old, new in pairwise(gaps))
    pushed = cell.drive(x).detach().norm(dim=-1).cumsum(0)
    for k, state in enumerate(paths[0][1:]):
        psi = psi_of(state)[:, :8]
        assert bool((psi.norm(dim=-1) <= (lag_norms(cell, starts[0]) + pushed[k]) * (1 + tolerance.BOUND)).all())


@FLOWS
@pytest.mark.parametrize("beta", [0.0, -0.3])
def test_no_step_drives_two_registers_apart(physics: dict[str, Any], beta: float) -> None:
    cell = moved(QUNNRegisterCell(3, 4, dtype=torch.float64, **physics), beta)
    x = torch.randn(STEPS, 20, 3).double()
    paths = [[s, *steps_of(cell, s, x)] for s in (pair(some_psi(20, 16)) for _ in range(2))]
    gaps = [(psi_of(a) - psi_of(b)).norm(dim=-1) for a, b in zip(*paths, strict=True)]
    assert all(none_grew(old, new) for old, new in pairwise(gaps))


def test_a_positive_bias_can_drive_two_states_apart() -> None:
    # beta <= 0 is needed: two small numbers of opposite phase are both stretched by beta
    cell = moved(QUNNCell(1, 1, lags=1, dtype=torch.float64), beta=0.5)
    near = [pair(torch.tensor([[e, 0]], dtype=torch.complex128)) for e in (1e-3, -1e-3)]
    after = [psi_of(cell.step(s, cell.drive(torch.zeros(1, 1, 1).double())[0])) for s in near]
    assert (after[0] - after[1]).norm() > 100 * 2e-3


# --- the face


def test_order() -> None:
    assert QUNNCell(3, 4, lags=3).order() == (1, 3)
    assert QUNNRegisterCell(3, 4).order() == (1, 1)


@FORMS
def test_one_feature_and_one_unit_are_two_amplitudes(form: type[QubitCell]) -> None:
    for physics in ({}, {"tied": True, "encoding": "amplitude", "flow": "trotter", "readout": "expectations"}):
        layer = pendula.LAYERS[form.__name__.removesuffix("Cell")](1, 1, 2, **physics)
        outputs, _ = layer(torch.randn(4, 3, 1))
        assert outputs.shape == (4, 3, layer.output_size)
        assert layer.cells[0].qubits == 1


@FORMS
def test_a_time_span_is_refused(form: type[QubitCell]) -> None:
    cell = form(3, 4)
    with pytest.raises(ValueError, match=r"has no time step.*each sequence would need unitaries of its own"):
        cell.step(cell.initial_state(2), cell.drive(torch.zeros(1, 2, 3))[0], tau=torch.ones(2, 1))


@pytest.mark.parametrize(
    ("physics", "said"),
    [
        (
            {"encoding": "amplitude"},
            r"puts 9 features into 4 amplitudes \(hidden_size 3\): take hidden_size at least 9",
        ),
        ({"eta": 0}, "eta must be positive, got 0"),
        ({"eta": "half"}, "eta must be a finite number, got 'half'"),
        ({"flow": "troter"}, "flow must be one of exact, trotter, got 'troter'"),
        ({"encoding": "phase"}, "encoding must be one of linear, amplitude"),
        ({"readout": "all"}, "readout must be one of amplitudes, expectations"),
        ({"trotter_steps": 0}, "trotter_steps must be a whole number, at least 1, got 0"),
    ],
)
@FORMS
def test_impossible_physics_is_refused(form: type[QubitCell], physics: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        form(9, 3, **physics)


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="lags must be a whole number, at least 1, got 0"):
        QUNNCell(2, 3, lags=0)
    with pytest.raises(ValueError, match="memory_qubits must be a whole number, at least 1, got 0"):
        QUNNRegisterCell(2, 3, memory_qubits=0)


class QubitContract(LayerContract):
    """With the bias and the weights of the lags away from where they start; none is so negative that amplitudes die.

    Two layers are kept where float32 can follow: a small amplitude has an uncertain phase, which a bias makes large,
    and expectations are squares, which large inputs make larger.
    """

    def layer(self, num_layers: int = 1, *, dtype: torch.dtype = torch.float64, **options: Any) -> pendula.Recurrent:
        layer = super().layer(num_layers, dtype=dtype, **options)
        for cell in layer.cells:
            moved(cell, beta=0.05 if num_layers == 1 else 0.0)
            if cell.V is not None:
                cell.V.data *= 0.3
        return layer


class TestQUNN(QubitContract):
    network = "QUNN"
    physics: ClassVar = {"lags": 2}


class TestQUNNOfGates(QubitContract):
    network = "QUNN"
    physics: ClassVar = {"lags": 3, "flow": "trotter", "trotter_steps": 2, "readout": "expectations"}


class TestTiedQUNN(QubitContract):
    network = "QUNN"
    physics: ClassVar = {"lags": 4, "tied": True, "eta": 0.5, "encoding": "amplitude", "readout": "expectations"}


class TestQUNNRegister(QubitContract):
    network = "QUNNRegister"
    physics: ClassVar = {"memory_qubits": 2}


class TestQUNNRegisterOfGates(QubitContract):
    network = "QUNNRegister"
    physics: ClassVar = {"memory_qubits": 1, "flow": "trotter", "tied": True, "readout": "expectations"}
