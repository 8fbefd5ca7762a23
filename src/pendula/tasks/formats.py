"""From a file or a folder to one table of series: .npz, .ts, .arff, .csv and .parquet."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from pendula._check import DataError, did_you_mean
from pendula.tasks.arff import read_arff
from pendula.tasks.folder import Listing, read_folder
from pendula.tasks.longform import LONG, read_long
from pendula.tasks.table import PART_NAMES, Columns, Floats, Table, Wanted, joined, part_of, read_npz
from pendula.tasks.uea import read_ts

PUBLISHED = {".ts": read_ts, ".arff": read_arff}
FORMATS = (".npz", *PUBLISHED, *LONG)
SHEETS = (".xlsx", ".xls", ".ods")


def read(
    path: Path,
    columns: Columns,
    *,
    labelled: bool = True,
    per_step: bool = False,
    channels: tuple[str, ...] | None = None,
) -> Table:
    """The series of a file, or of a folder of files.

    A folder holds ``*_TRAIN.ts`` and ``*_TEST.ts`` (else .arff); or files called train, validation and test; or what
    `pendula.tasks.folder.read_folder` reads: a .csv or .parquet file per series.

    Args:
        path: the file or folder.
        columns: what the columns of .csv and .parquet files are called.
        labelled: whether labels (and parts) are needed; without, a file without series ids is one series.
        per_step: whether there is a label at every step instead of one per series.
        channels: the channels to take, in this order; None takes all.

    Errors: DataError naming the file, the place in it, what was found and what is needed.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: give a file ({', '.join(FORMATS)}) or a folder of such files")
    wanted = Wanted(columns, labelled, per_step, channels)
    table = (_folder if path.is_dir() else _file)(path, wanted)
    return table if channels is None else table.select(channels, path)


def _file(path: Path, wanted: Wanted) -> Table:
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read: give yourself the right to read it")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: needed are series")
    suffix, labelled = path.suffix.lower(), wanted.labelled
    if labelled and wanted.per_step and suffix in FORMATS and suffix not in LONG:
        raise DataError(f"{path} has one label per series: per_step=true needs {' or '.join(LONG)}")
    match suffix:
        case ".npz":
            return _npz(path, labelled)
        case suffix if suffix in PUBLISHED:
            return PUBLISHED[suffix](path, labelled=labelled)
        case suffix if suffix in LONG:
            return read_long(path, wanted, series=None if labelled else path.stem)
    hint = "; save the sheet as .csv" if suffix in SHEETS else ""
    raise DataError(f"{path} is of a kind that is not read: needed is one of {', '.join(FORMATS)}{hint}")


def _folder(path: Path, wanted: Wanted) -> Table:
    here = Listing.of(path, FORMATS)
    if any(p.suffix.lower() == ".ts" for p in here.files):
        # the archives hand out the same series as .arff too
        here = Listing.of(path, tuple(suffix for suffix in FORMATS if suffix != ".arff"))
    halves = [(p, p.stem.rpartition("_")[2].lower()) for p in here.files if p.suffix.lower() in PUBLISHED]
    halves = [(p, half) for p, half in halves if half in ("train", "test")]
    # a series to predict may be called test
    named = [p for p in here.files if wanted.labelled or p.suffix.lower() not in LONG]
    parts = halves or [(p, p.stem.lower()) for p in named if p.stem.lower() in PART_NAMES]
    if not parts or here.labels is not None:
        return read_folder(path, wanted, FORMATS)
    here.refuse_spare([p for p, _ in parts])
    return _by_part(path, parts, wanted)


def _by_part(path: Path, files: list[tuple[Path, str]], wanted: Wanted) -> Table:
    tables: list[tuple[Path, Table]] = []
    seen: dict[str, Path] = {}
    for file, called in files:
        part = part_of(called, str(file))
        if part in seen:
            raise DataError(f"{path} has two files for {part}, {seen[part].name} and {file.name}: keep one of them")
        seen[part] = file
        table = _file(file, wanted)
        if table.parts is not None:
            raise DataError(
                f"{file} has parts of its own and stands for {part}: drop the column {wanted.columns.part!r}"
            )
        tables.append((file, replace(table, parts=(part,) * len(table)) if wanted.labelled else table))
    if wanted.labelled and "train" not in seen:
        raise DataError(f"{path} has {', '.join(f.name for f in seen.values())} but no file for train: add one")
    return joined(tables)


