"""The surrogate of the paper: a Bayesian neural network of a generator's value and of how much its networks differ.

Spec sheet ``nago.md`` 4.3: f(theta) and the variance w^2(theta) of the values of networks that are drawn at theta, by
one network of three layers of ten units, whose weights are drawn by Hamiltonian Monte Carlo. Proposals are made as in
USeMO, with local penalties around what is pending, but from candidates that are drawn and not by NSGA-II. The paper's
acquisition and the settings of its sampler aren't in the sheet (11.5): ours were chosen on made-up functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

UNITS, LAYERS = 10, 3
CHAINS, SAMPLES = 10, 100
WARM_UP, APART = 1500, 100
"""Steps of a chain before its first sample is due, and from one to the next."""
STEP, FRICTION = 0.05, 0.1
START = 0.5
"""Where the chains begin: nearer to zero than the prior, whose steepest draws would rule the scales of the steps."""
GAIN = 1.5
"""Standard deviation of the weights, times the root of the number of inputs of a unit."""
QUIET, FLOOR = -2.0, 1e-3
"""Of the noise: the last layer adds to the first, and the variance isn't less than the second."""
EVEN, NEAR, REACH = 1024, 512, 0.1
"""Candidates: evenly spread ones, ones near the best points, and how near."""
SMOOTH = -5.0


def moments(f: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of what a mixture of normals predicts, by the law of total variance.

        mu = mean f,   variance = mean (f - mu)^2 + mean w^2

    Args:
        f, w2: (S, ...) means and variances of the S networks.

    >>> mean, variance = moments(torch.tensor([0.0, 2.0]), torch.tensor([0.5, 1.5]))
    >>> float(mean), float(variance)
    (1.0, 2.0)
    """
    return f.mean(0), f.var(0, correction=0) + w2.mean(0)


def negative_log_likelihood(y: Tensor, mu: Tensor, variance: Tensor) -> Tensor:
    """Of each y, under a normal: log(2 pi variance) / 2 + (y - mu)^2 / (2 variance)."""
    return 0.5 * torch.log(2 * math.pi * variance) + 0.5 * (y - mu) ** 2 / variance


def log_expected_improvement(mu: Tensor, sigma: Tensor, best: Tensor) -> Tensor:
    """Logarithm of the mean of max(y - best, 0) of a normal y,

        sigma (phi(u) + u Phi(u)),   u = (mu - best) / sigma,

    also where it is too small to be told from zero.
    """
    u = (mu - best) / sigma
    density = -0.5 * u**2 - 0.5 * math.log(2 * math.pi)
    high = u.clamp_min(-1.0)
    near = torch.log(torch.exp(-0.5 * high**2) / math.sqrt(2 * math.pi) + high * torch.special.ndtr(high))
    # far below the best both terms are tiny, and nearly cancel
    low = u.clamp_max(-1.0)
    far = density + torch.log1p(low * math.sqrt(math.pi / 2) * torch.special.erfcx(-low / math.sqrt(2)))
    return torch.log(sigma) + torch.where(u > -1.0, near, far)


def ball(points: Tensor, pending: Tensor, mu: Tensor, sigma: Tensor, best: Tensor, slope: Tensor) -> Tensor:
    """How far points are from a pending one, in radii of the ball that can't hold the best.

        slope |theta - theta_j| / (|mu_j - best| + sigma_j)

    Gonzalez and others 2016, as the paper has it (spec sheet ``nago.md`` 4.3).

    Args:
        points: (n, d).
        pending: (d,) theta_j.
        mu, sigma: (m,) predictions at theta_j.
        best: (m,) value so far.
        slope: (m,) largest gradient norm of the predicted mean.

    Returns: (n, m).
    """
    away: Tensor = torch.linalg.vector_norm(points - pending, dim=1, keepdim=True)
    return slope * away / ((mu - best).abs() + sigma)


def penalty(ratio: Tensor, power: float = SMOOTH) -> Tensor:
    """What an acquisition is multiplied by: (ratio^power + 1)^(1 / power) (Alvi and others 2019).

    Its limit at power -inf is min(1, ratio).
    """
    return ratio.clamp_max(1.0) if power == -math.inf else (ratio**power + 1) ** (1 / power)


def sghmc(gradient: Callable[[Tensor], Tensor], start: Tensor, chance: Generator) -> Tensor:
    """Draws from the density exp(-U) by underdamped Langevin dynamics, all chains at once.

        v = (1 - FRICTION) v - STEP s grad U(w) + sqrt(1 - (1 - FRICTION)^2) normal
        w = w + STEP s v

    Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin 2014) without the stochastic gradient: there are
    few data. The scale s of each weight follows from its squared gradients during the warm-up, as their mean is its
    curvature at equilibrium.

    Args:
        gradient: of U at w.
        start: (..., chains, P).
        chance: random numbers.

    Returns: (..., SAMPLES, P), so many from each chain.
    """
    w, v, square, kept = start, _normal(start.shape, chance), torch.ones_like(start), []
    for step in range(1, WARM_UP + APART * (SAMPLES // start.shape[-2]) + 1):
        slope = gradient(w)
        if step <= WARM_UP:
            square = square + (slope**2 - square) / min(step + 1, 100)
            # the prior is of curvature one
            scale = STEP * torch.rsqrt(square + 1)
        v = (1 - FRICTION) * v - scale * slope + math.sqrt(1 - (1 - FRICTION) ** 2) * _normal(w.shape, chance)
        w = w + scale * v
        if step > WARM_UP and (step - WARM_UP) % APART == 0:
            kept.append(w)
    return torch.cat(kept, -2)


@dataclass(frozen=True)
class Networks:
    """Networks that were drawn given some data.

    Args:
        weights: (m, S, P) of S networks for each of m objectives, standard normal a priori.
        centre, scale: (m,) of the values.
    """

    weights: Tensor
    centre: Tensor
    scale: Tensor

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """f and w^2, (S, n, m), at points (n, d)."""
        f, w2 = (part.permute(1, 2, 0) for part in _forward(self.weights, points))
        return self.centre + self.scale * f, self.scale**2 * w2


def learn(points: Tensor, values: Tensor, *, seed: int = 0) -> Networks:
    """Networks that could have given the values, for all objectives at once.

    Args:
        points: (n, d) in the unit cube, those with several values repeated: their spread tells the noise.
        values: (n, m).
        seed: of the random numbers within.
    """
    chance = Generator().manual_seed(seed)
    centre, scale = values.mean(0), values.std(0).clamp_min(1e-12)
    wanted = ((values - centre) / scale).T.unsqueeze(1)
    widths = [points.shape[1], *[UNITS] * LAYERS, 2]
    count = sum((wide + 1) * high for wide, high in pairwise(widths))

    def gradient(weights: Tensor) -> Tensor:
        with torch.enable_grad():
            w = weights.detach().requires_grad_()
            potential = negative_log_likelihood(wanted, *_forward(w, points)).sum() + 0.5 * (w**2).sum()
            return torch.autograd.grad(potential, w)[0]

    start = START * _normal((values.shape[1], CHAINS, count), chance)
    return Networks(sghmc(gradient, start, chance), centre, scale)


def propose(
    points: Tensor,
    repeats: Sequence[Sequence[Sequence[float]]],
    *,
    pending: Tensor | None = None,
    count: int = 1,
    seed: int = 0,
) -> Tensor:
    """New points: of those that no other one betters in expected improvement, the ones that are known least.

    For each objective the improvement expected of one more network, times the penalties of what is pending; of the
    candidates in the Pareto set of these, that with the largest product of predicted widths (USeMO).

    Args:
        points: (n, d) in the unit cube.
        repeats: of each point, for each of m objectives, the values of its networks; more is better.
        pending: (k, d) that are being evaluated elsewhere.
        count: of new points.
        seed: of the random numbers within.

    Returns: (count, d).
    """
    from botorch.utils.multi_objective.pareto import is_non_dominated

    drawn = [list(zip(*own, strict=True)) for own in repeats]
    values = torch.tensor([row for rows in drawn for row in rows], dtype=points.dtype)
    networks = learn(points.repeat_interleave(torch.tensor([len(rows) for rows in drawn]), 0), values, seed=seed)
    means = torch.tensor([[math.fsum(own) / len(own) for own in each] for each in repeats])
    places = _candidates(points[is_non_dominated(means)], seed)
    best = values.amax(0)
    mu, sigma, slope = _predict(networks, places)
    acquisition = log_expected_improvement(mu, sigma, best)
    held = [] if pending is None else list(pending)
    for one in held:
        acquisition = acquisition + _held(networks, places, one, best, slope)
    found: list[Tensor] = []
    while len(found) < count:
        kept = is_non_dominated(acquisition)
        widest = torch.where(kept, torch.log(sigma).sum(1), -math.inf).argmax()
        found.append(places[widest])
        acquisition = acquisition + _held(networks, places, found[-1], best, slope)
    return torch.stack(found)


def _predict(networks: Networks, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means and widths (n, m) at points, and the largest gradient norms (m,) of the means."""
    with torch.enable_grad():
        places = points.detach().requires_grad_()
        mu, variance = moments(*networks(places))
        steep = [torch.autograd.grad(own.sum(), places, retain_graph=True)[0].norm(dim=1).max() for own in mu.unbind(1)]
    return mu.detach(), variance.detach().sqrt(), torch.stack(steep)


