"""Orthogonal and unitary matrices: the geodesic (Cayley) step, the way back to the manifold, and the margin map.

Source: spec sheet ``spectral.md`` 1, 2 and 5 (Vorontsov, Trabelsi, Kadoury and Pal, ICML 2017, arXiv 1702.00071).
Matrices are real or complex, (..., n, k) with k <= n; the transpose of a complex one is its conjugate transpose.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pendula._check import ShapeError


def geodesic_step(M: Tensor, G: Tensor, eta: float) -> Tensor:
    """One step of descent along the manifold ``M^T M = I`` (sheet, equation 3, after Nishimori and Tagare).

        A = G M^T - M G^T,   M <- (I + eta/2 A)^{-1} (I - eta/2 A) M

    A is skew, so M stays orthogonal for any eta; the loss changes at the rate ``-|A|^2 / 2 <= 0``. A tall M (2 k < n)
    goes through Woodbury's identity, which solves a 2k x 2k system.

    Args:
        M: orthogonal (unitary) matrix (..., n, k).
        G: gradient of the loss with respect to M; for a complex M: dL/dRe + i dL/dIm, as PyTorch has it.
        eta: step size.

    Errors: ShapeError when M is wider than tall or G has another shape.

    >>> M, G = torch.eye(3), torch.arange(9.0).reshape(3, 3)
    >>> bool(orthogonality_defect(geodesic_step(M, G, 0.5)) < 1e-6)
    True
    """
    n, k = M.shape[-2:]
    if k > n or G.shape != M.shape:
        raise ShapeError(f"M must be (..., n, k) with k <= n and G like it, got {tuple(M.shape)} and {tuple(G.shape)}")
    if 2 * k < n:
        P, Q = torch.cat((G, M), -1), torch.cat((M, -G), -1)
        small = _eye(2 * k, M) + 0.5 * eta * Q.mH @ P
        moved: Tensor = M - eta * P @ torch.linalg.solve(small, Q.mH @ M)
    else:
        half = 0.5 * eta * skew(M, G)
        moved = torch.linalg.solve(_eye(n, M) + half, M - half @ M)
    return moved


def skew(M: Tensor, G: Tensor) -> Tensor:
    """A of the geodesic step: the direction of steepest descent is ``-A M``."""
    product = G @ M.mH
    return product - product.mH


def polar(M: Tensor) -> Tensor:
    """The orthogonal (unitary) matrix nearest to M: ``U V^T`` of its singular value decomposition.

    >>> polar(torch.tensor([[3.0, 0.0], [0.0, -2.0]]))
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    product: Tensor = U @ Vh
    return product


def newton_schulz(M: Tensor) -> Tensor:
    """One step of Newton and Schulz towards `polar(M)`: a small defect d becomes about 3/4 d^2."""
    return 1.5 * M - 0.5 * M @ (M.mH @ M)


def orthogonality_defect(M: Tensor) -> Tensor:
    """The largest number of ``|M^T M - I|``: zero on the manifold."""
    return (M.mH @ M - _eye(M.shape[-1], M)).abs().max()


def orthogonality_penalty(W: Tensor) -> Tensor:
    """``|W^T W - I|_F^2``, with the gradient ``4 W (W^T W - I)`` (sheet 2.4)."""
    return (W.mH @ W - _eye(W.shape[-1], W)).abs().square().sum()


def margin_map(p: Tensor, margin: float) -> Tensor:
    """Singular values between ``1 - m`` and ``1 + m`` from free numbers (sheet, equation 2).

        s = 2 m (sigmoid(p) - 1/2) + 1 = 1 + m tanh(p / 2)

    >>> margin_map(torch.zeros(2), 0.3)
    tensor([1., 1.])
    """
    return 1 + margin * torch.tanh(0.5 * p)


def margin_inverse(s: Tensor, margin: float) -> Tensor:
    """The p whose `margin_map` is s.

    Errors: ValueError when a value is not strictly inside the margin, or the margin is 0.
    """
    # the logit of 1/2 + (s - 1) / (2 m), exact also near s = 1
    inside = (s - 1) / margin if margin else torch.full_like(s, math.inf)
    if s.device.type != "meta" and not bool((inside.abs() < 1).all()):
        raise ValueError(
            f"singular values must be strictly between {1 - margin:g} and {1 + margin:g}, got {float(s.min()):.6g} to "
            f"{float(s.max()):.6g}: clip them, or take a wider margin"
        )
    return 2 * torch.atanh(inside)


def gain_horizon(margin: float) -> float:
    """Steps after which a gain of ``1 + m`` per step, the worst that a margin allows, reaches e (sheet S3).

    >>> [round(gain_horizon(m), 1) for m in (0.001, 0.01, 0.1)]
    [1000.5, 100.5, 10.5]
    """
    return 1 / math.log1p(margin) if margin else math.inf


def _eye(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)
