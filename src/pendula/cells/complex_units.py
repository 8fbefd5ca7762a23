"""What networks with a unitary recurrence over complex units share."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import finite_number
from pendula.cells.base import Cell, once_per_scan
from pendula.cells.operators import Operator
from pendula.math.unitary import complex_of, max_tangential_gain, modrelu


class UnitaryState(NamedTuple):
    """Real and imaginary part of the complex units h, each (B, N)."""

    re: Tensor
    im: Tensor


class UnitaryCell(Cell):
    """``h_t = modReLU_b(W h_{t-1} + V x_t)``, h complex: what uRNN, full-capacity uRNN and EURNN share.

    A subclass brings the unitary W. Complex numbers are kept as real ones, [Re | Im]: V (2N, I), h_0 (2N,).
    """

    State: ClassVar[type[Any]] = UnitaryState
    equation: ClassVar[str] = "h_t = modReLU_b(W h_{t-1} + V x_t),  W unitary"
    has_time_step: ClassVar[bool] = False
    learned_start: ClassVar[bool] = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        W: Operator,
        *,
        eps: float,
        bias_range: float = 0.0,
        contracting: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size)
        for name, value in (("eps", eps), ("bias_range", bias_range)):
            if finite_number(name, value) < 0:
                raise ValueError(f"{name} must be at least 0, got {value!r}")
        if contracting and bias_range == 0:
            raise ValueError(
                "contracting takes -|b| for b, which has no gradient at b = 0: bias_range must be positive"
            )
        self.eps, self.bias_range, self.contracting = eps, bias_range, contracting
        like = next(W.parameters()).detach()
        self.V = nn.Parameter(like.new_empty(2 * hidden_size, input_size))
        self.b = nn.Parameter(like.new_empty(hidden_size)) if bias else None
        self.h_0 = nn.Parameter(like.new_empty(2 * hidden_size)) if self.learned_start else None
        self.W = W
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.W.reset_parameters()
        bound = (6 / (self.input_size + 2 * self.hidden_size)) ** 0.5
        start = (3 / (2 * self.hidden_size)) ** 0.5
        with torch.no_grad():
            self.V.uniform_(-bound, bound)
            if self.b is not None:
                self.b.uniform_(-self.bias_range, self.bias_range)
            if self.h_0 is not None:
                self.h_0.uniform_(-start, start)

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """h_0, the same for all sequences and trained; zeros where the network has none."""
        if self.h_0 is None:
            return super().initial_state(batch)
        re, im = self.h_0.chunk(2)
        return UnitaryState(re.expand(batch, -1), im.expand(batch, -1))

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.V)

    @once_per_scan
    def built(self) -> Tensor:
        """What a product with W needs."""
        return self.W.rebuild()

    @once_per_scan
    def shift(self) -> Tensor:
        """What modReLU adds to the modulus of each unit."""
        if self.b is None:
            return self.V.new_zeros(())
        return -self.b.abs() if self.contracting else self.b

    def recur(self, h: Tensor) -> Tensor:
        """W h."""
        product: Tensor = self.W(h, self.built)
        return product

    def preactivation(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        """``W h_{t-1} + V x_t``: (B, N), complex."""
        return self.recur(torch.complex(*state)) + complex_of(drive)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> UnitaryState:
        if tau is not None:
            raise ValueError(f"{type(self).__name__} has no time step, so tau (timespans) can't scale it")
        h = modrelu(self.preactivation(state, drive), self.shift, self.eps)
        return UnitaryState(h.real, h.imag)

    def max_tangential_gain(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        """The largest factor by which this step can stretch a gradient (spec sheet ``urnn.md`` P4): a diagnostic."""
        return torch.clamp(max_tangential_gain(self.preactivation(state, drive), self.shift, self.eps), min=1)

    @property
    def output_size(self) -> int:
        return 2 * self.hidden_size

    def output(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        """[Re h | Im h]."""
        return torch.cat(state, -1)

    def order(self) -> tuple[int, int]:
        return (1, 1)
