"""Geodesic steps, penalties and the margin map: oracles F1, F3 to F7, F9, F10, F12 of the spec sheet spectral.md."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula import ShapeError
from pendula.math.orthogonal import (
    gain_horizon,
    geodesic_step,
    margin_inverse,
    margin_map,
    newton_schulz,
    orthogonality_defect,
    orthogonality_penalty,
    polar,
    skew,
)
from pendula.math.unitary import complex_of, pairs_of
from tests import tolerance
from tests.cells.sheet import det

MARGIN = 0.3
REAL_AND_COMPLEX = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])


def double(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def orth(M: Tensor) -> Tensor:
    """2 I + M made orthogonal, as the sheet has its bases."""
    return polar(2 * torch.eye(len(M), dtype=M.dtype) + M)


def common() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U, V, p and G_W of the sheet's section 7."""
    U, V = orth(det((4, 4), 0.1, 1)), orth(det((4, 4), 0.7, 1))
    return U, V, double([-1.0, 0.0, 0.5, 3.0]), det((4, 4), 2, 1)


def gradients(U: Tensor, V: Tensor, p: Tensor, G_W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The chain rule of the sheet's section 2.2: gradients of U, V and p from that of W."""
    s, sigma = margin_map(p, MARGIN), torch.sigmoid(p)
    g_s = (U.T @ G_W @ V).diagonal()
    return G_W @ V * s, G_W.T @ U * s, 2 * MARGIN * sigma * (1 - sigma) * g_s


def slope(step: Callable[[float], Tensor], G: Tensor) -> float:
    """Rate of change of Re<G, M> along a step, by central differences."""
    h = 1e-5
    return float(((step(h) - step(-h)) * G.conj()).sum().real / (2 * h))


def test_f1_spectrum() -> None:
    U, V, p, _ = common()
    s = margin_map(p, MARGIN)
    assert_close(s, double([0.861364852821997, 1, 1.07347559872111, 1.27154447609346]), **tolerance.PRINTED_16)
    assert_close(s, 2 * MARGIN * (torch.sigmoid(p) - 0.5) + 1, **tolerance.ROUNDING)
    assert_close(torch.linalg.svdvals((U * s) @ V.T).flip(0), s, **tolerance.PRINTED_16)


def test_the_inverse_of_the_margin_map_is_its_inverse() -> None:
    p = double([-1.0, 0.0, 0.5, 3.0, 1e-9, -12.0])
    assert_close(margin_inverse(margin_map(p, MARGIN), MARGIN), p, rtol=1e-9, atol=1e-15)
    s = double([0.75, 1.2])
    assert_close(margin_inverse(s, MARGIN), torch.logit(0.5 + (s - 1) / (2 * MARGIN)), **tolerance.ROUNDING)


@pytest.mark.parametrize(("value", "margin"), [(1.31, 0.3), (0.7, 0.3), (1.0, 0.0), (math.nan, 0.3)])
def test_a_singular_value_outside_of_the_margin_is_refused(value: float, margin: float) -> None:
    with pytest.raises(ValueError, match=r"singular values must be strictly between .*clip them, or take a wider"):
        margin_inverse(double([1.0, value]), margin)


def test_f3_chain_rule_is_that_of_autograd() -> None:
    U, V, p, G_W = common()
    expected = gradients(U, V, p, G_W)
    assert_close(
        expected[2],
        double([0.0682760938772969, 0.0484313905482175, -0.121483089580593, -0.0334954107488722]),
        **tolerance.PRINTED_16,
    )
    leaves = tuple(t.requires_grad_() for t in (U, V, p))
    loss = (((U * margin_map(p, MARGIN)) @ V.T) * G_W).sum()
    for got, wanted in zip(torch.autograd.grad(loss, leaves), expected, strict=True):
        # the sheet measured 3e-16 for the largest difference, on numbers of order one
        assert_close(got, wanted, rtol=0.0, atol=1e-15)


def test_f4_cayley_step() -> None:
    U, V, p, G_W = common()
    moved = geodesic_step(U, gradients(U, V, p, G_W)[0], 0.1)
    row = [0.887461455096457, 0.333899214862089, 0.129086743718951, 0.290275890539668]
    assert_close(moved[0], double(row), **tolerance.PRINTED_16)
    assert orthogonality_defect(moved) < 2e-15


def test_f5_slope() -> None:
    U, V, p, G_W = common()
    G = gradients(U, V, p, G_W)[0]
    assert float(-0.5 * skew(U, G).square().sum()) == pytest.approx(-8.278436666442813, rel=1e-14)
    assert slope(lambda eta: geodesic_step(U, G, eta), G) == pytest.approx(-8.2784366664, rel=1e-9)


def test_s4_both_bases_together_descend_by_half_the_squares_of_their_directions() -> None:
    U, V, p, G_W = common()
    s = margin_map(p, MARGIN)
    G_U, G_V, _ = gradients(U, V, p, G_W)

    def W(eta: float) -> Tensor:
        return (geodesic_step(U, G_U, eta) * s) @ geodesic_step(V, G_V, eta).T

    expected = -0.5 * float(skew(U, G_U).square().sum() + skew(V, G_V).square().sum())
    assert slope(W, G_W) == pytest.approx(expected, rel=1e-8)


def test_f6_two_thousand_updates_keep_the_bases_orthogonal_and_the_margin() -> None:
    U, V, p, _ = common()
    low, high, defect = math.inf, 0.0, 0.0
    for k in range(2000):
        G_U, G_V, g_p = gradients(U, V, p, det((4, 4), 0.37 * k, 1))
        U, V, p = geodesic_step(U, G_U, 0.05), geodesic_step(V, G_V, 0.05), p - 0.5 * g_p
        s = torch.linalg.svdvals((U * margin_map(p, MARGIN)) @ V.T)
        low, high = min(low, float(s[-1])), max(high, float(s[0]))
        defect = max(defect, float(orthogonality_defect(U)), float(orthogonality_defect(V)))
    assert defect <= 2e-14
    assert [low, high] == pytest.approx([0.857702222, 1.299283169], abs=0.5e-9)


@pytest.mark.parametrize(
    ("phase", "correct", "released"),
    [
        (0, -3.501824482, 3.496283447),
        (1, -4.270058413, 3.928924311),
        (2, -4.692954096, 4.195106052),
        (3, -3.572746764, 3.540923809),
    ],
)
def test_f7_the_side_that_the_step_multiplies_on_is_the_one_that_descends(
    phase: int, correct: float, released: float
) -> None:
    W, G = orth(det((3, 3), 0.1, 1)), det((3, 3), phase, 1)

    def wrong(eta: float) -> Tensor:
        # the release forms A for row vectors and still multiplies from the left
        M, g = W.T, G.T
        A = g.T @ M - M.T @ g
        half = 0.5 * eta * A
        return torch.linalg.solve(torch.eye(3, dtype=A.dtype) + half, M - half @ M).T

    assert slope(lambda eta: geodesic_step(W, G, eta), G) == pytest.approx(correct, abs=1e-8)
    assert slope(wrong, G) == pytest.approx(released, abs=1e-8)


@REAL_AND_COMPLEX
@pytest.mark.parametrize("columns", [5, 4, 2])
def test_f7_descent_for_any_matrix_and_gradient(dtype: torch.dtype, columns: int) -> None:
    for _ in range(50):
        M = polar(torch.randn(5, columns, dtype=dtype))
        G = torch.randn(5, columns, dtype=dtype)
        expected = -0.5 * float(skew(M, G).abs().square().sum())
        assert expected < 0
        assert slope(lambda eta, M=M, G=G: geodesic_step(M, G, eta), G) == pytest.approx(expected, rel=1e-5)


def full_cayley(M: Tensor, G: Tensor, eta: float) -> Tensor:
    half = 0.5 * eta * skew(M, G)
    return torch.linalg.solve(torch.eye(len(M), dtype=M.dtype) + half, M - half @ M)


def test_f9_woodbury_is_the_whole_step() -> None:
    eye = torch.eye(6, 2, dtype=torch.float64)
    M, G = torch.linalg.qr(eye + det((6, 2), 0.3, 1)).Q, det((6, 2), 1.3, 1)
    moved = geodesic_step(M, G, 0.2)
    # the sheet says 1e-16; both sides are rounded, each to some units of 1e-16
    assert_close(moved, full_cayley(M, G, 0.2), rtol=0.0, atol=5e-16)
    assert orthogonality_defect(moved) < 1e-15


@REAL_AND_COMPLEX
@pytest.mark.parametrize("columns", [1, 3, 4, 7])
def test_a_tall_matrix_of_any_width_takes_the_whole_step(dtype: torch.dtype, columns: int) -> None:
    M, G = polar(torch.randn(7, columns, dtype=dtype)), torch.randn(7, columns, dtype=dtype)
    assert_close(geodesic_step(M, G, 0.3), full_cayley(M, G, 0.3), rtol=0.0, atol=1e-14)


def test_a_batch_of_matrices_takes_their_steps_one_by_one() -> None:
    M, G = polar(torch.randn(3, 4, 4).double()), torch.randn(3, 4, 4).double()
    alone = torch.stack([geodesic_step(m, g, 0.1) for m, g in zip(M, G, strict=True)])
    assert_close(geodesic_step(M, G, 0.1), alone, **tolerance.ROUNDING)


def test_matrices_that_can_take_no_step_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"k <= n and G like it, got \(2, 3\) and \(2, 3\)"):
        geodesic_step(torch.zeros(2, 3), torch.zeros(2, 3), 0.1)
    with pytest.raises(ShapeError, match="G like it"):
        geodesic_step(torch.eye(3), torch.zeros(3, 2), 0.1)


