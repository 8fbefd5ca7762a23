"""Everything that is checked and measured of a network on a batch, with a verdict in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pendula.diagnose.advice import Advice, advise
from pendula.diagnose.alignment import RuleReport
from pendula.diagnose.bounds import certify
from pendula.diagnose.certificate import Certificate, broken
from pendula.diagnose.forward import Loss, Network, stateless
from pendula.diagnose.gradients import GradientFlow, gradient_flow
from pendula.diagnose.plain import plain
from pendula.diagnose.portraits import Portrait, portraits
from pendula.diagnose.spectrum import LayerSpectrum, spectrum
from pendula.diagnose.verdict import LayerGradients
from pendula.nets.model import Model
from pendula.tasks.base import Batch

FORMAT, VERSION = "pendula-diagnosis", 1
# what Lyapunov exponents cost grows with both; the first ones say what there is to say
EXPONENTS, FOLLOWED = 4, 2
STATELESS = (
    "This model has no recurrent layer: there are no states over time, and only its learning rule was looked at."
)


@dataclass(frozen=True)
class Diagnosis:
    """What was found of a network on a batch.

    Attributes:
        about: what was looked at, and by what: words and numbers.
        notes: what one must know to read the rest, a sentence each.
        certificates: of `pendula.diagnose.certify`; uncertified: why there are none, where there are none.
        gradients, advice, spectrum, portraits: of the functions of these names. Of a model without states over time
            gradients are None, and the others empty.
        learning: of a run that was trained by another rule than backpropagation.
    """

    about: Mapping[str, Any]
    notes: Sequence[str]
    certificates: Sequence[Certificate]
    uncertified: str | None
    gradients: GradientFlow | None
    advice: Sequence[Advice]
    spectrum: Sequence[LayerSpectrum]
    portraits: Sequence[Portrait] = field(repr=False)
    learning: RuleReport | None = None

    @property
    def verdict(self) -> tuple[str, ...]:
        """The whole in a few sentences."""
        learned = () if self.learning is None else self.learning.verdict
        if self.gradients is None:
            return learned
        return (
            *_of_bounds(self),
            *_of_gradients(self.gradients),
            *_of_advice(self.advice),
            *learned,
            _of_spectrum(self.spectrum),
        )

    def to_dict(self) -> dict[str, Any]:
        """Numbers, words, lists and dicts only: what JSON can hold."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "about": plain(dict(self.about)),
            "notes": list(self.notes),
            "verdict": list(self.verdict),
            "certificates": [c.to_dict() for c in self.certificates],
            "uncertified": self.uncertified,
            "gradients": None if self.gradients is None else self.gradients.to_dict(),
            "advice": [a.to_dict() for a in self.advice],
            "learning": None if self.learning is None else self.learning.to_dict(),
            "spectrum": [s.to_dict() for s in self.spectrum],
            "portraits": [p.to_dict() for p in self.portraits],
        }


def examine(
    network: Network,
    batch: Batch,
    loss: Loss,
    *,
    compare: str | None = "LSTM",
    about: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    learning: RuleReport | None = None,
) -> Diagnosis:
    """Check and measure everything; nothing in the network is changed.

    Args:
        network: a `pendula.Model`, or a layer such as `pendula.CoRNN` alone.
        batch: time-major, as tasks make them; lengths and timespans are respected.
        loss: of the prediction and the batch, one number, such as `task.loss`.
        compare: whose gradients stand beside the network's own, a name of `pendula.CELLS`; None for nobody's.
        about, notes: what to tell the reader of the page.
        learning: what was measured of the rule that trained the network. With it, a model without recurrent layer can
            be given, which has nothing else to be looked at.

    Errors: ValueError for input that the network itself refuses, and for unknown words.

    >>> import torch
    >>> from pendula import CoRNN
    >>> batch = Batch(torch.randn(30, 2, 3), torch.zeros(2))
    >>> found = examine(CoRNN(3, 8), batch, lambda y, _: y[-1].square().mean(), compare=None)
    >>> found.verdict[0].split(" ")[-2:]
    ['apply', 'hold.']
    """
    if learning is not None and isinstance(network, Model) and stateless(network):
        return Diagnosis(about or {}, (*notes, STATELESS), (), None, None, (), (), (), learning)
    lost = [name for name, p in network.named_parameters() if not bool(p.detach().isfinite().all())]
    flow = gradient_flow(network, batch, loss, compare=compare)
    uncertified = None
    if lost:
        uncertified = f"the training has diverged: not all of {', '.join(lost)} is finite, so no bound says anything"
    return Diagnosis(
        about=about or {},
        notes=notes,
        certificates=[] if lost else certify(network, batch),
        uncertified=uncertified,
        gradients=flow,
        advice=advise(network, flow),
        spectrum=spectrum(network, batch, exponents=EXPONENTS, sequences=FOLLOWED),
        portraits=portraits(network, batch),
        learning=learning,
    )


def _of_bounds(found: Diagnosis) -> Iterator[str]:
    if found.uncertified:
        yield f"Nothing is certified: {found.uncertified}."
        return
    applying = [c for c in found.certificates if c.applies]
    failed, others = broken(list(applying)), len(found.certificates) - len(applying)
    if not applying:
        yield "No proven statement applies to this network on this batch, so nothing is certified; the table says why."
        return
    if not failed and len(applying) == 1:
        yield "The one proven statement that applies holds."
    elif not failed:
        yield f"All {len(applying)} proven statements that apply hold."
    else:
        names = ", ".join(f"{c.name} ({c.where})" for c in failed)
        yield f"{len(failed)} of the {len(applying)} proven statements that apply {_are(failed)} broken: {names}."
    if others:
        yield f"{others} more {'does' if others == 1 else 'do'} not apply, which is no pass: the table says why."


def _of_gradients(flow: GradientFlow) -> Iterator[str]:
    for layers, verdict in _alike(flow.layers):
        yield f"Gradients in {layers} {verdict}."
    if flow.rival is not None:
        said = "; ".join(f"in {layers} they {verdict}" for layers, verdict in _alike(flow.rival.layers))
        name = flow.rival.layers[0].network
        yield f"With an untrained {name} of the same width in its place, {said}."


def _alike(layers: Sequence[LayerGradients]) -> list[tuple[str, str]]:
    """Layers that share a verdict, and the verdict."""
    groups: dict[str, list[str]] = {}
    for layer in layers:
        groups.setdefault(_reach(layer), []).append(layer.name)
    return [(", ".join(names), verdict) for verdict, names in groups.items()]


def _reach(g: LayerGradients) -> str:
    steps = g.lags[-1]
    return {
        "steady": f"reach back all {steps} steps",
        "vanishing": f"vanish: they reach back {g.memory} of {steps} steps",
        "exploding": f"explode over {steps} steps",
        "zero": "are zero",
        "not finite": "are not finite",
    }[g.verdict]


def _of_advice(advice: Sequence[Advice]) -> Iterator[str]:
    if advice:
        yield f"There {_are(advice)} {len(advice)} suggestion{'' if len(advice) == 1 else 's'} below what to change."


def _of_spectrum(layers: Sequence[LayerSpectrum]) -> str:
    unsafe = [layer.name for layer in layers if not layer.parallel.safe]
    if not unsafe:
        return "Running all times at once (parallel in time) is safe."
    return f"Running all times at once (parallel in time) is not safe in {', '.join(unsafe)}."


def _are(things: Sequence[object]) -> str:
    return "is" if len(things) == 1 else "are"
