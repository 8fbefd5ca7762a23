"""The first thing a new user runs: coRNN and an LSTM of the same size on handwritten digits, read pixel by pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console

from pendula._check import positive_int
from pendula.experiment import run
from pendula.papers import find
from pendula.report import learning_curves, progress, simple_table

ENTRIES = ("pendula/digits-*", "pendula/permuted-digits-*")


def demo(folder: Path, *, seeds: int, epochs: int, console: Console) -> list[dict[str, Any]]:
    """Train both networks on plain and permuted digits, show a table, draw the learning curves.

    Runs that the folder holds already are resumed or read, not repeated.
    """
    positive_int("seeds", seeds)
    results = []
    for entry in find(ENTRIES):
        assert entry.experiment
        network, permuted = entry.experiment.model.network, entry.table.name == "permuted-digits"
        group = "permuted digits" if permuted else "digits in order"
        for seed in range(seeds):
            experiment = replace(entry.experiment, train=replace(entry.experiment.train, epochs=epochs, seed=seed))
            home = folder / ("permuted" if permuted else "plain") / f"{network.lower()}-seed{seed}"
            with progress(console, f"{network:5} {group}, seed {seed}", epochs) as report:
                results.append((group, network, run(experiment, home, resume=True, report=report)))
    rows = []
    for group, network in dict.fromkeys((group, network) for group, network, _ in results):
        own = [r for g, n, r in results if (g, n) == (group, network)]
        tests = [r["test"]["accuracy"] for r in own]
        spread = f" ± {stdev(tests):.3f}" if len(tests) > 1 else ""
        seconds = f"{mean(r['seconds'] for r in own):.0f} s"
        rows.append((group, network, f"{own[0]['parameters']:,}", f"{mean(tests):.3f}{spread}", seconds))
    head = ("data", "network", "parameters", f"test accuracy ({seeds} seed{'s' * (seeds > 1)})", "training")
    console.print(simple_table("handwritten digits, pixel by pixel (64 steps)", head, rows))
    picture = learning_curves(results, folder / "learning-curves.png")
    console.print(
        f"learning curves: {picture}\nmodels: {folder}/*/*/best, opened with pendula.load(folder)", soft_wrap=True
    )
    return [result for _, _, result in results]
