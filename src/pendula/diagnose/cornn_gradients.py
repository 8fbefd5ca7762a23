"""What is proven of coRNN's gradients: one step, elapsed time, and when the past is forgotten."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Stretch, Worst, follow, largest_gain
from pendula.math.oscillator import damping, transition
from pendula.nets.scan import run

if TYPE_CHECKING:
    from pendula.diagnose.cornn import CoRNNObserver

# steps whose tape the gradient of the published bound may need
TAPE = 4096
# an assumption that is met with equality is met up to the rounding of float32 weights
NEARLY = 1 + 1e-6

ONE_STEP = Statement(
    "step Jacobian",
    "|J_n|_E <= 1 + dt Lambda in the norm gamma |y|^2 + omega |z|^2, for any input, at the points looked at: "
    "dt Lambda = a (|W|_2 / sqrt(gamma) + |W_z|_2 / sqrt(omega)), a = eta sqrt(omega + gamma dt^2), omega = 1 - "
    "epsilon dt and eta = dt (explicit), or 1 and dt / (1 + epsilon dt) (implicit).",
    "cornn.md 4.7, the replacement [derived, checked]; constants per neuron: derived here by the same proof",
)
ELAPSED = Statement(
    "gradient by elapsed time",
    "ln |dx_n/dx_0|_E <= sum ln(1 + dt Lambda), at most Lambda t_n: elapsed time counts, not the number of steps. "
    "Measured along one random direction per sequence, so from below.",
    "cornn.md 4.7, the replacement [derived, checked]; unequal steps: derived here by the same proof",
    logarithm=True,
)
PUBLISHED = Statement(
    "parameter gradient (published)",
    "|dE/dtheta| <= 3/2 (m + Y sqrt(m)) for each entry of W, W_z, V and b, E = 1/(2N) sum |y_n - target_n|^2, "
    "Y = max |target| (here 1), for the implicit variant, gamma = epsilon = 1, N dt = 1 and max(dt (1 + |W|_inf), dt "
    "|W_z|_inf) / (1 + dt) <= dt^r, 1/2 <= r <= 1.",
    "cornn.md 4.7, the paper's [from memory]; r = 1: no violation found [checked]; r < 1: fails [checked]",
)
FORGETTING = Statement(
    "forgetting (no chaos)",
    "Two runs under the same input approach each other by a factor q per step in a norm made of A, where q = |A|_P + "
    "sqrt(B' P B) (|W|_2 sqrt(P^-1_11) + |W_z|_2 sqrt(P^-1_22)) < 1. Bound: ln q / dt; measured: the mean exponent of "
    "one direction per sequence, per unit of time.",
    "derived here; the paper's claim of no chaos is refuted in cornn.md 4.4 [checked]",
    logarithm=True,
)


class Gradients:
    """The part of `CoRNNObserver` that follows a small change of the state."""

    def __init__(self, observer: CoRNNObserver) -> None:
        self.of, cell = observer, observer.cell
        W, W_z = cell.W.detach(), cell.W_z.detach()
        self.gain_y = float(torch.linalg.matrix_norm(W / observer.gamma.sqrt(), 2))
        self.gain_z = float(torch.linalg.matrix_norm(W_z, 2))
        self.one_step, self.elapsed = Worst(), Worst(logarithm=True)
        self.rates: list[float] = []
        self.norm, self.q = _contraction(observer, float(torch.linalg.matrix_norm(W, 2)), self.gain_z)
        self.probe: Tensor | None = None
        self.long = 0.0

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        steps, size, units = x.shape[0], x.shape[1], self.of.cell.hidden_size
        draws = torch.Generator().manual_seed(0)
        self.change = torch.randn(2, size, units, generator=draws, dtype=x.dtype)
        self.log_scale, self.log_bound = torch.zeros(size, dtype=x.dtype), torch.zeros(size, dtype=x.dtype)
        self.start: Tensor | None = None
        self.omega: Tensor | None = None
        self.long = max(self.long, steps * float(self.of.dt.max()))
        if self.probe is None and steps <= TAPE and tau is None:
            self.probe = x[: steps if lengths is None else int(lengths[0]), :1]

    def see(self, stretch: Stretch, h: Tensor, omega: Tensor) -> None:
        """h and omega: (K, B, N), or (1, 1, N) where all steps are equal."""
        of, size, runs = self.of, self.of.size, stretch.runs[:, : self.of.size]
        if self._objection() is not None:
            return
        # what one step can stretch by, (K, B)
        kappa, eta = damping(h, of.epsilon, of.cell.variant)
        per_force = (eta * (of.gamma * h**2 + omega).sqrt()).amax(-1)
        step = (per_force * (self.gain_y + self.gain_z / omega.amin(-1).sqrt())).expand(len(runs), size)
        for point in of.points(stretch, size):
            k = point.step - stretch.first
            rows = stretch.runs[k, :size].nonzero().squeeze(1)[: len(point.drive)]
            own = omega.expand(len(runs), size, -1)[k, rows]
            scale = torch.cat((of.gamma.expand_as(own), own), -1).sqrt()
            J = scale.unsqueeze(-1) * of.jacobian(point) / scale.unsqueeze(-2)
            self.one_step.see(1 + step[k : k + 1, rows], largest_gain(J).unsqueeze(0), None)
        self._follow(stretch, h, omega, kappa, eta, step, runs)

    def _follow(
        self, stretch: Stretch, h: Tensor, omega: Tensor, kappa: Tensor, eta: Tensor, step: Tensor, runs: Tensor
    ) -> None:
        of, cell, size = self.of, self.of.cell, self.of.size
        steps = len(runs)
        start = cell.State(*(s[:, :size] for s in stretch.before))
        slope = 1 - cell.force(start, stretch.drive[:, :size]) ** 2
        h, kappa, eta, wide = (v.expand(steps, size, -1) for v in (h, kappa, eta, omega))
        y, z = self.change
        if self.start is None:
            self.start = self._size(self.change, wide[0])
        changes = []
        for k in range(steps):
            z = kappa[k] * z + eta[k] * (slope[k] * (linear(y, cell.W) + linear(z, cell.W_z)) - of.gamma * y)
            y = y + h[k] * z
            changes.append((y, z))
        seen = torch.stack(follow(cell, stretch, size, (self.change[0], self.change[1]), changes))
        grown = self.log_scale + (self._size(seen, wide) / self.start).log()
        # from one norm into the next, where the steps differ
        past = torch.cat((wide[:1] if self.omega is None else self.omega.unsqueeze(0), wide[:-1]))
        wider = (wide / past).amax(-1).clamp(min=1).log() / 2
        bound = self.log_bound + (step.log1p() + wider).cumsum(0)
        self.elapsed.see(bound, grown, runs, stretch.first)
        self._ends(stretch, seen, grown, runs)
        self.log_bound, self.omega = bound[-1], wide[-1]
        size_now = seen[:, -1].square().sum((0, 2)).sqrt()
        size_now = torch.where(size_now > 0, size_now, 1)
        self.change, self.log_scale = seen[:, -1] / size_now.unsqueeze(-1), self.log_scale + size_now.log()

    def _size(self, change: Tensor, omega: Tensor) -> Tensor:
        y, z = change
        size: Tensor = (self.of.gamma * y**2 + omega * z**2).sum(-1).sqrt()
        return size

    def _ends(self, stretch: Stretch, seen: Tensor, grown: Tensor, runs: Tensor) -> None:
        """The exponents of the sequences that end in this stretch, or go on: the last one said counts."""
        last = runs.sum(0) - 1
        if stretch.first == 0:
            self.final = torch.zeros_like(self.log_scale)
            self.time = torch.zeros_like(self.log_scale)
            self.rates.append(math.nan)
            if self.norm is not None:
                self.start_P = self._in_P(self.change)
        rows = (last >= 0).nonzero().squeeze(1)
        value = grown if self.norm is None else self.log_scale + (self._in_P(seen) / self.start_P).log()
        self.final[rows] = value[last[rows], rows]
        spans = torch.ones_like(grown) if stretch.tau is None else stretch.tau[:, : self.of.size, 0]
        self.time += (spans * runs).sum(0) * float(self.of.dt.mean())
        self.rates[-1] = float((self.final / self.time).max())

    def _in_P(self, change: Tensor) -> Tensor:
        assert self.norm is not None
        x = change.movedim(0, -1)
        size: Tensor = torch.einsum("...ni,nij,...nj->...n", x, self.norm, x).sum(-1).sqrt()
        return size

    def _objection(self) -> str | None:
        """Why 4.7 gives nothing, if it gives nothing."""
        of, h = self.of, self.of.dt * self.of.longest
        slack, damped = float((2 * of.epsilon - of.gamma * h).min()), float((of.epsilon * h).max())
        if slack < 0:
            return f"2 epsilon >= gamma dt fails, the difference is {slack:.4g}{of.spans}"
        if of.explicit and damped >= 1:
            return f"epsilon dt < 1 fails, it is {damped:.4g}{of.spans}"
        return None

    def certificates(self) -> list[Certificate]:
        where, objection = self.of.where, self._objection()
        condition = f"|W|_2 / sqrt(gamma) = {self.gain_y:.4g}, |W_z|_2 = {self.gain_z:.4g}, {self.of.damped}"
        if objection is not None:
            rows = [statement.declined(where, objection, condition) for statement in (ONE_STEP, ELAPSED)]
        else:
            rows = [w.certificate(s, where, condition) for s, w in ((ONE_STEP, self.one_step), (ELAPSED, self.elapsed))]
        return [*rows, self._published(), self._forgetting(objection)]

    def _forgetting(self, objection: str | None) -> Certificate:
        condition = f"q = {self.q:.6g}"
        rate = max(self.rates) if self.rates and objection is None else None
        seen = "" if rate is None else f"; the mean exponent measured here is {rate:+.3g} per unit of time"
        if not self.of.even or self.of.longest != 1 or float(self.of.dt.min()) != float(self.of.dt.max()):
            reason = f"it was derived for equal steps of one dt{self.of.spans}{seen}"
        elif not self.q < 1:
            reason = (
                f"q < 1 fails, it is {self.q:.4g}: nothing excludes chaos, and bounded states and a bounded "
                f"separation of inputs do not{seen}"
            )
        elif rate is None:
            reason = f"no change of the state was followed: {objection}"
        else:
            return FORGETTING.checked(self.of.where, condition, math.log(self.q) / float(self.of.dt[0]), rate)
        return FORGETTING.declined(self.of.where, reason, condition, None, rate)

    def _published(self) -> Certificate:
        of, cell = self.of, self.of.cell
        dt = float(of.dt.max())
        W, W_z = (float(torch.linalg.matrix_norm(w.detach(), math.inf)) for w in (cell.W, cell.W_z))
        eta = max(dt * (1 + W), dt * W_z) / (1 + dt)
        condition = f"variant {cell.variant}, N dt = {self.long:.4g}, max(...) = {eta:.4g}, dt = {dt:.4g}"
        unit = bool(torch.isclose(torch.stack((of.gamma, of.epsilon)), of.dt.new_ones(())).all())
        if of.explicit or not unit:
            reason = "it is stated for the implicit variant with gamma = epsilon = 1"
        elif not of.even or of.longest != 1 or abs(self.long - 1) > dt:
            reason = f"it is stated for equal steps over a time of N dt = 1, and here it is {self.long:.4g}{of.spans}"
        elif eta > dt**0.5 * NEARLY:
            reason = f"its assumption (8) fails for every r: the maximum is {eta:.4g}, dt^(1/2) = {dt**0.5:.4g}"
        elif self.probe is None:
            reason = f"it was not measured: the batch has more than {TAPE} steps"
        else:
            bound = 1.5 * (cell.hidden_size + cell.hidden_size**0.5)
            measured = self._largest_gradient()
            if eta <= dt * NEARLY:
                return PUBLISHED.checked(of.where, condition, bound, measured)
            reason = (
                f"its assumption (8) holds for r = {math.log(eta) / math.log(dt):.3g} only, and for r < 1 the "
                "bound is wrong (one neuron with W_z = dt^(r-1) (1 + dt) exceeds it); measured "
                f"{measured:.4g} against {bound:.4g}"
            )
            return PUBLISHED.declined(of.where, reason, condition, bound, measured)
        return PUBLISHED.declined(of.where, reason, condition)

    def _largest_gradient(self) -> float:
        """The largest |dE/dtheta| for the first sequence of the batch, with all targets 1."""
        assert self.probe is not None
        cell = self.of.cell
        with torch.enable_grad():
            outputs, _ = run(cell, self.probe, None, lengths=None, tau=None, backend="reference")
            loss = (outputs - 1).square().sum() / (2 * len(outputs))
            named = [p for p in (cell.W, cell.W_z, cell.V, cell.b) if p is not None]
            found = torch.autograd.grad(loss, named)
        return max(float(g.abs().max()) for g in found)


def _contraction(of: CoRNNObserver, gain_y: float, gain_z: float) -> tuple[Tensor | None, float]:
    """P (N, 2, 2) and q of `FORGETTING`, for steps of dt; None where q is not below 1."""
    A, B = transition(of.dt, of.gamma, of.epsilon, of.cell.variant)
    radius = float(torch.linalg.eigvals(A).abs().max())
    best: tuple[Tensor | None, float] = (None, math.inf)
    if radius >= 1:
        return best
    eye = torch.eye(2, dtype=A.dtype)
    # any r between the radius and 1 gives a norm; the weights decide which is the best
    for share in (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9):
        M = A / (radius + share * (1 - radius))
        # P = M' P M + I
        system = torch.eye(4, dtype=A.dtype) - torch.einsum("nki,nlj->nijkl", M, M).reshape(-1, 4, 4)
        P = torch.linalg.solve(system, eye.reshape(4).expand(len(M), 4)).reshape(-1, 2, 2)
        P = (P + P.mT) / 2
        root = torch.linalg.cholesky(P).mT
        alone = float(torch.linalg.matrix_norm(root @ A @ torch.linalg.inv(root), 2).max())
        per_force = float(torch.einsum("ni,nij,nj->n", B, P, B).max()) ** 0.5
        inverse = torch.linalg.inv(P).diagonal(dim1=-2, dim2=-1).amax(0).sqrt()
        q = alone + per_force * (gain_y * float(inverse[0]) + gain_z * float(inverse[1]))
        if q < best[1]:
            best = (P, q)
    return best if best[1] < 1 else (None, best[1])
