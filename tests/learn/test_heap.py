"""Memory that a command has freed stays with it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from pendula.learn.heap import ASKED

CODE = """
import resource, sys
import torch
from pendula.learn.heap import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "kept" else None)
torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_taken(how: str, **more: str) -> tuple[str, int]:
    """What the function says, and how many pages ten arrays of 64 MiB took from the system, one after the other."""
    env = {name: value for name, value in os.environ.items() if name not in ASKED} | more
    done = subprocess.run([sys.executable, "-c", CODE, how], env=env, capture_output=True, text=True, check=True)
    said, pages = done.stdout.split()
    return said, int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system's C library is not glibc")
def test_an_array_takes_the_memory_of_the_one_before() -> None:
    _, anew = pages_taken("as it is")
    said, kept = pages_taken("kept")
    # the first of the ten may find no place that fits
    assert (said, kept < anew / 5) == ("True", True)


def test_what_the_user_has_asked_for_stays() -> None:
    assert pages_taken("kept", MALLOC_TRIM_THRESHOLD_="100000")[0] == "False"
