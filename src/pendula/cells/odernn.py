"""n-t-ODERNN: a Runge-Kutta scheme of n stages for a differential equation of order t."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import ShapeError, StabilityWarning, known_keys, one_of, positive_int
from pendula.cells.base import Cell, Positive, once_per_scan
from pendula.math.schemes import TABLEAUX, semi_implicit_step, tableau_of
from pendula.math.stability import linear_part_steps
from pendula.ops.fused import FusedScan
from pendula.ops.odernn_scan import ODERNN_SCAN

SEMI_IMPLICIT = "semi-implicit"
INPUTS = ("hold", "linear")
LEARNABLE = ("dt", "gamma")


class ODERNNState(NamedTuple):
    """y and its derivatives side by side, z_0 .. z_{t-1}: Z (B, t N); with linear input, then the last drive."""

    Z: Tensor


class ODERNNCell(Cell):
    """ODERNN (this library's definition, after arXiv 1904.12933): n stages of Runge-Kutta on an equation of order t.

        y^(t) = tanh(sum_j W_j y^(j) + U u + b) - sum_j gamma_j y^(j),   j = 0 .. t-1,   z_j = y^(j)

    Known from the paper (Niu, Horesh and Chuang 2019; only its first page could be read): the family relates a network
    to an integration method; nonlinearity n is the number of stages; memory t is the order of the derivative; LSTM and
    URNN sit at different n-t; sufficient conditions for stability follow; QUNN is a member with few parameters. The
    field, the schemes and the starting distributions are the reconstruction of the spec sheet ``odernn.md`` 2 and 5.
    Any network is a 1-1-ODERNN if any field is allowed (sheet 3.1): n and t only mean something for a field such as
    this one. States hold the z_j, not h^j z_j (sheet 9.4): in floating point a constant factor gains nothing (the
    float32 error was measured to be the same), and without it a state means the same for every dt.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether the field has a bias b.
        tableau: "euler", "heun", "midpoint", "ssp33", "kutta3", "rk4"; "semi-implicit" (Euler, highest derivative
            first); or any explicit scheme as ``{"A": [[0, 0], [1, 0]], "b": ["1/2", "1/2"]}``.
        order: t, at least 1. With "euler", an input reaches y only t steps later; with "semi-implicit" at once.
        dt: time step, positive; one number or one per unit.
        gamma: coefficients of the linear part, at least 0: a tensor (t,), or (t, N) with one per unit; in plain data a
            list for each layer, ``[[1.0, 0.2]]``. For t = 1 a number will do. None: 0.01 for t = 1, (1, 1) for t = 2,
            those of (s + 1)^t beyond; the sheet has (1, 0.2). Measured, with dt, in ``LOG.md``.
        input: what the stages see between two samples: "hold" (the new sample) or "linear" (the line between them;
            schemes of one stage then only see the sample before). A state of zeros says that the last drive was zero.
        antisymmetric: W_0 starts antisymmetric, M - M^T; training does not keep it so.
        learnable: which of dt and gamma are trained, as exp of a parameter.

    Shapes: W (t, N, N), U (N, I), b (N,); drive (B, N); state Z (B, t N) or (B, (t + 1) N); output z_0 (B, N).

    Errors: ValueError for a tableau that is no explicit consistent scheme, an unknown word or a number out of range; a
    `StabilityWarning` where one step of the linear part alone grows (sheet C1, C8).

    >>> cell = ODERNNCell(3, 8, tableau="heun", order=3)
    >>> (state,) = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.shape, cell.order()
    (torch.Size([2, 24]), (2, 3))
    """

    State: ClassVar[type[Any]] = ODERNNState
    equation: ClassVar[str] = "y^(t) = tanh(sum_j W_j y^(j) + U u + b) - sum_j gamma_j y^(j), n stages of Runge-Kutta"
    source: ClassVar[str] = "this library's definition, after Niu, Horesh and Chuang 2019, arXiv 1904.12933"
    fused: ClassVar[FusedScan | None] = ODERNN_SCAN
    dt, gamma = Positive(), Positive()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        tableau: Any = "rk4",
        order: int = 2,
        dt: Any = 0.3,
        gamma: Any = None,
        input: str = "hold",
        antisymmetric: bool = False,
        learnable: Sequence[str] = (),
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.tableau = tableau
        if isinstance(tableau, str):
            one_of("tableau", tableau, (*TABLEAUX, SEMI_IMPLICIT))
        self.scheme = None if tableau == SEMI_IMPLICIT else tableau_of(tableau)
        # `order` is a method of every cell
        self.t = positive_int("order", order)
        self.input = one_of("input", input, INPUTS)
        self.antisymmetric = bool(antisymmetric)
        if isinstance(learnable, str):
            raise ValueError(f"learnable must be a list of names, such as [{learnable!r}], got {learnable!r}")
        known_keys("learnable", learnable, LEARNABLE)
        self.learnable = tuple(learnable)
        place = {"device": device, "dtype": dtype}
        self.W = nn.Parameter(torch.empty(self.t, hidden_size, hidden_size, **place))
        self.U = nn.Parameter(torch.empty(hidden_size, input_size, **place))
        self.b = nn.Parameter(torch.empty(hidden_size, **place)) if bias else None
        step = ODERNNCell.dt.store(self, dt, learned="dt" in self.learnable, like=self.W)
        gammas = _gammas(gamma, self.t, hidden_size, zero="gamma" not in self.learnable)
        if "gamma" in self.learnable:
            self.log_gamma = nn.Parameter(gammas.log().to(self.W))
        else:
            self.register_buffer("gamma", gammas.to(self.W))
        check = linear_part_steps(self.scheme, gammas.T if gammas.dim() == 2 else gammas, step)
        if not bool(check.holds.all()):
            warnings.warn(
                f"ODERNN: one step of the linear part alone grows (spectral radius {float(check.value.max()):.4g}, or "
                "a double eigenvalue at 1): take a smaller dt, another tableau, or gammas that damp",
                StabilityWarning,
                stacklevel=2,
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        units = self.hidden_size
        with torch.no_grad():
            self.W.normal_(std=(self.t * units) ** -0.5)
            if self.antisymmetric:
                M = torch.empty_like(self.W[0]).normal_(std=(2 * units) ** -0.5)
                self.W[0] = M - M.T
            nn.init.xavier_uniform_(self.U)
            if self.b is not None:
                self.b.zero_()

    def initial_state(self, batch: int) -> ODERNNState:
        """At rest; with linear input, NaN where the last drive will stand: there was none, x_0 := x_1."""
        Z = self.W.new_zeros(batch, self.t * self.hidden_size)
        if self.input == "linear":
            Z = torch.cat((Z, self.W.new_full((batch, self.hidden_size), math.nan)), -1)
        return ODERNNState(Z)

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.U, self.b)

    @once_per_scan
    def W_row(self) -> Tensor:
        """[W_0 ... W_{t-1}], (N, t N): one product instead of t."""
        return self.W.transpose(0, 1).flatten(1)

    def highest(self, z: Tensor, drive: Tensor) -> Tensor:
        """y^(t) at z (B, t, N)."""
        # the drive leads the sum: it has the type of the state, so autocast products are added in full precision
        force = torch.tanh(drive + linear(z.flatten(-2), self.W_row))
        return force - (self.gamma.reshape(self.t, -1) * z).sum(-2)

    def field(self, z: Tensor, drive: Tensor) -> Tensor:
        """The derivative of z (B, t, N) in time."""
        return torch.cat((z[..., 1:, :], self.highest(z, drive).unsqueeze(-2)), -2)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> ODERNNState:
        h = self.dt if tau is None else self.dt * tau
        (Z,) = state
        z = self._derivatives(Z)
        before = drive
        if self.input == "linear":
            kept = Z[..., self.t * self.hidden_size :]
            before = torch.where(kept.isnan(), drive, kept)

        def seen(c: float) -> Tensor:
            return drive if before is drive else torch.lerp(before, drive, c)

        if self.scheme is None:
            z = semi_implicit_step(lambda z: self.highest(z, seen(0.0)), z, h)
        else:
            # (B, 1) or (B, N) acts on every derivative
            z = self.scheme.step(lambda z, c: self.field(z, seen(c)), z, h if tau is None else h.unsqueeze(-2))
        Z = z.flatten(-2)
        return ODERNNState(torch.cat((Z, drive), -1) if self.input == "linear" else Z)

    def output(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        return state[0][..., : self.hidden_size]

    def operands(self) -> tuple[Any, ...]:
        # one stage of weight 1, where there is no tableau
        A, b = (((0.0,),), (1.0,)) if self.scheme is None else (self.scheme.A, self.scheme.b)
        tableau = [float(a) for row in (*A, b) for a in row]
        semi_implicit, linear = self.scheme is None, self.input == "linear"
        return self.W, self.U, self.b, self.dt, self.gamma, tableau, semi_implicit, linear

    def order(self) -> tuple[int, int]:
        return (1 if self.scheme is None else self.scheme.depth, self.t)

    def vector_field(self, state: tuple[Tensor, ...], drive: Tensor) -> ODERNNState:
        """Z' of the differential equation at a state, for a held drive; zero where a last drive is kept."""
        (Z,) = state
        slope = self.field(self._derivatives(Z), drive).flatten(-2)
        return ODERNNState(torch.cat((slope, torch.zeros_like(drive)), -1) if self.input == "linear" else slope)

    def _derivatives(self, Z: Tensor) -> Tensor:
        return Z[..., : self.t * self.hidden_size].reshape(*Z.shape[:-1], self.t, self.hidden_size)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tableau={self.tableau!r}, order={self.t}, input={self.input!r}"


def _gammas(value: Any, t: int, units: int, *, zero: bool) -> Tensor:
    """gamma in float64, (t,) or (t, units), checked."""
    if value is None:
        known = {1: [0.01], 2: [1.0, 1.0]}
        value = known.get(t, [math.comb(t, j) for j in range(t)])
    try:
        gamma = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"gamma must be numbers, one per derivative, got {value!r}") from error
    gamma = gamma.reshape(1) if t == 1 and not gamma.dim() else gamma
    if gamma.shape not in ((t,), (t, units)):
        raise ShapeError(
            f"gamma must be one number per derivative, shape ({t},) or ({t}, {units}), got shape {tuple(gamma.shape)}: "
            "give a layer a tensor, or a list for each of its layers, such as [[1.0, 0.2]]"
        )
    if not bool(((gamma >= 0 if zero else gamma > 0) & torch.isfinite(gamma)).all()):
        raise ValueError(
            f"gamma must be {'at least 0' if zero else 'positive to be learned'} and finite, got {value!r}"
        )
    return gamma
