"""The training loop, one page from top to bottom, on Lightning Fabric (devices, precision, several processes)."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from pendula._check import DataError
from pendula.learn import graphed
from pendula.learn.graphed import GraphedSteps
from pendula.learn.place import denormals_flushed, make_fabric
from pendula.learn.record import RESUME_FILE, Progress, Record, asked_to_stop, read_resume, where, write_resume
from pendula.learn.rule import LearningRule
from pendula.learn.step import Steps
from pendula.learn.training import ONE_PROCESS, Diverged, Interrupted, OutOfTime, Training
from pendula.nets.checkpoint import WEIGHTS_FILE, load, save
from pendula.nets.model import Model
from pendula.tasks.base import Batch, Task

EVALUATION_BATCH = 256
Report = Callable[[Progress, int, float], None]
Watch = Callable[[Model, Batch, int], object]


@dataclass(frozen=True)
class Fitted:
    """The selected model, the epoch (from 1) it was reached in, its validation metric, and a line per epoch."""

    model: Model
    best_epoch: int
    best: float
    history: list[dict[str, Any]]
    seconds: float


def fit(
    model: Model,
    task: Task,
    training: Training,
    folder: Path,
    *,
    rule: LearningRule | None = None,
    resume: bool = False,
    deadline: float | None = None,
    report: Report | None = None,
    watch: Watch | None = None,
    fabric: Fabric | None = None,
) -> Fitted:
    """Train a model on a task, keeping the weights with the best validation metric (or the last, by `training.select`).

    The folder gets ``best/`` and ``last/`` (models), ``record.jsonl`` (a line per epoch) and ``resume.safetensors``.
    A run that is killed at any moment and resumed on the same machine ends with the weights of one that was not: order
    of the data, learning rate and dropout depend only on the seed and on where the run is.

    Args:
        model: moved to the device of the run.
        task: where the batches, the loss and the metric come from.
        training: optimiser, schedule, length and so on.
        folder: must hold no run unless `resume` is set.
        rule: what leaves the gradients; the one that `training` names when None.
        resume: go on from the folder's resume file, or start if there is none yet.
        deadline: a reading of `time.monotonic()` after which the run is saved where it is, and OutOfTime raised.
        report: called after every batch with the place of the run, the number of batches per epoch and the loss.
        watch: called after every batch with the model, the batch and the number of the step, from 1. The batch is to be
            read at once: with `cuda_graph` the next one is written over it.
        fabric: processes and devices, from `make_fabric`; made here when None.

    Errors: DataError when the folder holds a run, or disk or data fail; Diverged when the gradient is not finite;
    Interrupted on Ctrl-C or SIGTERM, and OutOfTime at the deadline, after saving.
    """
    fabric = fabric or make_fabric(training)
    rule = rule or training.make_rule()
    refuse(model, task, training, fabric.world_size, fabric.device)
    rule.prepare(model)
    folder.mkdir(parents=True, exist_ok=True)
    if not resume and (folder / RESUME_FILE).exists():
        raise DataError(f"{folder} holds a run: resume it, or give another folder")
    plan = _plan(model, task, training)
    if training.precision == "64-true":
        model.double()
    # setup puts the module on its device in place: `model` and the wrapped one share their parameters
    module = fabric.setup_module(model)
    optimiser = training.make_optimiser(model)
    at = read_resume(folder, plan, model, optimiser, rule) if (folder / RESUME_FILE).exists() else Progress()
    _gather_loss(fabric, at, first=True)
    if fabric.is_global_zero:
        # what a killed process left half written
        for part in (*folder.glob(".*.part"), *folder.glob("*/.*.part")):
            part.unlink(missing_ok=True)
    record = Record(folder, at.history, tensorboard=training.tensorboard) if fabric.is_global_zero else None
    metric, more_is_better = task.selects
    kind = GraphedSteps if training.cuda_graph else Steps
    steps = kind(fabric, module, model, task, training, rule, optimiser, folder)
    batches = steps.total
    with asked_to_stop() as stop, denormals_flushed(fabric.device):
        while at.epoch < training.epochs and not _out_of_patience(at, training):
            began = time.perf_counter()
            module.train()
            for batch in steps.epoch(at):
                if watch is not None and fabric.is_global_zero:
                    watch(model, batch, at.epoch * batches + at.batch)
                if report is not None and fabric.is_global_zero:
                    report(at, batches, steps.latest)
                halt = _any(fabric, stop.asked)
                late = _any(fabric, deadline is not None and time.monotonic() > deadline)
                due = training.save_every and at.batch % training.save_every == 0 and at.batch < batches
                if halt or late or due:
                    steps.read(at)
                    at.seconds, began = at.seconds + time.perf_counter() - began, time.perf_counter()
                    _gather_loss(fabric, at)
                    if fabric.is_global_zero:
                        write_resume(folder, plan, at, model, optimiser, rule)
                if halt or late:
                    stopped, why = (Interrupted, "stopped") if halt else (OutOfTime, "out of time")
                    raise stopped(f"{why} at epoch {at.epoch + 1}, batch {at.batch}; {folder} can be resumed")
            steps.read(at)
            values = evaluate(module, task, "validation", fabric=fabric)
            at.seconds += time.perf_counter() - began
            _gather_loss(fabric, at)
            line = {"epoch": at.epoch + 1, "train_loss": at.loss_sum / max(at.loss_count, 1)}
            line |= {f"validation_{name}": value for name, value in values.items()}
            line |= {"learning_rate": training.rate(at.epoch, batches - 1, batches), "seconds": at.seconds}
            if not math.isfinite(values["loss"]):
                raise Diverged(steps.divergence(at, values["loss"]))
            # of two epochs that measure the same, the one with the smaller loss
            rank = (values[metric] if more_is_better else -values[metric], -values["loss"])
            better = (
                at.best is None
                or training.select == "last"
                or rank > (at.best if more_is_better else -at.best, -at.best_loss)
            )
            if better:
                at.best, at.best_loss, at.best_epoch = values[metric], values["loss"], at.epoch
            at.epoch, at.batch, at.loss_sum, at.loss_count = at.epoch + 1, 0, 0.0, 0.0
            at.history.append(line)
            if fabric.is_global_zero and record is not None:
                # the resume file comes last: killed before it, the epoch runs again and writes the same models
                if better:
                    save(model, folder / "best", overwrite=True)
                save(model, folder / "last", overwrite=True)
                write_resume(folder, plan, at, model, optimiser, rule)
                record.add(line)
                if report is not None:
                    report(at, batches, line["train_loss"])
    if record is not None:
        record.close()
    fabric.barrier()
    return _fitted(folder, at, fabric.device)


def so_far(folder: Path, device: torch.device) -> Fitted | None:
    """What a stopped run has; None before the end of its first epoch. Errors: DataError if its files are damaged."""
    at = where(folder)
    return _fitted(folder, at, device) if at.history else None


def _fitted(folder: Path, at: Progress, device: torch.device) -> Fitted:
    if not (folder / "best" / WEIGHTS_FILE).exists():
        raise DataError(f"{folder / 'best'} is gone: train again in another folder")
    assert at.best is not None
    return Fitted(load(folder / "best", device=device), at.best_epoch + 1, at.best, at.history, at.seconds)


def evaluate(model: nn.Module, task: Task, part: str, *, fabric: Fabric | None = None) -> dict[str, float]:
    """Means over a part of the task: "loss", and "accuracy" where there are classes. Each process does its share."""
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    parameter = next(model.parameters())
    sums: dict[str, float] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in task.batches(part, EVALUATION_BATCH, rank=rank, world=world):
            placed = batch.to(parameter.device, parameter.dtype)
            # a row that weighs nothing runs too: all processes must call the model equally often
            output, _ = model(placed.x, lengths=placed.lengths, timespans=placed.timespans)
            measured = {name: float(value) for name, value in task.measures(output, placed).items()}
            for name, value in {**measured, "count": float(task.count(placed))}.items():
                sums[name] = sums.get(name, 0.0) + (value if batch.share else 0.0)
    model.train(was_training)
    if fabric and world > 1:
        local = torch.tensor([*sums.values()], dtype=torch.float64, device=fabric.device)
        total = fabric.all_reduce(local, reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        sums = dict(zip(sums, total.tolist(), strict=True))
    count = sums.pop("count")
    return {name: value / count for name, value in sums.items()}


def refuse(model: Model, task: Task, training: Training, world: int, device: torch.device | None = None) -> None:
    """ValueError for a training that this model, this task, this number of processes or this device can't have."""
    if training.input_noise and task.vocabulary is not None:
        raise ValueError(f"input_noise is added to numbers, and {task.name} has tokens: leave input_noise out")
    if training.label_smoothing and (task.per_step or task.target not in ("classes", "binary")):
        raise ValueError(f"label_smoothing needs one class per sequence, which {task.name} has not: leave it out")
    if training.window is not None and not task.per_step:
        raise ValueError(
            f"window={training.window} (truncated BPTT) needs a target at every step, and {task.name} has one per "
            "sequence: leave window out"
        )
    if training.window is not None and any(node.bidirectional for node in model.spec.nodes):
        raise ValueError(
            f"window={training.window} (truncated BPTT) can't be used with bidirectional=True: the backward direction "
            "would start each window from the past; leave one of them out"
        )
    training.make_rule().prepare(model)
    if training.certify and all(node.is_map for node in model.spec.nodes):
        raise ValueError("certify checks what is proven of recurrent networks, and this model is none: leave it out")
    if training.rule != "bptt" and world > 1:
        raise ValueError(f"{ONE_PROCESS}: start one")
    if training.window is not None and world > 1:
        raise ValueError("window (truncated BPTT) runs in one process: leave window out, or use devices=1")
    if training.cuda_graph:
        if world > 1:
            raise ValueError("cuda_graph runs in one process: leave cuda_graph out, or start one")
        reason = graphed.objection(model, task) or (graphed.device_objection(device) if device else None)
        if reason:
            raise ValueError(reason)


