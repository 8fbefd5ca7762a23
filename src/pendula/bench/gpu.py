"""What is different on a GPU: whether there is one, when two scans are equal, how time is taken, what to compare with.

Nothing here starts before `missing` says that it can. Time is the GPU's own, between two events, and the clock's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from pendula.bench import contestants
from pendula.bench.cases import BACKWARD, FORWARD, TRAINING, Case
from pendula.bench.contestants import OURS, Problem
from pendula.bench.equality import require_equal, tolerance
from pendula.bench.gpu_cases import least_bytes
from pendula.ops.gpu import device

# the types that torch ships say little of it
cuda: Any = torch.cuda

ROUNDS = 20
SLOW = 0.02
"""Seconds beyond which a contestant takes part in few rounds: step by step from Python, three rounds show it."""
STEPS, SEQUENCES = 64, 16
"""Sizes at which every number is compared with the reference in float64."""
COPIED = 1 << 28
"""Numbers copied to measure the bandwidth of the GPU's memory: 1 GiB."""
LAUNCH = 5e-3
"""Seconds: what takes longer to be handed to the GPU is held up by that, and its time says so."""


def missing() -> str:
    """Why nothing can be timed on a GPU here, and what would help; empty when it can."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"PyTorch {torch.__version__} is built without CUDA: install one that has it (https://pytorch.org)"
    if not cuda.is_available():
        return f"there is no GPU that PyTorch {torch.__version__} can use: `nvidia-smi` shows what the driver sees"
    reason: str = device.missing() or device.too_old(0)
    return reason


def about() -> dict[str, Any]:
    """The GPU, and what PyTorch does on it unless it is told otherwise."""
    cudnn: Any = torch.backends.cudnn
    properties = cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version(),
        # LSTM and GRU may have products of less than float32 beside ours, which are as float32
        "cudnn_allows_tf32": cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def equal_in_double(case: Case) -> dict[str, dict[str, float]]:
    """Every output, final state and gradient of the scan, against the reference in float64, over a few steps.

    Errors: `Unequal`; `BackendError` where the scan does not run.
    """
    short = replace(case, steps=min(case.steps, STEPS), batch=min(case.batch, SEQUENCES))
    problem = Problem.draw(short)
    expected = contestants.everything(problem.exactly(torch.float64), "reference", contestants.tape(short))
    found = contestants.everything(problem, "fused", {})
    return {OURS: require_equal(OURS, found, expected, tolerance(short))}


class Clock:
    """A `Timer`: seconds of the GPU between two events, and of the clock until the GPU is done.

    Each call is made twice: once by the clock, alone; once between events, behind copies that keep the GPU busy until
    the call has been handed to it, so that events measure work and not waiting. The caches hold those copies then.

    Attributes:
        copy: seconds of a copy of COPIED numbers, the median of ROUNDS.
    """

    def __init__(self, place: torch.device) -> None:
        self._source, self._target = (torch.zeros(COPIED, device=place) for _ in range(2))
        self._copy()
        self.copy = median(self._between(self._copy) for _ in range(ROUNDS))

    def __call__(self, call: Callable[[], Any], count: int) -> tuple[float, float]:
        pairs = [self._both(call) for _ in range(count)]
        return sum(own for own, _ in pairs), sum(clock for _, clock in pairs)

    def _copy(self) -> None:
        self._target.copy_(self._source)

    def _both(self, call: Callable[[], Any]) -> tuple[float, float]:
        cuda.synchronize()
        start = time.perf_counter()
        call()
        launched = time.perf_counter() - start
        cuda.synchronize()
        clock = time.perf_counter() - start
        copies = 1 + math.ceil(2 * launched / self.copy) if launched < LAUNCH else 0
        return self._between(call, copies), clock

    def _between(self, call: Callable[[], Any], copies: int = 0) -> float:
        begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(copies):
            self._copy()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3

    @property
    def bandwidth(self) -> float:
        """Bytes per second, both directions counted."""
        return 2 * 4 * COPIED / self.copy


def per_step(case: Case, passes: Mapping[str, Any], bandwidth: float) -> dict[str, Any]:
    """This library's microseconds per step, beside the case's targets; the backward pass is what training has more.

    `of_memory`: the time in which memory could be read and written once by the forward pass, as a share of it.
    """
    own = {
        where: next(row["gpu_ms"] for row in facts["contestants"] if row["name"] == OURS)
        for where, facts in passes.items()
    }
    taken = {where: 1e3 * milliseconds / case.steps for where, milliseconds in own.items()}
    taken[BACKWARD] = taken[TRAINING] - taken[FORWARD]
    return {
        "us": taken,
        "targets": dict(case.targets),
        "copy_gb_per_second": bandwidth / 1e9,
        "of_memory": least_bytes(case) / bandwidth / (own[FORWARD] * 1e-3),
    }
