"""How far the updates of a learning rule point away from those of backpropagation, layer by layer.

A short step along the rule's update lowers the loss wherever the angle is below 90 degrees (spec sheet ``dfa.md``, T4
and section 4).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pendula.learn.dfa.plan import parameters_of
from pendula.learn.rule import BPTT, LearningRule
from pendula.nets import Model
from pendula.nets.checkpoint import write_whole
from pendula.tasks.base import Batch


@dataclass(frozen=True)
class Angle:
    """Between two gradients of one layer: degrees, and the norm of the rule's over that of backpropagation.

    None where one of the two is zero.
    """

    degrees: float | None
    ratio: float | None


def alignment_report(
    model: Model, batch: Batch, loss: Callable[[Tensor, Batch], Tensor], rule: LearningRule
) -> dict[str, Angle]:
    """The angle for each layer, by its name, and for the "readout", on one batch and with the same dropout.

    The model is left as it was. Errors: ValueError where the rule can't train the model.
    """
    rule.prepare(model)
    found, true = (_gradients(model, batch, loss, each) for each in (rule, BPTT()))
    angles = {}
    for layer, names in parameters_of(model).items():
        g, exact = (torch.cat([of[name].flatten() for name in names] or [torch.zeros(0)]) for of in (found, true))
        angles[layer] = angle(g, exact)
    return {layer: angles[layer] for layer, names in parameters_of(model).items() if names}


def angle(g: Tensor, exact: Tensor) -> Angle:
    """Between two flat gradients."""
    norms = float(g.double().norm()), float(exact.double().norm())
    if not (norms[0] > 0 and norms[1] > 0 and all(map(math.isfinite, norms))):
        return Angle(None, None if norms[1] == 0 else norms[0] / norms[1])
    # by the two halves of the angle: the cosine of small angles rounds to 1
    u, v = g.double() / norms[0], exact.double() / norms[1]
    half = math.atan2(float((u - v).norm()), float((u + v).norm()))
    return Angle(math.degrees(2 * half), norms[0] / norms[1])


def _gradients(
    model: Model, batch: Batch, loss: Callable[[Tensor, Batch], Tensor], rule: LearningRule
) -> dict[str, Tensor]:
    # a copy: batch normalisation keeps count of what it has seen
    twin = copy.deepcopy(model)
    twin.zero_grad()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        rule(twin, batch, loss, lambda value, **words: value.backward(**words))
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.detach() for n, p in twin.named_parameters()}


class Alignment:
    """Measures the angles every so many steps of a training: a `watch` of `pendula.learn.fit.fit`.

    With a path, what was measured stands there, a line of JSON per measurement, and a run that is resumed goes on with
    the lines of the steps that it does not take again.
    """

    def __init__(
        self, every: int, rule: LearningRule, loss: Callable[[Tensor, Batch], Tensor], path: Path | None = None
    ) -> None:
        self.every, self.rule, self.loss, self.path = every, rule, loss, path
        self.measured: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self.measured = [json.loads(line) for line in path.read_text().splitlines()]

    def __call__(self, model: Model, batch: Batch, step: int) -> None:
        if step != 1 and step % self.every:
            return
        line = {"step": step, "layers": plain(alignment_report(model, batch, self.loss, self.rule))}
        self.measured = [*(past for past in self.measured if past["step"] < step), line]
        if self.path is not None:
            write_whole(self.path, "".join(json.dumps(line) + "\n" for line in self.measured).encode())


def plain(angles: Mapping[str, Angle]) -> dict[str, dict[str, float | None]]:
    """What JSON can hold."""
    return {layer: {"degrees": a.degrees, "ratio": a.ratio} for layer, a in angles.items()}
