"""The optimiser steps of an epoch, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pendula.learn.record import Progress
from pendula.learn.rule import Carried, LearningRule, Loss, carry_on
from pendula.learn.smoothing import smoothed
from pendula.learn.training import Diverged, Training
from pendula.nets.model import Model
from pendula.tasks.base import Batch, Task


@dataclass
class Steps:
    """What `pendula.learn.fit.fit` does with the batches of an epoch.

    Args:
        fabric: processes and devices.
        module: what `fabric` made of the model.
        model: whose parameters it is about.
        task, training, rule: as for `fit`.
        optimiser: of the model's parameters, as it was restored.
        folder: of the run, named when it diverges.

    Attributes: `latest` is the last loss that was read, NaN before the first.
    """

    fabric: Fabric
    module: nn.Module
    model: Model
    task: Task
    training: Training
    rule: LearningRule
    optimiser: torch.optim.Optimizer
    folder: Path
    latest: float = field(default=math.nan, init=False)

    def __post_init__(self) -> None:
        share = self.training.label_smoothing
        self.loss: Loss = smoothed(self.task, share) if share else self.task.loss
        self.stepper: Any = self.fabric.setup_optimizers(self.optimiser)
        self.total = self.task.steps("train", self.training.batch_size)

    def epoch(self, at: Progress) -> Iterator[Batch]:
        """Take the steps of what is left of an epoch, moving `at`.

        Gives each batch, as the model saw it, after its step, and until the next one.

        Errors: Diverged when the gradient is not finite.
        """
        fabric, training = self.fabric, self.training
        place = {"start": at.batch, "rank": fabric.global_rank, "world": fabric.world_size}
        for batch in self.task.batches("train", training.batch_size, seed=training.seed, epoch=at.epoch, **place):
            yield self.take(at, batch)

    def take(self, at: Progress, batch: Batch) -> Batch:
        """The steps on one batch: one, or one per window."""
        self.begin(at)
        carried: Carried = None
        batch = self.seen(batch)
        for piece, rows in self.rule.windows(batch):
            loss, norm, carried = self.gradient(piece, carry_on(carried, rows))
            if not norm.isfinite():
                raise Diverged(self.divergence(at, float(loss)))
            self.apply()
            self.count(at, float(loss), self.weight(piece))
        at.batch += 1
        return batch

    def begin(self, at: Progress) -> None:
        """Random numbers and learning rate of the next batch: pure functions of where the run is."""
        torch.manual_seed(_stream(self.training.seed, at.epoch, at.batch, self.fabric.global_rank))
        rate = self.training.rate(at.epoch, at.batch, self.total)
        for group in self.optimiser.param_groups:
            self.set_rate(group, rate * group.get("lr_scale", 1.0))

    def set_rate(self, group: dict[str, Any], rate: float) -> None:
        group["lr"] = rate

    def seen(self, batch: Batch) -> Batch:
        """The batch as the model sees it: on its device, in its type, with noise."""
        batch = batch.to(self.fabric.device, next(self.model.parameters()).dtype)
        if self.training.input_noise:
            batch = replace(batch, x=batch.x + self.training.input_noise * torch.randn_like(batch.x))
        return batch

    def gradient(self, piece: Batch, carried: Carried) -> tuple[Tensor, Tensor, Carried]:
        """Leave the clipped gradient in the parameters: loss, norm before clipping, and the state to carry on."""
        self.stepper.zero_grad()
        loss, carried = self.rule(self.module, piece, self.loss, self.fabric.backward, carried)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm or torch.inf)
        return loss, norm, carried

    def apply(self) -> None:
        """Move the parameters by the gradient that they hold."""
        self.stepper.step()

    def weight(self, piece: Batch) -> int:
        """What a piece weighs in the mean loss of the epoch."""
        return self.task.count(piece) if piece.share else 0

    def count(self, at: Progress, loss: float, weight: int) -> None:
        at.loss_sum, at.loss_count, self.latest = at.loss_sum + loss * weight, at.loss_count + weight, loss

    def read(self, at: Progress) -> None:
        """Bring the losses of all steps taken into `at`; here they are already. Errors: Diverged."""

    def divergence(self, at: Progress, loss: float) -> str:
        """What a run that has diverged says of the batch at hand."""
        norms = ", ".join(f"{name} {float(p.detach().norm()):.3g}" for name, p in self.model.named_parameters())
        kept = "The last good checkpoint is kept." if (self.folder / "last").is_dir() else "No epoch had ended."
        clip = "a lower learning_rate" if self.training.clip_norm else "a lower learning_rate, or clip_norm=1"
        step = at.epoch * self.total + at.batch + 1
        return (
            f"the training diverged: no finite gradient or loss at step {step} (epoch {at.epoch + 1}, "
            f"batch {at.batch + 1}); loss {loss:.4g}; parameter norms: {norms}. Try {clip}; for oscillators also a "
            f"smaller dt. {kept}"
        )


def _stream(*numbers: int) -> int:
    return int(numpy.random.SeedSequence(numbers).generate_state(1, numpy.uint64)[0] >> 1)
