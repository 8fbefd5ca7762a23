"""AntisymmetricRNN: Euler steps of a differential equation whose recurrent matrix is antisymmetric."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import between
from pendula.cells.base import Cell, Positive, once_per_scan


class AntisymmetricRNNState(NamedTuple):
    """Hidden state h (B, N)."""

    h: Tensor


def _identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)


class AntisymmetricRNNCell(Cell):
    """A differential equation whose linear part turns the state and shrinks it a little.

        h' = tanh(a),   a = (W - W^T - gamma I) h + V u + b
        h' = z * tanh(a),   z = sigmoid((W - W^T - gamma I) h + V_z u + b_z)   where gated

    One explicit Euler step, h_n = h_{n-1} + dt h'(h_{n-1}, u_n) (Chang, Chen, Haber and Chi, ICLR 2019, arXiv
    1902.09689; spec sheet ``baselines.md`` 1.5). The paper calls the time step epsilon. Only S = W - W^T counts, so the
    parameter is its upper triangle, row by row: N (N - 1) / 2 numbers, and antisymmetry can't be lost.

    The starting distribution is not the published one, which the sheet only recalls (W from N(0, sigma_w^2 / N), V from
    N(0, 1 / I)), but that of a later implementation, in the code of LipschitzRNN: W from N(0, (init_std / N)^2), so S
    from twice that variance; V Glorot normal; biases zero. init_std is that implementation's too;
    dt and gamma were chosen by measurement (``LOG.md``). The linear part of a step then starts without expanding.

    Eigenvalues near the imaginary axis alone don't make Euler steps stable (``odernn.md`` C6, C7), and training may
    leave the stable range: `contractive_dt` and `gain` measure where the weights stand.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units, at least 2.
        bias: whether b (and b_z) are there.
        dt: time step, positive; one number or one per unit.
        gamma: diffusion, a number of at least 0.
        gated: whether the gate z stands before the force; it shares the recurrent matrix.
        init_std: size of the starting weights W, at least 0.

    Shapes: drive (B, N), or (B, 2N) where gated; state h (B, N); output h.

    Errors: ValueError for numbers outside their range, and for one unit, which has no antisymmetric part.

    >>> cell = AntisymmetricRNNCell(3, 8, dt=0.1, gated=True)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.h.shape
    torch.Size([2, 8])
    """

    State: ClassVar[type[Any]] = AntisymmetricRNNState
    equation: ClassVar[str] = "h' = tanh((W - W^T - gamma I) h + V u + b)"
    source: ClassVar[str] = "Chang, Chen, Haber and Chi 2019, arXiv 1902.09689"
    dt = Positive()
    gamma: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dt: Any = 0.3,
        gamma: float = 0.03,
        gated: bool = False,
        init_std: float = 0.1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if hidden_size < 2:
            raise ValueError(f"hidden_size must be at least 2, got {hidden_size}: one unit has no antisymmetric part")
        if not isinstance(gated, bool):
            raise ValueError(f"gated must be True or False, got {gated!r}")
        self.gated = gated
        self.init_std = between("init_std", init_std, 0, float("inf"))
        place = {"device": device, "dtype": dtype}
        self.upper = nn.Parameter(torch.empty(hidden_size * (hidden_size - 1) // 2, **place))
        self.V = nn.Parameter(torch.empty(hidden_size, input_size, **place))
        self.b = nn.Parameter(torch.empty(hidden_size, **place)) if bias else None
        self.V_z = nn.Parameter(torch.empty(hidden_size, input_size, **place)) if gated else None
        self.b_z = nn.Parameter(torch.empty(hidden_size, **place)) if gated and bias else None
        AntisymmetricRNNCell.dt.store(self, dt, learned=False, like=self.V)
        self.register_buffer("gamma", self.V.new_tensor(between("gamma", gamma, 0, float("inf"))))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.upper, std=2**0.5 * self.init_std / self.hidden_size)
        for weight, b in ((self.V, self.b), (self.V_z, self.b_z)):
            if weight is not None:
                nn.init.xavier_normal_(weight)
            if b is not None:
                nn.init.zeros_(b)

    @once_per_scan
    def S(self) -> Tensor:
        """W - W^T, (N, N)."""
        n = self.hidden_size
        i, j = torch.triu_indices(n, n, 1, device=self.upper.device)
        upper = self.upper.new_zeros(n, n).index_put((i, j), self.upper)
        return upper - upper.T

    @once_per_scan
    def M(self) -> Tensor:
        """W - W^T - gamma I, (N, N)."""
        return self.S - self.gamma * _identity(self.S)

    def drive(self, x: Tensor) -> Tensor:
        drive = linear(x, self.V, self.b)
        return drive if self.V_z is None else torch.cat((drive, linear(x, self.V_z, self.b_z)), -1)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> AntisymmetricRNNState:
        dt = self.dt if tau is None else self.dt * tau
        return AntisymmetricRNNState(state[0] + dt * self.vector_field(state, drive).h)

    def vector_field(self, state: tuple[Tensor, ...], drive: Tensor) -> AntisymmetricRNNState:
        """h' of the differential equation at a state, for a held drive."""
        a, a_z = self._arguments(state, drive)
        return AntisymmetricRNNState(torch.tanh(a) if a_z is None else torch.sigmoid(a_z) * torch.tanh(a))

    def _arguments(self, state: tuple[Tensor, ...], drive: Tensor) -> tuple[Tensor, Tensor | None]:
        """What tanh and the gate are taken of."""
        recurrent = linear(state[0], self.M)
        if not self.gated:
            return drive + recurrent, None
        force, gate = drive.chunk(2, -1)
        return force + recurrent, gate + recurrent

    def contractive_dt(self) -> Tensor:
        """The largest uniform step whose linear part I + dt (S - gamma I) stretches no state (``odernn.md`` C6).

        It is 2 gamma / (gamma^2 + |S|^2), zero without gamma; a step dt stretches by at most
        sqrt((1 - dt gamma)^2 + dt^2 |S|^2). Without a gate that is the whole step at rest (zero state and drive);
        where the slopes of tanh differ from unit to unit, shorter steps can stretch too: `gain`.
        """
        square: Tensor = self.gamma**2 + torch.linalg.matrix_norm(self.S, 2) ** 2
        # without S and gamma the linear part is the identity for any step
        return torch.where(square == 0, float("inf"), 2 * self.gamma / square)

    def gain(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Tensor:
        """(B,): the most by which a step from here stretches a small change of the state, |I + dt J|_2.

        J = D (S - gamma I) with the slopes D of the force (``odernn.md`` C7); at most 1 is condition C2.
        """
        a, a_z = self._arguments(state, drive)
        force = torch.tanh(a)
        slope = 1 - force**2
        if a_z is not None:
            z = torch.sigmoid(a_z)
            slope = z * slope + z * (1 - z) * force
        dt = self.dt if tau is None else self.dt * tau
        jacobian = _identity(self.M) + (dt * slope).unsqueeze(-1) * self.M
        stretch: Tensor = torch.linalg.matrix_norm(jacobian, 2)
        return stretch

    def order(self) -> tuple[int, int]:
        return (1, 1)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", gated=True" if self.gated else "")
