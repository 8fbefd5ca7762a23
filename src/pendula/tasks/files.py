"""A user's own series: split, filled, and with time stamps turned into time spans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from torch import Tensor

from pendula._check import DataError, one_of, positive_int
from pendula.tasks.base import PARTS, Sequences, StoredTask
from pendula.tasks.chance import generator_for
from pendula.tasks.findings import doubts, sizes, spacing, targets
from pendula.tasks.formats import read
from pendula.tasks.samples import even, filled, gaps_of, means, median_of, spans
from pendula.tasks.table import Columns, Floats, Integers, Table, numbers

MISSING = ("forward", "refuse")
TARGETS = ("auto", "classes", "values")
HELD = 0.15


class Files(StoredTask):
    """Series from .csv, .parquet, .npz, .ts or .arff files, with a class or numbers for each series or step.

    Tables are in long format, one row per sample, or a file per series in a folder, labelled as
    `pendula.tasks.folder.read_folder` says. Parts come from the files, from folders or from a column. Where validation
    or test is absent, 15 % of the training series become it: whole subjects where subjects are known, else some of each
    class where each has three series, else some at random.
    Time stamps that are not evenly spaced become `timespans`: differences divided by their median over the training
    part; the first sample of a series takes 1.

    Args:
        path: a file or a folder.
        id, time, label, subject, part: names of columns in .csv and .parquet; time, subject and part may be absent.
        missing: "forward" repeats the last known value (before the first known one, that one; in a channel of a series
            that has none, the mean of the training part), "refuse" refuses missing values.
        split_seed: draws the parts that the data does not have.
        target: "values" predicts numbers, "classes" classes, "auto" numbers where labels are floating point.
        standardise: whether a model on this task scales its inputs.
        per_step: whether the column of labels has one for every step (.csv and .parquet), instead of one per series.

    Attributes:
        channels: their names, in the order of the input.
        median_gap: the time that counts as 1, None for evenly spaced series.

    Errors: DataError naming file, place, what was found and what is needed.
    """

    name: ClassVar[str] = "files"
    summary: ClassVar[str] = "your own series, from .csv, .parquet, .npz, .ts or .arff files"

    def __init__(
        self,
        path: str,
        id: str = "id",
        time: str = "time",
        label: str = "label",
        subject: str = "subject",
        part: str = "split",
        missing: str = "forward",
        split_seed: int = 0,
        target: str = "auto",
        standardise: bool = True,
        per_step: bool = False,
    ) -> None:
        self.path, self.columns = str(path), Columns(id, time, label, subject, part)
        self.missing, self.standardise = one_of("missing", missing, MISSING), standardise
        self.split_seed = positive_int("split_seed", split_seed, least=0)
        self.per_step = per_step
        table = read(Path(path).expanduser(), self.columns, per_step=per_step)
        self.channels, self.provenance = table.channels, f"your own data: {path}"
        y, self.labels = _targets(table, one_of("target", target, TARGETS), self.path)
        self.target, self.output_size = ("classes", len(self.labels)) if self.labels else ("values", y.shape[1])
        rows, drawn = _parts(table, None if per_step or not self.labels else y, self.split_seed, self.path)
        train = numpy.isin(numpy.repeat(numpy.arange(len(table)), numpy.diff(table.offsets)), rows["train"])
        self.fill = means(table, table.values[train], self.path)
        values, holes = filled(table, self.missing, self.fill, self.path)
        gaps = gaps_of(table)
        self.gap = None if gaps is None else median_of(gaps[train])
        self.median_gap = None if gaps is None or even(table, gaps, self.gap) else self.gap
        whole = _sequences(table, values, torch.from_numpy(y), gaps, self.median_gap)
        super().__init__({part: whole.take(torch.from_numpy(rows[part])) for part in PARTS})
        said = (
            sizes(table),
            spacing(table, gaps, self.gap, self.median_gap),
            targets(y, self.labels, per_step=per_step),
        )
        self.dated = None if table.times is None else table.dated
        self.notes = (*said, *holes, *drawn, *doubts(table, rows, y, self.labels, per_step=per_step), *table.notes)

    def description(self) -> dict[str, Any]:
        """What `read_unlabelled` needs to read other series the same way, as plain data."""
        of = self.columns
        return {
            "channels": list(self.channels),
            "id": of.id,
            "time": of.time,
            "label": of.label,
            "subject": of.subject,
            "part": of.part,
            "missing": self.missing,
            "fill": self.fill.tolist(),
            "gap": self.gap,
            "median_gap": self.median_gap,
            "dated": self.dated,
            "per_step": self.per_step,
        }


def read_unlabelled(
    path: str | Path, description: Mapping[str, Any], say: Callable[[str], None] | None = None
) -> Sequences:
    """Series to predict, read as the training data were; a label is not needed and not looked at, y is zero.

    A .csv or .parquet file without a column of series ids is one series, named after the file.

    Args:
        path: a file or a folder.
        description: what `Files.description` gave.
        say: is told what was filled or not read, a sentence each.

    Errors: DataError as for `Files`; also where time stamps are absent or spaced otherwise than in training.
    """
    table, values, gaps, notes = _as_in_training(path, description, labelled=False)
    for note in notes if say else ():
        say(note)  # type: ignore[misc]
    return _sequences(table, values, torch.zeros(len(table), dtype=torch.int64), gaps, description["median_gap"])


class Labelled(StoredTask):
    """Labelled series to measure a trained model on, read as its training data were.

    Args:
        path: a file or a folder.
        description: what `Files.description` gave.
        labels: the classes that the model knows; None where it predicts numbers.
        part: where the data names parts, the one to take; all series otherwise.

    Attributes:
        entire: whether all series were taken.

    Errors: DataError as for `read_unlabelled`; also for a class that the model does not know.
    """

    name: ClassVar[str] = "files"
    summary: ClassVar[str] = "labelled series to measure a trained model on"

    def __init__(
        self, path: str | Path, description: Mapping[str, Any], labels: tuple[str, ...] | None, part: str = "test"
    ) -> None:
        table, values, gaps, self.notes = _as_in_training(path, description, labelled=True)
        self.labels, self.provenance = labels, f"your own data: {path}"
        self.per_step = bool(description.get("per_step", False))
        if labels is None:
            self.target = "values"
            y = torch.from_numpy(numbers(table.labels, str(path)).astype(numpy.float32))
            self.output_size = y.shape[1]
        else:
            names = table.labels if isinstance(table.labels, tuple) else _names(table.labels)
            unknown = sorted(set(names) - set(labels))
            if unknown:
                raise DataError(f"{path} has the class {unknown[0]!r}; the model knows {', '.join(labels)}")
            place = {name: k for k, name in enumerate(labels)}
            y, self.output_size = torch.tensor([place[name] for name in names]), len(labels)
        whole = _sequences(table, values, y, gaps, description["median_gap"])
        self.entire = table.parts is None
        if table.parts is not None:
            rows = torch.tensor([k for k, own in enumerate(table.parts) if own == part], dtype=torch.int64)
            if not len(rows):
                raise DataError(
                    f"{path} has no series in the {part} part, it has {', '.join(sorted(set(table.parts)))}"
                )
            whole = whole.take(rows)
        super().__init__({"train": whole, part: whole})


def _as_in_training(
    path: str | Path, description: Mapping[str, Any], *, labelled: bool
) -> tuple[Table, Floats, Floats | None, tuple[str, ...]]:
    """Series, their values without gaps, the gaps in time, and what was filled or not read."""
    needed = ("channels", "id", "time", "label", "subject", "part", "missing", "fill", "gap", "median_gap")
    absent = [key for key in needed if key not in description]
    if absent:
        raise DataError(f"the description of the training data lacks {', '.join(absent)}: train again to have it")
    columns = Columns(*(str(description[key]) for key in needed[1:6]))
    # a run of an earlier version does not say whether it had labels at every step, or dates
    per_step, dated = bool(description.get("per_step", False)), description.get("dated")
    channels = tuple(description["channels"])
    table = read(Path(path).expanduser(), columns, labelled=labelled, per_step=per_step, channels=channels)
    if dated is not None and table.times is not None and table.dated != dated:
        kinds = ("dates", "numbers") if table.dated else ("numbers", "dates")
        raise DataError(f"{path} has {kinds[0]} as times, the training data had {kinds[1]}: give it the same")
    values, holes = filled(table, description["missing"], numpy.array(description["fill"], numpy.float64), path)
    gaps, gap, median_gap = gaps_of(table), description["gap"], description["median_gap"]
    if median_gap is not None and gaps is None:
        raise DataError(f"{path} has no time stamps, the training data had uneven ones: add a column {columns.time!r}")
    if median_gap is None and gap is not None and gaps is not None and not even(table, gaps, gap):
        low, high = numpy.nanmin(gaps), numpy.nanmax(gaps)
        raise DataError(f"{path} has samples {low:g} to {high:g} apart, in training all were {gap:g} apart: resample")
    return table, values, gaps, (*holes, *table.notes)


def _sequences(table: Table, values: Floats, y: Tensor, gaps: Floats | None, median_gap: float | None) -> Sequences:
    timespans = None if gaps is None or median_gap is None else torch.from_numpy(spans(gaps, median_gap)).float()
    return Sequences(torch.from_numpy(values).float(), torch.from_numpy(table.offsets), y, timespans, table.names)


def _targets(table: Table, target: str, path: str) -> tuple[numpy.ndarray[Any, Any], tuple[str, ...] | None]:
    """Places in the names of the classes (N,), or numbers (N, C) without names."""
    labels = table.labels
    if target == "values" or (target == "auto" and not isinstance(labels, tuple)):
        return numbers(labels, path).astype(numpy.float32), None
    if isinstance(labels, numpy.ndarray):
        if labels.shape[1] != 1:
            raise DataError(f"{path} has {labels.shape[1]} numbers per series: a class is one; leave target='auto'")
        labels = _names(labels)
    found = sorted(set(labels or ()), key=_order)
    if len(found) < 2:
        raise DataError(f"{path} has one class only, {found[0]!r}: telling classes apart needs two")
    classes = table.classes or tuple(found)
    place = {name: k for k, name in enumerate(classes)}
    return numpy.array([place[name] for name in labels or ()], numpy.int64), classes


def _names(labels: Any) -> tuple[str, ...]:
    """Numbers as names of classes."""
    return tuple(f"{value:.17g}" for value in labels[:, 0])


def _order(name: str) -> tuple[bool, float, str]:
    """Numbers by size, then names by letter."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name


