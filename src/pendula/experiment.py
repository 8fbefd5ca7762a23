"""An experiment: a task, a model and a training, as plain data; running it leaves a folder with everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from pendula._check import DataError, known_keys
from pendula.choices import ModelChoice, TaskChoice
from pendula.circumstances import circumstances
from pendula.diagnose import Watch
from pendula.learn.dfa import Alignment
from pendula.learn.training import Training
from pendula.nets import Model, load
from pendula.nets.checkpoint import write_whole
from pendula.tasks.base import Batch, Task

CONFIG_FILE, RESULT_FILE, ALIGNMENT_FILE = "config.json", "result.json", "alignment.jsonl"


@dataclass(frozen=True)
class Experiment:
    """A task, a model and a training."""

    task: TaskChoice = field(default_factory=TaskChoice)
    model: ModelChoice = field(default_factory=ModelChoice)
    train: Training = field(default_factory=Training)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Experiment:
        """The inverse of `to_dict`. Errors: ValueError naming an unknown key."""
        parts = {"task": TaskChoice, "model": ModelChoice, "train": Training}
        known_keys("an experiment", data, list(parts))
        made = {}
        for name, kind in parts.items():
            given = dict(data.get(name, {}))
            known_keys(name, given, [f.name for f in fields(kind)])
            made[name] = kind(**given)
        return cls(**made)


def run(
    experiment: Experiment,
    folder: Path,
    *,
    resume: bool = False,
    deadline: float | None = None,
    report: Any = None,
    say: Callable[[str], None] | None = None,
    tested: bool = True,
) -> dict[str, Any]:
    """Train, evaluate on the test part with the best weights, and write everything to a folder.

    The folder gets what `pendula.learn.fit` writes, ``config.json`` and, at the end, ``result.json``, which is also
    returned. A folder with a finished run is not run again when resumed: its result is read.

    Args:
        experiment: what to run.
        folder: new, unless `resume` is set.
        resume: go on where the folder's run was stopped.
        deadline: a reading of `time.monotonic()`. A run that reaches it returns what it has, with "complete" false, and
            writes no ``result.json``; it can be resumed.
        report: see `pendula.learn.fit.fit`.
        say: is told what the task's reader noticed (missing values, irregular times), a sentence each.
        tested: evaluate on the test part; a search, which must not see it, leaves "test" empty.

    Errors: DataError when the folder is not empty, or holds a run with other settings; OutOfTime at a deadline before
    the end of the first epoch; those of the task and of `fit`.
    """
    # these need the [train] extra
    from pendula.learn.fit import evaluate, fit, refuse, so_far
    from pendula.learn.place import make_fabric
    from pendula.learn.training import OutOfTime

    if resume and (folder / CONFIG_FILE).exists():
        before, _ = read_config(folder)
        if _without_graph(before) != _without_graph(experiment):
            raise DataError(f"{folder} holds a run with other settings: give another folder, or resume it with its own")
        if (folder / RESULT_FILE).exists():
            finished: dict[str, Any] = _json(folder / RESULT_FILE)
            return finished
    task = experiment.task.build()
    spec = experiment.model.spec(task)
    fabric = make_fabric(experiment.train)
    # the first process looks, and all of them hear it: none is left waiting for one that gave up
    occupied = fabric.is_global_zero and not resume and folder.exists() and any(folder.iterdir())
    if fabric.broadcast(occupied):
        raise DataError(f"{folder} is not empty: give another --out, or go on with --resume {folder}")
    torch.manual_seed(experiment.train.seed)
    model = Model(spec, dtype=torch.float64 if experiment.train.precision == "64-true" else None)
    refuse(model, task, experiment.train, fabric.world_size, fabric.device)
    if task.standardise:
        model.set_standard(*task.statistics())
    parameters = model.parameter_count
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"experiment": experiment.to_dict(), "task": describe(task)}
        # a run that goes on keeps what it was started with: `fit` refuses it if the data is another
        if not (folder / CONFIG_FILE).exists():
            write_whole(folder / CONFIG_FILE, (json.dumps(facts, indent=2) + "\n").encode())
        for note in task.notes if say else ():
            say(note)  # type: ignore[misc]
    fabric.barrier()
    complete = True
    certify, align, rule = experiment.train.certify, experiment.train.align, experiment.train.make_rule()
    certified = Watch(certify) if certify else None
    alignment = Alignment(align, rule, task.loss, folder / ALIGNMENT_FILE) if align else None

    def watch(model: Model, batch: Batch, step: int) -> None:
        for each in (certified, alignment):
            if each is not None:
                each(model, batch, step)

    try:
        words = {"resume": resume, "deadline": deadline, "report": report, "fabric": fabric}
        watching = watch if certified or alignment else None
        fitted = fit(model, task, experiment.train, folder, rule=rule, watch=watching, **words)
    except OutOfTime:
        fabric.barrier()
        stopped = so_far(folder, fabric.device)
        if stopped is None:
            raise
        fitted, complete = stopped, False
    result = {
        "experiment": experiment.to_dict(),
        "parameters": parameters,
        "complete": complete,
        "best_epoch": fitted.best_epoch,
        "epochs": len(fitted.history),
        "validation": fitted.best,
        "test": evaluate(fitted.model, task, "test", fabric=fabric) if tested else {},
        "seconds": round(fitted.seconds, 2),
        "baseline": task.baseline,
        # since the run was started or last resumed
        "certificates": certified.to_dict() if certified else None,
        **({"alignment": alignment.measured} if alignment else {}),
        "data": task.provenance,
        "history": fitted.history,
        **circumstances(),
    }
    if fabric.is_global_zero and complete:
        write_whole(folder / RESULT_FILE, (json.dumps(result, indent=2) + "\n").encode())
    return result


def describe(task: Task) -> dict[str, Any]:
    """What prediction needs to know of a task, and what its reader noticed."""
    own = getattr(task, "description", None)
    return {
        "name": task.name,
        "target": task.target,
        "per_step": task.per_step,
        "labels": list(task.labels) if task.labels else None,
        "provenance": task.provenance,
        "notes": list(task.notes),
        "files": own() if own else None,
    }


def open_run(folder: Path) -> tuple[Experiment, dict[str, Any], Model]:
    """The experiment, the description of its task and the best model of a run folder (or of its best/ or last/)."""
    home, which = (folder.parent, folder.name) if folder.name in ("best", "last") else (folder, "best")
    experiment, task = read_config(home)
    if not (home / which).is_dir():
        raise DataError(f"{home} has no {which} model yet: its first epoch has not ended; go on with --resume {home}")
    return experiment, task, load(home / which)


def files_of(run: Path | str, facts: dict[str, Any]) -> dict[str, Any]:
    """How a run read its files, to read others the same way. Errors: DataError where it was trained on none."""
    if facts["files"] is None:
        raise DataError(f"{run} was trained on {facts['name']}, not on files: leave --data out")
    return dict(facts["files"])


def read_config(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a run folder, and the description of its task."""
    if not (folder / CONFIG_FILE).is_file():
        raise DataError(f"{folder} is not a run: it has no {CONFIG_FILE}; give the folder that `pendula train` wrote")
    facts = _json(folder / CONFIG_FILE)
    try:
        return Experiment.from_dict(facts["experiment"]), dict(facts["task"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / CONFIG_FILE} is damaged: {error}") from error


def _without_graph(experiment: Experiment) -> Experiment:
    """A run goes on with the CUDA graph or without: the numbers are the same to rounding."""
    return replace(experiment, train=replace(experiment.train, cuda_graph=False))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; restore it, or start another run") from error
