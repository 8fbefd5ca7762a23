"""D-LinOSS: linear oscillators that learn how fast they forget, in the residual block of LinOSS."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn

from pendula._check import finite_number, one_of
from pendula.cells.linoss import OscillatorBlock
from pendula.math.linear_oscillator import SCHEMES, ring


class DLinOSSCell(OscillatorBlock):
    """Linear oscillators that learn how fast they forget, in the residual block of LinOSS.

        y'' = -A y - G y' + B u,   u = norm(e),   x = C y + D u,   output = e + GLU(GELU(x))

    Boyer, Rusch and Rus 2025, arXiv 2505.12171; the block, and what it does otherwise than the authors, as in
    `LinOSSCell`. Of the four discretisations of their code (`pendula.math.linear_oscillator`) the paper's is "imex1".
    With h = dt, a step has two conjugate eigenvalues of the modulus below within the region that A and G are clamped
    to:

        imex1   G >= 0, h^2 A in 2 + h G -+ 2 (1 + h G)^1/2             |lambda| = (1 + h G)^-1/2
        imex2   0 <= h G < 1, h^2 A in 2 - h G -+ 2 (1 - h G)^1/2       |lambda| = (1 - h G)^1/2
        im      G >= -h A, A >= G^2 / 4                                 |lambda| = (1 + h G + h^2 A)^-1/2
        ex      0 <= h G <= 4, G^2 / 4 <= A <= G / h                    |lambda| = (1 - h G + h^2 A)^1/2

    The moduli of all but imex1, and the bounds on G in imex2 and ex, are derived here (the authors' clamp of imex2
    gives NaN where h G > 1, that of ex leaves the region where h G > 4). A step scaled by tau is clamped as the step
    that is taken, so it is stable however long it is. At the start the eigenvalues ``r exp(+- i theta)`` are uniform in
    the area of a ring and in the angle; A and G follow in closed form, in imex1 ``G = (r^-2 - 1) / h`` and
    ``A = (1 - 2 cos(theta) / r + r^-2) / h^2``. Where cos(theta) < r, "im" needs G < 0.

    Args:
        input_size: I, features of the input.
        hidden_size: N, width of the block; at least 2.
        bias: whether the encoder and the gate have biases.
        dt: time step at the start, positive, learned; one number or one per oscillator.
        discretisation: "imex1", "imex2", "im" or "ex".
        oscillators: P; as many as the width when None.
        r_min, r_max: moduli at the start, above 0 and at most 1.
        theta_min, theta_max: angles at the start, in [0, pi].

    Shapes: drive (B, 2 N + P); state z, y (B, P); output (B, N).

    Errors: ValueError for a value out of its range.

    >>> cell = DLinOSSCell(3, 8, r_min=0.5)
    >>> bool((torch.linalg.eigvals(cell.steady[:, :2].permute(2, 0, 1)).abs() > 0.49).all())
    True
    """

    equation: ClassVar[str] = "y'' = -A y - G y' + B u,  x = C y + D u"
    source: ClassVar[str] = "Boyer, Rusch and Rus 2025, arXiv 2505.12171"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dt: Any = 1.0,
        discretisation: str = "imex1",
        oscillators: int | None = None,
        r_min: float = 0.9,
        r_max: float = 1.0,
        theta_min: float = 0.0,
        theta_max: float = math.pi,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dt=dt, oscillators=oscillators, device=device, dtype=dtype)
        self.discretisation = self.scheme = one_of("discretisation", discretisation, SCHEMES)
        self.r_min, self.r_max = finite_number("r_min", r_min), finite_number("r_max", r_max)
        self.theta_min, self.theta_max = finite_number("theta_min", theta_min), finite_number("theta_max", theta_max)
        if not 0 < r_min <= r_max <= 1:
            raise ValueError(f"0 < r_min <= r_max <= 1 must hold, got r_min {r_min!r} and r_max {r_max!r}")
        if not 0 <= theta_min <= theta_max <= math.pi:
            raise ValueError(
                f"0 <= theta_min <= theta_max <= pi must hold, got theta_min {theta_min!r} and theta_max {theta_max!r}"
            )
        self.G = nn.Parameter(torch.empty_like(self.A))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.G is not None
        # in double precision: near theta = 0 the angle is the root of a small difference
        h = self.dt.detach().double()
        r = torch.empty_like(h).uniform_(self.r_min**2, self.r_max**2).sqrt()
        theta = torch.empty_like(h).uniform_(self.theta_min, self.theta_max)
        hhA, hG = ring(self.scheme, r, theta)
        with torch.no_grad():
            self.A.copy_(hhA / h**2)
            self.G.copy_(hG / h)
