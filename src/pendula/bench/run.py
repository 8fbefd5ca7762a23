"""All cases, one after the other: a table of each as it is done, a file with everything, a picture."""

from __future__ import annotations

import importlib.metadata
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pendula._check import BackendError, one_of, positive_int
from pendula.bench import gpu, process, show
from pendula.bench.cases import COMPILED, CPU, EAGER, GPU, MEMORY, SWEEP, Case, sweep
from pendula.bench.contestants import OURS, lean_name, lean_physics
from pendula.bench.gpu_cases import CASES_ON, NAMES_ON
from pendula.circumstances import circumstances
from pendula.nets.checkpoint import write_whole
from pendula.ops import native

ROUNDS = 5
AUTO = "auto"
COMPILING = 120.0
"""Seconds that torch.compile may take of a case."""
OVER = "the time was over"
HANGS = 600.0
"""Seconds after which a case on a GPU is given up: a kernel that waits for ever would stop all others."""


def bench(
    folder: Path,
    *,
    console: Console,
    device: str = CPU,
    names: Sequence[str] | None = None,
    repetitions: int | None = None,
    threads: int | None = None,
    compiles: bool = False,
    quick: bool = False,
    budget: float | None = None,
) -> Path:
    """Time cases, show a table of each, write everything to a new JSON file (rewritten whole after each case).

    Args:
        folder: where the file and the picture go; files that are there stay.
        device: "cpu"; "cuda" for the cases of a GPU; "auto" for these where there is a GPU that they run on.
        names: cases of the device, "sweep" (of a processor) for the picture among them; all when None.
        repetitions: rounds of each case, of which medians are taken; 5 when None, on a GPU 20. On a processor,
            three times as many where every call takes less than a tenth of a second.
        threads: instead of those of each case, on a processor.
        compiles: time torch.compile too, in the cases that are small enough for it.
        quick: tiny sizes, two rounds: to see that everything runs. The numbers mean nothing.
        budget: seconds after which no case and no further round begins; the cases left out say so.

    Errors: ValueError for unknown names; BackendError where there is no GPU to time on, before anything else is done,
    and, after everything, when a case was refused.
    """
    device, note = _device(device)
    chosen = _chosen(device, names)
    if repetitions is None:
        repetitions = gpu.ROUNDS if device == GPU else ROUNDS
    positive_int("repetitions", repetitions)
    if threads is not None:
        positive_int("threads", threads)
        if device == GPU:
            raise ValueError("threads are those of a processor: leave threads out, or use device 'cpu'")
    deadline = math.inf if budget is None else time.monotonic() + budget
    options = {"repetitions": 2 if quick else repetitions, "seconds": 0.001 if quick else 0.1}

    def sized(case: Case) -> Case:
        case = case if threads is None else replace(case, threads=threads)
        return case.quick() if quick else case

    if note:
        console.print(f"- {note}", soft_wrap=True, markup=False)
    if quick:
        console.print("- tiny sizes, to see that everything runs: these numbers mean nothing", soft_wrap=True)
    path = new_file(folder, "gpu" if device == GPU else "bench")
    results = {"what": "pendula bench", "device": device, "quick": quick, "budget": budget, **_setting(device)}
    results |= {"cases": [], SWEEP: []}
    console.print(show.machine_line(results), soft_wrap=True)
    for name in chosen:
        left = deadline - time.monotonic()
        told = {**options, "compiles": compiles, "left": None if budget is None else left}
        if name != SWEEP:
            results["cases"].append(_timed(sized(CASES_ON[device][name]), told, left))
            parts = show.case_tables(results["cases"][-1])
        elif left > 0:
            results[SWEEP] = process.ask("time", [sized(case) for case in sweep()], **told)
            parts = show.sweep_tables(results[SWEEP])
        else:
            parts = iter([f"{SWEEP}\n  left out: {OVER}\n"])
        for part in parts:
            # what is to be installed stands in brackets, which rich would take for its own
            console.print(part, soft_wrap=True, markup=False)
        write_whole(path, (json.dumps(results, indent=2) + "\n").encode())
    if device == GPU:
        console.print(show.summary(results["cases"]))
    console.print(f"numbers: {path}", soft_wrap=True)
    if any("passes" in point for point in results[SWEEP]):
        console.print(f"picture: {show.picture(results[SWEEP], path.with_suffix('.png'))}", soft_wrap=True)
    everything = results["cases"] + results[SWEEP]
    refused = [found["case"]["name"] for found in everything if "refused" in found]
    if refused:
        raise BackendError(f"{len(refused)} of {len(everything)} cases were refused (see above): {', '.join(refused)}")
    return path


