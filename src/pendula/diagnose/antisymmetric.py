"""Conditions C6 and C2 for AntisymmetricRNN."""

from __future__ import annotations

import torch

from pendula.cells import AntisymmetricRNNCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Observer, Stretch, Worst, largest_gain

LINEAR = Statement(
    "C6: linear part",
    "I + h (S - gamma I) stretches nothing; for one dt: h <= 2 gamma / (gamma^2 + |S|^2). Measured: its norm for the "
    "longest step, which serves for shorter ones.",
    "odernn.md C6 [R][V]",
)
VISITED = Statement(
    "C2: visited states",
    "lambda_max(J + J^T + h J^T J) <= 0, which is |I + h J|_2 <= 1, J = D (S - gamma I): asked at the states visited, "
    "since slopes D of tanh can make a harmless S grow (C7). Measured: the largest gain at the points looked at.",
    "odernn.md C2, C7 [R][V]",
)


class AntisymmetricObserver(Observer[AntisymmetricRNNCell]):
    def __init__(self, cell: AntisymmetricRNNCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        self.gain = Worst()

    def see(self, stretch: Stretch) -> None:
        for point in self.points(stretch, stretch.runs.shape[1]):
            measured = largest_gain(self.jacobian(point))
            self.gain.see(torch.ones_like(measured), measured)

    def certificates(self) -> list[Certificate]:
        cell = self.cell
        with torch.no_grad():
            M, dt = cell.M, cell.dt.expand(cell.hidden_size)
            step = torch.eye(len(M), dtype=M.dtype) + self.longest * dt.unsqueeze(1) * M
            norm, limit = float(torch.linalg.matrix_norm(step, 2)), float(cell.contractive_dt())
        h = float(dt.max()) * self.longest
        condition = f"dt = {h:.4g}, 2 gamma / (gamma^2 + |S|^2) = {limit:.4g}{self.spans}"
        if norm <= 1 + 1e-12:
            rows = [LINEAR.checked(self.where, condition, 1.0, norm)]
        else:
            reason = f"the step is too long, {condition}: the linear part stretches by up to {norm:.6g}"
            rows = [LINEAR.declined(self.where, reason, condition, None, norm)]
        condition = f"largest gain {self.gain.measured:.6g}"
        if self.gain.measured <= 1 + 1e-12:
            return [*rows, self.gain.certificate(VISITED, self.where, condition)]
        reason = f"its condition fails: a step stretches by {self.gain.measured:.6g} at a state visited"
        return [*rows, VISITED.declined(self.where, reason, condition, None, self.gain.measured)]
