"""A paper as data: its tables, and an entry for every number it prints."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any

from pendula._check import did_you_mean, known_keys, one_of
from pendula.experiment import Experiment
from pendula.papers.metric import METRICS, Metric

TAGS = {
    "paper": "read in the paper",
    "code": "read in the authors' code, log or README",
    "cited": "as another source cites it",
    "memory": "recalled, not read",
    "ours": "not published: our own experiment",
}
SETTINGS = {
    "published": "the published settings",
    "partly": "published settings where known, ours elsewhere",
    "ours": "our settings",
}


@dataclass(frozen=True)
class Shape:
    """What a task looks like from a model: enough to build the model without the data (input_size is 1 for tokens)."""

    input_size: int
    output_size: int
    length: int
    name: str = "a published task"
    target: str = "classes"
    per_step: bool = False
    standardise: bool = False
    irregular: bool = False
    vocabulary: int | None = None
    labels: tuple[str, ...] | None = None
    image: tuple[int, int] | None = None


@dataclass(frozen=True)
class Table:
    """One problem of a paper: what is learnt, and what is reported.

    data: data sets needed (names of `pendula data list`), or "generated"; note: what a reader has to know.
    """

    name: str
    title: str
    metric: str
    data: str
    shape: Shape
    task: Mapping[str, Any]
    note: str = ""

    @property
    def measure(self) -> Metric:
        return METRICS[self.metric]


@dataclass(frozen=True)
class Entry:
    """A published number and, where pendula has the network, the experiment behind it.

    Args:
        paper: stem of the paper's file.
        id: name of the entry within its paper.
        table: the table that it stands in.
        method: the network, as the paper calls it.
        where: table, section, log or figure of the source.
        tag: how the number is known to us, a key of TAGS.
        published: the number, in the unit of the table's metric (accuracy in [0, 1]); None where there is none.
        spread: published standard deviation; None where there is none.
        confidence: "low" where the source of the number itself says so.
        seeds: how many runs the number is the mean of, as far as known; what `reproduce` runs when not told.
        parameters: published number of parameters, exact.
        units: hidden units printed, as text.
        printed_parameters: rounded count as printed ("34k").
        settings: whose hyper-parameters these are, a key of SETTINGS.
        hardware: what a run needs, in words.
        note: anything else that is needed to read the comparison.
        missing: why it can't be run; empty where it can.
        experiment: what `reproduce` runs; None where `missing` says why.
    """

    paper: str
    id: str
    table: Table
    method: str
    where: str
    tag: str
    published: float | None = None
    spread: float | None = None
    confidence: str = ""
    seeds: int = 1
    parameters: int | None = None
    units: str = ""
    printed_parameters: str = ""
    settings: str = "published"
    hardware: str = ""
    note: str = ""
    missing: str = ""
    experiment: Experiment | None = field(default=None, hash=False)

    @property
    def name(self) -> str:
        return f"{self.paper}/{self.id}"


@dataclass(frozen=True)
class Paper:
    """A source of numbers. code: where the authors' code is; sheet: our specification sheet."""

    name: str
    title: str
    authors: str
    year: int
    source: str
    entries: tuple[Entry, ...]
    code: str = ""
    sheet: str = ""
    note: str = ""


@cache
def read_papers() -> dict[str, Paper]:
    """Every paper that pendula ships, by the stem of its file."""
    home = resources.files("pendula.papers")
    files = sorted((file for file in home.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name[:-5]: parse(file.name[:-5], file.read_text(encoding="utf-8")) for file in files}


def find(patterns: Iterable[str]) -> list[Entry]:
    """The entries that some names or patterns mean ("cornn/har2", "cornn/*"), in the order of the files.

    Errors: ValueError for a pattern that no entry has.
    """
    entries = {entry.name: entry for paper in read_papers().values() for entry in paper.entries}
    wanted: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(entries, pattern)
        if not matched:
            raise ValueError(
                f"no published experiment {pattern!r}{did_you_mean(pattern, entries)}: `pendula list papers` shows them"
            )
        wanted.update(matched)
    return [entry for name, entry in entries.items() if name in wanted]


def parse(name: str, text: str) -> Paper:
    """A paper from its TOML text. Errors: ValueError that names the file, the entry and the key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"papers/{name}.toml is not TOML: {error}") from error
    where = f"papers/{name}.toml"
    known_keys(where, data, ["paper", "tables", "entries"])
    tables = {key: _table(where, key, value) for key, value in data["tables"].items()}
    raw: dict[str, dict[str, Any]] = {}
    entries = []
    for given in data["entries"]:
        if given["id"] in raw:
            raise ValueError(f"{where}: two entries are called {given['id']!r}")
        known_keys(f"{where}, entry {given['id']}", given, _ENTRY)
        raw[given["id"]] = _inherited(where, given, raw)
        entries.append(_entry(name, raw[given["id"]], tables))
    head = data["paper"]
    known_keys(f"{where}, paper", head, ["title", "authors", "year", "source", "code", "sheet", "note"])
    return Paper(name, entries=tuple(entries), **head)


_ENTRY = [f.name for f in fields(Entry) if f.name not in ("paper", "experiment")] + ["like", "task", "model", "train"]
_OWN = ("id", "published", "spread", "where", "tag", "confidence", "parameters", "units", "printed_parameters", "note")


def _table(where: str, name: str, given: Mapping[str, Any]) -> Table:
    words = f"{where}, table {name}"
    known_keys(words, given, ["title", "metric", "data", "shape", "task", "note"])
    one_of(f"{words}: metric", given["metric"], METRICS)
    known_keys(f"{words}, shape", given["shape"], [f.name for f in fields(Shape)])
    shape = dict(given["shape"])
    if "image" in shape:
        shape["image"] = tuple(shape["image"])
    return Table(name, **{**given, "shape": Shape(**shape)})


def _inherited(where: str, given: Mapping[str, Any], before: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """With `like`, what an entry does not say is as in the earlier one, but for what the number itself is."""
    if "like" not in given:
        return dict(given)
    if given["like"] not in before:
        raise ValueError(f"{where}: entry {given['id']} is like {given['like']!r}, which does not stand before it")
    under = {key: value for key, value in before[given["like"]].items() if key not in _OWN}
    network = given.get("model", {}).get("network")
    if network is not None and network != under["model"]["network"]:
        # the physics of one network means nothing to another
        under["model"] = {key: value for key, value in under["model"].items() if key != "physics"}
    return _merged(under, {key: value for key, value in given.items() if key != "like"})


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(under)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = _merged(both[key], value) if nested else value
    return both


def _entry(paper: str, given: Mapping[str, Any], tables: Mapping[str, Table]) -> Entry:
    words = f"papers/{paper}.toml, entry {given['id']}"
    if given["table"] not in tables:
        raise ValueError(f"{words}: no table {given['table']!r}{did_you_mean(given['table'], tables)}")
    table = tables[given["table"]]
    one_of(f"{words}: tag", given["tag"], TAGS)
    one_of(f"{words}: settings", given.get("settings", "published"), SETTINGS)
    if ("model" in given) == bool(given.get("missing")):
        raise ValueError(f"{words}: give either a model, or in `missing` why there is none")
    experiment = None
    if "model" in given:
        task = _merged(table.task, given.get("task", {}))
        try:
            experiment = Experiment.from_dict({"task": task, "model": given["model"], "train": given.get("train", {})})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{words}: {error}") from error
    own = {key: value for key, value in given.items() if key not in ("table", "task", "model", "train")}
    return Entry(paper=paper, table=table, experiment=experiment, **own)
