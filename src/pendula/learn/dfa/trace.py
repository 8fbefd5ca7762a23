"""Eligibility traces: gradients carried forwards in time, exact where a layer's units see only themselves.

Spec sheet ``dfa.md`` 7.5, rule O3 (and R8 of 3.4). Nothing here is derived by hand: the derivatives of one step are
autograd's, of all units at once, since a unit's new state depends on no other unit.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from pendula.cells import Cell, State


class Traces:
    """d(state)/d(parameters) of one cell for each sequence, and the gradient that the errors so far have given.

    A cell that allows it has `diagonal` set: step and output are elementwise, the drive is V x + b, and the parameters
    of the step have one number per unit.

    Memory: 2 B N (I + 1 + P) numbers for P parameters of the step, whatever the number of steps.
    """

    def __init__(self, cell: Cell, batch: int) -> None:
        self.cell = cell
        self.own = [name for name, _ in cell.named_parameters() if name not in ("V", "b")]
        like = next(cell.parameters())
        fields = len(cell.State._fields)
        self.size = cell.input_size + 1 + len(self.own)
        self.trace = like.new_zeros(fields, batch, cell.hidden_size, self.size)
        self.gradient = like.new_zeros(cell.hidden_size, self.size)

    def follow(self, before: list[State], x: Tensor, spans: Tensor | None, errors: Tensor) -> None:
        """Go on over a stretch: states before each step, input (K, B, I), spans (K, B), dLoss/doutput (K, B, N)."""
        of_state, by_drive, by_own, of_output = self._derivatives(before, x, spans)
        inputs = torch.cat((x.detach(), torch.ones_like(x[..., :1])), -1).to(by_drive.dtype)
        for t in range(len(x)):
            direct = torch.cat((by_drive[t].unsqueeze(-1) * inputs[t].unsqueeze(1), by_own[t]), -1)
            self.trace = torch.einsum("fgbn,gbnp->fbnp", of_state[t], self.trace) + direct
            felt = of_output[t] * errors[t]
            if bool(felt.any()):
                self.gradient += torch.einsum("fbn,fbnp->np", felt, self.trace)

    def _derivatives(
        self, before: list[State], x: Tensor, spans: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """By the state (K, F, F, B, N), the drive (K, F, B, N) and the step's own parameters (K, F, B, N, P).

        The last is that of the output by the state (K, F, B, N).
        """
        cell, (steps, batch) = self.cell, x.shape[:2]
        with torch.enable_grad():
            rows = [torch.cat(parts).detach().requires_grad_() for parts in zip(*before, strict=True)]
            drive = cell.drive(x).detach().flatten(0, 1).to(rows[0].dtype).requires_grad_()
            named = dict(cell.named_parameters())
            own = {name: named[name].detach().expand(len(drive), -1).clone().requires_grad_() for name in self.own}
            twin = _with_rows(cell, own)
            new = twin.step(cell.State(*rows), drive, tau=None if spans is None else spans.reshape(-1, 1))
            leaves = [*rows, drive, *own.values()]
            by = [torch.autograd.grad(n.sum(), leaves, retain_graph=True, allow_unused=True) for n in new]
            ends = [n.detach().requires_grad_() for n in new]
            shown = twin.output(cell.State(*ends), drive)
            seen = torch.autograd.grad(shown.sum(), ends, allow_unused=True)
        fields = len(rows)

        def filled(g: Tensor | None) -> Tensor:
            return (torch.zeros_like(drive) if g is None else g).view(steps, batch, -1)

        of_state = torch.stack([torch.stack([filled(g) for g in row[:fields]], 1) for row in by], 1)
        by_drive = torch.stack([filled(row[fields]) for row in by], 1)
        by_own = torch.stack([torch.stack([filled(g) for g in row[fields + 1 :]], -1) for row in by], 1)
        return of_state, by_drive, by_own, torch.stack([filled(g) for g in seen], 1)

    def surrogate(self) -> Tensor:
        """Something whose gradient is the one that was gathered."""
        cell, inputs = self.cell, self.cell.input_size
        named = dict(cell.named_parameters())
        total = (named["V"] * self.gradient[:, :inputs]).sum()
        if "b" in named:
            total = total + (named["b"] * self.gradient[:, inputs]).sum()
        for k, name in enumerate(self.own):
            total = total + (named[name] * self.gradient[:, inputs + 1 + k]).sum()
        return total


def _with_rows(cell: Cell, own: dict[str, Tensor]) -> Cell:
    """The cell with parameters that have a row for each row of the state."""
    twin = copy.copy(cell)
    given: dict[str, Any] = {**cell._parameters, **own}
    twin._parameters = given
    twin._kept = None
    return twin
