"""UnICORNN: undamped oscillators that see only themselves; layers mix them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import StabilityWarning, one_of, per_unit, positive_int
from pendula.cells.base import Positive, once_per_scan
from pendula.cells.reversible import MEMORIES, Pulled, ReversibleCell
from pendula.ops.fused import FusedScan
from pendula.ops.unicornn_scan import UNICORNN_SCAN


class UnICORNNState(NamedTuple):
    """Positions y and velocities z, each (B, N)."""

    y: Tensor
    z: Tensor


class UnICORNNCell(ReversibleCell):
    """Undamped oscillators that see only themselves; the input map V of the next layer mixes them.

        y'' = -s^2 (tanh(w * y + V u + b) + alpha y),   s = sigmoid(c), one per oscillator

    Symplectic Euler, velocity first (Rusch and Mishra, ICML 2021, arXiv 2103.05487; spec sheet ``unicornn.md`` 1.2):

        h = dt s
        z_n = z_{n-1} - h (tanh(w * y_{n-1} + V u_n + b) + alpha y_{n-1})
        y_n = y_{n-1} + h z_n

    The step Jacobian of each oscillator has determinant 1 exactly, and the step can be undone: `unstep`. The update and
    the starting distributions were read in the authors' code; the paper's bound on the state is recalled and fails
    for long times (sheet 4.3), where the sheet derives another one. As in the authors' code, a layer's dropout also
    acts behind the last layer. Their networks have no residual connections; the paper's skip connections are recalled
    only, so the layer's `residual` is this library's.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of oscillators.
        bias: whether the force has a bias b.
        dt: the largest time step an oscillator can take, positive; one number or one per oscillator. Each trains its
            own share s of it. Defaults of dt and alpha were chosen by measurement on validation data (``LOG.md``).
        alpha: stiffness, at least 0; one number or one per oscillator.
        memory: what is kept for the backward pass. "store": the outputs, from which the velocities are rebuilt (and
            behind more than 64 inputs, in the compiled scan, the tanh of each step); "checkpoint": the state at every
            `checkpoint_every`-th step, undone in between; "reverse": nothing but the final state, whatever the number
            of steps; "tape": all, by PyTorch's autograd, for second derivatives. Where alpha + min(w) < 0, or alpha = 0
            and a w is negative, float32 can't undo many steps (sheet 3.3): "reverse" then warns and uses checkpoints.
        checkpoint_every: steps between two kept states.

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
    diagonal: ClassVar[bool] = True
    fused: ClassVar[FusedScan | None] = UNICORNN_SCAN
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
        memory: str = "store",
        checkpoint_every: int = 64,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.memory = one_of("memory", memory, MEMORIES)
        self.checkpoint_every = positive_int("checkpoint_every", checkpoint_every)
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

    @once_per_scan
    def h(self) -> Tensor:
        """The step that each oscillator takes (N,)."""
        return self.dt * torch.sigmoid(self.c)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> UnICORNNState:
        y, z = state
        h = self.h if tau is None else self.h * tau
        # velocity before position: swapped, the scheme is no longer symplectic
        z = z - h * self.force(y, drive)
        y = y + h * z
        return UnICORNNState(y, z)

    def unstep(
        self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None, output: Tensor | None = None
    ) -> UnICORNNState:
        """The state before a step, from the one after it: exact but for rounding, which unstable motion amplifies.

        With `output` (the kept y before the step) only the velocity is rebuilt, and rounding errors merely add up.
        """
        y, z = state
        h = self.h if tau is None else self.h * tau
        y = y - h * z if output is None else output
        z = z + h * self.force(y, drive)
        return UnICORNNState(y, z)

    def pullback(
        self,
        before: tuple[Tensor, ...],
        after: tuple[Tensor, ...],
        drive: Tensor,
        by_output: Tensor,
        by_state: tuple[Tensor, ...],
        *,
        tau: Tensor | None = None,
    ) -> Pulled:
        # by hand (sheet 3.1); the constants dt and alpha get their gradients from autograd if they want one
        if self.dt.requires_grad or self.alpha.requires_grad:
            return super().pullback(before, after, drive, by_output, by_state, tau=tau)
        (y, _), (_, z) = before, after
        s = torch.sigmoid(self.c)
        h = self.dt * s if tau is None else self.dt * s * tau
        t = torch.tanh(torch.addcmul(drive, self.w, y))
        by_y = by_output + by_state[0]
        by_z = torch.addcmul(by_state[1], h, by_y)
        pull = h * by_z
        by_drive = torch.addcmul(-pull, pull * t, t)
        by_h = by_y * z - by_z * (t + self.alpha * y)
        by_tau = None if tau is None else (by_h * (self.dt * s)).sum(-1, keepdim=True)
        by_s = (by_h if tau is None else by_h * tau).sum(0) * self.dt
        by_y = by_y + by_drive * self.w - self.alpha * pull
        return Pulled((by_y, by_z), by_drive, by_tau, {"w": (by_drive * y).sum(0), "c": by_s * s * (1 - s)})

    def reversal_objection(self) -> str | None:
        w, alpha = self.w.detach(), self.alpha
        if bool((alpha + w < 0).any()) or bool(((alpha == 0) & (w < 0)).any()):
            return "UnICORNN with negative weights w beyond alpha can't be run backwards in floating point (sheet 3.3)"
        return None

    def operands(self) -> tuple[Any, ...]:
        return self.w, self.h, self.alpha, self.V, self.b, self.memory_of_now(), self.checkpoint_every

    def order(self) -> tuple[int, int]:
        return (1, 2)

    def vector_field(self, state: tuple[Tensor, ...], drive: Tensor) -> UnICORNNState:
        """y' and z' of the differential equation at a state, for a held drive."""
        y, z = state
        s = torch.sigmoid(self.c)
        return UnICORNNState(s * z, -s * self.force(y, drive))


def author_weights(state_dict: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """V, b, w and c of each layer from a state dict of the authors' scripts (sheet 1.3).

    Errors: ValueError when the names or sizes are not those of their networks.
    """
    layers: list[dict[str, Tensor]] = []
    try:
        while f"RNNs.{len(layers)}.c_" in state_dict or not layers:
            depth = len(layers)
            v, b = state_dict[f"DIs.{depth}.fc.weight"], state_dict[f"DIs.{depth}.fc.bias"]
            w, c = state_dict[f"RNNs.{depth}.weight_hh"].flatten(), state_dict[f"RNNs.{depth}.c_"].flatten()
            if not v.shape[0] == len(b) == len(w) == len(c):
                raise ValueError(f"layer {depth} has sizes {v.shape[0]}, {len(b)}, {len(w)}, {len(c)}")
            layers.append({"V": v.clone(), "b": b.clone(), "w": w.clone(), "c": c.clone()})
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"not a UnICORNN state dict of the authors ({error}): needs DIs.0.fc.weight, DIs.0.fc.bias, "
            f"RNNs.0.weight_hh, RNNs.0.c_ and so on, got {', '.join(state_dict) or 'nothing'}"
        ) from error
    return layers
