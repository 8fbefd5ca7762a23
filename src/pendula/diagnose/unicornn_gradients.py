"""What is proven of UnICORNN's gradients: from above, and from below, where they cannot vanish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Stretch, Worst, push

if TYPE_CHECKING:
    from pendula.diagnose.unicornn import UnICORNNObserver

GROWTH = Statement(
    "gradient from above",
    "ln |dx_n/dx_0|_Q <= sum ln(1 + h |w| / sqrt(alpha (1 - alpha h^2/4))) for each neuron; alpha = 0: sum 2 asinh(h "
    "sqrt|w| / 2) in the norm |w| y^2 + z^2.",
    "unicornn.md 4.6, the replacement [derived, checked]; unequal steps: derived here by the same proof",
    logarithm=True,
)
ALIVE = Statement(
    "gradient from below",
    "The largest singular value of dx_n/dx_0 is at least 1 for each neuron and every n: -ln of it is at most 0.",
    "unicornn.md 4.1 [derived, checked]",
    logarithm=True,
)
PUBLISHED_GRADIENT = Statement(
    "parameter gradient (published)",
    "|dE/dtheta| <= (1 - dt^L)/(1 - dt) T (1 + 2 gamma T) V (Y + F) Gamma.",
    "unicornn.md 4.6, the paper's [from memory]; exceeded by extreme weights [checked]",
)
Entries = tuple[Tensor, Tensor, Tensor, Tensor]


class Products:
    """The part of `UnICORNNObserver` that multiplies the step Jacobians of each neuron, 2 x 2."""

    def __init__(self, observer: UnICORNNObserver) -> None:
        self.of = observer
        self.growth, self.alive = Worst(logarithm=True), Worst(logarithm=True)

    def begin(self, zero: Tensor) -> None:
        """A group of sequences; zero (B, N)."""
        one = torch.ones_like(zero)
        # dx_n/dx_0, but for its scale
        self.product: Entries = (one, zero, zero, one)
        self.log_scale = self.log_bound = zero
        self.start: Entries | None = None

    def see(self, stretch: Stretch, h: Tensor, tilt: Tensor, turns: Tensor) -> None:
        """Steps h (K, B, N), tilts sqrt(alpha) h / 2, and by what the norm Q changes before each step."""
        of = self.of
        runs = stretch.runs[:, : of.size]
        states = tuple(s[:-1, : of.size].flatten(0, 1) for s in stretch.states)
        drive = stretch.drive[:, : of.size].flatten(0, 1)
        tau = None if stretch.tau is None else stretch.tau[:, : of.size].flatten(0, 1)
        # no neuron sees another (the row "volume"), so one change of all of them shows the entries of each
        one = torch.ones_like(states[0])
        zero = torch.zeros_like(one)
        (ay, az), (by, bz) = (push(of.cell, states, drive, tau, v) for v in ((one, zero), (zero, one)))
        yy, yz, zy, zz = self.product
        products = []
        for a, b, c, d in zip(*(entry.view(*h.shape[:1], of.size, -1) for entry in (ay, by, az, bz)), strict=True):
            yy, yz, zy, zz = a * yy + b * zy, a * yz + b * zz, c * yy + d * zy, c * yz + d * zz
            products.append(torch.stack((yy, yz, zy, zz)))
        seen = torch.stack(products, 1)
        alive = _log_norm(seen[0], seen[1], seen[2], seen[3]) + self.log_scale
        self.alive.see(torch.zeros((), dtype=h.dtype), -alive, runs, stretch.first)
        if self._objection() is None and of.objection() is None:
            self._grow(seen, h, tilt, turns, runs, stretch.first)
        largest = seen[:, -1].abs().amax(0)
        yy, yz, zy, zz = seen[:, -1] / largest
        self.product, self.log_scale = (yy, yz, zy, zz), self.log_scale + largest.log()

    def _grow(self, seen: Tensor, h: Tensor, tilt: Tensor, turns: Tensor, runs: Tensor, first: int) -> None:
        of, w, stiff = self.of, self.of.w.abs(), self.of.alpha > 0
        step = torch.where(
            stiff, (h * w / (of.alpha * (1 - tilt**2)).sqrt()).log1p(), 2 * torch.asinh(h * w.sqrt() / 2)
        )
        bound = self.log_bound + (step + torch.where(stiff, turns, 1).log()).cumsum(0)
        self.log_bound = bound[-1]
        now = self._coordinates(tilt)
        if self.start is None:
            a, b, c, d = (entry[0] for entry in now)
            size = a * d - b * c
            self.start = d / size, -b / size, -c / size, a / size
        scaled = _times(now, _times((seen[0], seen[1], seen[2], seen[3]), self.start))
        self.growth.see(bound, _log_norm(*scaled) + self.log_scale, runs, first)

    def _coordinates(self, tilt: Tensor) -> Entries:
        """A matrix that maps (y, z) to coordinates in which the norm is that of Euclid."""
        of = self.of
        root, free = of.alpha.sqrt(), of.alpha == 0
        long, short = ((1 - tilt) / 2).sqrt(), ((1 + tilt) / 2).sqrt()
        flat, one = of.w.abs().sqrt().expand_as(tilt), torch.ones_like(tilt)
        zero = torch.zeros_like(tilt)
        return (
            torch.where(free, flat, long * root),
            torch.where(free, zero, long),
            torch.where(free, zero, short * root),
            torch.where(free, one, -short),
        )

    def _objection(self) -> str | None:
        bare = (self.of.alpha == 0) & (self.of.w == 0)
        return "a neuron has alpha = 0 and w = 0, where the norm is none" if bool(bare.any()) else None

    def certificates(self, broken: str | None, objection: str | None, condition: str) -> list[Certificate]:
        where = self.of.where
        rows = []
        above = broken or objection or self._objection()
        for statement, worst, reason in ((GROWTH, self.growth, above), (ALIVE, self.alive, broken)):
            if reason is None:
                rows.append(worst.certificate(statement, where, condition))
            else:
                rows.append(statement.declined(where, reason, condition))
        reason = f"it linearises an exponential, and extreme weights exceed it; see the row {GROWTH.name!r}"
        return [*rows, PUBLISHED_GRADIENT.declined(where, reason)]


def _times(A: Entries, B: Entries) -> Entries:
    (a, b, c, d), (e, f, g, h) = A, B
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


def _log_norm(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """ln of the largest singular value of [[a, b], [c, d]], without a difference of squares."""
    return ((torch.hypot(a + d, b - c) + torch.hypot(a - d, b + c)) / 2).log()
