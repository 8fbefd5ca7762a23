"""The state that a caller gives a layer: is it one, and does it fit?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pendula._check import ShapeError


def fields_of(hx: Any, needed: type[Any], network: str) -> tuple[Tensor, ...]:
    """The tensors of a state. Errors: ShapeError when it is not as the network returns it."""
    fits = isinstance(hx, tuple) and len(hx) == len(needed._fields) and all(isinstance(s, Tensor) for s in hx)
    # another network's NamedTuple may have as many fields and still mean something else
    if not fits or (hasattr(hx, "_fields") and hx._fields != needed._fields):
        got = f"{type(hx).__name__}" + (f" of {len(hx)}" if isinstance(hx, (tuple, list)) else "")
        raise ShapeError(
            f"hx must be a tuple of {len(needed._fields)} tensors ({', '.join(needed._fields)}) as "
            f"{network} returns it, got {got}"
        )
    return tuple(hx)


def check_state(hx: Sequence[Tensor], alike: Any, count: int) -> None:
    """Check shapes, types and places of a layer's state.

    Args:
        hx: its tensors, each (layers x directions, B, units).
        alike: a state of one cell, each tensor (B, units).
        count: layers x directions.

    Errors: ShapeError, and TypeError for another type or device.
    """
    for name, given, needed in zip(alike._fields, hx, alike, strict=True):
        shape = (count, *needed.shape)
        if given.shape != shape:
            raise ShapeError(
                f"hx.{name} must be (layers x directions, batch, units) = {shape}, got {tuple(given.shape)}"
            )
        if given.dtype != needed.dtype or given.device != needed.device:
            raise TypeError(
                f"hx.{name} must be {needed.dtype} on {needed.device}, got {given.dtype} on {given.device}: "
                "convert it with .to()"
            )


def batch_of_one(state: Tensor) -> Tensor:
    """(layers x directions, 1, units) of a state without a batch. Errors: ShapeError when it has one."""
    if state.dim() != 2:
        raise ShapeError(f"hx of an unbatched input must be (layers x directions, units), got {tuple(state.shape)}")
    return state.unsqueeze(1)
