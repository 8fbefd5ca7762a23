"""LSTM, GRU, LEM, LMU, AntisymmetricRNN, LipschitzRNN, Elman, IRNN, FastRNN and FastGRNN, unit by unit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigma(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def affine(W: Array, x: Array, b: Array | None = None) -> list[float]:
    """W x + b, row by row."""
    return [
        sum(float(w) * float(v) for w, v in zip(row, x, strict=True)) + (0.0 if b is None else float(b[i]))
        for i, row in enumerate(W)
    ]


def tanh(values: list[float]) -> Array:
    return np.array([math.tanh(v) for v in values])


def sigmoid(values: list[float]) -> Array:
    return np.array([sigma(v) for v in values])


def plus(*terms: list[float]) -> list[float]:
    return [sum(parts) for parts in zip(*terms, strict=True)]


def lstm(x: Array, W: Array, U: Array, b_i: Array, b_h: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """odernn.md 3.3: gates i, f, g, o stacked in that order."""
    n, hs, cs = len(h), [], []
    for x_t in x:
        pre = plus(affine(W, x_t, b_i), affine(U, h, b_h))
        i, f, g, o = sigmoid(pre[:n]), sigmoid(pre[n : 2 * n]), tanh(pre[2 * n : 3 * n]), sigmoid(pre[3 * n :])
        c = f * c + i * g
        h = o * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.array(hs), np.array(cs)


def gru(x: Array, W: Array, U: Array, b_i: Array, b_h: Array, h: Array) -> Array:
    """odernn.md 3.4: gates r, z, n; the reset gate acts after the recurrent product."""
    n, out = len(h), []
    for x_t in x:
        a, e = affine(W, x_t, b_i), affine(U, h, b_h)
        r, z = sigmoid(plus(a[:n], e[:n])), sigmoid(plus(a[n : 2 * n], e[n : 2 * n]))
        new = tanh([a[2 * n + k] + r[k] * e[2 * n + k] for k in range(n)])
        h = (1 - z) * new + z * h
        out.append(h)
    return np.array(out)


def lem(
    x: Array,
    dt: float,
    W: tuple[Array, Array, Array, Array],
    V: tuple[Array, Array, Array, Array],
    b: tuple[Array, Array, Array, Array],
    y: Array,
    z: Array,
) -> tuple[Array, Array]:
    """baselines.md 1.8: W, V, b in the order 1 (of Dbar), 2 (of D), z (in the y update), y (in the z update)."""
    ys, zs = [], []
    for x_n in x:
        Dbar = dt * sigmoid(plus(affine(W[0], x_n), affine(V[0], y, b[0])))
        D = dt * sigmoid(plus(affine(W[1], x_n), affine(V[1], y, b[1])))
        z = (1 - D) * z + D * tanh(plus(affine(V[3], y), affine(W[3], x_n, b[3])))
        y = (1 - Dbar) * y + Dbar * tanh(plus(affine(V[2], z), affine(W[2], x_n, b[2])))
        ys.append(y)
        zs.append(z)
    return np.array(ys), np.array(zs)


def matrix_exponential(M: Array) -> Array:
    """Taylor with scaling and squaring."""
    halvings = max(0, math.ceil(math.log2(max(float(np.abs(M).sum(1).max()), 1e-300))) + 3)
    M = M / 2.0**halvings
    total = term = np.eye(len(M))
    for k in range(1, 25):
        term = term @ M / k
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return np.asarray(total)


def legendre_memory(q: int, theta: float) -> tuple[Array, Array]:
    """baselines.md 1.7: A, B and their zero-order hold with dt = 1."""
    A, B = np.empty((q, q)), np.empty(q)
    for i in range(q):
        B[i] = (2 * i + 1) * (-1) ** i / theta
        for j in range(q):
            A[i, j] = (2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1))
    both = np.zeros((q + 1, q + 1))
    both[:q, :q], both[:q, q] = A, B
    held = matrix_exponential(both)
    return held[:q, :q], held[:q, q]


def lmu(
    x: Array,
    Abar: Array,
    Bbar: Array,
    e_x: Array,
    e_h: Array,
    e_m: Array,
    W_x: Array,
    W_h: Array,
    W_m: Array,
    h: Array,
    m: Array,
    b: Array | None = None,
) -> tuple[Array, Array]:
    """baselines.md 1.7; the hidden layer sees the new memory."""
    hs, ms = [], []
    for x_t in x:
        u = float(e_x @ x_t) + float(e_h @ h) + float(e_m @ m)
        m = np.array([float(Abar[i] @ m) + Bbar[i] * u for i in range(len(m))])
        h = tanh(plus(affine(W_x, x_t, b), affine(W_h, h), affine(W_m, m)))
        hs.append(h)
        ms.append(m)
    return np.array(hs), np.array(ms)


def antisymmetric(
    x: Array,
    W: Array,
    V: Array,
    b: Array,
    epsilon: float,
    gamma: float,
    h: Array,
    gate: tuple[Array, Array] | None = None,
) -> Array:
    """baselines.md 1.5; `gate` is (V_z, b_z)."""
    S, out = W - W.T - gamma * np.eye(len(h)), []
    for x_t in x:
        a = affine(S, h)
        change = tanh(plus(a, affine(V, x_t, b)))
        if gate is not None:
            change = sigmoid(plus(a, affine(gate[0], x_t, gate[1]))) * change
        h = h + epsilon * change
        out.append(h)
    return np.array(out)


def lipschitz(
    x: Array, B: Array, C: Array, E: Array, e: Array, epsilon: float, beta: float, gamma: float, h: Array
) -> Array:
    """baselines.md 1.5, row form; E (n, d): `E x` for a column x."""
    n = len(h)
    A = beta * (B - B.T) + (1 - beta) * (B + B.T) - gamma * np.eye(n)
    W = beta * (C - C.T) + (1 - beta) * (C + C.T) - gamma * np.eye(n)
    out = []
    for x_t in x:
        h = h + epsilon * np.array(affine(A.T, h)) + epsilon * tanh(plus(affine(W.T, h), affine(E, x_t, e)))
        out.append(h)
    return np.array(out)


def elman(x: Array, W: Array, U: Array, b: Array, h: Array, phi: Callable[[float], float] = math.tanh) -> Array:
    """h_t = phi(W h_{t-1} + U x_t + b)."""
    out = []
    for x_t in x:
        h = np.array([phi(a) for a in plus(affine(W, h), affine(U, x_t, b))])
        out.append(h)
    return np.array(out)


def relu(a: float) -> float:
    return max(a, 0.0)


def fastrnn(
    x: Array,
    W: Array,
    U: Array,
    b: Array,
    alpha: float,
    beta: float,
    h: Array,
    phi: Callable[[float], float] = math.tanh,
) -> Array:
    """baselines.md 1.6, column form: W (n, d), U (n, n); alpha, beta before the sigmoid."""
    out = []
    for x_t in x:
        new = np.array([phi(a) for a in plus(affine(W, x_t), affine(U, h, b))])
        h = sigma(alpha) * new + sigma(beta) * h
        out.append(h)
    return np.array(out)


def fastgrnn(x: Array, W: Array, U: Array, b_z: Array, b_h: Array, zeta: float, nu: float, h: Array) -> Array:
    """baselines.md 1.6, column form; zeta, nu before the sigmoid."""
    out = []
    for x_t in x:
        shared = plus(affine(W, x_t), affine(U, h))
        z, new = sigmoid(plus(shared, list(b_z))), tanh(plus(shared, list(b_h)))
        h = (sigma(zeta) * (1 - z) + sigma(nu)) * new + z * h
        out.append(h)
    return np.array(out)
