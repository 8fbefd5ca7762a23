"""Tables in long format, one row per sample: .csv and .parquet."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy

from pendula._check import DataError, did_you_mean
from pendula.tasks.table import Columns, Floats, Integers, Table, part_of

LONG = (".csv", ".parquet")
NANOSECONDS = 1e9


def read_long(
    path: Path,
    columns: Columns,
    *,
    labelled: bool = True,
    channels: tuple[str, ...] | None = None,
    series: str | None = None,
    label: str | None = None,
) -> Table:
    """Series of a table whose rows are samples.

    Args:
        path: a .csv or .parquet file.
        columns: which columns hold the series id, the time and so on.
        labelled: whether a label is needed; without, columns of labels, subjects and parts are ignored.
        channels: the columns to take as channels; None takes every column that is nothing else.
        series: the id of the one series of a file without an id column; None needs the column.
        label: the class of every series of this file; None needs the column.

    Errors: DataError naming the file, the row and the column.
    """
    reader = _Reader(path, columns, _read(path))
    reader.check_names()
    if series is None or columns.id in reader.names:
        codes, ids = reader.text(columns.id)
        if (codes < 0).any():
            where = reader.row(int((codes < 0).argmax()))
            raise DataError(f"{where} has no {columns.id!r}: every sample needs its series")
    else:
        codes, ids = numpy.zeros(reader.rows, numpy.int64), [series]
    if labelled and label is None:
        reader.column(columns.label)
    times = reader.times() if columns.time in reader.names else None
    order = numpy.argsort(codes, kind="stable") if times is None else numpy.lexsort((times, codes))
    offsets = numpy.concatenate(([0], numpy.cumsum(numpy.bincount(codes, minlength=len(ids)))))
    if times is not None:
        reader.refuse_duplicates(times, order, codes, ids)
    roles = {getattr(columns, field.name) for field in fields(columns)}
    taken = channels if channels is not None else tuple(name for name in reader.names if name not in roles)
    if not taken:
        raise DataError(f"{path} has no channels: every column is a series id, time, label, subject or split")
    values = numpy.stack([reader.numbers(name) for name in taken], 1)[order]
    labels: tuple[str, ...] | Floats | None = None
    if labelled and label is not None:
        if columns.label in reader.names:
            raise DataError(f"{path} has a column {columns.label!r} and is in the folder of a class: drop the column")
        labels = (label,) * len(ids)
    elif labelled:
        labels = reader.labels(order, offsets, ids)
    subjects, parts = None, None
    if labelled and columns.subject in reader.names:
        subjects = reader.constant(columns.subject, order, offsets, ids)
    if labelled and columns.part in reader.names:
        found = zip(reader.constant(columns.part, order, offsets, ids), ids, strict=True)
        parts = tuple(part_of(name, f"{path}: {columns.part} of series {i!r}") for name, i in found)
    sorted_times = None if times is None else times[order]
    return Table(values, offsets, taken, tuple(ids), sorted_times, labels, None, subjects, parts)


def _read(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"reading {path.name} needs pyarrow: pip install 'pendula[train]'") from error
    try:
        if path.suffix.lower() == ".parquet":
            table = pyarrow.parquet.ParquetFile(path).read()
        else:
            # an empty field is a missing value in a column of names as well
            options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
            table = pyarrow.csv.read_csv(path, convert_options=options)
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} could not be read: {said}; needed is a table with one row per sample") from error
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows: needed is one row per sample")
    kept = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    return table.select(kept).rename_columns([name.strip() for name in kept]) if len(set(kept)) == len(kept) else table


class _Reader:
    """The columns of one table, with errors that say where."""

    def __init__(self, path: Path, columns: Columns, table: Any) -> None:
        self.path, self.columns, self.table = path, columns, table
        self.names: list[str] = table.column_names
        self.rows: int = table.num_rows

    def row(self, number: int) -> str:
        """The place of a row: the line of a csv file, counted as an editor does."""
        csv = self.path.suffix.lower() == ".csv"
        return f"{self.path} line {number + 2}" if csv else f"{self.path} row {number + 1}"

    def check_names(self) -> None:
        if len(self.names) == 1 and re.search(r"[;\t|]", self.names[0]):
            raise DataError(f"{self.path} has one column {self.names[0]!r}: separate columns by commas")
        for name in self.names:
            if not name:
                raise DataError(f"{self.path}: column {self.names.index(name) + 1} has no name: name it, or drop it")
            if self.names.count(name) > 1:
                raise DataError(f"{self.path} has two columns {name!r}: rename one of them")
        for field in fields(self.columns):
            wanted = getattr(self.columns, field.name)
            # a time or a label under a name that differs in case would be taken for a channel
            alike = [name for name in self.names if name.lower() == wanted.lower()]
            if alike and wanted not in alike:
                near = alike[0]
                raise DataError(f"{self.path} has no column {wanted!r} but {near!r}: give {field.name}={near!r}")

    def column(self, name: str) -> Any:
        import pyarrow

        if name not in self.names:
            role = next((f.name for f in fields(self.columns) if getattr(self.columns, f.name) == name), None)
            said = f"{role}='...' names another one" if role else "every file needs the channels of the training data"
            raise DataError(
                f"{self.path} has no column {name!r}{did_you_mean(name, self.names)}: "
                f"it has {', '.join(self.names)}; {said}"
            )
        column = self.table.column(name)
        if pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column

    def text(self, name: str) -> tuple[Integers, list[str]]:
        """The number of each row's value, -1 where there is none, and the values in order of appearance."""
        column = self.column(name)
        if str(column.type) in ("binary", "large_binary"):
            raise DataError(f"{self.path}: column {name!r} is not text in UTF-8: save the file as UTF-8")
        encoded = column.combine_chunks().dictionary_encode()
        known: dict[str, int] = {}
        renumbered = [known.setdefault(str(value).strip(), len(known)) for value in encoded.dictionary.to_pylist()]
        codes = numpy.asarray(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), numpy.int64)
        return numpy.where(codes < 0, -1, numpy.array([*renumbered, -1])[codes]), list(known)

    def constant(self, name: str, order: Integers, offsets: Integers, ids: list[str]) -> tuple[str, ...]:
        """A value of each series. Errors: DataError where it is missing or changes within a series."""
        codes, values = self.text(name)
        self._refuse_changes(name, codes[order], order, offsets, ids)
        if (codes < 0).any():
            series = int(numpy.searchsorted(offsets, int((codes[order] < 0).argmax()), side="right")) - 1
            raise DataError(f"{self.path}: series {ids[series]!r} has no {name}: every series needs one")
        return tuple(values[code] for code in codes[order[offsets[:-1]]])

    def labels(self, order: Integers, offsets: Integers, ids: list[str]) -> tuple[str, ...] | Floats:
        import pyarrow

        kind = self.column(self.columns.label).type
        if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind)):
            return self.constant(self.columns.label, order, offsets, ids)
        values = self.numbers(self.columns.label)[order]
        if numpy.isnan(values).any():
            series = int(numpy.searchsorted(offsets, int(numpy.isnan(values).argmax()), side="right")) - 1
            raise DataError(f"{self.path}: series {ids[series]!r} has no {self.columns.label}: every series needs one")
        self._refuse_changes(self.columns.label, values, order, offsets, ids)
        return values[offsets[:-1]].reshape(-1, 1)

    def _refuse_changes(
        self, name: str, values: Integers | Floats, order: Integers, offsets: Integers, ids: list[str]
    ) -> None:
        first = numpy.repeat(values[offsets[:-1]], numpy.diff(offsets))
        if (values != first).any():
            bad = int((values != first).argmax())
            series = int(numpy.searchsorted(offsets, bad, side="right")) - 1
            column, rows = self.column(name), (int(order[offsets[series]]), int(order[bad]))
            was, now = (column[row].as_py() for row in rows)
            raise DataError(
                f"{self.row(rows[1])}: {name} of series {ids[series]!r} is {now!r}, before it was {was!r}: "
                f"it has to stay the same within a series"
            )

    def numbers(self, name: str) -> Floats:
        """A channel, NaN where missing. Errors: DataError at the first value that is not a finite number."""
        import pyarrow

        column, kind = self.column(name), self.column(name).type
        if pyarrow.types.is_null(kind):
            return numpy.full(self.rows, numpy.nan)
        if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            values = numpy.array([self._number(name, row, text) for row, text in enumerate(column.to_pylist())])
        elif any(getattr(pyarrow.types, f"is_{of}")(kind) for of in ("floating", "integer", "boolean", "decimal")):
            values = column.cast(pyarrow.float64(), safe=False).to_numpy().copy()
        else:
            hint = "; if it is the time, give time=" + repr(name) if pyarrow.types.is_temporal(kind) else ""
            raise DataError(f"{self.path}: column {name!r} holds {kind}, a channel needs numbers{hint}")
        if numpy.isinf(values).any():
            bad = int(numpy.isinf(values).argmax())
            raise DataError(f"{self.row(bad)}: {name!r} is {values[bad]}: needed are finite numbers, or an empty field")
        return numpy.asarray(values, numpy.float64)

    def _number(self, name: str, row: int, text: str | None) -> float:
        try:
            return numpy.nan if text is None else float(text)
        except ValueError as error:
            raise DataError(
                f"{self.row(row)}: {name!r} is {text!r}: a channel needs numbers; drop the column, or name it as "
                "id, time, label, subject or part if it is one"
            ) from error

    def times(self) -> Floats:
        """Seconds for dates and time stamps, numbers as they are; whole numbers from the least one on."""
        import pyarrow

        name = self.columns.time
        column, types = self.column(name), pyarrow.types
        if column.null_count:
            bad = next(row for row, value in enumerate(column.to_pylist()) if value is None)
            raise DataError(f"{self.row(bad)} has no {name!r}: every sample needs its time, or drop the column")
        kind, unit = column.type, 1.0
        try:
            if types.is_string(kind) or types.is_large_string(kind):
                zoned = any(re.search(r"(Z|[+-]\d\d:?\d\d)$", text.strip()) for text in column.to_pylist())
                column = column.cast(pyarrow.timestamp("ns", "UTC" if zoned else None))
            if types.is_temporal(column.type):
                column, unit = column.cast(_fine(column.type)).cast(pyarrow.int64()), NANOSECONDS
            elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
                raise DataError(f"{self.path}: column {name!r} holds {kind}: a time needs numbers or ISO dates")
            if not types.is_integer(column.type):
                column = column.cast(pyarrow.float64())
        except pyarrow.ArrowException as error:
            said = str(error).splitlines()[0]
            raise DataError(f"{self.path}: column {name!r} needs numbers or ISO dates as times: {said}") from error
        values = column.to_numpy()
        if not numpy.isfinite(values).all():
            raise DataError(f"{self.row(int((~numpy.isfinite(values)).argmax()))}: {name!r} is not a finite number")
        # whole nanoseconds since 1970 have too many digits for a float: subtract first
        origin = values.min() if values.dtype.kind == "i" else 0
        return numpy.asarray((values - origin) / unit, numpy.float64)

    def refuse_duplicates(self, times: Floats, order: Integers, codes: Integers, ids: list[str]) -> None:
        same = (numpy.diff(times[order]) == 0) & (numpy.diff(codes[order]) == 0)
        if same.any():
            bad = int(order[int(same.argmax()) + 1])
            at = self.column(self.columns.time)[bad].as_py()
            raise DataError(
                f"{self.row(bad)}: series {ids[codes[bad]]!r} has two samples at time {at}: merge them, or drop one"
            )


def _fine(kind: Any) -> Any:
    import pyarrow

    if pyarrow.types.is_time(kind):
        return pyarrow.time64("ns")
    if pyarrow.types.is_duration(kind):
        return pyarrow.duration("ns")
    return pyarrow.timestamp("ns", getattr(kind, "tz", None))
