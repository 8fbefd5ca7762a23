"""coRNN: coupled, damped, driven oscillators."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import StabilityWarning, known_keys, one_of
from pendula.cells.base import Cell, Positive, uniform_
from pendula.math.oscillator import VARIANTS, stability_objections, transition
from pendula.ops.cornn_scan import CORNN_SCAN
from pendula.ops.fused import FusedScan

INITS = ("concat", "separate", "split")
LEARNABLE = ("dt", "gamma", "epsilon")


class CoRNNState(NamedTuple):
    """Positions y and velocities z, each (B, N)."""

    y: Tensor
    z: Tensor


class CoRNNCell(Cell):
    """Coupled damped oscillators whose force is a bounded function of all positions, velocities and the input.

        y'' = tanh(W y + W_z y' + V u + b) - gamma y - epsilon y'

    An IMEX step, velocity first (Rusch and Mishra, ICLR 2021, arXiv 2010.00951; spec sheet ``cornn.md`` 1.2):

        a_n = W y_{n-1} + W_z z_{n-1} + V u_n + b
        explicit:  z_n = z_{n-1} + dt (tanh(a_n) - gamma y_{n-1} - epsilon z_{n-1})
        implicit:  z_n = (z_{n-1} + dt (tanh(a_n) - gamma y_{n-1})) / (1 + epsilon dt)
        both:      y_n = y_{n-1} + dt z_n

    `explicit` is what all scripts of the authors run (read in their code); `implicit` is the one that the paper's
    proofs are written for (recalled from the paper, not re-read; the bounds in `pendula.math.oscillator` were
    derived again). The paper states its bounds for gamma = epsilon = 1.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of oscillators.
        bias: whether the force has a bias b.
        dt: time step, positive; one number or one per oscillator. The defaults of dt, gamma and epsilon were chosen
            by measurement on validation data (``LOG.md``).
        gamma: stiffness, positive; one number or one per oscillator.
        epsilon: damping, positive; one number or one per oscillator.
        variant: "explicit" or "implicit" damping.
        init: the authors' three starting distributions, U(-k, k) with k = fan_in^-1/2: "concat" (one map on
            [u, z, y]: fan-in I + 2N for all), "separate" (fan-in I for V and b, N for W and W_z) or "split" (I and 2N).
        learnable: which of dt, gamma, epsilon are trained, as exp of a parameter.
        coupling: which oscillators see one another, as edges of a graph, "0-1 1-2"; each also sees itself. W and W_z
            are zero elsewhere and stay so, and the fan-in counts what is seen on average. None: all see all.

    Shapes: drive (B, N); state y, z (B, N); output y.

    Errors: ValueError for numbers that are not positive; a `StabilityWarning` where a stability inequality of the
    variant fails (sheet 4.3, 4.6).

    >>> cell = CoRNNCell(3, 8, dt=0.05, gamma=2.0, epsilon=3.0)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.y.shape
    torch.Size([2, 8])
    """

    State: ClassVar[type[Any]] = CoRNNState
    equation: ClassVar[str] = "y'' = tanh(W y + W_z y' + V u + b) - gamma y - epsilon y'"
    source: ClassVar[str] = "Rusch and Mishra 2021, arXiv 2010.00951"
    fused: ClassVar[FusedScan | None] = CORNN_SCAN
    dt, gamma, epsilon = Positive(), Positive(), Positive()
    mask: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dt: Any = 0.2,
        gamma: Any = 0.5,
        epsilon: Any = 3.0,
        variant: str = "explicit",
        init: str = "split",
        learnable: Sequence[str] = (),
        coupling: str | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.variant = one_of("variant", variant, VARIANTS)
        self.init = one_of("init", init, INITS)
        if isinstance(learnable, str):
            raise ValueError(f"learnable must be a list of names, such as [{learnable!r}], got {learnable!r}")
        known_keys("learnable", learnable, LEARNABLE)
        self.learnable = tuple(learnable)
        self.coupling = coupling
        edges = [] if coupling is None else _edges(coupling, hidden_size)
        self.reach = hidden_size if coupling is None else 1 + round(2 * len(edges) / hidden_size)
        place = {"device": device, "dtype": dtype}
        self.W = nn.Parameter(torch.empty(hidden_size, hidden_size, **place))
        self.W_z = nn.Parameter(torch.empty(hidden_size, hidden_size, **place))
        self.V = nn.Parameter(torch.empty(hidden_size, input_size, **place))
        self.b = nn.Parameter(torch.empty(hidden_size, **place)) if bias else None
        cls = type(self)
        step, stiffness, damping = (
            constant.store(self, value, learned=constant.name in self.learnable, like=self.W)
            for constant, value in ((cls.dt, dt), (cls.gamma, gamma), (cls.epsilon, epsilon))
        )
        for sentence in stability_objections(step, stiffness, damping, variant):
            warnings.warn(f"coRNN ({variant}): {sentence}; take a smaller dt", StabilityWarning, stacklevel=2)
        mask = None if coupling is None else _mask(edges, hidden_size).to(self.W)
        # the spec has it: it is no part of the weights
        self.register_buffer("mask", mask, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        inputs, units = self.input_size, self.reach
        both = inputs + 2 * units
        outer, inner = {"concat": (both, both), "separate": (inputs, units), "split": (inputs, 2 * units)}[self.init]
        uniform_(self.V, outer)
        if self.b is not None:
            uniform_(self.b, outer)
        uniform_(self.W, inner)
        uniform_(self.W_z, inner)
        if self.mask is not None:
            with torch.no_grad():
                self.W.mul_(self.mask)
                self.W_z.mul_(self.mask)

    def coupled(self, weight: Tensor) -> Tensor:
        """A recurrent matrix with zeros where an oscillator doesn't see another."""
        return weight if self.mask is None else weight * self.mask

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.V, self.b)

    def force(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        y, z = state
        # the drive leads the sum: it has the type of the state, so autocast products are added in full precision
        return torch.tanh(drive + linear(y, self.coupled(self.W)) + linear(z, self.coupled(self.W_z)))

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> CoRNNState:
        y, z = state
        dt = self.dt if tau is None else self.dt * tau
        s = self.force(state, drive)
        if self.variant == "explicit":
            z = z + dt * (s - self.gamma * y - self.epsilon * z)
        else:
            z = (z + dt * (s - self.gamma * y)) / (1 + self.epsilon * dt)
        # velocity before position: swapped, this would be forward Euler, which is less stable
        y = y + dt * z
        return CoRNNState(y, z)

    def operands(self) -> tuple[Any, ...]:
        weights = (self.coupled(self.W), self.coupled(self.W_z), self.V, self.b)
        return *weights, self.dt, self.gamma, self.epsilon, self.variant == "implicit"

    def order(self) -> tuple[int, int]:
        return (1, 2)

    def response(self, lags: int) -> Tensor:
        # spec sheet dfa.md 7.2: A^k B, of which the output sees y
        power, start = transition(self.dt.detach(), self.gamma.detach(), self.epsilon.detach(), self.variant)
        found = start.unsqueeze(0)
        while len(found) < lags:
            # A^0 B, ..., A^(k-1) B, and then as many again
            found = torch.cat((found, (power @ found.unsqueeze(-1)).squeeze(-1)))
            power = power @ power
        # one column where all oscillators are alike
        return (found[:lags, ..., 0] / start[..., 0]).view(lags, -1).expand(-1, self.hidden_size)

    def vector_field(self, state: tuple[Tensor, ...], drive: Tensor) -> CoRNNState:
        """y' and z' of the differential equation at a state, for a held drive."""
        y, z = state
        return CoRNNState(z, self.force(state, drive) - self.gamma * y - self.epsilon * z)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, variant={self.variant!r}"


def _edges(coupling: str, units: int) -> list[tuple[int, int]]:
    """The pairs of "0-1 1-2". Errors: ValueError naming what is no edge between two of the oscillators."""
    if not isinstance(coupling, str):
        raise ValueError(f"coupling must be the edges of a graph, such as '0-1 1-2', got {coupling!r}")
    pairs = set()
    for edge in coupling.split():
        ends = edge.split("-")
        numbers = sorted({int(end) for end in ends if end.isdecimal() and int(end) < units})
        if len(ends) != 2 or len(numbers) != 2:
            raise ValueError(f"coupling must be edges between two of the oscillators 0 to {units - 1}, got {edge!r}")
        pairs.add((numbers[0], numbers[1]))
    return sorted(pairs)


def _mask(edges: Sequence[tuple[int, int]], units: int) -> Tensor:
    """(N, N), one where an oscillator sees another or itself."""
    low, high = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).unbind(1)
    mask = torch.eye(units)
    mask[low, high] = mask[high, low] = 1.0
    return mask


