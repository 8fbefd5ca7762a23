"""The matrix exponential: against 60 digits, theorems for skew matrices, batches, gradients."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula.cells.lmu import sliding_window
from pendula.math.exponential import exponential
from pendula.math.unitary import skew_from
from tests import tolerance

NORMS = [1e-9, 1e-4, 0.01, 0.03, 0.1, 0.5, 1.0, 3.0, 5.3, 5.4, 20.0, 50.0]
"""torch 2.13's own is wrong in a band around 0.03."""
EPS = 2.0**-53


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def exact(A: Tensor) -> Tensor:
    """exp(A) of one small matrix, rounded once."""
    with mpmath.workdps(60):
        rows = mpmath.expm(mpmath.matrix(A.tolist()), method="taylor").tolist()
    return torch.tensor([[complex(z) if A.is_complex() else float(z) for z in row] for row in rows], dtype=A.dtype)


def with_norm(A: Tensor, norm: float) -> Tensor:
    return A * (norm / A.abs().sum(-2).max())


def general(n: int = 5) -> Tensor:
    return torch.randn(n, n).double()


def skew(n: int = 5) -> Tensor:
    A = general(n)
    return A - A.mT


def skew_hermitian(n: int = 5) -> Tensor:
    A = torch.randn(n, n, dtype=torch.complex128)
    return A - A.mH


def nilpotent(n: int = 5) -> Tensor:
    return general(n).triu(1)


def window(n: int = 5) -> Tensor:
    """A of an LMU beside B: far from normal."""
    i = torch.arange(n)
    below = i.unsqueeze(1) - i
    A = (2 * i + 1).unsqueeze(1) * torch.where(below < 0, -1, 2 * (below % 2) - 1)
    return double(torch.cat((torch.cat((A, A[:, :1]), 1), torch.zeros(1, n + 1)), 0))


def stiff(n: int = 5) -> Tensor:
    """Stable, with rates far apart, in a basis far from orthogonal."""
    S = torch.eye(n).double() + 3 * general(n).triu(1)
    return S @ torch.diag(-(4.0 ** torch.arange(n).double())) @ torch.linalg.inv(S)


def complex_general(n: int = 5) -> Tensor:
    return torch.randn(n, n, dtype=torch.complex128)


MATRICES = [general, skew, skew_hermitian, nilpotent, window, stiff, complex_general]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", MATRICES)
def test_it_is_that_of_sixty_digits(make: Any, norm: float) -> None:
    A = with_norm(make(), norm)
    expected = exact(A)
    # what rounding A itself moves is up to eps |A| |exp(A)|, and more for nonnormal ones
    limit = 12 * EPS * max(1, norm) * expected.abs().max().clamp(min=1)
    assert (exponential(A) - expected).abs().max() <= limit


@pytest.mark.parametrize(("q", "theta"), [(4, 10.0), (6, 1.0), (12, 7.0), (16, 30.0)])
def test_the_memory_of_an_lmu_is_that_of_sixty_digits(q: int, theta: float) -> None:
    expected = exact(window(q) / theta)
    A_bar, _ = sliding_window(q, theta)
    assert (A_bar - expected[:q, :q]).abs().max() <= 1e-14


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", [skew, skew_hermitian])
def test_that_of_a_skew_matrix_is_orthogonal(make: Any, norm: float) -> None:
    W = exponential(with_norm(make(16), norm))
    # each squaring doubles the defect of the quotient
    assert (W.mH @ W - torch.eye(16)).abs().max() <= 1e-15 * 4 * max(1, norm)


def test_an_exponential_far_below_one_is_right_in_its_own_digits() -> None:
    assert exponential(double([[-50.0]])).item() == pytest.approx(math.exp(-50), rel=1e-13)


def test_that_of_the_transpose_is_the_transpose_and_that_of_the_negative_the_inverse() -> None:
    A = with_norm(general(), 4)
    assert_close(exponential(A.mT), exponential(A).mT, **tolerance.ROUNDING)
    assert_close(exponential(-A) @ exponential(A), torch.eye(5).double(), rtol=0, atol=1e-12)


# --- batches


def test_each_matrix_of_a_batch_is_treated_by_its_own_norm() -> None:
    A = torch.stack([with_norm(general(), norm) for norm in NORMS]).reshape(3, 4, 5, 5)
    alone = torch.stack([exponential(a) for a in A.flatten(0, 1)]).reshape(A.shape)
    got = exponential(A)
    # a small matrix that was squared with the large ones would have their rounding
    assert ((got - alone).abs().amax((-2, -1)) <= 4 * EPS * alone.abs().amax((-2, -1))).all()


