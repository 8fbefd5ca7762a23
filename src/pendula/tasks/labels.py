"""A labels file: labels.csv or labels.parquet, a row for each file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from pendula._check import DataError, did_you_mean
from pendula.tasks.longform import LONG
from pendula.tasks.longtable import LongTable, open_table
from pendula.tasks.table import Floats, Table, Wanted, part_of

FILE, PART = "file", "part"


@dataclass(frozen=True)
class Labels:
    """What a labels file says of the files beside it.

    rows: name of a file without ending -> its row; labels, subjects and parts: one per row, or None; spare: columns
    that are not read.
    """

    sheet: LongTable
    rows: dict[str, int]
    labels: tuple[str, ...] | Floats | None
    subjects: tuple[str, ...] | None
    parts: tuple[str, ...] | None
    spare: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, wanted: Wanted) -> Labels:
        """Columns are file (or that of ids), the label unless it is at every step, and perhaps subject and part.

        Errors: DataError naming the line, for a file that is named twice or lacks something.
        """
        columns = wanted.columns
        sheet = open_table(path, columns, text=(FILE, PART))
        rows = _rows(sheet, columns.id)
        # a row is as good as a series of one sample, and has its errors
        one_each = numpy.arange(sheet.rows), numpy.arange(sheet.rows + 1), list(rows)
        labels: tuple[str, ...] | Floats | None = None
        if not wanted.per_step:
            labels = sheet.labels(*one_each)
        elif columns.label in sheet.names:
            raise DataError(f"{path} has a column {columns.label!r}; per_step=true takes that of the files: drop one")
        subjects = sheet.constant(columns.subject, *one_each) if columns.subject in sheet.names else None
        part_column = columns.part if columns.part in sheet.names else PART
        parts = None
        if part_column in sheet.names:
            said = zip(sheet.constant(part_column, *one_each), rows.values(), strict=True)
            parts = tuple(part_of(name, f"{sheet.row(row)}: {part_column}") for name, row in said)
        known = (FILE, columns.id, columns.label, columns.subject, part_column)
        return cls(sheet, rows, labels, subjects, parts, tuple(n for n in sheet.names if n not in known))

    def match(self, files: Sequence[Path]) -> None:
        """Errors: DataError for a row without its file, and a file without its row."""
        names = {file.stem for file in files}
        absent = [name for name in self.rows if name not in names]
        if absent:
            more = f"; {len(absent) - 1} more rows have none" if len(absent) > 1 else ""
            raise DataError(
                f"{self.sheet.row(self.rows[absent[0]])} names {absent[0]!r}, and no file beside it is called so"
                f"{did_you_mean(absent[0], names)}{more}: add the file, or drop the row"
            )
        without = [file.name for file in files if file.stem not in self.rows]
        if without:
            said = ", ".join(without[:4]) + (f" and {len(without) - 4} more" if len(without) > 4 else "")
            raise DataError(f"{self.sheet.path} has no row for {said}: add one for each, or move the files elsewhere")

    def put(self, file: Path, table: Table) -> Table:
        """The one series of a file with what is said of it. Errors: DataError if the file says it too."""
        row, home = self.rows[file.stem], self.sheet.path.name
        if len(table) > 1:
            raise DataError(f"{file} is named in {home} as one series and has {len(table)} ids: drop the column of ids")
        for what in ("subjects", "parts"):
            if getattr(self, what) is not None and getattr(table, what) is not None:
                raise DataError(f"{file} has a column of {what}, and so has {home}: drop one of them")
        return replace(
            table,
            labels=table.labels if self.labels is None else self.labels[row : row + 1],
            subjects=table.subjects if self.subjects is None else (self.subjects[row],),
            parts=table.parts if self.parts is None else (self.parts[row],),
        )


def _rows(sheet: LongTable, id_column: str) -> dict[str, int]:
    key = FILE if FILE in sheet.names else id_column
    if key not in sheet.names:
        near = did_you_mean(FILE, sheet.names)
        raise DataError(
            f"{sheet.path} has no column 'file' or {id_column!r}{near}: it has {', '.join(sheet.names)}; needed is one "
            "that names the file of each row"
        )
    codes, values = sheet.text(key)
    rows: dict[str, int] = {}
    for row, code in enumerate(codes.tolist()):
        if code < 0:
            raise DataError(f"{sheet.row(row)} has no {key!r}: every row needs its file")
        value = values[code].removeprefix("./")
        name = value.rpartition(".")[0] if value.lower().endswith(LONG) else value
        if name in rows:
            raise DataError(f"{sheet.row(row)} names {value!r} again, as {sheet.row(rows[name])} does: keep one")
        rows[name] = row
    return rows
