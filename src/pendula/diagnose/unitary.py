"""What is proven of networks with a unitary or orthogonal recurrence: W itself, norms, steps that stretch nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from pendula.cells.complex_units import UnitaryCell
from pendula.cells.orthogonal import OrthogonalCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Observer, Stretch, Worst, largest_gain
from pendula.math.unitary import complex_of, modrelu_gains

DEFECT = Statement(
    "W is unitary",
    "The largest entry of |W* W - I| is rounding: at most 100 eps sqrt(N), with the eps of the type that the weights "
    "are stored in.",
    "urnn.md P1 [derived, checked]",
)
NORM = Statement(
    "norm of W h",
    "| |W h| / |h| - 1 | is rounding at every state visited: at most 100 eps sqrt(N), as for W itself.",
    "urnn.md P2 [derived, checked]",
)
STATE = Statement(
    "state",
    "|h_n| <= |h_0| + sum |V x| + n |max(b, 0)|, but for the rounding of W.",
    "urnn.md P5 [derived, checked]",
)
CALM = Statement(
    "no step stretches",
    "With b <= 0, |J_n|_2 <= 1, so that no gradient grows: modReLU is then 1-Lipschitz and W keeps norms (at the "
    "points looked at). Over real units with eps = 0 the slopes of modReLU are 0 or 1 for any b.",
    "urnn.md P4 [derived, checked]",
)
GAIN = Statement(
    "step Jacobian",
    "|J_n|_2 <= max_j max(1, gains of modReLU at unit j), which for eps = 0 are 1 along h and 1 + b/|h| across (at the "
    "points looked at).",
    "urnn.md P4 [derived, checked]",
)


class UnitaryObserver(Observer[UnitaryCell | OrthogonalCell]):
    """Networks ``h_t = modReLU_b(W h_{t-1} + V x_t)`` over complex or real units."""

    def __init__(self, cell: UnitaryCell | OrthogonalCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        self.allowed = 100 * torch.finfo(stored).eps * cell.hidden_size**0.5
        with torch.no_grad():
            self.defect = float(cell.W.defect())
            # a W that is unitary up to rounding may stretch by as much
            self.stretch = max(1.0, float(torch.linalg.matrix_norm(cell.W.dense(), 2)))
            # a modReLU that divides by |h| + eps adds b - eps at most
            self.added = (cell.shift.detach() - cell.eps).expand(cell.hidden_size)
        self.norm, self.state, self.gain, self.calm = Worst(), Worst(), Worst(), Worst()

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        super().begin(x, lengths, tau)
        start = self._joined(self.cell.initial_state(x.shape[1]))
        self.reach = torch.linalg.vector_norm(start.detach(), dim=-1)

    def _joined(self, state: tuple[Tensor, ...]) -> Tensor:
        return torch.complex(*state) if isinstance(self.cell, UnitaryCell) else state[0]

    def _drive(self, drive: Tensor) -> Tensor:
        return complex_of(drive) if isinstance(self.cell, UnitaryCell) else drive

    def see(self, stretch: Stretch) -> None:
        before, after, runs = self._joined(stretch.before), self._joined(stretch.after), stretch.runs
        pushed = torch.linalg.vector_norm(stretch.drive, dim=-1) + self.added.clamp(min=0).norm()
        reach = []
        for push in pushed:
            self.reach = self.stretch * self.reach + push
            reach.append(self.reach)
        self.state.see(torch.stack(reach), torch.linalg.vector_norm(after, dim=-1), runs, stretch.first)
        turned = self.cell.recur(before.flatten(0, 1)).view_as(before)
        sizes = [torch.linalg.vector_norm(h, dim=-1) for h in (turned, before)]
        # a state of zero has no direction
        share = torch.where(sizes[1] > 0, sizes[0] / sizes[1], 1)
        self.norm.see(torch.tensor(self.allowed, dtype=share.dtype), (share - 1).abs(), runs, stretch.first)
        for point in self.points(stretch, runs.shape[1]):
            z = self.cell.recur(self._joined(point.state)) + self._drive(point.drive)
            along, across = modrelu_gains(z, self.added + self.cell.eps, self.cell.eps)
            gains = along if isinstance(self.cell, OrthogonalCell) else torch.maximum(along, across)
            measured = largest_gain(self.jacobian(point))
            # W may be off by its own rounding
            slack = 1 + self.allowed
            self.gain.see(slack * gains.amax(-1).clamp(min=1), measured)
            self.calm.see(torch.full_like(measured, slack), measured)

    def certificates(self) -> list[Certificate]:
        where, b = self.where, float(self.added.max())
        unitary = f"defect of W {self.defect:.3g}"
        rows = [DEFECT.checked(where, f"weights in {self.stored}", self.allowed, self.defect)]
        broken = None
        if not self.defect <= self.allowed:
            broken = f"W is not unitary, its defect is {self.defect:.3g}, above {self.allowed:.3g}"
        biased = f"{unitary}, largest b {b:.4g}"
        for statement, worst, condition in (
            (NORM, self.norm, unitary),
            (STATE, self.state, biased),
            (GAIN, self.gain, biased),
        ):
            if broken is None:
                rows.append(worst.certificate(statement, where, condition))
            else:
                rows.append(statement.declined(where, broken, condition, worst.bound, worst.measured))
        exact = isinstance(self.cell, OrthogonalCell) and self.cell.eps == 0
        reason = broken
        if reason is None and b > 0 and not exact:
            reason = (
                f"b <= 0 fails, the largest is {b:.4g}: a step can stretch across h by 1 + b/|h|, without bound as h "
                f"goes to 0; the largest gain measured is {self.gain.measured:.4g}"
            )
        if reason is None:
            rows.append(self.calm.certificate(CALM, where, biased))
        else:
            rows.append(CALM.declined(where, reason, biased, None, self.calm.measured))
        return rows
