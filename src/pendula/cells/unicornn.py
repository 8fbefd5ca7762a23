"""UnICORNN: undamped oscillators that see only themselves; layers mix them."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import StabilityWarning, per_unit
from pendula.cells.base import Cell, Positive


class UnICORNNState(NamedTuple):
    """Positions y and velocities z, each (B, N)."""

    y: Tensor
    z: Tensor


class UnICORNNCell(Cell):
    """Undamped oscillators that see only themselves; the input map V of the next layer mixes them.

        y'' = -s^2 (tanh(w * y + V u + b) + alpha y),   s = sigmoid(c), one per oscillator

    Symplectic Euler, velocity first (Rusch and Mishra, ICML 2021, arXiv 2103.05487; spec sheet ``unicornn.md`` 1.2):

        h = dt s
        z_n = z_{n-1} - h (tanh(w * y_{n-1} + V u_n + b) + alpha y_{n-1})
        y_n = y_{n-1} + h z_n

    The step Jacobian of each oscillator has determinant 1 exactly, and the step can be undone: `unstep`. The update and
    the starting distributions were read in the authors' code; the paper's bound on the state is recalled and fails
    for long times (sheet 4.3), where the sheet derives another one. Time-locked dropout after the last layer, which
    the authors' scripts have, is not part of the cell.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of oscillators.
        bias: whether the force has a bias b.
        dt: the largest time step an oscillator can take, positive; one number or one per oscillator. Each trains its
            own share s of it. Defaults of dt and alpha were chosen by measurement on validation data (``LOG.md``).
        alpha: stiffness, at least 0; one number or one per oscillator.

    Shapes: drive (B, N); state y, z (B, N); output y.

    Errors: ValueError for a dt that is not positive or a negative alpha; a `StabilityWarning` where
    ``dt sqrt(alpha + 1) < 2`` fails (sheet 4.2, for w up to 1, where it starts).

    >>> cell = UnICORNNCell(3, 8, dt=0.2, alpha=1.5)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.z.shape
    torch.Size([2, 8])
    """

    State: ClassVar[type[Any]] = UnICORNNState
    equation: ClassVar[str] = "y'' = -s^2 (tanh(w * y + V u + b) + alpha y),  s = sigmoid(c)"
    source: ClassVar[str] = "Rusch and Mishra 2021, arXiv 2103.05487"
    dropout_last: ClassVar[bool] = True
    dt = Positive()
    alpha: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dt: Any = 1.0,
        alpha: Any = 0.5,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        place = {"device": device, "dtype": dtype}
        self.w = nn.Parameter(torch.empty(hidden_size, **place))
        self.c = nn.Parameter(torch.empty(hidden_size, **place))
        self.V = nn.Parameter(torch.empty(hidden_size, input_size, **place))
        self.b = nn.Parameter(torch.empty(hidden_size, **place)) if bias else None
        step = UnICORNNCell.dt.store(self, dt, learned=False, like=self.w)
        stiffness = per_unit("alpha", alpha, hidden_size, zero=True)
        self.register_buffer("alpha", stiffness.to(self.w))
        edge = step * torch.sqrt(stiffness + 1)
        if bool((edge >= 2).any()):
            warnings.warn(
                f"UnICORNN: dt sqrt(alpha + 1) < 2 fails ({float(edge.max()):.4g}): an oscillator with w = 1 would be "
                "unstable; take a smaller dt",
                StabilityWarning,
                stacklevel=2,
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        # Kaiming-uniform with the slope 8 of the authors' code
        bound = math.sqrt(6 / (65 * self.input_size))
        with torch.no_grad():
            self.V.uniform_(-bound, bound)
            self.w.uniform_(0, 1)
            self.c.uniform_(-0.1, 0.1)
            if self.b is not None:
                self.b.zero_()

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.V, self.b)

    def force(self, y: Tensor, drive: Tensor) -> Tensor:
        return torch.tanh(self.w * y + drive) + self.alpha * y

    def h(self, tau: Tensor | None) -> Tensor:
        """The step that each oscillator takes: (N,), or (B, N) with tau (B, 1)."""
        h = self.dt * torch.sigmoid(self.c)
        return h if tau is None else h * tau

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> UnICORNNState:
        y, z = state
        h = self.h(tau)
        # velocity before position: swapped, the scheme is no longer symplectic
        z = z - h * self.force(y, drive)
        y = y + h * z
        return UnICORNNState(y, z)

    def unstep(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> UnICORNNState:
        """The state before a step, from the one after it: exact but for rounding, which unstable motion amplifies."""
        y, z = state
        h = self.h(tau)
        y = y - h * z
        z = z + h * self.force(y, drive)
        return UnICORNNState(y, z)

    def order(self) -> tuple[int, int]:
        return (1, 2)

    def vector_field(self, state: tuple[Tensor, ...], drive: Tensor) -> UnICORNNState:
        """y' and z' of the differential equation at a state, for a held drive."""
        y, z = state
        s = torch.sigmoid(self.c)
        return UnICORNNState(s * z, -s * self.force(y, drive))
