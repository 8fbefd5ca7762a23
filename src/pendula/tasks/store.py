"""Data files: where they are, what they should be, and how to fetch them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pendula._check import DataError, did_you_mean
from pendula.tasks.convert import PUBLISHED, HarFacts, convert_har, verify_har
from pendula.tasks.download import digest, download
from pendula.tasks.table import read_npz

ENVIRONMENT = "PENDULA_DATA"


@dataclass(frozen=True)
class Stored:
    """A file: its path below the data folder, its SHA-256, its size in bytes, and where it can be downloaded."""

    path: str
    sha256: str
    size: int
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set: its files and what has to be said about them.

    archive: the address of an archive that the file is converted from, where the file itself cannot be downloaded.
    """

    name: str
    summary: str
    files: tuple[Stored, ...]
    licence: str
    citation: str
    provenance: str
    how_to_get: str
    archive: str = ""


class Row(NamedTuple):
    """A line of the listing: where is the folder that holds the files, None when one is missing; size in bytes."""

    name: str
    summary: str
    where: Path | None
    size: int


def _mnist(file: str, size: int, sha256: str) -> Stored:
    hosts = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
    name = f"{file}-ubyte.gz"
    return Stored(f"mnist/{name}", sha256, size, tuple(f"{host}/{name}" for host in hosts))


