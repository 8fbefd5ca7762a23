"""Unitary and orthogonal matrices made of layers of plane (Givens) rotations: those of EUNN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pendula._check import one_of, positive_int
from pendula.cells.operators import Operator
from pendula.math.unitary import (
    butterfly_pairs,
    phase,
    rotate,
    rotate_back,
    rotation_factors,
    rotation_layout,
    tunable_pairs,
)

PAIRINGS = ("tunable", "fft")


class GivensUnitary(Operator):
    """Layers of rotations in planes of two units, and a diagonal: ``W = D Omega_L ... Omega_1``.

        [[cos theta, -e^{i phi} sin theta], [sin theta, e^{i phi} cos theta]]   on each pair,   D = diag(e^{i omega})

    Jing et al. (EUNN), arXiv 1612.05231, as spec sheet ``baselines.md`` 1.3 read it in the authors' code. "tunable"
    joins neighbours, (0,1)(2,3)... and (1,2)(3,4)... in turn; "fft" joins units at distance n/2, ..., 2, 1 (in that
    order in the file EUNN.py of their code).

    Args:
        size: n, at least 2; a power of two for "fft".
        capacity: L, the layers of "tunable": even, 2 to n (None: 2). "fft" has log2(n) of them.
        pairing: "tunable" or "fft".

    Parameters: theta, phi (P,) the angles of all rotations, layer after layer; omega (n,). Buffers: partner and slot
    (L, n), which unit is turned with which and by which angle.

    Errors: ValueError for a size or capacity that does not fit.

    >>> GivensUnitary(4, pairing="fft").dense().shape
    torch.Size([4, 4])
    """

    real = False
    partner: Tensor
    slot: Tensor

    def __init__(
        self, size: int, capacity: int | None = None, pairing: str = "tunable", *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.size = positive_int("size", size)
        self.pairing = one_of("pairing", pairing, PAIRINGS)
        if size < 2:
            raise ValueError("rotations need at least 2 units, got 1")
        if pairing == "fft":
            if size & (size - 1):
                raise ValueError(f"pairing 'fft' needs 2, 4, 8, ... units, got {size}: take pairing='tunable'")
            if capacity is not None:
                raise ValueError(f"capacity of pairing 'fft' is log2(units), got {capacity!r}: leave capacity out")
            pairs = butterfly_pairs(size)
        else:
            layers = positive_int("capacity", 2 if capacity is None else capacity)
            if layers % 2 or layers > size:
                raise ValueError(f"capacity must be even and at most the {size} units, got {layers}")
            pairs = tunable_pairs(size, layers)
        self.capacity = len(pairs)
        partner, slot = rotation_layout(pairs, size)
        # saved, though it follows from the arguments: a model is loaded into empty tensors
        self.register_buffer("partner", partner.to(device=device))
        self.register_buffer("slot", slot.to(device=device))
        angles = sum(map(len, pairs))
        place = {"device": device, "dtype": dtype}
        self.theta = nn.Parameter(torch.empty(angles, **place))
        self.phi = None if self.real else nn.Parameter(torch.empty(angles, **place))
        self.omega = None if self.real else nn.Parameter(torch.empty(size, **place))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            for angle in self.parameters():
                angle.uniform_(-torch.pi, torch.pi)

    def rebuild(self) -> Tensor:
        """(2 L + 1, n): L rows of what each unit keeps, L of what it takes of its partner, and the diagonal."""
        factors = rotation_factors(self.theta, self.phi, self.slot).flatten(0, 1)
        diagonal = factors.new_ones(self.size) if self.omega is None else phase(self.omega)
        return torch.cat((factors, diagonal.unsqueeze(0)))

    def forward(self, h: Tensor, built: Tensor | None = None) -> Tensor:
        built = self.rebuild() if built is None else built
        return built[-1] * rotate(h, self._layers(built), self.partner)

    def adjoint(self, h: Tensor, built: Tensor | None = None) -> Tensor:
        built = self.rebuild() if built is None else built
        return rotate_back(built[-1].conj() * h, self._layers(built), self.partner)

    def _layers(self, built: Tensor) -> Tensor:
        return built[:-1].reshape(2, self.capacity, self.size)

    def extra_repr(self) -> str:
        return f"{self.size}, capacity={self.capacity}, pairing={self.pairing!r}"


class GivensOrthogonal(GivensUnitary):
    """`GivensUnitary` over real numbers: phi = 0 and no diagonal, so W is a rotation, det W = 1. Parameter: theta."""

    real = True
