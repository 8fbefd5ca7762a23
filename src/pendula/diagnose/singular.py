"""What is proven of the spectral-margin RNN: its singular values, and what a step and a gradient are multiplied by."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import linear

from pendula.cells.spectral import FREE, SpectralRNNCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Observer, Stretch, Worst, follow, largest_gain
from pendula.math.orthogonal import orthogonality_defect

BASES = Statement(
    "bases are orthogonal",
    "The largest entry of |U^T U - I| and |V^T V - I| is rounding: at most 100 eps sqrt(N), with the eps of the type "
    "that the weights are stored in.",
    "spectral.md S1 [derived, checked]",
)
BAND = Statement(
    "singular values",
    "Every singular value of W is within the margin: |s - 1| <= m.",
    "spectral.md S2 [derived, checked]",
)
ONE_STEP = Statement(
    "step Jacobian",
    "|J_n|_2 <= 1 + m, since the slopes of the activation are at most 1 (at the points looked at).",
    "spectral.md S3 [derived, checked]",
)
ABOVE = Statement(
    "gradient from above",
    "ln |dh_n/dh_0|_2 <= n ln(1 + m). Measured along one random direction per sequence, so from below.",
    "spectral.md S3 [derived, checked]",
    logarithm=True,
)
BELOW = Statement(
    "gradient from below",
    "Without a nonlinearity, no direction shrinks by more than (1 - m)^n: -ln |dh_n/dh_0 v| <= -n ln(1 - m), |v| = 1.",
    "spectral.md S3 [derived, checked]",
    logarithm=True,
)


class SpectralObserver(Observer[SpectralRNNCell]):
    def __init__(self, cell: SpectralRNNCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        self.allowed = 100 * torch.finfo(stored).eps * cell.hidden_size**0.5
        with torch.no_grad():
            self.defect = max(float(orthogonality_defect(M)) for M in (cell.U, cell.V))
            values = torch.linalg.svdvals(cell.W)
        self.low, self.high = float(values.min()), float(values.max())
        self.margin = math.inf if cell.margin == FREE else float(cell.margin)
        self.one_step, self.above, self.below = Worst(), Worst(logarithm=True), Worst(logarithm=True)

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        super().begin(x, lengths, tau)
        draws = torch.Generator().manual_seed(0)
        change = torch.randn(x.shape[1], self.cell.hidden_size, generator=draws, dtype=x.dtype)
        self.change = torch.nn.functional.normalize(change, dim=-1)
        self.log_scale, self.steps = torch.zeros(x.shape[1], dtype=x.dtype), 0

    def see(self, stretch: Stretch) -> None:
        if math.isinf(self.margin):
            return
        (after,) = stretch.after
        slope = 1 - after**2 if self.cell.activation == "tanh" else torch.ones_like(after)
        change, changes = self.change, []
        for d in slope:
            change = d * linear(change, self.cell.W)
            changes.append((change,))
        (seen,) = follow(self.cell, stretch, len(self.change), (self.change,), changes)
        change, grown = seen[-1], self.log_scale + torch.linalg.vector_norm(seen, dim=-1).log()
        n = (self.steps + 1 + torch.arange(len(slope), dtype=after.dtype)).unsqueeze(1)
        self.above.see(n * math.log1p(self.margin + self.allowed), grown, stretch.runs, stretch.first)
        if self.margin + self.allowed < 1:
            self.below.see(-n * math.log1p(-self.margin - self.allowed), -grown, stretch.runs, stretch.first)
        for point in self.points(stretch, len(self.change)):
            measured = largest_gain(self.jacobian(point))
            self.one_step.see(torch.full_like(measured, 1 + self.margin + self.allowed), measured)
        size = torch.linalg.vector_norm(change, dim=-1)
        size = torch.where(size > 0, size, 1)
        self.change, self.log_scale = change / size.unsqueeze(-1), self.log_scale + size.log()
        self.steps += len(slope)

    def certificates(self) -> list[Certificate]:
        where, stored = self.where, f"weights in {self.stored}"
        rows = [BASES.checked(where, stored, self.allowed, self.defect)]
        condition = f"m = {self.margin:.4g}, singular values {self.low:.6g} to {self.high:.6g}"
        if math.isinf(self.margin):
            reason = f"margin='free' sets no margin; singular values {self.low:.4g} to {self.high:.4g}"
            return rows + [s.declined(where, reason, condition) for s in (BAND, ONE_STEP, ABOVE, BELOW)]
        band = BAND.checked(where, stored, self.margin + self.allowed, max(self.high - 1, 1 - self.low))
        rows.append(band)
        reasons: dict[str, str] = {}
        if not band.holds:
            reasons = dict.fromkeys((ONE_STEP.name, ABOVE.name, BELOW.name), f"{BAND.name!r} is broken: {condition}")
        elif self.cell.activation != "identity":
            reasons = {BELOW.name: f"the slopes of {self.cell.activation} can be as small as they like"}
        elif self.margin + self.allowed >= 1:
            reasons = {BELOW.name: f"m = {self.margin:.4g} lets a singular value be 0"}
        for statement, worst in ((ONE_STEP, self.one_step), (ABOVE, self.above), (BELOW, self.below)):
            if statement.name in reasons:
                rows.append(statement.declined(where, reasons[statement.name], condition))
            else:
                rows.append(worst.certificate(statement, where, condition))
        return rows
