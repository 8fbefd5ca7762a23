"""Unitary and orthogonal matrices that are trained, behind one interface: W h, its adjoint, the matrix, the defect.

Here are those of the uRNN and of full capacity; rotations stand in `givens`, those made from skew matrices in `skew`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from pendula._check import one_of, positive_int
from pendula.math.orthogonal import geodesic_step, orthogonality_defect, polar
from pendula.math.unitary import complex_of, direction, pairs_of, phase, structured_adjoint, structured_product


class Operator(nn.Module, ABC):
    """A square matrix W with ``W^* W = I`` and parameters of its own. Called, it gives W h for rows h (..., n).

    `rebuild()` makes from the parameters what a product needs. A cell makes it once per scan and hands it to each
    product as `built`; without it, it is made anew.

    torch.nn.utils.parametrizations.orthogonal is not used: a module that carries it can't be pickled, as layers can.
    """

    size: int

    @abstractmethod
    def rebuild(self) -> Tensor:
        """What a product needs, made from the parameters."""

    @abstractmethod
    def forward(self, h: Tensor, built: Tensor | None = None) -> Tensor:
        """W h: (..., n) -> (..., n)."""

    @abstractmethod
    def adjoint(self, h: Tensor, built: Tensor | None = None) -> Tensor:
        """``W^* h``, which is also ``W^{-1} h``: (..., n) -> (..., n)."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw the parameters from the distribution they start with."""

    def dense(self) -> Tensor:
        """W as a matrix (n, n)."""
        built = self.rebuild()
        # W e_i are the columns of W, and the rows of what rows e_i become
        product: Tensor = self(torch.eye(self.size, dtype=built.dtype, device=built.device), built)
        return product.mT

    def defect(self) -> Tensor:
        """The largest number of ``|W^* W - I|``: zero but for rounding."""
        return orthogonality_defect(self.dense())

    def extra_repr(self) -> str:
        return str(self.size)


class DenseOperator(Operator):
    """An operator whose product is that with its matrix; a subclass says how the matrix is made."""

    def dense(self) -> Tensor:
        return self.rebuild()

    def forward(self, h: Tensor, built: Tensor | None = None) -> Tensor:
        W = self.rebuild() if built is None else built
        # under autocast a real product is narrow; what it acts on keeps its type
        return (h @ W.mT).to(h.dtype)

    def adjoint(self, h: Tensor, built: Tensor | None = None) -> Tensor:
        W = self.rebuild() if built is None else built
        product: Tensor = h @ W.conj()
        return product.to(h.dtype)


class StructuredUnitary(Operator):
    """The seven factors of the uRNN: ``W = D_3 R_2 F^{-1} D_2 Pi R_1 F D_1`` (spec sheet ``urnn.md`` 1 to 3).

    7 n numbers, O(n log n) per product; for n >= 6 they reach 7 (n - 1) of the n^2 dimensions of U(n) (sheet 1.2).

    Parameters: theta (3, n) the angles of D_1, D_2, D_3; v (2, 2n) the axes of R_1 and R_2 as [Re | Im], of which only
    the directions matter. The permutation perm (n,) is drawn at construction, never trained, and saved.

    >>> bool(StructuredUnitary(8, dtype=torch.float64).defect() < 1e-14)
    True
    """

    perm: Tensor

    def __init__(self, size: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.size = positive_int("size", size)
        self.theta = nn.Parameter(torch.empty(3, size, device=device, dtype=dtype))
        self.v = nn.Parameter(torch.empty(2, 2 * size, device=device, dtype=dtype))
        self.register_buffer("perm", torch.randperm(size, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = (6 / (2 + 2 * self.size)) ** 0.5
        with torch.no_grad():
            self.theta.uniform_(-torch.pi, torch.pi)
            self.v.uniform_(-bound, bound)

    def rebuild(self) -> Tensor:
        """(5, n) complex: three diagonals and two unit vectors."""
        return torch.cat((phase(self.theta), direction(complex_of(self.v))))

    def forward(self, h: Tensor, built: Tensor | None = None) -> Tensor:
        return structured_product(h, self.rebuild() if built is None else built, self.perm)

    def adjoint(self, h: Tensor, built: Tensor | None = None) -> Tensor:
        return structured_adjoint(h, self.rebuild() if built is None else built, self.perm)


class DenseUnitary(DenseOperator):
    """Any unitary matrix, its numbers themselves the parameter: full capacity (spec sheet ``baselines.md`` 1.4).

    Wisdom et al., arXiv 1611.00035. Only a geodesic step (`descend`) keeps it unitary; others leave the manifold.

    Args:
        size: n.
        init: "gaussian", the polar factor of a complex Gaussian matrix, or "structured", a matrix of the uRNN.

    Parameter: W (n, 2n), [Re | Im].

    >>> bool(DenseUnitary(8, dtype=torch.float64).defect() < 1e-14)
    True
    """

    def __init__(self, size: int, init: str = "gaussian", *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.size = positive_int("size", size)
        self.init = one_of("init", init, ("gaussian", "structured"))
        self.W = nn.Parameter(torch.empty(size, 2 * size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            if self.init == "gaussian":
                start = polar(complex_of(self.W.normal_()))
            else:
                start = StructuredUnitary(self.size, device=self.W.device, dtype=self.W.dtype).dense()
            self.W.copy_(pairs_of(start))

    def rebuild(self) -> Tensor:
        return complex_of(self.W)

    def descend(self, eta: float) -> None:
        """One geodesic step down the gradient that stands in ``W.grad``: `pendula.math.orthogonal.geodesic_step`.

        Errors: ValueError where there is no gradient.
        """
        if self.W.grad is None:
            raise ValueError("W has no gradient: call backward() on a loss first")
        with torch.no_grad():
            self.W.copy_(pairs_of(geodesic_step(complex_of(self.W), complex_of(self.W.grad), eta)))
