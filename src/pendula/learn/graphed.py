"""Training with the whole step, from drawing the batch to the optimiser, in one CUDA graph."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pendula.cells import Cell
from pendula.learn.graph import Capture, CudaCapture, Graphed, Waits, WithoutWaiting
from pendula.learn.record import Progress
from pendula.learn.rule import BPTT
from pendula.learn.step import Steps
from pendula.learn.training import Diverged
from pendula.nets.model import Model
from pendula.tasks.base import Batch, StoredTask, Task

READ_EVERY = 50
"""Steps between two readings of the loss: the processor waits for the GPU in them."""
SHARE = 0.5
"""Of the free memory of a GPU that the data may take."""


@dataclass(frozen=True)
class Resident:
    """Sequences of one length on a device: x (T, N, I) or tokens (T, N), y (N, ...), or (T, N, ...) per step."""

    x: Tensor
    y: Tensor
    per_step: bool

    def draw(self, index: Tensor) -> Batch:
        """The sequences with these numbers (B,), which lie on the device."""
        return Batch(self.x.index_select(1, index), self.y.index_select(1 if self.per_step else 0, index))


@dataclass
class GraphedSteps(Steps):
    """Steps that are captured once for each shape of a batch, and replayed.

    Inputs, learning rate and random numbers of a replay are its own. A batch with lengths or time spans, and the first
    few of a shape, are taken without the graph, with the same numbers. What a step has lost is read every READ_EVERY
    steps, so a run that diverges is stopped up to so many steps late.

    The device, the model and the task are ones that `device_objection` and `objection` have nothing against.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        device = self.fabric.device
        capture = capture_on(device)
        self.graphed = Graphed(self.whole_step, capture)
        self.resident = resident(self.task, device, next(self.model.parameters()).dtype, capture)
        self.unread: list[tuple[int, Tensor, int]] = []
        for group in self.optimiser.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)

    def epoch(self, at: Progress) -> Iterator[Batch]:
        if self.resident is None:
            yield from super().epoch(at)
            return
        size = self.training.batch_size
        order = self.task.order("train", self.training.seed, at.epoch).to(self.fabric.device)
        for number in range(at.batch, self.total):
            self.begin(at)
            yield self.replay(at, order[number * size : (number + 1) * size])

    def take(self, at: Progress, batch: Batch) -> Batch:
        if batch.lengths is not None or batch.timespans is not None:
            self.read(at)
            return super().take(at, batch)
        self.begin(at)
        batch = batch.to(self.fabric.device, next(self.model.parameters()).dtype)
        return self.replay(at, batch.x, batch.y)

    def set_rate(self, group: dict[str, Any], rate: float) -> None:
        group["lr"].fill_(rate)

    def apply(self) -> None:
        with warnings.catch_warnings():
            # the first steps of each shape are outside of a graph
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            super().apply()

    def replay(self, at: Progress, *given: Tensor) -> Batch:
        batch, numbers, weight = self.graphed(*given)
        # the next replay writes over them
        self.unread.append((at.batch, numbers.clone(), weight))
        if len(self.unread) == READ_EVERY or math.isnan(self.latest):
            self.read(at)
        at.batch += 1
        return batch

    def whole_step(self, *given: Tensor) -> tuple[Batch, Tensor, int]:
        """What is captured: the batch as the model saw it, its loss and the norm of its gradient, and its weight.

        `given` are x and y, or the numbers of resident sequences.
        """
        batch = self.seen(Batch(given[0], given[1]) if self.resident is None else self.resident.draw(given[0]))
        loss, norm, _ = self.gradient(batch, None)
        self.apply()
        return batch, torch.stack((loss, norm.to(loss.dtype))), self.weight(batch)

    def read(self, at: Progress) -> None:
        if not self.unread:
            return
        numbers = torch.stack([numbers for _, numbers, _ in self.unread]).tolist()
        for (batch, _, weight), (loss, norm) in zip(self.unread, numbers, strict=True):
            if not math.isfinite(norm):
                raise Diverged(self.divergence(replace(at, batch=batch), loss))
            self.count(at, loss, weight)
        self.unread.clear()


def capture_on(device: torch.device) -> Capture:
    """How work is captured on a device that `device_objection` has nothing against."""
    return CudaCapture(device)


def device_objection(device: torch.device) -> str | None:
    """Why nothing can be captured there; None where it can."""
    if device.type == "cuda":
        return None
    return f"cuda_graph needs an NVIDIA GPU, and this training runs on {device.type}: leave cuda_graph out"


def objection(model: Model, task: Task) -> str | None:
    """Why the steps of this model on this task can't be captured; None as far as can be known without a GPU."""
    if any(cell.manifold() for cell in model.modules() if isinstance(cell, Cell)):
        return (
            "cuda_graph can't capture the geodesic steps of orthogonal and unitary parameters, which this model has: "
            "leave cuda_graph out"
        )
    if task.irregular:
        return f"cuda_graph can't capture the check of the time spans that {task.name} has: leave cuda_graph out"
    if isinstance(task, StoredTask):
        lengths = task.part("train").lengths
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest != longest:
            return (
                f"cuda_graph replays steps of one shape, and the training sequences of {task.name} have from "
                f"{shortest} to {longest} steps: leave cuda_graph out"
            )
    if _waits(model, task):
        return (
            f"cuda_graph can't capture the steps of this model on {task.name}, in which the processor waits for a "
            "number from the GPU: leave cuda_graph out"
        )
    return None


def _waits(model: Model, task: Task) -> bool:
    """Whether a step would wait for a GPU: tried on two sequences, on a copy of the model, where it is."""
    batch, like = task.rows("train", torch.arange(min(2, task.size("train"))), 0, 0), next(model.parameters())
    if batch.lengths is not None or batch.timespans is not None:
        return False
    refusing = WithoutWaiting()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), refusing:
            batch = batch.to(like.device, like.dtype)
            BPTT()(copy.deepcopy(model).train(), batch, task.loss, Tensor.backward)
    except Waits:
        return True
    return False


def resident(task: Task, device: torch.device, dtype: torch.dtype, capture: Capture) -> Resident | None:
    """The training part on the device, in the type of the model; None where each batch must be sent.

    That is where its rows are more than stored sequences (noise is drawn, say), or where they don't fit.
    """
    if not isinstance(task, StoredTask) or type(task).rows is not StoredTask.rows:
        return None
    part = task.part("train")
    count, begin, end = len(part), int(part.offsets[0]), int(part.offsets[-1])
    steps = (end - begin) // count

    def beside(flat: Tensor) -> Tensor:
        return flat[begin:end].reshape(count, steps, *flat.shape[1:]).transpose(0, 1).contiguous()

    # token ids are wide where a model reads them
    x = part.flat.to(dtype if part.flat.is_floating_point() else torch.int64)
    y = part.y.to(dtype) if part.y.is_floating_point() else part.y
    if x.nbytes + y.nbytes > SHARE * capture.free_memory():
        return None
    return Resident(beside(x).to(device), (beside(y) if task.per_step else y).to(device), task.per_step)
