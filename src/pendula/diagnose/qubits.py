"""What is proven of QUNN: unitary flows, and a window of states that its input alone can widen."""

from __future__ import annotations

import torch
from torch import Tensor

from pendula.cells.qunn import QubitCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Observer, Stretch, Worst
from pendula.math.orthogonal import orthogonality_defect
from pendula.math.unitary import complex_of

FLOW = Statement(
    "U is unitary",
    "The largest entry of |U* U - I| is rounding for the flow of every Hamiltonian, exact or in gates: at most 100 eps "
    "sqrt(N) in float64.",
    "odernn.md 6.1, O12 [R][V]",
)
WINDOW = Statement(
    "window of states",
    "With beta <= 0, max_s |psi_{k+1-s}| <= max_s |psi_{1-s}| + sum |v(x)|.",
    "odernn.md 6.2 [R], proved there",
)


class QubitObserver(Observer[QubitCell]):
    """Both forms of QUNN."""

    def __init__(self, cell: QubitCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        self.lags, self.amplitudes = cell.a.shape[0], 2**cell.chain
        self.window = Worst()
        with torch.no_grad():
            eye = torch.eye(self.amplitudes, dtype=torch.complex128).unsqueeze(1)
            # rows are what became of the basis: U^T of each lag
            flows = cell.evolve(eye.expand(-1, self.lags, -1)).movedim(1, 0).mT
            self.defect = float(orthogonality_defect(flows))

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        super().begin(x, lengths, tau)
        self.reach = self._widest(self.cell.initial_state(x.shape[1])).detach()

    def _widest(self, state: tuple[Tensor, ...]) -> Tensor:
        psi = torch.complex(*state)
        widest: Tensor = torch.linalg.vector_norm(psi.reshape(*psi.shape[:-1], self.lags, -1), dim=-1).amax(-1)
        return widest

    def see(self, stretch: Stretch) -> None:
        reach = self.reach + torch.linalg.vector_norm(complex_of(stretch.drive), dim=-1).cumsum(0)
        self.window.see(reach, self._widest(stretch.after), stretch.runs, stretch.first)
        self.reach = reach[-1]

    def certificates(self) -> list[Certificate]:
        beta = 0.0 if self.cell.beta is None else float(self.cell.beta.detach())
        allowed = 100 * torch.finfo(torch.float64).eps * self.amplitudes**0.5
        condition = f"beta = {beta:.4g}"
        rows = [FLOW.checked(self.where, f"{self.lags} Hamiltonians", allowed, self.defect)]
        if beta > 0:
            return [*rows, WINDOW.declined(self.where, f"beta <= 0 fails, it is {beta:.4g}", condition)]
        return [*rows, self.window.certificate(WINDOW, self.where, condition)]
