"""What a network's steps do to small changes: singular values, Lyapunov exponents, frequencies, stability region."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pendula import _check
from pendula.cells import Cell, State
from pendula.cells.linear import LinearCell
from pendula.diagnose.forward import Network, Place, evaluating, known, outputs_of
from pendula.diagnose.linearised import Linearisation, Region, linearise, region_of, rest
from pendula.diagnose.lyapunov import STRIDE, Lyapunov, lyapunov, states_at
from pendula.diagnose.plain import plain
from pendula.nets.jacobian import step_jacobian
from pendula.nets.scan import run
from pendula.tasks.base import Batch

# a Jacobian of more numbers than this squared takes too long; exponents need no Jacobian
LARGEST = 1024
SOURCE = "arXiv 2508.16817, abstract read"


@dataclass(frozen=True)
class Gains:
    """Singular values of step Jacobians along the trajectory: by how much a step stretches and shrinks small changes.

    times: numbers of the steps, from 0; largest, median, smallest: over all directions and running sequences.
    """

    times: tuple[int, ...]
    largest: tuple[float, ...]
    median: tuple[float, ...]
    smallest: tuple[float, ...]


@dataclass(frozen=True)
class Parallel:
    """Whether all times can safely be run at once by Newton's method, and why."""

    safe: bool
    exponent: float
    sentence: str


@dataclass(frozen=True)
class LayerSpectrum:
    """The spectra of one layer and direction.

    Attributes:
        name: where it stands in the model; network: its name in `pendula.CELLS`; state_size: S, numbers of a state.
        gains: singular values along the trajectory; linearisations: at rest, and in the middle of the trajectory;
            None and empty where S is above `LARGEST` or nothing is finite, and `left_out` then says so.
        lyapunov: the leading exponents; region: the stability region of the scheme; parallel: what follows from them.
    """

    name: str
    network: str
    state_size: int
    gains: Gains | None
    lyapunov: Lyapunov
    linearisations: tuple[Linearisation, ...]
    region: Region
    parallel: Parallel
    left_out: str | None

    def to_dict(self) -> dict[str, Any]:
        """Numbers, words, lists and dicts only; None where a number is not finite."""
        data: dict[str, Any] = plain(self)
        return data


@torch.no_grad()
def spectrum(
    network: Network, batch: Batch, *, samples: int = 16, exponents: int = 8, sequences: int = 4
) -> list[LayerSpectrum]:
    """What the steps of each layer and direction do to small changes, along the trajectories of a batch and at rest.

    All of it is computed in float64, on a copy of the network, in evaluation mode.

    Args:
        network: a `pendula.Model`, or a layer such as `pendula.CoRNN` alone.
        batch: time-major, as tasks make them; lengths and timespans are respected, the targets are not looked at.
        samples: at how many times along the trajectory Jacobians are taken.
        exponents: how many Lyapunov exponents, at most the numbers of a state.
        sequences: how many sequences of the batch are followed, the first ones.

    Errors: ValueError for numbers that are not positive, or input that the network itself refuses.

    >>> from pendula import CoRNN
    >>> (layer,) = spectrum(CoRNN(3, 4), Batch(torch.randn(50, 2, 3), torch.zeros(2)))
    >>> layer.region.scheme, layer.parallel.safe
    ('step', True)
    """
    known(network)
    samples, exponents = _check.positive_int("samples", samples), _check.positive_int("exponents", exponents)
    few = _check.positive_int("sequences", sequences)
    found: list[LayerSpectrum] = []

    def look(place: Place, cell: Cell, x: Tensor, lengths: Tensor | None, tau: Tensor | None, backend: str) -> Tensor:
        found.append(_of_layer(place, cell, x, lengths, tau, backend, samples, exponents))
        return run(cell, x, None, lengths=lengths, tau=tau, backend=backend)[0]

    twin = copy.deepcopy(network).double()
    with evaluating(twin):
        outputs_of(twin, _first(batch, few), look)
    return found


def _first(batch: Batch, few: int) -> Batch:
    """Some sequences, cut to the longest of them, in float64."""
    lengths = None if batch.lengths is None else torch.as_tensor(batch.lengths)[:few]
    steps = batch.x.shape[0] if lengths is None else int(lengths.max())
    spans = None if batch.timespans is None else torch.as_tensor(batch.timespans)[:steps, :few]
    x = batch.x[:steps, :few]
    return Batch(x, x.new_zeros(x.shape[1]), lengths, spans).to(x.device, torch.float64)


