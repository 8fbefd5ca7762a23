"""What a search found: its front or its best points, what mattered, and the best networks as files to train."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from pendula._check import DataError, positive_int
from pendula.nas.networks import build_task, draw, experiment
from pendula.nas.space import METRICS, GeneratorSpace
from pendula.nas.worker import GRAPHS, NETWORKS, OBJECTIVES, PENALISED, shown
from pendula.nets.checkpoint import write_whole
from pendula.report import simple_table
from pendula.search.optimise import REPEATS, front
from pendula.tasks.base import Task
from pendula.tune import places
from pendula.tune.results import ENOUGH, SHOWN, outcome, ranked, toml
from pendula.tune.study import SPACE, existing_storage

BEST = 5


def report(what: str, *, console: Console, out: str | None = None, best: int = BEST, study: str | None = None) -> None:
    """Show a search, and write its points and its best networks to a new folder.

    Args:
        what: the folder of a search, or its storage: a database URL or a journal file.
        console: where to show it.
        out: a new folder; the first of report-1, report-2, ... in the folder of the search that is not there when None.
        best: how many networks to write.
        study: name, where the storage has several.

    The folder gets ``best-1.toml`` and so on (`pendula train --config` takes them), ``best-1.json`` (what each was
    drawn from: `pendula search show` draws it), ``trials.csv`` and, when there are enough, ``importances.csv``.
    Errors: DataError when there is no such study, or the folder is not empty.
    """
    positive_int("--best", best)
    made, space = open_search(what, study)
    for part in tables(made, space):
        console.print(part, soft_wrap=True)
    home = _folder(what, space, out)
    found = chosen(made)[:best]
    task = build_task(space) if found else None
    files = {"trials.csv": _csv(made)}
    if shares := importances(made):
        files["importances.csv"] = "parameter,share\n" + "".join(f"{k},{v:.4f}\n" for k, v in shares.items())
    for number, trial in enumerate(found if task else (), 1):
        assert task is not None
        files |= _network(made, space, trial, task, f"best-{number}")
    home.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_whole(home / name, text.encode())
        console.print(f"- {home / name}", soft_wrap=True, markup=False, highlight=False)


def open_search(what: str, name: str | None = None) -> tuple[optuna.Study, GeneratorSpace]:
    """The study in a folder or a storage, and what it searches. Errors: DataError when it is not there."""
    folder = Path(what)
    elsewhere = None if "://" not in what and folder.is_dir() else what
    storage = existing_storage(folder, elsewhere)
    known = [
        s.study_name
        for s in optuna.get_all_study_summaries(storage, include_best_trial=False)
        if _is_ours(s.user_attrs)
    ]
    if name is None and len(known) > 1:
        raise DataError(f"{what} has the searches {', '.join(known)}: say which with --study")
    if not known or (name is not None and name not in known):
        has = f"; it has: {', '.join(known)}" if known else ""
        raise DataError(f"{what} holds no search{f' {name}' if name else ''}{has}: `pendula search run` makes one")
    made = optuna.load_study(study_name=name or known[0], storage=storage)
    try:
        return made, GeneratorSpace.from_dict(made.study_name, made.user_attrs[SPACE])
    except ValueError as error:
        raise DataError(f"the search {made.study_name} was made by another version of pendula: {error}") from error


def _is_ours(notes: dict[str, Any]) -> bool:
    return OBJECTIVES in notes and SPACE in notes


def chosen(study: optuna.Study) -> list[FrozenTrial]:
    """The points worth training: the front of several objectives, else the best ones; best by the metric first.

    A point none of whose networks could be trained is not among them.
    """
    found = [t for t in ranked(study) if any(n["values"] for n in t.user_attrs.get(NETWORKS, ()))]
    if len(study.directions) == 1 or not found:
        return found
    sign = [1.0 if way == optuna.study.StudyDirection.MAXIMIZE else -1.0 for way in study.directions]
    kept = front([[s * value for s, value in zip(sign, t.values, strict=True)] for t in found])
    return [found[place] for place in kept]


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each number of the generator in how good a point is (PED-ANOVA); empty while there are too few.

    Of several objectives, in how near a point is to the front.
    """
    params = {name for t in ranked(study) for name in t.params}
    if len(ranked(study)) < ENOUGH or not params:
        return {}
    return optuna.importance.get_param_importances(study)


