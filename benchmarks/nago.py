"""The study of docs/nago.md: what a search over generators finds, beside random ones and networks made by hand.

    python benchmarks/nago.py har6 --work FOLDER --out results/search [--arms bohb random] [--repetitions 0 1 2]

Every arm of a problem spends the same number of training epochs (its last training may go over), keeps the network with
the best validation metric, trains it again, and then looks at its test part, once. All networks have at most as many
parameters as the one made by hand. An arm that was cut off goes on when the same command runs again; one that is done
has a file PROBLEM/ARM-REPETITION.json in --out, and is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console

from pendula.circumstances import circumstances
from pendula.experiment import Experiment, run
from pendula.learn.training import Training
from pendula.nas.report import open_search
from pendula.nas.report import report as write_best
from pendula.nas.running import search
from pendula.nas.worker import NETWORKS
from pendula.nets.checkpoint import write_whole
from pendula.search.graphs import derived_seed
from pendula.tune import places
from pendula.tune.results import toml

ROOT = Path(__file__).parents[1]
SAMPLED = 5
"""Networks that are drawn of a generator to see how much they differ."""


@dataclass(frozen=True)
class Problem:
    """What is searched, and what it is measured against.

    Args:
        space: the file of the search space, whose task, training and limit all arms have.
        epochs: of training, for each arm.
        hand: tables of the network made by hand.
        wiring: a generator whose numbers are fixed by hand.
        plain: a generator of the network made by hand, of which only the physics is searched; None without physics.
        search: what is changed of the table [search].
    """

    space: str
    epochs: int
    hand: dict[str, Any]
    wiring: dict[str, Any]
    plain: dict[str, Any] | None = None
    search: dict[str, Any] = field(default_factory=dict)


PUBLISHED = {"dt": 0.1, "gamma": 0.2, "epsilon": 6.4}
"""Physics of the published coRNN for HAR-2: spec sheet ``cornn.md`` 5.1."""
PROBLEMS = {
    "har6": Problem(
        "examples/search/har6.toml",
        epochs=160,
        hand={"network": "CoRNN", "hidden_size": 64, "physics": {"init": "concat", **PUBLISHED}},
        # the middle of the ranges of the space
        wiring={
            "top_nodes": 2, "top_neighbours": 2, "top_rewiring": 0.5, "middle_nodes": 2, "middle_probability": 0.6,
            "density": 0.55, "coupling_rewiring": 0.5, "physics": PUBLISHED,
        },
        plain={
            "top_nodes": 1, "top_neighbours": 2, "top_rewiring": 0.5, "middle_nodes": 1, "middle_probability": 0.6,
            "density": 1.0, "coupling_rewiring": 0.5,
        },
    ),
    "digits": Problem(
        "examples/search/digits.toml",
        epochs=120,
        hand={"network": "ResNet", "hidden_size": 6, "num_layers": 1},
        # three stages of one graph each, WS(4, 0.75): randomly wired networks (Xie and others 2019), with fewer nodes
        wiring={
            "top_nodes": 3, "top_neighbours": 2, "top_rewiring": 0.5, "middle_nodes": 1, "middle_probability": 0.5,
            "bottom_nodes": 10, "bottom_neighbours": 4, "bottom_rewiring": 0.75,
        },
        # the parameters of that ResNet
        search={"limit": 11_284, "least_epochs": 3},
    ),
}  # fmt: skip


def arms(problem: Problem) -> dict[str, Callable[[Problem, int, Path], dict[str, Any]]]:
    """Name -> what runs it."""
    searched = {
        "bohb": lambda p, n, home: found_by_search(p, n, home, {"optimiser": "bohb"}, sampled=True),
        "random": lambda p, n, home: found_by_search(p, n, home, {"optimiser": "random"}),
        "wiring": lambda p, n, home: found_by_search(p, n, home, {"optimiser": "random", "generator": p.wiring}),
    }
    if problem.plain:
        searched["physics"] = lambda p, n, home: found_by_search(
            p, n, home, {"optimiser": "random", "generator": p.plain, "networks": ["CoRNN"]}
        )
    return {**searched, "hand": by_hand}


def tables_of(problem: Problem) -> dict[str, Any]:
    """The space of a problem: of one objective, one network a point."""
    tables = tomllib.loads((ROOT / problem.space).read_text())
    tables["search"] |= {"objectives": ["accuracy"], "samples": 1, **problem.search}
    return tables


def found_by_search(
    problem: Problem, repetition: int, home: Path, changes: dict[str, Any], *, sampled: bool = False
) -> dict[str, Any]:
    """Search until the epochs are spent, and train the best network."""
    tables = tables_of(problem)
    tables["search"] |= {"seed": repetition, **changes}
    trials = spend(tables, problem.epochs, home / "search")
    final = trained(home)
    wirings = {}
    if sampled:
        point = json.loads((home / "report" / "best-1.json").read_text())["point"]
        own = tables["search"]["generator"]
        fixed = {**{k: v for k, v in own.items() if not isinstance(v, dict)}, **point}
        tables["search"] |= {"optimiser": "random", "generator": fixed, "seed": 1000 + repetition}
        more = spend(tables, SAMPLED * tables["train"]["epochs"], home / "samples")
        wirings = {"point": point, "samples": [network["value"] for network in more]}
    return {"networks": trials, **final, **wirings}


def spend(tables: dict[str, Any], epochs: int, home: Path) -> list[dict[str, Any]]:
    """Run trials until so many epochs are spent; its networks, in the order of the trials."""
    home.mkdir(parents=True, exist_ok=True)
    space = home.parent / f"{home.name}.toml"
    space.write_text(toml(tables))
    trials: list[dict[str, Any]] = []
    spent = 0
    while spent < epochs:
        # no trial takes more than this, so none but the last can go over
        total = len(trials) + max(1, (epochs - spent) // tables["train"]["epochs"])
        search(space, console=Console(), out=str(home), trials=total)
        trials = list(map(told, places.holders(open_search(str(home))[0].trials).values()))
        spent = sum(trial["epochs"] for trial in trials)
    return trials


def told(trial: Any) -> dict[str, Any]:
    """What a trial of one network took and gave; without a value where it was pruned or failed."""
    networks = trial.user_attrs.get(NETWORKS, [])
    values = networks[0]["values"] if networks else None
    return {
        "epochs": trial.user_attrs.get("epochs", 0),
        "seconds": trial.user_attrs.get("seconds", 0.0),
        "ended": trial.state.name.lower(),
        "value": values[0] if values else None,
    }


def trained(home: Path) -> dict[str, Any]:
    """Train the best network as a user would: from the file that a report writes."""
    if not (home / "report" / "best-1.toml").exists():
        write_best(str(home / "search"), console=Console(), out=str(home / "report"), best=1)
    data = tomllib.loads((home / "report" / "best-1.toml").read_text())
    result = run(Experiment.from_dict(data), home / "final", resume=True)
    # what a coupling keeps at zero isn't counted
    count = json.loads((home / "report" / "best-1.json").read_text())["parameters"]
    return {**outcome(result), "parameters": count, "stored": result["parameters"]}


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    return {"validation": result["validation"], "test": result["test"]["accuracy"], "parameters": result["parameters"]}


def by_hand(problem: Problem, repetition: int, home: Path) -> dict[str, Any]:
    """The network made by hand, from as many seeds as the epochs allow; the best one is tested."""
    tables = tables_of(problem)
    each = tables["train"]["epochs"]
    networks, best = [], None
    for number in range(problem.epochs // each):
        seed = derived_seed(repetition, "hand", number) % 2**31
        experiment = Experiment.from_dict({"task": tables["task"], "model": problem.hand, "train": tables["train"]})
        experiment = replace(experiment, train=Training(**{**tables["train"], "seed": seed}))
        result = run(experiment, home / "runs" / f"{number:02d}", resume=True, tested=False)
        seconds = result["history"][-1]["seconds"]
        networks.append({"epochs": each, "seconds": seconds, "ended": "complete", "value": result["validation"]})
        if best is None or result["validation"] > best[0]:
            best = result["validation"], experiment
    assert best is not None
    return {"networks": networks, **outcome(run(best[1], home / "final", resume=True))}


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("problem", choices=list(PROBLEMS))
    words.add_argument("--work", type=Path, required=True, help="folder of the searches and the trainings")
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--arms", nargs="+")
    words.add_argument("--repetitions", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--epochs", type=int, help="of each arm, in the place of those of the problem")
    given = words.parse_args()
    torch.set_flush_denormal(True)
    problem = PROBLEMS[given.problem]
    problem = replace(problem, epochs=given.epochs or problem.epochs)
    known = arms(problem)
    for repetition in given.repetitions:
        for arm in given.arms or known:
            file = given.out / given.problem / f"{arm}-{repetition}.json"
            if file.exists():
                continue
            began = time.monotonic()
            facts = known[arm](problem, repetition, given.work / given.problem / f"{arm}-{repetition}")
            values = [n["value"] for n in facts["networks"] if n["value"] is not None]
            told_of = {
                "what": f"benchmarks/nago.py {given.problem}: {arm}, repetition {repetition}",
                "epochs": sum(n["epochs"] for n in facts["networks"]),
                "mean_value": fmean(values) if values else None,
                **facts,
                "space": tables_of(problem),
                **circumstances(),
                "seconds_of_this_start": round(time.monotonic() - began, 1),
            }
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, (json.dumps(told_of, indent=1) + "\n").encode())
            print(f"{file}: validation {facts['validation']:.4f}, test {facts['test']:.4f}", flush=True)


if __name__ == "__main__":
    main()
