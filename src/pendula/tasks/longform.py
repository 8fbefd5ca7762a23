"""Tables in long format, one row per sample: .csv and .parquet."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy

from pendula._check import DataError
from pendula.tasks.longtable import open_table
from pendula.tasks.table import Floats, Table, Wanted, part_of

LONG = (".csv", ".parquet")


def read_long(path: Path, wanted: Wanted, *, series: str | None = None, label_from: str | None = None) -> Table:
    """Series of a table whose rows are samples.

    Args:
        path: a .csv or .parquet file.
        wanted: columns, channels and labels; without labels, columns of labels, subjects and parts are ignored.
        series: the id of the one series of a file without an id column; None needs the column.
        label_from: what says the label instead of a column, as "named in labels.csv"; labels are None then.

    Errors: DataError naming the file, the row and the column.
    """
    columns, labelled = wanted.columns, wanted.labelled
    reader = open_table(path, columns)
    if series is None or columns.id in reader.names:
        codes, ids = reader.text(columns.id)
        if (codes < 0).any():
            where = reader.row(int((codes < 0).argmax()))
            raise DataError(f"{where} has no {columns.id!r}: every sample needs its series")
    else:
        codes, ids = numpy.zeros(reader.rows, numpy.int64), [series]
    if labelled and label_from is None:
        reader.column(columns.label)
    times = reader.times() if columns.time in reader.names else None
    order = numpy.argsort(codes, kind="stable") if times is None else numpy.lexsort((times, codes))
    offsets = numpy.concatenate(([0], numpy.cumsum(numpy.bincount(codes, minlength=len(ids)))))
    if times is not None:
        reader.refuse_duplicates(times, order, codes, ids)
    roles = {getattr(columns, field.name) for field in fields(columns)}
    taken = wanted.channels if wanted.channels is not None else tuple(n for n in reader.names if n not in roles)
    if not taken:
        raise DataError(f"{path} has no channels: every column is a series id, time, label, subject or split")
    values = numpy.stack([reader.numbers(name) for name in taken], 1)[order]
    labels: tuple[str, ...] | Floats | None = None
    if labelled and label_from is not None:
        if columns.label in reader.names:
            raise DataError(f"{path} has a column {columns.label!r} and is {label_from}: drop the column")
    elif labelled:
        labels = reader.labels(order, offsets, ids, per_step=wanted.per_step)
    subjects, parts = None, None
    if labelled and columns.subject in reader.names:
        subjects = reader.constant(columns.subject, order, offsets, ids)
    if labelled and columns.part in reader.names:
        found = zip(reader.constant(columns.part, order, offsets, ids), ids, strict=True)
        parts = tuple(part_of(name, f"{path}: {columns.part} of series {i!r}") for name, i in found)
    sorted_times = None if times is None else times[order]
    dated = times is not None and reader.dated
    return Table(values, offsets, taken, tuple(ids), sorted_times, labels, None, subjects, parts, dated)
