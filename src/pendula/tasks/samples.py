"""Missing samples filled, and the time between samples."""

from __future__ import annotations

import numpy

from pendula._check import DataError
from pendula.tasks.table import Floats, Table

REGULAR = 1e-6


def means(table: Table, rows: Floats, path: object) -> Floats:
    """The mean of the known values of each channel (I,) over some rows. Errors: DataError if a channel has none."""
    known = ~numpy.isnan(rows)
    for channel, count in zip(table.channels, known.sum(0), strict=True):
        if count == 0:
            raise DataError(f"{path}: channel {channel!r} has no value in the training part: drop it")
    average: Floats = numpy.nanmean(rows, 0)
    return average


def filled(table: Table, missing: str, fill: Floats, path: object) -> tuple[Floats, tuple[str, ...]]:
    """Values without gaps, and what was missing, in a sentence.

    "forward" repeats the last known value of the series; before the first known one stands that one, and where the
    series has none, `fill` (I,). Errors: DataError if "refuse" meets a missing value.
    """
    known = ~numpy.isnan(table.values)
    if known.all():
        return table.values, ()
    counts = {c: int(n) for c, n in zip(table.channels, (~known).sum(0), strict=True) if n}
    if missing == "refuse":
        row, column = (int(k[0]) for k in numpy.nonzero(~known))
        series = int(numpy.searchsorted(table.offsets, row, side="right")) - 1
        raise DataError(
            f"{path}: {_said(counts)} missing, the first in channel {table.channels[column]!r} of series "
            f"{table.names[series]!r}: fill them, or allow missing='forward'"
        )
    lengths = numpy.diff(table.offsets)
    start, end = (numpy.repeat(edge, lengths)[:, None] for edge in (table.offsets[:-1], table.offsets[1:]))
    rows = numpy.arange(len(known))[:, None]
    last = numpy.maximum.accumulate(numpy.where(known, rows, -1))
    following = numpy.minimum.accumulate(numpy.where(known, rows, len(known))[::-1])[::-1]
    source = numpy.where(last >= start, last, following)
    taken = numpy.take_along_axis(table.values, numpy.minimum(source, len(known) - 1), 0)
    values = numpy.where(source < end, taken, fill)
    return values, (f"missing: {_said(counts)}; filled with the last known value of the series",)


def _said(counts: dict[str, int]) -> str:
    said = [f"{count} value{'s' * (count > 1)} of channel {channel!r}" for channel, count in counts.items()]
    return ", ".join(said[:8]) + (f" and of {len(said) - 8} more channels" if len(said) > 8 else "")


def gaps_of(table: Table) -> Floats | None:
    """Time since the sample before (S,), NaN at the first sample of a series; None without time stamps."""
    if table.times is None:
        return None
    gaps = numpy.diff(table.times, prepend=numpy.nan)
    gaps[table.offsets[:-1]] = numpy.nan
    return gaps


def median_of(gaps: Floats) -> float | None:
    """The median gap; None where no series has two samples."""
    known = gaps[~numpy.isnan(gaps)]
    return float(numpy.median(known)) if len(known) else None


def even(table: Table, gaps: Floats, gap: float | None) -> bool:
    """Whether all samples are `gap` apart, to one part in a million and to the rounding of the time stamps."""
    known = gaps[~numpy.isnan(gaps)]
    if gap is None or table.times is None or not len(known):
        return True
    rounding = 4 * numpy.finfo(numpy.float64).eps * float(numpy.abs(table.times).max())
    return bool((numpy.abs(known - gap) <= REGULAR * gap + rounding).all())


def spans(gaps: Floats, median_gap: float) -> Floats:
    """Gaps in units of the median one; the first sample of a series takes 1.

    >>> spans(numpy.array([numpy.nan, 2.0, 3.0]), median_gap=2.0).tolist()
    [1.0, 1.0, 1.5]
    """
    return numpy.where(numpy.isnan(gaps), 1.0, gaps / median_gap)
