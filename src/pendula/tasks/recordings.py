"""Published archives of recordings (wav, text and MATLAB files) as npz files, and whether the content is known."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy
from numpy.typing import NDArray

from pendula._check import DataError
from pendula.tasks.convert import write_npz
from pendula.tasks.download import digest
from pendula.tasks.source import Source
from pendula.tasks.table import read_npz

Arrays = Mapping[str, NDArray[Any]]

DIGITS = "24387fb640a319c7d6c42c9a948bed7dec08d088fe783c61c32581844e70fa98"
"""`content` of the spoken digits: 3000 recordings of 6 speakers."""

MUSIC = {
    "JSB_Chorales": "13317cc2b56a8542d14c27fa30e712cdd4380e535b7ebfbb10858d4a3df56836",
    "Nottingham": "c9b7016859fd9ad56ed6f8fbb784310809cf1aa5b3591b640347c1db5602cd53",
    "MuseData": "767d5c43a0e934f3f2dece8289fb57556eada047fa68ce6d2ae4095e66855dfb",
    "Piano_midi": "8cf73f27bae4d467bf0930309657da73511ef42414b67385d94252506eb1983a",
}
"""`content` of each set of piano rolls."""

ACTIVITIES = (
    *("none", "WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"),
    *("STAND_TO_SIT", "SIT_TO_STAND", "SIT_TO_LIE", "LIE_TO_SIT", "STAND_TO_LIE", "LIE_TO_STAND"),
)
SEGMENTS = "ac00e49e0a6f5d0ba6cd1db8679b04299edc659c5752d0db9c9207f6a2623db0"
"""`content` of the recordings behind UCI HAR without the signals."""
MEAN = (0.819331, -0.007894, 0.082196, 0.020848, -0.008316, -0.010649)
STD = (0.396122, 0.374012, 0.360428, 0.580687, 0.454656, 0.348652)
"""Of their signals, channel by channel."""

_WAV = re.compile(r"(?:^|/)recordings/(\d)_([a-z]+)_(\d+)\.wav$")
_SIGNAL = re.compile(r"(?:^|/)RawData/(acc|gyro)_exp(\d+)_user(\d+)\.txt$")
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error)


def provenance(path: Path, source: Source) -> str:
    """What a source says of its content, where a file has that content; else that it is something else."""
    if digest(path) in [file.sha256 for file in source.files]:
        return source.provenance
    try:
        wrong = source.verify(path) if source.verify else "another SHA-256 than the known file"
    except DataError as error:
        wrong = str(error)
    return f"unknown: {path.name} is not the data set {source.name} as known here" if wrong else source.provenance


def content(arrays: Arrays, keys: Iterable[str]) -> str:
    """A SHA-256 of what some arrays hold, of their types and their shapes. Errors: DataError if one is missing."""
    whole = hashlib.sha256()
    for key in keys:
        if key not in arrays:
            raise DataError(f"{key} is missing")
        whole.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        whole.update(numpy.ascontiguousarray(arrays[key]).tobytes())
    return whole.hexdigest()


def convert_digits(archive: Path, target: Path) -> None:
    """Write `target` from the tar.gz archive of the Free Spoken Digit Dataset: takes 0 to 4 test, the others train.

    Per part ``*_wave`` (int16, one recording after another by speaker, digit and take), ``*_offsets``, ``*_label``,
    ``*_speaker`` and ``*_take``; ``speakers``; ``sample_rate``. Errors: DataError if it is something else.
    """
    found: dict[tuple[str, int, int], NDArray[numpy.int16]] = {}
    try:
        with tarfile.open(archive, "r:gz") as file:
            for member in file:
                named = _WAV.search(member.name)
                read = file.extractfile(member) if named and member.isfile() else None
                if named and read:
                    found[named[2], int(named[1]), int(named[3])] = _samples(read.read(), archive, member.name)
    except _DAMAGED as error:
        raise DataError(f"{archive} is not a whole tar.gz archive ({error}): delete it and fetch it again") from error
    speakers = sorted({speaker for speaker, _, _ in found})
    arrays: dict[str, Any] = {"speakers": numpy.array(speakers), "sample_rate": numpy.array(8000, numpy.int32)}
    for part in ("train", "test"):
        chosen = sorted(key for key in found if (key[2] < 5) == (part == "test"))
        if not chosen:
            raise DataError(f"{archive} has no recordings/<digit>_<speaker>_<take>.wav to {part}: fetch it again")
        waves = [found[key] for key in chosen]
        arrays[f"{part}_wave"] = numpy.concatenate(waves)
        arrays[f"{part}_offsets"] = numpy.cumsum([0, *map(len, waves)], dtype=numpy.int64)
        facts = numpy.array([(digit, speakers.index(speaker), take) for speaker, digit, take in chosen], numpy.uint8)
        arrays |= {f"{part}_{name}": facts[:, k] for k, name in enumerate(("label", "speaker", "take"))}
    write_npz(target, arrays)


def _samples(data: bytes, archive: Path, name: str) -> NDArray[numpy.int16]:
    try:
        with wave.open(io.BytesIO(data)) as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            samples = numpy.frombuffer(file.readframes(file.getnframes()), "<i2" if kind[1] == 2 else "u1")
    except (wave.Error, EOFError) as error:
        raise DataError(f"{archive}: {name} is no wav file ({error}): fetch the archive again") from error
    if kind != (1, 2, 8000) or not len(samples):
        raise DataError(
            f"{archive}: {name} has {kind[0]} channels of {kind[1]} bytes at {kind[2]} Hz, {len(samples)} samples; "
            "needed are 1 channel of 2 bytes at 8000 Hz"
        )
    return samples.astype(numpy.int16)


def wrong_digits(path: Path, known: str = DIGITS) -> str | None:
    """What is wrong with a file of spoken digits, in words; None if its content is the known one."""
    keys = [f"{part}_{name}" for part in ("train", "test") for name in ("wave", "offsets", "label", "speaker", "take")]
    got = content(read_npz(path), [*keys, "speakers", "sample_rate"])
    return None if got == known else f"its content has the SHA-256 {got}, needed is {known}"


def convert_activity(archive: Path, target: Path) -> None:
    """Write `target` from the zip archive of the recordings behind UCI HAR (its folder ``RawData``).

    ``signal`` (S, 6) float32, acc and gyro of one recording after another; ``offsets``, ``experiment``, ``subject``;
    ``label`` (S,), 0 outside the ``segments`` (experiment, subject, activity, first and last sample from 1). Errors:
    DataError if it is something else.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            names = [name for name in file.namelist() if not name.startswith("__MACOSX")]
            signals = {(m[1], int(m[2]), int(m[3])): name for name in names if (m := _SIGNAL.search(name))}
            who = sorted({(experiment, subject) for _, experiment, subject in signals})
            segments = _table(file, archive, names, "RawData/labels.txt", numpy.int32, 5)
            blocks = []
            for experiment, subject in who:
                pair = [signals.get((sensor, experiment, subject), "gyro or acc") for sensor in ("acc", "gyro")]
                acc, gyro = (_table(file, archive, names, name, numpy.float32, 3) for name in pair)
                if len(acc) != len(gyro):
                    raise DataError(f"{archive}: experiment {experiment} has {len(acc)} and {len(gyro)} samples")
                blocks.append(numpy.concatenate((acc, gyro), 1))
    except _DAMAGED as error:
        raise DataError(f"{archive} is not a whole zip archive ({error}): delete it and fetch it again") from error
    if not blocks:
        raise DataError(f"{archive} has no RawData/acc_exp01_user01.txt and so on: it is not the HAPT archive")
    offsets = numpy.cumsum([0, *map(len, blocks)], dtype=numpy.int64)
    label = numpy.zeros(offsets[-1], numpy.uint8)
    place = {pair: int(offset) for pair, offset in zip(who, offsets, strict=False)}
    for experiment, subject, activity, first, last in segments.tolist():
        if (experiment, subject) not in place or not 0 <= activity < len(ACTIVITIES):
            raise DataError(f"{archive}: labels.txt has experiment {experiment}, subject {subject}, label {activity}")
        start = place[experiment, subject]
        label[start + first - 1 : start + last] = activity
    known = {"channels": [f"{s}_{axis}" for s in ("acc", "gyro") for axis in "xyz"], "classes": ACTIVITIES}
    pairs = numpy.array(who, numpy.uint8)
    facts = {"offsets": offsets, "label": label, "experiment": pairs[:, 0], "subject": pairs[:, 1]}
    write_npz(target, {"signal": numpy.concatenate(blocks), **facts, "segments": segments, **known})


