"""How the default physics of the networks was chosen: short trainings on the digits, measured on the validation part.

    python benchmarks/defaults.py [NETWORK ...]

Each candidate of a network is trained on the digits in order and permuted, with one and the same training; the line
that is printed, and kept in results/defaults/<network>.json, has the best validation accuracy of each. The test part
is not looked at. A screening with one seed on 300 validation images: differences below 0.02 mean nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import torch

from pendula import Model, StabilityWarning
from pendula.choices import ModelChoice
from pendula.circumstances import circumstances
from pendula.learn.fit import fit
from pendula.learn.training import Diverged, Training
from pendula.tasks import TASKS

TRAINING = Training(epochs=12, batch_size=64, learning_rate=5e-3, schedule="cosine", clip_norm=1.0, seed=0)
UNITS = 64
RESULTS = Path(__file__).parents[1] / "results" / "defaults"


def grid(**choices: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "UnICORNN": grid(dt=[0.5, 1.0, 1.5], alpha=[0.2, 0.5, 1.5]),
    "ODERNN": grid(dt=[0.1, 0.3, 1.0], gamma=[[[1.0, 0.2]], [[1.0, 1.0]], [[0.5, 2.0]]], tableau=["rk4"])
    + grid(dt=[0.1, 0.3], tableau=["semi-implicit"]),
    "LEM": grid(dt=[0.1, 0.3, 1.0]),
    "AntisymmetricRNN": grid(dt=[0.03, 0.1, 0.3], gamma=[0.001, 0.03], gated=[False]) + grid(dt=[0.1], gated=[True]),
    "LipschitzRNN": grid(dt=[0.03, 0.1, 0.3], gamma=[0.001, 0.03]),
    "LMU": grid(memory=[16, 32, 64], theta=[64.0, 128.0]),
    "LinOSS": grid(dt=[0.1, 0.5, 1.0], discretisation=["im", "imex"]),
    "DLinOSS": grid(dt=[0.1, 0.5, 1.0], r_min=[0.7, 0.9]),
    "SpectralRNN": grid(margin=[0.0, 0.01, 0.1, 0.3, 1.0]),
    "QUNN": grid(lags=[1, 2, 4]),
    "URNN": grid(contracting=[False, True]),
    "FullCapacityURNN": grid(contracting=[False, True]),
    "EURNN": grid(capacity=[2, 4, 8]),
    "RealEURNN": grid(capacity=[2, 4, 8]),
    "ExpRNN": grid(init=["cayley", "henaff"]),
    "ScoRNN": grid(init=["cayley", "henaff"], rho=[8, 32]),
    "FastRNN": grid(alpha=[-3.0, -1.0]),
    "FastGRNN": grid(),
    "Elman": grid(),
    "IRNN": grid(),
    "LSTM": grid(chrono=[None, 64.0]),
    "GRU": grid(chrono=[None, 64.0]),
}


def measure(network: str, physics: dict[str, Any], permuted: bool) -> float | str:
    task = TASKS["digits"](permuted=permuted)  # type: ignore[call-arg]
    torch.manual_seed(TRAINING.seed)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)
            model = Model(ModelChoice(network=network, hidden_size=UNITS, physics=physics).spec(task))
            if task.standardise:
                model.set_standard(*task.statistics())
            return round(fit(model, task, TRAINING, Path(folder) / "run").best, 4)
    except Diverged:
        return "diverged"


def main(networks: list[str]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    for network in networks or list(CANDIDATES):
        rows = []
        for physics in CANDIDATES[network]:
            found = {name: measure(network, physics, name == "permuted") for name in ("in order", "permuted")}
            rows.append({"physics": physics, **found})
            print(network, physics, found, flush=True)
        facts = {"network": network, "units": UNITS, "epochs": TRAINING.epochs, "validation": rows}
        facts |= {"data": TASKS["digits"]().provenance, **circumstances()}  # type: ignore[call-arg]
        (RESULTS / f"{network}.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
