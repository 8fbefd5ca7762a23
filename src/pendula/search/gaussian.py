"""The surrogate of several objectives by default: Gaussian processes of BoTorch, told the noise of each point.

Spec sheet ``nago.md`` 10: in the place of the paper's network (`bayesian`), a process for each objective, with the
variances of what it is told; in the place of its acquisition, the hypervolume that is expected to be gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, variance
from typing import Any

import torch
from torch import Tensor

SAMPLES, RESTARTS, RAW = 128, 4, 64
PRIOR = 2.0
"""How many repeats the noise of all points together counts for in that of one point."""


def noise(repeats: Sequence[Sequence[float]]) -> list[float]:
    """Variance of the mean of each point's repeats.

    The variance of a point is drawn towards that of all points together, as few repeats say little of it; a point
    without repeats has the latter. Zero where no point has any.

    Args:
        repeats: of each point, at least one.
    """
    spread = [(variance(values) if len(values) > 1 else 0.0, len(values) - 1) for values in repeats]
    freedom = sum(free for _, free in spread)
    pooled = sum(found * free for found, free in spread) / freedom if freedom else 0.0
    return [
        (found * free + pooled * PRIOR) / (free + PRIOR) / len(values)
        for (found, free), values in zip(spread, repeats, strict=True)
    ]


def learn(points: Tensor, repeats: Sequence[Sequence[Sequence[float]]]) -> tuple[Any, Tensor, Tensor]:
    """One Gaussian process per objective, fitted to standardised means of the networks of each point.

    Their variances are given to the processes as they are (`noise`); where all are zero, a process finds one noise.

    Args:
        points: (n, d).
        repeats: of each point, for each of m objectives, the values of its networks.

    Returns: the model, a ModelListGP of BoTorch, and the centre and the scale (m,) of the means.
    """
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.gp_regression import SingleTaskGP
    from botorch.models.model_list_gp_regression import ModelListGP
    from gpytorch.mlls import SumMarginalLogLikelihood

    values = torch.tensor([[fmean(own) for own in each] for each in repeats], dtype=points.dtype)
    variances = torch.tensor([noise(own) for own in zip(*repeats, strict=True)], dtype=points.dtype).T
    centre, scale = values.mean(0), values.std(0).clamp_min(1e-12)
    scaled, given = (values - centre) / scale, variances / scale**2
    model = ModelListGP(
        *(
            SingleTaskGP(
                points,
                scaled[:, [m]],
                # a floor: a process of no noise at all can't be computed with points that are close
                given[:, [m]].clamp_min(1e-6) if bool((given[:, m] > 0).any()) else None,
                outcome_transform=None,
            )
            for m in range(values.shape[1])
        )
    )
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    return model, centre, scale


def propose(
    points: Tensor,
    repeats: Sequence[Sequence[Sequence[float]]],
    *,
    pending: Tensor | None = None,
    count: int = 1,
    seed: int = 0,
) -> Tensor:
    """New points by the noisy expected hypervolume improvement (qLogNEHVI) of Gaussian processes.

    Args:
        points: (n, d) in the unit cube.
        repeats: of each point, for each of m objectives, the values of its networks; more is better.
        pending: (k, d) that are being evaluated elsewhere.
        count: of new points.
        seed: of the random numbers within.

    Returns: (count, d).
    """
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.optim.optimize import optimize_acqf
    from botorch.sampling.normal import SobolQMCNormalSampler
    from botorch.utils.multi_objective.hypervolume import infer_reference_point
    from botorch.utils.multi_objective.pareto import is_non_dominated

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, _, _ = learn(points, repeats)
        scaled = torch.stack([process.train_targets for process in model.models], 1)
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model,
            infer_reference_point(scaled[is_non_dominated(scaled)]),
            points,
            sampler=SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed),
            prune_baseline=True,
            X_pending=pending,
        )
        bounds = torch.tensor([[0.0], [1.0]], dtype=points.dtype).expand(2, points.shape[1])
        found, _ = optimize_acqf(acquisition, bounds, count, RESTARTS, raw_samples=RAW, sequential=True)
    new: Tensor = found.detach()
    return new
