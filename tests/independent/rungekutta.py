"""n-t-ODERNN: explicit Runge-Kutta on the companion form of an ODE of order t (odernn.md 2)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction as Q

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Field = Callable[[Array, Array], Array]

TABLEAUX: dict[str, tuple[list[list[Q]], list[Q]]] = {
    "euler": ([[]], [Q(1)]),
    "heun": ([[], [Q(1)]], [Q(1, 2), Q(1, 2)]),
    "midpoint": ([[], [Q(1, 2)]], [Q(0), Q(1)]),
    "ssp33": ([[], [Q(1)], [Q(1, 4), Q(1, 4)]], [Q(1, 6), Q(1, 6), Q(2, 3)]),
    "kutta3": ([[], [Q(1, 2)], [Q(-1), Q(2)]], [Q(1, 6), Q(2, 3), Q(1, 6)]),
    "rk4": ([[], [Q(1, 2)], [Q(0), Q(1, 2)], [Q(0), Q(0), Q(1)]], [Q(1, 6), Q(1, 3), Q(1, 3), Q(1, 6)]),
}
"""Name -> strictly lower rows a_ij and b, in whole fractions."""


def elementary(
    W: Array, U: Array, b: Array, gamma: Array, act: Callable[[Array], Array] = np.tanh
) -> Callable[[Array, Array], Array]:
    """(2.3): f(Z, x). W (t, D, D), gamma (t, D), Z (t, D)."""

    def f(Z: Array, x: Array) -> Array:
        pre = U @ x + b
        for j in range(len(W)):
            pre = pre + W[j] @ Z[j]
        out = act(pre)
        for j in range(len(W)):
            out = out - gamma[j] * Z[j]
        return out

    return f


def companion(f: Field) -> Field:
    """(2.1): F(Z, x) = (z_1, ..., z_{t-1}, f)."""

    def F(Z: Array, x: Array) -> Array:
        return np.array([*Z[1:], f(Z, x)])

    return F


def step(F: Field, Z: Array, inputs: Callable[[float], Array], h: float, tableau: str) -> Array:
    """(2.2); `inputs(c)` is the input at the fraction c of the step."""
    rows, b = TABLEAUX[tableau]
    K: list[Array] = []
    for row in rows:
        stage = Z
        for a, K_j in zip(row, K, strict=True):
            stage = stage + h * float(a) * K_j
        K.append(F(stage, inputs(float(sum(row)))))
    for b_i, K_i in zip(b, K, strict=True):
        Z = Z + h * float(b_i) * K_i
    return Z


def semi_implicit_step(f: Field, Z: Array, x: Array, h: float) -> Array:
    """End of 2.3: the highest derivative first, each lower one with the value already updated."""
    Z = Z.copy()
    Z[-1] = Z[-1] + h * f(Z, x)
    for j in range(len(Z) - 2, -1, -1):
        Z[j] = Z[j] + h * Z[j + 1]
    return Z


def odernn(x: Array, f: Field, Z: Array, h: float, tableau: str, inputs: str = "hold") -> Array:
    """x (T, d), Z (t, D) before the first step. Returns Z_k (T, t, D)."""
    out = []
    for k in range(len(x)):
        new = x[k]
        old = x[k - 1] if k else x[0]
        if tableau == "semi-implicit":
            Z = semi_implicit_step(f, Z, new, h)
        elif inputs == "hold":
            Z = step(companion(f), Z, lambda c, new=new: new, h, tableau)  # type: ignore[misc]
        else:
            Z = step(companion(f), Z, lambda c, old=old, new=new: old + c * (new - old), h, tableau)  # type: ignore[misc]
        out.append(Z)
    return np.array(out)
