"""All cases, one after the other: a table of each as it is done, a file with everything, a picture."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pendula._check import BackendError, one_of, positive_int
from pendula.bench import process, show
from pendula.bench.cases import CASES, EAGER, MEMORY, SWEEP, Case, sweep
from pendula.bench.contestants import OURS, lean_name, lean_physics
from pendula.circumstances import circumstances
from pendula.nets.checkpoint import write_whole
from pendula.ops import native


def bench(
    folder: Path,
    *,
    console: Console,
    names: Sequence[str] | None = None,
    repetitions: int = 5,
    threads: int | None = None,
    compiles: bool = False,
    quick: bool = False,
) -> Path:
    """Time cases, show a table of each, write everything to a new JSON file (rewritten whole after each case).

    Args:
        folder: where the file and the picture go; files that are there stay.
        names: cases, "sweep" for the picture among them; all when None.
        repetitions: rounds of each case; medians are taken over them.
        threads: instead of those of each case.
        compiles: time torch.compile too, in the cases that are small enough for it.
        quick: tiny sizes, two rounds: to see that everything runs. The numbers mean nothing.

    Errors: ValueError for unknown names; BackendError, after everything, when a case was refused.
    """
    positive_int("repetitions", repetitions)
    if threads is not None:
        positive_int("threads", threads)
    known = [*CASES, SWEEP]
    chosen = [one_of("case", name, known) for name in names or known]
    options = {"repetitions": 2 if quick else repetitions, "compiles": compiles, "seconds": 0.001 if quick else 0.1}

    def sized(case: Case) -> Case:
        case = case if threads is None else replace(case, threads=threads)
        return case.quick() if quick else case

    if quick:
        console.print("- tiny sizes, to see that everything runs: these numbers mean nothing", soft_wrap=True)
    path = new_file(folder)
    results: dict[str, Any] = {
        "what": "pendula bench",
        "data": "standard normal numbers from seed 0",
        "quick": quick,
        **circumstances(),
        "instruction_set": None if isinstance(native.load(), str) else native.instruction_sets()[0],
        "rivals": {name: _version(name) for name in ("torch", "jax", "torchrecurrent")},
        "cases": [],
        SWEEP: [],
    }
    console.print(show.machine_line(results), soft_wrap=True)
    for name in chosen:
        if name == SWEEP:
            results[SWEEP] = process.ask("time", [sized(case) for case in sweep()], **options)
            parts = show.sweep_tables(results[SWEEP])
        else:
            (found,) = process.ask("time", [sized(CASES[name])], **options)
            if CASES[name].memory and "refused" not in found:
                found[MEMORY] = peaks(sized(CASES[name]))
            results["cases"].append(found)
            parts = show.case_tables(found)
        for part in parts:
            console.print(part, soft_wrap=True)
        write_whole(path, (json.dumps(results, indent=2) + "\n").encode())
    console.print(f"numbers: {path}", soft_wrap=True)
    if any("passes" in point for point in results[SWEEP]):
        console.print(f"picture: {show.picture(results[SWEEP], path.with_suffix('.png'))}", soft_wrap=True)
    everything = results["cases"] + results[SWEEP]
    refused = [found["case"]["name"] for found in everything if "refused" in found]
    if refused:
        raise BackendError(f"{len(refused)} of {len(everything)} cases were refused (see above): {', '.join(refused)}")
    return path


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


def new_file(folder: Path) -> Path:
    """A file that is not there yet, named after the time."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = time.strftime("bench-%Y-%m-%d-%H%M%S", time.gmtime())
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