def _table(file: zipfile.ZipFile, archive: Path, names: list[str], name: str, kind: type, columns: int) -> NDArray[Any]:
    found = [n for n in names if n == name or n.endswith(f"/{name}")]
    if not found:
        raise DataError(f"{archive} has no {name}: it is not the HAPT archive")
    try:
        table: NDArray[Any] = numpy.loadtxt(io.BytesIO(file.read(found[0])), dtype=kind, ndmin=2)
    except ValueError as error:
        raise DataError(f"{archive}: {name} is not a table of numbers ({error}): fetch the archive again") from error
    if table.shape[1] != columns:
        raise DataError(f"{archive}: {name} has {table.shape[1]} columns, needed are {columns}")
    return table


def wrong_activity(
    path: Path, known: str = SEGMENTS, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> str | None:
    """What is wrong with a file of recordings, in words; None if labels are the known ones and signals agree.

    Signals are compared by mean and deviation, within 2e-6: their last digit depends on how the text was read.
    """
    arrays = read_npz(path)
    got = content(arrays, ("offsets", "label", "experiment", "subject", "segments"))
    if got != known:
        return f"labels and segments have the SHA-256 {got}, needed is {known}"
    signal = arrays.get("signal", numpy.zeros((0, 0))).astype(numpy.float64)
    if signal.shape != (len(arrays["label"]), len(mean)):
        return f"signal is {signal.shape}, needed is {(len(arrays['label']), len(mean))}"
    for what, values, needed in (("mean", signal.mean(0), mean), ("deviation", signal.std(0), std)):
        # written so that NaN is refused too
        if not bool((numpy.abs(values - needed) <= 2e-6).all()):
            return f"the {what} of the channels is {values.round(6).tolist()}, needed is {list(needed)}"
    return None


def convert_music(mat: Path, target: Path) -> None:
    """Write `target` from a MATLAB file of piano rolls: cells ``traindata``, ``validdata``, ``testdata`` of (T, 88).

    Per part (train, valid, test) ``*_bits``, eight keys a byte, and ``*_offsets``. Errors: DataError if it is
    something else, or scipy is missing.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise DataError("MATLAB files are read with scipy: pip install 'pendula[train]'") from error
    try:
        cells = loadmat(str(mat))
    except (OSError, EOFError, ValueError, TypeError, NotImplementedError, zlib.error, MatReadError) as error:
        raise DataError(f"{mat} is not a whole MATLAB file ({error}): delete it and fetch it again") from error
    arrays = {}
    for part in ("train", "valid", "test"):
        rolls = list(numpy.ravel(cells.get(f"{part}data", ())))
        if not rolls or any(getattr(roll, "ndim", 0) != 2 or roll.shape[1] != 88 for roll in rolls):
            raise DataError(f"{mat} has no {part}data of piano rolls with 88 columns: fetch it again")
        whole = numpy.concatenate(rolls)
        if not bool(numpy.isin(whole, (0, 1)).all()):
            raise DataError(f"{mat}: {part}data has numbers that are not 0 or 1: fetch it again")
        arrays[f"{part}_bits"] = numpy.packbits(whole.astype(bool), axis=1)
        arrays[f"{part}_offsets"] = numpy.cumsum([0, *map(len, rolls)], dtype=numpy.int64)
    write_npz(target, arrays)


def wrong_music(path: Path, known: Mapping[str, str] = MUSIC) -> str | None:
    """What is wrong with a file of piano rolls, called after its set; None if its content is the known one."""
    keys = [f"{part}_{name}" for part in ("train", "valid", "test") for name in ("bits", "offsets")]
    got, needed = content(read_npz(path), keys), known[PurePosixPath(path).stem]
    return None if got == needed else f"its content has the SHA-256 {got}, needed is {needed}"
