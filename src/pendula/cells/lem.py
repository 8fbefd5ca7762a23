"""LEM, long expressive memory: two states, each with a time step that the network chooses at every moment."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import StabilityWarning
from pendula.cells.base import Cell, Positive, uniform_
from pendula.ops.fused import FusedScan
from pendula.ops.lem_scan import LEM_SCAN


class LEMState(NamedTuple):
    """Hidden state y and memory z, each (B, N)."""

    y: Tensor
    z: Tensor


class LEMCell(Cell):
    """Two leaky populations of units, each of which chooses the length of its step anew at every moment.

        y' = s_2 * (tanh(W_y z + V_y u + b_y) - y),   s_2 = sigmoid(W_2 y + V_2 u + b_2)
        z' = s_1 * (tanh(W_z y + V_z u + b_z) - z),   s_1 = sigmoid(W_1 y + V_1 u + b_1)

    Explicit in the gates, implicit in the memory (Rusch, Mishra, Erichson and Mahoney, ICLR 2022, arXiv 2110.04744; the
    update was read in the authors' code, spec sheet ``baselines.md`` 1.8):

        z_n = (1 - dt s_1) * z_{n-1} + dt s_1 * tanh(W_z y_{n-1} + V_z u_n + b_z)
        y_n = (1 - dt s_2) * y_{n-1} + dt s_2 * tanh(W_y z_n + V_y u_n + b_y)

    Both gates see y_{n-1}; y_n sees the new z_n. For dt up to 1 both are weighted means, so from rest
    ``|y_n|, |z_n| <= 1 - (1 - dt)^n`` (derived here). The parameters are stacked: W is W_1, W_2, W_z, and V is V_1,
    V_2, V_z, V_y. As in the authors' code there are two bias vectors, b + c, in the order of V.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units of each population.
        bias: whether there are biases.
        dt: the longest step that a unit can take, positive; one number or one per unit. The default is that of the
            authors' code; their runs took 0.31 (psMNIST), 0.21 (sMNIST) and 0.0242 (adding).

    Shapes: drive (B, 4 N); state y, z (B, N); output y.

    Errors: ValueError for a dt that is not positive; a `StabilityWarning` for one above 1, where the bound is lost.

    >>> cell = LEMCell(3, 8, dt=0.3)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.z.shape
    torch.Size([2, 8])
    """

    State: ClassVar[type[Any]] = LEMState
    equation: ClassVar[str] = "y' = s_2 * (tanh(W_y z + V_y u + b_y) - y),  z' = s_1 * (tanh(W_z y + V_z u + b_z) - z)"
    source: ClassVar[str] = "Rusch, Mishra, Erichson and Mahoney 2022, arXiv 2110.04744"
    fused: ClassVar[FusedScan | None] = LEM_SCAN
    dt = Positive()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dt: Any = 1.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        place = {"device": device, "dtype": dtype}
        self.W = nn.Parameter(torch.empty(3 * hidden_size, hidden_size, **place))
        self.W_y = nn.Parameter(torch.empty(hidden_size, hidden_size, **place))
        self.V = nn.Parameter(torch.empty(4 * hidden_size, input_size, **place))
        self.b = nn.Parameter(torch.empty(4 * hidden_size, **place)) if bias else None
        self.c = nn.Parameter(torch.empty(4 * hidden_size, **place)) if bias else None
        longest = LEMCell.dt.store(self, dt, learned=False, like=self.W)
        if bool((longest > 1).any()):
            warnings.warn(
                f"LEM: dt <= 1 fails ({float(longest.max()):.4g}): a step may pass its goal, and the bound of 1 on the "
                "states is lost; take a smaller dt",
                StabilityWarning,
                stacklevel=2,
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            uniform_(parameter, self.hidden_size)

    def summed_bias(self) -> Tensor | None:
        return None if self.b is None or self.c is None else self.b + self.c

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.V, self.summed_bias())

    def gates(self, y: Tensor, drive: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """s_1, s_2, the goal of z, and what of the goal of y the input gives: each (B, N)."""
        d_1, d_2, d_z, d_y = drive.chunk(4, -1)
        a_1, a_2, a_z = linear(y, self.W).chunk(3, -1)
        # the drives lead the sums: they have the type of the state, so autocast products are added in full precision
        return torch.sigmoid(d_1 + a_1), torch.sigmoid(d_2 + a_2), torch.tanh(d_z + a_z), d_y

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> LEMState:
        y, z = state
        dt = self.dt if tau is None else self.dt * tau
        s_1, s_2, goal, d_y = self.gates(y, drive)
        z = torch.lerp(z, goal, dt * s_1)
        # the new memory: other packages take the old one, which is another network
        y = torch.lerp(y, torch.tanh(d_y + linear(z, self.W_y)), dt * s_2)
        return LEMState(y, z)

    def operands(self) -> tuple[Any, ...]:
        return self.W, self.W_y, self.V, self.summed_bias(), self.dt

    def order(self) -> tuple[int, int]:
        return (2, 2)

    def vector_field(self, state: tuple[Tensor, ...], drive: Tensor) -> LEMState:
        """y' and z' of the differential equation at a state, for a held drive."""
        y, z = state
        s_1, s_2, goal, d_y = self.gates(y, drive)
        return LEMState(s_2 * (torch.tanh(d_y + linear(z, self.W_y)) - y), s_1 * (goal - z))


def lem_author_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W, W_y, V, b and c of a `LEMCell` from a state dict of the authors' scripts.

    Theirs are three linear maps (spec sheet 1.8, read in their code; names are matched by their last two parts):
    ``inp2hid`` in the order 2, 1, y, z of our indices, ``hid2hid`` in the order 2, 1, z, and ``transform_z``.

    Errors: ValueError when the names or sizes do not fit.
    """
    found = {".".join(key.split(".")[-2:]): value for key, value in state_dict.items()}
    try:
        units = found["transform_z.weight"].shape[0]
        V, b = (torch.split(found[f"inp2hid.{kind}"], [units] * 4) for kind in ("weight", "bias"))
        W, c = (torch.split(found[f"hid2hid.{kind}"], [units] * 3) for kind in ("weight", "bias"))
        W_y, c_y = found["transform_z.weight"], found["transform_z.bias"]
        if {W_y.shape, *(w.shape for w in W)} != {(units, units)} or c_y.shape != (units,):
            raise ValueError("the recurrent weights are not square")
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            "not a LEM state dict of the authors: needs weight and bias of inp2hid (4 N, I), hid2hid (3 N, N) and "
            f"transform_z (N, N), got {', '.join(f'{k} {tuple(v.shape)}' for k, v in state_dict.items()) or 'nothing'}"
        ) from error
    return {
        "W": torch.cat((W[1], W[0], W[2])),
        "W_y": W_y.clone(),
        "V": torch.cat((V[1], V[0], V[3], V[2])),
        "b": torch.cat((b[1], b[0], b[3], b[2])),
        "c": torch.cat((c[1], c[0], c[2], c_y)),
    }