@REAL_AND_COMPLEX
def test_any_step_size_keeps_the_manifold(dtype: torch.dtype) -> None:
    M, G = polar(torch.randn(6, 6, dtype=dtype)), torch.randn(6, 6, dtype=dtype)
    for eta in (1e-6, 1.0, 1e3, -5.0):
        assert orthogonality_defect(geodesic_step(M, G, eta)) < 1e-12


def test_a_complex_step_is_the_real_one_on_real_matrices() -> None:
    M, G = polar(torch.randn(4, 4).double()), torch.randn(4, 4).double()
    moved = geodesic_step(M + 0j, G + 0j, 0.2)
    assert_close(moved, geodesic_step(M, G, 0.2) + 0j, **tolerance.ROUNDING)


def test_gradients_of_a_real_pair_are_those_that_the_complex_step_takes() -> None:
    pair = pairs_of(polar(torch.randn(3, 3, dtype=torch.complex128))).requires_grad_()
    target = torch.randn(3, 3, dtype=torch.complex128)

    def loss(M: Tensor) -> Tensor:
        return (M @ target).abs().pow(3).sum()

    (G,) = torch.autograd.grad(loss(complex_of(pair)), pair)
    M, G = complex_of(pair.detach()), complex_of(G)
    h = 1e-5
    rate = float(loss(geodesic_step(M, G, h)) - loss(geodesic_step(M, G, -h))) / (2 * h)
    assert rate == pytest.approx(-0.5 * float(skew(M, G).abs().square().sum()), rel=1e-6)


