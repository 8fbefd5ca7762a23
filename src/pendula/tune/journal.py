"""The journal file of a study, whose lock ends with the process that holds it.

Optuna's own locks are files: one that a killed process leaves behind makes all others wait, and with a relative path
for ever (Optuna 5.0 looks for its age through a dangling link).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from pendula._check import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def open_journal(path: Path) -> JournalStorage:
    """The storage in a journal file, made if it is not there. Errors: DataError when it is damaged."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = KernelLock(str(path)) if fcntl is not None else JournalFileOpenLock(str(path))
    try:
        return JournalStorage(JournalFileBackend(str(path), lock))
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path} is damaged, or no journal of Optuna: {error}; restore it, or start another --out"
        ) from error


class KernelLock(JournalFileOpenLock):
    """Held through the kernel (flock), which lets go of it when the process ends, however it ends."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path
        self.held: BinaryIO | None = None

    def acquire(self) -> bool:
        self.held = open(f"{self.path}.lock", "ab")  # noqa: SIM115
        fcntl.flock(self.held, fcntl.LOCK_EX)
        mend(self.path)
        return True

    def release(self) -> None:
        assert self.held is not None
        self.held.close()


def mend(path: str) -> None:
    """Cut off the line that a killed process, or a full disk, left half written: it would spoil the next one.

    Only for the holder of the lock.
    """
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        whole = end
        while whole:
            begin = max(0, whole - 65536)
            file.seek(begin)
            found = file.read(whole - begin).rfind(b"\n")
            if found >= 0:
                whole = begin + found + 1
                break
            whole = begin
        if whole < end:
            file.truncate(whole)
