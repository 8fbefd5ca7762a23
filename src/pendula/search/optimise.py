"""Optimisers of generators, from libraries: random search, multi-fidelity TPE with Hyperband, multi-objective BoTorch.

Spec sheet ``nago.md`` 4 and 10. A point of a search is a generator; the networks drawn from it tell its value, by their
mean, and its noise, by their spread. What several objectives are modelled by is in `gaussian` and `bayesian`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor

from pendula._check import DataError, one_of, positive_int
from pendula.search import bayesian, gaussian
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


class Propose(Protocol):
    """New points of the unit cube from what is known: the face of `gaussian.propose` and `bayesian.propose`."""

    def __call__(
        self,
        points: Tensor,
        repeats: Sequence[Sequence[Sequence[float]]],
        *,
        pending: Tensor | None = None,
        count: int = 1,
        seed: int = 0,
    ) -> Tensor: ...


SURROGATES: dict[str, Propose] = {"gp": gaussian.propose, "bnn": bayesian.propose}
"""What several objectives are modelled by: Gaussian processes, or the Bayesian network of the paper."""


def sampler(
    optimiser: str, searched: Sequence[Variable], *, surrogate: str = "gp", threads: int = 1
) -> Callable[[int], optuna.samplers.BaseSampler]:
    """A sampler of Optuna for a seed.

    Args:
        optimiser: "random"; "bohb": multivariate TPE, to go with the pruner of `hyperband`; "mobo": for several
            objectives.
        searched: the variables.
        surrogate: of "mobo", one of `SURROGATES`.
        threads: of the surrogate; more than there are cores make it many times slower.
    """
    makers: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "bohb": lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed),
        "mobo": lambda seed: Proposals(searched, seed, surrogate=surrogate, threads=threads),
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


class Proposals(optuna.samplers.BaseSampler):
    """A sampler for several objectives: the first trials fill the space evenly, the others are proposed.

    What a trial gets depends on the seed, its number and the trials that are told; those that run are pending.

    Args:
        searched: the variables.
        seed: of the study; each trial's own numbers follow from it and the number of the trial.
        surrogate: one of `SURROGATES`.
        start: completed trials that the surrogate needs; twice as many as variables when None.
        threads: of PyTorch while it proposes.
    """

    def __init__(
        self,
        searched: Sequence[Variable],
        seed: int,
        *,
        surrogate: str = "gp",
        start: int | None = None,
        threads: int = 1,
    ) -> None:
        _need_botorch()
        self.propose = SURROGATES[one_of("surrogate", surrogate, SURROGATES)]
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
        better = [[[s * one for one in own] for s, own in zip(sign, each, strict=True)] for each in repeats]
        running = [t for t in trials if t.state == TrialState.RUNNING]
        with _threads(self.threads):
            new = self.propose(
                self._points(told),
                better,
                pending=self._points(running) if running else None,
                seed=_mixed(self.seed, trial.number),
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
def _threads(count: int) -> Iterator[None]:
    """Threads of PyTorch meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(positive_int("threads", count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
