"""The UCI HAR archive, from its text files to one npz file, and the check that the content is the published one."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from pendula._check import DataError
from pendula.tasks.download import digest
from pendula.tasks.table import read_npz

CHANNELS = tuple(f"{signal}_{axis}" for signal in ("body_acc", "body_gyro", "total_acc") for axis in "xyz")
ACTIVITIES = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")


@dataclass(frozen=True)
class HarFacts:
    """What the content of the UCI HAR windows is known to be.

    digests: SHA-256 of labels (0-based) and subjects as bytes, one per window; windows: how many in each part;
    mean and std: of each channel over each part, which have to agree within `tolerance`.
    """

    windows: Mapping[str, int]
    digests: Mapping[str, str]
    mean: Mapping[str, tuple[float, ...]]
    std: Mapping[str, tuple[float, ...]]
    steps: int = 128
    tolerance: float = 1e-4


PUBLISHED = HarFacts(
    windows={"train": 7352, "test": 2947},
    digests={
        "y_train": "222085d9d70948d9e252eb43a101307273edc61588c822a004cdcea259285ac9",
        "subject_train": "2c395e93c9183f14405c7fbca8167fa4cff788d038a352d3d5e426ed1aa58459",
        "y_test": "c6c5639491f71f640401d34ac4a15a109a8023b085f463afef7f2e9f6cefe907",
        "subject_test": "f6aca869c2a54b67d93c6bdb2e12b7e3bceaab643d231a52b0ade48423f05dfb",
    },
    mean={
        "train": (-0.000636, -0.000292, -0.000275, 0.000506, -0.000824, 0.000113, 0.804749, 0.028755, 0.086498),
        "test": (-0.000738, -0.00038, -0.000026, -0.013185, 0.001455, 0.00285, 0.817263, 0.004349, 0.080671),
    },
    std={
        "train": (0.194846, 0.122427, 0.106879, 0.406815, 0.381854, 0.255743, 0.414112, 0.390995, 0.357769),
        "test": (0.18431, 0.120603, 0.095535, 0.396516, 0.340445, 0.249416, 0.406513, 0.412041, 0.307925),
    },
)


def verify_har(arrays: Mapping[str, NDArray[Any]], facts: HarFacts = PUBLISHED) -> str | None:
    """What is wrong with the content, in words; None if it is the published one."""
    for part, windows in facts.windows.items():
        x = arrays.get(f"X_{part}")
        needed = (windows, facts.steps, len(CHANNELS))
        if x is None or x.shape != needed:
            return f"X_{part} is {'missing' if x is None else x.shape}, needed is {needed}"
        for key in (f"y_{part}", f"subject_{part}"):
            if key not in arrays:
                return f"{key} is missing"
            got = hashlib.sha256(numpy.ascontiguousarray(arrays[key], numpy.uint8).tobytes()).hexdigest()
            if got != facts.digests[key]:
                return f"{key} has the SHA-256 {got}, needed is {facts.digests[key]}"
        flat = x.reshape(-1, len(CHANNELS)).astype(numpy.float64)
        for what, values, known in (("mean", flat.mean(0), facts.mean), ("std", flat.std(0), facts.std)):
            off = numpy.abs(values - known[part])
            # written so that NaN is refused too
            if not bool((off <= facts.tolerance).all()):
                k = int(numpy.nan_to_num(off, nan=numpy.inf).argmax())
                return f"the {what} of {CHANNELS[k]} in {part} is {values[k]:.6f}, needed is {known[part][k]:.6f}"
    return None


def wrong_har(path: Path, facts: HarFacts = PUBLISHED) -> str | None:
    """What is wrong with a file, in words; None if its content is the published one. Errors: DataError if not npz."""
    return verify_har(read_npz(path), facts)


def convert_har(archive: Path, target: Path, facts: HarFacts = PUBLISHED) -> Path:
    """Write `target` (npz) from the UCI archive, whole or not at all, once its content is verified.

    The archive holds "UCI HAR Dataset.zip", or that file's folders directly. The npz file records the SHA-256 of the
    archive in `archive_sha256`; labels are 0-based. Errors: DataError if the archive is damaged or something else.
    """
    taken = digest(archive)
    try:
        with zipfile.ZipFile(archive) as outer:
            inner = [n for n in outer.namelist() if n.endswith("UCI HAR Dataset.zip") and not n.startswith("__MACOSX")]
            if not inner:
                arrays = _arrays(outer, archive)
            else:
                with zipfile.ZipFile(io.BytesIO(outer.read(inner[0]))) as file:
                    arrays = _arrays(file, archive)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(f"{archive} is not a whole zip archive ({error}): delete it and fetch it again") from error
    wrong = verify_har(arrays, facts)
    if wrong:
        raise DataError(f"{archive} (SHA-256 {taken}) is not the published UCI HAR data: {wrong}; nothing was written")
    write_npz(target, {"archive_sha256": taken, "channels": CHANNELS, "classes": ACTIVITIES, **arrays})
    return target


def write_npz(target: Path, content: Mapping[str, Any]) -> None:
    """Write arrays as a compressed npz file, whole or not at all. Errors: DataError if it cannot be written."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            numpy.savez_compressed(file, **content)
        os.replace(part, target)
    except OSError as error:
        raise DataError(f"{target} could not be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def read_har(path: Path, reconstruction: str, facts: HarFacts = PUBLISHED) -> tuple[dict[str, NDArray[Any]], str]:
    """The arrays and their provenance, in a sentence.

    `reconstruction` is the SHA-256 of the reconstructed file; any other content is verified. Errors: DataError if it
    is neither.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: `pendula data get uci_har` fetches it")
    if digest(path) == reconstruction:
        return read_npz(path), (
            "reconstructed from the raw recordings: labels, subjects and windows are the published ones, values agree "
            "with the published files to their rounding, not byte for byte"
        )
    arrays = read_npz(path)
    wrong = verify_har(arrays, facts)
    if wrong:
        raise DataError(f"{path} is not the UCI HAR data: {wrong}; delete it, then `pendula data get uci_har`")
    archive = arrays.get("archive_sha256")
    said = f" with SHA-256 {archive}" if archive is not None else ""
    return arrays, f"exact: converted from the published text files (archive{said}), rounded to float32"


def _arrays(file: zipfile.ZipFile, archive: Path) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("train", "test"):
        signals = [_text(file, archive, f"{part}/Inertial Signals/{c}_{part}.txt", numpy.float32) for c in CHANNELS]
        if len({signal.shape for signal in signals}) > 1:
            raise DataError(f"{archive}: the signals of {part} are not equally long; fetch the archive again")
        arrays[f"X_{part}"] = numpy.stack(signals, -1)
        for name, first in (("y", 1), ("subject", 0)):
            values = _text(file, archive, f"{part}/{name}_{part}.txt", numpy.int64).ravel()
            arrays[f"{name}_{part}"] = (values - first).astype(numpy.uint8)
    return arrays


def _text(file: zipfile.ZipFile, archive: Path, name: str, kind: type) -> NDArray[Any]:
    found = [n for n in file.namelist() if n.endswith(f"/{name}") and not n.startswith("__MACOSX")]
    if not found:
        raise DataError(f"{archive} has no {name}: it is not the UCI HAR archive")
    try:
        return numpy.loadtxt(io.BytesIO(file.read(found[0])), dtype=kind, ndmin=2)
    except ValueError as error:
        raise DataError(f"{archive}: {name} is not a table of numbers ({error}); fetch the archive again") from error
