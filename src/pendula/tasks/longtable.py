"""A .csv or .parquet file as columns, with errors that say where."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from pendula._check import DataError, did_you_mean
from pendula.tasks.table import Columns, Floats, Integers

NANOSECONDS = 1e9
THREADED = 1 << 20


def open_table(path: Path, columns: Columns, *, text: tuple[str, ...] = ()) -> LongTable:
    """The columns of a .csv or .parquet file, their names checked; those in `text` are read as they are written."""
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"reading {path.name} needs pyarrow: pip install 'pendula[train]'") from error
    # a series called 007 is not 7
    written = dict.fromkeys((*text, columns.id, columns.subject, columns.part), pyarrow.string())
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty: needed are a line of column names and a row per sample")
        if path.suffix.lower() == ".parquet":
            table = pyarrow.parquet.ParquetFile(path).read()
        else:
            # an empty field is a missing value in a column of names as well
            options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, column_types=written)
            # for the many small files of a folder, threads cost more than they bring
            reading = pyarrow.csv.ReadOptions(use_threads=path.stat().st_size > THREADED)
            table = pyarrow.csv.read_csv(path, read_options=reading, convert_options=options)
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} could not be read: {said}; needed is a table with one row per sample") from error
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows: needed is one row per sample")
    kept = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    if len(set(kept)) == len(kept):
        table = table.select(kept).rename_columns([name.strip() for name in kept])
    made = LongTable(path, columns, table)
    made.check_names()
    return made


class LongTable:
    """The columns of one table, with errors that say where."""

    def __init__(self, path: Path, columns: Columns, table: Any) -> None:
        self.path, self.columns, self.table = path, columns, table
        self.names: list[str] = table.column_names
        self.rows: int = table.num_rows
        self.dated = False

    def row(self, number: int) -> str:
        """The place of a row: the line of a csv file, counted as an editor does."""
        csv = self.path.suffix.lower() == ".csv"
        return f"{self.path} line {number + 2}" if csv else f"{self.path} row {number + 1}"

    def check_names(self) -> None:
        if len(self.names) == 1 and re.search(r"[;\t|]", self.names[0]):
            raise DataError(f"{self.path} has one column {self.names[0]!r}: separate columns by commas")
        self._refuse_no_header()
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

    def _refuse_no_header(self) -> None:
        roles = {getattr(self.columns, field.name).lower() for field in fields(self.columns)}
        counted = [[str(k + least) for k in range(len(self.names))] for least in (0, 1)]
        numbers = sum(map(_is_number, self.names))
        # pandas calls columns 0, 1, 2 where they have no names
        if self.names in counted or 2 * numbers < len(self.names) or roles & {name.lower() for name in self.names}:
            return
        shown = ", ".join(self.names[:4]) + (", ..." if len(self.names) > 4 else "")
        raise DataError(f"{self.path} has no header, its first line is {shown}: needed is a line of column names first")

    def column(self, name: str) -> Any:
        import pyarrow

        if name not in self.names:
            role = next((f.name for f in fields(self.columns) if getattr(self.columns, f.name) == name), None)
            said = f"{role}='...' names another one" if role else "every file needs the channels of the training data"
            said += "; series without labels are for `pendula predict --data`" * (role == "label")
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

    def labels(
        self, order: Integers, offsets: Integers, ids: list[str], *, per_step: bool = False
    ) -> tuple[str, ...] | Floats:
        """A label of each series, or of each row: names of classes, or numbers where they are floating point."""
        import pyarrow

        name = self.columns.label
        kind = self.column(name).type
        floating = pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind)
        if not floating and not per_step:
            return self.constant(name, order, offsets, ids)
        if not floating:
            codes, found = self.text(name)
            self._refuse_unlabelled(codes < 0)
            return tuple(found[code] for code in codes[order].tolist())
        values = self.numbers(name)[order]
        if per_step:
            self._refuse_unlabelled(numpy.isnan(self.numbers(name)))
            return values.reshape(-1, 1)
        if numpy.isnan(values).any():
            series = int(numpy.searchsorted(offsets, int(numpy.isnan(values).argmax()), side="right")) - 1
            raise DataError(f"{self.path}: series {ids[series]!r} has no {self.columns.label}: every series needs one")
        self._refuse_changes(self.columns.label, values, order, offsets, ids)
        return values[offsets[:-1]].reshape(-1, 1)

    def _refuse_unlabelled(self, missing: NDArray[numpy.bool_]) -> None:
        if missing.any():
            raise DataError(
                f"{self.row(int(missing.argmax()))} has no {self.columns.label!r}: with per_step=true every sample "
                "needs one (give those that have none a class of their own, or drop them)"
            )

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
                "it has to stay the same within a series"
                + ("; per_step=true takes a label at every step" if name == self.columns.label else "")
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
                self.dated = True
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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return bool(re.match(r"\d{4}-\d\d-\d\d", text))
    return True


def _fine(kind: Any) -> Any:
    import pyarrow

    if pyarrow.types.is_time(kind):
        return pyarrow.time64("ns")
    if pyarrow.types.is_duration(kind):
        return pyarrow.duration("ns")
    return pyarrow.timestamp("ns", getattr(kind, "tz", None))
