"""What scikit-learn calls X, as sequences that are stored flat: arrays of equal and lists of unequal lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array
from torch import Tensor

from pendula._check import ShapeError
from pendula.tasks.chance import generator_for

Flat = tuple[NDArray[numpy.float64], NDArray[numpy.int64]]
"""(S, C) samples of all sequences one after the other, and (N + 1,) where each begins and the last one ends."""


def is_list(X: Any) -> bool:
    """Whether X is one object per sequence: a list, a tuple, or a one-dimensional array of objects.

    Lists of plain numbers that are all of one length are rows, as everywhere in scikit-learn.

    >>> is_list([[1.0, 2.0], [3.0]]), is_list([numpy.ones(2), numpy.ones(2)]), is_list([[1.0, 2.0], [3.0, 4.0]])
    (True, True, False)
    """
    if not isinstance(X, (list, tuple)):
        return getattr(X, "ndim", 0) == 1 and numpy.asarray(X).dtype.kind == "O"
    plain = all(isinstance(row, (list, tuple)) and not any(numpy.ndim(value) for value in row) for row in X)
    return not plain or len({len(row) for row in X}) != 1


def from_list(X: Sequence[Any], *, channels_first: bool) -> Flat:
    """Arrays or data frames (T_i, C), or (C, T_i) with channels_first; (T_i,) for one channel.

    Errors: ValueError for a sequence that is empty or not finite, ShapeError for another rank or number of channels.
    """
    if len(X) == 0:
        raise ValueError("X has no sequences: 0 sample(s), at least 1 is needed")
    parts: list[NDArray[numpy.float64]] = []
    for i, item in enumerate(X):
        if numpy.ndim(item) not in (1, 2):
            raise ShapeError(
                f"X[{i}] must be a sequence, an array of shape (time, channels) or (time,), got shape "
                f"{numpy.shape(item)}: reshape one sequence to [sequence], plain numbers to an array of rows"
            )
        part = check_array(item, dtype=numpy.float64, ensure_2d=False, ensure_min_samples=0, input_name=f"X[{i}]")
        if part.ndim == 1:
            part = part[:, None]
        elif channels_first:
            part = part.T
        if 0 in part.shape:
            raise ValueError(f"X[{i}] is empty: a sequence needs a time step and a channel; leave it out")
        if parts and part.shape[1] != parts[0].shape[1]:
            raise ShapeError(
                f"X[{i}] has {part.shape[1]} channels, X[0] has {parts[0].shape[1]}: all need the same ones, "
                f"as {'(channels, time)' if channels_first else '(time, channels)'}"
            )
        parts.append(part)
    return numpy.concatenate(parts), numpy.cumsum([0, *map(len, parts)])


def from_block(X: NDArray[numpy.float64], *, channels_first: bool) -> Flat:
    """(N, T, C), or (N, C, T) with channels_first. Errors: ValueError where T or C is 0."""
    if 0 in X.shape:
        raise ValueError(f"X has shape {X.shape}: each sequence needs a time step and a channel")
    block = X.transpose(0, 2, 1) if channels_first else X
    count, steps, channels = block.shape
    # a copy: what the caller keeps may be read-only, or change
    return block.reshape(-1, channels).copy(), numpy.arange(count + 1) * steps


def from_rows(X: NDArray[numpy.float64], channels: int, *, channels_first: bool) -> Flat:
    """(N, T * C): the channels of a time step side by side, or with channels_first one channel after the other."""
    count, columns = X.shape
    if columns % channels:
        raise ShapeError(f"channels={channels} must divide the {columns} columns of X: every step has every channel")
    steps = columns // channels
    block = X.reshape(count, channels, steps) if channels_first else X.reshape(count, steps, channels)
    return from_block(block, channels_first=channels_first)


def spans_of(timespans: Any, offsets: NDArray[numpy.int64]) -> Tensor:
    """(S,) from one array (T_i,) per sequence, or (N, T). Errors: ShapeError, ValueError naming the sequence."""
    lengths = numpy.diff(offsets)
    if len(timespans) != len(lengths):
        raise ShapeError(f"timespans must have an array per sequence, {len(lengths)}, got {len(timespans)}")
    parts = [numpy.asarray(part, numpy.float64) for part in timespans]
    for i, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        if part.shape != (length,):
            raise ShapeError(f"timespans[{i}] must have a number per step of X[{i}], {length}, got shape {part.shape}")
        if not bool((numpy.isfinite(part) & (part > 0)).all()):
            raise ValueError(f"timespans[{i}] must be positive and finite: merge samples that share a time stamp")
    return torch.from_numpy(numpy.concatenate(parts))


def held_out(classes: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The rows to learn from and those to validate on, each class in both in proportion; no class is taken whole.

    Args:
        classes: (N,) class of each row; all the same where there are none.
        fraction: share of the rows to hold out; at least one row is.
        seed: draws them.

    Errors: ValueError when too few rows are left.

    >>> [len(rows) for rows in held_out(torch.tensor([0] * 16 + [1] * 4), 0.25, seed=0)]
    [15, 5]
    """
    count = len(classes)
    shuffled = torch.randperm(count, generator=generator_for(seed, 13))
    rows = shuffled[classes[shuffled].argsort(stable=True)]
    first = torch.ones(count, dtype=torch.bool)
    first[1:] = classes[rows].diff() != 0
    spare, wanted = rows[~first], max(1, round(fraction * count))
    if len(spare) < wanted:
        raise ValueError(
            f"validation_fraction={fraction} holds out {wanted} of n_samples={count}, and too few are left to learn "
            "from: give more sequences, or validation_fraction=0"
        )
    # evenly spaced places in an order by classes take of each class its share
    places = ((torch.arange(wanted) + 0.5) * len(spare) / wanted).long()
    held = spare[places].sort().values
    keep = torch.ones(count, dtype=torch.bool)
    keep[held] = False
    return keep.nonzero().squeeze(1), held
