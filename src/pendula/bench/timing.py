"""Processor time, side by side: every contestant once, then every contestant again, and the medians."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from pendula._check import positive_int

SECONDS = 0.1
"""A call that is shorter is repeated, within one repetition, until it takes about this long."""
AWAKE = 0.05
"""Seconds after which OpenMP's threads of the contestant before are asleep: until then they look out for work, at the
cost of who comes next."""
SHORT = 3
"""So many times the repetitions where all calls are shorter than that: what disturbs them lasts longer than they do."""
SLOW, FEW = 2.0, 3
"""A contestant that takes more seconds than this takes part in so many repetitions at most."""

Timer = Callable[[Callable[[], Any], int], tuple[float, float]]
"""Does a call so many times; seconds that the processor, or the GPU, and the clock took for all of them."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call of each repetition: of the processor (all threads of the process together), and of the clock.

    On a GPU, the GPU's own stand for the processor's.
    """

    processor: tuple[float, ...]
    clock: tuple[float, ...]
    calls: int

    @property
    def cpu(self) -> float:
        return median(self.processor)

    @property
    def wall(self) -> float:
        return median(self.clock)

    @property
    def best(self) -> float:
        """The least processor time: what the machine can do when nobody disturbs it."""
        return min(self.processor)

    def to_dict(self, own: str = "cpu") -> dict[str, Any]:
        """Milliseconds, medians and each repetition; `own` names what is not the clock's."""
        return {
            f"{own}_ms": 1e3 * self.cpu,
            "wall_ms": 1e3 * self.wall,
            "repetitions": len(self.processor),
            "calls_per_repetition": self.calls,
            f"{own}_ms_of_each": [1e3 * s for s in self.processor],
            "wall_ms_of_each": [1e3 * s for s in self.clock],
        }


@contextmanager
def conditions(threads: int) -> Iterator[None]:
    """PyTorch's threads, denormals flushed to zero, no collection of garbage; all put back afterwards."""
    before, flushed, collected = torch.get_num_threads(), flushes_denormals(), gc.isenabled()
    torch.set_num_threads(positive_int("threads", threads))
    # otherwise vanishing gradients of long sequences would make every contestant many times slower
    torch.set_flush_denormal(True)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)
        if collected:
            gc.enable()


def flushes_denormals() -> bool:
    """Whether this thread turns denormal results into zeros; PyTorch can set it and not tell."""
    return float(torch.tensor(1e-300, dtype=torch.float64) * 1e-10) == 0.0


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    repetitions: int,
    *,
    threads: Mapping[str, int] | None = None,
    seconds: float = SECONDS,
    timer: Timer | None = None,
    slow: float | None = None,
    until: float = math.inf,
) -> dict[str, Timing]:
    """Time every call in turn, `repetitions` times over, after calls that are not counted.

    Slow ones take part less often; where all are short, there are SHORT times as many rounds.

    Args:
        threads: number of PyTorch's threads of single contestants; the rest take the number of now.
        seconds: a shorter call is repeated, within a repetition, until it takes about this long; never for 0.
        timer: how time is taken, of the processor and of the clock when None.
        slow: seconds beyond which a call takes part FEW times at most; SLOW when None.
        until: no round begins later than that, by `time.monotonic`, but the first.
    """
    timed, slow = timer or _time, SLOW if slow is None else slow
    positive_int("repetitions", repetitions)
    usual = torch.get_num_threads()
    own = {name: (threads or {}).get(name, usual) for name in calls}
    rounds, counts = {}, {}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    try:
        for name, call in calls.items():
            torch.set_num_threads(own[name])
            _, first = timed(call, 1)
            rounds[name] = min(repetitions, FEW) if first > slow else repetitions
            # the first call may have been slower than the next
            counts[name] = 1 if first >= seconds else max(1, round(seconds / max(timed(call, 1)[1], 1e-7)))
        if min(counts.values()) > 1:
            rounds = dict.fromkeys(calls, SHORT * repetitions)
        for turn in range(max(rounds.values())):
            if turn and time.monotonic() >= until:
                break
            for name, call in calls.items():
                if turn < rounds[name]:
                    torch.set_num_threads(own[name])
                    cpu, wall = timed(call, counts[name])
                    seen[name].append((cpu / counts[name], wall / counts[name]))
    finally:
        torch.set_num_threads(usual)
    return {
        name: Timing(tuple(cpu for cpu, _ in pairs), tuple(wall for _, wall in pairs), counts[name])
        for name, pairs in seen.items()
    }


def _time(call: Callable[[], Any], count: int) -> tuple[float, float]:
    # not asleep itself: a processor that was idle begins slowly, and threads that were may begin on one core
    asleep = time.perf_counter() + AWAKE
    while time.perf_counter() < asleep:
        if count > 1:
            call()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        call()
    return time.process_time() - cpu, time.perf_counter() - wall