def _device(asked: str) -> tuple[str, str]:
    """The processor or the GPU, and what there is to say about that."""
    one_of("device", asked, (CPU, GPU, AUTO))
    if asked == CPU:
        return CPU, ""
    reason = gpu.missing()
    if not reason:
        return GPU, ""
    if asked == GPU:
        raise BackendError(f"nothing can be timed on a GPU here: {reason}; device 'cpu' times the processor")
    return CPU, f"on the processor: {reason}"


def _chosen(device: str, names: Sequence[str] | None) -> Sequence[str]:
    for name in names or ():
        for other, theirs in NAMES_ON.items():
            if other != device and name in theirs:
                raise ValueError(f"case {name!r} is timed on device {other!r}, not on {device!r}: give that device")
    return [one_of("case", name, NAMES_ON[device]) for name in names or NAMES_ON[device]]


def _setting(device: str) -> dict[str, Any]:
    """What a reader of the file must know: data, machine, versions."""
    rivals = ("torch", "triton") if device == GPU else ("torch", "jax", "torchrecurrent")
    here: dict[str, Any] = {"gpu": gpu.about()} if device == GPU else {}
    if device == CPU:
        here["instruction_set"] = None if isinstance(native.load(), str) else native.instruction_sets()[0]
    return {
        "data": "standard normal numbers from seed 0",
        **circumstances(),
        **here,
        "rivals": {name: _version(name) for name in rivals},
    }


def _timed(case: Case, told: dict[str, Any], left: float) -> dict[str, Any]:
    """A case in a process of its own: what ends or stops one leaves the others alone."""
    if left <= 0:
        return {"case": case.to_dict(), "title": case.title(), "left_out": OVER}
    hurried = case.compiles and told["compiles"] and left < COMPILING
    limit = min(HANGS, left + COMPILING) if case.device == GPU else None
    (found,) = process.ask("time", [case], limit=limit, **told | {"compiles": told["compiles"] and not hurried})
    if "passes" in found:
        if hurried:
            found["absent"][COMPILED] = f"left out: less than {COMPILING:.0f} seconds were left"
        if case.memory:
            found[MEMORY] = peaks(case)
    return found


def peaks(case: Case) -> list[dict[str, Any]]:
    """Peak memory of a forward and backward pass: this library, its lean physics, and eager PyTorch."""
    who = [OURS, *([lean_name(case)] if lean_physics(case) else []), EAGER]
    rows = [{"name": name, **process.ask("memory", [case], who=name)[0]} for name in who]
    return compared_memory(case, rows)


def compared_memory(case: Case, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its fraction of eager's peak; the goal stands where the least is kept."""
    whole = next((row.get("bytes") for row in rows if row["name"] == EAGER), None)
    for row in rows:
        if row["name"] != EAGER and whole and "bytes" in row:
            row["fraction"] = round(row["bytes"] / whole, 3)
            row["goal"] = case.goal(MEMORY, EAGER)
    return rows


def new_file(folder: Path, kind: str = "bench") -> Path:
    """A file that is not there yet, named after the time."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = time.strftime(f"{kind}-%Y-%m-%d-%H%M%S", time.gmtime())
    for number in range(1, 1000):
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        if not path.exists():
            return path
    raise FileExistsError(f"{folder} is full of files {stem}-*.json")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
