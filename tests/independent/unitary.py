"""uRNN, EURNN, full-capacity uRNN, expRNN, scoRNN and the spectral-margin RNN."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def modrelu(z: complex, b: float) -> complex:
    """urnn.md 1: (|z| + b) z / |z| where |z| + b >= 0, else 0; 0 at z = 0."""
    r = abs(z)
    return (r + b) * (z / r) if r > 0 and r + b >= 0 else 0j


def modrelu_divisor(z: complex, b: float, eps: float) -> complex:
    """urnn.md 1, the authors' code: the divisor is |z| + eps."""
    r = abs(z)
    return max(r + b, 0.0) * z / (r + eps)


def modrelu_offset(z: complex, b: float, offset: float = 0.01) -> complex:
    """baselines.md 1.3: |z| + 0.01 as the modulus."""
    r = abs(z) + offset
    return max(r + b, 0.0) * z / r


def modrelu_real(a: float, b: float) -> float:
    """baselines.md 1.1: sign(a) relu(|a| + b)."""
    return math.copysign(1.0, a) * max(abs(a) + b, 0.0) if a else 0.0


# --- the seven factors


def dft(h: Complex, sign: float) -> Complex:
    """Unitary scaling, kernel exp(sign 2 pi i j k / n), by its sum."""
    n = len(h)
    return np.array(
        [sum(cmath.exp(sign * 2j * math.pi * ((j * k) % n) / n) * h[k] for k in range(n)) for j in range(n)]
    ) / math.sqrt(n)


def reflect(h: Complex, v: Complex) -> Complex:
    inner = sum(v_j.conjugate() * h_j for v_j, h_j in zip(v, h, strict=True))
    norm = sum(abs(v_j) ** 2 for v_j in v)
    return np.array([h_j - 2 * v_j * inner / norm for v_j, h_j in zip(v, h, strict=True)])


def urnn_product(h: Complex, theta: Array, v: Complex, perm: Sequence[int]) -> Complex:
    """urnn.md (3): W = D_3 R_2 F^-1 D_2 P R_1 F D_1. theta (3, n), v (2, n)."""
    y = np.array([cmath.exp(1j * t) * h_j for t, h_j in zip(theta[0], h, strict=True)])
    y = reflect(dft(y, -1), v[0])
    y = np.array([y[p] for p in perm])
    y = np.array([cmath.exp(1j * t) * y_j for t, y_j in zip(theta[1], y, strict=True)])
    y = reflect(dft(y, +1), v[1])
    return np.array([cmath.exp(1j * t) * y_j for t, y_j in zip(theta[2], y, strict=True)])


def complex_cell(
    x: Array, product: Callable[[Complex], Complex], V: Complex, b: Array, h: Complex, act: Callable[..., complex]
) -> Complex:
    """urnn.md (1): h_t = act_b(W h_{t-1} + V x_t). Returns (T, n)."""
    out = []
    for x_t in x:
        pre = product(h) + V @ x_t
        h = np.array([act(complex(z), float(b_j)) for z, b_j in zip(pre, b, strict=True)])
        out.append(h)
    return np.array(out)


def dense(product: Callable[[Complex], Complex], n: int) -> Complex:
    """The matrix of a linear map, column by column."""
    return np.array([product(e) for e in np.eye(n, dtype=np.complex128)]).T


# --- EURNN


def rotation(theta: float, phi: float) -> Complex:
    s, c = math.sin(theta), math.cos(theta)
    return np.array([[c, -cmath.exp(1j * phi) * s], [s, cmath.exp(1j * phi) * c]])


def rotate(h: Complex, pairs: Sequence[tuple[int, int]], theta: Sequence[float], phi: Sequence[float]) -> Complex:
    h = h.copy()
    for (i, j), t, f in zip(pairs, theta, phi, strict=True):
        R = rotation(t, f)
        h[i], h[j] = R[0, 0] * h[i] + R[0, 1] * h[j], R[1, 0] * h[i] + R[1, 1] * h[j]
    return h


def tunable_pairs(n: int, layers: int) -> list[list[tuple[int, int]]]:
    """Pairings (0,1)(2,3)... and (1,2)(3,4)... in turn, ends fixed."""
    return [[(i, i + 1) for i in range(layer % 2, n - 1, 2)] for layer in range(layers)]


def fft_pairs(n: int) -> list[list[tuple[int, int]]]:
    """Butterflies of distance n/2, ..., 2, 1. The sheet says "butterfly" only; this order is the authors' file's."""
    return [[(i, i + d) for i in range(n) if not i & d] for d in (n >> k for k in range(1, n.bit_length()))]


def eurnn_product(
    h: Complex,
    pairs: Sequence[Sequence[tuple[int, int]]],
    theta: Sequence[Sequence[float]],
    phi: Sequence[Sequence[float]],
    omega: Sequence[float] | None,
) -> Complex:
    """baselines.md 1.3: W = D Omega_L ... Omega_1."""
    for layer, t, f in zip(pairs, theta, phi, strict=True):
        h = rotate(h, layer, t, f)
    return h if omega is None else np.array([cmath.exp(1j * w) * h_j for w, h_j in zip(omega, h, strict=True)])


# --- orthogonal


def skew(P: Array) -> Array:
    """triu(P, 1) - triu(P, 1)^T."""
    A = np.zeros_like(P)
    for i in range(len(P)):
        for j in range(i + 1, len(P)):
            A[i, j], A[j, i] = P[i, j], -P[i, j]
    return A


def exp_skew(A: Array) -> Array:
    """exp(A) of a skew matrix through the real eigenvalues of the Hermitian i A."""
    values, vectors = np.linalg.eigh(1j * A)
    return np.asarray(((vectors * np.exp(-1j * values)) @ vectors.conj().T).real)


def cayley(A: Array, D: Array) -> Array:
    """baselines.md 1.2: (I + A)^-1 (I - A) diag(D)."""
    identity = np.eye(len(A))
    return np.asarray(np.linalg.solve(identity + A, identity - A) @ np.diag(D))


def orthogonal_cell(x: Array, W: Array, V: Array, b: Array, h: Array) -> Array:
    """baselines.md 1.1, row form: h_t = modrelu(h_{t-1} W + x_t V^T). V (n, d)."""
    out = []
    for x_t in x:
        pre = [
            sum(h[i] * W[i, j] for i in range(len(h))) + sum(x_t[k] * V[j, k] for k in range(len(x_t)))
            for j in range(len(h))
        ]
        h = np.array([modrelu_real(a, b_j) for a, b_j in zip(pre, b, strict=True)])
        out.append(h)
    return np.array(out)


# --- spectral margin


def spectrum(p: Array, m: float) -> Array:
    """spectral.md (2)."""
    return np.array([2 * m * (1 / (1 + math.exp(-p_i)) - 0.5) + 1 for p_i in p])


def spectral_cell(
    x: Array, U: Array, s: Array, V: Array, W_in: Array, b: Array, h: Array, phi: Callable[[float], float]
) -> Array:
    """spectral.md (1): h_t = phi(U S V^T h_{t-1} + W_in x_t + b)."""
    out = []
    for x_t in x:
        inner = [s[k] * sum(V[i, k] * h[i] for i in range(len(h))) for k in range(len(s))]
        h = np.array(
            [phi(sum(U[i, k] * inner[k] for k in range(len(s))) + float(W_in[i] @ x_t) + b[i]) for i in range(len(b))]
        )
        out.append(h)
    return np.array(out)
