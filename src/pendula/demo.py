"""The first thing a new user runs: coRNN and an LSTM of the same size on handwritten digits, read pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console

from pendula._check import positive_int
from pendula.experiment import Experiment, ModelChoice, TaskChoice, run
from pendula.learn.training import Training
from pendula.report import learning_curves, progress, simple_table

# both choices were made without the test part (LOG.md); each has 27 370 parameters
NETWORKS = {
    "CoRNN": (ModelChoice("CoRNN", 114, physics={"dt": 0.3, "gamma": 0.7, "epsilon": 2.3, "init": "split"}), 1e-2),
    "LSTM": (ModelChoice("LSTM", 80), 1.2e-2),
}


def demo(folder: Path, *, seeds: int, epochs: int, console: Console) -> list[dict[str, Any]]:
    """Train both networks on plain and permuted digits, show a table, draw the learning curves.

    Runs that the folder holds already are resumed or read, not repeated.
    """
    positive_int("seeds", seeds)
    results = []
    for permuted in (False, True):
        group = "permuted digits" if permuted else "digits in order"
        for network, (model, rate) in NETWORKS.items():
            for seed in range(seeds):
                train = Training(
                    epochs=epochs,
                    learning_rate=rate,
                    optimiser="adamw",
                    weight_decay=0.05,
                    input_noise=0.1,
                    schedule="cosine",
                    clip_norm=0.3,
                    seed=seed,
                )
                experiment = Experiment(TaskChoice("digits", {"permuted": permuted}), model, train)
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
