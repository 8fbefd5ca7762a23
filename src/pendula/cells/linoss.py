"""LinOSS: linear oscillators between learned maps, in a residual block."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, glu, layer_norm, linear

from pendula._check import finite_number, one_of, per_unit, positive_int
from pendula.cells.base import Positive, once_per_scan, uniform_
from pendula.cells.linear import LinearCell
from pendula.math.linear_oscillator import clamped, step_matrix
from pendula.ops import linoss


class OscillatorState(NamedTuple):
    """Velocities z and positions y of the oscillators, each (B, P)."""

    z: Tensor
    y: Tensor


class OscillatorBlock(LinearCell):
    """The residual block around P oscillators that LinOSS and D-LinOSS share; see there.

    Parameters: A (P,), log_dt (P,), B (P, N), C (N, P), D (N,), encoder (N, I) where I is not N, gate (2 N, N).
    """

    State: ClassVar[type[Any]] = OscillatorState
    dropout_last: ClassVar[bool] = True
    drops_inside: ClassVar[bool] = True
    dt = Positive()
    scheme: str
    discretisation: str
    G: nn.Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        *,
        dt: Any,
        oscillators: int | None,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if hidden_size == 1:
            raise ValueError("hidden_size must be at least 2, got 1: the norm of one feature alone is always zero")
        self.oscillators = hidden_size if oscillators is None else positive_int("oscillators", oscillators)
        place = {"device": device, "dtype": dtype}
        self.encoder = nn.Linear(input_size, hidden_size, bias, **place) if input_size != hidden_size else None
        self.A = nn.Parameter(torch.empty(self.oscillators, **place))
        step = per_unit("dt", dt, self.oscillators).expand(self.oscillators)
        self.register_parameter("G", None)
        self.log_dt = nn.Parameter(step.log().to(self.A))
        self.B = nn.Parameter(torch.empty(self.oscillators, hidden_size, **place))
        self.C = nn.Parameter(torch.empty(hidden_size, self.oscillators, **place))
        self.D = nn.Parameter(torch.empty(hidden_size, **place))
        self.gate = nn.Linear(hidden_size, 2 * hidden_size, bias, **place)

    def reset_parameters(self) -> None:
        """The maps are drawn anew; dt stays as it is."""
        if self.encoder is not None:
            self.encoder.reset_parameters()
        self.gate.reset_parameters()
        uniform_(self.B, self.hidden_size)
        uniform_(self.C, self.oscillators)
        nn.init.normal_(self.D)

    def initial_state(self, batch: int) -> OscillatorState:
        return OscillatorState(*(self.A.new_zeros(batch, self.oscillators) for _ in range(2)))

    def drive(self, x: Tensor) -> Tensor:
        """Encoding e, force B u, feed-through D u and, in training with dropout, the mask of the branch."""
        e = x if self.encoder is None else self.encoder(x)
        u = layer_norm(e, (self.hidden_size,))
        parts = [e, linear(u, self.B), self.D * u]
        if self.training and self.dropout:
            parts.append(dropout(e.new_ones(1, *e.shape[1:]), self.dropout).expand_as(e))
        return torch.cat(parts, -1)

    def _parts(self, drive: Tensor) -> tuple[Tensor, ...]:
        n, p = self.hidden_size, self.oscillators
        return torch.split(drive, [n, p, n] if drive.shape[-1] == 2 * n + p else [n, p, n, n], -1)

    def matrix(self, h: Tensor) -> Tensor:
        """The step of length h of every oscillator, (2, 3, ..., P), see `step_matrix`."""
        A, G = clamped(self.scheme, self.A, torch.zeros_like(self.A) if self.G is None else self.G, h)
        return step_matrix(self.scheme, A, G, h)

    @once_per_scan
    def steady(self) -> Tensor:
        return self.matrix(self.dt)

    def affine(self, drive: Tensor, tau: Tensor | None) -> tuple[Tensor, Tensor]:
        matrix = self.steady if tau is None else self.matrix(self.dt * tau)
        force = self._parts(drive)[1]
        return matrix[:, :2], torch.stack([row * force for row in matrix[:, 2]])

    def states(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> tuple[Tensor, ...]:
        force = self._parts(drive)[1]
        if linoss.objection(force, self.A, state, tau) is None:
            return OscillatorState(*linoss.linoss_scan(force, self.steady, *state))
        return super().states(state, drive, tau=tau)

    def output(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        e, _, feed, *mask = self._parts(drive)
        branch = glu(self.gate(gelu(feed + linear(state[1], self.C))), -1)
        return e + branch * mask[0] if mask else e + branch

    def order(self) -> tuple[int, int]:
        """(1, 2), as coRNN: y_n is a function of y_{n-1}, y_{n-2} and the input. The map of the state is linear, as the
        memory of an LMU is; the norm before it is the one nonlinearity from the input to the state."""
        return (1, 2)

    def vector_field(self, state: tuple[Tensor, ...], drive: Tensor) -> OscillatorState:
        """z' and y' of the differential equation to which the step tends, for a held drive."""
        z, y = state
        G = torch.zeros_like(self.A) if self.G is None else torch.relu(self.G)
        A = torch.maximum(torch.relu(self.A), G * G / 4)
        return OscillatorState(self._parts(drive)[1] - A * y - G * z, z)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, oscillators={self.oscillators}, discretisation={self.discretisation!r}"


class LinOSSCell(OscillatorBlock):
    """Linear oscillators that only forces drive, in a residual block.

        y'' = -A y + B u,   u = norm(e),   x = C y + D u,   output = e + GLU(GELU(x))

    A >= 0, one per oscillator; e is the input, or V input + b where the widths differ. Rusch and Rus 2025,
    arXiv 2410.03943. With z = y' and h = dt, the state (z, y) is multiplied by

        im     S = 1 / (1 + h^2 A),  [[1 - h^2 A S, -h A S], [h S, S]]      |lambda| = (1 + h^2 A)^-1/2
        imex   [[1, -h A], [h, 1 - h^2 A]]                                  |lambda| = 1 for h^2 A < 4

    and, the map being affine, all times are reached by an associative scan (`pendula.math.associative`).

    Where this differs from the authors' code (read in that of D-LinOSS): B and C are real, while
    theirs are complex, which is two real oscillators for each A; the norm is over the features of one step, since
    theirs, over the batch and all times, can't be streamed; their step is a sigmoid, ours an exponential, learned as
    well; "imex" holds A to at most 4 / h^2, where theirs diverges; dropout acts once, behind the GLU, with one mask
    per sequence, while theirs acts behind the GELU too and is not held over time.

    Args:
        input_size: I, features of the input.
        hidden_size: N, width of the block; at least 2.
        bias: whether the encoder and the gate have biases.
        dt: time step at the start, positive, learned; one number or one per oscillator.
        discretisation: "im" (forgets, the more the stiffer) or "imex" (conserves).
        oscillators: P; as many as the width when None.
        A_max: A starts uniform in [0, A_max].

    Shapes: drive (B, 2 N + P); state z, y (B, P); output (B, N).

    Errors: ValueError for a value out of its range.

    >>> cell = LinOSSCell(3, 8, oscillators=5, discretisation="imex")
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.ones(1, 2, 3))[0])
    >>> state.y.shape
    torch.Size([2, 5])
    """

    equation: ClassVar[str] = "y'' = -A y + B u,  x = C y + D u"
    source: ClassVar[str] = "Rusch and Rus 2025, arXiv 2410.03943"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dt: Any = 1.0,
        discretisation: str = "imex",
        oscillators: int | None = None,
        A_max: float = 1.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dt=dt, oscillators=oscillators, device=device, dtype=dtype)
        self.discretisation = one_of("discretisation", discretisation, ("im", "imex"))
        self.scheme = "im" if discretisation == "im" else "imex1"
        self.A_max = finite_number("A_max", A_max)
        if A_max <= 0:
            raise ValueError(f"A_max must be positive, got {A_max!r}: an oscillator without stiffness drifts")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.uniform_(self.A, 0, self.A_max)
