"""FastRNN and FastGRNN: a weighted residual connection, and a gate made of the same two matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import finite_number, one_of, positive_int
from pendula.cells.base import Cell

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}


class FastState(NamedTuple):
    """Hidden state h (B, N)."""

    h: Tensor


class Fast(Cell):
    """What FastRNN and FastGRNN share: W and U, full or of low rank, and learned scalars.

    A matrix of low rank is a product, W = W_1 W_2^T, and never formed.
    """

    State: ClassVar[type[Any]] = FastState
    has_time_step: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        biases: tuple[str, ...],
        scalars: Mapping[str, float],
        *,
        rank_w: int | None,
        rank_u: int | None,
        place: Mapping[str, Any],
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.rank_w, self.rank_u = rank_w, rank_u
        self.start = {name: finite_number(name, value) for name, value in scalars.items()}
        self.biases = biases
        for matrix, columns, rank in (("W", input_size, rank_w), ("U", hidden_size, rank_u)):
            parts = {matrix: (hidden_size, columns)}
            if rank is not None:
                name, most = f"rank_{matrix.lower()}", min(hidden_size, columns)
                if positive_int(name, rank) > most:
                    raise ValueError(f"{name} must be at most {most}, got {rank}: leave it out for a full matrix")
                parts = {f"{matrix}_1": (hidden_size, rank), f"{matrix}_2": (columns, rank)}
            for part, shape in parts.items():
                self.register_parameter(part, nn.Parameter(torch.empty(shape, **place)))
        for b in biases:
            self.register_parameter(b, nn.Parameter(torch.empty(hidden_size, **place)))
        for scalar in self.start:
            self.register_parameter(scalar, nn.Parameter(torch.empty((), **place)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if name in self.start:
                nn.init.constant_(parameter, self.start[name])
            elif name in self.biases:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=0.1)

    def times(self, matrix: str, rank: int | None, v: Tensor) -> Tensor:
        """W v or U v, for v (..., columns)."""
        if rank is None:
            return linear(v, getattr(self, matrix))
        return linear(v @ getattr(self, f"{matrix}_2"), getattr(self, f"{matrix}_1"))

    def refuse(self, tau: Tensor | None) -> None:
        if tau is not None:
            raise ValueError(f"{type(self).__name__} has no time step, so tau (timespans) can't scale it")

    def order(self) -> tuple[int, int]:
        return (1, 1)


class FastRNNCell(Fast):
    """A recurrent network with a weighted residual connection.

        h~_t = phi(W x_t + U h_{t-1} + b),   h_t = sigmoid(alpha) h~_t + sigmoid(beta) h_{t-1}

    Kusupati, Singh, Bhatia, Kumar, Jain and Varma, NeurIPS 2018, arXiv 1901.02358; spec sheet ``baselines.md`` 1.6. Two
    scalars, learned, do what gates do: with sigmoid(beta) = 1 - sigmoid(alpha), which holds at the default start, h_t
    is a mean of h~_t and h_{t-1}. Starting weights are 0.1 N(0, 1), biases 1, as in the authors' code. Their
    thresholding of weights in training is not part of the cell.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether b is there.
        alpha, beta: where the scalars start, before the sigmoid; any number.
        rank_w: rank r of W = W_1 W_2^T, from 1 to min(I, N); None: W is one full matrix.
        rank_u: rank r of U = U_1 U_2^T, from 1 to N; None: U is one full matrix.
        nonlinearity: phi, "tanh" or "relu".

    Shapes: drive (B, N); state h (B, N); output h. It has no time step: `tau` is refused.

    Errors: ValueError for a rank above the full one, a scalar that is not finite, or an unknown nonlinearity.

    >>> cell = FastRNNCell(3, 8, rank_u=2)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.h.shape
    torch.Size([2, 8])
    """

    equation: ClassVar[str] = "h_t = sigmoid(alpha) phi(W x_t + U h_{t-1} + b) + sigmoid(beta) h_{t-1}"
    source: ClassVar[str] = "Kusupati et al. 2018, arXiv 1901.02358"
    alpha: Tensor
    beta: Tensor
    b: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        alpha: float = -3.0,
        beta: float = 3.0,
        rank_w: int | None = None,
        rank_u: int | None = None,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        scalars, place = {"alpha": alpha, "beta": beta}, {"device": device, "dtype": dtype}
        biases = ("b",) if bias else ()
        super().__init__(input_size, hidden_size, biases, scalars, rank_w=rank_w, rank_u=rank_u, place=place)
        self.nonlinearity = one_of("nonlinearity", nonlinearity, NONLINEARITIES)

    def drive(self, x: Tensor) -> Tensor:
        drive = self.times("W", self.rank_w, x)
        return drive + self.b if self.biases else drive

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> FastState:
        self.refuse(tau)
        (h,) = state
        phi = NONLINEARITIES[self.nonlinearity]
        update = phi(drive + self.times("U", self.rank_u, h))
        return FastState(torch.sigmoid(self.alpha) * update + torch.sigmoid(self.beta) * h)

    def response(self, lags: int) -> Tensor:
        k = torch.arange(lags, device=self.beta.device, dtype=self.beta.dtype)
        return torch.pow(torch.sigmoid(self.beta.detach()), k).unsqueeze(-1).expand(-1, self.hidden_size)


class FastGRNNCell(Fast):
    """FastRNN with a gate that reuses W and U.

        z_t = sigmoid(W x_t + U h_{t-1} + b_z),   h~_t = tanh(W x_t + U h_{t-1} + b_h)
        h_t = (sigmoid(zeta) (1 - z_t) + sigmoid(nu)) * h~_t + z_t * h_{t-1}

    Kusupati, Singh, Bhatia, Kumar, Jain and Varma, NeurIPS 2018, arXiv 1901.02358; spec sheet ``baselines.md`` 1.6.
    Starting weights are 0.1 N(0, 1), biases 1, as in the authors' code. Their thresholding of weights in training is
    not part of the cell.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether b_z and b_h are there.
        zeta, nu: where the scalars start, before the sigmoid; any number.
        rank_w: rank r of W = W_1 W_2^T, from 1 to min(I, N); None: W is one full matrix.
        rank_u: rank r of U = U_1 U_2^T, from 1 to N; None: U is one full matrix.

    Shapes: drive (B, 2N), for the gate and for the update; state h (B, N); output h. It has no time step: `tau` is
    refused.

    Errors: ValueError for a rank above the full one, or a scalar that is not finite.

    >>> cell = FastGRNNCell(3, 8, rank_w=1, rank_u=2)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.h.shape
    torch.Size([2, 8])
    """

    equation: ClassVar[str] = "h_t = (sigmoid(zeta) (1 - z_t) + sigmoid(nu)) * h~_t + z_t * h_{t-1}"
    source: ClassVar[str] = "Kusupati et al. 2018, arXiv 1901.02358"
    zeta: Tensor
    nu: Tensor
    b_z: Tensor
    b_h: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        zeta: float = 1.0,
        nu: float = -4.0,
        rank_w: int | None = None,
        rank_u: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        scalars, place = {"zeta": zeta, "nu": nu}, {"device": device, "dtype": dtype}
        biases = ("b_z", "b_h") if bias else ()
        super().__init__(input_size, hidden_size, biases, scalars, rank_w=rank_w, rank_u=rank_u, place=place)

    def drive(self, x: Tensor) -> Tensor:
        drive = self.times("W", self.rank_w, x)
        gate, update = (drive + self.b_z, drive + self.b_h) if self.biases else (drive, drive)
        return torch.cat((gate, update), -1)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> FastState:
        self.refuse(tau)
        (h,) = state
        gate, update = drive.chunk(2, -1)
        recurrent = self.times("U", self.rank_u, h)
        z = torch.sigmoid(gate + recurrent)
        update = torch.tanh(update + recurrent)
        return FastState((torch.sigmoid(self.zeta) * (1 - z) + torch.sigmoid(self.nu)) * update + z * h)
