"""`pendula search run`: a search over generators, with its workers, its budget and its interruptions."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from optuna.exceptions import StorageInternalError
from rich.console import Console

from pendula._check import DataError, positive_int
from pendula.nas.networks import build_task, probe
from pendula.nas.report import tables
from pendula.nas.space import read_space
from pendula.nas.worker import Job, open_study, work
from pendula.tune.places import hand_back_the_dead
from pendula.tune.sweep import conclude, crew
from pendula.tune.worker import TRIALS


def search(
    path: Path,
    *,
    console: Console,
    out: str | None = None,
    storage: str | None = None,
    trials: int | None = None,
    budget: float | None = None,
    workers: int = 1,
) -> None:
    """Search a space of generators, or go on with the study of it, and show the best.

    Args:
        path: the TOML file of the space.
        console: where to say how it goes.
        out: folder of the search; runs/search/NAME when None.
        storage: a database URL, or a journal file; the journal is in `out` when None.
        trials: points of the whole study, over all workers and starts; those of the space when None.
        budget: seconds after which the trials at hand stop at a checkpoint.
        workers: processes on this machine.

    Errors: ValueError for words, and when all trials failed; DataError for data, files, storage, and workers that
    ended early; Interrupted on Ctrl-C, after saving.
    """
    space = read_space(path)
    space = space if trials is None else replace(space, trials=positive_int("--trials", trials))
    positive_int("--workers", workers)
    home = Path(out or f"runs/search/{space.name}")
    deadline = None if budget is None else time.monotonic() + budget
    task = build_task(space)
    probe(space, task)
    if home.exists() and any(home.iterdir()) and not (home / TRIALS).is_dir():
        raise DataError(f"{home} is not empty, and holds no search: give another --out")
    study = open_study(space, home, storage, task)
    (home / TRIALS).mkdir(parents=True, exist_ok=True)
    hand_back_the_dead(study)
    job = Job(str(path), str(home), storage, space.total, deadline)

    def say(words: str) -> None:
        console.print(words, soft_wrap=True, markup=False, highlight=False)

    if space.total < space.trials:
        say(f"the space has {space.total} points: each is tried once")
    ended_early = ""
    try:
        if workers == 1:
            work(job, say)
        else:
            ended_early = crew(job, workers, "pendula.nas.worker")
    except StorageInternalError as error:
        raise DataError(f"--storage {storage} is gone ({error}): the same command goes on when it is back") from error
    finally:
        for part in tables(study, space):
            console.print(part, soft_wrap=True)
    conclude(study, space.total, ended_early, say)
    say(f"- best networks as files: pendula search report {storage or home}")
