"""One file over the network: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from pendula._check import DataError

PATIENCE = 30


def download(urls: tuple[str, ...], target: Path, sha256: str | None, *, progress: bool = False) -> list[str]:
    """Fetch `target` from the first address that gives the right bytes.

    Args:
        urls: addresses, tried in turn.
        target: where the file goes; its folder exists.
        sha256: what it has to be; None takes what comes.
        progress: show a bar on the terminal.

    Returns: nothing where the file is there, else what went wrong with each address, in a sentence each.
    """
    try:
        import pooch
        import requests
    except ImportError as error:
        raise DataError("downloading needs pooch: pip install 'pendula[train]'") from error
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    # identity: a host that compresses on the way would change the bytes of a .gz file
    options: dict[str, Any] = {"timeout": PATIENCE, "headers": {"Accept-Encoding": "identity"}, "chunk_size": 1 << 18}
    failures = []
    for url in urls:
        try:
            with closing(_Bar(target.name)) if progress else nullcontext(False) as bar:
                pooch.HTTPDownloader(progressbar=bar, **options)(url, str(part), None)
            got = digest(part)
            if sha256 is None or got == sha256:
                os.replace(part, target)
                return []
            failures.append(f"{url} gave SHA-256 {got}, expected {sha256}")
        except requests.exceptions.HTTPError as error:
            failures.append(f"{url} was refused: {error}")
        except requests.exceptions.Timeout:
            failures.append(f"{url} did not answer within {PATIENCE} s")
        except requests.exceptions.ConnectionError:
            failures.append(f"{url} could not be reached (no connection)")
        except OSError as error:
            failures.append(f"{url} failed: {error}")
        finally:
            part.unlink(missing_ok=True)
    return failures


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Bar:
    """A bar of rich with the face that pooch expects."""

    def __init__(self, name: str) -> None:
        try:
            from rich.progress import Progress
        except ImportError as error:
            raise DataError("a progress bar needs rich: pip install 'pendula[train]', or leave progress out") from error
        self.total = 0
        self._bar = Progress()
        self._task = self._bar.add_task(name)
        self._bar.start()

    def update(self, size: int) -> None:
        self._bar.update(self._task, total=self.total, advance=size)

    def reset(self) -> None:
        self._bar.reset(self._task)

    def close(self) -> None:
        self._bar.stop()
