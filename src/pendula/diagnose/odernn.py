"""Conditions C1 to C8 for the Runge-Kutta networks, asked of the weights and of the states that were visited."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from pendula.cells import ODERNNCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Observer, Point, Stretch, Worst, largest_gain, numbers
from pendula.math.schemes import semi_implicit_step
from pendula.math.stability import (
    euler_contracts,
    euler_nonexpansive,
    euler_step_bound,
    linear_part_decays,
    linear_part_steps,
)
from pendula.nets.jacobian import step_jacobian

# terms of a sum over the memory of the linear part that are added up at most
TERMS = 100_000

DECAYS = Statement(
    "C8: linear part",
    "-sum gamma_j z_j is Hurwitz: in continuous time bounded forces give bounded motion. Measured: the largest real "
    "part.",
    "odernn.md C8 [R], classical",
    logarithm=True,
    strict=True,
)
STEPS = Statement(
    "C1: linear part",
    "One step of the linear part has its eigenvalues in the unit disc, those on the circle not defective.",
    "odernn.md C1, C8 [R][V]",
)
BOUNDED = Statement(
    "C8: state",
    "|z_j| <= sum over steps and stages of what a force of size 1 there can move z_j to, from rest: finite where C1 "
    "holds strictly for the linear part.",
    "odernn.md C8 [R]; the sum: derived here",
)
FROZEN = Statement(
    "C1: frozen spectrum",
    "At the points looked at, the step of the frozen Jacobian has its eigenvalues in the unit disc. Enough for one "
    "linear J; necessary-looking, but not sufficient where J changes in time (O11).",
    "odernn.md C1, O11 [R][V]",
)
C2 = Statement(
    "C2: Euler contracts",
    "lambda_max(J + J^T + h J^T J) <= 0 at the points looked at, so |I + h J|_2 <= 1 there. Measured: the largest "
    "gain.",
    "odernn.md C2 [R][V]",
)
C3 = Statement(
    "C3: Euler step",
    "mu_2(J) <= -m < 0, |J|_2 <= L and h <= 2 m / L^2 at the points looked at, so |I + h J|_2 <= 1 there.",
    "odernn.md C3 [R][V]",
)
C4 = Statement(
    "C4: two states",
    "<F(u) - F(v), u - v> <= -h/2 |F(u) - F(v)|^2 for visited states u, v under one input, so a step moves them no "
    "farther apart. Measured: the quotient of their distances.",
    "odernn.md C4 [R][V]",
)
C5 = Statement(
    "C5: SSP scheme",
    "h <= C h_0, C the SSP coefficient and h_0 a step for which Euler contracts at the points looked at and at their "
    "stages, so the step stretches nothing. Measured: the largest gain of a step.",
    "odernn.md C5 [R][V]",
)
C6 = Statement(
    "C6: antisymmetric and damped",
    "For J = S - gamma I, S antisymmetric, Euler contracts up to h = 2 gamma / (gamma^2 + |S|^2). Measured: the gain "
    "of a step, sqrt((1 - h gamma)^2 + h^2 |S|^2), at rest, where the slopes of tanh are 1.",
    "odernn.md C6 [R][V]; elsewhere C7 asks for C2",
)


class ODERNNObserver(Observer[ODERNNCell]):
    def __init__(self, cell: ODERNNCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        units = cell.hidden_size
        self.h = torch.as_tensor(cell.dt).detach().expand(units)
        # (N, t)
        self.gamma = torch.as_tensor(cell.gamma).detach().reshape(cell.t, -1).expand(cell.t, units).T.contiguous()
        self.largest = torch.zeros(cell.t, units, dtype=self.h.dtype)
        self.frozen, self.gain, self.apart = Worst(), Worst(), Worst()
        self.c2 = self.c3 = self.c4 = self.c5 = -math.inf

    def see(self, stretch: Stretch) -> None:
        cell = self.cell
        z = cell._derivatives(stretch.after[0])
        self.largest = torch.maximum(self.largest, (z.abs() * stretch.runs[..., None, None]).amax((0, 1)))
        before: Point | None = None
        for point in self.points(stretch, stretch.runs.shape[1]):
            self._look(point)
            if before is not None and cell.scheme is not None:
                self._part(before, point)
            before = point

    def _step(self, point: Point) -> Tensor:
        """h of each number of a state, (b, t N)."""
        h = self.h.expand(len(point.drive), -1) if point.tau is None else self.h * point.tau
        return h.repeat(1, self.cell.t)

    def _scaled(self, z: Tensor, drive: Tensor, h: Tensor) -> Tensor:
        """h J (b, t N, t N) of the field at z (b, t, N)."""
        rows = []
        for at, d in zip(z, drive, strict=True):

            def field(flat: Tensor, at: Tensor = at, d: Tensor = d) -> Tensor:
                return self.cell.field(flat.view_as(at).unsqueeze(0), d.unsqueeze(0)).flatten()

            with torch.enable_grad():
                rows.append(jacobian(field, at.flatten(), vectorize=True))  # type: ignore[no-untyped-call]
        return h.unsqueeze(-1) * torch.stack(rows)

    def _look(self, point: Point) -> None:
        cell, h = self.cell, self._step(point)
        z = cell._derivatives(point.state[0])
        J = self._scaled(z, point.drive, h)
        one = torch.ones(len(J), dtype=J.dtype)
        width = J.shape[-1]
        M = self.jacobian(point)[:, :width, :width]
        if not bool(J.isfinite().all() & M.isfinite().all()):
            self.gain.see(one, one * math.nan)
            return
        self.gain.see(one, largest_gain(M))
        step = M if cell.scheme is None else cell.scheme.transition(J, 1.0)
        self.frozen.see(one, torch.linalg.eigvals(step).abs().amax(-1))
        self.c2 = max(self.c2, float(euler_contracts(J, 1.0).value.max()))
        # of h J, a step of 1 has to be allowed
        self.c3 = max(self.c3, 1 / max(euler_step_bound(J), 1e-300))
        if cell.scheme is not None and cell.scheme.ssp > 0:
            stages: list[Tensor] = []

            def field(at: Tensor, c: float) -> Tensor:
                stages.append(at)
                return cell.field(at, point.drive)

            cell.scheme.step(field, z, h.view_as(z))
            allowed = min(euler_step_bound(self._scaled(s, point.drive, h)) for s in stages)
            self.c5 = max(self.c5, 1 / max(cell.scheme.ssp * allowed, 1e-300))

    def _part(self, one: Point, other: Point) -> None:
        """Two visited states under the input of the second."""
        cell, drive, tau = self.cell, other.drive[:1], None if other.tau is None else other.tau[:1]
        u, v = (cell._derivatives(point.state[0][:1]) for point in (one, other))
        du, dF = (u - v).flatten(1), self._step(other)[:1] * (cell.field(u, drive) - cell.field(v, drive)).flatten(1)
        if float(du.norm()) > 0:
            self.c4 = max(self.c4, float(euler_nonexpansive(du, dF, 1.0).value.max()))
            after = [cell.step(cell.State(p.state[0][:1]), drive, tau=tau)[0] for p in (one, other)]
            moved = (cell._derivatives(after[0]) - cell._derivatives(after[1])).flatten(1)
            self.apart.see(torch.ones(1, dtype=u.dtype), moved.norm(dim=-1) / du.norm(dim=-1))

    def certificates(self) -> list[Certificate]:
        return [*self._linear(), *self._frozen(), *self._contraction()]

    @property
    def _steps(self) -> Tensor:
        """All lengths of a step that were looked at, (K, N)."""
        return torch.tensor(sorted(self.lengths), dtype=self.h.dtype).unsqueeze(1) * self.h

    def _linear(self) -> list[Certificate]:
        where, cell = self.where, self.cell
        gamma = f"gamma_j from {float(self.gamma.min()):.4g} to {float(self.gamma.max()):.4g}"
        decays = linear_part_decays(self.gamma)
        rows = [DECAYS.checked(where, gamma, 0.0, float(decays.value.max()))]
        check = linear_part_steps(cell.scheme, self.gamma.expand(len(self._steps), -1, -1), self._steps)
        radius, condition = float(check.value.max()), f"dt up to {float(self.h.max()):.4g}{self.spans}"
        steps = STEPS.checked(where, condition, 1.0, radius)
        if steps.holds and not bool(check.holds.all()):
            # on the circle and defective: the powers grow without bound
            condition = f"{condition}; an eigenvalue on the circle is defective"
            steps = replace(steps, holds=False, condition=condition)
        rows.append(steps)
        condition = f"{numbers(spectral_radius=radius)}{self.spans}"
        if not radius < 1 - 1e-12:
            reason = f"the linear part does not forget, its spectral radius is {radius:.6g}"
        elif not self.even:
            reason = f"the sum is that of steps of one length, and here they differ{self.spans}"
        elif 60 / -math.log(max(radius, 1e-300)) > TERMS:
            reason = f"a memory of {-1 / math.log(radius):.3g} steps: the sum was not taken"
        else:
            bound = self._reach(radius)
            worst = int((self.largest / bound).nan_to_num(nan=math.inf).argmax())
            pair = float(bound.flatten()[worst]), float(self.largest.flatten()[worst])
            return [*rows, BOUNDED.checked(where, condition, *pair)]
        return [*rows, BOUNDED.declined(where, reason, condition, None, float(self.largest.max()))]

    def _reach(self, radius: float) -> Tensor:
        """How far forces of size 1 can move each z_j, from rest: (t, N)."""
        cell, h, t = self.cell, self.h * self.longest, self.cell.t
        eye = torch.eye(t, dtype=h.dtype).unsqueeze(-1).expand(-1, -1, len(h))

        def linear(z: Tensor, force: Tensor | float) -> Tensor:
            """The field of the linear part at z (..., t, N), with a force on the highest derivative."""
            top = force - (self.gamma.T * z).sum(-2)
            return torch.cat((z[..., 1:, :], top.unsqueeze(-2)), -2)

        rest, scheme = torch.zeros_like(eye[0]), cell.scheme
        if scheme is None:
            M = semi_implicit_step(lambda z: -(self.gamma.T * z).sum(-2), eye, h)
            columns = [semi_implicit_step(lambda z: torch.ones_like(h), rest, h)]
        else:
            M = scheme.step(lambda z, c: linear(z, 0.0), eye, h)

            def moved_by(stage: int) -> Tensor:
                calls = itertools.count()
                return scheme.step(lambda z, c: linear(z, float(next(calls) == stage)), rest, h)

            columns = [moved_by(stage) for stage in range(scheme.stages)]
        # M[j] is what became of the j-th derivative alone: powers of a matrix per unit
        matrix = M.permute(2, 1, 0)
        column = torch.stack(columns, -1).permute(1, 0, 2)
        total = torch.zeros_like(column)
        for _ in range(int(60 / -math.log(max(radius, 1e-300))) + t + 1):
            total += column.abs()
            column = matrix @ column
        return total.sum(-1).T

    def _frozen(self) -> list[Certificate]:
        condition = f"spectral radius at most {self.frozen.measured:.6g}{self.spans}"
        if self.held is not None or not self.frozen.measured <= 1 + 1e-12:
            reason = self.held or f"the {condition}, above 1: small changes can grow there for a while"
            return [FROZEN.declined(self.where, reason, condition, None, self.frozen.measured)]
        return [self.frozen.certificate(FROZEN, self.where, condition)]

    @property
    def held(self) -> str | None:
        return None if self.cell.input == "hold" else "it was worked out for input='hold', and this is 'linear'"

    def _contraction(self) -> list[Certificate]:
        where, scheme, rows = self.where, self.cell.scheme, []
        euler = scheme is not None and scheme.stages == 1
        name = "semi-implicit Euler" if scheme is None else f"a scheme of {scheme.stages} stages"
        asked = (
            (C2, self.gain, self.c2, 0.0, f"lambda_max = {self.c2:.4g}"),
            (C3, self.gain, self.c3, 1.0, _share(self.c3, "2 m / L^2")),
            (C4, self.apart, self.c4, 0.0, f"<dF, du> + h/2 |dF|^2 = {self.c4:.4g} / h"),
        )
        for statement, worst, value, most, condition in asked:
            if not euler or self.held:
                reason = f"it is about Euler's step, and this is {name}" if not euler else str(self.held)
                rows.append(statement.declined(where, reason))
            elif not value <= most + 1e-12 or math.isinf(value):
                rows.append(statement.declined(where, f"its condition fails, {condition}", condition))
            else:
                rows.append(worst.certificate(statement, where, condition))
        ssp = 0.0 if scheme is None else scheme.ssp
        condition = f"C = {ssp:.4g}, {_share(self.c5, 'C h_0')}"
        if self.held:
            rows.append(C5.declined(where, self.held))
        elif scheme is None or ssp == 0:
            rows.append(C5.declined(where, f"it is about SSP schemes, and {name} here has the coefficient 0"))
        elif not self.c5 <= 1:
            rows.append(C5.declined(where, f"its condition fails, {condition}", condition))
        else:
            rows.append(self.gain.certificate(C5, where, condition))
        return [*rows, self._antisymmetric(euler)]

    def _antisymmetric(self, euler: bool) -> Certificate:
        cell, W = self.cell, self.cell.W.detach()
        sigma, gamma = float(torch.linalg.matrix_norm(W[0], 2)), float(self.gamma.max())
        h = float(self.h.max()) * self.longest
        condition = f"|W_0|_2 = {sigma:.4g}, gamma = {gamma:.4g}, h <= {h:.4g}"
        if not euler or cell.t > 1:
            return C6.declined(self.where, f"it is about Euler's step for t = 1, and here t = {cell.t}", condition)
        if float((W[0] + W[0].T).abs().max()) > 1e-6 * max(sigma, 1e-300):
            return C6.declined(self.where, "W_0 is not antisymmetric (training does not keep it so)", condition)
        if float(self.gamma.min()) != gamma or float(self.h.min()) != float(self.h.max()):
            return C6.declined(self.where, "gamma and dt differ from unit to unit", condition)
        # a drive of 0 at rest: all slopes are 1
        rest, tau = torch.zeros_like(cell.initial_state(1)[0]), self.h.new_full((1, 1), self.longest)
        M = step_jacobian(cell, cell.State(rest), rest.new_zeros(1, cell.hidden_size), tau=tau)
        gain = float(largest_gain(M[:, : cell.hidden_size, : cell.hidden_size]))
        if h > 2 * gamma / (gamma**2 + sigma**2):
            reason = f"h <= 2 gamma / (gamma^2 + |S|^2) fails, {condition}; a step at rest stretches by {gain:.6g}"
            return C6.declined(self.where, reason, condition, None, gain)
        return C6.checked(self.where, condition, 1.0, gain)


def _share(value: float, of: str) -> str:
    return f"h is {value:.4g} of {of}" if value < 1e200 else "mu_2(J) < 0 fails"
