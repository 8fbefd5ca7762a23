"""The exponential of matrices, to rounding. Used instead of `torch.linalg.matrix_exp`, which is not.

torch 2.13 errs by up to 2e-10 in float64 and 5e-5 in float32 where it takes its polynomial of degree 8 (pytorch issue
196592): no rotation comes out for a skew matrix, and no unitary one for a Hamiltonian.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PADE = [math.comb(13, k) * math.perm(26 - k, 13 - k) / math.perm(26, 13) for k in range(14)]
"""Coefficients of the diagonal Pade approximant p(x) / p(-x) of exp(x), of degree 13, with p(0) = 1."""

REACH = 5.37
"""1-norm up to which that approximant is exact to rounding in float64 (Higham 2005, table 2.3)."""


def exponential(A: Tensor) -> Tensor:
    """exp(A) for matrices A (..., n, n), real or complex, of any norm. Differentiable.

        exp(A) = (p(-A / 2^s)^{-1} p(A / 2^s))^(2^s)

    Pade's approximant of degree 13, then s squarings, as few as bring the 1-norm of A / 2^s below 5.37, for each matrix
    of the batch (Higham 2005, SIAM J. Matrix Anal. Appl. 26, 1179). For skew (skew-Hermitian) A the quotient is
    orthogonal (unitary), and each squaring doubles its rounding.

    A matrix with an entry that is not finite gives NaN.

    Errors: ValueError for what is no batch of square matrices.

    >>> exponential(torch.tensor([[0.0, -torch.pi / 2], [torch.pi / 2, 0.0]])).round(decimals=6).abs()
    tensor([[0., 1.],
            [1., 0.]])
    """
    if A.dim() < 2 or A.shape[-1] != A.shape[-2] or A.shape[-1] == 0:
        raise ValueError(f"A must hold square matrices, (..., n, n), got {tuple(A.shape)}")
    s = squarings(A.detach())
    A = A * torch.exp2(-s)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    A2 = A @ A
    A4 = A2 @ A2
    A6 = A4 @ A2
    b = PADE
    even = A6 @ (b[12] * A6 + b[10] * A4 + b[8] * A2) + b[6] * A6 + b[4] * A4 + b[2] * A2 + eye
    odd = A @ (A6 @ (b[13] * A6 + b[11] * A4 + b[9] * A2) + b[7] * A6 + b[5] * A4 + b[3] * A2 + b[1] * eye)
    W: Tensor = torch.linalg.solve(even - odd, even + odd)
    for done in range(int(s.max()) if s.numel() and not s.is_meta else 0):
        W = torch.where(s > done, W @ W, W)
    return W


def squarings(A: Tensor) -> Tensor:
    """s (..., 1, 1): how often each matrix of A (..., n, n) is halved, and its exponential squared."""
    norm = A.abs().sum(-2, keepdim=True).amax(-1, keepdim=True)
    return torch.log2(norm / REACH).ceil().clamp(min=0).nan_to_num(0, 0)
