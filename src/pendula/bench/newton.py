"""Newton's method as one that is timed: what it reports stands beside its times."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from pendula.bench.cases import NEWTON
from pendula.bench.contestants import Absent, Contestant, Problem, of_module
from pendula.cells.base import State
from pendula.nets.newton import NewtonReport
from pendula.nets.recurrent import Recurrent
from pendula.nets.scan import scan

DIFFERENCE = 5e-3
"""What it may estimate to differ by: over thousands of steps rounding decides more digits than these."""


def contestant(problem: Problem) -> Contestant:
    """All steps of a window at once, by Newton's method. Its numbers raise `Absent` where it gave up."""
    module = _Newton(problem.layer("auto"))
    made = of_module(NEWTON, module, problem, same=True, rename=lambda name: name.replace("cell.", "cells.0.", 1))

    def numbers() -> dict[str, Tensor]:
        assert made.numbers is not None
        module.listens = True
        found = made.numbers()
        module.listens = False
        assert module.report is not None
        if module.report.fallback is not None:
            raise Absent(f"it ran step by step: {module.report.fallback}")
        made.about.update(vars(module.report))
        return found

    return replace(made, numbers=numbers)


class _Newton(nn.Module):
    """A layer of one cell; the last report is kept while it listens: reading it takes time, too."""

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        self.cell = layer.cell(0)
        self.report: NewtonReport | None = None
        self.listens = False

    def forward(self, x: Tensor) -> tuple[Tensor, State]:
        return scan(self.cell, x, method="newton", tolerance=DIFFERENCE, report=self.keep if self.listens else None)

    def keep(self, report: NewtonReport) -> None:
        self.report = report
