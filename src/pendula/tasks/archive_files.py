"""From the published files of the UCR, UEA and TSER archives to one npz file for each set, and what is known of it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from pendula._check import DataError, did_you_mean
from pendula.tasks.archive_facts import KNOWN, NAMES
from pendula.tasks.arff import READERS
from pendula.tasks.convert import write_npz
from pendula.tasks.source import Source, Stored
from pendula.tasks.table import Table, read_npz

ADDRESS = "https://www.timeseriesclassification.com/aeon-toolkit/{}.zip"
CITATION = (
    "Dau et al., The UCR time series archive, 2019; Bagnall et al., The UEA multivariate time series classification "
    "archive, 2018; and the work that the page of the set names"
)
FOLDER = "ucr_uea"
HALVES = ("TRAIN", "TEST")
VARIANTS = ("_eq_", "_nmv_")


def archive_set(name: str) -> Source:
    """The source of one set of the UCR and UEA archives, by its published name."""
    known = KNOWN.get(name)
    summary, provenance = "with the published training and test part", "no checksum of this set is known"
    if known is not None:
        train, test, steps, channels, classes = known.counts
        summary = f"{train} + {test} series of up to {steps} x {channels}, {classes} classes"
        provenance = "labels and values are compared with known ones"
    return Source(
        name,
        f"UCR or UEA archive: {summary}",
        (Stored(f"{FOLDER}/{name}.npz", known.sha256 if known else "", known.size if known else 0),),
        "the archives state none",
        CITATION,
        f"converted from the published files; {provenance}",
        f"`pendula data get {name}` downloads it; {name}_TRAIN.ts and {name}_TEST.ts in ucr_uea are read too",
        archive=(ADDRESS.format(name),),
        convert=convert_zip,
        verify=wrong_set,
    )


def convert_zip(archive: Path, target: Path) -> None:
    """Write `target`, called after the set, from the zip archive that holds its .ts or .arff files.

    Errors: DataError if the archive is none, or has not one pair of files for training and test.
    """
    name = target.stem
    try:
        with zipfile.ZipFile(archive) as file, tempfile.TemporaryDirectory() as folder:
            paths = []
            for member in _members(file.namelist(), name, archive):
                path = Path(folder) / Path(member).name
                with file.open(member) as packed, open(path, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
                paths.append(path)
            convert_pair(paths[0], paths[1], target)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        unknown = "" if name in NAMES else f"; is {name!r} the published name{did_you_mean(name, NAMES)}?"
        raise DataError(f"{archive} is not a whole zip archive ({error}): fetch it again{unknown}") from error


def convert_pair(train: Path, test: Path, target: Path) -> None:
    """Write `target` (npz) from a pair of .ts or .arff files, whole or not at all."""
    write_npz(target, arrays_of(read_published(train), read_published(test)))


def read_published(path: Path) -> Table:
    """The series of a .ts or .arff file."""
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path} is of another kind: the archives are read from {' and '.join(READERS)}")
    return READERS[path.suffix.lower()](path)


def arrays_of(train: Table, test: Table) -> dict[str, NDArray[Any]]:
    """Both halves as one npz file holds them.

    X_train, X_test (N, T, I) float32, zero after the end of a series, NaN where missing; y_* (N,) places in `classes`,
    uint8, or numbers float32; length_* (N,) int32 where lengths differ. Errors: DataError if the halves do not go
    together.
    """
    if len(train.channels) != len(test.channels):
        raise DataError(f"train has {len(train.channels)} dimensions, test {len(test.channels)}: both need the same")
    if isinstance(train.labels, tuple) != isinstance(test.labels, tuple):
        raise DataError("one of train and test has classes and the other numbers: both need the same")
    halves = {"train": train, "test": test}
    lengths = {part: numpy.diff(table.offsets) for part, table in halves.items()}
    longest = max(int(of.max()) for of in lengths.values())
    arrays: dict[str, NDArray[Any]] = {}
    classes = _in_order(
        {label for table in halves.values() if isinstance(table.labels, tuple) for label in table.labels}
    )
    places = {label: k for k, label in enumerate(classes)}
    for part, table in halves.items():
        x = numpy.zeros((len(table), longest, len(table.channels)), numpy.float32)
        x[numpy.arange(longest) < lengths[part][:, None]] = table.values
        arrays[f"X_{part}"] = x
        if isinstance(table.labels, tuple):
            kind = numpy.uint8 if len(classes) <= 256 else numpy.int64
            arrays[f"y_{part}"] = numpy.array([places[label] for label in table.labels], kind)
        elif table.labels is not None:
            arrays[f"y_{part}"] = table.labels[:, 0].astype(numpy.float32)
        if any(int(of.min()) < longest for of in lengths.values()):
            arrays[f"length_{part}"] = lengths[part].astype(numpy.int32)
    if classes:
        arrays["classes"] = numpy.array(classes)
    return arrays


def wrong_set(path: Path) -> str | None:
    """What is wrong with the npz file of a set, in words; None if nothing is, as far as is known."""
    return verify_set(read_npz(path), path.stem)


def verify_set(arrays: Mapping[str, NDArray[Any]], name: str) -> str | None:
    """What is wrong with the content of a set, in words; None if nothing is, as far as is known."""
    absent = [key for key in ("X_train", "y_train", "X_test", "y_test", "classes") if key not in arrays]
    if absent:
        return f"it has no {', '.join(absent)}"
    classes = len(arrays["classes"])
    for part in ("train", "test"):
        x, y = arrays[f"X_{part}"], arrays[f"y_{part}"]
        if x.ndim != 3 or 0 in x.shape or y.shape != (len(x),) or x.shape[1:] != arrays["X_train"].shape[1:]:
            return f"X_{part} is {x.shape} and y_{part} {y.shape}, needed are (N, T, I) and (N,)"
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
            return f"y_{part} has to be 0 to {classes - 1}, places in classes"
        lengths = arrays.get(f"length_{part}", numpy.full(len(x), x.shape[1]))
        if (
            lengths.shape != y.shape
            or lengths.dtype.kind not in "iu"
            or not 1 <= lengths.min() <= lengths.max() <= x.shape[1]
        ):
            return f"length_{part} has to be 1 to {x.shape[1]}, one for each series"
    return _unlike(arrays, name) if name in KNOWN else None


def wrong_values(path: Path, shape: tuple[int, int, int]) -> str | None:
    """What is wrong with the npz file of a regression set, in words; None if nothing is, as far as is known."""
    return verify_values(read_npz(path), shape)


def verify_values(arrays: Mapping[str, NDArray[Any]], shape: tuple[int, int, int]) -> str | None:
    """What is wrong with a set whose targets are numbers: shape is series in both parts, steps, channels."""
    absent = [key for key in ("X_train", "y_train", "X_test", "y_test") if key not in arrays]
    if absent:
        return f"it has no {', '.join(absent)}"
    got = (len(arrays["X_train"]) + len(arrays["X_test"]), *arrays["X_train"].shape[1:])
    if got != shape or arrays["X_test"].shape[1:] != shape[1:]:
        return f"series in both parts, steps and channels are {got}, needed are {shape}"
    for part in ("train", "test"):
        x, y = arrays[f"X_{part}"], arrays[f"y_{part}"]
        if y.shape != (len(x),) or y.dtype.kind != "f":
            return f"y_{part} is {y.dtype} {y.shape}, needed is a number for each of {len(x)} series"
        if not (numpy.isfinite(x).all() and numpy.isfinite(y).all()):
            return f"X_{part} or y_{part} has values that are not finite"
    return None


def exactness(arrays: Mapping[str, NDArray[Any]], name: str) -> str:
    """How near the content of a set is to what is known of it, in words."""
    if name not in KNOWN:
        return "the archives' published files as they came; no checksum of this set is known"
    if content_digest(arrays) == KNOWN[name].content:
        return "exact: the archive's published files, the content has the known checksum"
    return "the archive's published files; values agree with the known ones to 1e-6, not digit for digit"


def content_digest(arrays: Mapping[str, NDArray[Any]], kinds: tuple[str, ...] = ("X", "y", "length")) -> str:
    """SHA-256 of the arrays of both halves with their names, types and shapes, whatever wrote and packed the file."""
    found = hashlib.sha256()
    for key in (f"{kind}_{part}" for part in ("train", "test") for kind in kinds):
        if key in arrays:
            array = numpy.ascontiguousarray(arrays[key])
            found.update(f"{key} {array.dtype.str} {array.shape}".encode())
            found.update(array.data)
    return found.hexdigest()


def projection(arrays: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    """Sum of all values weighted by cos(place), which feels their order, and what it may be off by.

    Texts of the same numbers, printed with fewer digits, change it by less than a millionth of the sum of magnitudes.
    """
    total = magnitude = 0.0
    for part in ("train", "test"):
        flat = numpy.nan_to_num(arrays[f"X_{part}"]).ravel().astype(numpy.float64)
        total += float(flat @ numpy.cos(numpy.arange(len(flat), dtype=numpy.float64)))
        magnitude += float(numpy.abs(flat).sum())
    return total, 1e-6 * magnitude


def _unlike(arrays: Mapping[str, NDArray[Any]], name: str) -> str | None:
    known = KNOWN[name]
    got = (len(arrays["X_train"]), len(arrays["X_test"]), *arrays["X_train"].shape[1:], len(arrays["classes"]))
    if got != known.counts:
        return f"series in train and test, steps, channels and classes are {got}, of {name} they are {known.counts}"
    if content_digest(arrays, ("y", "length")) != known.labels:
        return f"labels, lengths or their order are not those of {name}"
    total, tolerance = projection(arrays)
    if not abs(total - known.projection) <= tolerance:
        return f"the values are not those of {name}: their projection is {total:.6g}, needed is {known.projection:.6g}"
    return None


def find_pair(folder: Path, name: str = "*") -> tuple[Path, Path] | None:
    """The files of a set for training and test in a folder, .ts before .arff. Errors: DataError if several fit."""
    for suffix in READERS:
        pairs = [
            (p, p.with_name(p.name.replace("_TRAIN", "_TEST"))) for p in sorted(folder.glob(f"{name}_TRAIN{suffix}"))
        ]
        pairs = [pair for pair in pairs if pair[1].is_file()]
        if len(pairs) > 1:
            raise DataError(f"{folder} holds {', '.join(p.name for p, _ in pairs[:4])}: say which `set` is meant")
        if pairs:
            return pairs[0]
    return None


def _in_order(labels: set[str]) -> list[str]:
    """Numbers by size, names by letter."""
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)


def _members(names: list[str], name: str, archive: Path) -> list[str]:
    """The members of a zip archive that are the two halves: under the name of the set, else the only such pair."""
    inside = [n for n in names if not n.startswith("__MACOSX")]
    for suffix in READERS:
        whole = [n for n in inside if n.lower().endswith(tuple(f"_{half.lower()}{suffix}" for half in HALVES))]
        exact = [n for half in HALVES for n in whole if Path(n).name == f"{name}_{half}{suffix}"]
        others = [n for n in whole if not any(v in n for v in VARIANTS) and "Dimension" not in n]
        for found in (exact, sorted(others, key=lambda n: n.lower().endswith(f"_test{suffix}"))):
            if len(found) == 2:
                return found
    raise DataError(
        f"{archive} has no pair {name}_TRAIN.ts and {name}_TEST.ts (or .arff): it holds {', '.join(inside[:8])}"
    )