def _parts(table: Table, y: Integers | None, seed: int, path: str) -> tuple[dict[str, Integers], tuple[str, ...]]:
    """The numbers of the series in each part, and what was drawn, in a sentence."""
    named = numpy.array(table.parts or ("train",) * len(table))
    parts = {part: numpy.flatnonzero(named == part) for part in PARTS}
    wanted = [part for part in PARTS if not len(parts[part])]
    if "train" in wanted:
        raise DataError(f"{path} has no series in train: training needs some")
    if not wanted:
        return parts, (f"series: {_counted(parts)}",)
    units, groups, how = _units(table, parts["train"], y)
    if min(map(len, groups)) <= len(wanted):
        raise DataError(
            f"{path} has too few series to hold some out for {' and '.join(wanted)} ({how}: {len(units)}): "
            "add data, or name the parts in files or in a column"
        )
    taken: dict[str, list[int]] = {part: [] for part in ("train", *wanted)}
    for number, group in enumerate(groups):
        order = [group[k] for k in torch.randperm(len(group), generator=generator_for(seed, 11, number)).tolist()]
        each = min(max(1, round(HELD * len(order))), (len(order) - 1) // len(wanted))
        for k, part in enumerate(wanted):
            taken[part] += order[k * each : (k + 1) * each]
        taken["train"] += order[len(wanted) * each :]
    parts |= {part: numpy.sort(numpy.concatenate([units[k] for k in chosen])) for part, chosen in taken.items()}
    return parts, (f"series: {_counted(parts)}; {' and '.join(wanted)} drawn from train by split_seed {seed}, {how}",)


def _counted(parts: Mapping[str, Integers]) -> str:
    return ", ".join(f"{len(parts[part])} {part}" for part in PARTS)


def _units(table: Table, pool: Integers, y: Integers | None) -> tuple[list[Integers], list[list[int]], str]:
    """What is dealt out as a whole, in groups that each part gets some of, and how that is called."""
    if table.subjects is not None:
        subjects = numpy.array(table.subjects)[pool]
        units = [pool[subjects == name] for name in numpy.unique(subjects)]
        return units, [list(range(len(units)))], "whole subjects"
    units = [pool[k : k + 1] for k in range(len(pool))]
    if y is not None:
        by_class = [numpy.flatnonzero(y[pool] == c).tolist() for c in numpy.unique(y[pool])]
        if min(map(len, by_class)) >= 3:
            return units, by_class, "some of each class"
    return units, [list(range(len(units)))], "at random"
