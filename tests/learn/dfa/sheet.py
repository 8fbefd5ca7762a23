"""The filler of the spec sheet dfa.md, section 8, and the pieces that its oracles are put together from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pendula import Model, ModelSpec, Node
from pendula.learn.dfa import DFA
from pendula.learn.rule import BPTT, LearningRule
from pendula.tasks.base import Batch

Gradients = dict[str, Tensor]
SHEET = {"rtol": 1e-9, "atol": 1e-12}
"""The sheet's tolerance on printed digits. Its sines have arguments of some thousands: 1e-12 is what they are worth."""


def F(s: int, shape: Sequence[int], scale: float = 1.0) -> Tensor:
    """float64, row by row scale * sin(s + 0.7 k + 0.13 k^2), k = 0, 1, 2, ..."""
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(s + 0.7 * k + 0.13 * k**2)).reshape(tuple(shape))


def numbers(*values: object) -> Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def half_squared(output: Tensor, batch: Batch) -> Tensor:
    """The sheet's loss: summed over outputs, steps and sequences."""
    return 0.5 * (output - batch.y).square().sum()


def model_of(
    nodes: Sequence[Node], sizes: tuple[int, int], weights: Mapping[str, Tensor], pool: str = "last", **words: object
) -> Model:
    """A float64 model of (inputs, outputs) with these weights; every parameter that is not named starts at zero."""
    # built in float64: made from a float32 model, dt would be rounded
    model = Model(ModelSpec(*sizes, tuple(nodes), pool=pool, **words), dtype=torch.float64)
    left = set(weights)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name]) if name in weights else parameter.zero_()
            left.discard(name)
    assert not left, f"the model has no {left}: {[name for name, _ in model.named_parameters()]}"
    return model


def learned(rule: LearningRule, model: Model, batch: Batch, loss: object = half_squared) -> tuple[Tensor, Gradients]:
    """The loss, and what the rule leaves in the parameters; zeros where it leaves nothing."""
    model.zero_grad()
    rule.prepare(model)
    value, _ = rule(model, batch, loss, lambda total, **words: total.backward(**words))
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    return value, found


def gradients(rule: LearningRule, model: Model, batch: Batch, loss: object = half_squared) -> Gradients:
    return learned(rule, model, batch, loss)[1]


def backpropagated(model: Model, batch: Batch, loss: object = half_squared) -> Gradients:
    return gradients(BPTT(), model, batch, loss)


def with_feedback(rule: DFA, weights: Mapping[str, Tensor]) -> DFA:
    """The rule with these maps, by name, in the place of random ones."""
    rule.feedback.weights.update(weights)
    return rule


def degrees(a: Tensor, b: Tensor) -> float:
    """The angle of the sheet's section 4."""
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


def same(got: Gradients, wanted: Gradients, rtol: float = 1e-12, atol: float = 1e-15) -> None:
    """Of every parameter."""
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(
            got[name], value, rtol=rtol, atol=atol, msg=lambda said, name=name: f"{name}: {said}"
        )
