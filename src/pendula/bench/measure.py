"""One case: first that all are equal, then how long each takes, against the floor of the machine."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from pendula._check import BackendError
from pendula.bench import contestants, gpu, lax, newton, steps
from pendula.bench.cases import (
    COMPILED,
    EAGER,
    FLOOR,
    GPU,
    GRU,
    JAX,
    LSTM,
    NEWTON,
    STEP,
    THREADS,
    TORCHRECURRENT,
    TRAINING,
    Case,
    work,
)
from pendula.bench.contestants import OURS, Absent, Contestant, Problem
from pendula.bench.equality import DOUBLE, Unequal, require_equal, tolerance
from pendula.bench.timing import SECONDS, Timing, conditions, interleave

Build = Callable[[Problem], Contestant]

RIVALS: dict[str, Build] = {
    EAGER: contestants.eager,
    LSTM: contestants.lstm,
    GRU: contestants.gru,
    COMPILED: contestants.compiled,
    TORCHRECURRENT: contestants.torchrecurrent,
    JAX: lax.scanned,
    NEWTON: newton.contestant,
}
STEPPED: dict[str, Build] = {
    EAGER: steps.eager,
    LSTM: steps.lstm,
    GRU: steps.gru,
    TORCHRECURRENT: steps.torchrecurrent,
    JAX: lax.stepped,
}
SGEMM, COPY = "sgemm", "copy"
SQUARE, COPIED = 1024, 1 << 25
"""Width of the matrices whose product measures the machine's rate; numbers copied to measure its bandwidth."""


def measure(
    case: Case, *, repetitions: int, compiles: bool = False, seconds: float = SECONDS, left: float | None = None
) -> dict[str, Any]:
    """Equality errors, timings and ratios of a case, ready for JSON. No further round begins after `left` seconds.

    A case whose compiled scan is missing or gives other numbers than the reference is refused: it then has nothing
    but the sentence `refused`. A rival that is not installed, or not equal, stands in `absent` with a sentence.
    """
    facts: dict[str, Any] = {"case": case.to_dict(), "title": case.title(), "repetitions": repetitions}
    until = math.inf if left is None else time.monotonic() + left
    on_gpu = case.device == GPU
    with conditions(case.threads):
        try:
            in_double = gpu.equal_in_double(case) if on_gpu else _equal_in_double(case)
            found, equality, absent = _admitted(case, compiles)
        except (Unequal, BackendError) as error:
            return facts | {"refused": str(error)}
        facts |= {"equality": {"float64": in_double, "float32": equality}, "absent": absent}
        if on_gpu:
            clock = gpu.Clock(contestants.place(case))
            passes = {where: _timed_on_gpu(case, where, found, repetitions, clock, until) for where in case.passes}
            facts |= {"passes": passes, "per_step": gpu.per_step(case, passes, clock.bandwidth)}
        else:
            facts["passes"] = {where: _timed(case, where, found, repetitions, seconds, until) for where in case.passes}
    return facts


def _equal_in_double(case: Case) -> dict[str, dict[str, float]]:
    """Every output and gradient of the compiled scan, in float64 at a few steps and sequences."""
    short = Case.from_dict({**case.to_dict(), "steps": min(case.steps, 40), "batch": min(case.batch, 5)})
    problem = Problem.draw(short, torch.float64)
    expected = contestants.everything(problem, "reference", contestants.tape(short))
    errors = {}
    for name, physics in _ways(case).items():
        found = contestants.everything(problem, "fused", physics)
        errors[name] = require_equal(name, found, expected, DOUBLE)
    return errors


def _ways(case: Case) -> dict[str, dict[str, Any]]:
    """This library as it is, and with the physics that keep less where the network has them."""
    lean = contestants.lean_physics(case)
    return {OURS: {}, contestants.lean_name(case): lean} if lean else {OURS: {}}


def _admitted(case: Case, compiles: bool) -> tuple[list[Contestant], dict[str, dict[str, float]], dict[str, str]]:
    """Who takes part, with the errors of those that have the same equations, and who does not, with the reason."""
    problem = Problem.draw(case)
    equality: dict[str, dict[str, float]] = {}
    absent: dict[str, str] = {}
    builders = STEPPED if case.passes == (STEP,) else RIVALS
    reference = builders[EAGER](problem)
    # where products are rounded, eager PyTorch is one of those whose error is measured
    truth = reference if case.autocast is None else builders[EAGER](problem.exactly(torch.float32))
    expected, allowed = _numbers(case, truth), tolerance(case)
    found = []
    for own in _own(case, problem):
        equality[own.name] = require_equal(own.name, _numbers(case, own), expected, allowed)
        found.append(own)
    if case.lean and len(_ways(case)) == 1:
        absent[contestants.lean_name(case)] = f"{case.network} has no such option in this version"
    for name in (*case.rivals, *([COMPILED] if compiles and case.compiles else [])):
        try:
            rival = reference if name == EAGER else builders[name](problem)
            if rival.numbers is not None and rival is not truth:
                equality[name] = require_equal(name, _numbers(case, rival), expected, allowed)
            found.append(rival)
        except (Absent, Unequal) as error:
            absent[name] = str(error)
    return found, equality, absent


