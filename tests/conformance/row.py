"""What a row of the page is: a network in one variant, and what was found."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import pendula
from pendula import StabilityWarning

I, N, T, B = 2, 4, 40, 3
TOLERANCE = 1e-12
"""Largest error of an output or final state, relative to the largest of them: some hundred roundings, amplified."""
ORDER = 0.1
"""How far an observed order may be from the order: the steps are not infinitely short."""
Layer = pendula.Recurrent


@dataclass(frozen=True)
class Finding:
    """A number that must not be above its bound, and where it was read if it comes from elsewhere."""

    name: str
    value: float
    bound: float
    source: str = ""

    @property
    def holds(self) -> bool:
        return self.value <= self.bound


Check = Callable[[Layer], Finding]


@dataclass(frozen=True)
class Case:
    """One row: a network in one variant.

    `kept` parameters stay as they start, since they live on a manifold or in a stable region; all others are moved at
    random. `expected` is the order of convergence in the time step.
    """

    network: str
    variant: str
    sheet: str
    physics: dict[str, Any] = field(default_factory=dict)
    bias: bool = True
    kept: tuple[str, ...] = ()
    expected: int | None = None
    invariants: tuple[Check, ...] = ()
    recorded: tuple[Check, ...] = ()

    def layer(self, *, bias: bool | None = None, backend: str = "auto") -> Layer:
        bias = self.bias if bias is None else bias
        with warnings.catch_warnings():
            # the bounds of stability are not what is tested here
            warnings.simplefilter("ignore", StabilityWarning)
            layer = pendula.LAYERS[self.network](I, N, bias=bias, dtype=torch.float64, backend=backend, **self.physics)
        with torch.no_grad():
            for name, parameter in layer.cells[0].named_parameters():
                if name not in self.kept:
                    parameter.add_(0.3 * torch.randn_like(parameter))
        return layer

    def __str__(self) -> str:
        return f"{self.network}: {self.variant}"


@dataclass(frozen=True)
class Row:
    """What was measured for a case."""

    case: Case
    error: float
    span_error: float | None
    gradients: bool
    order: float | None
    invariants: tuple[Finding, ...]
    recorded: tuple[Finding, ...]

    def failures(self) -> list[str]:
        failed = [f"{f.name}: {f.value:.3g} > {f.bound:.3g}" for f in self.invariants + self.recorded if not f.holds]
        for what, error in (("error", self.error), ("error with timespans", self.span_error)):
            if error is not None and not error <= TOLERANCE:
                failed.append(f"{what}: {error:.3g} > {TOLERANCE:.3g}")
        if not self.gradients:
            failed.append("gradcheck")
        if self.order is not None and not abs(self.order - (self.case.expected or 0)) <= ORDER:
            failed.append(f"order {self.order:.3f}, not {self.case.expected}")
        return failed
