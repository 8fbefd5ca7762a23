"""LSTM and GRU, the networks to compare with: PyTorch's own, behind the face of a cell."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pendula._check import finite_number
from pendula.cells.base import Cell
from pendula.ops.fused import FusedScan
from pendula.ops.torch_rnn import TORCH_GRU, TORCH_LSTM


class LSTMState(NamedTuple):
    """Hidden state h and cell state c, each (B, N)."""

    h: Tensor
    c: Tensor


class GRUState(NamedTuple):
    """Hidden state h (B, N)."""

    h: Tensor


class LSTMCell(Cell):
    """Long short-term memory, as `torch.nn.LSTM` computes it (two bias vectors, gates in the order i, f, g, o).

        c_t = f_t * c_{t-1} + i_t * g_t,   h_t = o_t * tanh(c_t)

    Hochreiter and Schmidhuber 1997. The equations, the starting distribution and the kernels are PyTorch's.

    With `chrono`, the gates start with memories of all lengths up to T_max (Tallec and Ollivier, ICLR 2018, arXiv
    1804.11188; recalled, spec sheet ``baselines.md`` 1.10): b_f = log u and b_i = -log u, with u ~ U(1, T_max - 1) for
    each unit, so that at zero pre-activation f = u / (1 + u) and i = 1 / (1 + u). All other biases start at zero.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether the gates have biases.
        chrono: T_max, the longest memory expected, in steps, at least 2; None for PyTorch's starting biases.

    Shapes: drive is the input (B, I); state h, c (B, N); output h. It has no time step: `tau` is refused.

    Errors: ValueError for a chrono below 2, or without biases.
    """

    State: ClassVar[type[Any]] = LSTMState
    equation: ClassVar[str] = "c_t = f_t * c_{t-1} + i_t * g_t,  h_t = o_t * tanh(c_t)"
    source: ClassVar[str] = "Hochreiter and Schmidhuber 1997; torch.nn.LSTM"
    has_time_step: ClassVar[bool] = False
    fused: ClassVar[FusedScan | None] = TORCH_LSTM
    torch_class: ClassVar[type[nn.LSTM | nn.GRU]] = nn.LSTM
    # which gates remember and which take in, in PyTorch's order of the gates
    remembering: ClassVar[int] = 1
    taking: ClassVar[int | None] = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        chrono: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.chrono = None if chrono is None else finite_number("chrono", chrono)
        if self.chrono is not None and self.chrono < 2:
            raise ValueError(f"chrono must be at least 2, the longest memory expected in steps, got {chrono!r}")
        if self.chrono is not None and not bias:
            raise ValueError("chrono starts the biases of the gates, and bias=False has none: leave one of them out")
        self.rnn = self.torch_class(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        self._start_gates()

    def reset_parameters(self) -> None:
        self.rnn.reset_parameters()
        self._start_gates()

    def _start_gates(self) -> None:
        if self.chrono is None:
            return
        size, first = self.hidden_size, self.rnn.get_parameter("bias_ih_l0")
        with torch.no_grad():
            log_u = torch.empty_like(first[:size]).uniform_(1, self.chrono - 1).log()
            # two vectors that add up: the second starts at zero
            first.zero_()
            self.rnn.get_parameter("bias_hh_l0").zero_()
            first[self.remembering * size :][:size] = log_u
            if self.taking is not None:
                first[self.taking * size :][:size] = -log_u

    def drive(self, x: Tensor) -> Tensor:
        return x

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> tuple[Tensor, ...]:
        if tau is not None:
            raise ValueError(f"{type(self).__name__} has no time step, so tau (timespans) can't scale it")
        hx = tuple(s.unsqueeze(0) for s in state)
        _, final = self.rnn(drive.unsqueeze(0), hx if len(hx) > 1 else hx[0])
        final = final if isinstance(final, tuple) else (final,)
        # under autocast the kernels give narrow tensors; the state keeps its type
        new: tuple[Tensor, ...] = self.State(*(f.squeeze(0).to(s.dtype) for f, s in zip(final, state, strict=True)))
        return new

    def operands(self) -> tuple[Any, ...]:
        return tuple(self.rnn.parameters())

    def order(self) -> tuple[int, int]:
        return (2, 2)


class GRUCell(LSTMCell):
    """Gated recurrent unit, as `torch.nn.GRU` computes it (the reset gate acts after the recurrent product).

        h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    Cho et al. 2014. The equations, the starting distribution and the kernels are PyTorch's. With `chrono`, the update
    gate starts with memories of all lengths up to T_max: b_z = log u, as in `LSTMCell`; all other biases start at zero.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether the gates have biases.
        chrono: T_max, the longest memory expected, in steps, at least 2; None for PyTorch's starting biases.

    Shapes: drive is the input (B, I); state h (B, N); output h. It has no time step: `tau` is refused.

    Errors: ValueError for a chrono below 2, or without biases.
    """

    State = GRUState
    equation: ClassVar[str] = "h_t = (1 - z_t) * n_t + z_t * h_{t-1}"
    source: ClassVar[str] = "Cho et al. 2014; torch.nn.GRU"
    fused = TORCH_GRU
    torch_class = nn.GRU
    taking = None

    def order(self) -> tuple[int, int]:
        return (2, 1)
