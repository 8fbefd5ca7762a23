"""Running a published experiment: resumable, within a time budget, one result file per seed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pendula._check import DataError
from pendula.experiment import Experiment, run
from pendula.learn.training import OutOfTime
from pendula.nets.checkpoint import write_whole
from pendula.papers.paper import Entry

SAVE_EVERY = 100
"""Optimiser batches between two resume files, where an entry does not say: epochs of long sequences take minutes."""

Progress = Callable[[str, int], AbstractContextManager[Any]]


def result_file(results: Path, entry: Entry, seed: int) -> Path:
    return results / entry.paper / entry.id / f"seed-{seed}.json"


def reproduce(
    entry: Entry,
    seeds: Iterable[int],
    *,
    results: Path,
    runs: Path,
    deadline: float | None = None,
    place: dict[str, Any] | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> list[dict[str, Any]]:
    """Run an entry with some seeds and write what was measured.

    A seed that has its whole result is not run again. One that was stopped, by a kill or by the deadline, goes on from
    its last checkpoint, and ends with the numbers of a run that was not stopped.

    Args:
        entry: what to run.
        seeds: of weights, order of the data, dropout and noise.
        results: results/PAPER/ID/seed-N.json is written here; a shorter result of the same settings is replaced.
        runs: run folders, with weights and checkpoints.
        deadline: a reading of `time.monotonic()`; a seed that reaches it writes what it has, with the epochs it did.
        place: accelerator, devices, precision and cuda_graph of the trainings; the entry's when None.
        progress: makes what shows a training's progress, from its name and its number of epochs.
        say: is told in a sentence what happens.

    Returns: the results, one per seed that has any.

    Errors: ValueError when the entry can't be run; DataError when the data is missing, or a result file is of other
    settings.
    """
    if entry.experiment is None:
        raise ValueError(f"{entry.name} can't be run: {entry.missing}")
    found = []
    for seed in seeds:
        path = result_file(results, entry, seed)
        train = replace(entry.experiment.train, seed=seed, **(place or {}))
        experiment = replace(entry.experiment, train=replace(train, save_every=train.save_every or SAVE_EVERY))
        before = _before(path, experiment)
        if before is not None and before["complete"]:
            say(f"{path} is there and whole")
            found.append(before)
            continue
        if deadline is not None and time.monotonic() > deadline:
            say(f"{entry.name}, seed {seed}: no time left")
            found += [before] if before else []
            continue
        home = runs / entry.paper / entry.id / f"seed-{seed}"
        try:
            if progress is None:
                result = run(experiment, home, resume=True, deadline=deadline)
            else:
                with progress(f"{entry.name}, seed {seed}", experiment.train.epochs) as report:
                    result = run(experiment, home, resume=True, deadline=deadline, report=report)
        except OutOfTime as late:
            say(f"{entry.name}, seed {seed}: {late}; no epoch has ended, so there is no number yet")
            continue
        if before is not None and before["epochs"] >= result["epochs"] and not result["complete"]:
            say(f"{path} holds {before['epochs']} epochs, this run has {result['epochs']}: the file is kept")
            found.append(before)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps({"entry": entry.name, **result}, indent=1) + "\n").encode())
        whole = "" if result["complete"] else f" ({result['epochs']} of {experiment.train.epochs} epochs; it can go on)"
        say(f"{path}{whole}")
        found.append(result)
    return found


def read_result(path: Path) -> dict[str, Any]:
    """A result file. Errors: DataError if it is not one."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        same_settings(Experiment.from_dict(result["experiment"]))
        if not {"entry", "complete", "epochs", "test", "data", "history"} <= result.keys():
            raise KeyError("some of its keys are missing")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a result of `pendula reproduce` ({error}): move it away") from error
    return result


def same_settings(experiment: Experiment) -> Experiment:
    """An experiment without what changes where it runs, how often it is saved, and what is watched."""
    place: dict[str, Any] = {"accelerator": "auto", "devices": 1, "cuda_graph": False}
    train = replace(experiment.train, save_every=None, certify=None, tensorboard=False, **place)
    return replace(experiment, train=train)


def _before(path: Path, experiment: Experiment) -> dict[str, Any] | None:
    if not path.exists():
        return None
    result = read_result(path)
    if same_settings(Experiment.from_dict(result["experiment"])) != same_settings(experiment):
        raise DataError(f"{path} holds a result of other settings: move it away, or give another --results folder")
    return result
