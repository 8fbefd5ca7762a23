"""EURNN: a recurrence of a few layers of plane rotations, over complex units and over real ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pendula._check import positive_int
from pendula.cells.base import once_per_scan
from pendula.cells.complex_units import UnitaryCell
from pendula.cells.givens import GivensOrthogonal, GivensUnitary
from pendula.cells.orthogonal import OrthogonalCell


class EURNNCell(UnitaryCell):
    """A unitary recurrence of a few layers of plane rotations, over complex units.

        h_t = modReLU_b(W h_{t-1} + V x_t),   W = D Omega_L ... Omega_1

    Jing et al., arXiv 1612.05231, as spec sheet ``baselines.md`` 1.3 read it in the authors' code: modReLU takes
    ``|z| + 0.01`` for the modulus, the state starts at zero (the sheet gives no other start, and its counts have none),
    the output is Re h. `RealEURNN` is the one over real units.

    Args:
        input_size: I, features of the input.
        hidden_size: N, complex units, at least 2.
        bias: whether modReLU has a bias b.
        capacity: L, layers of rotations: even, 2 to N (None: 2; log2 N for "fft").
        pairing: "tunable", neighbours in turn, or "fft", a butterfly: N must be a power of two.
        eps: added to the modulus.

    Parameters: V (2N, I) as [Re | Im]; b (N,); W.theta, W.phi one per rotation; W.omega (N,); buffers W.partner,
        W.slot (L, N).

    Shapes: drive (B, 2N); state re, im (B, N); output Re h (B, N).

    Errors: ValueError for a hidden_size or capacity that the pairing does not have.

    >>> cell = EURNNCell(3, 8, pairing="fft")
    >>> cell.W
    GivensUnitary(8, capacity=3, pairing='fft')
    """

    source: ClassVar[str] = "Jing et al. 2017, arXiv 1612.05231"
    learned_start: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        capacity: int | None = None,
        pairing: str = "tunable",
        eps: float = 0.01,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        W = GivensUnitary(positive_int("hidden_size", hidden_size), capacity, pairing, device=device, dtype=dtype)
        super().__init__(input_size, hidden_size, bias, W, eps=eps)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.V.uniform_(-0.01, 0.01)

    @once_per_scan
    def shift(self) -> Tensor:
        """b + eps: |z| + eps is the modulus above the fraction line too."""
        return self.V.new_tensor(self.eps) if self.b is None else self.b + self.eps

    @property
    def output_size(self) -> int:
        return self.hidden_size

    def output(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        """Re h."""
        return state[0]


class RealEURNNCell(OrthogonalCell):
    """An orthogonal recurrence of a few layers of plane rotations: `EURNN` over real units.

        h_t = modReLU_b(W h_{t-1} + V x_t),   W = Omega_L ... Omega_1

    Jing et al., arXiv 1612.05231, as spec sheet ``baselines.md`` 1.3 read it in the authors' code: no phases and no
    diagonal, modReLU takes ``|z| + 0.01`` for the modulus, h_0 = 0.

    Args:
        input_size: I, features of the input.
        hidden_size: N, units, at least 2.
        bias: whether modReLU has a bias b.
        capacity: L, layers of rotations: even, 2 to N (None: 2; log2 N for "fft").
        pairing: "tunable", neighbours in turn, or "fft", a butterfly: N must be a power of two.
        eps: added to the modulus.

    Parameters: V (N, I); b (N,); W.theta one per rotation; buffers W.partner, W.slot (L, N).

    Shapes: drive (B, N); state h (B, N); output h.

    Errors: ValueError for a hidden_size or capacity that the pairing does not have.

    >>> RealEURNNCell(3, 8).W
    GivensOrthogonal(8, capacity=2, pairing='tunable')
    """

    equation: ClassVar[str] = "h_t = modReLU_b(W h_{t-1} + V x_t),  W orthogonal"
    source: ClassVar[str] = "Jing et al. 2017, arXiv 1612.05231"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        capacity: int | None = None,
        pairing: str = "tunable",
        eps: float = 0.01,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        W = GivensOrthogonal(positive_int("hidden_size", hidden_size), capacity, pairing, device=device, dtype=dtype)
        super().__init__(input_size, hidden_size, bias, W, eps=eps)

    @once_per_scan
    def shift(self) -> Tensor:
        """b + eps: |z| + eps is the modulus above the fraction line too."""
        return self.V.new_tensor(self.eps) if self.b is None else self.b + self.eps

    def recur(self, h: Tensor) -> Tensor:
        product: Tensor = self.W(h, self.built)
        return product
