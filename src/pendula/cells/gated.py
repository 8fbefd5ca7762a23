"""LSTM and GRU, the networks to compare with: PyTorch's own, behind the face of a cell."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

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

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether the gates have biases.

    Shapes: drive is the input (B, I); state h, c (B, N); output h. It has no time step: `tau` is refused.
    """

    State: ClassVar[type[Any]] = LSTMState
    equation: ClassVar[str] = "c_t = f_t * c_{t-1} + i_t * g_t,  h_t = o_t * tanh(c_t)"
    source: ClassVar[str] = "Hochreiter and Schmidhuber 1997; torch.nn.LSTM"
    has_time_step: ClassVar[bool] = False
    fused: ClassVar[FusedScan | None] = TORCH_LSTM
    torch_class: ClassVar[type[nn.LSTM | nn.GRU]] = nn.LSTM

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.rnn = self.torch_class(input_size, hidden_size, bias=bias, device=device, dtype=dtype)

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

    def operands(self) -> tuple[Tensor, ...]:
        return tuple(self.rnn.parameters())

    def order(self) -> tuple[int, int]:
        return (2, 2)


class GRUCell(LSTMCell):
    """Gated recurrent unit, as `torch.nn.GRU` computes it (the reset gate acts after the recurrent product).

        h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    Cho et al. 2014. The equations, the starting distribution and the kernels are PyTorch's.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether the gates have biases.

    Shapes: drive is the input (B, I); state h (B, N); output h. It has no time step: `tau` is refused.
    """

    State = GRUState
    equation: ClassVar[str] = "h_t = (1 - z_t) * n_t + z_t * h_{t-1}"
    source: ClassVar[str] = "Cho et al. 2014; torch.nn.GRU"
    fused = TORCH_GRU
    torch_class = nn.GRU

    def order(self) -> tuple[int, int]:
        return (2, 1)
