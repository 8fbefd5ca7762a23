"""Explicit Runge-Kutta schemes: tableaux with their order conditions, one step, the stability function and its limits.

Source: spec sheet ``odernn.md`` 2.2, 2.3 and 4, all classical; the table can be found in Hairer, Norsett and Wanner,
Solving Ordinary Differential Equations I, and the SSP coefficients in Gottlieb, Ketcheson and Shu 2011.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy
import torch
from torch import Tensor

from pendula._check import known_keys, one_of, positive_int

# a coefficient typed to 12 digits passes, one typed to 4 does not
TYPED = 1e-11

Row = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta scheme of n stages.

        K_i = F(Z + h sum_{j<i} a_ij K_j, c_i),   Z+ = Z + h sum_i b_i K_i,   c_i = sum_j a_ij

    Args:
        A: n rows of n numbers, zero on and above the diagonal.
        b: n numbers that add up to 1.
        order: p, checked by the order conditions, 1 to 4; None: the highest of these that hold.

    Errors: ValueError naming the condition that fails.

    >>> Tableau(((0.0, 0.0), (0.5, 0.0)), (0.0, 1.0)).order
    2
    """

    A: tuple[Row, ...]
    b: Row
    order: int | None = None

    def __post_init__(self) -> None:
        n = len(self.b)
        if not n or len(self.A) != n or any(len(row) != n for row in self.A):
            raise ValueError(
                f"a tableau needs n rows of n numbers in A and n numbers in b, got rows of {[len(r) for r in self.A]} "
                f"and {n} in b"
            )
        if not all(math.isfinite(v) for row in (*self.A, self.b) for v in row):
            raise ValueError("the numbers of a tableau must be finite")
        if any(self.A[i][j] for i in range(n) for j in range(i, n)):
            raise ValueError("A of a tableau must be zero on and above its diagonal: only explicit schemes are built")
        failing = self._first_failing_order()
        highest = 4 if failing is None else failing[0] - 1
        wanted = 1 if self.order is None else positive_int("order", self.order)
        if wanted > 4:
            raise ValueError(f"order of a tableau can be checked up to 4, got {wanted}: leave it out")
        if failing is not None and wanted > highest:
            raise ValueError(f"a tableau of order {wanted} needs {failing[1]}, got {failing[2]:.12g}")
        object.__setattr__(self, "order", wanted if self.order is not None else highest)

    def _first_failing_order(self) -> tuple[int, str, float] | None:
        A, b, c = self.arrays()
        conditions = (
            (1, "sum b = 1", b.sum(), 1),
            (2, "sum b c = 1/2", b @ c, 1 / 2),
            (3, "sum b c^2 = 1/3", b @ c**2, 1 / 3),
            (3, "sum b A c = 1/6", b @ A @ c, 1 / 6),
            (4, "sum b c^3 = 1/4", b @ c**3, 1 / 4),
            (4, "sum b c (A c) = 1/8", b @ (c * (A @ c)), 1 / 8),
            (4, "sum b A c^2 = 1/12", b @ A @ c**2, 1 / 12),
            (4, "sum b A A c = 1/24", b @ A @ A @ c, 1 / 24),
        )
        for order, words, got, needed in conditions:
            if abs(float(got) - needed) > TYPED:
                return order, words, float(got)
        return None

    def arrays(self) -> tuple[Any, Any, Any]:
        """A, b and c as float64 arrays."""
        A = numpy.array(self.A, dtype=numpy.float64)
        return A, numpy.array(self.b, dtype=numpy.float64), A.sum(1)

    @property
    def c(self) -> Row:
        return tuple(sum(row) for row in self.A)

    @property
    def stages(self) -> int:
        return len(self.b)

    @property
    def depth(self) -> int:
        """The longest chain of stages inside one another that reaches the result: n, unless stages are idle."""
        chain: list[int] = []
        for row in self.A:
            chain.append(1 + max((d for a, d in zip(row, chain, strict=False) if a), default=0))
        return max(d for b, d in zip(self.b, chain, strict=True) if b)

    @property
    def polynomial(self) -> Row:
        """Coefficients of the stability function R(z) = 1 + sum_k z^(k+1) b A^k 1, constant first."""
        A, b, _ = self.arrays()
        out, column = [1.0], numpy.ones(self.stages)
        for _ in range(self.stages):
            out.append(float(b @ column))
            column = A @ column
        return tuple(out)

    @property
    def ssp(self) -> float:
        """SSP coefficient C: the step is a convex combination of Euler steps for h up to C times that of Euler."""
        n = self.stages
        A, b, _ = self.arrays()
        K = numpy.zeros((n + 1, n + 1))
        K[:n, :n], K[n, :n] = A, b

        def monotonic(r: float) -> bool:
            P = K @ numpy.linalg.inv(numpy.eye(n + 1) + r * K)
            return bool((P >= -1e-13).all() and (r * P.sum(1) <= 1 + 1e-13).all())

        # no explicit scheme of n stages has more than n
        low, high = 0.0, float(n + 1)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if monotonic(middle) else (low, middle)
        return round(low, 9)

    def step(self, F: Callable[[Tensor, float], Tensor], Z: Tensor, h: Tensor | float) -> Tensor:
        """One step of Z' = F(Z, c), where c in [0, 1] is how far into the step a stage lies."""
        K: list[Tensor] = []
        for row, c in zip(self.A, self.c, strict=True):
            K.append(F(_moved(Z, row, K, h), c))
        return _moved(Z, self.b, K, h)

    def R(self, z: Tensor) -> Tensor:
        """The stability function at each number of z."""
        out = torch.zeros_like(z)
        for coefficient in reversed(self.polynomial):
            out = out * z + coefficient
        return out

    def transition(self, J: Tensor, h: Tensor | float) -> Tensor:
        """R(h J) for matrices (..., D, D): one step of Z' = J Z."""
        eye = torch.eye(J.shape[-1], dtype=J.dtype, device=J.device)
        out = torch.zeros_like(J)
        for coefficient in reversed(self.polynomial):
            out = h * (out @ J) + coefficient * eye
        return out

    def limit(self, direction: complex) -> float:
        """The largest r with |R| at most 1 all the way from 0 to r in a direction of the plane: -1, 1j, an eigenvalue.

        >>> round(TABLEAUX["rk4"].limit(-1), 12)
        2.785293563405
        """
        c, angle = self.polynomial, cmath.phase(direction)
        powers, sizes = [0.0] * (2 * len(c) - 1), [0.0] * (2 * len(c) - 1)
        for j, p in enumerate(c):
            for k, q in enumerate(c):
                powers[j + k] += p * q * math.cos((j - k) * angle)
                sizes[j + k] += abs(p * q)
        powers[0] -= 1
        # |R|^2 - 1 along the ray; what cancels leaves rounding, and must not decide the sign near 0
        powers = [p if abs(p) > 1e-13 * size else 0.0 for p, size in zip(powers, sizes, strict=True)]
        lowest = next((m for m, p in enumerate(powers) if p), None)
        if lowest is None:
            return math.inf
        if powers[lowest] > 0:
            return 0.0
        growth = numpy.polynomial.Polynomial(powers[lowest:]).trim()
        slope = growth.deriv()
        roots = [complex(r) for r in growth.roots().tolist()]
        edges = sorted(r.real for r in roots if r.real > 0 and abs(r.imag) < 1e-9 * abs(r))
        for edge, beyond in zip(edges, [*edges[1:], 3 * edges[-1]] if edges else [], strict=True):
            if growth((edge + beyond) / 2) > 0:
                return float(edge - growth(edge) / slope(edge))
        return math.inf

    def max_step(self, J: Tensor) -> float:
        """The largest h with all eigenvalues of R(s J) in the unit disc for s from 0 to h (C1); inf for J = 0."""
        values = [complex(v) for v in torch.linalg.eigvals(J).flatten()]
        largest = max(abs(v) for v in values)
        return min((self.limit(v) / abs(v) for v in values if abs(v) > 1e-12 * largest), default=math.inf)