_SOURCES = (
    Source(
        "mnist",
        "60 000 + 10 000 handwritten digits of 28 x 28 pixels",
        (
            _mnist("train-images-idx3", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            _mnist("train-labels-idx1", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            _mnist("t10k-images-idx3", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            _mnist("t10k-labels-idx1", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        "commonly stated as CC BY-SA 3.0",
        "LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, "
        "Proc. IEEE 86(11), 1998",
        "exact: the four published files",
        "`pendula data get mnist` downloads four files",
    ),
    Source(
        "uci_har",
        "10 299 windows of 2.56 s from a phone at the waist, 9 channels at 50 Hz, six activities, 30 subjects",
        (Stored("uci_har/uci_har.npz", "e5c23ebbd1dc0c41bd40baebdf66b5092c1e621b6565ee94eba96bcede6a883e", 24317594),),
        "CC BY 4.0 by the UCI page; an older README of the authors says any commercial use is prohibited",
        "Anguita, Ghio, Oneto, Parra, Reyes-Ortiz, A public domain dataset for human activity recognition using "
        "smartphones, ESANN 2013",
        "converted from the published text files, or reconstructed from the raw recordings; the file says which",
        "`pendula data get uci_har` downloads the UCI archive and converts it",
        "https://archive.ics.uci.edu/static/public/240/human+activity+recognition+using+smartphones.zip",
    ),
)
SOURCES: dict[str, Source] = {source.name: source for source in _SOURCES}


def cache() -> Path:
    """The folder that downloads go to."""
    try:
        import pooch
    except ImportError:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pendula"
    return Path(pooch.os_cache("pendula"))


def folders() -> list[Path]:
    """Where data files are looked for, in this order: PENDULA_DATA where it is set, then the cache."""
    given = os.environ.get(ENVIRONMENT)
    if not given:
        return [cache()]
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise DataError(f"{ENVIRONMENT} is {given!r}, which is not a folder: set it to the data folder, or unset it")
    return [folder, cache()]


def fetch(name: str) -> Path:
    """The path of a data file such as "mnist/t10k-labels-idx1-ubyte.gz". Never downloads.

    Errors: DataError, which says how to get it, when it is in none of the folders.
    """
    found = _find(name)
    if found is not None:
        return found
    source = SOURCES.get(name.split("/")[0])
    fetched = f"`pendula data get {source.name}` fetches it, or " if source else ""
    raise DataError(f"{name} is missing: {fetched}{_by_hand(name)}")


def listing() -> list[Row]:
    """Every known data set, and where it is."""
    rows = []
    for source in SOURCES.values():
        found = [_find(file.path) for file in source.files]
        here = [path for path in found if path is not None]
        complete = len(here) == len(found)
        size = sum(path.stat().st_size for path in here) if complete else sum(file.size for file in source.files)
        rows.append(Row(source.name, source.summary, here[0].parent if complete else None, size))
    return rows


def get(
    set_name: str, *, base_url: str | None = None, progress: bool = False, facts: HarFacts = PUBLISHED
) -> list[Path]:
    """Download the files of a set into the cache, each whole and verified or not at all; good ones are kept.

    Args:
        set_name: a key of SOURCES.
        base_url: a mirror that has the files at base_url/<path>, asked instead of the published addresses.
        progress: show a bar on the terminal.
        facts: what the content of a converted set has to be.

    Errors: DataError when a file cannot be downloaded or is not what it should be; nothing of it is kept then.
    """
    source = _source(set_name)
    return [_get(source, file, base_url, progress, facts) for file in source.files]


def check(set_name: str, *, facts: HarFacts = PUBLISHED) -> list[tuple[str, str]]:
    """Each file of a set with "ok", "missing" or "damaged: ...", read and hashed anew."""
    source = _source(set_name)
    found = [(file, _find(file.path)) for file in source.files]
    return [(file.path, "missing" if path is None else _state(source, file, path, facts)) for file, path in found]


def _source(set_name: str) -> Source:
    if set_name not in SOURCES:
        raise DataError(f"no data set {set_name!r}{did_you_mean(set_name, SOURCES)}: there are {', '.join(SOURCES)}")
    return SOURCES[set_name]


def _find(name: str) -> Path | None:
    return next((folder / name for folder in folders() if (folder / name).is_file()), None)


def _by_hand(name: str) -> str:
    path = PurePosixPath(name)
    places = " or ".join(str(folder / path.parent) for folder in folders())
    return f"put {path.name} in {places}, or set {ENVIRONMENT} to a folder that has {name}"


def _state(source: Source, file: Stored, path: Path, facts: HarFacts) -> str:
    got = digest(path)
    if got == file.sha256:
        return "ok"
    wrong: str | None = f"SHA-256 {got}, expected {file.sha256}"
    if source.archive:
        try:
            wrong = verify_har(read_npz(path), facts)
        except DataError as error:
            wrong = str(error)
    return f"damaged: {wrong}" if wrong else "ok (converted from the UCI archive)"


def _get(source: Source, file: Stored, base_url: str | None, progress: bool, facts: HarFacts) -> Path:
    target = cache() / file.path
    found = _find(file.path)
    if found is not None:
        state = _state(source, file, found, facts)
        if state.startswith("ok"):
            return found
        if found != target:
            raise DataError(f"{found} is {state}; it stands before the cache: delete it, then get {source.name} again")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target.parent} could not be made ({error.strerror}): set {ENVIRONMENT} instead") from error
    urls = file.urls if base_url is None else (f"{base_url.rstrip('/')}/{file.path}",)
    failures = download(urls, target, file.sha256, progress=progress)
    if urls and not failures:
        return target
    if source.archive:
        return _from_archive(source, file, target, base_url, progress, facts, failures)
    said = "; ".join(failures)
    raise DataError(f"{file.path} could not be downloaded; {said}; nothing was kept: {_by_hand(file.path)}")


def _from_archive(
    source: Source,
    file: Stored,
    target: Path,
    base_url: str | None,
    progress: bool,
    facts: HarFacts,
    failures: list[str],
) -> Path:
    name = PurePosixPath(source.archive).name
    beside = f"{source.name}/{name}"
    by_hand = _find(beside)
    if by_hand is not None:
        return convert_har(by_hand, target, facts)
    archive = target.with_name(name)
    try:
        url = source.archive if base_url is None else f"{base_url.rstrip('/')}/{beside}"
        refused = download((url,), archive, None, progress=progress)
        if refused:
            raise DataError(
                f"{file.path} could not be made; {'; '.join(failures + refused)}; nothing was kept: download "
                f"{source.archive} elsewhere, put it in {target.parent} and get {source.name} again; "
                f"or {_by_hand(file.path)}"
            )
        return convert_har(archive, target, facts)
    finally:
        archive.unlink(missing_ok=True)