def tables(study: optuna.Study, space: GeneratorSpace) -> list[Table]:
    """The front or the best points, how all of them ended, and what mattered."""
    trials = places.holders(study.trials)
    named = study.user_attrs[OBJECTIVES]
    heads = [f"validation {name}" if name in METRICS else name for name in named]
    points = [variable.name for variable in space.searched]
    rows = []
    several = len(named) > 1
    for trial in chosen(study)[: None if several else SHOWN]:
        repeats = trial.user_attrs.get(REPEATS, [])
        values = [_spread(value, own) for value, own in zip(trial.values, repeats, strict=True)]
        rows.append((str(places.place(trial)), *values, *(shown(trial.params.get(name, "")) for name in points)))
    what = "the front" if several else "the best"
    title = f"{space.name}: {what}, {len(rows)} of {len(trials)} points"
    if space.samples > 1:
        title += f" (means over up to {space.samples} networks, lowest to highest)"
    found = [simple_table(title, ("trial", *heads, *points), rows)]
    counts = Counter(outcome(t) for t in trials.values())
    said = {outcome(t): places.why(t) for t in trials.values() if places.why(t)}
    ended = [(how, str(count), said.get(how, "")) for how, count in counts.most_common()]
    found.append(simple_table("how they ended", ("", "points", "why, or what was said, the last one"), ended))
    epochs = sum(t.user_attrs.get("epochs", 0) for t in trials.values())
    networks = [n for t in trials.values() for n in t.user_attrs.get(NETWORKS, ())]
    worst = sum(t.user_attrs.get(PENALISED, 0) for t in trials.values())
    spent = [("networks", str(len(networks))), ("of these counted as the worst", str(worst)), ("epochs", str(epochs))]
    found.append(simple_table("what it took", ("", "in all"), spent))
    if shares := importances(study):
        parts = [(name, f"{share:.0%}") for name, share in shares.items()]
        found.append(simple_table("what mattered", ("number of the generator", "share (PED-ANOVA)"), parts))
    return found


def _spread(mean: float, repeats: Sequence[float]) -> str:
    if len(set(repeats)) < 2:
        return shown(mean)
    return f"{shown(mean)} ({shown(min(repeats))} to {shown(max(repeats))})"


def _folder(what: str, space: GeneratorSpace, out: str | None) -> Path:
    """A folder that holds nothing yet."""
    if out is not None:
        home = Path(out)
        if home.exists() and (not home.is_dir() or any(home.iterdir())):
            raise DataError(f"{home} is not empty: give another --out")
        return home
    above = Path(what) if "://" not in what and Path(what).is_dir() else Path(f"runs/search/{space.name}")
    number = 1
    while (above / f"report-{number}").exists():
        number += 1
    return above / f"report-{number}"


def _network(study: optuna.Study, space: GeneratorSpace, trial: FrozenTrial, task: Task, name: str) -> dict[str, str]:
    """The best network of a point: as a config to train, and what it was drawn from."""
    named = study.user_attrs[OBJECTIVES]
    sign = -1 if named[0] == "accuracy" else 1
    measured = [network for network in trial.user_attrs[NETWORKS] if network["values"]]
    best = min(measured, key=lambda network: sign * network["values"][0])
    drawn = draw(space, trial.params, best["seed"], task)
    data = experiment(space, drawn, best["seed"]).to_dict()
    # the rest stands in the nodes
    data["model"] = {key: data["model"][key] for key in ("pool", "nodes")}
    values = dict(zip(named, best["values"], strict=True))
    told = ", ".join(f"{'validation ' * (key in METRICS)}{key} {shown(value)}" for key, value in values.items())
    head = (
        f"# A network of {space.name}, trial {places.place(trial)}: {told}; {drawn.parameters} parameters.\n"
        f"# The search has not seen the test part: pendula train --config {name}.toml trains this again, and tests it\n"
    )
    facts = {
        "name": space.name,
        "space": space.identity(),
        "trial": places.place(trial),
        "point": trial.params,
        "seed": best["seed"],
        "values": values,
        "parameters": drawn.parameters,
        "stored": drawn.stored,
        "wiring": drawn.wiring.digest(),
        "networkx": study.user_attrs.get(GRAPHS),
    }
    return {f"{name}.toml": head + toml(data), f"{name}.json": json.dumps(facts, indent=2) + "\n"}


def _csv(study: optuna.Study) -> str:
    named = study.user_attrs[OBJECTIVES]
    trials = places.holders(study.trials)
    names = list(dict.fromkeys(name for t in trials.values() for name in t.params))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    spread = [f"{name}, each network" for name in named]
    rows.writerow(("trial", "outcome", *named, *spread, "penalised", "epochs", "seconds", "host", *names, "said"))
    for number, trial in trials.items():
        notes = trial.user_attrs
        done = trial.state == TrialState.COMPLETE
        rows.writerow(
            (
                number,
                outcome(trial),
                *(trial.values if done else [""] * len(named)),
                *(" ".join(map(repr, each)) for each in notes.get(REPEATS, [[]] * len(named))),
                notes.get(PENALISED, 0),
                notes.get("epochs", ""),
                notes.get("seconds", ""),
                notes.get(places.WORKER, {}).get("host", ""),
                *(trial.params.get(name, "") for name in names),
                places.why(trial),
            )
        )
    return text.getvalue()
