"""One worker of a search: asks the study for a point, draws networks of it, trains them, tells what they are worth."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from pendula._check import BackendError, DataError, StabilityWarning
from pendula.experiment import run
from pendula.learn.training import Diverged, OutOfTime, Training
from pendula.nas.networks import build_task, costs, draw, experiment, objectives
from pendula.nas.space import METRICS, GeneratorSpace, read_space
from pendula.search.graphs import derived_seed, graphs_version
from pendula.search.optimise import REPEATS, hyperband, sampler
from pendula.tasks.base import Task
from pendula.tune import places
from pendula.tune.study import Numbered, direction_of, make_study, storage_of
from pendula.tune.worker import TRIALS, Epochs, Say, loop, serve

OBJECTIVES, NETWORKS, PENALISED, GRAPHS = "objectives", "networks", "penalised", "networkx"


@dataclass(frozen=True)
class Job:
    """What a worker is told; all plain, as JSON has it.

    Args:
        space: file of the space.
        home: folder of the search.
        storage: a database URL or a journal file; a journal in `home` when None.
        total: points of the whole study.
        deadline: a reading of `time.monotonic()`, after which the worker stops at a checkpoint.
    """

    space: str
    home: str
    storage: str | None
    total: int
    deadline: float | None = None


def open_study(space: GeneratorSpace, home: Path, storage: str | None, task: Task) -> optuna.Study:
    """The study of a space, made if there is none yet.

    Errors: DataError when the storage can't be used, or the study was started with another space.
    """
    named = objectives(space, task)
    make = sampler(space.optimiser, space.searched, surrogate=space.surrogate)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if space.optimiser == "bohb":
        pruner = hyperband(space.least_epochs, Training(**space.train).epochs * space.samples)
    study = make_study(
        space,
        storage_of(home, storage),
        named[0],
        [direction_of(name == "accuracy") for name in named],
        # that of several objectives has numbers for each trial already
        make(space.seed) if space.optimiser == "mobo" else Numbered(make, space.seed),
        pruner,
    )
    if OBJECTIVES not in study.user_attrs:
        study.set_user_attr(GRAPHS, graphs_version())
        study.set_user_attr(OBJECTIVES, list(named))
    return study


def work(job: Job, say: Say) -> None:
    """Run trials until the study has all, or the time is over.

    Errors: DataError for data, files and storage; Interrupted on Ctrl-C or SIGTERM. The trial at hand is handed back,
    and goes on from its last checkpoint when the same command runs again.
    """
    space = read_space(Path(job.space))
    task = build_task(space)
    study = open_study(space, Path(job.home), job.storage, task)
    with warnings.catch_warnings():
        # said when the best of them is trained; here it would be said at every trial
        warnings.simplefilter("ignore", StabilityWarning)
        ask = partial(next_point, study, space, job.total)
        loop(study, job.deadline, ask, lambda trial: _run(space, study, trial, task, job, say), say)


def next_point(study: optuna.Study, space: GeneratorSpace, total: int) -> optuna.Trial | None:
    """A trial at a point that no other one has; None when all places are taken.

    Every worker writes its point before it looks at those of the others, so of two that have drawn the same one, one
    at least sees the other, and takes another point.
    """
    while (trial := places.next_trial(study, total)) is not None:
        point = {variable.name: variable.suggest(trial) for variable in space.searched}
        held = places.holders(study.get_trials(deepcopy=False))
        others = [t.params for number, t in held.items() if number != places.place(trial)]
        if not point or point not in others:
            return trial
        trial.set_user_attr(places.SURPLUS, True)
        study.tell(trial, state=TrialState.FAIL)
        fresh = space.point(derived_seed(space.seed, "instead", trial.number), [*others, point])
        if fresh is not None:
            study.enqueue_trial(fresh)
    return None


def _run(space: GeneratorSpace, study: optuna.Study, trial: optuna.Trial, task: Task, job: Job, say: Say) -> None:
    """Draw, train and measure the networks of a trial, and tell the study."""
    number = places.place(trial)
    folder = Path(job.home) / TRIALS / f"{number:04d}"
    if places.PLACE not in trial.user_attrs and folder.exists():
        raise DataError(f"{folder} is there, and this study has never run trial {number}: give another --out")
    networks = _Networks(space, study, trial, task, folder, job.deadline)
    values, state = None, TrialState.COMPLETE
    try:
        values = networks.values()
        if values is None:
            state = TrialState.FAIL
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    for name, note in networks.notes().items():
        trial.set_user_attr(name, note)
    if places.finish(study, trial, values, state=state):
        say(networks.line(values, state))


class _Networks:
    """The networks of one trial."""

    def __init__(
        self,
        space: GeneratorSpace,
        study: optuna.Study,
        trial: optuna.Trial,
        task: Task,
        folder: Path,
        deadline: float | None,
    ) -> None:
        self.space, self.study, self.trial, self.task = space, study, trial, task
        self.folder, self.deadline = folder, deadline
        self.named = objectives(space, task)
        self.epochs = Epochs(trial, task.selects[1])
        self.seeds = space.seeds(places.place(trial))
        self.measured: list[list[float] | None] = []
        self.told: list[dict[str, Any]] = []
        self.repeats: list[list[float]] | None = None

    def values(self) -> list[float] | None:
        """The mean of each objective over the networks; None where none has a value and no other trial has one.

        A network that can't be built or trained counts as the worst one so far (spec sheet ``nago.md`` 9.4).
        Errors: OutOfTime at the deadline, after saving; TrialPruned.
        """
        for number, seed in enumerate(self.seeds):
            try:
                values, said = self._train(number, seed), ""
            except (Diverged, ValueError, BackendError, torch.OutOfMemoryError) as error:
                # the norms are of no use to a search
                values, said = None, str(error).split("; parameter norms")[0]
            self.measured.append(values)
            self.told.append({"seed": seed, "values": values, "said": said})
        self.repeats = self._repeats()
        return None if self.repeats is None else [fmean(each) for each in self.repeats]

    def _train(self, number: int, seed: int) -> list[float]:
        drawn = draw(self.space, self.trial.params, seed, self.task)
        made, home = experiment(self.space, drawn, seed), self.folder / f"network-{number}"
        reached = [values[0] for values in self.measured if values is not None]
        self.epochs.start(reached, made.train.select == "last", made.train.epochs * len(self.seeds))
        result = run(made, home, resume=True, deadline=self.deadline, report=self.epochs, tested=False)
        if not result["complete"]:
            raise OutOfTime(f"out of time; {home} can be resumed")
        # of a run that was complete before, nothing has been reported
        self.epochs.tell(result["history"])
        found = [result["validation"], *costs(self.named[1:], drawn, home / "best", self.task)]
        if not all(map(math.isfinite, found)):
            raise ValueError(f"a value is not finite: {dict(zip(self.named, found, strict=True))}")
        return found

    def _repeats(self) -> list[list[float]] | None:
        """For each objective the values of the networks, with the worst in the place of those that are missing."""
        found = []
        for place, name in enumerate(self.named):
            worst = self._worst(place, name) if None in self.measured else 0.0
            if worst is None:
                return None
            found.append([worst if values is None else values[place] for values in self.measured])
        return found

    def _worst(self, place: int, name: str) -> float | None:
        known = [values[place] for values in self.measured if values is not None]
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            known += trial.user_attrs.get(REPEATS, [[]] * (place + 1))[place]
        bounds = {"accuracy": 0.0, "parameters": float(self.space.limit), "loss": self.task.baseline}
        if not known:
            return bounds.get(name)
        return min(known) if name == "accuracy" else max(known)

    def notes(self) -> Mapping[str, Any]:
        """What the study keeps of the trial beside its values."""
        said = next((told["said"] for told in self.told if told["said"]), "")
        return {
            "epochs": self.epochs.done,
            "seconds": round(self.epochs.seconds, 2),
            NETWORKS: self.told,
            **({REPEATS: self.repeats} if self.repeats else {}),
            **({places.SAID: said} if said else {}),
            **({PENALISED: sum(m is None for m in self.measured)} if None in self.measured else {}),
        }

    def line(self, values: list[float] | None, state: TrialState) -> str:
        """How the trial ended, on a line."""
        words = ", ".join(f"{name} {shown(value)}" for name, value in self.trial.params.items())
        ran = f"{self.epochs.done} epoch{'s' * (self.epochs.done != 1)} in {self.epochs.seconds:.0f} s"
        if state == TrialState.PRUNED:
            ended = f"pruned after {ran}"
        elif values is None:
            ended = f"failed: {self.told[-1]['said']}"
        else:
            named = zip(self.named, values, strict=True)
            ended = ", ".join(f"{'validation ' * (n in METRICS)}{n} {shown(value)}" for n, value in named)
            ended += f"; {len(self.seeds)} network{'s' * (len(self.seeds) > 1)}, {ran}"
            if None in self.measured:
                said = next(told["said"] for told in self.told if told["said"])
                ended += f"; {sum(m is None for m in self.measured)} counted as the worst so far: {said}"
        return f"trial {places.place(self.trial)} ({words}): {ended}"


def shown(value: Any) -> str:
    """A number for a table or a line.

    >>> shown(0.123456), shown(8897.0), shown(3)
    ('0.1235', '8897', '3')
    """
    if isinstance(value, float):
        return f"{value:.0f}" if value == round(value) and abs(value) >= 1 else f"{value:.4g}"
    return str(value)


def main() -> None:
    """A worker in a process of its own."""
    serve(lambda given, say: work(Job(**given), say))
