"""What is known of a data set: its files, what has to be said about them, and how they are had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Stored:
    """A file: its path below the data folder, its SHA-256, its size in bytes, and where it can be downloaded.

    sha256 is empty where none is known, or where the bytes depend on the machine that converted them: then `verify` of
    its source looks at the content. size is 0 where it is not known.
    """

    path: str
    sha256: str
    size: int
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        name: what `pendula data get` calls it.
        summary: what is in it, in a line.
        files: what it consists of, below the data folder.
        licence, citation, provenance: what a user has to know; provenance says whether the content is exact.
        how_to_get: what to do, in a sentence; it is shown where a file is missing that cannot be downloaded.
        archive: what the files are converted from where they cannot be downloaded as they are: addresses, or bare
            names of files that a user has to put beside the target because nobody may or can hand them out.
        convert: called with the path of each archive and then the path of the file to write, whole or not at all;
            raises DataError if an archive is damaged or something else.
        verify: what is wrong with the content of a file, in words; None if it is what it should be. Asked where the
            SHA-256 is not the known one; without it, such a file is damaged.
    """

    name: str
    summary: str
    files: tuple[Stored, ...]
    licence: str
    citation: str
    provenance: str
    how_to_get: str
    archive: tuple[str, ...] = ()
    convert: Callable[..., object] | None = None
    verify: Callable[[Path], str | None] | None = None

    def downloads(self, file: Stored) -> bool:
        """Whether a file can be had without the user."""
        return bool(file.urls) or (bool(self.archive) and all("://" in address for address in self.archive))


def archive_name(address: str) -> str:
    """What the file at an address is called.

    >>> archive_name("https://example.org/sets/a.zip")
    'a.zip'
    """
    return PurePosixPath(address).name
