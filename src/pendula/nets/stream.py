"""A layer that is fed one time step after another, with buffers made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pendula import _check
from pendula.cells import State

if TYPE_CHECKING:
    from pendula.nets.recurrent import Recurrent


class Stream:
    """A layer over an endless sequence, without gradients: each call takes one time step.

    Where all cells have a compiled scan that can step (coRNN), a call makes no tensor and bypasses PyTorch's
    dispatcher; elsewhere it is `Recurrent.step`. The weights are those of the moment the stream was opened. Made by
    `Recurrent.stream`.

    >>> import pendula
    >>> layer = pendula.CoRNN(3, 8).eval()
    >>> stream = layer.stream(batch=2)
    >>> stream(torch.zeros(2, 3)).shape
    torch.Size([2, 8])
    """

    def __init__(self, layer: Recurrent, batch: int = 1, state: State | None = None) -> None:
        self._layer, self._batch = layer, _check.positive_int("batch", batch)
        with torch.no_grad():
            # one step on a spare input checks everything that a stream and a state must be
            like = next(layer.parameters())
            probe = like.new_zeros(batch, layer.input_size)
            first = layer.start(batch) if state is None else state
            layer.step(probe, first)
            cells = [layer.cell(i) for i in range(layer.num_layers)]
            makers = [getattr(cell.fused, "stepper", None) for cell in cells]
            compiled = all(makers) and layer.backend != "reference" and not layer.residual
            for cell in cells if compiled else ():
                assert cell.fused is not None
                reason = cell.fused.objection(probe, cell.operands(), lengths=None, tau=None)
                compiled = compiled and reason is None
            self._state: State = type(first)(*(s.detach().clone() for s in first))
            self._steppers = []
            for i, (make, cell) in enumerate(zip(makers, cells, strict=True) if compiled else ()):
                assert make is not None
                self._steppers.append(make(tuple(s[i] for s in first), cell.operands()))

    @property
    def compiled(self) -> bool:
        return bool(self._steppers)

    @property
    def state(self) -> State:
        """The state after the last step, as the layer returns it."""
        if not self._steppers:
            return self._state
        fields = zip(*(stepper.state for stepper in self._steppers), strict=True)
        state: State = self._layer.cell_type.State(*(torch.stack(field) for field in fields))
        return state

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The output (B, O) after one more time step x (B, I). The next call overwrites it: clone what you keep."""
        if not self._steppers:
            output, self._state = self._layer.step(x, self._state)
            return output
        for stepper in self._steppers:
            if x.shape != stepper.x.shape:
                size = tuple(stepper.x.shape)
                raise _check.ShapeError(f"x must be one time step, (batch, features) = {size}, got {tuple(x.shape)}")
            stepper.x.copy_(x)
            stepper()
            x = stepper.output
        return x
