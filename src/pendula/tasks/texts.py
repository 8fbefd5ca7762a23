"""Published texts: from the archives to the files that are read here, and the checks of their content."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy
from numpy.typing import NDArray

from pendula._check import DataError
from pendula.tasks.table import read_npz

REVIEWS = {
    "train_text": "adb4d9156083e5775c19e35f96b746f60d1716683b9e6911284fc3e2c7c2157b",
    "train_offsets": "dc676d79380333a1646fb7047a293da92e1189eb7ef2afac922dd30a562e7100",
    "train_label": "9964888963efd7b88e0af0bfafab25966b83719200f7a4bbfc1dc3bf45e4ea97",
    "train_rating": "136c3aa288388951cf8eb0a5cdbda7bb1812a6868126409e2fb1fff196c2ee86",
    "train_id": "afd8d6538f49a42106e87254071de572642ed510593eb26f42574783c68df746",
    "test_text": "75055f6305824731d1116d3ad0e8b8b18c7e2e50bddaf2786d3d4ed5ea0c19a8",
    "test_offsets": "43db0d6ca1700e43f30e4ecf4eaa4e60e334734724bd5eb388b6bc53bf5cdec2",
    "test_label": "9964888963efd7b88e0af0bfafab25966b83719200f7a4bbfc1dc3bf45e4ea97",
    "test_rating": "1191bbe349a7abc858a860cf3daa8a8cf1967496a6a20e72a67faeb74bf96e9e",
    "test_id": "afd8d6538f49a42106e87254071de572642ed510593eb26f42574783c68df746",
}
"""SHA-256 of the bytes of each array of the labelled reviews: negative by number, then positive by number."""

SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
"""SHA-256 of the text, not of the gzip file, whose bytes depend on who packed it."""

_REVIEW = re.compile(r"(?:^|/)(train|test)/(neg|pos)/(\d+)_(\d+)\.txt$")
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error)


def wrong_reviews(path: Path, digests: Mapping[str, str] = REVIEWS) -> str | None:
    """What is wrong with a file of reviews, in words; None if its content is the published one."""
    return _wrong(read_npz(path), digests)


def read_reviews(path: Path, digests: Mapping[str, str] = REVIEWS) -> dict[str, NDArray[Any]]:
    """The arrays of a file of reviews. Errors: DataError if its content is not the published one."""
    arrays = read_npz(path)
    wrong = _wrong(arrays, digests)
    if wrong:
        raise DataError(f"{path} does not hold the published reviews: {wrong}; delete it, then `pendula data get imdb`")
    return arrays


def _wrong(arrays: Mapping[str, NDArray[Any]], digests: Mapping[str, str]) -> str | None:
    for name, known in digests.items():
        if name not in arrays:
            return f"{name} is missing"
        got = hashlib.sha256(numpy.ascontiguousarray(arrays[name]).data).hexdigest()
        if got != known:
            return f"{name} has the SHA-256 {got}, needed is {known}"
    return None


def convert_reviews(archive: Path, target: Path, digests: Mapping[str, str] = REVIEWS) -> Path:
    """Write `target` (npz) from ``aclImdb_v1.tar.gz``, whole or not at all, once its content is verified.

    The labelled reviews only; per part ``*_text`` (their bytes one after another), ``*_offsets``, ``*_label`` (1 for
    positive), ``*_rating`` (1 to 10) and ``*_id``. Nothing is unpacked to the disk. Errors: DataError if the archive is
    damaged or something else.
    """
    found: dict[str, list[tuple[int, int, int, bytes]]] = {"train": [], "test": []}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                named = _REVIEW.search(member.name)
                file = tar.extractfile(member) if named else None
                if named and file:
                    part, side, number, rating = named.groups()
                    found[part].append((int(side == "pos"), int(number), int(rating), file.read()))
    except _DAMAGED as error:
        raise DataError(f"{archive} is not a whole tar.gz archive ({error}): delete it and fetch it again") from error
    arrays: dict[str, Any] = {}
    for part, reviews in found.items():
        reviews.sort(key=lambda review: review[:2])
        arrays[f"{part}_text"] = numpy.frombuffer(b"".join(text for *_, text in reviews), numpy.uint8)
        ends = numpy.cumsum([0, *(len(text) for *_, text in reviews)])
        arrays[f"{part}_offsets"] = ends.astype(numpy.int64)
        for place, (name, kind) in enumerate((("label", numpy.uint8), ("id", numpy.int32), ("rating", numpy.uint8))):
            arrays[f"{part}_{name}"] = numpy.array([review[place] for review in reviews]).astype(kind)
    wrong = _wrong(arrays, digests)
    if wrong:
        raise DataError(f"{archive} does not hold the published reviews: {wrong}; nothing was written")
    return write_whole(target, lambda file: numpy.savez_compressed(file, **arrays))


def wrong_shakespeare(path: Path, known: str = SHAKESPEARE) -> str | None:
    """What is wrong with the gzipped text, in words; None if it is the published one."""
    got = hashlib.sha256(unpacked(path)).hexdigest()
    return None if got == known else f"the text has the SHA-256 {got}, needed is {known}"


def convert_shakespeare(text: Path, target: Path) -> Path:
    """Write `target`, the text gzipped, whole or not at all."""
    packed = gzip.compress(text.read_bytes(), mtime=0)
    return write_whole(target, lambda file: file.write(packed))


def unpacked(path: Path) -> bytes:
    """The content of a gzip file. Errors: DataError if it is damaged."""
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}; delete it and fetch it again") from error


def write_whole(target: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a file so that it stands at `target` whole or not at all. Errors: DataError if it can't."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
        os.replace(part, target)
    except OSError as error:
        raise DataError(f"{target} could not be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return target
