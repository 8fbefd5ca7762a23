"""Unitary and orthogonal products made of cheap factors, and modReLU, the activation that keeps a phase or a sign.

Sources: spec sheets ``urnn.md`` 1, 3, 4 (Arjovsky, Shah and Bengio, ICML 2016, arXiv 1511.06464) and ``baselines.md``
1.1 to 1.3 (Lezcano-Casado and Martinez-Rubio, arXiv 1901.08428; Helfrich, Willmott and Ye, arXiv 1707.09520; Jing et
al., arXiv 1612.05231). Gradients of complex numbers follow PyTorch: ``dL/dRe + i dL/dIm``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def modrelu(z: Tensor, b: Tensor | float, eps: float = 0.0) -> Tensor:
    """Shrink (b < 0) or stretch (b > 0) each number along its own direction; real or complex z.

        modReLU(z) = (|z| + b) z / (|z| + eps)   where |z| + b >= 0,   else 0

    At z = 0 value and gradient are 0 by definition, for any b. eps = 0 is the paper's equation; codes of the authors
    add 1e-5 (sheet ``urnn.md`` 9.1).

    Args:
        z: (..., N), real or complex.
        b: (N,) real, or a number.
        eps: at least 0.

    >>> modrelu(torch.tensor([3 + 4j, 0.3 + 0.4j, 0j]), torch.tensor([-1.0, -0.6, 0.2]))
    tensor([2.4000+3.2000j, 0.0000+0.0000j, 0.0000+0.0000j])
    """
    size = z.abs()
    # sgn(0) is 0 and so is its gradient: a quotient z / |z| would be NaN there
    new = torch.relu(size + b) * torch.sgn(z)
    return new * (size / (size + eps)) if eps else new


def modrelu_gains(z: Tensor, b: Tensor | float, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """Singular values of the modReLU Jacobian at complex z: along z and across, both 0 at dead units.

    For eps = 0 they are 1 and ``1 + b / |z|`` (sheet ``urnn.md`` P4): the second has no bound as z -> 0 where b > 0.
    """
    size = z.abs()
    active = (size + b > 0) & (size > 0)
    size = torch.where(active, size, 1)
    along = (size**2 + 2 * size * eps + b * eps) / (size + eps) ** 2
    return active * along, active * (size + b) / (size + eps)


def max_tangential_gain(z: Tensor, b: Tensor | float, eps: float = 0.0) -> Tensor:
    """The largest factor by which modReLU at these points stretches a gradient: 1 at most where b <= eps.

    >>> max_tangential_gain(torch.tensor([0.3 + 0.4j]), 0.1)
    tensor(1.2000)
    """
    return modrelu_gains(z, b, eps)[1].amax()


# --- complex numbers kept as real pairs


def complex_of(pairs: Tensor) -> Tensor:
    """(..., 2n) real, [Re | Im] -> (..., n) complex."""
    re, im = pairs.chunk(2, -1)
    return torch.complex(re, im)


def pairs_of(z: Tensor) -> Tensor:
    """(..., n) complex -> (..., 2n) real, [Re | Im]."""
    return torch.cat((z.real, z.imag), -1)


def phase(theta: Tensor) -> Tensor:
    """``e^{i theta}``."""
    return torch.complex(theta.cos(), theta.sin())


# --- the seven factors of the uRNN


def direction(v: Tensor) -> Tensor:
    """The unit vectors along v (..., n), which is all that a reflection sees of them."""
    u: Tensor = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return u


def reflect(h: Tensor, u: Tensor) -> Tensor:
    """``R h = h - 2 u u^* h`` for rows h (..., n) and a unit vector u (n,). R is its own inverse and adjoint.

    >>> reflect(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]))
    tensor([-3.,  4.])
    """
    return h - 2 * (h * u.conj()).sum(-1, keepdim=True) * u


def structured_product(h: Tensor, factors: Tensor, perm: Tensor) -> Tensor:
    """W h of the uRNN for rows h (..., n), in O(n log n).

        W = D_3 R_2 F^{-1} D_2 Pi R_1 F D_1      (the rightmost acts first; F the unitary Fourier transform)

    Sheet ``urnn.md`` equation (3) and section 3.

    Args:
        h: (..., n) complex.
        factors: (5, n) complex: the diagonals ``e^{i theta}`` of D_1, D_2, D_3 and the unit vectors of R_1, R_2.
        perm: (n,), ``(Pi h)_j = h_{perm[j]}``.
    """
    d1, d2, d3, u1, u2 = factors
    y = reflect(torch.fft.fft(d1 * h, norm="ortho"), u1)
    y = reflect(torch.fft.ifft(d2 * y.index_select(-1, perm), norm="ortho"), u2)
    return torch.mul(d3, y)


def structured_adjoint(h: Tensor, factors: Tensor, perm: Tensor) -> Tensor:
    """``W^* h``, which is ``W^{-1} h``: the factors of `structured_product` undone from left to right."""
    d1, d2, d3, u1, u2 = factors
    y = d2.conj() * torch.fft.fft(reflect(d3.conj() * h, u2), norm="ortho")
    y = torch.fft.ifft(reflect(y.index_select(-1, torch.argsort(perm)), u1), norm="ortho")
    return torch.mul(d1.conj(), y)


# --- layers of plane rotations


def tunable_pairs(size: int, layers: int) -> list[list[tuple[int, int]]]:
    """Neighbours (0,1)(2,3)... and (1,2)(3,4)... in turn; an end without a partner stays as it is.

    >>> tunable_pairs(4, 2)
    [[(0, 1), (2, 3)], [(1, 2)]]
    """
    return [[(i, i + 1) for i in range(layer % 2, size - 1, 2)] for layer in range(layers)]


def butterfly_pairs(size: int) -> list[list[tuple[int, int]]]:
    """The log2(size) layers of a fast Fourier transform, widest first: partners at distance size/2, ..., 2, 1.

    >>> butterfly_pairs(4)
    [[(0, 2), (1, 3)], [(0, 1), (2, 3)]]
    """
    gaps = [size >> k for k in range(1, size.bit_length())]
    return [[(i, i + gap) for i in range(size) if not i & gap] for gap in gaps]


def rotation_layout(pairs: list[list[tuple[int, int]]], size: int) -> tuple[Tensor, Tensor]:
    """Partner and slot of each unit in each layer, both (L, size).

    Of P rotations in all, unit i of pair p has slot p, unit j has slot P + p, a unit without a partner has 2 P.
    """
    total, done = sum(map(len, pairs)), 0
    partner = torch.arange(size).repeat(len(pairs), 1)
    slot = torch.full_like(partner, 2 * total)
    for layer, joined in enumerate(pairs):
        for p, (i, j) in enumerate(joined, done):
            partner[layer, i], partner[layer, j] = j, i
            slot[layer, i], slot[layer, j] = p, total + p
        done += len(joined)
    return partner, slot


def rotation_factors(theta: Tensor, phi: Tensor | None, slot: Tensor) -> Tensor:
    """(2, L, n): what a unit keeps of itself and takes of its partner, in each layer of rotations.

        [[cos theta, -e^{i phi} sin theta], [sin theta, e^{i phi} cos theta]]   on each pair (i, j)

    Args:
        theta, phi: (P,) angles of all rotations, layer after layer; phi None: real, phi = 0.
        slot: (L, n), see `rotation_layout`.
    """
    c, s = theta.cos(), theta.sin()
    turn = 1 if phi is None else phase(phi)
    keep, take = torch.cat((c, c * turn, c.new_ones(1))), torch.cat((-s * turn, s, s.new_zeros(1)))
    return torch.stack((keep[slot], take[slot]))


def rotate(h: Tensor, factors: Tensor, partner: Tensor) -> Tensor:
    """``Omega_L ... Omega_1 h`` for rows h (..., n); factors (2, L, n) and partner (L, n) as made above."""
    for keep, take, other in zip(*factors, partner, strict=True):
        h = keep * h + take * h.index_select(-1, other)
    return h


def rotate_back(h: Tensor, factors: Tensor, partner: Tensor) -> Tensor:
    """``Omega_1^* ... Omega_L^* h``, the inverse of `rotate`."""
    for keep, take, other in zip(*factors.flip(1).conj(), partner.flip(0), strict=True):
        h = keep * h + (take * h).index_select(-1, other)
    return h


# --- orthogonal matrices from skew ones


def skew_from(upper: Tensor, size: int) -> Tensor:
    """The skew matrix with these n (n - 1) / 2 numbers above its diagonal, row by row.

    >>> skew_from(torch.tensor([1.0, 2.0, 3.0]), 3)
    tensor([[ 0.,  1.,  2.],
            [-1.,  0.,  3.],
            [-2., -3.,  0.]])
    """
    rows, columns = torch.triu_indices(size, size, 1, device=upper.device)
    P = upper.new_zeros(size, size).index_put((rows, columns), upper)
    return P - P.mT


def scaled_cayley(A: Tensor, D: Tensor) -> Tensor:
    """``W = (I + A)^{-1} (I - A) D``, orthogonal for skew A (n, n) and signs D (n,); sheet ``baselines.md`` 1.2."""
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    W: Tensor = torch.linalg.solve(eye + A, (eye - A) * D)
    return W


def block_angles(size: int, init: str, like: Tensor) -> Tensor:
    """Upper triangle of a block-diagonal skew start, blocks [[0, s], [-s, 0]]; sheet ``baselines.md`` 1.1.

    "henaff": s ~ U(-pi, pi). "cayley": s = -tan(u / 2), u ~ U(0, pi / 2), whose Cayley transform turns by u exactly.
    An odd last unit has no block.
    """
    A = like.new_zeros(size, size)
    s = like.new_empty(size // 2)
    s = s.uniform_(-torch.pi, torch.pi) if init == "henaff" else -(s.uniform_(0, torch.pi / 2) / 2).tan()
    i = 2 * torch.arange(size // 2, device=like.device)
    A[i, i + 1] = s
    rows, columns = torch.triu_indices(size, size, 1, device=like.device)
    return A[rows, columns]