def author_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W, W_z, V and b from a state dict of the authors' scripts, whichever of their three layouts it has.

    Layouts (spec sheet 1.3, read in their code; names are matched by their last two parts):
    one ``i2h`` on [u, z, y]; ``i2h``, ``h2h1`` (on y), ``h2h2`` (on z); ``i2h`` and ``h2h`` on [z, y].

    Errors: ValueError when the names or sizes fit none of the three.
    """
    found = {".".join(key.split(".")[-2:]): value for key, value in state_dict.items()}
    try:
        first, b = found["i2h.weight"], found["i2h.bias"]
        units = first.shape[0]
        if "h2h1.weight" in found:
            v, w_z, w = first, found["h2h2.weight"], found["h2h1.weight"]
        elif "h2h.weight" in found:
            v, (w_z, w) = first, torch.split(found["h2h.weight"], units, 1)
        else:
            v, w_z, w = torch.split(first, [first.shape[1] - 2 * units, units, units], 1)
        if {w.shape, w_z.shape} != {(units, units)}:
            raise ValueError(f"the recurrent weights are not square: {tuple(w.shape)}, {tuple(w_z.shape)}")
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"not a coRNN state dict of the authors: needs i2h.weight and i2h.bias (and h2h1, h2h2 or h2h), "
            f"got {', '.join(f'{k} {tuple(v.shape)}' for k, v in state_dict.items()) or 'nothing'}"
        ) from error
    return {"W": w.clone(), "W_z": w_z.clone(), "V": v.clone(), "b": b.clone()}
