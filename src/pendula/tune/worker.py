"""One worker: asks the study for a trial, trains it, tells how it went, until nothing is left to do."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from types import FrameType
from typing import Any

import optuna
import torch
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from pendula._check import BackendError, DataError, StabilityWarning
from pendula.experiment import run
from pendula.learn.heap import keep_freed_memory
from pendula.learn.record import Progress
from pendula.learn.training import Diverged, Interrupted, OutOfTime
from pendula.tune import places
from pendula.tune.space import Space, read_space
from pendula.tune.study import METRIC, open_study

TRIALS = "trials"
Say = Callable[[str], None]
STOPPED = threading.Event()
"""Set where this process is to stop: a training that has just ended has not heard the signal."""


@dataclass(frozen=True)
class Job:
    """What a worker is told; all plain, as JSON has it.

    Args:
        space: file of the space.
        home: folder of the sweep.
        storage: as in `open_study`.
        metric: of the task, and whether more is better.
        trials: of the whole study.
        deadline: a reading of `time.monotonic()`, after which the worker stops at a checkpoint.
    """

    space: str
    home: str
    storage: str | None
    metric: tuple[str, bool]
    trials: int
    deadline: float | None = None


def work(job: Job, say: Say) -> None:
    """Run trials until the study has all, or the time is over.

    Errors: DataError for data, files and storage; Interrupted on Ctrl-C or SIGTERM. The trial at hand is handed back,
    and goes on from its last checkpoint when the same command runs again.
    """
    space = read_space(Path(job.space))
    study = open_study(space, Path(job.home), job.storage, (job.metric[0], job.metric[1]))
    ask = partial(places.next_trial, study, job.trials)
    loop(study, job.deadline, ask, lambda trial: _run(space, study, trial, job, say), say)


def loop(
    study: optuna.Study,
    deadline: float | None,
    ask: Callable[[], optuna.Trial | None],
    do: Callable[[optuna.Trial], None],
    say: Say,
) -> None:
    """Ask for trials and do them, until there are no more or the time is over; see `work`."""
    while deadline is None or time.monotonic() < deadline:
        if STOPPED.is_set():
            raise Interrupted("stopped")
        places.hand_back_the_dead(study)
        trial = ask()
        if trial is None:
            return
        try:
            with places.beating(trial):
                do(trial)
        except UpdateFinishedTrialError:
            say(f"trial {places.place(trial)} was silent for too long: another worker has taken it over")
        except OutOfTime:
            places.hand_back(study, trial.number, killed=False)
            return
        except BaseException as error:
            # a defect may come again with these values; a full disk or a Ctrl-C says nothing about them
            places.hand_back(study, trial.number, killed=not isinstance(error, (DataError, KeyboardInterrupt)))
            raise


def _run(space: Space, study: optuna.Study, trial: optuna.Trial, job: Job, say: Say) -> None:
    """Train a trial and tell the study."""
    number = places.place(trial)
    folder = Path(job.home) / TRIALS / f"{number:04d}"
    if places.PLACE not in trial.user_attrs and folder.exists():
        raise DataError(f"{folder} is there, and this study has never run trial {number}: give another --out")
    epochs = Epochs(trial, job.metric[1])
    value, state, said = None, TrialState.COMPLETE, ""
    try:
        values = space.draw(trial)
        value = _train(space, values, folder, epochs, job.deadline)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except Diverged as error:
        # the norms are of no use to a search
        state, said = TrialState.PRUNED, str(error).split("; parameter norms")[0]
        trial.set_user_attr(places.DIVERGED, True)
    except (ValueError, BackendError, torch.OutOfMemoryError) as error:
        # values that don't go together, or don't fit into memory: this trial's fault
        state, said = TrialState.FAIL, str(error)
    trial.set_user_attr("epochs", epochs.done)
    trial.set_user_attr("seconds", round(epochs.seconds, 2))
    if said:
        trial.set_user_attr(places.SAID, said)
    if places.finish(study, trial, value, state=state):
        say(_line(study, trial, value, state, said, epochs))


def _train(space: Space, values: dict[str, Any], folder: Path, epochs: Epochs, deadline: float | None) -> float:
    """The mean validation metric over the seeds. Errors: OutOfTime at the deadline, after saving."""
    reached: list[float] = []
    for k in range(space.seeds):
        experiment = space.experiment(values, k)
        epochs.start(reached, experiment.train.select == "last", experiment.train.epochs * space.seeds)
        with warnings.catch_warnings():
            # said when the best of them is trained; here it would be said at every trial
            warnings.simplefilter("ignore", StabilityWarning)
            result = run(
                experiment, folder / f"seed-{experiment.train.seed}", resume=True, deadline=deadline, report=epochs
            )
        if not result.get("complete", True):
            raise OutOfTime(f"out of time; {folder} can be resumed")
        # of a run that was complete before, nothing has been reported
        epochs.tell(result["history"])
        reached.append(result["validation"])
    return mean(reached)


class Epochs:
    """Tells the study after every epoch how a trial stands, and stops it where the pruner says so.

    The step of a trial is its number of epochs so far, over all seeds; its value there is the mean over the seeds of
    the metric of the selected epoch so far. So trials are compared at equal steps by equal means.

    Args:
        trial: to report to.
        more_is_better: whether the metric should be high.
    """

    def __init__(self, trial: optuna.Trial, more_is_better: bool) -> None:
        self.trial, self.best = trial, max if more_is_better else min
        # Optuna prunes by one objective only
        self.reports = len(trial.study.directions) == 1
        self.metric = f"validation_{trial.study.user_attrs[METRIC]}"
        self.done, self.seconds = 0, 0.0
        self.start([], False, 0)

    def start(self, reached: list[float], last: bool, total: int) -> None:
        """The next seed. `last`: the last epoch is selected; `total`: epochs of all seeds."""
        self.reached, self.last, self.total = list(reached), last, total
        self.seen, self.now = 0, 0.0

    def __call__(self, at: Progress, batches: int, loss: float) -> None:
        if self.tell(at.history) and self.reports and self.done < self.total and self.trial.should_prune():
            raise optuna.TrialPruned

    def tell(self, history: list[dict[str, Any]]) -> bool:
        """Report the epochs of a run that are new; whether there were any."""
        new = history[self.seen :]
        for line in new:
            value = line[self.metric]
            self.now = value if self.last or not self.seen else self.best(self.now, value)
            self.seconds += line["seconds"] - (history[self.seen - 1]["seconds"] if self.seen else 0.0)
            self.seen, self.done = self.seen + 1, self.done + 1
            if self.reports:
                self.trial.report(mean([*self.reached, self.now]), self.done)
        return bool(new)


def _line(
    study: optuna.Study,
    trial: optuna.Trial,
    value: float | None,
    state: TrialState,
    said: str,
    epochs: Epochs,
) -> str:
    """How a trial ended, on a line."""
    metric = epochs.metric.replace("_", " ")
    ran = f"{epochs.done} epoch{'s' * (epochs.done != 1)}"
    if said:
        ended = f"{'diverged' if state == TrialState.PRUNED else 'failed'}: {said}"
    elif value is None:
        ended = f"pruned after {ran}"
    else:
        ended = f"{metric} {value:.4g}, {ran} in {epochs.seconds:.0f} s"
    words = ", ".join(f"{path.rpartition('.')[2]} {_short(v)}" for path, v in trial.params.items())
    try:
        best = study.best_trial
        so_far = f"; best so far {best.value:.4g} (trial {places.place(best)})"
    except ValueError:
        so_far = ""
    return f"trial {places.place(trial)} ({words}): {ended}{so_far}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """A worker in a process of its own."""
    serve(lambda given, say: work(Job(**given), say))


def serve(do: Callable[[dict[str, Any], Say], None]) -> None:
    """Do a job, which is a line of JSON on standard input, whose end makes this process stop."""
    keep_freed_memory()

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped")

    def wait_for_the_end() -> None:
        # the parent closes it to stop the workers; if it dies, the kernel does
        sys.stdin.read()
        STOPPED.set()
        os.kill(os.getpid(), signal.SIGTERM)

    given = json.loads(sys.stdin.readline())
    # while a training runs, the same signal makes it save first
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=wait_for_the_end, daemon=True).start()
    try:
        do(given, lambda words: print(words, flush=True))
    except KeyboardInterrupt:
        sys.exit(130)
    except (DataError, ValueError, BackendError, StorageInternalError) as error:
        print(f"pendula: {error}", file=sys.stderr, flush=True)
        sys.exit(3)
