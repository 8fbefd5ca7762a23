"""Trained unitary and orthogonal matrices: oracles U1 to U3 and U10 of the sheet urnn.md, B1 to B4 of baselines.md."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula.cells.givens import GivensOrthogonal, GivensUnitary
from pendula.cells.operators import DenseUnitary, Operator, StructuredUnitary
from pendula.cells.skew import Exponential, ScaledCayley
from pendula.math.exponential import exponential
from pendula.math.orthogonal import geodesic_step, polar, skew
from pendula.math.unitary import complex_of, pairs_of, skew_from, structured_product
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import gradients, weigh

PRINTED = {"rtol": 1e-13, "atol": 1e-15}
"""Sheet numbers with 15 digits, a few operations from their input."""


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def complexes(*values: complex) -> Tensor:
    return torch.tensor(values, dtype=torch.complex128)


def pair(first: float, second: float, shape: tuple[int, ...] = (8,), scale: float = 1) -> Tensor:
    return torch.complex(det(shape, first, scale), det(shape, second, scale))


# --- every operator

OPERATORS: dict[str, Callable[[int], Operator]] = {
    "structured": lambda n: StructuredUnitary(n, dtype=torch.float64),
    "tunable": lambda n: GivensUnitary(n, dtype=torch.float64),
    "full tunable": lambda n: GivensUnitary(n, n - n % 2, dtype=torch.float64),
    "fft": lambda n: GivensUnitary(1 << (n - 1).bit_length(), pairing="fft", dtype=torch.float64),
    "real tunable": lambda n: GivensOrthogonal(n, dtype=torch.float64),
    "real fft": lambda n: GivensOrthogonal(1 << (n - 1).bit_length(), pairing="fft", dtype=torch.float64),
    "dense": lambda n: DenseUnitary(n, dtype=torch.float64),
    "dense, structured": lambda n: DenseUnitary(n, "structured", dtype=torch.float64),
    "exponential": lambda n: Exponential(n, dtype=torch.float64),
    "exponential, henaff": lambda n: Exponential(n, "henaff", dtype=torch.float64),
    "cayley": lambda n: ScaledCayley(n, dtype=torch.float64),
    "cayley, henaff": lambda n: ScaledCayley(n, 1, "henaff", dtype=torch.float64),
}
EVERY = pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS)


def scattered(make: Callable[[int], Operator], n: int) -> Operator:
    """The operator away from its start, but on its manifold."""
    operator = make(n)
    with torch.no_grad():
        for p in operator.parameters():
            if not isinstance(operator, DenseUnitary):
                p += 0.3 * torch.randn_like(p)
    return operator


def vectors(operator: Operator, rows: int) -> Tensor:
    return torch.randn(rows, operator.size, dtype=operator.rebuild().dtype)


@EVERY
@pytest.mark.parametrize("n", [2, 3, 37])
def test_p1_the_defect_is_rounding_and_all_eigenvalues_have_modulus_one(make: Any, n: int) -> None:
    operator = scattered(make, n)
    with torch.no_grad():
        assert operator.defect() <= 1e-14 * math.sqrt(operator.size)
        modulus = torch.linalg.eigvals(operator.dense()).abs()
    assert (modulus - 1).abs().max() <= 1e-13


@EVERY
def test_p2_the_product_keeps_the_norm(make: Any) -> None:
    operator = scattered(make, 9)
    h = vectors(operator, 5)
    with torch.no_grad():
        assert_close(operator(h).norm(dim=-1), h.norm(dim=-1), **tolerance.ROUNDING)
        assert_close(operator.adjoint(h).norm(dim=-1), h.norm(dim=-1), **tolerance.ROUNDING)


@EVERY
@pytest.mark.parametrize("n", [2, 3, 37])
def test_p3_the_product_is_that_with_the_matrix(make: Any, n: int) -> None:
    operator = scattered(make, n)
    h = vectors(operator, 5)
    with torch.no_grad():
        W = operator.dense()
        assert_close(operator(h), h @ W.mT, **tolerance.ROUNDING)
        assert_close(operator.adjoint(h), h @ W.conj(), **tolerance.ROUNDING)
        assert_close(operator.adjoint(operator(h)), h, **tolerance.ROUNDING)


@EVERY
def test_what_was_built_before_gives_the_same_numbers(make: Any) -> None:
    operator = scattered(make, 5)
    h, built = vectors(operator, 3), operator.rebuild()
    assert_close(operator(h, built), operator(h), **tolerance.EXACT)
    assert_close(operator.adjoint(h, built), operator.adjoint(h), **tolerance.EXACT)


@EVERY
def test_the_gradients_of_the_product_are_those_of_the_matrix(make: Any) -> None:
    operator = scattered(make, 6)
    h, found = vectors(operator, 4), []
    for product in (lambda: operator(h), lambda: h @ operator.dense().mT):
        operator.zero_grad()
        y = product()
        weigh(*(torch.view_as_real(y) if y.is_complex() else y)).backward()
        found.append(gradients(operator))
    assert_close(*found, rtol=1e-11, atol=1e-13)


@EVERY
def test_backwards_goes_the_adjoint(make: Any) -> None:
    operator = scattered(make, 6)
    h = vectors(operator, 4).requires_grad_()
    g = vectors(operator, 4)
    (found,) = torch.autograd.grad(operator(h), h, g)
    assert_close(found, operator.adjoint(g), **tolerance.ROUNDING)


@EVERY
def test_a_copy_is_its_own_and_gives_the_same_matrix(make: Any) -> None:
    operator = make(5)
    with torch.no_grad():
        W = operator.dense()
        copies = copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))
        other = make(5)
        other.load_state_dict(operator.state_dict())
        for p in operator.parameters():
            p.zero_()
        assert all(torch.equal(copied.dense(), W) for copied in (*copies, other))


@EVERY
def test_single_precision_keeps_the_norm_too(make: Any) -> None:
    operator = make(8).float()
    assert operator.defect() < 2e-6


# --- the uRNN's matrix


def sheet_operator() -> StructuredUnitary:
    operator = StructuredUnitary(8, dtype=torch.float64)
    v = torch.stack((pairs_of(pair(0.2, 0.3)), pairs_of(pair(0.4, 0.5))))
    operator.load_state_dict({"theta": det((3, 8), 0.1, 3), "v": v, "perm": (5 * torch.arange(8) + 3) % 8})
    return operator


H = pair(0.6, 0.7, scale=0.5)


def test_u1_unitarity() -> None:
    with torch.no_grad():
        operator = sheet_operator()
        W = operator.dense()
    assert operator.perm.tolist() == [3, 0, 5, 2, 7, 4, 1, 6]
    # sheet: 1.0e-15 for both
    assert operator.defect() < 2e-15
    assert (torch.linalg.eigvals(W).abs() - 1).abs().max() < 4e-15
    # two real parts are misprinted in the sheet, tr W as 0.120951206414009 and W[0,0] as -0.215765617494597: the seven
    # matrices multiplied in NumPy give the numbers below too
    expected = complexes(
        0.120951406414009 - 1.0427116130979832j,
        0.929085361714819 - 0.369865368272352j,
        -0.215765617459926 + 0.169768650665670j,
        -0.156184380353368 + 0.337852979431702j,
    )
    assert_close(torch.stack((W.trace(), torch.linalg.det(W), W[0, 0], W[1, 2])), expected, rtol=1e-13, atol=2e-15)


def test_u2_the_fast_product_is_the_dense_one() -> None:
    with torch.no_grad():
        operator = sheet_operator()
        fast, dense = operator(H), operator.dense() @ H
    # sheet: 6e-16
    assert (fast - dense).abs().max() < 1e-15
    expected = complexes(
        -0.750359960881578 + 0.386704315537024j,
        -0.364451586496793 - 0.213650813086818j,
        -0.115311910176425 - 0.0826255729592491j,
        0.00372204062938462 + 0.0847825700190852j,
        -0.183249307898833 - 0.194896662330648j,
        -0.0592663432907682 - 0.722910090555696j,
        0.17456450526979 - 0.360586902301185j,
        -0.366027929650945 - 0.561816589215051j,
    )
    assert_close(fast, expected, **PRINTED)
    assert_close(torch.stack((H.norm(), fast.norm())), double([1.45813723949534] * 2), **PRINTED)


def test_u3_a_thousand_products_keep_the_norm() -> None:
    with torch.no_grad():
        operator, h = sheet_operator(), H
        built = operator.rebuild()
        for _ in range(1000):
            h = operator(h, built)
    assert (h.norm() / H.norm()).item() == pytest.approx(1, abs=2e-13)


RANKS = {2: 4, 3: 9, 4: 16, 5: 25, 6: 35, 7: 42, 8: 49, 9: 56, 10: 63, 11: 70, 12: 77}


@pytest.mark.parametrize(("n", "rank"), RANKS.items())
def test_u10_the_true_dimension_of_the_family(n: int, rank: int) -> None:
    operator = StructuredUnitary(n, dtype=torch.float64)
    names = ("theta", "v")

    def matrix(theta: Tensor, v: Tensor) -> Tensor:
        found = torch.func.functional_call(operator, {"theta": theta, "v": v}, (torch.eye(n, dtype=torch.complex128),))
        return torch.view_as_real(found)

    point = tuple(getattr(operator, name).detach() for name in names)
    columns = torch.autograd.functional.jacobian(matrix, point)
    J = torch.cat([c.reshape(2 * n * n, -1) for c in columns], 1)
    assert J.shape[1] == 7 * n
    values = torch.linalg.svdvals(J)
    assert int((values > 1e-9 * values[0]).sum()) == rank
    assert rank == (n * n if n <= 5 else 7 * (n - 1))


def test_p6_the_gradient_of_an_axis_is_orthogonal_to_its_ray() -> None:
    operator = StructuredUnitary(7, dtype=torch.float64)
    weigh(torch.view_as_real(operator(torch.randn(5, 7, dtype=torch.complex128)))).backward()
    v, g = complex_of(operator.v.detach()), complex_of(operator.v.grad)
    assert (v.conj() * g).sum(-1).abs().max() < 1e-13
    assert (g.abs().sum(-1) > 0.1).all()


def test_the_length_of_an_axis_does_not_matter() -> None:
    operator = StructuredUnitary(7, dtype=torch.float64)
    with torch.no_grad():
        W = operator.dense()
        operator.v *= 100
        assert_close(operator.dense(), W, **tolerance.ROUNDING)


def test_the_permutation_takes_h_at_perm() -> None:
    n, perm = 5, torch.tensor([2, 0, 1, 4, 3])
    axis = torch.zeros(2, n, dtype=torch.complex128)
    axis[:, 0] = 1
    factors = torch.cat((torch.ones(3, n, dtype=torch.complex128), axis))
    h = torch.randn(n, dtype=torch.complex128)
    mirror = torch.ones(n)
    mirror[0] = -1
    expected = mirror * torch.fft.ifft((mirror * torch.fft.fft(h))[perm])
    assert_close(structured_product(h, factors, perm), expected, **tolerance.ROUNDING)


# --- rotations


def test_b3_two_layers_of_rotations() -> None:
    operator = GivensUnitary(4, 2, dtype=torch.float64)
    angles = {"theta": [0.3, -0.7, 1.1], "phi": [0.5, 0.2, -0.4], "omega": [0.1, 0.2, -0.3, 0.4]}
    operator.load_state_dict(operator.state_dict() | {name: double(value) for name, value in angles.items()})
    with torch.no_grad():
        got = operator(double([0.1, -0.2, 0.3, 0.4]).to(torch.complex128))
        # sheet: 6e-17; eye, two layers and a product round a little more
        assert operator.defect() < 5e-16
    expected = complexes(
        0.143837048888821 + 0.0429101026611736j,
        -0.483215722004864 - 0.0125436924867035j,
        0.040455243237627 - 0.164700130164732j,
        0.0744914637721064 + 0.0974838985990687j,
    )
    assert_close(got, expected, **PRINTED)


@pytest.mark.parametrize(("n", "capacity"), [(4, 4), (6, 2), (7, 4)])
def test_counts_of_rotations(n: int, capacity: int) -> None:
    unitary, orthogonal = GivensUnitary(n, capacity), GivensOrthogonal(n, capacity)
    real = capacity // 2 * (n // 2 + (n - 1) // 2)
    assert sum(p.numel() for p in orthogonal.parameters()) == real
    assert sum(p.numel() for p in unitary.parameters()) == 2 * real + n


def test_real_rotations_are_the_unitary_ones_without_phases() -> None:
    real, unitary = GivensOrthogonal(5, 4, dtype=torch.float64), GivensUnitary(5, 4, dtype=torch.float64)
    with torch.no_grad():
        unitary.theta.copy_(real.theta)
        unitary.phi.zero_()
        unitary.omega.zero_()
        assert_close(unitary.dense(), real.dense().to(torch.complex128), **tolerance.ROUNDING)
        assert_close(torch.linalg.det(real.dense()), double(1.0), **tolerance.ROUNDING)


# --- exponential and Cayley transform

A, G = det((4, 4), 0.2, 1), det((4, 4), 1.2, 1)
UPPER = A[tuple(torch.triu_indices(4, 4, 1))]


def test_b1_exponential_and_its_gradient() -> None:
    operator = Exponential(4, dtype=torch.float64)
    with torch.no_grad():
        operator.A.copy_(UPPER)
    W = operator.dense()
    row = [0.330510808853639, 0.76007127417987, 0.558548203959027, -0.0328354572322092]
    assert_close(W[0].detach(), double(row), **PRINTED)
    # sheet: 2e-16; the limit of the package is 1e-14 sqrt(n)
    assert operator.defect() < 2e-15
    W.backward(G)
    expected = [0.139368346128033, -0.325002798594335, -1.67374983154936]
    expected += [0.452043167515634, -0.0665610693241396, -1.75229928257235]
    assert_close(operator.A.grad, double(expected), **PRINTED)


def test_the_gradient_of_the_exponential_is_a_corner_of_a_larger_one() -> None:
    operator = Exponential(5, "henaff", dtype=torch.float64)
    torch.nn.init.normal_(operator.A)
    cotangent = torch.randn(5, 5).double()
    operator.dense().backward(cotangent)
    S = skew_from(operator.A.detach(), 5)
    block = torch.cat((torch.cat((S.mT, cotangent), 1), torch.cat((0 * S, S.mT), 1)))
    L = torch.linalg.matrix_exp(block)[:5, 5:]
    rows, columns = torch.triu_indices(5, 5, 1)
    assert_close(operator.A.grad, (L - L.mT)[rows, columns], **tolerance.ROUNDING)


def test_rebase_moves_the_base_and_leaves_the_matrix() -> None:
    operator = Exponential(5, "henaff", dtype=torch.float64)
    with torch.no_grad():
        W = operator.dense()
        for project in (False, True):
            operator.rebase(project=project)
            assert not operator.A.any()
            assert_close(operator.dense(), W, **tolerance.ROUNDING)
        torch.nn.init.normal_(operator.A)
        assert_close(operator.dense(), W @ exponential(skew_from(operator.A, 5)), **tolerance.ROUNDING)
        operator.reset_parameters()
        assert_close(operator.B, torch.eye(5).double(), **tolerance.EXACT)


def test_b2_scaled_cayley_and_its_gradient() -> None:
    operator = ScaledCayley(4, 1, dtype=torch.float64)
    with torch.no_grad():
        operator.A.copy_(UPPER)
    W = operator.dense()
    row = [-0.204071327059904, -0.716239678599549, -0.666295072989374, 0.0375032262840099]
    assert_close(W[0].detach(), double(row), **PRINTED)
    assert_close(torch.linalg.det(W).detach(), double(-1.0), **PRINTED)
    W.backward(G)
    assert_close(operator.A.grad[0], double(-0.798973466624146), **PRINTED)
    # sheet: Q = (I + A)^-T G (D + W^T), dL/dA = Q^T - Q
    S = skew_from(operator.A.detach(), 4)
    Q = torch.linalg.solve((torch.eye(4) + S).mT, G @ (operator.D.diag() + W.detach().mT))
    rows, columns = torch.triu_indices(4, 4, 1)
    assert_close(operator.A.grad, (Q.mT - Q)[rows, columns], **tolerance.ROUNDING)


def test_b2_eigen_angles_of_the_cayley_start() -> None:
    u = 1.1
    s = -math.sqrt((1 - math.cos(u)) / (1 + math.cos(u)))
    assert s == pytest.approx(-0.613105213288136, rel=1e-13)
    for operator, angle in (
        (ScaledCayley(2, 0, dtype=torch.float64), u),
        (Exponential(2, dtype=torch.float64), 0.613105213288136),
    ):
        torch.nn.init.constant_(operator.A, s)
        with torch.no_grad():
            angles = torch.linalg.eigvals(operator.dense()).angle()
        assert sorted(angles.tolist()) == pytest.approx([-angle, angle], rel=1e-13)


@pytest.mark.parametrize("rho", [0, 1, 2, 5])
def test_rho_signs_make_the_determinant(rho: int) -> None:
    operator = ScaledCayley(5, rho, dtype=torch.float64)
    assert (operator.D == -1).sum() == rho
    assert_close(torch.linalg.det(operator.dense()).detach(), double((-1.0) ** rho), **tolerance.ROUNDING)


@pytest.mark.parametrize(
    ("rho", "said"),
    [
        (-1, "rho must be a whole number, at least 0, got -1"),
        (6, "rho must be at most the 5 units, got 6"),
        (0.5, "rho must be a whole number, at least 0, got 0.5"),
    ],
)
def test_an_impossible_rho_is_refused(rho: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ScaledCayley(5, rho)


# --- full capacity


def test_b4_geodesic_step() -> None:
    W, G = polar(pair(0.1, 0.9, (3, 3))), pair(0.3, 0.6, (3, 3))
    operator = DenseUnitary(3, dtype=torch.float64)
    with torch.no_grad():
        operator.W.copy_(pairs_of(W))
    # a loss whose gradient is G everywhere
    (G.conj() * operator.dense()).sum().real.backward()
    assert_close(complex_of(operator.W.grad), G, **tolerance.EXACT)
    assert_close(-0.5 * skew(W, G).abs().square().sum(), double(-0.451333854812127), **PRINTED)
    operator.descend(0.1)
    assert_close(operator.dense().detach(), geodesic_step(W, G, 0.1), **tolerance.EXACT)
    with torch.no_grad():
        # sheet: 7e-16
        assert operator.defect() < 1e-15


def test_b4_the_slope_of_the_loss_is_minus_half_the_square_of_the_skew_matrix() -> None:
    W, G = polar(pair(0.1, 0.9, (3, 3))), pair(0.3, 0.6, (3, 3))

    def loss(eta: float) -> Tensor:
        return (G.conj() * geodesic_step(W, G, eta)).sum().real

    eta = 1e-5
    slope = (loss(eta) - loss(-eta)) / (2 * eta)
    assert slope.item() == pytest.approx(-0.451333854812127, rel=1e-8)


def test_hundred_geodesic_steps_descend_and_stay_unitary() -> None:
    operator, target = DenseUnitary(6, dtype=torch.float64), DenseUnitary(6, dtype=torch.float64).dense().detach()
    losses = []
    for _ in range(100):
        operator.zero_grad()
        loss = 0.5 * (operator.dense() - target).abs().square().sum()
        loss.backward()
        losses.append(loss.item())
        operator.descend(0.1)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01 * losses[0]
    with torch.no_grad():
        assert operator.defect() < 1e-13


def test_a_step_down_no_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match=r"W has no gradient: call backward\(\)"):
        DenseUnitary(3).descend(0.1)