def _own(case: Case, problem: Problem) -> Iterator[Contestant]:
    """This library: as it is, and in other ways to be seen beside that. Each is made when its turn comes."""
    if case.passes == (STEP,):
        yield steps.ours(problem)
        yield steps.layer(problem)
        return
    yield contestants.ours(problem)
    if case.device != GPU and case.batch >= 16 and (os.cpu_count() or 1) > 1:
        other = 1 if case.threads > 1 else 2
        yield contestants.ours(problem, name=f"{OURS}, {other} thread{'s' * (other > 1)}", threads=other)
    for name, physics in _ways(case).items():
        if name != OURS:
            yield contestants.ours(problem, name=name, **physics)


def _numbers(case: Case, contestant: Contestant) -> dict[str, torch.Tensor]:
    assert contestant.numbers is not None
    torch.set_num_threads(contestant.threads or case.threads)
    try:
        return contestant.numbers()
    finally:
        torch.set_num_threads(case.threads)


def _timed(
    case: Case, where: str, found: Sequence[Contestant], repetitions: int, seconds: float, until: float
) -> dict[str, Any]:
    threads = {c.name: c.threads for c in found if c.threads is not None}
    floor = {} if where == STEP else _floor()
    # rates of one core: processor time is compared with them, whatever the number of threads
    threads |= dict.fromkeys(floor, 1)
    timings = interleave({**_calls(where, found), **floor}, repetitions, threads=threads, seconds=seconds, until=until)
    facts: dict[str, Any] = {"contestants": _rows(case, where, found, timings)}
    if floor:
        facts["floor"] = floor_fraction(case, where, timings[OURS], timings[SGEMM], timings[COPY])
    return facts


def _timed_on_gpu(
    case: Case, where: str, found: Sequence[Contestant], repetitions: int, clock: gpu.Clock, until: float
) -> dict[str, Any]:
    # one call a round: what a GPU does takes as long each time
    timings = interleave(_calls(where, found), repetitions, seconds=0, timer=clock, slow=gpu.SLOW, until=until)
    return {"contestants": _rows(case, where, found, timings)}


def _calls(where: str, found: Sequence[Contestant]) -> dict[str, Callable[[], Any]]:
    calls = {c.name: c.training if where == TRAINING else c.forward for c in found}
    return {name: call for name, call in calls.items() if call is not None}


def _rows(case: Case, where: str, found: Sequence[Contestant], timings: Mapping[str, Timing]) -> list[dict[str, Any]]:
    rows = []
    for contestant in found:
        timing = timings.get(contestant.name)
        if timing is not None:
            row: dict[str, Any] = {"name": contestant.name, **contestant.about}
            if case.device == GPU:
                row |= timing.to_dict("gpu")
            else:
                row |= {"threads": contestant.threads or case.threads, **timing.to_dict()}
            rows.append(row | _compared(case, where, contestant, timing, timings[OURS]))
    return rows


def _compared(case: Case, where: str, contestant: Contestant, timing: Timing, own: Timing) -> dict[str, Any]:
    """How many times faster this library is; for itself on other threads, what two threads bring over one."""
    if contestant.name == OURS:
        return {}
    if contestant.threads is None:
        return {
            "ratio": ratio(timing.cpu, own.cpu),
            "wall_ratio": ratio(timing.wall, own.wall),
            "goal": case.goal(where, contestant.name),
        }
    one, two = (timing, own) if contestant.threads == 1 else (own, timing)
    return {"speedup": ratio(one.wall, two.wall), "goal": case.goal(where, THREADS)}


def ratio(theirs: float, ours: float) -> float:
    """How many times longer theirs takes: above 1, this library is faster.

    >>> ratio(theirs=0.6, ours=0.2)
    3.0
    """
    return round(theirs / ours, 3) if ours > 0 else float("inf")


def _floor() -> dict[str, Callable[[], Any]]:
    a, b = torch.ones(SQUARE, SQUARE), torch.ones(SQUARE, SQUARE)
    out = torch.empty(SQUARE, SQUARE)
    source, target = torch.ones(COPIED), torch.ones(COPIED)
    return {SGEMM: lambda: torch.mm(a, b, out=out), COPY: lambda: target.copy_(source)}


def floor_fraction(case: Case, where: str, own: Timing, sgemm: Timing, copy: Timing) -> dict[str, Any]:
    """The time that the machine would need at least, as a fraction of the time taken; all of it processor time.

    The rates of one core are the best of the same rounds: a product of two 1024 x 1024 matrices, and a copy of 128
    MiB (read and written).
    """
    operations, moved = work(case, where)
    rate, bandwidth = 2 * SQUARE**3 / sgemm.best, 2 * 4 * COPIED / copy.best
    by_products, by_memory = operations / rate, moved / bandwidth
    return {
        "sgemm_gflops_per_cpu_second": rate / 1e9,
        "copy_gb_per_cpu_second": bandwidth / 1e9,
        "operations": operations,
        "bytes": moved,
        "bound_by": "products" if by_products >= by_memory else "memory",
        "fraction": max(by_products, by_memory) / own.cpu,
        "goal": case.goal(where, FLOOR),
    }
