"""QUNN, the lag form and the register form (odernn.md 6)."""

from __future__ import annotations

import cmath
import math

import numpy as np
from numpy.typing import NDArray

from tests.independent.unitary import modrelu

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def on_site(gate: Complex, j: int, q: int) -> Complex:
    """Kronecker product with the identity; site 0 is the leading one."""
    out = np.ones((1, 1), dtype=np.complex128)
    for k in range(q):
        out = np.kron(out, gate if k == j else np.eye(2))
    return out


def energies(b: Array, J: Array) -> Array:
    """The diagonal E_m of the Z terms."""
    q = len(b)
    out = []
    for m in range(2**q):
        s = [1 - 2 * ((m >> (q - 1 - j)) & 1) for j in range(q)]
        out.append(sum(b[j] * s[j] for j in range(q)) + sum(J[j] * s[j] * s[j + 1] for j in range(q - 1)))
    return np.array(out, dtype=np.float64)


def hamiltonian(a: Array, b: Array, J: Array) -> Complex:
    """6.1: sum a_j X_j + sum b_j Z_j + sum J_j Z_j Z_{j+1}."""
    X, Z = np.array([[0, 1], [1, 0]], dtype=np.complex128), np.array([[1, 0], [0, -1]], dtype=np.complex128)
    q = len(a)
    H = np.zeros((2**q, 2**q), dtype=np.complex128)
    for j in range(q):
        H += a[j] * on_site(X, j, q) + b[j] * on_site(Z, j, q)
    for j in range(q - 1):
        H += J[j] * on_site(Z, j, q) @ on_site(Z, j + 1, q)
    return H


def exact(a: Array, b: Array, J: Array, eta: float) -> Complex:
    """U = exp(-i eta H)."""
    values, vectors = np.linalg.eigh(hamiltonian(a, b, J))
    return np.asarray((vectors * np.exp(-1j * eta * values)) @ vectors.conj().T)


def strang(a: Array, b: Array, J: Array, eta: float, layers: int) -> Complex:
    """(6.1): the product of `layers` symmetric splittings."""
    q = len(a)
    half = np.diag([cmath.exp(-1j * eta * e / (2 * layers)) for e in energies(b, J)])
    kick = np.eye(2**q, dtype=np.complex128)
    for j in range(q):
        angle = eta * a[j] / layers
        c, s = math.cos(angle), math.sin(angle)
        kick = kick @ on_site(np.array([[c, -1j * s], [-1j * s, c]]), j, q)
    return np.asarray(np.linalg.matrix_power(half @ kick @ half, layers))


def softmax(omega: Array) -> Array:
    e = [math.exp(v) for v in omega]
    return np.array([v / sum(e) for v in e])


def lag_form(v: Complex, U: list[Complex], w: Array, beta: float, window: Complex) -> Complex:
    """(6.2). v (T, N) encoded inputs; window (t, N), the latest first. Returns psi_k (T, N)."""
    past = list(window)
    out = []
    for v_k in v:
        pre = v_k.copy()
        for w_s, U_s, psi in zip(w, U, past, strict=True):
            pre = pre + w_s * (U_s @ psi)
        new = np.array([modrelu(complex(z), beta) for z in pre])
        past = [new, *past[:-1]]
        out.append(new)
    return np.array(out)


def expectations(psi: Complex) -> Array:
    """6.4: <Z_j> = sum_m s_j |psi_m|^2."""
    q = len(psi).bit_length() - 1
    return np.array(
        [sum((1 - 2 * ((m >> (q - 1 - j)) & 1)) * abs(psi[m]) ** 2 for m in range(len(psi))) for j in range(q)]
    )
