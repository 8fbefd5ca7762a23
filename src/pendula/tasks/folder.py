"""A folder of .csv or .parquet files, one series each, with labels from folders, a labels file or a column."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pendula._check import DataError, did_you_mean
from pendula.tasks.labels import Labels
from pendula.tasks.longform import LONG, read_long
from pendula.tasks.longtable import open_table
from pendula.tasks.table import PART_NAMES, Table, Wanted, joined, part_of

LABELS = "labels"
PARTS = ("train", "validation", "test")
SHOWN = 4


@dataclass(frozen=True)
class Listing:
    """What a folder holds, by name in the order of code points: the same on every machine.

    files: of the formats that are read, without the labels file; labels: labels.csv or labels.parquet; folders: those
    with such files anywhere below. Hidden files and folders (.name and __name) are left out.
    """

    path: Path
    files: tuple[Path, ...]
    labels: Path | None
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, path: Path, formats: Iterable[str]) -> Listing:
        """Errors: DataError for two labels files."""
        inside = sorted((p for p in path.iterdir() if _seen(p.name)), key=lambda p: p.name)
        files = [p for p in inside if p.suffix.lower() in formats and p.is_file()]
        labels = [p for p in files if p.stem.lower() == LABELS and p.suffix.lower() in LONG]
        if len(labels) > 1:
            raise DataError(f"{path} has two labels files, {shown(labels)}: keep one of them")
        folders = [p for p in inside if p.is_dir() and any(f.suffix.lower() in formats for f in walk(p))]
        return cls(path, tuple(p for p in files if p not in labels), next(iter(labels), None), tuple(folders))

    def refuse_spare(self, taken: Sequence[Path]) -> None:
        """Nothing that could be data is passed over in silence. Errors: DataError naming what would be."""
        spare = [p for p in (*self.files, *self.folders) if p not in taken]
        if spare:
            raise DataError(
                f"{self.path} holds {shown(taken)}, which would be read, and {shown(spare)}, which would not: "
                "move one kind elsewhere, or give a file as the path"
            )


def read_folder(path: Path, wanted: Wanted, formats: tuple[str, ...]) -> Table:
    """One table of the series in a folder; each is called as its file, with the folders that lead there.

    Labels are said by a folder per class; by labels.csv (or .parquet) with columns file (or id), label and perhaps
    subject and split; or by a column in the files. Folders train, test and perhaps validation hold one of these each.
    Without labels every .csv and .parquet file below is read, and the labels file is not.

    Args:
        path: the folder.
        wanted: labels, channels, columns. A file may have a column of ids, and then holds several series.
        formats: endings of what pendula reads, here or elsewhere.

    Errors: DataError naming the file, what was found and what is needed.
    """
    reading = _Reading(path, wanted, formats)
    if wanted.labelled:
        reading.labelled(Listing.of(path, formats))
    else:
        reading.everything()
    return reading.table()


class _Reading:
    """The tables read so far, with the file of each."""

    def __init__(self, root: Path, wanted: Wanted, formats: tuple[str, ...]) -> None:
        self.root, self.wanted, self.formats = root, wanted, formats
        self.tables: list[tuple[Path, Table]] = []
        self.used: list[Path] = []
        self.notes: list[str] = []

    def name(self, file: Path) -> str:
        return file.relative_to(self.root).with_suffix("").as_posix()

    def read(self, file: Path, label_from: str | None = None) -> Table:
        """The series of a file. Errors: DataError if its channels are not those of the first file."""
        table = read_long(file, self.wanted, series=self.name(file), label_from=label_from)
        first_file, first = self.tables[0] if self.tables else (file, table)
        if set(table.channels) == set(first.channels):
            return table
        unlike = [f"has {c!r}" for c in table.channels if c not in first.channels]
        unlike += [f"lacks {c!r}" for c in first.channels if c not in table.channels]
        raise DataError(
            f"{file} {' and '.join(unlike[:SHOWN])}, unlike the first file, {shown([first_file], self.root)} "
            f"(channels {', '.join(first.channels)}): all files need the same"
        )

    def add(self, file: Path, table: Table, part: str | None) -> None:
        if part is not None and table.parts is not None:
            raise DataError(
                f"{file} is in the folder of {part} and has a part of its own: drop one ({self.wanted.columns.part!r})"
            )
        self.tables.append((file, table if part is None else replace(table, parts=(part,) * len(table))))

    def labelled(self, here: Listing) -> None:
        parts = [p for p in here.folders if p.name.lower() in PART_NAMES]
        # train first, so that other files are compared with its
        parts.sort(key=lambda p: PARTS.index(PART_NAMES[p.name.lower()]))
        if here.files or not parts:
            self.form(here, None)
            return
        if here.labels is not None:
            raise DataError(f"{here.labels} stands beside {shown(parts)}: each of them needs a labels file of its own")
        here.refuse_spare(parts)
        taken: dict[str, Path] = {}
        for folder in parts:
            part = part_of(folder.name, str(folder))
            if part in taken:
                raise DataError(f"{here.path} has two folders for {part}, {shown([taken[part], folder])}: merge them")
            taken[part] = folder
            self.form(Listing.of(folder, self.formats), part)
        if "train" not in taken:
            raise DataError(f"{here.path} has {shown(parts)} but no folder train: add one")

    def form(self, here: Listing, part: str | None) -> None:
        """Series with a labels file, series with a column of labels, or a folder per class."""
        if here.labels is not None:
            self.by_labels(here, here.labels, part)
        elif any(file.suffix.lower() in LONG for file in here.files):
            self.by_column(here, part)
        elif here.folders and not here.files:
            self.by_class(here, part)
        else:
            inside = shown(sorted(p for p in here.path.iterdir() if _seen(p.name)))
            raise DataError(
                f"{here.path} holds {inside or 'nothing'}: needed are .csv or .parquet files with a labels.csv beside "
                "them or in a folder for each class; or files called train, validation and test; or *_TRAIN.ts and "
                "*_TEST.ts"
            )

    def by_column(self, here: Listing, part: str | None) -> None:
        files, label = _series(here), self.wanted.columns.label
        names = open_table(files[0], self.wanted.columns).names
        # a slip of the pen is better told of where the column is read
        if label not in names and not did_you_mean(label, names):
            raise DataError(
                f"{here.path} has no labels: {files[0].name} has no column {label!r} (it has {', '.join(names)}), and "
                "there is no labels.csv with columns file and label, nor a folder for each class; series without "
                "labels are for `pendula predict --data`"
            )
        for file in files:
            self.add(file, self.read(file), part)

    def by_class(self, here: Listing, part: str | None) -> None:
        if self.wanted.per_step:
            raise DataError(
                f"{here.path} has a folder per class ({shown(here.folders)}), and per_step=true needs a column of "
                "labels in each file: put the files beside one another"
            )
        for folder in here.folders:
            if folder.name.lower() in PART_NAMES:
                raise DataError(
                    f"{folder} would be a class of that name: parts are the uppermost folders, classes those in them"
                )
            below = Listing.of(folder, self.formats)
            if below.labels is not None:
                raise DataError(f"{below.labels} is in the folder of a class, which says the label: remove the file")
            for file in _series(below):
                table = self.read(file, label_from="in the folder of a class")
                self.add(file, replace(table, labels=(folder.name,) * len(table)), part)

    def by_labels(self, here: Listing, path: Path, part: str | None) -> None:
        said = Labels.read(path, self.wanted)
        files = _series(here)
        said.match(files)
        self.used.append(path)
        if said.spare:
            self.notes.append(f"not read: the columns {', '.join(said.spare)} of {path.name}")
        for file in files:
            table = self.read(file, None if self.wanted.per_step else f"named in {path.name}")
            self.add(file, replace(said.put(file, table), names=(self.name(file),)), part)

    def everything(self) -> None:
        files = [p for p in walk(self.root) if p.suffix.lower() in self.formats]
        files = [p for p in files if p.stem.lower() != LABELS]
        other = [p for p in files if p.suffix.lower() not in LONG]
        if other or not files:
            holds = shown(other) if other else "no series"
            raise DataError(f"{self.root} holds {holds}: needed are .csv or .parquet files, or give a file as the path")
        for file in files:
            self.tables.append((file, self.read(file)))

    def table(self) -> Table:
        """All of it. Errors: DataError for two series of one name."""
        names = [name for _, table in self.tables for name in table.names]
        if len(set(names)) < len(names):
            # ids that begin anew in every file
            for k, (file, table) in enumerate(self.tables):
                if table.names != (self.name(file),):
                    apart = tuple(f"{self.name(file)}/{name}" for name in table.names)
                    self.tables[k] = (file, replace(table, names=apart))
        taken: dict[str, Path] = {}
        for file, table in self.tables:
            for name in table.names:
                if name in taken:
                    raise DataError(f"{taken[name]} and {file.name} are both series {name!r}: rename or drop one")
                taken[name] = file
        used = {*self.used, *(file for file, _ in self.tables)}
        unread = [p for p in walk(self.root) if p not in used and (self.wanted.labelled or p.stem.lower() != LABELS)]
        if unread:
            self.notes.append(f"not read: {shown(unread, self.root)}")
        return replace(joined(self.tables), notes=tuple(self.notes))


def walk(path: Path) -> Iterator[Path]:
    """Every visible file below, in an order that is the same on every machine."""
    for folder, below, files in os.walk(path, onerror=_refuse, followlinks=True):
        below[:] = sorted(name for name in below if _seen(name))
        yield from (Path(folder, name) for name in sorted(files) if _seen(name))


def shown(paths: Sequence[Path], root: Path | None = None) -> str:
    """The names of some files in a sentence."""
    names = [p.name if root is None else p.relative_to(root).as_posix() for p in paths]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} could not be read: {error.strerror}") from error


def _seen(name: str) -> bool:
    return not name.startswith((".", "__"))


def _series(here: Listing) -> list[Path]:
    """Files of one series each. Errors: DataError if there is something else beside them."""
    files = [file for file in here.files if file.suffix.lower() in LONG]
    if not files:
        raise DataError(f"{here.path} has no .csv or .parquet file of a series: add some")
    here.refuse_spare(files)
    return files
