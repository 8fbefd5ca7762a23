"""The study of a space in its storage: a journal file, or any database that Optuna knows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy
import optuna

from pendula._check import DataError
from pendula.learn.training import Training
from pendula.tune.journal import open_journal
from pendula.tune.space import Space

JOURNAL = "study.journal"
SPACE, METRIC = "space", "metric"


class Searched(Protocol):
    """What a study is of: a `Space`, or generators of networks."""

    @property
    def name(self) -> str: ...

    def identity(self) -> dict[str, Any]:
        """What must not change while a study goes on, as JSON has it."""


class Numbered(optuna.samplers.BaseSampler):
    """A sampler whose random numbers depend on the seed and the number of the trial alone.

    So workers never draw the same values, and one worker that is not stopped draws the same when a study is repeated.

    Args:
        make: a sampler for a seed.
        seed: of the study.
    """

    def __init__(self, make: Callable[[int], optuna.samplers.BaseSampler], seed: int) -> None:
        self.make, self.seed = make, seed
        self.now = make(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        self.now = self.make(int(numpy.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0]))
        return self.now.infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Any]:
        return self.now.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        return self.now.sample_independent(study, trial, param_name, param_distribution)


def open_study(space: Space, home: Path, storage: str | None, metric: tuple[str, bool]) -> optuna.Study:
    """The study of a space, made if there is none yet.

    Args:
        space: what is searched.
        home: the folder of the sweep; it holds the journal when no storage is named.
        storage: a database URL, or a journal file somewhere else.
        metric: of the task, and whether more is better.

    Errors: DataError when the storage can't be used, or the study was started with another space.
    """
    directions = [direction_of(metric[1])]
    return make_study(space, storage_of(home, storage), metric[0], directions, _sampler(space), _pruner(space))


def direction_of(more_is_better: bool) -> optuna.study.StudyDirection:
    """In Optuna's words."""
    return optuna.study.StudyDirection.MAXIMIZE if more_is_better else optuna.study.StudyDirection.MINIMIZE


def make_study(
    space: Searched,
    storage: optuna.storages.BaseStorage,
    metric: str,
    directions: Sequence[optuna.study.StudyDirection],
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    """A study in its storage, made if there is none yet; the metric is what trials report after each epoch.

    Errors: DataError when the study was started with another space.
    """
    made = optuna.create_study(
        study_name=space.name,
        storage=storage,
        directions=directions,
        load_if_exists=True,
        sampler=sampler,
        pruner=pruner,
    )
    if SPACE not in made.user_attrs:
        made.set_user_attr(METRIC, metric)
        made.set_user_attr(SPACE, space.identity())
    _same(space, made)
    return made


def existing_study(space: Searched, home: Path, storage: str | None) -> optuna.Study:
    """The study of a space, to look at. Errors: DataError when there is none, or it is of another space."""
    try:
        made = optuna.load_study(study_name=space.name, storage=existing_storage(home, storage))
    except KeyError as error:
        raise DataError(f"{storage or home} has no study {space.name}: it has not been started there") from error
    _same(space, made)
    return made


def existing_storage(home: Path, storage: str | None) -> optuna.storages.BaseStorage:
    """The storage of a study, to look at. Errors: DataError when there is none."""
    place = Path((storage or str(home / JOURNAL)).removeprefix("sqlite:///").partition("?")[0])
    # looking must not make the file
    if "://" not in str(storage).removeprefix("sqlite:///") and not place.is_file():
        raise DataError(f"{place} is not there: this study has not been started")
    return storage_of(home, storage)


def _same(space: Searched, study: optuna.Study) -> None:
    before, now = study.user_attrs.get(SPACE, {}), space.identity()
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        raise DataError(
            f"the study {space.name} was started with another {' and another '.join(changed)}: its trials can't be "
            "compared with new ones; undo the change, or search in a file of another name"
        )


def storage_of(home: Path, storage: str | None) -> optuna.storages.BaseStorage:
    """A journal, in the folder unless another is named, or a database. Errors: DataError when it can't be used."""
    # what is worth saying, the sweep says
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if storage is None or "://" not in storage:
        return open_journal(Path(storage) if storage else home / JOURNAL)
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    # SQLite makes a writer wait for another one
    patience: dict[str, Any] = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
    for attempt in range(5):
        try:
            return optuna.storages.RDBStorage(storage, engine_kwargs=patience)
        except DBAPIError as error:
            # two commands that start at once both make the tables: the second time, they are there
            if attempt == 4:
                raise DataError(f"--storage {storage} can't be used: {error.orig}") from error
            time.sleep(0.2 * (attempt + 1))
        except (ImportError, SQLAlchemyError, RuntimeError) as error:
            raise DataError(f"--storage {storage} can't be used: {str(error).splitlines()[0]}") from error
    raise AssertionError("unreachable")


def _sampler(space: Space) -> optuna.samplers.BaseSampler:
    kinds: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    }
    return Numbered(kinds[space.sampler], space.seed)


def _pruner(space: Space) -> optuna.pruners.BasePruner:
    if space.pruner == "median":
        # steps are epochs that are done, from 1
        return optuna.pruners.MedianPruner(n_warmup_steps=space.warmup + 1)
    if space.pruner == "hyperband":
        epochs = [p.high or max(p.choices) for p in space.parameters if p.path == "train.epochs"]
        longest = math.prod((*(epochs or [space.base["train"].get("epochs", Training.epochs)]), space.seeds))
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=int(longest))
    return optuna.pruners.NopPruner()