def _held(networks: Networks, points: Tensor, pending: Tensor, best: Tensor, slope: Tensor) -> Tensor:
    """Logarithms of the penalties of a pending point."""
    mu, variance = moments(*networks(pending.unsqueeze(0)))
    return torch.log(penalty(ball(points, pending, mu[0], variance[0].sqrt(), best, slope)))


def _candidates(best: Tensor, seed: int) -> Tensor:
    """Points spread evenly, and near the best ones."""
    engine: Callable[..., torch.quasirandom.SobolEngine] = torch.quasirandom.SobolEngine
    even = engine(best.shape[1], scramble=True, seed=seed).draw(EVEN, dtype=best.dtype)
    near = best[torch.arange(NEAR) % len(best)]
    shifted = near + REACH * _normal(near.shape, Generator().manual_seed(seed))
    return torch.cat((even, shifted.clamp(0.0, 1.0)))


def _forward(weights: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """f and w^2, (m, S, n), of standardised values."""
    # of variance one where the points fill the cube evenly
    h = ((2 * points - 1) * math.sqrt(3)).expand(weights[..., 0].numel(), *points.shape)
    flat, begun = weights.flatten(0, 1), 0
    for layer in range(LAYERS + 1):
        wide, high = h.shape[-1], UNITS if layer < LAYERS else 2
        both = flat[:, begun : begun + (wide + 1) * high].view(-1, wide + 1, high)
        begun += (wide + 1) * high
        h = torch.baddbmm(both[:, wide:], torch.tanh(h) if layer else h, both[:, :wide], alpha=GAIN / math.sqrt(wide))
    f, noise = h.view(*weights.shape[:2], len(points), 2).unbind(-1)
    return f, FLOOR + softplus(noise + QUIET)


def _normal(shape: Sequence[int], chance: Generator) -> Tensor:
    return torch.randn(shape, generator=chance, dtype=torch.float64)