def _of_layer(
    place: Place,
    cell: Cell,
    x: Tensor,
    lengths: Tensor | None,
    tau: Tensor | None,
    backend: str,
    samples: int,
    exponents: int,
) -> LayerSpectrum:
    steps, batch = x.shape[:2]
    count = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
    times = sorted(set(torch.linspace(0, steps - 1, samples).long().tolist()))
    size = sum(s.shape[-1] for s in cell.initial_state(1))
    cuts = sorted({*times, *range(0, steps, STRIDE if exponents < size else 1), steps})
    states = states_at(cell, x, count, tau, cuts, backend)
    leading = lyapunov(cell, x, count, tau, cuts=cuts, states=states, count=exponents, backend=backend)
    gains: Gains | None = None
    lines: tuple[Linearisation, ...] = ()
    left_out = None
    if size <= LARGEST:
        at = dict(zip(cuts, states, strict=True))
        gains, lines = _gains(cell, x, count, tau, at, times), _lines(cell, x, int(count[0]), tau, at, times)
        if not lines:
            left_out = "frequencies: the Jacobians are not finite"
    else:
        left_out = f"singular values and frequencies: a Jacobian of {size} by {size} numbers takes too long"
    return LayerSpectrum(
        name=place.name,
        network=type(cell).__name__.removesuffix("Cell"),
        state_size=size,
        gains=gains,
        lyapunov=leading,
        linearisations=lines,
        region=region_of(cell),
        parallel=_parallel(cell, leading),
        left_out=left_out,
    )


def _lines(
    cell: Cell, x: Tensor, steps: int, tau: Tensor | None, at: dict[int, State], times: list[int]
) -> tuple[Linearisation, ...]:
    """At rest, and in the middle of the first sequence."""
    running = [t for t in times if t < steps]
    t = running[len(running) // 2]
    state, drive, span = _point(cell, x, tau, at[t], t, torch.zeros(1, dtype=torch.int64, device=x.device))
    both = (
        linearise(cell, *rest(cell), where="at rest"),
        linearise(cell, state, drive, where=f"before step {t + 1} of the first sequence", tau=span),
    )
    return tuple(line for line in both if line is not None)


def _point(
    cell: Cell, x: Tensor, tau: Tensor | None, state: State, t: int, rows: Tensor
) -> tuple[State, Tensor, Tensor | None]:
    """State, drive and time span of step t of some sequences."""
    drive = cell.drive(x[t : t + 1, rows])[0]
    return cell.State(*(s[rows] for s in state)), drive, None if tau is None else tau[t, rows].unsqueeze(-1)


def _gains(cell: Cell, x: Tensor, count: Tensor, tau: Tensor | None, at: dict[int, State], times: list[int]) -> Gains:
    seen = []
    for t in times:
        rows = (count > t).nonzero().squeeze(1)
        state, drive, span = _point(cell, x, tau, at[t], t, rows)
        M = step_jacobian(cell, state, drive, tau=span)
        # an SVD refuses what is not finite
        values = torch.linalg.svdvals(M) if bool(M.isfinite().all()) else M.new_full((1,), math.nan)
        seen.append((float(values.max()), float(values.quantile(0.5)), float(values.min())))
    largest, median, smallest = zip(*seen, strict=True)
    return Gains(tuple(times), largest, median, smallest)


def _parallel(cell: Cell, found: Lyapunov) -> Parallel:
    largest = found.exponents[0]
    number = f"the largest Lyapunov exponent is {largest:+.3g} per step (over {found.steps:.0f} steps)"
    if isinstance(cell, LinearCell):
        words = f"A step is affine in the state: an associative scan runs all times at once, and {number}."
        return Parallel(found.sign in ("negative", "zero"), largest, words)
    start = "Running all times at once by Newton's method"
    if found.sign == "negative":
        words = f"{start} is safe: {number}, so small changes are forgotten [{SOURCE}]."
    elif found.sign == "zero":
        words = (
            f"{start} is safe at the edge: {number}, which can't be told from zero (tolerance {found.tolerance:.2g}); "
            f"small changes stay, or grow as a power of the time, and long sequences take more iterations [{SOURCE}]."
        )
    elif found.sign == "positive":
        words = f"{start} is not safe: {number}, so small changes grow exponentially [{SOURCE}]."
    else:
        words = f"{start} is not safe: {number}, a trajectory or its derivative overflows."
    return Parallel(found.sign in ("negative", "zero"), largest, words)
