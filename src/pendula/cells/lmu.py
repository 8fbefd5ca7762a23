"""LMU, Legendre memory unit: a linear memory of a sliding window beside a plain network."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import finite_number, one_of, positive_int
from pendula.cells.base import Cell
from pendula.math.exponential import exponential

INITS = ("library", "psmnist")


class LMUState(NamedTuple):
    """Hidden state h (B, N) and memory m (B, q)."""

    h: Tensor
    m: Tensor


class LMUCell(Cell):
    """A plain network that reads, and writes to, a memory of the last theta steps in Legendre polynomials.

        theta m' = A m + B u,   A_ij = (2i + 1) (-1 if i < j else (-1)^(i-j+1)),   B_i = (2i + 1) (-1)^i

    solved exactly for a u that is held over a step, A_bar and B_bar (zero-order hold), and at every step

        u_n = e_x x_n + e_h h_{n-1} + e_m m_{n-1}
        m_n = A_bar m_{n-1} + B_bar u_n
        h_n = tanh(W_x x_n + W_h h_{n-1} + W_m m_n + b)

    Voelker, Kajić and Eliasmith, NeurIPS 2019; read in the authors' code (spec sheet ``baselines.md`` 1.7). The
    published network has no bias: bias=False. A_bar and B_bar are not trained. They are made for steps of one length,
    and the network around the memory is a map from step to step, so there is no time step to scale: `tau` is refused.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether the units have a bias b, zero at the start.
        memory: q, number of polynomials.
        theta: length of the window in steps, positive. Take about the time over which the network must remember. The
            defaults of memory and theta were chosen by measurement (``LOG.md``); the psMNIST run has 256 and 784.
        init: "library" (e_x, e_h LeCun-uniform, e_m zero, W_x, W_h, W_m Glorot-normal) or "psmnist" (e_x one, e_h, e_m,
            W_x, W_h zero, W_m Glorot-normal). Glorot-normal is PyTorch's, which cuts nothing off.

    Shapes: drive (B, N + 1); state h (B, N), m (B, q); output h.

    Errors: ValueError for a memory that is no positive whole number, a theta that is not positive, an unknown init.

    >>> cell = LMUCell(3, 8, memory=6, theta=20.0)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.h.shape, state.m.shape
    (torch.Size([2, 8]), torch.Size([2, 6]))
    """

    State: ClassVar[type[Any]] = LMUState
    equation: ClassVar[str] = "theta m' = A m + B u,  h_n = tanh(W_x x_n + W_h h_{n-1} + W_m m_n + b)"
    source: ClassVar[str] = "Voelker, Kajić and Eliasmith 2019, NeurIPS"
    has_time_step: ClassVar[bool] = False
    A_bar: Tensor
    B_bar: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        memory: int = 64,
        theta: float = 128.0,
        init: str = "library",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.memory = positive_int("memory", memory)
        self.theta = finite_number("theta", theta)
        self.init = one_of("init", init, INITS)
        place = {"device": device, "dtype": dtype}
        self.W_x = nn.Parameter(torch.empty(hidden_size, input_size, **place))
        self.W_h = nn.Parameter(torch.empty(hidden_size, hidden_size, **place))
        self.W_m = nn.Parameter(torch.empty(hidden_size, memory, **place))
        self.e_x = nn.Parameter(torch.empty(1, input_size, **place))
        self.e_h = nn.Parameter(torch.empty(1, hidden_size, **place))
        self.e_m = nn.Parameter(torch.empty(1, memory, **place))
        self.b = nn.Parameter(torch.empty(hidden_size, **place)) if bias else None
        for name, matrix in zip(("A_bar", "B_bar"), sliding_window(self.memory, self.theta), strict=True):
            self.register_buffer(name, matrix.to(self.W_m))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        library = self.init == "library"
        for weight in (self.W_x, self.W_h):
            nn.init.xavier_normal_(weight) if library else nn.init.zeros_(weight)
        nn.init.xavier_normal_(self.W_m)
        for encoder, start in ((self.e_x, 1.0), (self.e_h, 0.0)):
            bound = (3 / encoder.shape[1]) ** 0.5
            nn.init.uniform_(encoder, -bound, bound) if library else nn.init.constant_(encoder, start)
        nn.init.zeros_(self.e_m)
        if self.b is not None:
            nn.init.zeros_(self.b)

    def initial_state(self, batch: int) -> LMUState:
        return LMUState(self.W_m.new_zeros(batch, self.hidden_size), self.W_m.new_zeros(batch, self.memory))

    def drive(self, x: Tensor) -> Tensor:
        return torch.cat((linear(x, self.W_x, self.b), linear(x, self.e_x)), -1)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> LMUState:
        if tau is not None:
            raise ValueError(f"{type(self).__name__} has no time step, so tau (timespans) can't scale it")
        h, m = state
        d_h, d_u = torch.split(drive, [self.hidden_size, 1], -1)
        u = d_u + linear(h, self.e_h) + linear(m, self.e_m)
        # no autocast: psMNIST's A_bar is 1.8e-3 away from an unstable one, and bfloat16 would move it by 3.4e-3
        with torch.autocast(m.device.type, enabled=False):
            m = linear(m, self.A_bar) + linear(u, self.B_bar)
        h = torch.tanh(d_h + linear(h, self.W_h) + linear(m, self.W_m))
        return LMUState(h, m)

    def window(self, m: Tensor, r: Tensor) -> Tensor:
        """What the memory m (..., q) remembers of u, r theta steps ago: (..., R) for r (R,) from 0 (now) to 1.

        u(t - r theta) = sum_i P_i(2 r - 1) m_i, where each sample of u was held for the step that led to its time.
        """
        return m @ legendre(self.memory, 2 * r - 1)

    def order(self) -> tuple[int, int]:
        return (1, -(-self.memory // self.hidden_size) + 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, memory={self.memory}, theta={self.theta}"


def sliding_window(memory: int, theta: float) -> tuple[Tensor, Tensor]:
    """A_bar (q, q) and B_bar (q, 1) in float64: one step of the memory of a window of theta steps, input held.

        [[A_bar, B_bar], [0, 1]] = exp([[A, B], [0, 0]])

    Errors: ValueError for a theta that is not positive.
    """
    if theta <= 0:
        raise ValueError(f"theta must be positive, the length of the window in steps, got {theta!r}")
    i = torch.arange(memory)
    below = i.unsqueeze(1) - i
    sign = torch.where(below < 0, -1, 2 * (below % 2) - 1)
    rate = (2 * i + 1).to(torch.float64).unsqueeze(1) / theta
    both = torch.zeros(memory + 1, memory + 1, dtype=torch.float64)
    both[:memory, :memory] = rate * sign
    both[:memory, memory:] = rate * (1 - 2 * (i.unsqueeze(1) % 2))
    step = exponential(both)
    return step[:memory, :memory].contiguous(), step[:memory, memory:].contiguous()


def legendre(count: int, x: Tensor) -> Tensor:
    """The first Legendre polynomials P_0, P_1, … at x (R,): (count, R).

    >>> legendre(3, torch.tensor([0.0, 1.0]))
    tensor([[ 1.0000,  1.0000],
            [ 0.0000,  1.0000],
            [-0.5000,  1.0000]])
    """
    found = [torch.ones_like(x), x]
    for i in range(1, count - 1):
        found.append(((2 * i + 1) * x * found[i] - i * found[i - 1]) / (i + 1))
    return torch.stack(found[:count])
