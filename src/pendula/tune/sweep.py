"""`pendula tune`: the workers of this machine, and what they leave in the folder of the sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from rich.console import Console

from pendula._check import DataError, positive_int
from pendula.learn.record import asked_to_stop
from pendula.learn.training import Interrupted
from pendula.tune.places import hand_back_the_dead, holders, why
from pendula.tune.results import tables, write
from pendula.tune.space import read_space
from pendula.tune.study import existing_study, open_study
from pendula.tune.worker import TRIALS, Job, Say, work


def tune(
    path: Path,
    *,
    console: Console,
    out: str | None = None,
    storage: str | None = None,
    trials: int | None = None,
    budget: float | None = None,
    workers: int = 1,
    report: bool = False,
) -> None:
    """Search a space, or go on with the study of it, and show the best trials.

    Args:
        path: the TOML file of the space.
        out: folder of the sweep: runs, best.toml, trials.csv; runs/tune/NAME when None.
        storage: a database URL, or a journal file; the journal is in `out` when None.
        trials: of the whole study, over all workers and starts; those of the space when None.
        budget: seconds after which the trials at hand stop at a checkpoint.
        workers: processes on this machine.
        report: only show what there is.

    Errors: ValueError for words, and when no trial was completed; DataError for data, files, storage, and workers that
    ended early; Interrupted on Ctrl-C, after saving.
    """
    space = read_space(path)
    home = Path(out or f"runs/tune/{space.name}")
    if report:
        for part in tables(existing_study(space, home, storage), space):
            console.print(part, soft_wrap=True)
        return
    space = space if trials is None else replace(space, trials=trials)
    positive_int("workers", workers)
    deadline = None if budget is None else time.monotonic() + budget
    # the data are read here once, so that what is missing is said before any work
    metric = space.probe().task.build().selects
    if home.exists() and any(home.iterdir()) and not (home / TRIALS).is_dir():
        raise DataError(f"{home} is not empty, and holds no sweep: give another --out")
    study = open_study(space, home, storage, metric)
    (home / TRIALS).mkdir(parents=True, exist_ok=True)
    hand_back_the_dead(study)
    job = Job(str(path), str(home), storage, metric, space.trials, deadline)

    def say(words: str) -> None:
        console.print(words, soft_wrap=True, markup=False, highlight=False)

    ended_early = ""
    try:
        if workers == 1:
            work(job, say)
        else:
            ended_early = crew(job, workers)
    except StorageInternalError as error:
        raise DataError(f"--storage {storage} is gone ({error}): the same command goes on when it is back") from error
    finally:
        for file in write(study, space, home):
            say(f"- {file}")
        for part in tables(study, space):
            console.print(part, soft_wrap=True)
    conclude(study, space.trials, ended_early, say)


def conclude(study: optuna.Study, total: int, ended_early: str, say: Say) -> None:
    """Say what is left of a study. Errors: DataError if workers ended early; ValueError if all trials failed."""
    trials_now = list(holders(study.trials).values())
    ended = [t for t in trials_now if t.state.is_finished()]
    left = total - len(ended)
    elsewhere = sum(t.state == TrialState.RUNNING for t in trials_now)
    words = f"{left} of {total} trials are left ({elsewhere} of them run elsewhere): the same command goes on"
    if ended_early and left > 0:
        raise DataError(f"{ended_early}, and {words}")
    if ended_early:
        say(f"- {ended_early}, and the others did its trials")
    if left > 0:
        say(words)
    if ended and all(t.state == TrialState.FAIL for t in ended):
        raise ValueError(f"all {len(ended)} trials so far failed, the last one: {why(ended[-1])}")


def crew(job: Any, workers: int, module: str = "pendula.tune.worker") -> str:
    """Run workers, each in a process of its own, until all have ended; a sentence when some did so early.

    Args:
        job: a dataclass that `main` of the module is given.
        workers: how many.
        module: of the workers.

    Errors: Interrupted after Ctrl-C or SIGTERM, when all have saved.
    """
    threads = str(max(1, len(_cores()) // workers))
    # a group of their own: Ctrl-C reaches this process only, which closes their input
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"from {module} import main; main()"],
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
            process_group=0 if os.name == "posix" else None,
        )
        for _ in range(workers)
    ]
    with asked_to_stop() as stop:
        try:
            for process in processes:
                _pipe(process, lambda pipe: (pipe.write(json.dumps(asdict(job)) + "\n"), pipe.flush()))
            while any(process.poll() is None for process in processes) and not stop.asked:
                time.sleep(0.1)
        finally:
            for process in processes:
                _pipe(process, lambda pipe: pipe.close())
            for process in processes:
                process.wait()
    if stop.asked:
        raise Interrupted("stopped: the same command goes on")
    bad = [process.returncode for process in processes if process.returncode]
    codes = ", ".join(f"signal {-code}" if code < 0 else f"code {code}" for code in bad)
    return f"{len(bad)} of {workers} workers ended early ({codes})" if bad else ""


def _pipe(process: subprocess.Popen[str], do: Callable[..., object]) -> None:
    assert process.stdin is not None
    # where it has ended, its exit code says how
    with suppress(BrokenPipeError):
        do(process.stdin)


def _cores() -> list[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    return list(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
