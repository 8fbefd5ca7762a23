"""What was found in a user's series, a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from pendula.tasks.table import Floats, Integers, Table

SHOWN = 12


def sizes(table: Table) -> str:
    lengths = numpy.diff(table.offsets)
    low, high = int(lengths.min()), int(lengths.max())
    long = str(low) if low == high else f"{low} to {high}"
    channels = ", ".join(table.channels[:SHOWN]) + (", ..." if len(table.channels) > SHOWN else "")
    return f"{len(table)} series of {long} samples and {_many(len(table.channels), 'channel')}: {channels}"


def spacing(table: Table, gaps: Floats | None, gap: float | None, median_gap: float | None) -> str:
    """gap: the median in training; median_gap: the same where series are uneven, else None."""
    if gaps is None or gap is None:
        return "no time stamps: samples are taken as they stand, evenly spaced"
    unit = " s" * table.dated
    if median_gap is None:
        return f"time stamps are regular, {gap:g}{unit} apart"
    low, high = numpy.nanmin(gaps), numpy.nanmax(gaps)
    said = f"{low:g} to {high:g}{unit} apart; the median in training, {gap:g}{unit}, counts as 1"
    return f"time stamps are irregular, {said}"


def targets(y: NDArray[Any], labels: tuple[str, ...] | None, *, per_step: bool) -> str:
    of = "a label at every step: " * per_step
    if labels is None:
        return f"{of}values from {y.min():g} to {y.max():g}"
    counts = numpy.bincount(y, minlength=len(labels)).tolist()
    each = [f"{name} ({count})" for name, count in zip(labels, counts, strict=True)]
    return f"{of}{len(labels)} classes: {', '.join(each[:SHOWN])}" + (", ..." if len(each) > SHOWN else "")


def doubts(
    table: Table,
    parts: Mapping[str, Integers],
    y: NDArray[Any],
    labels: tuple[str, ...] | None,
    *,
    per_step: bool,
) -> list[str]:
    """What a user should know before trusting a result: classes and subjects in the wrong parts."""
    said = []
    if labels:
        lengths = numpy.diff(table.offsets)
        trained = numpy.isin(numpy.arange(len(table)), parts["train"])
        present = set(y[numpy.repeat(trained, lengths) if per_step else trained].tolist())
        absent = [name for k, name in enumerate(labels) if k not in present]
        said += [f"no series of the training part is of class {name!r}" for name in absent]
    if table.subjects is not None:
        subjects = {part: {table.subjects[i] for i in rows} for part, rows in parts.items()}
        for part in ("validation", "test"):
            both = sorted(subjects["train"] & subjects[part])
            said += [f"{len(both)} subjects are in both train and {part}, {both[0]!r} for one"] if both else []
    return said


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}"
