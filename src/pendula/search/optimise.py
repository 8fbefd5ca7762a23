"""Optimisers of generators, from libraries: random search, multi-fidelity TPE with Hyperband, multi-objective BoTorch.

Spec sheet ``nago.md`` 4 and 10. A point of a search is a generator; the networks drawn from it tell its value, by their
mean, and its noise, by their spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import fmean, variance
from typing import Any

import torch
from torch import Tensor

from pendula._check import DataError, one_of, positive_int
from pendula.search.graphs import derived_seed
from pendula.search.variables import Variable, decode, encode

try:
    import optuna
except ImportError as error:
    raise DataError(f"a search runs on Optuna ({error}): pip install 'pendula[search]'") from error
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

OPTIMISERS = ("random", "bohb", "mobo")
REPEATS = "repeats"
"""Attribute of a trial: for each objective the values of the networks that were drawn."""
SAMPLES, RESTARTS, RAW = 128, 4, 64
PRIOR = 2.0
"""How many repeats the noise of all points together counts for in that of one point."""


def sampler(
    optimiser: str, searched: Sequence[Variable], *, threads: int = 1
) -> Callable[[int], optuna.samplers.BaseSampler]:
    """A sampler of Optuna for a seed.

    Args:
        optimiser: "random"; "bohb": multivariate TPE, to go with the pruner of `hyperband`; "mobo": for several
            objectives.
        searched: the variables.
        threads: of the Gaussian processes; more than there are cores make them many times slower.
    """
    makers: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "bohb": lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed),
        "mobo": lambda seed: Hypervolume(searched, seed, threads=threads),
    }
    return makers[one_of("optimiser", optimiser, OPTIMISERS)]


def hyperband(least: int, most: int, factor: int = 2) -> optuna.pruners.HyperbandPruner:
    """The pruner of "bohb": trials begin with `least` epochs, and the better ones go on, up to `most`.

    Optuna runs the brackets side by side, each trial in one of them, and has single-objective studies only.
    """
    positive_int("most", most, least=positive_int("least", least))
    return optuna.pruners.HyperbandPruner(
        min_resource=least, max_resource=most, reduction_factor=positive_int("factor", factor, least=2)
    )


def brackets(least: int, most: int, factor: int = 2) -> list[list[tuple[int, int]]]:
    """Hyperband's brackets: (how many trials, epochs of each) from the first round to the last (sheet 4.2).

    >>> brackets(30, 120)
    [[(4, 30), (2, 60), (1, 120)], [(3, 60), (1, 120)], [(3, 120)]]
    """
    positive_int("most", most, least=positive_int("least", least))
    positive_int("factor", factor, least=2)
    rounds = 0
    while least * factor ** (rounds + 1) <= most:
        rounds += 1
    found = []
    for last in range(rounds, -1, -1):
        first = math.ceil((rounds + 1) / (last + 1) * factor**last)
        found.append([(first // factor**k, most // factor ** (last - k)) for k in range(last + 1)])
    return found


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


def front(values: Sequence[Sequence[float]]) -> list[int]:
    """The places of the points that no other one dominates; more is better in all objectives."""
    _need_botorch()
    from botorch.utils.multi_objective.pareto import is_non_dominated

    kept: Tensor = is_non_dominated(torch.tensor(values, dtype=torch.float64), deduplicate=False)
    return [int(place) for place in kept.nonzero().flatten()]


def hypervolume(values: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """What points dominate above a reference point; more is better in all objectives.

    >>> hypervolume([(1, 3), (2, 2), (3, 1)], (0, 0))
    6.0
    """
    _need_botorch()
    from botorch.utils.multi_objective.hypervolume import Hypervolume as Volume

    best = torch.tensor([values[place] for place in front(values)], dtype=torch.float64)
    return float(Volume(torch.tensor(reference, dtype=torch.float64)).compute(best))


def propose(
    points: Tensor,
    values: Tensor,
    variances: Tensor,
    *,
    pending: Tensor | None = None,
    count: int = 1,
    seed: int = 0,
    threads: int = 1,
) -> Tensor:
    """New points by the noisy expected hypervolume improvement (qLogNEHVI), one Gaussian process per objective.

    Args:
        points: (n, d) in the unit cube.
        values: (n, m) of the objectives, more is better.
        variances: (n, m) of these values, given to the processes as they are; zeros: the processes find one noise.
        pending: (k, d) that are being evaluated elsewhere.
        count: of new points.
        seed: of the random numbers within.
        threads: of PyTorch meanwhile.

    Returns: (count, d).
    """
    _need_botorch()
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.gp_regression import SingleTaskGP
    from botorch.models.model_list_gp_regression import ModelListGP
    from botorch.optim.optimize import optimize_acqf
    from botorch.sampling.normal import SobolQMCNormalSampler
    from botorch.utils.multi_objective.hypervolume import infer_reference_point
    from botorch.utils.multi_objective.pareto import is_non_dominated
    from gpytorch.mlls import SumMarginalLogLikelihood

    centre, scale = values.mean(0), values.std(0).clamp_min(1e-12)
    scaled, given = (values - centre) / scale, variances / scale**2
    with _quietly(seed, threads):
        processes = [
            SingleTaskGP(
                points,
                scaled[:, [m]],
                # a floor: a process of no noise at all can't be computed with points that are close
                given[:, [m]].clamp_min(1e-6) if bool((given[:, m] > 0).any()) else None,
                outcome_transform=None,
            )
            for m in range(values.shape[1])
        ]
        model = ModelListGP(*processes)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
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


class Hypervolume(optuna.samplers.BaseSampler):
    """A sampler for several objectives: the first trials fill the space evenly, the others come from `propose`.

    What a trial gets depends on the seed, its number and the trials that are told; those that run are pending.

    Args:
        searched: the variables.
        seed: of the study; each trial's own numbers follow from it and the number of the trial.
        start: completed trials that the processes need; twice as many as variables when None.
        threads: see `propose`.
    """

    def __init__(self, searched: Sequence[Variable], seed: int, *, start: int | None = None, threads: int = 1) -> None:
        _need_botorch()
        self.searched, self.seed, self.threads = tuple(searched), seed, threads
        self.start = 2 * len(self.searched) if start is None else positive_int("start", start, least=2)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {variable.name: _distribution(variable) for variable in self.searched}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        names = {variable.name for variable in self.searched}
        trials = [t for t in study.get_trials(deepcopy=False) if names <= set(t.params) and t.number != trial.number]
        told = [t for t in trials if t.state == TrialState.COMPLETE]
        if len(told) < self.start:
            engine: Any = torch.quasirandom.SobolEngine
            even = engine(len(self.searched), scramble=True, seed=self.seed).fast_forward(trial.number)
            return decode(self.searched, even.draw(1)[0].tolist())
        sign = [1.0 if way == optuna.study.StudyDirection.MAXIMIZE else -1.0 for way in study.directions]
        repeats = [t.user_attrs.get(REPEATS, [[value] for value in t.values]) for t in told]
        means = [[s * fmean(own) for s, own in zip(sign, each, strict=True)] for each in repeats]
        spreads = [noise([each[m] for each in repeats]) for m in range(len(sign))]
        running = [t for t in trials if t.state == TrialState.RUNNING]
        new = propose(
            self._points(told),
            torch.tensor(means, dtype=torch.float64),
            torch.tensor(spreads, dtype=torch.float64).T,
            pending=self._points(running) if running else None,
            seed=_mixed(self.seed, trial.number),
            threads=self.threads,
        )
        return decode(self.searched, new[0].tolist())

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        chance = optuna.samplers.RandomSampler(seed=_mixed(self.seed, trial.number))
        return chance.sample_independent(study, trial, param_name, param_distribution)

    def _points(self, trials: Sequence[FrozenTrial]) -> Tensor:
        return torch.tensor([encode(self.searched, t.params) for t in trials], dtype=torch.float64)


def _need_botorch() -> None:
    if find_spec("botorch") is None:
        raise DataError("several objectives are searched with BoTorch: pip install 'pendula[search]'")


def _distribution(variable: Variable) -> BaseDistribution:
    if variable.choices:
        return CategoricalDistribution(variable.choices)
    if variable.whole:
        return IntDistribution(int(variable.low), int(variable.high))
    return FloatDistribution(variable.low, variable.high, log=variable.log)


def _mixed(seed: int, number: int) -> int:
    return derived_seed(seed, "trial", number) % 2**31


@contextmanager
def _quietly(seed: int, threads: int) -> Iterator[None]:
    """Random numbers and threads of PyTorch as they were before, afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(positive_int("threads", threads))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
