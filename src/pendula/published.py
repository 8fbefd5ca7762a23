"""What `pendula reproduce` and `pendula report` do: run published experiments, and show what was measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pendula._check import DataError, one_of, positive_int, seconds_of
from pendula.nets.checkpoint import write_whole
from pendula.papers import find, read_papers
from pendula.papers.page import page
from pendula.papers.reproduce import reproduce as run_entry
from pendula.papers.rows import HEAD, rows
from pendula.papers.text import grouped
from pendula.papers.text import markdown as as_markdown
from pendula.report import progress, simple_table


def reproduce(
    *,
    console: Console,
    entries: Sequence[str],
    seeds: int | None,
    seed: Sequence[int] | None,
    budget: str | None,
    accelerator: str,
    devices: int,
    cuda_graph: bool,
    runs: str,
    results: str,
) -> None:
    """Run the entries that names or patterns stand for; the arguments are those of the command line."""
    found = find(entries)
    left_out = [entry for entry in found if entry.experiment is None]
    if left_out and len(found) == 1:
        raise ValueError(f"{found[0].name} can't be run: {found[0].missing}")
    if seed is not None and seeds is not None:
        raise ValueError("--seeds says how many, --seed which ones: give one of them")
    allowed = None if budget is None else seconds_of("--budget", budget)
    deadline = None if allowed is None else time.monotonic() + allowed

    def say(words: str) -> None:
        console.print(words, soft_wrap=True, highlight=False)

    for entry in left_out:
        say(f"{entry.name} is left out: {entry.missing}")
    for entry in found:
        if entry.experiment is None:
            continue
        count = entry.seeds if seeds is None else positive_int("--seeds", seeds)
        run_entry(
            entry,
            range(count) if seed is None else seed,
            results=Path(results),
            runs=Path(runs),
            deadline=deadline,
            place={"accelerator": accelerator, "devices": devices, "cuda_graph": cuda_graph},
            progress=lambda name, epochs: progress(console, name, epochs),
            say=say,
        )


def report(
    *,
    console: Console,
    results: str,
    paper: Sequence[str] | None,
    measured: bool,
    markdown: str | None,
    html: str | None,
    overwrite: bool,
) -> None:
    """Tables of published and measured numbers; the arguments are those of the command line."""
    papers = read_papers()
    for name in paper or ():
        one_of("--paper", name, papers)
    for target in (markdown, html):
        if target is not None and Path(target).exists() and not overwrite:
            raise DataError(f"{target} exists: give another name, or --overwrite")
    found = rows(Path(results), [one for name, one in papers.items() if name in (paper or papers)])
    if measured:
        found = [row for row in found if row.results]
    for one, tables in grouped(found):
        for table, own in tables:
            console.print(simple_table(f"{one.name}: {table.title}", HEAD, [row.cells() for row in own]))
    for target, made in ((markdown, as_markdown), (html, page)):
        if target is not None:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            write_whole(Path(target), made(found).encode())
            console.print(target, soft_wrap=True)
