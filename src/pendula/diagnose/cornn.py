"""What is proven of coRNN's states: energy, size of every neuron, separation of two inputs, linear stability."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pendula.cells import CoRNNCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.cornn_gradients import Gradients
from pendula.diagnose.trajectory import Observer, Stretch, Worst, numbers
from pendula.math.oscillator import spectral_radius, transition

# terms of the sum of 4.5 that are added up at most: of a longer memory nothing is said
TERMS = 200_000

STABLE = Statement(
    "linear stability",
    "An unforced neuron comes to rest: gamma dt^2 + 2 epsilon dt < 4 (explicit), gamma dt^2 - 2 epsilon dt < 4 "
    "(implicit), for the longest step.",
    "cornn.md 4.6 [derived, checked]",
    strict=True,
)
PUBLISHED_ENERGY = Statement(
    "energy (published)",
    "|y_n|^2 + |z_n|^2 <= m t_n for the implicit variant with gamma = epsilon = 1 and dt <= 1, from rest.",
    "cornn.md 4.2 [from memory, proof re-done, checked]",
)
ENERGY = Statement(
    "energy",
    "gamma |y_n|^2 + omega |z_n|^2 <= m t_n / (2 epsilon - gamma dt) from rest, with omega = 1 - epsilon dt (explicit) "
    "or 1 (implicit). Unequal steps and one constant per neuron: the sum of dt / (2 epsilon - gamma dt), times "
    "omega_n / omega_{n-1} where that grows.",
    "cornn.md 4.3 [derived, checked]; unequal steps: derived here by the same proof",
)
SEPARATION = Statement(
    "input sensitivity",
    "Two inputs (here u and -u) separate by gamma |y - y'|^2 + omega |z - z'|^2 <= 4 m t_n / (2 epsilon - gamma dt). "
    "This bounds how far two runs can part. It does not exclude chaos.",
    "cornn.md 4.4 [bound derived, checked]",
)
POSITION = Statement(
    "position of a neuron",
    "|y_n| <= Y_max = sum_k |(A^k B)_1| at all times, from rest, A and B of one linear step: 1/gamma where A has "
    "positive real eigenvalues.",
    "cornn.md 4.5 [derived, checked]",
)
VELOCITY = Statement(
    "velocity of a neuron",
    "|z_n| <= Z_max = sum_k |(A^k B)_2| at all times, from rest, A and B of one linear step.",
    "cornn.md 4.5 [derived, checked]",
)


class CoRNNObserver(Observer[CoRNNCell]):
    """Runs the batch beside the same batch with its inputs negated."""

    copies = 2

    def __init__(self, cell: CoRNNCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        units = cell.hidden_size
        self.dt, self.gamma, self.epsilon = (
            torch.as_tensor(v).detach().expand(units) for v in (cell.dt, cell.gamma, cell.epsilon)
        )
        self.gradients = Gradients(self)
        self.energy, self.published, self.separation = Worst(), Worst(), Worst()
        self.y_max = self.z_max = torch.zeros(units, dtype=self.dt.dtype)

    @property
    def explicit(self) -> bool:
        return self.cell.variant == "explicit"

    def inputs(self, x: Tensor) -> Tensor:
        return torch.cat((x, -x), 1)

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        super().begin(x, lengths, tau)
        self.size = x.shape[1]
        self.allowed = torch.zeros(self.size, self.cell.hidden_size, dtype=x.dtype)
        self.omega: Tensor | None = None
        self.elapsed = torch.zeros(self.size, 1, dtype=x.dtype)
        self.gradients.begin(x, lengths, tau)

    def see(self, stretch: Stretch) -> None:
        size, runs, first = self.size, stretch.runs[:, : self.size], stretch.first
        steps = len(runs)
        y, z = stretch.after
        # (K, B, N), or (1, 1, N) where all steps are equal
        h = self.dt.expand(1, 1, -1) if stretch.tau is None else self.dt * stretch.tau[:, :size]
        omega = 1 - self.epsilon * h if self.explicit else torch.ones_like(h)
        gain = h / (2 * self.epsilon - self.gamma * h)
        allowed = self._allowed(gain.expand(steps, -1, -1), omega.expand(steps, -1, -1)).sum(-1)
        mine, other = (y[:, :size], z[:, :size]), (y[:, size:], z[:, size:])
        apart = (mine[0] - other[0], mine[1] - other[1])
        stored, parted = ((self.gamma * y**2 + omega * z**2).sum(-1) for y, z in (mine, apart))
        self.energy.see(allowed, stored, runs, first)
        self.separation.see(4 * allowed, parted, runs, first)
        time = self.elapsed + h.expand(steps, size, -1).cumsum(0).mean(-1, keepdim=True)
        self.elapsed = time[-1]
        units = self.cell.hidden_size
        self.published.see(units * time.squeeze(-1), (mine[0] ** 2 + mine[1] ** 2).sum(-1), runs, first)
        valid = stretch.runs.unsqueeze(-1)
        self.y_max = torch.maximum(self.y_max, (y.abs() * valid).amax((0, 1)))
        self.z_max = torch.maximum(self.z_max, (z.abs() * valid).amax((0, 1)))
        self.gradients.see(stretch, h, omega)

    def _allowed(self, gain: Tensor, omega: Tensor) -> Tensor:
        """The energy that each neuron may have after each step: (K, B, N)."""
        if self.even or not self.explicit:
            allowed = self.allowed + gain.cumsum(0)
        else:
            rows, before = [], self.allowed
            for g, o in zip(gain, omega, strict=True):
                # the weight of z^2 in the energy, where it grows from step to step
                grows = 1.0 if self.omega is None else (o / self.omega).clamp(min=1)
                before, self.omega = before * grows + g, o
                rows.append(before)
            allowed = torch.stack(rows)
        self.allowed = allowed[-1]
        return allowed

    def objection(self) -> str | None:
        """Why there is no energy bound, if there is none (4.3)."""
        h = self.dt * self.longest
        slack, damped = float((2 * self.epsilon - self.gamma * h).min()), float((self.epsilon * h).max())
        if slack <= 0:
            return f"2 epsilon > gamma dt fails, the difference is {slack:.4g}{self.spans}"
        if self.explicit and damped >= 1:
            return f"epsilon dt < 1 fails, it is {damped:.4g}{self.spans}"
        return None

    @property
    def damped(self) -> str:
        h = self.dt * self.longest
        words = {"2 epsilon - gamma dt >=": float((2 * self.epsilon - self.gamma * h).min())}
        if self.explicit:
            words["epsilon dt <="] = float((self.epsilon * h).max())
        return ", ".join(f"{name} {value:.4g}" for name, value in words.items()) + self.spans

    def certificates(self) -> list[Certificate]:
        rows = [self._stable(), self._published()]
        objection = self.objection()
        for statement, worst in ((ENERGY, self.energy), (SEPARATION, self.separation)):
            if objection is None:
                rows.append(worst.certificate(statement, self.where, self.damped))
            else:
                rows.append(statement.declined(self.where, objection, self.damped))
        return [*rows, *self._uniform(), *self.gradients.certificates()]

    def _stable(self) -> Certificate:
        h = self.dt * self.longest
        edge = self.gamma * h**2 + (2 if self.explicit else -2) * self.epsilon * h
        radius = float(spectral_radius(h, self.gamma, self.epsilon, self.cell.variant).max())
        return STABLE.checked(self.where, numbers(spectral_radius=radius) + self.spans, 4.0, float(edge.max()))

    def _published(self) -> Certificate:
        unit = bool(torch.isclose(torch.stack((self.gamma, self.epsilon)), self.dt.new_ones(())).all())
        step = float(self.dt.max()) * self.longest
        condition = (
            f"variant {self.cell.variant}, gamma {_range(self.gamma)}, epsilon {_range(self.epsilon)}, dt <= {step:.4g}"
        )
        if self.explicit:
            reason = "it is stated for the implicit variant, and this is the explicit one"
        elif not unit:
            reason = f"it is stated for gamma = epsilon = 1, and here {condition}"
        elif step > 1 or not self.even:
            reason = f"it is stated for equal steps of at most 1, and here dt is up to {step:.4g}{self.spans}"
        else:
            return self.published.certificate(PUBLISHED_ENERGY, self.where, condition)
        return PUBLISHED_ENERGY.declined(self.where, reason, condition)

    def _uniform(self) -> list[Certificate]:
        pairs = ((POSITION, self.y_max), (VELOCITY, self.z_max))
        h = self.dt * self.longest
        radius = float(spectral_radius(h, self.gamma, self.epsilon, self.cell.variant).max())
        condition = f"spectral radius of A {radius:.6g} < 1{self.spans}"
        if not self.even:
            reason = f"the sum is that of steps of one length, and here they differ{self.spans}"
        elif not radius < 1:
            reason = f"the spectral radius of A is {radius:.6g}, at least 1: the sum is infinite"
        elif 60 / -math.log(max(radius, 1e-300)) > TERMS:
            reason = f"a memory of {-1 / math.log(radius):.3g} steps: the sum was not taken"
        else:
            rows = []
            for bound, (statement, seen) in zip(largest_response(self, h), pairs, strict=True):
                worst = int((seen / bound).nan_to_num(nan=math.inf).argmax())
                rows.append(statement.checked(self.where, condition, float(bound[worst]), float(seen[worst])))
            return rows
        return [statement.declined(self.where, reason, condition, None, float(seen.max())) for statement, seen in pairs]


def largest_response(observer: CoRNNObserver, h: Tensor) -> tuple[Tensor, Tensor]:
    """Y_max and Z_max of each neuron (N,): `pendula.math.oscillator.uniform_bound` for all at once."""
    variant = observer.cell.variant
    # one neuron stands for all that have its constants
    constants = torch.stack((h, observer.gamma, observer.epsilon), 1)
    kinds, place = torch.unique(constants, dim=0, return_inverse=True)
    dt, gamma, epsilon = kinds.T
    A, B = transition(dt, gamma, epsilon, variant)
    radius = float(spectral_radius(dt, gamma, epsilon, variant).max())
    total, column = torch.zeros_like(B), B.unsqueeze(-1)
    # 60 times the memory of the slowest mode: what is left out is below 1e-26 of the largest term
    for _ in range(int(60 / -math.log(max(radius, 1e-300))) + 2):
        total += column.squeeze(-1).abs()
        column = A @ column
    y, z = total[place].T
    return y, z


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
