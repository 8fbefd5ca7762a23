"""Networks of a search: drawn from a point, as an experiment to train, and what they cost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pendula._check import StabilityWarning
from pendula.choices import ModelChoice, TaskChoice
from pendula.experiment import Experiment
from pendula.learn.fit import refuse
from pendula.learn.training import Training
from pendula.nas.space import COSTS, GeneratorSpace
from pendula.nets import Model, ModelSpec, load
from pendula.search import images, modules
from pendula.search.budget import Drawn
from pendula.search.nago import Generator
from pendula.search.recurrent import RecurrentGenerator, Sequences
from pendula.search.variables import generator
from pendula.tasks import TASKS
from pendula.tasks.base import Task

TIMED, PASSES = 32, 5
"""Sequences of a pass whose time is measured, and how many passes there are."""
KEPT = 8
"""Sequences of the pass whose memory is measured."""


def build_task(space: GeneratorSpace) -> Task:
    """The task of a space. Errors: ValueError for unknown names, DataError for missing files."""
    return task_choice(space).build()


def task_choice(space: GeneratorSpace) -> TaskChoice:
    """The table of the task, with a path that is found from everywhere."""
    choice = Experiment.from_dict({"task": space.task}).task
    if "path" in choice.options:
        choice.options["path"] = str(Path(str(choice.options["path"])).expanduser().resolve())
    return choice


def objectives(space: GeneratorSpace, task: Task) -> tuple[str, ...]:
    """What a network is compared by. Errors: ValueError when the first is not the metric of the task."""
    metric = task.selects[0]
    found = space.objectives or (metric, *(COSTS[:1] if space.optimiser == "mobo" else ()))
    if found[0] != metric or not set(found[1:]) <= set(COSTS):
        raise ValueError(
            f"search.objectives must be {metric}, which {task.name} is compared by, and then some of "
            f"{', '.join(COSTS)}; got {', '.join(found)}"
        )
    return found


def draw(space: GeneratorSpace, point: Mapping[str, Any], seed: int, task: Task) -> Drawn:
    """The network of a point and a seed: a function of these, the space and the sizes of the task.

    Errors: ValueError when the limit is too small for it, or numbers don't go with one another or the task.
    """
    made = generator(space.kind, space.values(point))
    if isinstance(made, Generator):
        if task.image is None:
            known = ", ".join(name for name, kind in TASKS.items() if kind.image)
            raise ValueError(f"networks of images read images, and {task.name} has none: take {known}")
        size: dict[str, Any] = {"image": task.image, "channels": task.input_size, "classes": task.output_size}
        return images.draw(made, seed, images.Images(**size, limit=space.limit, **space.around))
    return _recurrent(space, made, seed, task)


def _recurrent(space: GeneratorSpace, made: RecurrentGenerator, seed: int, task: Task) -> Drawn:
    around: dict[str, Any] = {"pool": "steps" if task.per_step else "last", **space.around}
    tokens = task.vocabulary is not None
    sequences = Sequences(
        ModelChoice.embedding_size if tokens else task.input_size,
        task.output_size,
        space.limit,
        standardise=task.standardise,
        labels=task.labels,
        **around,
    )

    def build(spec: ModelSpec) -> Model:
        # the table of tokens counts too
        return Model(replace(spec, vocabulary=task.vocabulary) if tokens else spec, device="meta")

    with warnings.catch_warnings():
        # said when the network is trained
        warnings.simplefilter("ignore", StabilityWarning)
        return modules.draw(made, seed, sequences, build)


def experiment(space: GeneratorSpace, drawn: Drawn, seed: int) -> Experiment:
    """What trains a network that was drawn with a seed."""
    model = ModelChoice(nodes=drawn.spec.to_dict()["nodes"], pool=drawn.spec.pool)
    return Experiment(task_choice(space), model, Training(**{**space.train, "seed": seed}))


def probe(space: GeneratorSpace, task: Task) -> None:
    """Refuse what no network of the space could be trained with, before any work.

    Errors: ValueError, as those of `draw`, of the model and of the training.
    """
    objectives(space, task)
    made = experiment(space, draw(space, space.lowest(), 0, task), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        refuse(Model(made.model.spec(task)), task, made.train, 1)


def costs(names: Sequence[str], drawn: Drawn, folder: Path, task: Task) -> list[float]:
    """What a network costs, whose trained model is in a folder: its parameters, `latency`, `memory`."""
    found = {"parameters": float(drawn.parameters)}
    for name, measure in (("latency", latency), ("memory", memory)):
        if name in names:
            found[name] = measure(load(folder), task)
    return [found[name] for name in names]


def latency(model: Model, task: Task) -> float:
    """Milliseconds per sequence of the validation part, where the model is: the median of some passes after a first.

    It is that of this machine, under its load of the moment.
    """
    parameter, taken = next(model.parameters()), list[float]()
    count = min(TIMED, task.size("validation"))
    batch = task.rows("validation", torch.arange(count), 0, 0).to(parameter.device, parameter.dtype)
    model.eval()
    with torch.no_grad():
        for _ in range(1 + PASSES):
            began = time.perf_counter()
            output, _ = model(batch.x, lengths=batch.lengths, timespans=batch.timespans)
            # waits for a device that computes on its own
            float(output.sum())
            taken.append(time.perf_counter() - began)
    return 1000 * median(taken[1:]) / count


def memory(model: Model, task: Task) -> float:
    """Bytes per sequence that autograd keeps for the backward pass; weights and inputs are not counted.

    Counted from the tensors that are saved (spec sheet ``nago.md`` 4.3), so the same on every machine with the same
    scans; what a scan allocates for a while is not in it.
    """
    index = torch.arange(min(KEPT, task.size("train")))
    # the same sequences once and twice: what doesn't grow with them, such as a copy of a weight, is left out
    once, twice = (_saved(model, task, index.repeat(times)) for times in (1, 2))
    return (twice - once) / len(index)


def _saved(model: Model, task: Task, index: Tensor) -> int:
    """Bytes that are saved for the backward pass of some sequences."""
    parameter = next(model.parameters())
    batch = task.rows("train", index, 0, 0).to(parameter.device, parameter.dtype)
    stays = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), batch.x)}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in stays:
            # held, so that no other one takes its address
            kept[storage.data_ptr()] = storage
        return saved

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved), torch.random.fork_rng():
        output, _ = model(batch.x, lengths=batch.lengths, timespans=batch.timespans)
        task.loss(output, batch)
    model.eval()
    return sum(storage.nbytes() for storage in kept.values())
