"""Published and measured numbers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pendula._check import DataError
from pendula.papers.paper import Entry, Paper, read_papers
from pendula.papers.reproduce import read_result, result_file

HEAD = ("network", "published", "measured", "seeds", "share", "parameters", "settings", "data", "where")


@dataclass(frozen=True)
class Row:
    """An entry and its results, one per seed, by seed."""

    entry: Entry
    results: tuple[dict[str, Any], ...] = ()

    @property
    def counted(self) -> tuple[dict[str, Any], ...]:
        """The results that the measured number is the mean of: whole runs where there are some, else all."""
        whole = tuple(result for result in self.results if result["complete"])
        return whole or self.results

    @property
    def measured(self) -> float | None:
        values = self.values
        return mean(values) if values else None

    @property
    def values(self) -> list[float]:
        """The metric of each result that counts."""
        return [self.entry.table.measure(result) for result in self.counted]

    @property
    def share(self) -> float | None:
        """How much of the schedule was run, from 0 to 1, as a mean over the runs that count."""
        done = [1.0 if r["complete"] else r["epochs"] / r["experiment"]["train"]["epochs"] for r in self.counted]
        return mean(done) if done else None

    @property
    def data(self) -> str:
        """Whether the data was exact, in a word: how the sentence on its provenance begins."""
        return ", ".join(sorted({result["data"].split(":")[0].split()[0] for result in self.results}))

    @property
    def published_text(self) -> str:
        entry = self.entry
        if entry.published is None:
            return "-"
        spread = "" if entry.spread is None else f" ± {self._spread(entry.spread)}"
        return entry.table.measure.write(entry.published) + spread

    @property
    def measured_text(self) -> str:
        values = self.values
        if not values:
            return "not run" if self.entry.experiment else "not in pendula"
        spread = f" ± {self._spread(stdev(values))}" if len(values) > 1 else ""
        return self.entry.table.measure.write(mean(values)) + spread

    def _spread(self, deviation: float) -> str:
        return self.entry.table.measure.write(deviation).removesuffix("%").strip()

    def cells(self) -> tuple[str, ...]:
        """What stands under HEAD."""
        entry = self.entry
        parameters = self.results[0]["parameters"] if self.results else entry.parameters
        return (
            entry.method + (f", {entry.units}" if entry.units else ""),
            self.published_text + (" (low confidence)" if entry.confidence == "low" else ""),
            self.measured_text,
            str(len(self.counted)) if self.results else "",
            "" if self.share is None else f"{self.share:.0%}",
            f"{parameters:,}" if parameters else entry.printed_parameters,
            entry.settings if entry.experiment else "",
            self.data,
            f"{entry.where} [{entry.tag}]" if entry.published is not None else "",
        )


def rows(results: Path, papers: Sequence[Paper] | None = None) -> list[Row]:
    """A row for every entry of every paper, run or not. Errors: DataError for a result file that no entry explains."""
    made, explained = [], set()
    for paper in papers or read_papers().values():
        for entry in paper.entries:
            files = sorted(result_file(results, entry, 0).parent.glob("seed-*.json"), key=_seed)
            explained.update(files)
            made.append(Row(entry, tuple(read_result(file) for file in files)))
    for file in sorted(results.glob("*/*/seed-*.json")):
        if file not in explained:
            raise DataError(f"{file} belongs to no entry of {results}: rename its folder, or move it away")
    return made


def _seed(path: Path) -> int:
    return int(path.stem.removeprefix("seed-"))