def test_an_empty_batch_has_no_exponentials() -> None:
    assert exponential(torch.empty(0, 3, 3)).shape == (0, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_the_type_stays(dtype: torch.dtype) -> None:
    A = torch.randn(3, 2, 2, dtype=dtype)
    assert exponential(A).dtype == dtype
    assert exponential(A.to("meta")).shape == A.shape


def test_single_precision_is_as_exact_as_it_can_be() -> None:
    for norm in NORMS:
        A = with_norm(torch.randn(6, 6), norm)
        expected = exponential(A.double())
        error = (exponential(A).double() - expected).abs().max() / expected.abs().max().clamp(min=1)
        assert error <= 5e-7 * max(1, norm)


def test_what_is_not_finite_spoils_its_own_matrix_only() -> None:
    A = general().repeat(3, 1, 1)
    A[0, 1, 2], A[1, 1, 2] = float("nan"), float("inf")
    W = exponential(A)
    assert [bool(w.isfinite().all()) for w in W] == [False, False, True]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 3, 2), (0, 0)])
def test_what_is_no_square_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"A must hold square matrices, \(\.\.\., n, n\), got \("):
        exponential(torch.zeros(shape))


# --- gradients


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_are_those_of_finite_differences(dtype: torch.dtype) -> None:
    # no squaring, one, two
    A = torch.stack([with_norm(torch.randn(3, 3, dtype=dtype), norm) for norm in (0.5, 7.0, 11.0)])
    assert torch.autograd.gradcheck(exponential, (A.requires_grad_(),))
    assert torch.autograd.gradgradcheck(exponential, (A[:2].detach().requires_grad_(),))


@pytest.mark.parametrize("norm", NORMS)
def test_a_gradient_is_the_derivative_in_sixty_digits(norm: float) -> None:
    A, G = with_norm(general(4), norm).requires_grad_(), general(4)
    exponential(A).backward(G)
    # exp([[A^T, G], [0, A^T]]) holds the derivative, transposed, in its corner (Higham 2008, 3.2)
    block = torch.cat((torch.cat((A.detach().mT, G), 1), torch.cat((torch.zeros(4, 4), A.detach().mT), 1)))
    expected = exact(block)[:4, 4:]
    assert (A.grad - expected).abs().max() <= 20 * EPS * max(1, norm) * expected.abs().max()


# --- skew matrices


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 0.02, 0.04, 0.3, 0.5, 1.0, 1.5, 3.0, 5.3, 5.4, 30.0, 300.0])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-15), (torch.float32, 5e-7)])
def test_the_exponential_of_a_plane_generator_is_a_rotation(dtype: torch.dtype, limit: float, angle: float) -> None:
    # torch 2.13 errs by 8e-11 at 0.04 in float64 and by 2e-5 at 0.5 in float32 (pytorch issue 196592)
    A = torch.tensor([[0.0, -angle], [angle, 0.0]], dtype=dtype)
    turn = A[1, 0].double()
    expected = torch.stack((turn.cos(), -turn.sin(), turn.sin(), turn.cos())).reshape(2, 2)
    W = exponential(A).double()
    # an angle of 300 has itself an error of 300 roundings, and each squaring doubles the defect
    assert (W - expected).abs().max() <= limit * max(1, angle)
    assert (W.mT @ W - torch.eye(2)).abs().max() <= limit * max(1, angle)


@pytest.mark.parametrize("scale", [1e-4, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("n", [2, 8, 64])
def test_the_exponential_turns_each_plane_by_its_angle(n: int, scale: float) -> None:
    Q = torch.linalg.qr(torch.randn(n, n).double()).Q
    J = torch.block_diag(*[double([[0, -1], [1, 0]])] * (n // 2))
    angles = scale * torch.randn(n // 2).double().repeat_interleave(2)
    A = Q @ (angles.unsqueeze(1) * J) @ Q.mT
    A = 0.5 * (A - A.mT)
    turned = angles.cos().diag() + angles.sin().unsqueeze(1) * J
    W = exponential(A)
    assert_close(W, Q @ turned @ Q.mT, rtol=0, atol=1e-14 * max(1, scale) * n**0.5)
    assert (W.mT @ W - torch.eye(n)).abs().max() <= 1e-14 * n**0.5


def test_gradients_of_the_exponential_are_those_of_finite_differences() -> None:
    for scale in (0.01, 1.0, 9.0):
        upper = (scale * torch.randn(6).double()).requires_grad_()
        assert torch.autograd.gradcheck(lambda a: exponential(skew_from(a, 4)), (upper,))
    zero = torch.zeros(6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: exponential(skew_from(a, 4)), (zero,))
