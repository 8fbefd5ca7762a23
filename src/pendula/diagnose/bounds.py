"""Certificates of a network on a batch: which proven statements apply, what they promise and what was measured."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pendula import _check
from pendula.cells import (
    AntisymmetricRNNCell,
    Cell,
    CoRNNCell,
    FastRNNCell,
    GRUCell,
    LEMCell,
    LMUCell,
    LSTMCell,
    ODERNNCell,
    SpectralRNNCell,
    UnICORNNCell,
)
from pendula.cells.complex_units import UnitaryCell
from pendula.cells.linoss import OscillatorBlock
from pendula.cells.orthogonal import OrthogonalCell
from pendula.cells.qunn import QubitCell
from pendula.diagnose.antisymmetric import AntisymmetricObserver
from pendula.diagnose.certificate import Certificate, Statement, broken
from pendula.diagnose.cornn import CoRNNObserver
from pendula.diagnose.forward import Place, outputs_of, recurrent
from pendula.diagnose.gated import FastRNNObserver, LEMObserver, LSTMObserver
from pendula.diagnose.linear import MemoryObserver, OscillatorObserver
from pendula.diagnose.odernn import ODERNNObserver
from pendula.diagnose.qubits import QubitObserver
from pendula.diagnose.singular import SpectralObserver
from pendula.diagnose.trajectory import Observer, Stretch, walk
from pendula.diagnose.unicornn import UnICORNNObserver
from pendula.diagnose.unitary import UnitaryObserver
from pendula.nets.model import Model
from pendula.nets.recurrent import Recurrent
from pendula.nets.scan import valid_steps
from pendula.tasks.base import Batch

# numbers of one tensor (T, B, width) that are held at once, 128 MB; there are some five of them
HELD = 2**24

NOTHING = Statement(
    "no bound", "A bound of states or gradients that is proven for this network.", "none of the spec sheets has one"
)


class NothingKnown(Observer[Cell]):
    """A network of which nothing is proven."""

    def see(self, stretch: Stretch) -> None:
        pass

    def certificates(self) -> list[Certificate]:
        name = type(self.cell).__name__.removesuffix("Cell")
        return [NOTHING.declined(self.where, f"no bound on states or gradients of {name} is known to us")]


OBSERVERS: dict[type[Any], type[Observer[Any]]] = {
    AntisymmetricRNNCell: AntisymmetricObserver,
    CoRNNCell: CoRNNObserver,
    FastRNNCell: FastRNNObserver,
    GRUCell: NothingKnown,
    LEMCell: LEMObserver,
    LMUCell: MemoryObserver,
    LSTMCell: LSTMObserver,
    ODERNNCell: ODERNNObserver,
    OrthogonalCell: UnitaryObserver,
    OscillatorBlock: OscillatorObserver,
    QubitCell: QubitObserver,
    SpectralRNNCell: SpectralObserver,
    UnICORNNCell: UnICORNNObserver,
    UnitaryCell: UnitaryObserver,
}
"""Cell -> who watches it; a cell that is not here is watched as its nearest ancestor is."""


def certify(
    network: Model | Recurrent | Cell, batch: Batch | Tensor, *, sequences: int | None = None
) -> list[Certificate]:
    """Check every statement that is proven of a network, on its weights of now and on a batch.

    A copy of the network runs over the batch in float64 on the processor, without dropout, from the networks' own
    initial states, layer by layer: bounds are compared with states and Jacobians of the mathematics, not with the
    rounding of a kernel. Memory does not grow with the number of sequences, and with their length only by what one
    layer hands to the next. Nothing of the network is changed, and no random number of PyTorch's is drawn.

    A bound that holds for all times is compared at every step of every sequence; statements about Jacobians at up to
    eight moments of the trajectory, where nothing else is said.

    Args:
        network: a `pendula.Model`, a layer such as `pendula.CoRNN`, or a cell.
        batch: time-major, as tasks make them, or its input (T, B, I) alone. Lengths and timespans are respected.
        sequences: how many sequences of the batch are run, the first ones; all of them when None.

    Returns:
        For each layer and direction the certificates of its network; a network of which nothing is proven has one that
        says so. See `Certificate`: what does not apply is never a pass.

    Errors: ValueError for weights that are not finite, and for what the network itself refuses.

    >>> from pendula import CoRNN
    >>> found = certify(CoRNN(3, 8), torch.randn(20, 2, 3))
    >>> [c.name for c in found if c.holds][:2]
    ['linear stability', 'energy']
    """
    if not isinstance(network, (Model, Recurrent, Cell)):
        raise ValueError(
            f"network must be a pendula.Model, a layer such as pendula.CoRNN, or a cell, got {type(network).__name__}"
        )
    recurrent(network)
    for name, parameter in network.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            raise ValueError(f"{name} is not finite: the training has diverged, and no bound says anything about it")
    if isinstance(batch, Tensor):
        batch = Batch(batch, batch.new_zeros(batch.shape[1] if batch.dim() > 1 else 0))
    if batch.x.dim() < 2:
        raise _check.ShapeError(f"the input of the batch must be (time, batch, features), got {tuple(batch.x.shape)}")
    stored = next(network.parameters()).dtype
    twin = copy.deepcopy(network).cpu().double().eval()
    batch = batch.to("cpu", torch.float64)
    total = batch.x.shape[1]
    if sequences is not None:
        total = min(total, _check.positive_int("sequences", sequences))
    watch = _Watched(stored)
    size = max(1, HELD // (batch.x.shape[0] * _widest(twin)))
    with torch.no_grad():
        for first in range(0, total, size):
            part = _rows(batch, slice(first, min(first + size, total)))
            if isinstance(twin, Cell):
                watch.lone(twin, part)
            else:
                outputs_of(twin, part, watch)
    return watch.certificates()


class _Watched:
    """A `LayerScan` whose every step is seen by the observer of its cell."""

    def __init__(self, stored: torch.dtype) -> None:
        self.stored = stored
        self.observers: dict[str, Observer[Any]] = {}

    def __call__(
        self, place: Place, cell: Cell, x: Tensor, lengths: Tensor | None, tau: Tensor | None, backend: str
    ) -> Tensor:
        observer = self.observers.get(place.name)
        if observer is None:
            kind = next((OBSERVERS[c] for c in type(cell).__mro__ if c in OBSERVERS), NothingKnown)
            observer = self.observers[place.name] = kind(cell, place.name, self.stored)
        return walk(cell, x, lengths, tau, observer)

    def lone(self, cell: Cell, batch: Batch) -> None:
        """A cell that stands in no layer."""
        _check.sequence_input(batch.x, cell.input_size, next(cell.parameters()))
        steps, size = batch.x.shape[:2]
        lengths = None if batch.lengths is None else _check.lengths_of(batch.lengths, steps, size, batch.x.device)
        tau = batch.timespans
        if tau is not None:
            if not cell.has_time_step:
                raise ValueError(f"{type(cell).__name__} has no time step, so timespans can't scale it: leave them out")
            tau = _check.timespans_of(tau, steps, size, batch.x)
            _check.positive_timespans(tau, None if lengths is None else valid_steps(lengths, steps))
        self(Place("cell", 0, 0, False), cell, batch.x, lengths, tau, "reference")

    def certificates(self) -> list[Certificate]:
        return [c for observer in self.observers.values() for c in observer.certificates()]


def _rows(batch: Batch, rows: slice) -> Batch:
    lengths = None if batch.lengths is None else torch.as_tensor(batch.lengths)[rows]
    spans = None if batch.timespans is None else torch.as_tensor(batch.timespans)[:, rows]
    return replace(batch, x=batch.x[:, rows], y=batch.y[:0], lengths=lengths, timespans=spans)


def _widest(network: torch.nn.Module) -> int:
    """The widest tensor that a step of a layer takes or gives."""
    cells = [module for module in network.modules() if isinstance(module, Cell)]
    return max(max(cell.input_size, 2 * cell.output_size) for cell in cells)


class BrokenBound(RuntimeError):
    """A proven bound was exceeded in training; the message says which, where and by how much."""


class Watch:
    """Certificates during training: called after optimiser steps, it looks at every so many of them.

    Args:
        every: optimiser steps between two looks, at least 1.
        sequences: how many sequences of the batch are run for a look.
        stop: raise `BrokenBound` at the first broken certificate; otherwise they are only recorded.

    Attributes: `broken` holds (step, certificate) of all that were broken; `looks` is how often it has looked.

    >>> from pendula import CoRNN
    >>> watch = Watch(every=100)
    >>> watch(CoRNN(3, 8), torch.randn(20, 2, 3), 200)
    []
    """

    def __init__(self, every: int = 100, *, sequences: int = 4, stop: bool = False) -> None:
        self.every = _check.positive_int("every", every)
        self.sequences = _check.positive_int("sequences", sequences)
        self.stop = stop
        self.broken: list[tuple[int, Certificate]] = []
        self.looks = 0

    def __call__(self, network: Model | Recurrent | Cell, batch: Batch | Tensor, step: int) -> list[Certificate]:
        """The broken certificates, if the step (from 1) is one to look at; else an empty list."""
        if step % self.every:
            return []
        self.looks += 1
        found = broken(certify(network, batch, sequences=self.sequences))
        self.broken += [(step, certificate) for certificate in found]
        if found and self.stop:
            raise BrokenBound(f"after optimiser step {step}: {_listed(found)}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: every, looks, and the broken certificates with the step they were broken at."""
        rows = [{"after": step, **certificate.to_dict()} for step, certificate in self.broken]
        return {"every": self.every, "looks": self.looks, "broken": rows}


def _listed(certificates: Sequence[Certificate]) -> str:
    return "; ".join(c.sentence for c in certificates)
