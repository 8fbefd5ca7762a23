"""How well surrogates predict generators that they have not seen: the table of docs/nago.md.

    python benchmarks/surrogates.py --out results/search/surrogates.json [--work FOLDER]

The generators and the networks drawn of them are those of the study of searches and of the half hour (results/search):
--work is the folder of its searches, as it was given to benchmarks/nago.py. Without it, they are those that --out has
from before. What was stopped early is left out, as is what lies outside the space that is searched.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from optuna.trial import TrialState
from torch import Tensor

from pendula.circumstances import circumstances
from pendula.nas.report import open_search
from pendula.nas.space import GeneratorSpace, read_space
from pendula.nas.worker import NETWORKS
from pendula.nets.checkpoint import write_whole
from pendula.search import bayesian, gaussian
from pendula.search.variables import encode
from pendula.tune import places

ROOT = Path(__file__).parents[1]
SPACES = {name: ROOT / "examples" / "search" / f"{name}.toml" for name in ("digits", "har6")}
ARMS = ("random-*/search", "bohb-*/search", "bohb-*/samples", "wiring-*/search")
"""Searches whose networks are of the same kinds; those of one coRNN layer aren't."""
HALF_HOUR = {"har6": ROOT / "results" / "search" / "half-hour" / "trials.csv"}
FOLDS, SHUFFLES, LEAST = 10, 5, 30

Known = list[tuple[list[float], list[float]]]
"""Points of the unit cube, and the validation accuracies of the networks of each."""


def generators(problem: str, work: Path) -> Known:
    """What the searches of a problem trained to the end, each network once."""
    space = read_space(SPACES[problem])
    networks: dict[tuple[float, ...], dict[int, float]] = {}

    def keep(values: dict[str, Any], seed: int, accuracy: float) -> None:
        point = tuple(encode(space.searched, values))
        if all(0 <= place <= 1 for place in point):
            # searches of one seed begin with the same networks
            networks.setdefault(point, {})[seed] = accuracy

    for folder in sorted(home for arm in ARMS for home in (work / problem).glob(arm)):
        study, own = open_search(str(folder))
        for trial in places.holders(study.trials).values():
            for network in trial.user_attrs.get(NETWORKS, ()) if trial.state == TrialState.COMPLETE else ():
                if network["values"]:
                    keep(own.values(trial.params), network["seed"], network["values"][0])
    if problem in HALF_HOUR:
        for values, seed, accuracy in _written(space, HALF_HOUR[problem]):
            keep(values, seed, accuracy)
    return [(list(point), list(found.values())) for point, found in networks.items()]


def _written(space: GeneratorSpace, file: Path) -> list[tuple[dict[str, Any], int, float]]:
    """Generator, seed and accuracy of the networks in a report's trials.csv, one of each point."""
    rows = [row for row in csv.DictReader(file.open()) if row["outcome"] == "complete"]
    return [
        (
            {v.name: int(row[v.name]) if v.whole or v.choices else float(row[v.name]) for v in space.searched},
            space.seeds(int(row["trial"]))[0],
            float(row["accuracy"]),
        )
        for row in rows
    ]


Predict = Callable[[Known, Tensor, int], tuple[Tensor, Tensor]]
"""Mean and variance of what a network has at points, from what is known, with a seed."""


def constant(known: Known, points: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """One normal for all points."""
    means = torch.tensor([sum(own) / len(own) for _, own in known], dtype=points.dtype)
    return means.mean().expand(len(points)), means.var().expand(len(points))


def processes(known: Known, points: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The Gaussian process that `gaussian.propose` fits; a network has the noise of a point with one network."""
    inputs = torch.tensor([point for point, _ in known], dtype=points.dtype)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        with torch.enable_grad():
            model, centre, scale = gaussian.learn(inputs, [[own] for _, own in known])
        single = gaussian.noise([*(own for _, own in known), [0.0]])[-1]
        posterior = model.posterior(points, observation_noise=not single)
        return centre + scale * posterior.mean[:, 0], scale**2 * posterior.variance[:, 0] + single


def network(known: Known, points: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The Bayesian network that `bayesian.propose` draws."""
    rows = [(point, value) for point, own in known for value in own]
    inputs, values = (torch.tensor(part, dtype=points.dtype) for part in zip(*rows, strict=True))
    mu, variance = bayesian.moments(*bayesian.learn(inputs, values[:, None], seed=seed)(points))
    return mu[:, 0], variance[:, 0]


SURROGATES: dict[str, Predict] = {"constant": constant, "gp": processes, "bnn": network}


def held_out(predict: Predict, known: Known, seed: int) -> dict[str, float]:
    """Of each generator, predicted from those of other folds: negative log-likelihood and error of its networks.

    All generators count alike, however many networks were drawn of each.
    """
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).tolist()
    likelihood, square = [], []
    for fold in range(FOLDS):
        tested = order[fold::FOLDS]
        rest = [known[place] for place in order if place not in tested]
        points = torch.tensor([known[place][0] for place in tested], dtype=torch.float64)
        for place, mu, variance in zip(tested, *predict(rest, points, seed * FOLDS + fold), strict=True):
            values = torch.tensor(known[place][1], dtype=torch.float64)
            likelihood.append(bayesian.negative_log_likelihood(values, mu, variance).mean())
            square.append(((values - mu) ** 2).mean())
    each = torch.stack(likelihood)
    error = torch.stack(square).mean().sqrt()
    return {"nll": float(each.mean()), "median_nll": float(each.median()), "rmse": float(error)}


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--work", type=Path, help="folder of the searches of benchmarks/nago.py")
    given = words.parse_args()
    torch.set_num_threads(1)
    before = {} if given.work else json.loads(given.out.read_text())["problems"]
    found = {}
    for problem in SPACES:
        known = generators(problem, given.work) if given.work else before[problem]["generators"]
        if len(known) < LEAST:
            print(f"{problem}: {len(known)} generators are too few")
            continue
        tables: dict[str, Any] = {}
        for name, predict in SURROGATES.items():
            began = time.monotonic()
            tables[name] = [held_out(predict, known, shuffle) for shuffle in range(SHUFFLES)]
            print(f"{problem}, {name}: {tables[name]} in {time.monotonic() - began:.0f} s", flush=True)
        found[problem] = {"surrogates": tables, "generators": known}
    told = {"what": "benchmarks/surrogates.py", "folds": FOLDS, "problems": found, **circumstances()}
    write_whole(given.out, (json.dumps(told) + "\n").encode())


if __name__ == "__main__":
    main()
