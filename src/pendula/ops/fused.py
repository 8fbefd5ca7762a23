"""What a fused scan is: a result that the reference scan also has, reached faster, or a reason why not."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class FusedScan(Protocol):
    """A whole scan in one call.

    ``x`` is the input (T, B, I), ``state`` the tensors of the cell's state, each (B, N), ``operands`` what the cell's
    ``operands()`` gives (tensors, and plain values such as the name of a variant), ``lengths`` (B,) or None, ``tau``
    (T, B) or None. The outputs (T, B, O) past a sequence's length are zero, and its final state is the one at its last
    valid step.
    """

    @property
    def name(self) -> str: ...

    def objection(
        self, x: Tensor, operands: tuple[Any, ...], *, lengths: Tensor | None, tau: Tensor | None
    ) -> str | None:
        """Why this scan can't run on these arguments, as a sentence; None when it can."""
        ...

    def __call__(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        operands: tuple[Any, ...],
        *,
        lengths: Tensor | None,
        tau: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]: ...


class Stepper(Protocol):
    """One step after another without a tensor being made: ``state`` and ``output`` are written in place.

    The weights are those of the moment the stepper was made. ``x`` (B, I) is read from, ``output`` (B, O) written to.
    """

    x: Tensor
    output: Tensor
    state: tuple[Tensor, ...]

    def __call__(self) -> None: ...