def _npz(path: Path, labelled: bool) -> Table:
    arrays = read_npz(path)
    suffixes = [""] if {"X", "flat"} & set(arrays) else ["_train", "_validation", "_test"]
    suffixes = [s for s in suffixes if s == "" or f"X{s}" in arrays]
    if not suffixes or (labelled and suffixes[0] not in ("", "_train")):
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}: needed are X and y (and lengths), X_train, y_train, "
            "X_test and y_test (and length_train, length_test), or flat, offsets and y"
        )
    read_keys = {f"{key}{s}" for s in suffixes for key in ("X", "y", "length", "lengths", "subject")}
    spare = sorted(set(arrays) - read_keys - {"flat", "offsets", "classes"})
    if spare:
        raise DataError(
            f"{path} has arrays that are not read: {', '.join(spare)}; rename or drop them (parts are X_train, "
            "X_validation and X_test, each with y_ and length_; time stamps need .csv, .parquet or .ts)"
        )
    tables = []
    for suffix in suffixes:
        values, offsets = _npz_series(path, arrays, suffix)
        count, part = len(offsets) - 1, suffix.removeprefix("_")
        labels = _npz_labels(path, arrays, suffix, count) if labelled else None
        names = tuple(f"{part}/{i}" if part else str(i) for i in range(count))
        key = f"subject{suffix}"
        subjects = tuple(str(s) for s in _one_each(path, arrays[key], key, count)) if key in arrays else None
        channels = tuple(str(k) for k in range(values.shape[1]))
        parts = (part,) * count if part and labelled else None
        named = "classes" in arrays and isinstance(labels, tuple)
        classes = tuple(str(c) for c in arrays["classes"]) if named else None
        tables.append((path, Table(values, offsets, channels, names, None, labels, classes, subjects, parts)))
    if len({table.channels for _, table in tables}) > 1:
        widths = ", ".join(str(len(table.channels)) for _, table in tables)
        raise DataError(f"{path}: the parts have {widths} channels, all need the same")
    return joined(tables)


def _npz_series(path: Path, arrays: dict[str, NDArray[Any]], suffix: str) -> tuple[Floats, NDArray[numpy.int64]]:
    key = "flat" if not suffix and "flat" in arrays else f"X{suffix}"
    x = arrays[key]
    if x.dtype.kind not in "fiub":
        raise DataError(f"{path}: {key} holds {x.dtype}, needed are numbers")
    if key == "flat":
        if "offsets" not in arrays:
            raise DataError(f"{path} has flat but no offsets: series i is flat[offsets[i]:offsets[i + 1]]")
        offsets = arrays["offsets"]
        flat = x.reshape(len(x), -1) if x.ndim in (1, 2) else x
        whole = offsets.ndim == 1 and len(offsets) > 1 and offsets.dtype.kind in "iu"
        lengths = numpy.diff(offsets.astype(numpy.int64)) if whole else numpy.zeros(1)
        if flat.ndim != 2 or lengths.min() < 1 or offsets[0] != 0 or offsets[-1] != len(flat):
            raise DataError(f"{path}: offsets must be whole numbers rising from 0 to {len(flat)}, the length of flat")
        values = flat.astype(numpy.float64)
    else:
        x = x[:, :, None] if x.ndim == 2 else x
        if x.ndim != 3 or 0 in x.shape:
            raise DataError(f"{path}: {key} must be (series, samples, channels), none of them 0, got {x.shape}")
        given = next((k for k in (f"length{suffix}", f"lengths{suffix}") if k in arrays), None)
        lengths = numpy.full(len(x), x.shape[1])
        if given is not None:
            lengths = _one_each(path, arrays[given], given, len(x))
            if lengths.dtype.kind not in "iu" or lengths.min() < 1 or lengths.max() > x.shape[1]:
                raise DataError(f"{path}: {given} must be whole numbers from 1 to {x.shape[1]}, as {key} is long")
        values = x[numpy.arange(x.shape[1]) < lengths[:, None]].astype(numpy.float64)
    if numpy.isinf(values).any():
        raise DataError(f"{path}: {key} holds infinite values: needed are finite numbers, or NaN where missing")
    return values, numpy.concatenate(([0], numpy.cumsum(lengths.astype(numpy.int64))))


def _npz_labels(path: Path, arrays: dict[str, NDArray[Any]], suffix: str, count: int) -> tuple[str, ...] | Floats:
    key = f"y{suffix}"
    if key not in arrays:
        raise DataError(f"{path} has no {key}{did_you_mean(key, arrays)}: it holds {', '.join(arrays)}")
    y, classes = arrays[key], arrays.get("classes")
    if y.dtype.kind == "f" and y.ndim in (1, 2) and len(y) == count and classes is None:
        if not numpy.isfinite(y).all():
            raise DataError(f"{path}: {key} holds NaN or infinite values: every series needs its number")
        return y.reshape(count, -1).astype(numpy.float64)
    y = _one_each(path, y, key, count)
    if classes is None or y.dtype.kind in "US":
        return tuple(str(label) for label in (y.astype(str) if y.dtype.kind == "S" else y))
    index = y.astype(numpy.int64)
    if (index != y).any() or index.min() < 0 or index.max() >= len(classes):
        top = len(classes) - 1
        raise DataError(f"{path}: {key} must be 0 to {top}, places in classes, got {y.min()} to {y.max()}")
    return tuple(str(classes[i]) for i in index)


def _one_each(path: Path, values: NDArray[Any], key: str, count: int) -> NDArray[Any]:
    if values.shape != (count,):
        raise DataError(f"{path}: {key} must hold one value per series, shape ({count},), got {values.shape}")
    return values
