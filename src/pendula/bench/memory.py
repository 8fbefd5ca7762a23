"""Peak memory of one forward and backward pass, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pendula.bench import contestants
from pendula.bench.cases import EAGER, Case
from pendula.bench.contestants import Absent, Contestant, Problem
from pendula.bench.timing import conditions


def peak_of_training(case: Case, who: str) -> int:
    """Bytes above what stood before: resident memory at its highest in the pass, less that before it.

    It counts the outputs, what is kept for the backward pass, the gradients and all scratch memory; weights, input
    and the gradient of the outputs are there before. The process must be a fresh one: memory that an earlier pass
    gave back to the allocator would be used again and not be seen.
    """

    def build(problem: Problem) -> Contestant:
        if who == EAGER:
            return contestants.eager(problem)
        lean = contestants.lean_physics(case) if who != contestants.OURS else {}
        return contestants.ours(problem, **lean)

    with conditions(case.threads):
        # what a first call loads or sets up once is not the pass's own
        first = build(Problem.draw(replace(case, steps=2)))
        contestant = build(Problem.draw(case))
        assert first.training is not None
        assert contestant.training is not None
        first.training()
        return peak_of(contestant.training)


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes above what stood before, in a fresh process. Errors: `Absent` where the system doesn't tell."""
    before = _start()
    call()
    return _highest() - before


def _start() -> int:
    """Bytes resident now; forgets the highest so far where the system lets it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _highest()
    return _linux("VmRSS")


def _highest() -> int:
    if sys.platform == "linux":
        # getrusage would count what the parent process had before it started this one
        return _linux("VmHWM")
    try:
        import resource
    except ImportError as error:
        raise Absent(f"peak memory can't be read on {sys.platform}") from error
    # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _linux(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(kilobytes)
