"""Sufficient conditions for the stability of Runge-Kutta steps and recurrences, as checks to run on Jacobians.

C1 to C11 of the spec sheet ``odernn.md``, section 4, where each is derived and tried out; that such conditions exist
is all that is known of the paper's own (arXiv 1904.12933). J is a Jacobian of the field, (..., D, D); M one of a step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pendula.math.schemes import Tableau, semi_implicit_step

# rounding of an eigenvalue or a norm of a small matrix in float64
SLACK = 1e-12
# beyond it, eigenvectors of float64 matrices are parallel as far as numbers can tell
PARALLEL = 1e7


class Check(NamedTuple):
    """One condition at each point: whether it holds, and the value that has to stay at or below the bound."""

    holds: Tensor
    value: Tensor
    bound: float

    @property
    def margin(self) -> Tensor:
        return self.bound - self.value


def _at_most(value: Tensor, bound: float) -> Check:
    return Check(value <= bound + SLACK * max(1.0, abs(bound)), value, bound)


def _below(value: Tensor, bound: float) -> Check:
    return Check(value < bound, value, bound)


def power_bounded(M: Tensor) -> Check:
    """The powers of M (..., D, D) stay bounded: eigenvalues in the unit disc, those on its edge not defective.

    Then ``|M^k| <= kappa(V)``, V the eigenvectors. Linear and frozen only: see `frozen_spectrum`.
    """
    values, vectors = torch.linalg.eig(M)
    check = _at_most(values.abs().amax(-1), 1.0)
    singular = torch.linalg.svdvals(vectors)
    parallel = singular[..., 0] > PARALLEL * singular[..., -1]
    # a defective double eigenvalue 1 comes out as 1 +- 1e-8
    edge = (check.value - 1).abs() < 1e-7
    return check._replace(holds=check.holds & ~(edge & parallel))


def frozen_spectrum(tableau: Tableau, J: Tensor, h: Tensor | float) -> Check:
    """C1: ``max |R(h lambda(J))| <= 1``, enough for one linear J and **not** for a J that changes in time (O11)."""
    return power_bounded(tableau.transition(J, h))


def log_norm(J: Tensor) -> Tensor:
    """mu_2(J), the largest eigenvalue of (J + J^T)/2: (...)."""
    values: Tensor = torch.linalg.eigvalsh((J + J.mT) / 2)
    return values[..., -1]


def euler_contracts(J: Tensor, h: Tensor | float) -> Check:
    """C2: ``lambda_max(J + J^T + h J^T J) <= 0``, which is ``|I + h J|_2 <= 1``; enough for any sequence of such J."""
    return _at_most(torch.linalg.eigvalsh(J + J.mT + h * J.mT @ J)[..., -1], 0.0)


def euler_step_bound(J: Tensor) -> float:
    """C3: the h up to which C2 holds at all the points given, ``2 m / L^2`` with mu_2 <= -m and |J|_2 <= L; else 0.

    >>> round(euler_step_bound(torch.tensor([[-2.0, 0.0], [0.0, -2.0]])), 6)
    1.0
    """
    m, L = -float(log_norm(J).max()), float(torch.linalg.matrix_norm(J, 2).max())
    return 2 * m / L**2 if m > 0 else 0.0


def euler_nonexpansive(du: Tensor, dF: Tensor, h: float) -> Check:
    """C4, without derivatives: ``<dF, du> <= -h/2 |dF|^2`` for du = u - v and dF = F(u) - F(v), both (..., D)."""
    return _at_most((dF * du).sum(-1) + h / 2 * dF.square().sum(-1), 0.0)


def ssp_step(tableau: Tableau, euler_step: float) -> float:
    """C5: the h up to which a scheme is nonexpansive wherever Euler is with euler_step; 0 where nothing follows.

    The Euler condition must then hold at the stage points too.
    """
    return tableau.ssp * euler_step


def euler_mixture(n: int) -> list[float]:
    """C5, linear and constant J: the c_k >= 0, of sum 1, with ``R_n(z) = sum_k c_k (1 + z)^k`` for order n = stages.

    >>> euler_mixture(2)
    [0.5, 0.0, 0.5]
    """
    return [sum((-1) ** j / math.factorial(j) for j in range(n - k + 1)) / math.factorial(k) for k in range(n + 1)]


def antisymmetric_step(sigma: float, gamma: float) -> float:
    """C6: Euler contracts for ``J = S - gamma I``, |S|_2 = sigma, up to exactly ``h = 2 gamma/(gamma^2 + sigma^2)``."""
    return 2 * gamma / (gamma**2 + sigma**2)


def antisymmetric_gain(sigma: float, gamma: float, h: float) -> float:
    """C6: ``|I + h (S - gamma I)|_2``; with gamma = 0, T steps grow by its T-th power, at most exp(T h^2 sigma^2/2)."""
    return math.sqrt((1 - h * gamma) ** 2 + h**2 * sigma**2)


def tanh_jacobian(S: Tensor, before: Tensor, gamma: Tensor | float = 0.0) -> Tensor:
    """C7: the J of ``tanh(S y + ...) - gamma y`` where the argument of tanh is `before` (..., D).

    C2 has to be asked of this, not of S: for antisymmetric S each J is harmless and products of them can still grow.
    """
    slope = 1 - torch.tanh(before).square()
    return slope.unsqueeze(-1) * S - gamma * torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)


def companion(gamma: Tensor) -> Tensor:
    """The matrix (..., t, t) of ``y^(t) = -sum_j gamma_j y^(j)`` from gamma (..., t)."""
    t = gamma.shape[-1]
    shift = torch.diag_embed(gamma.new_ones(t - 1), 1).expand(*gamma.shape, t)
    return torch.cat((shift[..., :-1, :], -gamma.unsqueeze(-2)), -2)


def linear_part_decays(gamma: Tensor) -> Check:
    """C8: ``-sum_j gamma_j z_j`` is Hurwitz, gamma (..., t): in continuous time bounded forces give bounded motion.

    >>> bool(linear_part_decays(torch.tensor([1.0, 0.2])).holds)
    True
    """
    return _below(torch.linalg.eigvals(companion(gamma)).real.amax(-1), 0.0)


def linear_part_steps(tableau: Tableau | None, gamma: Tensor, h: Tensor | float) -> Check:
    """C8, discrete: the linear part under one step of a scheme (None: semi-implicit Euler) satisfies C1.

    Shapes: gamma (..., t), h a number or (...).
    """
    gamma, h = gamma.double(), torch.as_tensor(h, dtype=torch.float64, device=gamma.device)
    h = h.reshape(*h.shape, 1, 1)
    J = companion(gamma)
    if tableau is not None:
        return power_bounded(tableau.transition(J, h))
    # columns of the identity are t units that the step moves at once
    eye = torch.eye(J.shape[-1], dtype=J.dtype, device=J.device).expand_as(J)
    return power_bounded(semi_implicit_step(lambda z: -(gamma.unsqueeze(-1) * z).sum(-2), eye, h.squeeze(-1)))


def delay_roots(alpha: Tensor) -> Check:
    """C9: ``y_{k+1} = sum_s alpha_s y_{k+1-s}`` (alpha (t,), s from 1) is bounded: root condition.

    ``sum |alpha_s| <= 1`` is enough for it.
    """
    t = alpha.shape[0]
    rest = torch.eye(t, dtype=alpha.dtype, device=alpha.device)[: t - 1]
    return power_bounded(torch.cat((alpha.unsqueeze(0), rest)))


def lstm_matrix(weight_hh: Tensor, f_max: float, c_max: float | None = None) -> Tensor:
    """C10: the matrix P (2, 2) with ``(|dc+|, |dh+|) <= P (|dc|, |dh|)`` in maximum norms, for two LSTM states.

    Args:
        weight_hh: (4 N, N), gates in the order i, f, g, o, as in `torch.nn.LSTM`.
        f_max: the largest value of the forget gate, below 1.
        c_max: the largest cell state; None: 1/(1 - f_max), what it can't exceed from rest.
    """
    i, f, g, o = (float(torch.linalg.matrix_norm(U, math.inf)) for U in weight_hh.detach().chunk(4))
    c_max = 1 / (1 - f_max) if c_max is None else c_max
    kappa = c_max * f / 4 + i / 4 + g
    return torch.tensor([[f_max, kappa], [f_max, kappa + o / 4]], dtype=torch.float64)


def lstm_contracts(weight_hh: Tensor, f_max: float, c_max: float | None = None) -> Check:
    """C10: the spectral radius of `lstm_matrix` is below 1."""
    return _below(torch.linalg.eigvals(lstm_matrix(weight_hh, f_max, c_max)).abs().amax(), 1.0)


def gradient_bounds(largest: Tensor, smallest: Tensor) -> tuple[Tensor, Tensor]:
    """C11: logarithms of what a gradient can grow and shrink by over T steps: sums of those of the singular values.

    Shapes: largest and smallest singular value of each step, (T, ...).
    """
    return largest.log().sum(0), smallest.log().sum(0)