def _moved(Z: Tensor, weights: Sequence[float], K: Sequence[Tensor], h: Tensor | float) -> Tensor:
    terms = [w * k for w, k in zip(weights, K, strict=False) if w]
    return Z + h * sum(terms[1:], terms[0]) if terms else Z


TABLEAUX: dict[str, Tableau] = {
    "euler": Tableau(((0,),), (1,), order=1),
    "heun": Tableau(((0, 0), (1, 0)), (1 / 2, 1 / 2), order=2),
    "midpoint": Tableau(((0, 0), (1 / 2, 0)), (0, 1), order=2),
    "ssp33": Tableau(((0, 0, 0), (1, 0, 0), (1 / 4, 1 / 4, 0)), (1 / 6, 1 / 6, 2 / 3), order=3),
    "kutta3": Tableau(((0, 0, 0), (1 / 2, 0, 0), (-1, 2, 0)), (1 / 6, 2 / 3, 1 / 6), order=3),
    "rk4": Tableau(
        ((0, 0, 0, 0), (1 / 2, 0, 0, 0), (0, 1 / 2, 0, 0), (0, 0, 1, 0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), order=4
    ),
}
"""Name -> tableau: sheet 2.3."""

FIRST_THEN_SECOND = (Tableau(((0, 0), (1, 0)), (1, 0), order=1), Tableau(((0, 0), (0, 0)), (0, 1), order=1))
"""The partitioned pair that moves p with the old q, then q with the new p: semi-implicit Euler, LSTM and GRU (3.3)."""


def tableau_of(value: Any) -> Tableau:
    """A tableau from its name in `TABLEAUX`, or from plain data ``{"A": [[...]], "b": [...]}``; "1/6" is a number.

    >>> tableau_of({"A": [[0, 0], ["2/3", 0]], "b": ["1/4", "3/4"]}).order
    2
    """
    if isinstance(value, str):
        return TABLEAUX[one_of("tableau", value, TABLEAUX)]
    if not isinstance(value, Mapping):
        raise ValueError(
            f'tableau must be one of {", ".join(TABLEAUX)}, or data such as {{"A": [[0]], "b": [1]}}, got {value!r}'
        )
    known_keys("a tableau", value, ("A", "b", "order"))
    for key in ("A", "b"):
        if key not in value:
            raise ValueError(f"a tableau needs {key!r}, got {', '.join(value) or 'nothing'}")
    try:
        A = tuple(tuple(float(Fraction(v)) for v in row) for row in value["A"])
        b = tuple(float(Fraction(v)) for v in value["b"])
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"A must be rows of numbers and b a list of numbers, got {dict(value)!r}") from error
    return Tableau(A, b, value.get("order"))


def semi_implicit_step(f: Callable[[Tensor], Tensor], z: Tensor, h: Tensor | float) -> Tensor:
    """One step of z_j' = z_{j+1}, z_{t-1}' = f(z), highest derivative first, each with the new value above it.

    Shapes: z (..., t, N); f(z) (..., N); h a number, or broadcast against (..., N).
    """
    parts = list(z.unbind(-2))
    parts[-1] = parts[-1] + h * f(z)
    for j in range(len(parts) - 2, -1, -1):
        parts[j] = parts[j] + h * parts[j + 1]
    return torch.stack(parts, -2)


def partitioned_step(
    pair: tuple[Tableau, Tableau],
    F: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    p: Tensor,
    q: Tensor,
    h: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """One step of (p', q') = F(p, q), each with its own tableau of as many stages."""
    one, two = pair
    K: tuple[list[Tensor], list[Tensor]] = ([], [])
    for first, second in zip(one.A, two.A, strict=True):
        for kept, slope in zip(K, F(_moved(p, first, K[0], h), _moved(q, second, K[1], h)), strict=True):
            kept.append(slope)
    return _moved(p, one.b, K[0], h), _moved(q, two.b, K[1], h)