def _plan(model: Model, task: Task, training: Training) -> str:
    """A digest of what decides the result, to refuse resuming something else."""
    # a setting that stands at its default is left out: a run goes on after an update that brought a new one
    usual = asdict(Training())
    silent = ("align", "certify", "cuda_graph", "save_every", "tensorboard")
    decides = {k: v for k, v in asdict(training).items() if k not in silent and v != usual[k]}
    facts = {"model": model.spec.to_dict(), "task": task.name, "data": task.digest(), "training": decides}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _any(fabric: Fabric, flag: bool) -> bool:
    return flag if fabric.world_size == 1 else bool(fabric.strategy.reduce_boolean_decision(flag, all=False))


def _gather_loss(fabric: Fabric, at: Progress, *, first: bool = False) -> None:
    """Bring the running loss of all processes to the first one (which alone reads it from a resume file)."""
    if fabric.world_size == 1:
        return
    total = torch.tensor([at.loss_sum, at.loss_count], dtype=torch.float64, device=fabric.device)
    if not first:
        reduced = fabric.all_reduce(total, reduce_op="sum")
        assert isinstance(reduced, torch.Tensor)
        total = reduced
    at.loss_sum, at.loss_count = total.tolist() if fabric.is_global_zero else (0.0, 0.0)


def _out_of_patience(at: Progress, training: Training) -> bool:
    return training.patience is not None and at.epoch - 1 - at.best_epoch >= training.patience and at.epoch > 0
