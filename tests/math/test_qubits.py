"""Qubits: oracles O12 and O13 of the spec sheet odernn.md, and what its section 6.1 says of H, U and U_L."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula.math.qubits import (
    diagonal,
    expectations,
    flipped,
    flow,
    gates,
    generators,
    hamiltonian,
    lie_dimension,
    signs,
    strang,
)
from tests import tolerance
from tests.cells.sheet import det

ETA = 0.5


def couplings() -> tuple[Tensor, Tensor, Tensor]:
    """Those of O12: three qubits."""
    return det((3,), 0.3, 1), det((3,), 1.3, 0.7), det((2,), 2.3, 0.9)


def some_couplings(q: int, *lead: int) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.randn(*lead, sites, dtype=torch.float64) for sites in (q, q, q - 1))  # type: ignore[return-value]


def some_states(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128)


def double(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def start() -> Tensor:
    """psi_0 of O12."""
    return (torch.arange(1, 9, dtype=torch.float64) / math.sqrt(204)).to(torch.complex128)


def dense_strang(a: Tensor, b: Tensor, J: Tensor, eta: float, steps: int) -> Tensor:
    """U_L as a matrix: `strang` of every unit vector."""
    unit = torch.eye(2 ** a.shape[-1], dtype=torch.complex128)
    return strang(unit, *gates(a, b, J, eta, steps), steps).T


def defect(U: Tensor) -> Tensor:
    return U.mH @ U - torch.eye(U.shape[-1], dtype=U.dtype)


# --- O12


def test_o12_diagonal() -> None:
    _, b, J = couplings()
    expected = [
        1.61522595864559,
        2.12001217990398,
        -0.487088470862068,
        -0.550186748519367,
        -1.07602488285658,
        -0.571238661598182,
        -0.493800548528041,
        -0.55689882618534,
    ]
    assert_close(diagonal(b, J), double(expected), **tolerance.PRINTED_16)


def test_o12_eigenvalues() -> None:
    expected = [
        -2.4920966764451,
        -1.55609308621892,
        -1.00293250287082,
        -0.436144070582949,
        -0.057391293063601,
        1.04172589818235,
        1.47636658404277,
        3.02656514695628,
    ]
    # printed to 15 digits; an eigenvalue is as exact as the norm of H, not as itself
    assert_close(torch.linalg.eigvalsh(hamiltonian(*couplings())), double(expected), rtol=1e-14, atol=5e-14)


def test_o12_the_exact_flow_is_unitary_and_moves_the_state() -> None:
    U = flow(*couplings(), ETA)
    assert defect(U).abs().max() < 5e-15
    psi = U @ start()
    expected = [-0.117183645124272 - 0.155958948519054j, 0.466931837174707 - 0.251066589309405j]
    assert_close(psi[[0, 7]], torch.tensor(expected, dtype=psi.dtype), **tolerance.PRINTED_16)


def test_o12_one_layer_of_gates_moves_the_state() -> None:
    psi = strang(start(), *gates(*couplings(), ETA, 1), 1)
    expected = [-0.117779895328567 - 0.156644658548966j, 0.468380758418753 - 0.251101190013453j]
    assert_close(psi[[0, 7]], torch.tensor(expected, dtype=psi.dtype), **tolerance.PRINTED_16)


def test_o12_the_strang_product_is_of_second_order_and_unitary_at_every_length() -> None:
    U = flow(*couplings(), ETA)
    products = [dense_strang(*couplings(), ETA, steps) for steps in (1, 2, 4, 8, 16)]
    errors = [torch.linalg.matrix_norm(P - U, 2) for P in products]
    printed = [7.198793e-2, 1.716207e-2, 4.240346e-3, 1.056982e-3, 2.640519e-4]
    assert_close(torch.stack(errors), double(printed), **tolerance.PRINTED_7)
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders[-1] == pytest.approx(2, abs=0.01)
    assert max(defect(P).abs().max().item() for P in products) <= 5e-15


def test_o12_runge_kutta_steps_are_not_unitary() -> None:
    A = -1j * ETA * hamiltonian(*couplings())
    term = R = torch.eye(8, dtype=torch.complex128)
    defects = []
    for n in range(1, 5):
        term = term @ A / n
        R = R + term
        defects.append(torch.linalg.matrix_norm(defect(R), 2))
    # the third is printed to 6 digits
    assert_close(torch.stack(defects), double([2.290024, 1.311053, 0.103424, 0.1190507]), rtol=0, atol=5.1e-7)


# --- O13


@pytest.mark.parametrize(("q", "full", "tied", "without_fields"), [(2, 15, 9, 6), (3, 63, 38, 15), (4, 255, 135, 28)])
def test_o13_dimensions_of_the_lie_algebra(q: int, full: int, tied: int, without_fields: int) -> None:
    all_of_them = generators(q)
    assert lie_dimension(all_of_them) == full == 4**q - 1
    assert lie_dimension(generators(q, tied=True)) == tied
    free = torch.cat((all_of_them[:q], all_of_them[2 * q :]))
    assert lie_dimension(free) == without_fields == q * (2 * q - 1)


def test_one_qubit_is_universal_tied_or_not() -> None:
    assert lie_dimension(generators(1)) == lie_dimension(generators(1, tied=True)) == 3


def test_the_dimension_is_blind_to_scale_and_repetition() -> None:
    given = generators(2)
    assert lie_dimension(torch.cat((1e-6 * given, 1e5 * given))) == 15
    assert lie_dimension(given[:2]) == 2


# --- H, U, U_L for any couplings


def test_qubit_zero_is_the_most_significant_bit() -> None:
    up = torch.zeros(8, dtype=torch.complex128)
    up[0] = 1
    assert [int(flipped(up, j).abs().argmax()) for j in range(3)] == [4, 2, 1]
    assert signs(3, up.real)[0].tolist() == [1] * 4 + [-1] * 4


@pytest.mark.parametrize("q", [1, 2, 4])
def test_h_is_the_sum_of_pauli_products(q: int) -> None:
    X, Z = double([[0, 1], [1, 0]]), double([[1, 0], [0, -1]])

    def at(matrices: dict[int, Tensor]) -> Tensor:
        product = torch.eye(1, dtype=torch.float64)
        for j in range(q):
            product = torch.kron(product, matrices.get(j, torch.eye(2, dtype=torch.float64)))
        return product

    a, b, J = some_couplings(q)
    expected = sum(a[j] * at({j: X}) + b[j] * at({j: Z}) for j in range(q))
    expected = expected + sum(J[j] * at({j: Z, j + 1: Z}) for j in range(q - 1))
    assert_close(hamiltonian(a, b, J), expected, **tolerance.ROUNDING)


@pytest.mark.parametrize("q", [1, 2, 5])
def test_many_hamiltonians_at_once_are_each_alone(q: int) -> None:
    a, b, J = some_couplings(q, 3)
    psi = some_states(7, 3, 2**q)
    together = strang(psi, *gates(a, b, J, 0.7, 2), 2)
    for s in range(3):
        own = a[s], b[s], J[s]
        assert_close(flow(a, b, J, 0.7)[s], flow(*own, 0.7), **tolerance.ROUNDING)
        assert_close(together[:, s], psi[:, s] @ dense_strang(*own, 0.7, 2).T, **tolerance.ROUNDING)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("eta", [0.1, 40.0])
def test_gates_keep_the_norm_at_every_length_and_duration(steps: int, eta: float) -> None:
    psi = some_states(5, 32)
    moved = strang(psi, *gates(*some_couplings(5), eta, steps), steps)
    assert_close(moved.norm(dim=-1), psi.norm(dim=-1), **tolerance.ROUNDING)


def test_the_flow_runs_backwards_when_conjugated() -> None:
    theta, psi = some_couplings(3), some_states(4, 8)
    back = strang(strang(psi, *gates(*theta, 0.9, 3), 3).conj(), *gates(*theta, 0.9, 3), 3).conj()
    assert_close(back, psi, **tolerance.ROUNDING)


@pytest.mark.parametrize("q", [1, 2, 4])
def test_expectations_are_those_of_the_matrices(q: int) -> None:
    psi = some_states(3, 2**q)
    Z = torch.diag_embed(signs(q, psi.real)).to(psi.dtype)
    expected = torch.einsum("bm,jmn,bn->bj", psi.conj(), Z, psi).real
    assert_close(expectations(psi), expected, **tolerance.ROUNDING)


@pytest.mark.parametrize("made", ["exact", "trotter"])
def test_gradients_are_those_of_finite_differences(made: str) -> None:
    psi = some_states(2, 8)

    def run(a: Tensor, b: Tensor, J: Tensor) -> Tensor:
        if made == "exact":
            return expectations(psi @ flow(a, b, J, 0.6).T)
        return expectations(strang(psi, *gates(a, b, J, 0.6, 2), 2))

    assert torch.autograd.gradcheck(run, tuple(c.requires_grad_() for c in some_couplings(3)))
