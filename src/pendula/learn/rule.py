"""Learning rules: callables that leave a gradient in every parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pendula._check import positive_int
from pendula.cells import Cell
from pendula.nets import Recurrent
from pendula.tasks.base import Batch

Loss = Callable[[Tensor, Batch], Tensor]
Backward = Callable[..., Any]
Carried = dict[str, Any] | None


class LearningRule(Protocol):
    """What `fit` asks of a rule.

    `prepare` refuses a model that the rule can't train, with a ValueError. `windows` cuts a batch into the pieces that
    get an optimiser step each; calling the rule on a piece runs the model from a carried state, leaves a gradient in
    every parameter through `backward` (called as `Tensor.backward` is), and returns the loss (a detached mean over the
    piece's targets) and the state to carry on, detached. `tensors` are the rule's own, which a checkpoint keeps and
    `restore` puts back.
    """

    def prepare(self, model: nn.Module) -> None: ...

    def windows(self, batch: Batch) -> Iterator[tuple[Batch, Tensor | None]]: ...

    def __call__(
        self, model: nn.Module, batch: Batch, loss: Loss, backward: Backward, state: Carried = None
    ) -> tuple[Tensor, Carried]: ...

    def tensors(self) -> dict[str, Tensor]: ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class BPTT:
    """Backpropagation through time, whole or truncated.

    Args:
        window: steps that the gradient runs through. None: the whole sequence, one optimiser step per batch. A number:
            each window of that many steps gets an optimiser step, and starts from the state (without its history) that
            the window before it ended in. That needs a target at every step.
        recompute_every: set in the recurrent layers of the model, where it saves memory: see `pendula.nets.Recurrent`.

    >>> batch = Batch(torch.zeros(10, 2, 3), torch.zeros(10, 2, 1))
    >>> [piece.x.shape[0] for piece, _ in BPTT(window=4).windows(batch)]
    [4, 4, 2]
    """

    window: int | None = None
    recompute_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("window", "recompute_every"):
            if getattr(self, name) is not None:
                positive_int(name, getattr(self, name))

    def prepare(self, model: nn.Module) -> None:
        """Any model that autograd can run through. Errors: ValueError for `recompute_every` as of `Recurrent`."""
        for layer in model.modules():
            if isinstance(layer, Recurrent):
                layer.recompute_every = self.recompute_every

    def windows(self, batch: Batch) -> Iterator[tuple[Batch, Tensor | None]]:
        """Pieces, each with the rows of the piece before that go on (None: all)."""
        steps, sequences = batch.x.shape[:2]
        if self.window is None or self.window >= steps:
            yield batch, None
            return
        alive = torch.arange(sequences, device=batch.x.device)
        for start in range(0, steps, self.window):
            end = min(start + self.window, steps)
            rows = None
            lengths = None
            if batch.lengths is not None:
                left = batch.lengths[alive] - start
                rows = (left > 0).nonzero().squeeze(1)
                alive = alive[rows]
                lengths = left[rows].clamp(max=end - start)
            spans = None if batch.timespans is None else batch.timespans[start:end, alive]
            yield Batch(batch.x[start:end, alive], batch.y[start:end, alive], lengths, spans, batch.share), rows

    def __call__(
        self, model: nn.Module, batch: Batch, loss: Loss, backward: Backward, state: Carried = None
    ) -> tuple[Tensor, Carried]:
        output, final = model(batch.x, state, lengths=batch.lengths, timespans=batch.timespans)
        value = loss(output, batch)
        penalty = penalties(model)
        share = value * batch.share
        backward(share if penalty is None else share + penalty)
        return value.detach(), {name: type(s)(*(t.detach() for t in s)) for name, s in final.items()}

    def tensors(self) -> dict[str, Tensor]:
        """None: there is nothing to keep."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""


def penalties(model: nn.Module) -> Tensor | None:
    """The sum of what the cells of a model add to the loss (`Cell.penalty`); None when none adds anything.

    It is differentiated and not reported: the loss stays the task's. Every process adds the whole of it.
    """
    found = [p for module in model.modules() if isinstance(module, Cell) if (p := module.penalty()) is not None]
    return torch.stack(found).sum() if found else None


def carry_on(state: Carried, rows: Tensor | None) -> Carried:
    """The carried state of the sequences that go on."""
    if state is None or rows is None:
        return state
    return {name: type(s)(*(t.index_select(1, rows) for t in s)) for name, s in state.items()}
