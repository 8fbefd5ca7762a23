"""Why does it not learn? Sentences that follow from what was measured, each with its reason and its source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pendula.cells import Cell
from pendula.cells.complex_units import UnitaryCell
from pendula.cells.orthogonal import OrthogonalCell
from pendula.diagnose.forward import Network, cells_of
from pendula.diagnose.gradients import GradientFlow
from pendula.diagnose.plain import plain
from pendula.diagnose.reasons import RULES, Found, left_of
from pendula.diagnose.verdict import ADAM_EPS, FADED, LayerGradients


@dataclass(frozen=True)
class Advice:
    """What to change in a layer, why (what was measured or computed from its physics and weights), and who says so.

    `source` names a section of the spec sheets ("cornn.md 4.5") and how much of it was checked or recalled.
    """

    layer: str
    what: str
    because: str
    source: str

    @property
    def sentence(self) -> str:
        return f"{self.layer}: {self.what}, because {self.because} [{self.source}]."

    def to_dict(self) -> dict[str, Any]:
        return {**plain(self), "sentence": self.sentence}


def advise(network: Network, flow: GradientFlow) -> tuple[Advice, ...]:
    """What to change so that gradients reach further, or where else to look; empty where nothing was found.

    Args:
        network: the one that `flow` was measured on, with the same weights.
        flow: from `gradient_flow`.

    >>> from pendula import CoRNN
    >>> from pendula.diagnose.gradients import gradient_flow
    >>> from pendula.tasks.base import Batch
    >>> slow = CoRNN(3, 8, dt=0.06, gamma=66.0, epsilon=15.0)
    >>> flow = gradient_flow(slow, Batch(torch.randn(100, 4, 3), torch.zeros(4)), lambda y, _: y[-1].square().mean())
    >>> advise(slow, flow)[0].source
    'cornn.md 4.5, derived and checked there'
    """
    cells = {place.name: cell for place, cell in cells_of(network).items()}
    found = []
    with torch.no_grad():
        for g in flow.layers:
            own = [*_of_size(g), *_of_network(cells[g.name], g)]
            found += [Advice(g.name, *parts) for parts in own]
        found += [Advice(name, *parts) for name, *parts in _of_depth(cells, flow.layers)]
    return tuple(found)


def _of_size(g: LayerGradients) -> Found:
    if g.verdict in ("exploding", "not finite"):
        source = "cornn.md 5.6 and baselines.md 1.8: LEM's authors clip at 1.0 and 1.1, read in their code"
        yield "clip the norm of the gradient (clip_norm=1)", f"gradients are {g.verdict}", source
    if g.parameter is not None and 0 < g.parameter < ADAM_EPS:
        yield (
            "make the loss larger, by scaling it or the read-out",
            f"the largest gradient of a parameter is {g.parameter:.2g}, below the eps of {ADAM_EPS:g} that Adam adds "
            "to what it divides by",
            "PyTorch's default of Adam's eps",
        )


def _of_depth(cells: dict[str, Cell], layers: tuple[LayerGradients, ...]) -> Iterator[tuple[str, str, str, str]]:
    first, last = layers[0], layers[-1]
    alike = first.network == last.network == "UnICORNN"
    if first is last or not alike or "not finite" in (first.verdict, last.verdict):
        return
    share = max(first.median) / max(last.median) if max(last.median) else 1.0
    if share < FADED:
        h = cast(Tensor, cells[first.name].h)
        yield (
            first.name,
            "take a larger dt, fewer layers, or residual=True",
            f"its gradients are {share:.2g} of those of {last.name}: a layer passes on about h^2 = "
            f"{float(h.mean()) ** 2:.2g} for each step of lag",
            "unicornn.md 4.7, derived and checked there",
        )


def _of_network(cell: Cell, g: LayerGradients) -> Found:
    network = g.network
    broken = [name for name, p in cell.named_parameters() if not bool(p.isfinite().all())]
    if broken:
        yield (
            "go back to weights from before, with a smaller learning rate",
            f"{len(broken)} of its parameters ({', '.join(broken)}) hold what is not finite",
            "measured here",
        )
        return
    if g.verdict == "steady" and isinstance(cell, (UnitaryCell, OrthogonalCell)):
        yield (
            "look at the learning rate, with a tenth of it for the recurrent matrix (pendula.make_optimiser does that)",
            f"{left_of(g)}, so gradients are not what is missing",
            "baselines.md 5: the common recipe of these networks",
        )
        return
    given = list(RULES[network](cell, g)) if network in RULES else []
    yield from given
    if g.verdict == "vanishing" and not given:
        yield (
            "take a network whose gradients can't vanish, such as UnICORNN (the determinant of each step is exactly 1)",
            left_of(g),
            "unicornn.md 4.1, derived and checked there",
        )
