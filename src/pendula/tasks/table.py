"""Series as a file holds them: nothing filled, split or scaled yet."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from pendula._check import DataError, did_you_mean

Floats = NDArray[numpy.float64]
Integers = NDArray[numpy.int64]

# how the parts of a data set are called in files -> what they are called here
PART_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev"), "validation"
)


@dataclass(frozen=True)
class Columns:
    """What the columns of a table in long format are called; every other column is a channel."""

    id: str = "id"
    time: str = "time"
    label: str = "label"
    subject: str = "subject"
    part: str = "split"


@dataclass(frozen=True)
class Wanted:
    """What a reader shall take.

    labelled: whether labels (and parts) are needed; without, a file without series ids is one series. per_step: whether
    there is a label at every step instead of one per series. channels: those to take, in this order; None takes all.
    """

    columns: Columns
    labelled: bool = True
    per_step: bool = False
    channels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Table:
    """N series of I channels, flat: series i is ``values[offsets[i]:offsets[i + 1]]``.

    values (S, I), NaN where missing; offsets (N + 1,); times (S,), rising within a series, or None; labels: names of
    classes, or numbers (N, C), or None, at every step S of them; classes: the order of the classes where the file
    declares one; subjects and parts: one per series, or None; dated: whether times were dates, in seconds then; notes:
    what the reader passed over, a sentence each.
    """

    values: Floats
    offsets: Integers
    channels: tuple[str, ...]
    names: tuple[str, ...]
    times: Floats | None = None
    labels: tuple[str, ...] | Floats | None = None
    classes: tuple[str, ...] | None = None
    subjects: tuple[str, ...] | None = None
    parts: tuple[str, ...] | None = None
    dated: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def select(self, channels: tuple[str, ...], where: object) -> Table:
        """The same series with these channels in this order. Errors: DataError if one is missing."""
        for channel in channels:
            if channel not in self.channels:
                raise DataError(
                    f"{where} has no channel {channel!r}{did_you_mean(channel, self.channels)}: "
                    f"it has {', '.join(self.channels)}; needed are {', '.join(channels)}"
                )
        if channels == self.channels:
            return self
        return replace(self, values=self.values[:, [self.channels.index(c) for c in channels]], channels=channels)


def joined(tables: Sequence[tuple[Path, Table]]) -> Table:
    """One table of several files. Errors: DataError if their channels, time stamps or labels do not go together."""
    first_path, first = tables[0]
    for path, table in tables[1:]:
        spare = sorted(set(table.channels) - set(first.channels))
        if spare:
            raise DataError(f"{path} has a channel {spare[0]!r} that {first_path.name} has not: all need the same")
        for what in ("times", "subjects", "parts"):
            if (getattr(table, what) is None) != (getattr(first, what) is None):
                raise DataError(f"only one of {first_path} and {path.name} has {what}: all files need them, or none")
        if table.dated != first.dated:
            dates, plain = (path, first_path) if table.dated else (first_path, path)
            raise DataError(f"{dates} has dates as times, {plain.name} numbers: all files need the same")
    several = [table.select(first.channels, path) for path, table in tables]
    names = tuple(name for table in several for name in table.names)
    if len(set(names)) < len(names):
        names = tuple(f"{path.stem}/{name}" for path, table in tables for name in table.names)
    if len(set(names)) < len(names):
        names = tuple(f"{path.parent.name}/{path.stem}/{name}" for path, table in tables for name in table.names)
    classes = tuple(dict.fromkeys(c for table in several for c in table.classes or ()))
    lengths = numpy.concatenate([numpy.diff(table.offsets) for table in several])
    return Table(
        numpy.concatenate([table.values for table in several]),
        numpy.concatenate(([0], numpy.cumsum(lengths))),
        first.channels,
        names,
        None if first.times is None else numpy.concatenate([t.times for t in several if t.times is not None]),
        _joined_labels(tables),
        classes or None,
        None if first.subjects is None else tuple(s for table in several for s in table.subjects or ()),
        None if first.parts is None else tuple(p for table in several for p in table.parts or ()),
        first.dated,
        tuple(note for table in several for note in table.notes),
    )


def _joined_labels(tables: Sequence[tuple[Path, Table]]) -> tuple[str, ...] | Floats | None:
    found = [table.labels for _, table in tables]
    if any(labels is None for labels in found):
        return None
    if all(isinstance(labels, tuple) for labels in found):
        return tuple(name for labels in found for name in labels or ())
    # a file whose labels happen to be whole numbers beside files with fractions
    return numpy.concatenate([numbers(table.labels, path) for path, table in tables])


def numbers(labels: tuple[str, ...] | Floats | None, where: object) -> Floats:
    """Labels as numbers (N, C). Errors: DataError if one is not a number."""
    if isinstance(labels, numpy.ndarray):
        return labels
    values = numpy.empty((len(labels or ()), 1))
    for i, label in enumerate(labels or ()):
        try:
            values[i] = float(label)
        except ValueError as error:
            raise DataError(f"{where} has the label {label!r}: a target of numbers needs a number") from error
    return values


def part_of(name: str, where: str) -> str:
    """train, validation or test, from how a file calls it.

    >>> part_of("Dev", "the split of series 7")
    'validation'
    """
    if name.lower() not in PART_NAMES:
        raise DataError(f"{where} is {name!r}{did_you_mean(name, PART_NAMES)}: needed is train, validation or test")
    return PART_NAMES[name.lower()]


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, never unpickled. Errors: DataError if it is missing, damaged or holds objects."""
    try:
        file = numpy.load(path, allow_pickle=False)
        if isinstance(file, numpy.ndarray):
            raise DataError(f"{path} holds a single array: needed is an npz file, as numpy.savez writes it")
        with file:
            return dict(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        said = "it holds Python objects, which are never unpickled" if "pickle" in str(error) else str(error)
        raise DataError(f"{path} could not be read as npz ({said}): write it again with numpy.savez") from error
