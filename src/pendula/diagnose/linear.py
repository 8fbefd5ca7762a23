"""What is proven of linear oscillators and linear memories: where the eigenvalues of a step are."""

from __future__ import annotations

import torch

from pendula.cells.linoss import OscillatorBlock
from pendula.cells.lmu import LMUCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Observer, Stretch
from pendula.math.linear_oscillator import clamped
from pendula.math.stability import power_bounded

# of a double eigenvalue half of the digits are lost
NEARLY = 1e-7

DISC = Statement(
    "eigenvalues",
    "The eigenvalues of a step of every oscillator are in the closed unit disc, for every length of a step.",
    "LinOSS, arXiv 2410.03943, and D-LinOSS, arXiv 2505.12171; other schemes: derived in this library's cells",
)
POWERS = Statement(
    "bounded powers",
    "No eigenvalue on the unit circle is defective, so that a state without force stays bounded (an oscillator of "
    "stiffness 0 without damping drifts).",
    "odernn.md C1 [R][V]",
)
MODULUS = Statement(
    "modulus by scheme",
    "|lambda| = (1 + h G)^-1/2 (imex1; imex: 1), (1 - h G)^1/2 (imex2), (1 + h G + h^2 A)^-1/2 (im), (1 - h G + h^2 "
    "A)^1/2 (ex). Measured: the largest difference.",
    "LinOSS and D-LinOSS; all but im of LinOSS and imex1: derived in this library's cells",
)
MEMORY = Statement(
    "memory",
    "The memory alone forgets: the eigenvalues of A_bar are in the open unit disc.",
    "baselines.md 1.7, B7 [checked]",
    strict=True,
)
FEEDBACK = Statement(
    "memory with feedback",
    "The memory and what it feeds itself, A_bar + B_bar e_m, has its eigenvalues in the open unit disc, so that h and "
    "x, if bounded, move it boundedly.",
    "plain linear algebra; training does not keep it so",
    strict=True,
)


class OscillatorObserver(Observer[OscillatorBlock]):
    """LinOSS and D-LinOSS, whose eigenvalues do not depend on the states."""

    def see(self, stretch: Stretch) -> None:
        pass

    def certificates(self) -> list[Certificate]:
        cell, where = self.cell, self.where
        with torch.no_grad():
            h = cell.dt * torch.tensor(sorted(self.lengths), dtype=cell.A.dtype).unsqueeze(1)
            # (K, P, 2, 2)
            steps = cell.matrix(h)[:, :2].movedim((0, 1), (-2, -1))
            A, G = clamped(cell.scheme, cell.A, torch.zeros_like(cell.A) if cell.G is None else cell.G, h)
        sizes = torch.linalg.eigvals(steps).abs()
        largest = float(sizes.max())
        expected = {
            "imex1": (1 + h * G) ** -0.5,
            "imex2": (1 - h * G).clamp(min=0) ** 0.5,
            "im": (1 + h * G + h * h * A) ** -0.5,
            "ex": (1 - h * G + h * h * A).clamp(min=0) ** 0.5,
        }[cell.scheme]
        off = float((sizes - expected.unsqueeze(-1)).abs().max())
        condition = f"{cell.discretisation}, dt up to {float(cell.dt.detach().max()):.4g}{self.spans}"
        rows = [DISC.checked(where, condition, 1 + NEARLY, largest)]
        drifting = int((~power_bounded(steps).holds).any(0).sum())
        if drifting:
            reason = f"{drifting} of {len(cell.A)} oscillators have a defective eigenvalue of modulus 1: they drift"
            rows.append(POWERS.declined(where, reason, condition, None, largest))
        else:
            rows.append(POWERS.checked(where, condition, 1 + NEARLY, largest))
        return [*rows, MODULUS.checked(where, condition, NEARLY, off)]


class MemoryObserver(Observer[LMUCell]):
    """LMU."""

    def see(self, stretch: Stretch) -> None:
        pass

    def certificates(self) -> list[Certificate]:
        cell = self.cell
        with torch.no_grad():
            alone, fed = (
                float(torch.linalg.eigvals(M).abs().max()) for M in (cell.A_bar, cell.A_bar + cell.B_bar @ cell.e_m)
            )
        words = f"spectral radius {fed:.6g} with e_m, {alone:.6g} without"
        rows = [MEMORY.checked(self.where, words, 1.0, alone)]
        if fed < 1:
            return [*rows, FEEDBACK.checked(self.where, words, 1.0, fed)]
        reason = f"the {words}: what the memory feeds itself can grow"
        return [*rows, FEEDBACK.declined(self.where, reason, words, None, fed)]
