"""How a model is trained, as plain data (optimiser and schedule by name), and how a training can end early."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from pendula._check import finite_number, known_keys, one_of, positive_int, probability
from pendula.learn.dfa import DFA, ReadoutOnly
from pendula.learn.geodesic import OPTIMISERS, make_optimiser
from pendula.learn.rule import BPTT, LearningRule

SCHEDULES = ("constant", "cosine", "drop")
RULES = ("bptt", "dfa", "readout")
CAPTURABLE: dict[str, dict[str, bool]] = {
    "adam": {"fused": True, "capturable": True},
    "adamw": {"fused": True, "capturable": True},
    "rmsprop": {"foreach": True, "capturable": True},
    "sgd": {"fused": True},
}
"""Options with which an optimiser can be captured in a CUDA graph, its learning rate a tensor on the GPU."""
ONE_PROCESS = "a learning rule other than bptt runs in one process"


class Diverged(RuntimeError):
    """The gradient is not finite any more; the message has the step, the norms and a suggestion."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has saved where it was."""


class OutOfTime(Interrupted):
    """The run has reached its deadline, and has saved where it was."""


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Args:
        epochs: passes over the training part.
        batch_size: sequences per optimiser step, over all processes together.
        learning_rate: step size of the optimiser at its highest.
        optimiser: adam, adamw, rmsprop or sgd, with PyTorch's defaults.
        bases_rate: learning rate of orthogonal and unitary parameters, as a share of learning_rate; they take
            geodesic steps, and no weight decay, whichever the optimiser.
        weight_decay: as the optimiser defines it.
        momentum: of sgd.
        schedule: constant; cosine (falls to zero); or drop (times drop_factor after each epoch in drop_after).
        drop_after: epochs that are followed by a drop.
        drop_factor: what a drop multiplies the learning rate with.
        warmup_steps: optimiser steps over which the learning rate rises linearly from zero.
        clip_norm: largest norm of the whole gradient; larger ones are scaled down to it.
        input_noise: standard deviation of the Gaussian noise added to the inputs (in their units) while training.
        label_smoothing: share of each target that is spread over all classes, in [0, 1); for tasks with one class per
            sequence.
        rule: bptt, backpropagation through time; readout, which trains the read-out alone; or dfa, direct feedback
            alignment, whose options follow a point (--train.rule dfa --train.rule.sparsity 0.9; in a file a table with
            name = "dfa"): plan, boundary, source, time, discount, window, kind, sparsity, pattern, scale, seed, groups,
            as in `pendula.learn.dfa.DFA`.
        window: steps that the gradient runs through (truncated bptt); the whole sequence when null.
        recompute_every: steps between the states that bptt keeps; what lies in between is computed again by the
            backward pass, which saves memory (most near the square root of the number of steps) for one more forward
            pass. All that it needs is kept when null.
        select: which weights are kept and tested: best by the validation metric, or those of the last epoch.
        patience: stop after this many epochs without a better validation metric; never when null.
        align: optimiser batches between two measurements of the angle between the rule's update and that of
            backpropagation, layer by layer, which stand in the result; never when null.
        certify: optimiser batches between two checks of the proven bounds (`pendula.diagnose`), on four sequences of a
            batch; what was broken stands in the result; never when null.
        save_every: optimiser batches between two resume files inside an epoch; only at its end when null.
        seed: draws the starting weights, the order of the data, the dropout and the noise.
        accelerator: cpu, cuda, mps or auto (Lightning Fabric).
        devices: processes to start here (torchrun and fabric run set their own number).
        precision: 32-true, 64-true or bf16-mixed (products in bfloat16, states in float32).
        cuda_graph: on an NVIDIA GPU: the data lie on it, if they fit, and the whole step (drawing the batch, noise,
            forward, backward, optimiser) is captured once and replayed; for tasks whose sequences have one length.
            The numbers are the same to rounding; the learning rate is in float32.
        tensorboard: also write TensorBoard files (needs the tensorboard package).
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-2
    optimiser: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    bases_rate: float = 0.1
    weight_decay: float = 0.0
    momentum: float = 0.0
    schedule: Literal["constant", "cosine", "drop"] = "constant"
    drop_after: tuple[int, ...] = ()
    drop_factor: float = 0.1
    warmup_steps: int = 0
    clip_norm: float | None = None
    input_noise: float = 0.0
    label_smoothing: float = 0.0
    rule: str | dict[str, Any] = "bptt"
    window: int | None = None
    recompute_every: int | None = None
    select: Literal["best", "last"] = "best"
    patience: int | None = None
    align: int | None = None
    certify: int | None = None
    save_every: int | None = None
    seed: int = 0
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true"
    cuda_graph: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "devices"):
            positive_int(name, getattr(self, name))
        for name in ("window", "recompute_every", "patience", "align", "certify", "save_every"):
            if getattr(self, name) is not None:
                positive_int(name, getattr(self, name))
        positive_int("warmup_steps", self.warmup_steps, least=0)
        positive_int("seed", self.seed, least=0)
        one_of("optimiser", self.optimiser, OPTIMISERS)
        one_of("select", self.select, ("best", "last"))
        if self.select == "last" and self.patience is not None:
            raise ValueError(
                'select="last" keeps the weights of the last epoch, and patience waits for better ones: drop one'
            )
        one_of("schedule", self.schedule, SCHEDULES)
        object.__setattr__(self, "rule", _written_out(self.rule))
        if self.align is not None and self.rule == "bptt":
            raise ValueError("align compares a learning rule with bptt, and the rule is bptt: leave align out")
        if self.rule != "bptt":
            if self.devices > 1:
                raise ValueError(f"{ONE_PROCESS}: use devices=1")
            if self.precision == "bf16-mixed":
                raise ValueError("a learning rule other than bptt has no bf16-mixed: use precision 32-true or 64-true")
            if self.window is not None:
                raise ValueError("window is that of truncated bptt: leave it out, and see window of the rule")
            if self.recompute_every is not None:
                raise ValueError("recompute_every is that of bptt, and the rule is another: leave it out")
        if self.cuda_graph:
            self._check_graph()
        one_of("accelerator", self.accelerator, ("auto", "cpu", "cuda", "mps"))
        one_of("precision", self.precision, ("32-true", "64-true", "bf16-mixed"))
        here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not here.get(self.accelerator, True):
            raise ValueError(f"accelerator={self.accelerator!r} is not usable by this torch: use cpu or auto")
        for name in ("learning_rate", "bases_rate", "drop_factor", "clip_norm"):
            value = getattr(self, name)
            if value is not None and finite_number(name, value) <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("weight_decay", "momentum", "input_noise"):
            if finite_number(name, getattr(self, name)) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        probability("label_smoothing", self.label_smoothing)
        object.__setattr__(self, "drop_after", tuple(self.drop_after))

    def _check_graph(self) -> None:
        if self.accelerator in ("cpu", "mps"):
            raise ValueError(
                f"cuda_graph needs an NVIDIA GPU, and accelerator={self.accelerator!r}: leave one of them out"
            )
        if self.rule != "bptt":
            raise ValueError("cuda_graph captures bptt, and the rule is another: leave cuda_graph out")
        for name in ("window", "recompute_every"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"cuda_graph captures a step on whole sequences at once, without {name}: leave one out"
                )
        if self.devices > 1:
            raise ValueError("cuda_graph runs in one process: use devices=1")

    def make_rule(self) -> LearningRule:
        """A new one, which has drawn nothing yet."""
        if isinstance(self.rule, str):
            return BPTT(self.window, self.recompute_every) if self.rule == "bptt" else ReadoutOnly()
        return DFA(**{name: value for name, value in self.rule.items() if name != "name"})

    def make_optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        options: dict[str, Any] = {"weight_decay": self.weight_decay}
        if self.optimiser == "sgd":
            options["momentum"] = self.momentum
        if self.cuda_graph:
            options |= CAPTURABLE[self.optimiser]
        return make_optimiser(model, self.optimiser, lr=self.learning_rate, bases_lr_scale=self.bases_rate, **options)

    def rate(self, epoch: int, batch: int, batches: int) -> float:
        """The learning rate of a batch: a pure function of where the run is, so there is nothing to restore.

        >>> Training(schedule="drop", drop_after=(1,), learning_rate=1.0).rate(epoch=1, batch=0, batches=10)
        0.1
        """
        step = epoch * batches + batch
        factor = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * step / (self.epochs * batches)))
        elif self.schedule == "drop":
            factor *= self.drop_factor ** sum(epoch >= after for after in self.drop_after)
        return self.learning_rate * factor


def _written_out(rule: Any) -> str | dict[str, Any]:
    """ "bptt", or a rule's name and all its options: a file must mean the same when a default changes."""
    given = dict(rule) if isinstance(rule, Mapping) else {"name": rule}
    if "name" not in given:
        raise ValueError(f"rule needs a name beside {', '.join(given)}: name = one of {', '.join(RULES)}")
    name: str = one_of("rule", given.pop("name"), RULES)
    if name != "dfa":
        known_keys(f"rule {name}", given, [])
        return name
    known_keys("rule dfa", given, DFA.options())
    made = DFA(**given)
    options = {name: getattr(made, name) for name in DFA.options()}
    # lists, as JSON has them
    options["plan"] = made.plan if isinstance(made.plan, str) else [list(part) for part in made.plan]
    return {"name": "dfa", **options}
