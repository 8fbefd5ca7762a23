"""One damped, force-driven oscillator under the two IMEX steps of coRNN: its matrix, stability and bounds.

Every statement here is about ``x_n = A x_{n-1} + B s_n`` with ``x = (y, z)`` and ``|s_n| <= 1``: everything
nonlinear in coRNN sits inside the bounded force. Source: spec sheet ``cornn.md`` 1.2, 4.3, 4.5 and 4.6, where each
is tagged as derived and checked; Rusch and Mishra, ICLR 2021 (arXiv 2010.00951) state the first for
gamma = epsilon = 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

VARIANTS = ("explicit", "implicit")


def damping(dt: Tensor, epsilon: Tensor, variant: str) -> tuple[Tensor, Tensor]:
    """kappa and eta of ``z_n = kappa z_{n-1} + eta (s_n - gamma y_{n-1})``."""
    if variant == "explicit":
        return 1 - epsilon * dt, dt
    delta = 1 / (1 + epsilon * dt)
    return delta, dt * delta


def transition(dt: Tensor, gamma: Tensor, epsilon: Tensor, variant: str) -> tuple[Tensor, Tensor]:
    """A (..., 2, 2) and B (..., 2) of one step of one unforced neuron."""
    kappa, eta = damping(dt, epsilon, variant)
    dt, gamma, kappa, eta = torch.broadcast_tensors(dt, gamma, kappa, eta)  # type: ignore[no-untyped-call]
    row_y = torch.stack((1 - dt * eta * gamma, dt * kappa), -1)
    row_z = torch.stack((-eta * gamma, kappa), -1)
    return torch.stack((row_y, row_z), -2), torch.stack((dt * eta, eta), -1)


def spectral_radius(dt: Tensor, gamma: Tensor, epsilon: Tensor, variant: str) -> Tensor:
    """Largest eigenvalue modulus of A: below 1 the unforced neuron comes to rest."""
    matrix, _ = transition(dt, gamma, epsilon, variant)
    eigenvalues: Tensor = torch.linalg.eigvals(matrix)
    return eigenvalues.abs().amax(-1)


def critical_step(gamma: float, epsilon: float, variant: str) -> float:
    """The largest linearly stable dt: ``gamma dt^2 + 2 epsilon dt = 4`` (implicit: ``gamma dt^2 = 4 + 2 epsilon dt``).

    >>> round(critical_step(4.0, 0.5, "explicit"), 12)
    0.882782218537
    """
    sign = -1.0 if variant == "explicit" else 1.0
    return (sign * epsilon + math.sqrt(epsilon**2 + 4 * gamma)) / gamma


def stability_objections(dt: Tensor, gamma: Tensor, epsilon: Tensor, variant: str) -> list[str]:
    """The inequalities of sheet 4.3 and 4.6 that fail for some neuron, as sentences; empty when all hold."""
    said = []
    if variant == "explicit":
        edge = gamma * dt**2 + 2 * epsilon * dt
        if bool((edge >= 4).any()):
            said.append(f"gamma dt^2 + 2 epsilon dt < 4 fails ({float(edge.max()):.4g}): the linear part is unstable")
        if bool((epsilon * dt >= 1).any()):
            said.append(f"epsilon dt < 1 fails ({float((epsilon * dt).max()):.4g}): no energy bound")
    else:
        edge = gamma * dt**2 - 2 * epsilon * dt
        if bool((edge >= 4).any()):
            said.append(f"gamma dt^2 < 4 + 2 epsilon dt fails (difference {float(edge.max()):.4g}): unstable")
    slack = 2 * epsilon - gamma * dt
    if bool((slack <= 0).any()):
        said.append(f"2 epsilon > gamma dt fails (difference {float(slack.min()):.4g}): no energy bound")
    return said


def energy(y: Tensor, z: Tensor, dt: Tensor, gamma: Tensor, epsilon: Tensor, variant: str) -> Tensor:
    """Left side of the discrete energy bound 4.3, summed over units: ``gamma |y|^2 + omega |z|^2``."""
    omega = 1 - epsilon * dt if variant == "explicit" else torch.ones_like(epsilon)
    return (gamma * y**2 + omega * z**2).sum(-1)


def energy_bound(units: int, elapsed: Tensor, dt: Tensor, gamma: Tensor, epsilon: Tensor) -> Tensor:
    """Right side of 4.3: ``m t / (2 epsilon - gamma dt)`` from rest; two inputs differ by four times it (4.4)."""
    return units * elapsed / (2 * epsilon - gamma * dt)


def uniform_bound(dt: float, gamma: float, epsilon: float, variant: str) -> tuple[float, float]:
    """Y_max and Z_max of 4.5: what no force of size 1 can exceed, from rest. Infinite when A is no contraction."""
    step, stiffness, damped = (torch.tensor(v, dtype=torch.float64) for v in (dt, gamma, epsilon))
    matrix, column = transition(step, stiffness, damped, variant)
    radius = float(spectral_radius(step, stiffness, damped, variant))
    if radius >= 1:
        return math.inf, math.inf
    total = torch.zeros(2, dtype=torch.float64)
    # 60 times the memory of the slowest mode: what is left out is below 1e-26 of the largest term (A may be nilpotent)
    for _ in range(int(60 / -math.log(max(radius, 1e-300))) + 2):
        total += column.abs()
        column = matrix @ column
    return float(total[0]), float(total[1])


def growth_rate(w: Tensor, w_z: Tensor, dt: float, gamma: float, epsilon: float, variant: str) -> float:
    """Lambda of 4.7: ``|dx_n/dx_k|_E <= exp(Lambda (t_n - t_k))`` in the energy norm, for any input."""
    a, b = float(torch.linalg.matrix_norm(w, 2)), float(torch.linalg.matrix_norm(w_z, 2))
    if variant == "explicit":
        omega = 1 - epsilon * dt
        return math.sqrt(omega + gamma * dt**2) * (a / math.sqrt(gamma) + b / math.sqrt(omega))
    return math.sqrt(1 + gamma * dt**2) / (1 + epsilon * dt) * (a / math.sqrt(gamma) + b)
