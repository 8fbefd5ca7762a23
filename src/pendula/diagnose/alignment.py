"""What a learning rule other than backpropagation does to each layer: how far its update points away from the gradient.

The angles are measured by `pendula.learn.dfa.alignment_report`; here they become sentences (spec sheet ``dfa.md``, T4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pendula.diagnose.plain import plain


@dataclass(frozen=True)
class LayerAngle:
    """Between the update of the rule and that of backpropagation, in one layer, or in the "readout".

    Attributes:
        degrees: None where one of the two is zero or not finite.
        ratio: the norm of the rule's over that of backpropagation; None where the latter is zero.
    """

    name: str
    degrees: float | None
    ratio: float | None

    @property
    def lowers(self) -> bool | None:
        """Whether a short step of this layer lowers the loss; None where that can't be told."""
        return None if self.degrees is None else self.degrees < 90

    @property
    def sentence(self) -> str:
        if self.degrees is not None:
            what = "a short step of this layer lowers the loss" if self.lowers else "a step does not lower the loss"
            return f"{'below' if self.lowers else 'not below'} 90 degrees: {what}"
        if self.ratio == 0:
            return "the rule leaves this layer as it is"
        if self.ratio is None:
            return "on this batch backpropagation has nothing for this layer to learn, so there is no angle"
        return "not finite, so there is no angle"


@dataclass(frozen=True)
class RuleReport:
    """The rule that a run was trained by.

    Attributes:
        rule: in words, with its options.
        layers: on the batch that is looked at, with the weights of now.
        steps, course: what `--train.align` measured during the training, each on the batch of its step: the optimiser
            steps, and for each layer the angles in degrees at these (None where there is none).
    """

    rule: str
    layers: tuple[LayerAngle, ...]
    steps: tuple[int, ...] = ()
    course: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)

    @property
    def verdict(self) -> tuple[str, ...]:
        """In a sentence or two."""
        told = [layer for layer in self.layers if layer.lowers is not None]
        against = [layer.name for layer in told if not layer.lowers]
        lost = [layer.name for layer in self.layers if layer.ratio is not None and not math.isfinite(layer.ratio)]
        said = []
        if told:
            count = (
                f"{len(told) - len(against)} of {len(told)}" if against else f"{'all ' * (len(told) > 1)}{len(told)}"
            )
            layers = f"layer{'s' * (len(told) > 1)} that it trains"
            but = f"; in {', '.join(against)} it does not" if against else ""
            said.append(f"A short step along the learning rule's update lowers the loss in {count} {layers}{but}.")
        if lost:
            said.append(f"The learning rule's update, or that of backpropagation, is not finite in {', '.join(lost)}.")
        return tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, words, lists and dicts only: what JSON can hold."""
        layers = [{**plain(layer), "sentence": layer.sentence} for layer in self.layers]
        return {"rule": self.rule, "layers": layers, "steps": list(self.steps), "course": plain(dict(self.course))}
