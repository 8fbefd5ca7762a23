"""coRNN, UnICORNN, LinOSS and D-LinOSS, unit by unit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cornn(
    u: Array,
    W: Array,
    Wz: Array,
    V: Array,
    b: Array,
    dt: Array,
    gamma: Array,
    epsilon: Array,
    y: Array,
    z: Array,
    *,
    implicit: bool = False,
) -> tuple[Array, Array]:
    """cornn.md 1.2. u (T, d); dt, gamma, epsilon per unit; y, z the state before. Returns y_n, z_n (T, m)."""
    ys, zs = [], []
    for u_n in u:
        y_new, z_new = np.empty_like(y), np.empty_like(z)
        for i in range(len(y)):
            a = b[i]
            for j in range(len(y)):
                a += W[i, j] * y[j] + Wz[i, j] * z[j]
            for k in range(len(u_n)):
                a += V[i, k] * u_n[k]
            s = math.tanh(a)
            if implicit:
                z_new[i] = (z[i] + dt[i] * (s - gamma[i] * y[i])) / (1 + epsilon[i] * dt[i])
            else:
                z_new[i] = z[i] + dt[i] * (s - gamma[i] * y[i] - epsilon[i] * z[i])
            y_new[i] = y[i] + dt[i] * z_new[i]
        y, z = y_new, z_new
        ys.append(y)
        zs.append(z)
    return np.array(ys), np.array(zs)


def unicornn(
    u: Array, w: Array, c: Array, V: Array, b: Array, dt: Array, alpha: Array, y: Array, z: Array
) -> tuple[Array, Array]:
    """unicornn.md 1.2. Returns y_n, z_n (T, m)."""
    steps, m = len(u), len(w)
    ys, zs = np.empty((steps, m)), np.empty((steps, m))
    for i in range(m):
        h = dt[i] * (0.5 + 0.5 * math.tanh(c[i] / 2))
        y_i, z_i = y[i], z[i]
        for n in range(steps):
            x = b[i] + sum(V[i, k] * u[n, k] for k in range(u.shape[1]))
            z_i = z_i - h * (math.tanh(w[i] * y_i + x) + alpha[i] * y_i)
            y_i = y_i + h * z_i
            ys[n, i], zs[n, i] = y_i, z_i
    return ys, zs


def unicornn_back(
    u: Array, w: Array, c: Array, V: Array, b: Array, dt: Array, alpha: Array, y: Array, z: Array
) -> tuple[Array, Array]:
    """unicornn.md 1.2, the exact inverse: the state before the first step from the one after the last."""
    y, z = y.copy(), z.copy()
    for i in range(len(w)):
        h = dt[i] / (1 + math.exp(-c[i]))
        for u_n in u[::-1]:
            y[i] = y[i] - h * z[i]
            z[i] = z[i] + h * (math.tanh(w[i] * y[i] + float(V[i] @ u_n) + b[i]) + alpha[i] * y[i])
    return y, z


def linoss_matrix(A: float, dt: float, form: str, G: float = 0.0) -> tuple[Array, Array]:
    """M (2, 2) on (z, y) of one oscillator, and what multiplies B u in F.

    LinOSS "im", "imex" and D-LinOSS "imex1" in closed form; the other forms of D-LinOSS by solving for the new state.
    """
    if form == "im" and G == 0:
        S = 1 / (1 + dt * dt * A)
        M = np.array([[1 - dt * dt * A * S, -dt * A * S], [dt * S, S]])
        return M, M @ np.array([dt, 0.0])
    if form == "imex":
        return np.array([[1, -dt * A], [dt, 1 - dt * dt * A]]), np.array([dt, dt * dt])
    if form == "imex1":
        S = 1 + dt * G
        M = np.array([[1 / S, -dt * A / S], [dt / S, 1 - dt * dt * A / S]])
        return M, np.array([dt / S, dt * dt / S])
    # z' = -A y - G z + f, y' = z: which y and z are the new ones
    new_y_in_z, new_z_in_z, new_z_in_y = {"imex2": (0, 0, 1), "im": (1, 1, 1), "ex": (0, 0, 0)}[form]
    left = np.array([[1 + dt * G * new_z_in_z, dt * A * new_y_in_z], [-dt * new_z_in_y, 1.0]])
    right = np.array([[1 - dt * G * (1 - new_z_in_z), -dt * A * (1 - new_y_in_z)], [dt * (1 - new_z_in_y), 1.0]])
    return np.linalg.solve(left, right), np.linalg.solve(left, np.array([dt, 0.0]))


def linoss(u: Array, A: Array, B: Array, dt: Array, form: str, z: Array, y: Array, G: Array) -> Array:
    """Linear forced oscillators z' = -A y - G z + B u, y' = z. Returns (z_n, y_n) (T, P, 2), complex where B is."""
    out = np.empty((len(u), len(A), 2), dtype=np.result_type(B, z, y))
    for p in range(len(A)):
        M, F = linoss_matrix(A[p], dt[p], form, G[p])
        x = np.array([z[p], y[p]])
        for n in range(len(u)):
            x = M @ x + F * sum(B[p, k] * u[n, k] for k in range(u.shape[1]))
            out[n, p] = x
    return out


def layernorm(e: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    mean = sum(e) / len(e)
    variance = sum((v - mean) ** 2 for v in e) / len(e)
    return np.array([(v - mean) / math.sqrt(variance + eps) * w + c for v, w, c in zip(e, weight, bias, strict=True)])


def gelu(v: float) -> float:
    return 0.5 * v * (1 + math.erf(v / math.sqrt(2)))


def glu(v: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
    """(W1 v + b1) * sigmoid(W2 v + b2)."""
    gate = W2 @ v + b2
    return (W1 @ v + b1) * np.array([1 / (1 + math.exp(-g)) for g in gate])
