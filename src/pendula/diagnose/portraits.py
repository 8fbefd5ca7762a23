"""What there is to see of a trajectory: positions against velocities, energy over time, activity of the units."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pendula.cells import Cell, CoRNNCell, ODERNNCell, UnICORNNCell
from pendula.cells.linoss import OscillatorBlock
from pendula.diagnose.certificate import Certificate
from pendula.diagnose.forward import Network, Place, evaluating, outputs_of
from pendula.diagnose.plain import plain
from pendula.diagnose.trajectory import Observer, Stretch, walk
from pendula.math.linear_oscillator import clamped
from pendula.math.oscillator import energy, stability_objections
from pendula.tasks.base import Batch

# moments of a raster and of an energy curve; units of a raster and of a phase portrait; steps of a phase portrait
MOMENTS, UNITS, CURVES, WINDOW = 400, 64, 4, 1000


@dataclass(frozen=True)
class Portrait:
    """The trajectory of one layer and direction, in the order in which it reads its input.

    Attributes:
        name, network, state_size: as in `pendula.diagnose.gradients.LayerGradients`.
        steps: of the sequence that is shown, the longest of those that were run.
        stride: steps for one entry of `activity` and `energy`, which has the value that is farthest from zero.
        shown, units, activity: which number of a unit, numbers of the units, and a row for each.
        measure, energy, bound: what is called energy, a row for each sequence (None where it has ended), and the proven
            bound at the same moments; None where none applies.
        axes, curves, window: of the phase portrait: position against velocity of the units that move most, as (label,
            horizontal, vertical), over the first `window` steps; where a state has no velocities, its first two
            principal components. No curves where something is not finite.
    """

    name: str
    network: str
    state_size: int
    steps: int
    stride: int
    shown: str
    units: tuple[int, ...]
    activity: tuple[tuple[float, ...], ...]
    measure: str
    energy: tuple[tuple[float, ...], ...]
    bound: tuple[float, ...] | None
    axes: tuple[str, str]
    curves: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    window: int

    def to_dict(self) -> dict[str, Any]:
        """Numbers, words, lists and dicts only; None where a number is not finite."""
        data: dict[str, Any] = plain(self)
        return data


@torch.no_grad()
def portraits(network: Network, batch: Batch, *, sequences: int = 4) -> list[Portrait]:
    """Portraits of all layers and directions, from a copy of the network in float64, in evaluation mode.

    Args:
        network: a `pendula.Model`, or a layer such as `pendula.CoRNN` alone.
        batch: time-major, as tasks make them; the targets are not looked at.
        sequences: how many of them are run, the first ones.

    >>> from pendula import CoRNN
    >>> (portrait,) = portraits(CoRNN(3, 5), Batch(torch.randn(40, 2, 3), torch.zeros(2)))
    >>> portrait.axes, len(portrait.curves), len(portrait.activity[0])
    (('position y', "velocity y'"), 4, 40)
    """
    found: list[Portrait] = []

    def look(place: Place, cell: Cell, x: Tensor, lengths: Tensor | None, tau: Tensor | None, backend: str) -> Tensor:
        recorder = Recorder(cell, place.name, torch.float64)
        out = walk(cell, x, lengths, tau, recorder)
        found.append(recorder.portrait())
        return out

    twin = copy.deepcopy(network).cpu().double()
    few = slice(0, sequences)
    lengths = None if batch.lengths is None else torch.as_tensor(batch.lengths)[few]
    steps = batch.x.shape[0] if lengths is None else int(lengths.max())
    spans = None if batch.timespans is None else torch.as_tensor(batch.timespans)[:steps, few]
    x = batch.x[:steps, few]
    with evaluating(twin):
        outputs_of(twin, Batch(x, x.new_zeros(x.shape[1]), lengths, spans).to("cpu", torch.float64), look)
    return found


class Recorder(Observer[Cell]):
    """Keeps a few numbers of every step."""

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        super().begin(x, lengths, tau)
        self.row = 0 if lengths is None else int(lengths.argmax())
        self.steps = len(x)
        self.units: Tensor | None = None
        self.activity: list[Tensor] = []
        self.energy: list[Tensor] = []
        self.path: list[tuple[Tensor, ...]] = []

    def see(self, stretch: Stretch) -> None:
        state, row = self.cell.State(*stretch.after), self.row
        shown = activity(self.cell, state)[:, row]
        if self.units is None:
            size = shown.shape[1]
            self.units = torch.linspace(0, size - 1, min(size, UNITS)).round().long()
        self.activity.append(shown[:, self.units])
        self.energy.append(energy_of(self.cell, state).masked_fill(~stretch.runs, math.nan))
        left = WINDOW - stretch.first
        if left > 0:
            self.path.append(tuple(s[:left, row] for s in state))

    def certificates(self) -> list[Certificate]:
        """None: it only looks."""
        return []

    def portrait(self) -> Portrait:
        assert self.units is not None
        stride = -(-self.steps // MOMENTS)
        moments = range(0, self.steps, stride)
        energies = _farthest(torch.cat(self.energy), stride)
        rate = _allowed_per_step(self.cell) if self.even and self.longest == 1 else None
        path = self.cell.State(*(torch.cat(parts) for parts in zip(*self.path, strict=True)))
        axes, curves = _curves(self.cell, path)
        return Portrait(
            name=self.where,
            network=type(self.cell).__name__.removesuffix("Cell"),
            state_size=sum(s.shape[1] for s in path),
            steps=self.steps,
            stride=stride,
            shown=_shown(self.cell),
            units=tuple(self.units.tolist()),
            activity=_rows(_farthest(torch.cat(self.activity), stride)),
            measure=_measure(self.cell),
            energy=_rows(energies),
            bound=None if rate is None else tuple(rate * min(t + stride, self.steps) for t in moments),
            axes=axes,
            curves=tuple(curves),
            window=len(path[0]),
        )


def motion(cell: Cell, state: Any) -> tuple[Tensor, Tensor] | None:
    """Positions and velocities of a state, (..., N) each, where the network has such."""
    if isinstance(cell, (CoRNNCell, UnICORNNCell, OscillatorBlock)):
        return state.y, state.z
    if isinstance(cell, ODERNNCell) and cell.t > 1:
        y, velocity, *_ = torch.split(state.Z, cell.hidden_size, -1)
        return y, velocity
    return None


def activity(cell: Cell, state: Any) -> Tensor:
    """What is shown of each unit: its position, or the modulus of a complex one, or the first tensor of the state."""
    moved = motion(cell, state)
    if moved is not None:
        return moved[0]
    if "im" in state._fields:
        return torch.hypot(state.re, state.im)
    first: Tensor = state[0]
    return first[..., : cell.hidden_size] if isinstance(cell, ODERNNCell) else first


def energy_of(cell: Cell, state: Any) -> Tensor:
    """The energy of a state, summed over units: (...). See `_measure` for the formulas."""
    if isinstance(cell, CoRNNCell):
        return energy(state.y, state.z, cell.dt, cell.gamma, cell.epsilon, cell.variant)
    if isinstance(cell, UnICORNNCell):
        y, z = state.y, state.z
        conserved: Tensor = (z**2 + cell.alpha * y**2 - cell.alpha * cell.h * y * z).sum(-1)
        return conserved
    if isinstance(cell, OscillatorBlock):
        damped = torch.zeros_like(cell.A) if cell.G is None else cell.G
        A, _ = clamped(cell.scheme, cell.A, damped, cell.dt)
        total: Tensor = (state.z**2 + A * state.y**2).sum(-1) / 2
        return total
    return torch.stack([s.square().sum(-1) for s in state]).sum(0)


def _measure(cell: Cell) -> str:
    if isinstance(cell, CoRNNCell):
        weight = "(1 - epsilon dt) " if cell.variant == "explicit" else ""
        return f"gamma |y|^2 + {weight}|z|^2"
    if isinstance(cell, UnICORNNCell):
        return "z^2 + alpha y^2 - alpha h y z, which only the force changes"
    if isinstance(cell, OscillatorBlock):
        return "(|z|^2 + A y^2) / 2"
    return "squared norm of the state"


def _shown(cell: Cell) -> str:
    if motion(cell, cell.State(*cell.initial_state(1))) is not None:
        return "position y"
    return "modulus" if "im" in cell.State._fields else cell.State._fields[0]


def _allowed_per_step(cell: Cell) -> float | None:
    """By how much the bound of the energy of coRNN rises in a step of dt (`pendula.math.oscillator.energy_bound`)."""
    if not isinstance(cell, CoRNNCell):
        return None
    dt, gamma, epsilon = (torch.as_tensor(v).expand(cell.hidden_size) for v in (cell.dt, cell.gamma, cell.epsilon))
    if stability_objections(dt, gamma, epsilon, cell.variant):
        return None
    return float((dt / (2 * epsilon - gamma * dt)).sum())


def _farthest(values: Tensor, stride: int) -> Tensor:
    """Of each `stride` rows of (T, K) the value farthest from zero, so that no oscillation folds: (K, moments)."""
    pieces = []
    for piece in torch.split(values, stride):
        place = piece.abs().nan_to_num(-1.0).argmax(0, keepdim=True)
        pieces.append(piece.gather(0, place)[0])
    return torch.stack(pieces, 1)


def _rows(values: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())


def _curves(
    cell: Cell, path: Any
) -> tuple[tuple[str, str], Iterator[tuple[str, tuple[float, ...], tuple[float, ...]]]]:
    moved = motion(cell, path)
    if not all(bool(s.isfinite().all()) for s in path):
        return ("", ""), iter(())
    if moved is not None:
        y, velocity = moved
        most = (y.amax(0) - y.amin(0)).topk(min(CURVES, y.shape[1])).indices.tolist()
        curves = ((f"unit {k}", tuple(y[:, k].tolist()), tuple(velocity[:, k].tolist())) for k in most)
        return ("position y", "velocity y'"), curves
    flat = torch.cat(path, -1)
    flat = flat - flat.mean(0)
    U, s, _ = torch.linalg.svd(flat, full_matrices=False)
    # one step, or one number, has one component
    wide = torch.nn.functional.pad(U * s, (0, 2))
    total = float(s.square().sum()) or 1.0
    first, second = (tuple(wide[:, k].tolist()) for k in (0, 1))
    shares = [float((U * s)[:, k].square().sum()) / total if k < len(s) else 0.0 for k in (0, 1)]
    axes = (f"1st component ({shares[0]:.0%} of the variance)", f"2nd component ({shares[1]:.0%})")
    return axes, iter((("state", first, second),))
