"""Cells whose step can be undone, so that the backward pass need not keep every state."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from pendula._check import StabilityWarning
from pendula.cells.base import Cell

MEMORIES = ("store", "checkpoint", "reverse", "tape")


class Pulled(NamedTuple):
    """Gradients of the state before a step, its drive, its tau (None without one) and parameters by name."""

    state: tuple[Tensor, ...]
    drive: Tensor
    tau: Tensor | None
    parameters: dict[str, Tensor]


class ReversibleCell(Cell):
    """A cell whose step can be undone, so that the backward pass need not keep every state.

    `memory` says what is kept: "store" (the outputs), "checkpoint" (the state at every `checkpoint_every`-th step),
    "reverse" (the final state) or "tape" (everything, by PyTorch's autograd; can be differentiated twice).
    """

    memory: str
    checkpoint_every: int

    @abstractmethod
    def unstep(
        self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None, output: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The state before a step, from the one after it. What `output`, kept from then, shows is not rebuilt."""

    def pullback(
        self,
        before: tuple[Tensor, ...],
        after: tuple[Tensor, ...],
        drive: Tensor,
        by_output: Tensor,
        by_state: tuple[Tensor, ...],
        *,
        tau: Tensor | None = None,
    ) -> Pulled:
        """Gradients of what one step takes from those of what it gives; a cell may know its own by hand."""
        with torch.enable_grad():
            old = [s.detach().requires_grad_() for s in before]
            drive = drive.detach().requires_grad_()
            span = None if tau is None else tau.detach().requires_grad_()
            new = self.step(tuple(old), drive, tau=span)
            named = {**dict(self.named_parameters()), **dict(self.named_buffers())}
            learned = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
            wanted = [*old, drive, *([] if span is None else [span]), *learned.values()]
            results = (self.output(new, drive), *new)
            found = torch.autograd.grad(results, wanted, (by_output, *by_state), allow_unused=True)
        full = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
        fields, first = len(old), len(wanted) - len(learned)
        parameters = dict(zip(learned, full[first:], strict=True))
        return Pulled(tuple(full[:fields]), full[fields], None if span is None else full[fields + 1], parameters)

    def memory_of_now(self) -> str:
        """What is kept for the next pass: `memory`, or checkpoints (with a warning) where it can't be reversed."""
        if self.memory != "reverse" or not torch.is_grad_enabled():
            return self.memory
        objection = self.reversal_objection()
        if objection is None:
            return self.memory
        words = f"{objection}: memory='checkpoint' is used instead of 'reverse' for this pass"
        warnings.warn(words, StabilityWarning, stacklevel=5)
        return "checkpoint"

    def reversal_objection(self) -> str | None:
        """Why undoing many steps would lose the state with the weights of now, as a sentence; None where it doesn't."""
        return None
