"""What a sweep found: tables for the terminal, `best.toml` to train with, and all trials as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from rich.table import Table

from pendula.nets.checkpoint import write_whole
from pendula.report import simple_table
from pendula.tune import places
from pendula.tune.space import Space
from pendula.tune.study import METRIC

SHOWN = 10
ENOUGH = 20
"""Completed trials from which on importances are shown; fewer say little."""


def outcome(trial: optuna.trial.FrozenTrial) -> str:
    """complete, pruned, diverged, failed, running or waiting."""
    words = {TrialState.FAIL: "failed", TrialState.PRUNED: "pruned"}
    if places.DIVERGED in trial.user_attrs:
        return "diverged"
    return words.get(trial.state, trial.state.name.lower())


def ranked(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The completed trials, the best one first."""
    found = [t for t in places.holders(study.trials).values() if t.state == TrialState.COMPLETE]
    # of several objectives, by the first
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    return sorted(found, key=lambda t: (sign * t.values[0], places.place(t)))


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each parameter in how good a trial is (PED-ANOVA); empty while there are too few trials."""
    if len(ranked(study)) < ENOUGH:
        return {}
    return optuna.importance.get_param_importances(study)


def tables(study: optuna.Study, space: Space) -> list[Table]:
    """The best trials, how all of them ended, and what mattered."""
    trials = places.holders(study.trials)
    metric = f"validation {study.user_attrs[METRIC]}"
    names = [p.path for p in space.parameters]
    best = [
        (str(places.place(t)), _number(t.value), str(t.user_attrs.get("epochs", "")), *_values(t, names))
        for t in ranked(study)[:SHOWN]
    ]
    title = f"{space.name}: {'the best ' if len(best) == SHOWN else ''}{len(best)} of {len(trials)} trials"
    if space.seeds > 1:
        title += f", means over {space.seeds} seeds"
    found = [simple_table(title, ("trial", metric, "epochs", *names), best)]
    counts = Counter(outcome(t) for t in trials.values())
    said = {outcome(t): places.why(t) for t in trials.values() if places.why(t)}
    rows = [(how, str(count), said.get(how, "")) for how, count in counts.most_common()]
    found.append(simple_table("how they ended", ("", "trials", "why, the last one"), rows))
    if shares := importances(study):
        rows = [(name, f"{share:.0%}", "") for name, share in shares.items()]
        found.append(simple_table("what mattered", ("parameter", "share (PED-ANOVA)"), [row[:2] for row in rows]))
    return found


def write(study: optuna.Study, space: Space, home: Path) -> list[Path]:
    """Write trials.csv, best.toml and importances.csv anew, and say which."""
    files = {home / "trials.csv": _csv(study, space)}
    if best := ranked(study)[:1]:
        files[home / "best.toml"] = _best(study, space, best[0])
    if shares := importances(study):
        files[home / "importances.csv"] = "parameter,share\n" + "".join(f"{k},{v:.4f}\n" for k, v in shares.items())
    for path, text in files.items():
        write_whole(path, text.encode())
    return list(files)


def _best(study: optuna.Study, space: Space, best: optuna.trial.FrozenTrial) -> str:
    count = len(places.holders(study.trials))
    seeds = f", mean over {space.seeds} seeds" if space.seeds > 1 else ""
    head = (
        f"# The best of {count} trials of {space.name}, trial {places.place(best)}: validation "
        f"{study.user_attrs[METRIC]} {_number(best.value)}{seeds}.\n"
        "# Written anew by `pendula tune`: copy this file to change it. Train it: pendula train --config FILE\n"
    )
    return head + toml(space.experiment(best.params).to_dict())


def _csv(study: optuna.Study, space: Space) -> str:
    names = [p.path for p in space.parameters]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ("trial", "outcome", study.user_attrs[METRIC], "epochs", "seconds", "host", "started", "ended", *names, "said")
    )
    for number, trial in places.holders(study.trials).items():
        notes = trial.user_attrs
        rows.writerow(
            (
                number,
                outcome(trial),
                trial.value if trial.state == TrialState.COMPLETE else "",
                notes.get("epochs", ""),
                notes.get("seconds", ""),
                notes.get(places.WORKER, {}).get("host", ""),
                *(
                    "" if t is None else t.isoformat(timespec="seconds")
                    for t in (trial.datetime_start, trial.datetime_complete)
                ),
                *(trial.params.get(name, "") for name in names),
                places.why(trial),
            )
        )
    return text.getvalue()


def _values(trial: optuna.trial.FrozenTrial, names: list[str]) -> list[str]:
    return [_number(trial.params[name]) if name in trial.params else "" for name in names]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def toml(tables: Mapping[str, Any], above: str = "") -> str:
    """Plain data as TOML: what is None is left out.

    >>> print(toml({"train": {"epochs": 3, "clip_norm": None}}))
    <BLANKLINE>
    [train]
    epochs = 3
    <BLANKLINE>
    """
    own = {k: v for k, v in tables.items() if v is not None and not isinstance(v, Mapping) and not _of_tables(v)}
    text = "".join(f"{_key(k)} = {_value(v)}\n" for k, v in own.items())
    for key, value in tables.items():
        name = f"{above}{_key(key)}"
        if isinstance(value, Mapping) and value:
            text += f"\n[{name}]\n" + toml(value, f"{name}.")
        for each in value if _of_tables(value) else ():
            text += f"\n[[{name}]]\n" + "".join(f"{_key(k)} = {_value(v)}\n" for k, v in each.items())
    return text


def _of_tables(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, (list, tuple)) else repr(value)
