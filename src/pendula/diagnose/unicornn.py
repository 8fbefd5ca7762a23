"""What is proven of UnICORNN: volume, invariant, size of the states, gradients that can't vanish, the way back."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from pendula.cells import UnICORNNCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import LONGEST, ROWS, Observer, Stretch, Worst
from pendula.diagnose.unicornn_gradients import Products

# steps of the probes that run on their own
PROBE = 1000
ROUNDING = 1e-9

VOLUME = Statement(
    "volume",
    "The step Jacobian of each neuron has determinant 1 and no neuron sees another: |det J - 1| and the entries "
    "between neurons are rounding, at the points looked at.",
    "unicornn.md 4.1 [derived, checked]",
)
STABLE = Statement(
    "linear stability",
    "The linearised neuron oscillates: 0 <= h^2 k < 4 for every stiffness k between alpha and alpha + w.",
    "unicornn.md 4.2 [derived]",
    strict=True,
)
INVARIANT = Statement(
    "invariant",
    "Without w, input and bias, Q = z^2 + alpha y^2 - alpha h y z never changes (here: |Q_n / Q_0 - 1| over "
    f"{PROBE} steps, from a random state, with the network's alpha and longest h).",
    "unicornn.md 4.3 [derived, checked]",
)
ENERGY = Statement(
    "energy under a frozen input",
    "H = z^2/2 + alpha y^2/2 + ln cosh(w y + x) / w swings by O(h) and does not drift: half the step gives about half "
    f"the swing (here: their quotient, over {PROBE} steps from a visited state).",
    "unicornn.md 4.4 [derived, checked]; an asymptotic statement, so the bound of 3/4 is ours",
)
PUBLISHED_STATE = Statement(
    "state (published)",
    "|y_n| <= sqrt(2/alpha (1 + 2 beta t_n)), beta = max(1 + 2 alpha, 4 alpha^2).",
    "unicornn.md 4.3, the paper's [from memory]; fails for long times [checked]",
)
STATE = Statement(
    "state",
    "sqrt(Q(y_n, z_n)) <= n h for each neuron, from rest, for any w and input (alpha = 0: |z_n| <= n h). Unequal "
    "steps: the sum of h, times the change of the norm Q from step to step.",
    "unicornn.md 4.3, the replacement [derived, checked]; unequal steps: derived here by the same proof",
)
POSITION = Statement(
    "position",
    "|y_n| <= n h / sqrt(alpha (1 - alpha h^2/4)), or h^2 n (n+1)/2 where alpha = 0, from rest.",
    "unicornn.md 4.3, the replacement [derived, checked]; unequal steps: derived here by the same proof",
)
SEPARATION = Statement(
    "input sensitivity",
    "Two inputs (here u and -u) separate by sqrt(Q) <= 2 n h. This does not exclude chaos in driven or stacked "
    "networks.",
    "unicornn.md 4.5 [derived]",
)
BACK = Statement(
    "the way back",
    "Undoing steps leads back to the start: the largest error, as a share of the largest state, in the type of the "
    "weights, over the first steps. Bound: half of that type's digits.",
    "unicornn.md 3.3 [checked], 1.2; the bound is ours",
)


class UnICORNNObserver(Observer[UnICORNNCell]):
    """Runs the batch beside the same batch with its inputs negated."""

    copies = 2

    def __init__(self, cell: UnICORNNCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        units = cell.hidden_size
        with torch.no_grad():
            self.h = cell.h.detach().expand(units)
        self.alpha, self.w = cell.alpha.expand(units), cell.w.detach()
        self.state, self.position, self.separation = Worst(), Worst(), Worst()
        self.published, self.volume = Worst(), Worst()
        self.products = Products(self)
        self.swing: float | None = None
        self.error: float | None = None

    def inputs(self, x: Tensor) -> Tensor:
        return torch.cat((x, -x), 1)

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        super().begin(x, lengths, tau)
        self.size = x.shape[1]
        self.time = torch.zeros(self.size, 1, dtype=x.dtype)
        self.root = self.reach = torch.zeros(self.size, self.cell.hidden_size, dtype=x.dtype)
        self.tilt: Tensor | None = None
        self.products.begin(self.root)
        if self.error is None:
            self.error = self._round_trip(x, tau)

    def see(self, stretch: Stretch) -> None:
        size, runs, first = self.size, stretch.runs[:, : self.size], stretch.first
        spans = torch.ones_like(runs, dtype=self.h.dtype).unsqueeze(-1)
        if stretch.tau is not None:
            spans = stretch.tau[:, :size]
        h = self.h * spans
        y, z = stretch.after
        for point in self.points(stretch, size):
            self.volume.see(torch.tensor(ROUNDING), self._defect(self.jacobian(point)))
        time = self.time + spans.cumsum(0) * float(self.cell.dt.max())
        self.time = time[-1]
        beta = torch.maximum(1 + 2 * self.alpha, 4 * self.alpha**2)
        self.published.see((2 / self.alpha * (1 + 2 * beta * time)).sqrt(), y[:, :size].abs(), runs, first)
        tilt = self.alpha.sqrt() * h / 2
        root, reach, turns = self._allowed(h, tilt)
        self.products.see(stretch, h, tilt, turns)
        if self.objection() is not None:
            return
        self.state.see(root, self._Q(y[:, :size], z[:, :size], h).clamp(min=0).sqrt(), runs, first)
        self.position.see(reach, y[:, :size].abs(), runs, first)
        apart = self._Q(y[:, :size] - y[:, size:], z[:, :size] - z[:, size:], h)
        self.separation.see(2 * root, apart.clamp(min=0).sqrt(), runs, first)
        if self.swing is None and self._springs() is None:
            few = min(size, ROWS)
            self.swing = self._swing(tuple(s[-1, :few] for s in stretch.states), stretch.drive[-1, :few])

    def _Q(self, y: Tensor, z: Tensor, h: Tensor) -> Tensor:
        return z**2 + self.alpha * y**2 - self.alpha * h * y * z

    def _allowed(self, h: Tensor, tilt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds of sqrt(Q) and |y| after each step, and by what the norm changes before it: each (K, B, N)."""
        if self.even:
            root = self.root + h.cumsum(0)
            free = self.reach + (h * root).cumsum(0)
            reach = torch.where(self.alpha > 0, root / (self.alpha * (1 - tilt**2)).sqrt(), free)
            self.root, self.reach = root[-1], reach[-1]
            return root, reach, torch.ones_like(root)
        roots, reaches, turns = [], [], []
        for step, lean in zip(h, tilt, strict=True):
            # Q has the axes z = +-sqrt(alpha) y for every h, with the weights 1 -+ tilt
            turn = torch.ones_like(lean)
            if self.tilt is not None:
                turn = torch.maximum((1 - lean) / (1 - self.tilt), (1 + lean) / (1 + self.tilt)).sqrt()
            self.root = turn * self.root + step
            stiff = self.root / (self.alpha * (1 - lean**2)).sqrt()
            self.reach, self.tilt = torch.where(self.alpha > 0, stiff, self.reach + step * self.root), lean
            roots.append(self.root)
            reaches.append(self.reach)
            turns.append(turn)
        return torch.stack(roots), torch.stack(reaches), torch.stack(turns)

    def _defect(self, J: Tensor) -> Tensor:
        """How far each J (b, 2 N, 2 N) is from N blocks of determinant 1."""
        parts = [[J[:, i : i + len(self.h), j : j + len(self.h)] for j in (0, len(self.h))] for i in (0, len(self.h))]
        (yy, yz), (zy, zz) = [[part.diagonal(dim1=-2, dim2=-1) for part in row] for row in parts]
        strangers = max(
            float((p - torch.diag_embed(p.diagonal(dim1=-2, dim2=-1))).abs().max()) for r in parts for p in r
        )
        return torch.maximum((yy * zz - yz * zy - 1).abs().amax(-1), torch.tensor(strangers).to(J))

    def _swing(self, state: tuple[Tensor, ...], x: Tensor) -> float:
        """The swing of H under the input x (B, N), held, with half the step over that with the whole one."""

        def swing(share: float) -> float:
            at, tau = self.cell.State(*state), x.new_full((len(x), 1), share * self.longest)
            start, largest = self._H(at[0], at[1], x), 0.0
            for _ in range(int(PROBE / share)):
                at = self.cell.step(at, x, tau=tau)
                largest = max(largest, float((self._H(at[0], at[1], x) - start).abs().max()))
            return largest

        whole = swing(1.0)
        return swing(0.5) / whole if whole > 1e-12 else math.nan

    def _H(self, y: Tensor, z: Tensor, x: Tensor) -> Tensor:
        a, b = self.w * y + x, x
        # ln cosh of a less that of b, so that nothing is lost for a small w
        well = a.abs() - b.abs() + torch.log1p((-2 * a.abs()).exp()) - torch.log1p((-2 * b.abs()).exp())
        well = torch.where(self.w.abs() < 1e-6, b.tanh() * y, well / self.w)
        return z**2 / 2 + self.alpha * y**2 / 2 + well

    def _drift(self) -> float:
        """|Q_n / Q_0 - 1| of the network without w, input and bias."""
        cell, draws = copy.deepcopy(self.cell), torch.Generator().manual_seed(0)
        with torch.no_grad():
            cell.w.zero_()
            y, z = torch.randn(2, 1, len(self.h), generator=draws, dtype=self.h.dtype)
            h, tau = self.h * self.longest, y.new_full((1, 1), self.longest)
            start, state, rest = self._Q(y, z, h), cell.State(y, z), torch.zeros_like(y)
            largest = 0.0
            for _ in range(PROBE):
                state = cell.step(state, rest, tau=tau)
                largest = max(largest, float((self._Q(state[0], state[1], h) / start - 1).abs().max()))
        return largest

    def _round_trip(self, x: Tensor, tau: Tensor | None) -> float:
        """Some steps of the first sequences forth and back, in the type that the weights are stored in."""
        cell = copy.deepcopy(self.cell).to(self.stored)
        x = x[:LONGEST, :4].to(self.stored)
        spans = [None] * len(x) if tau is None else tau[:LONGEST, :4, None].to(self.stored)
        with torch.no_grad(), cell.keeping():
            drives = cell.drive(x)
            start = state = cell.initial_state(x.shape[1])
            largest = 0.0
            for drive, span in zip(drives, spans, strict=True):
                state = cell.step(state, drive, tau=span)
                largest = max(largest, *(float(s.abs().max()) for s in state))
            for drive, span in zip(drives.flip(0), reversed(list(spans)), strict=True):
                state = cell.unstep(state, drive, tau=span)
        error = max(float((s - s0).abs().max()) for s, s0 in zip(state, start, strict=True))
        return error / largest if largest else error

    def objection(self) -> str | None:
        """Why Q is no norm, if it is none."""
        edge = float((self.alpha * (self.h * self.longest) ** 2).max())
        return None if edge < 4 else f"alpha h^2 < 4 fails, it is {edge:.4g}{self.spans}"

    def _springs(self) -> str | None:
        """Why a neuron has no rest position that it swings around, if there is such a neuron."""
        least = float((self.alpha + self.w.clamp(max=0)).min())
        if least < 0:
            return f"alpha + w >= 0 fails for a neuron, it is {least:.4g}: at rest it is thrown out"
        return None

    def certificates(self) -> list[Certificate]:
        where, objection, springs = self.where, self.objection(), self._springs()
        h = self.h * self.longest
        small = f"alpha h^2 <= {float((self.alpha * h**2).max()):.4g} < 4{self.spans}"
        least = f"alpha + min(w, 0) >= {float((self.alpha + self.w.clamp(max=0)).min()):.4g}"
        edge = float((h**2 * (self.alpha + self.w.clamp(min=0))).max())
        rows = [self.volume.certificate(VOLUME, where, f"h <= {float(h.max()):.4g}")]
        rows.append(STABLE.declined(where, springs, least) if springs else STABLE.checked(where, least, 4.0, edge))
        if objection is None:
            rows.append(INVARIANT.checked(where, small, ROUNDING, self._drift()))
            for statement, worst in ((STATE, self.state), (POSITION, self.position), (SEPARATION, self.separation)):
                rows.append(worst.certificate(statement, where, small))
        else:
            rows += [s.declined(where, objection, small) for s in (INVARIANT, STATE, POSITION, SEPARATION)]
        broken = None if rows[0].holds else f"the row {VOLUME.name!r} is broken, so these are not the steps it is about"
        rows += [self._energy(edge), self._published(), *self.products.certificates(broken, objection, small)]
        return [*rows, self._back(edge)]

    def _energy(self, edge: float) -> Certificate:
        reason = self.objection() or self._springs()
        condition = f"h^2 (alpha + max(w, 0)) <= {edge:.4g}"
        if reason is None and edge > 1:
            reason = f"{condition}: O(h) says something where this is small, at most 1"
        if reason is None and (self.swing is None or math.isnan(self.swing)):
            reason = "nothing swings: the state that was visited is at rest"
        if reason is not None or self.swing is None:
            return ENERGY.declined(self.where, str(reason), condition)
        return ENERGY.checked(self.where, condition, 0.75, self.swing)

    def _published(self) -> Certificate:
        time = float(self.time.max())
        if float(self.alpha.min()) == 0:
            reason = "it divides by alpha, which is 0"
            return PUBLISHED_STATE.declined(self.where, reason, f"t = {time:.4g}")
        reason = (
            f"it is not valid for all times: resonance grows like t, the bound like sqrt(t), and here t = {time:.4g}; "
            f"see the row {STATE.name!r}"
        )
        seen = self.published
        return PUBLISHED_STATE.declined(self.where, reason, f"t = {time:.4g}", seen.bound, seen.measured)

    def _back(self, edge: float) -> Certificate:
        reason, half = self.cell.reversal_objection(), torch.finfo(self.stored).eps ** 0.5
        if reason is None and edge >= 4:
            reason = f"the row {STABLE.name!r} is broken: errors grow on the way there and back"
        assert self.error is not None
        condition = f"{self.stored}, up to {LONGEST} steps"
        if reason is not None:
            return BACK.declined(self.where, reason, condition, None, self.error)
        return BACK.checked(self.where, condition, half, self.error)