def test_f10_penalty() -> None:
    W = det((3, 3), 0.4, 0.8).requires_grad_()
    penalty = orthogonality_penalty(W)
    assert penalty.item() == pytest.approx(5.811879407795218, rel=1e-14)
    (gradient,) = torch.autograd.grad(penalty, W)
    with torch.no_grad():
        by_hand = 4 * W @ (W.T @ W - torch.eye(3).double())
    assert_close(gradient, by_hand, rtol=1e-14, atol=1e-15)


def test_f12_without_a_margin_the_singular_values_are_one_and_nothing_moves_them() -> None:
    U, V, p, G_W = common()
    p.requires_grad_()
    s = margin_map(p, 0.0)
    assert_close(s.detach(), torch.ones(4).double(), **tolerance.EXACT)
    W = (U * s) @ V.T
    assert orthogonality_defect(W.detach()) < 1e-14
    (g_p,) = torch.autograd.grad((W * G_W).sum(), p)
    assert not g_p.any()


@REAL_AND_COMPLEX
def test_the_polar_factor_is_the_nearest_matrix_of_the_manifold(dtype: torch.dtype) -> None:
    M = torch.randn(4, 4, dtype=dtype)
    nearest = polar(M)
    assert orthogonality_defect(nearest) < 1e-14
    for _ in range(20):
        other = polar(nearest + 0.1 * torch.randn(4, 4, dtype=dtype))
        assert (M - nearest).norm() < (M - other).norm()


@REAL_AND_COMPLEX
def test_newton_schulz_squares_the_defect_and_tends_to_the_polar_factor(dtype: torch.dtype) -> None:
    M = polar(torch.randn(5, 5, dtype=dtype)) + 1e-4 * torch.randn(5, 5, dtype=dtype)
    after = newton_schulz(M)
    assert orthogonality_defect(after) < 5 * orthogonality_defect(M) ** 2
    assert_close(newton_schulz(newton_schulz(after)), polar(M), rtol=0.0, atol=1e-14)


def test_s3_horizon_of_a_margin() -> None:
    assert [gain_horizon(m) for m in (0.001, 0.01, 0.1)] == pytest.approx([1000.5, 100.5, 10.5], abs=0.05)
    assert (1.1 ** gain_horizon(0.1)) == pytest.approx(math.e)
    assert gain_horizon(0.0) == math.inf
