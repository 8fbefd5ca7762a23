"""LipschitzRNN: a linear part and a bounded force, whose matrices are antisymmetric to a chosen share."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import between
from pendula.cells.base import Cell, Positive, once_per_scan


class LipschitzRNNState(NamedTuple):
    """Hidden state h (B, N)."""

    h: Tensor


class LipschitzRNNCell(Cell):
    """A linear differential equation with a bounded force, both with matrices of chosen antisymmetric share.

        h' = h A + tanh(h W + E u + e),   with h as a row
        A = beta (B - B^T) + (1 - beta) (B + B^T) - gamma I,   W the same of C

    One explicit Euler step (Erichson, Azencot, Queiruga, Hodgkinson and Mahoney, ICLR 2021, arXiv 2006.12070; spec
    sheet ``baselines.md`` 1.5, read in the authors' code). There h is a row: as maps of columns the matrices are A^T
    and W^T, which come from B^T and C^T. A and W share beta and gamma. The authors call the time step eps.
    Starting distributions are those of their code: B and C from N(0, (init_std / N)^2), E Glorot normal, e zero; its
    init_std differs from script to script (0.1 on the sheet).

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether the force has a bias e.
        dt: time step, positive; one number or one per unit.
        beta: antisymmetric share of A and W, from 0 (symmetric) to 1 (antisymmetric, less gamma I).
        gamma: diffusion, a number of at least 0.
        init_std: size of the starting weights B and C, at least 0.

    Shapes: drive (B, N); state h (B, N); output h.

    Errors: ValueError for numbers outside their range.

    >>> cell = LipschitzRNNCell(3, 8, beta=0.8)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.h.shape
    torch.Size([2, 8])
    """

    State: ClassVar[type[Any]] = LipschitzRNNState
    equation: ClassVar[str] = "h' = h A + tanh(h W + E u + e)"
    source: ClassVar[str] = "Erichson, Azencot, Queiruga, Hodgkinson and Mahoney 2021, arXiv 2006.12070"
    dt = Positive()
    beta: Tensor
    gamma: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dt: Any = 0.3,
        beta: float = 0.75,
        gamma: float = 0.001,
        init_std: float = 0.1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.init_std = between("init_std", init_std, 0, float("inf"))
        place = {"device": device, "dtype": dtype}
        self.B = nn.Parameter(torch.empty(hidden_size, hidden_size, **place))
        self.C = nn.Parameter(torch.empty(hidden_size, hidden_size, **place))
        self.E = nn.Parameter(torch.empty(hidden_size, input_size, **place))
        self.e = nn.Parameter(torch.empty(hidden_size, **place)) if bias else None
        LipschitzRNNCell.dt.store(self, dt, learned=False, like=self.E)
        self.register_buffer("beta", self.E.new_tensor(between("beta", beta, 0, 1)))
        self.register_buffer("gamma", self.E.new_tensor(between("gamma", gamma, 0, float("inf"))))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.B, self.C):
            nn.init.normal_(weight, std=self.init_std / self.hidden_size)
        nn.init.xavier_normal_(self.E)
        if self.e is not None:
            nn.init.zeros_(self.e)

    @once_per_scan
    def A(self) -> Tensor:
        """The matrix of the linear part, (N, N)."""
        return self._mixed(self.B)

    @once_per_scan
    def W(self) -> Tensor:
        """The matrix within the force, (N, N)."""
        return self._mixed(self.C)

    def _mixed(self, B: Tensor) -> Tensor:
        identity = torch.eye(len(B), dtype=B.dtype, device=B.device)
        return self.beta * (B - B.T) + (1 - self.beta) * (B + B.T) - self.gamma * identity

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.E, self.e)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> LipschitzRNNState:
        dt = self.dt if tau is None else self.dt * tau
        return LipschitzRNNState(state[0] + dt * self.vector_field(state, drive).h)

    def vector_field(self, state: tuple[Tensor, ...], drive: Tensor) -> LipschitzRNNState:
        """h' of the differential equation at a state, for a held drive."""
        (h,) = state
        return LipschitzRNNState(torch.tanh(drive + h @ self.W) + h @ self.A)

    def order(self) -> tuple[int, int]:
        return (1, 1)
