"""Orthogonal matrices made from skew ones: by the exponential (expRNN) and by the scaled Cayley transform (scoRNN)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pendula._check import one_of, positive_int
from pendula.cells.operators import DenseOperator
from pendula.math.exponential import exponential
from pendula.math.orthogonal import polar
from pendula.math.unitary import block_angles, scaled_cayley, skew_from

SKEW_INITS = ("henaff", "cayley")


class Exponential(DenseOperator):
    """``W = B exp(A)``, A skew, B a fixed orthogonal base that starts at I (spec sheet ``baselines.md`` 1.1).

    Lezcano-Casado and Martinez-Rubio, arXiv 1901.08428: reaches every rotation. With `rebase` every K optimiser steps
    it is dtriv_K (arXiv 1909.09501).

    Args:
        size: n.
        init: numbers of the 2 x 2 blocks that A starts with: "henaff", U(-pi, pi), or "cayley", -tan(u / 2) with
            u ~ U(0, pi / 2), which under this map turn by tan(u / 2) and not by u.

    Parameter: A (n (n - 1) / 2,), above the diagonal, row by row. Buffer: B (n, n).

    >>> bool(Exponential(5, dtype=torch.float64).defect() < 1e-14)
    True
    """

    B: Tensor

    def __init__(self, size: int, init: str = "cayley", *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.size = positive_int("size", size)
        self.init = one_of("init", init, SKEW_INITS)
        self.A = nn.Parameter(torch.empty(size * (size - 1) // 2, device=device, dtype=dtype))
        self.register_buffer("B", torch.eye(size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.A.copy_(block_angles(self.size, self.init, self.A))
            self.B.copy_(torch.eye(self.size))

    def rebuild(self) -> Tensor:
        return self.B @ exponential(skew_from(self.A, self.size))

    def rebase(self, *, project: bool = False) -> None:
        """B <- W and A <- 0: W stays, the map around it becomes the exponential at W. `project` rounds B to orthogonal.

        What an optimiser remembers of A belongs to the old map.
        """
        with torch.no_grad():
            W = self.rebuild()
            self.B.copy_(polar(W) if project else W)
            self.A.zero_()


class ScaledCayley(DenseOperator):
    """``W = (I + A)^{-1} (I - A) D``, A skew, D fixed signs (spec sheet ``baselines.md`` 1.2).

    Helfrich, Willmott and Ye (scoRNN), arXiv 1707.09520. Without D no W has the eigenvalue -1.

    Args:
        size: n.
        rho: how many entries of D, the last ones, are -1: 0 to n (None: n // 2, as for copying and adding; the
            authors take n // 10 for images). det W = (-1)^rho.
        init: as for `Exponential`; under this map "cayley" turns by angles u ~ U(0, pi / 2).

    Parameter: A (n (n - 1) / 2,), above the diagonal, row by row. Buffer: D (n,).

    Errors: ValueError for a rho that is no whole number from 0 to n.

    >>> bool(ScaledCayley(5, dtype=torch.float64).defect() < 1e-14)
    True
    """

    D: Tensor

    def __init__(
        self, size: int, rho: int | None = None, init: str = "cayley", *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.size = positive_int("size", size)
        self.init = one_of("init", init, SKEW_INITS)
        self.rho = positive_int("rho", size // 2 if rho is None else rho, least=0)
        if self.rho > size:
            raise ValueError(f"rho must be at most the {size} units, got {rho}")
        self.A = nn.Parameter(torch.empty(size * (size - 1) // 2, device=device, dtype=dtype))
        signs = torch.ones(size, device=device, dtype=dtype)
        signs[size - self.rho :] = -1
        self.register_buffer("D", signs)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.A.copy_(block_angles(self.size, self.init, self.A))

    def rebuild(self) -> Tensor:
        return scaled_cayley(skew_from(self.A, self.size), self.D)
