"""What becomes of memory that this process has freed."""

from __future__ import annotations

import ctypes
import os
import sys

ASKED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables of the environment by which a user has decided."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = 1 << 28
"""Bytes of the largest array whose memory is kept."""


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for what is allocated next, in this process; whether that could be done.

    Otherwise large arrays go back to the system, and each step of a training gets its memory anew, page by page, filled
    with zeros: a quarter of the time of some steps. For processes of our own, such as commands; a library leaves the
    program that uses it alone.
    """
    if sys.platform != "linux" or any(name in os.environ for name in ASKED):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST)) and bool(mallopt(TRIM_THRESHOLD, (1 << 31) - 1))
