"""Data files: where they are, and how they are fetched and checked."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pendula._check import DataError, did_you_mean
from pendula.tasks.archive_facts import NAMES
from pendula.tasks.archive_files import FOLDER, archive_set
from pendula.tasks.download import digest, download
from pendula.tasks.source import Source, Stored, archive_name
from pendula.tasks.sources import SOURCES

ENVIRONMENT = "PENDULA_DATA"
# how the archives call their sets; sources of other kinds are lower case
ARCHIVE_NAME = re.compile(r"[A-Z][\w-]*")


class Row(NamedTuple):
    """A line of the listing: where is the folder that holds the files, None when one is missing; size in bytes."""

    name: str
    summary: str
    where: Path | None
    size: int


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


def find(name: str) -> Path | None:
    """The path of a data file, None where it is in none of the folders."""
    return next((folder / name for folder in folders() if (folder / name).is_file()), None)


def fetch(name: str) -> Path:
    """The path of a data file such as "mnist/t10k-labels-idx1-ubyte.gz". Never downloads.

    Errors: DataError, which says how to get it, when it is in none of the folders.
    """
    found = find(name)
    if found is not None:
        return found
    raise DataError(f"{name} is missing: {_advice(name)}{_by_hand(name)}")


def listing() -> list[Row]:
    """Every known data set, and where it is; of the sets of the archives those that were looked at or are here."""
    here_too = {path.stem for folder in folders() for path in (folder / FOLDER).glob("*.npz")} - set(SOURCES)
    rows = []
    for source in [*SOURCES.values(), *(archive_set(name) for name in sorted(here_too))]:
        found = [find(file.path) for file in source.files]
        here = [path for path in found if path is not None]
        complete = len(here) == len(found)
        size = sum(path.stat().st_size for path in here) if complete else sum(file.size for file in source.files)
        rows.append(Row(source.name, source.summary, here[0].parent if complete else None, size))
    return rows


def get(set_name: str, *, base_url: str | None = None, progress: bool = False) -> list[Path]:
    """Download the files of a set into the cache, each whole and verified or not at all; good ones are kept.

    Args:
        set_name: a key of SOURCES, or the name of a set of the UCR or UEA archive.
        base_url: a mirror that has the files at base_url/<path>, asked instead of the published addresses.
        progress: show a bar on the terminal.

    Errors: DataError when a file cannot be downloaded or is not what it should be; nothing of it is kept then.
    """
    source = _source(set_name)
    return [_get(source, file, base_url, progress) for file in source.files]


def check(set_name: str) -> list[tuple[str, str]]:
    """Each file of a set with "ok", "missing" or "damaged: ...", read and hashed anew."""
    source = _source(set_name)
    found = [(file, find(file.path)) for file in source.files]
    return [(file.path, "missing" if path is None else _state(source, file, path)) for file, path in found]


def _source(set_name: str) -> Source:
    if set_name in SOURCES:
        return SOURCES[set_name]
    if ARCHIVE_NAME.fullmatch(set_name):
        return archive_set(set_name)
    raise DataError(
        f"no data set {set_name!r}{did_you_mean(set_name, [*SOURCES, *NAMES])}: there are {', '.join(SOURCES)}, and "
        "every set of the UCR and UEA archives by its name"
    )


def _advice(name: str) -> str:
    path = PurePosixPath(name)
    sources = list(SOURCES.values())
    if path.parent.name == FOLDER and path.suffix == ".npz" and ARCHIVE_NAME.fullmatch(path.stem):
        sources.append(archive_set(path.stem))
    for source in sources:
        for file in source.files:
            if file.path == name:
                fetched = f"`pendula data get {source.name}` fetches it, or "
                return fetched if source.downloads(file) else f"{source.how_to_get}; "
    return ""


def _by_hand(name: str) -> str:
    path = PurePosixPath(name)
    places = " or ".join(str(folder / path.parent) for folder in folders())
    return f"put {path.name} in {places}, or set {ENVIRONMENT} to a folder that has {name}"


def _state(source: Source, file: Stored, path: Path) -> str:
    got = digest(path)
    if got == file.sha256:
        return "ok"
    if source.verify is None:
        return f"damaged: SHA-256 {got}, expected {file.sha256}" if file.sha256 else "ok (no checksum is known)"
    try:
        wrong = source.verify(path)
    except DataError as error:
        wrong = str(error)
    return f"damaged: {wrong}" if wrong else "ok (converted from the published archive)"


def _get(source: Source, file: Stored, base_url: str | None, progress: bool) -> Path:
    target = cache() / file.path
    found = find(file.path)
    if found is not None:
        state = _state(source, file, found)
        if state.startswith("ok"):
            return found
        if found != target:
            raise DataError(f"{found} is {state}; it stands before the cache: delete it, then get {source.name} again")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target.parent} could not be made ({error.strerror}): set {ENVIRONMENT} instead") from error
    urls = file.urls if base_url is None else (f"{base_url.rstrip('/')}/{file.path}",)
    failures = download(urls, target, file.sha256 or None, progress=progress) if urls else []
    if urls and not failures:
        return _good(source, file, target, f"downloaded from {urls[0]}")
    if source.archive:
        return _from_archive(source, file, target, base_url, progress, failures)
    said = "; ".join(failures or [source.how_to_get])
    raise DataError(f"{file.path} could not be downloaded; {said}; nothing was kept: {_by_hand(file.path)}")


def _from_archive(
    source: Source, file: Stored, target: Path, base_url: str | None, progress: bool, failures: list[str]
) -> Path:
    assert source.convert is not None
    archives, fetched = [], []
    try:
        for address in source.archive:
            beside = str(PurePosixPath(file.path).with_name(archive_name(address)))
            by_hand = find(beside)
            if by_hand is None:
                archive = target.with_name(archive_name(address))
                fetched.append(archive)
                url = address if base_url is None else f"{base_url.rstrip('/')}/{beside}"
                refused = download((url,), archive, None, progress=progress) if "://" in url else [source.how_to_get]
                if refused:
                    raise DataError(_no_archive(file, address, target.parent, source.name, failures + refused))
            archives.append(by_hand or archive)
        source.convert(*archives, target)
    finally:
        for archive in fetched:
            archive.unlink(missing_ok=True)
    return _good(source, file, target, f"made from {', '.join(source.archive)}")


def _good(source: Source, file: Stored, target: Path, origin: str) -> Path:
    state = _state(source, file, target)
    if not state.startswith("ok"):
        target.unlink()
        raise DataError(f"{file.path}, {origin}, is {state}; nothing was kept")
    return target


def _no_archive(file: Stored, address: str, folder: Path, name: str, failures: list[str]) -> str:
    elsewhere = f"download {address} elsewhere, put it" if "://" in address else f"put {address}"
    return (
        f"{file.path} could not be made; {'; '.join(failures)}; nothing was kept: {elsewhere} in {folder} and get "
        f"{name} again; or {_by_hand(file.path)}"
    )
