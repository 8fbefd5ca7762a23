"""Networks with an orthogonal recurrence over real units: what they share, expRNN and scoRNN."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import finite_number, positive_int
from pendula.cells.base import Cell, once_per_scan
from pendula.cells.operators import Operator
from pendula.cells.skew import Exponential, ScaledCayley
from pendula.math.unitary import modrelu


class OrthogonalState(NamedTuple):
    """Hidden state h (B, N)."""

    h: Tensor


class OrthogonalCell(Cell):
    """``h_t = modReLU_b(h_{t-1} W + x_t V^T)``, h a row: what expRNN, scoRNN and the real EURNN share.

    A subclass brings the orthogonal W and the start of V and b. There is no input bias, and h_0 = 0.
    """

    State: ClassVar[type[Any]] = OrthogonalState
    equation: ClassVar[str] = "h_t = modReLU_b(h_{t-1} W + x_t V^T),  W orthogonal"
    has_time_step: ClassVar[bool] = False

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, W: Operator, *, eps: float, bias_range: float = 0.0
    ) -> None:
        super().__init__(input_size, hidden_size)
        for name, value in (("eps", eps), ("bias_range", bias_range)):
            if finite_number(name, value) < 0:
                raise ValueError(f"{name} must be at least 0, got {value!r}")
        self.eps, self.bias_range = eps, bias_range
        like = next(W.parameters()).detach()
        self.V = nn.Parameter(like.new_empty(hidden_size, input_size))
        self.b = nn.Parameter(like.new_empty(hidden_size)) if bias else None
        self.W = W
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.W.reset_parameters()
        with torch.no_grad():
            self.V.uniform_(-0.01, 0.01)
            if self.b is not None:
                self.b.uniform_(-self.bias_range, self.bias_range)

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.V)

    @once_per_scan
    def built(self) -> Tensor:
        """What a product with W needs."""
        return self.W.rebuild()

    @once_per_scan
    def shift(self) -> Tensor:
        """What modReLU adds to the size of each unit."""
        return self.V.new_zeros(()) if self.b is None else self.b

    def recur(self, h: Tensor) -> Tensor:
        # for a row h, h W is W^T h
        return self.W.adjoint(h, self.built)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> OrthogonalState:
        if tau is not None:
            raise ValueError(f"{type(self).__name__} has no time step, so tau (timespans) can't scale it")
        (h,) = state
        return OrthogonalState(modrelu(self.recur(h) + drive, self.shift, self.eps))

    def order(self) -> tuple[int, int]:
        return (1, 1)


class ExpRNNCell(OrthogonalCell):
    """An orthogonal recurrence that is the exponential of a skew matrix.

        h_t = modReLU_b(h_{t-1} W + x_t V^T),   W = B exp(A),   modReLU(a) = sign(a) relu(|a| + b)

    Lezcano-Casado and Martinez-Rubio, arXiv 1901.08428, as spec sheet ``baselines.md`` 1.1 read it in the authors'
    code: no input bias, h_0 = 0. B = I, unless ``cell.W.rebase()`` is called every K optimiser steps, which makes it
    dtriv_K (arXiv 1909.09501). The authors train A with a tenth of the learning rate, and so does
    `pendula.make_optimiser`.

    Args:
        input_size: I, features of the input.
        hidden_size: N, units.
        bias: whether modReLU has a bias b; without it modReLU is the identity and the network linear.
        init: start of A, blocks [[0, s], [-s, 0]]: "cayley", s = -tan(u / 2), u ~ U(0, pi / 2) (theirs for images), or
            "henaff", s ~ U(-pi, pi) (theirs for copying).
        eps: added to the size that modReLU divides by.
        bias_range: r of the start b ~ U(-r, r).

    Parameters: V (N, I); b (N,); W.A (N (N - 1) / 2,) above the diagonal; buffer W.B (N, N).

    Shapes: drive (B, N); state h (B, N); output h.

    Errors: ValueError for an unknown init, a negative eps or bias_range.

    >>> cell = ExpRNNCell(3, 8)
    >>> cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0]).h.shape
    torch.Size([2, 8])
    """

    source: ClassVar[str] = "Lezcano-Casado and Martinez-Rubio 2019, arXiv 1901.08428"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        init: str = "cayley",
        eps: float = 0.0,
        bias_range: float = 0.01,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        W = Exponential(positive_int("hidden_size", hidden_size), init, device=device, dtype=dtype)
        super().__init__(input_size, hidden_size, bias, W, eps=eps, bias_range=bias_range)

    def rates(self) -> dict[str, float]:
        return {"W.A": 0.1}

    def reset_parameters(self) -> None:
        super().reset_parameters()
        # Kaiming's normal distribution for relu
        with torch.no_grad():
            self.V.normal_(0, (2 / self.input_size) ** 0.5)


class ScoRNNCell(OrthogonalCell):
    """An orthogonal recurrence by the scaled Cayley transform of a skew matrix.

        h_t = modReLU_b(h_{t-1} W + x_t V^T),   W = (I + A)^{-1} (I - A) D

    Helfrich, Willmott and Ye, arXiv 1707.09520, as spec sheet ``baselines.md`` 1.2 read it in the authors' code. The
    sheet gives no start state; zero is taken. The authors train A with RMSprop and a tenth of the learning rate;
    `pendula.make_optimiser` takes the tenth.

    Args:
        input_size: I, features of the input.
        hidden_size: N, units.
        bias: whether modReLU has a bias b, 0 at the start; without it modReLU is the identity and the network linear.
        rho: how many of the N signs of D are -1 (None: N // 2, as for copying and adding; N // 10 for images).
        init: start of A, as for expRNN; under this map "cayley" turns by angles u ~ U(0, pi / 2).
        eps: added to the size that modReLU divides by.

    Parameters: V (N, I); b (N,); W.A (N (N - 1) / 2,) above the diagonal; buffer W.D (N,).

    Shapes: drive (B, N); state h (B, N); output h.

    Errors: ValueError for an unknown init, a rho that is not from 0 to N, or a negative eps.

    >>> cell = ScoRNNCell(3, 8, rho=1)
    >>> cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0]).h.shape
    torch.Size([2, 8])
    """

    source: ClassVar[str] = "Helfrich, Willmott and Ye 2018, arXiv 1707.09520"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        rho: int | None = None,
        init: str = "cayley",
        eps: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        W = ScaledCayley(positive_int("hidden_size", hidden_size), rho, init, device=device, dtype=dtype)
        super().__init__(input_size, hidden_size, bias, W, eps=eps)

    def rates(self) -> dict[str, float]:
        return {"W.A": 0.1}
