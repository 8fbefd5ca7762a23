"""Elman's network and IRNN, the plain networks to compare with."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula.cells.base import Cell
from pendula.ops.fused import FusedScan
from pendula.ops.torch_rnn import TorchScan


class ElmanState(NamedTuple):
    """Activity h (B, N)."""

    h: Tensor


class ElmanCell(Cell):
    """The plain recurrent network.

        h_n = tanh(W h_{n-1} + V u_n + b)

    Elman 1990. One bias vector; V and W start Glorot-uniform and b at zero, as the tanh network does that the code of
    uRNN compares with (spec sheet ``urnn.md`` 6). There, h_0 is trained too; here it is zero.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether there is a bias b.

    Shapes: drive (B, N); state h (B, N); output h. It has no time step: `tau` is refused.

    >>> cell = ElmanCell(3, 8)
    >>> cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0]).h.shape
    torch.Size([2, 8])
    """

    State: ClassVar[type[Any]] = ElmanState
    equation: ClassVar[str] = "h_n = tanh(W h_{n-1} + V u_n + b)"
    source: ClassVar[str] = "Elman 1990"
    has_time_step: ClassVar[bool] = False
    fused: ClassVar[FusedScan | None] = TorchScan("torch.rnn_tanh", torch.rnn_tanh)

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size)
        place = {"device": device, "dtype": dtype}
        self.V = nn.Parameter(torch.empty(hidden_size, input_size, **place))
        self.W = nn.Parameter(torch.empty(hidden_size, hidden_size, **place))
        self.b = nn.Parameter(torch.empty(hidden_size, **place)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.V)
        nn.init.xavier_uniform_(self.W)
        if self.b is not None:
            nn.init.zeros_(self.b)

    @staticmethod
    def activation(a: Tensor) -> Tensor:
        return torch.tanh(a)

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.V, self.b)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> ElmanState:
        if tau is not None:
            raise ValueError(f"{type(self).__name__} has no time step, so tau (timespans) can't scale it")
        (h,) = state
        return ElmanState(self.activation(drive + linear(h, self.W)))

    def operands(self) -> tuple[Any, ...]:
        # torch's kernels have two bias vectors; cuDNN wants all weights in one piece of memory
        parts = [self.V, self.W, *([] if self.b is None else [self.b, torch.zeros_like(self.b)])]
        pieces = torch.split(torch.cat([part.flatten() for part in parts]), [part.numel() for part in parts])
        return tuple(piece.view_as(part) for piece, part in zip(pieces, parts, strict=True))

    def order(self) -> tuple[int, int]:
        return (1, 1)


class IRNNCell(ElmanCell):
    """The plain network of rectified units that starts by adding up its input.

        h_n = relu(W h_{n-1} + V u_n + b),   W = 1 at the start

    Le, Jaitly and Hinton 2015, arXiv 1504.00941. V starts Glorot-uniform and b at zero, as in the IRNN that the code of
    uRNN compares with (spec sheet ``urnn.md`` 6).

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether there is a bias b.

    Shapes: drive (B, N); state h (B, N); output h. It has no time step: `tau` is refused.

    >>> cell = IRNNCell(3, 8)
    >>> cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0]).h.shape
    torch.Size([2, 8])
    """

    equation: ClassVar[str] = "h_n = relu(W h_{n-1} + V u_n + b),  W = 1 at the start"
    source: ClassVar[str] = "Le, Jaitly and Hinton 2015, arXiv 1504.00941"
    fused = TorchScan("torch.rnn_relu", torch.rnn_relu)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.eye_(self.W)

    @staticmethod
    def activation(a: Tensor) -> Tensor:
        return torch.relu(a)
