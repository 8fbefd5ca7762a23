"""`pendula reproduce`: whole or partial results, resumed after a kill, never overwritten by something else."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pendula._check import DataError
from pendula.papers import Entry
from pendula.papers.paper import parse
from pendula.papers.reproduce import reproduce, result_file
from pendula.papers.rows import Row, rows
from pendula.papers.text import markdown, summary
from tests.papers.test_papers import MINIMAL

TINY = MINIMAL + "published = 0.9\ntrain = { epochs = 3, batch_size = 64 }\n"


@pytest.fixture
def entry() -> Entry:
    return parse("p", TINY).entries[0]


def places(folder: Path) -> dict[str, Path]:
    return {"results": folder / "results", "runs": folder / "runs"}


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on when and how fast it was made."""
    kept = {key: result[key] for key in ("test", "validation", "best_epoch", "epochs", "complete", "experiment")}
    kept["history"] = [{k: v for k, v in line.items() if k != "seconds"} for line in result["history"]]
    same: dict[str, Any] = json.loads(json.dumps(kept))
    return same


def test_it_writes_a_result_per_seed_and_runs_none_twice(entry: Entry, tmp_path: Path) -> None:
    said: list[str] = []
    first = reproduce(entry, [0, 1], **places(tmp_path), say=said.append)
    path = result_file(tmp_path / "results", entry, 1)
    before = path.stat().st_mtime_ns
    again = reproduce(entry, [0, 1], **places(tmp_path), say=said.append)
    assert [numbers(r) for r in first] == [numbers(r) for r in again]
    assert path.stat().st_mtime_ns == before
    assert said[-1] == f"{path} is there and whole"
    written = json.loads(path.read_text())
    assert written["entry"] == "p/one"
    assert {"commit", "versions", "machine", "data", "when"} <= written.keys()
    assert [line["seconds"] for line in written["history"]] == sorted(line["seconds"] for line in written["history"])


def test_a_budget_stops_at_a_checkpoint_and_the_run_goes_on_later(entry: Entry, tmp_path: Path) -> None:
    whole = reproduce(entry, [0], **places(tmp_path / "whole"))[0]
    # time is over after the first epoch
    clock = iter([False] * 25 + [True] * 10_000)

    class Late(float):
        def __lt__(self, now: float) -> bool:
            return next(clock)

    partial = reproduce(entry, [0], **places(tmp_path), deadline=Late(0))[0]
    assert not partial["complete"]
    assert partial["epochs"] == 1
    path = result_file(tmp_path / "results", entry, 0)
    assert json.loads(path.read_text())["epochs"] == 1
    assert Row(entry, (partial,)).share == pytest.approx(1 / 3)
    resumed = reproduce(entry, [0], **places(tmp_path))[0]
    assert resumed["complete"]
    assert numbers(resumed) == numbers(whole)


def test_a_budget_too_short_for_an_epoch_writes_no_number(entry: Entry, tmp_path: Path) -> None:
    said: list[str] = []
    assert reproduce(entry, [0], **places(tmp_path), deadline=time.monotonic() + 1e-9, say=said.append) == []
    assert not (tmp_path / "results").exists()
    assert "no time left" in said[0] or "no epoch has ended" in said[0]


def test_a_shorter_run_does_not_replace_a_longer_one(entry: Entry, tmp_path: Path) -> None:
    reproduce(entry, [0], **places(tmp_path))
    path = result_file(tmp_path / "results", entry, 0)
    longer = json.loads(path.read_text()) | {"complete": False, "epochs": 2}
    path.write_text(json.dumps(longer))
    clock = iter([False] * 25 + [True] * 10_000)

    class Late(float):
        def __lt__(self, now: float) -> bool:
            return next(clock)

    fresh = {"results": tmp_path / "results", "runs": tmp_path / "other"}
    kept = reproduce(entry, [0], **fresh, deadline=Late(0))[0]
    assert kept["epochs"] == 2
    assert json.loads(path.read_text()) == longer


def test_a_result_of_other_settings_is_not_overwritten(entry: Entry, tmp_path: Path) -> None:
    reproduce(entry, [0], **places(tmp_path))
    assert entry.experiment
    other = replace(entry, experiment=replace(entry.experiment, train=replace(entry.experiment.train, epochs=4)))
    with pytest.raises(DataError, match="result of other settings"):
        reproduce(other, [0], **places(tmp_path))


def test_a_file_that_is_no_result_is_named(entry: Entry, tmp_path: Path) -> None:
    path = result_file(tmp_path / "results", entry, 0)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(DataError, match=r"seed-0\.json is not a result"):
        reproduce(entry, [0], **places(tmp_path))


def test_an_entry_without_a_model_says_why_it_cannot_run(entry: Entry, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be run: IndRNN is not in pendula"):
        reproduce(replace(entry, experiment=None, missing="IndRNN is not in pendula"), [0], **places(tmp_path))


CHILD = """
import sys
from pathlib import Path
from pendula.papers.paper import parse
from pendula.papers.reproduce import reproduce
entry = parse("p", Path(sys.argv[1]).read_text()).entries[0]
reproduce(entry, [0], results=Path(sys.argv[2]) / "results", runs=Path(sys.argv[2]) / "runs")
"""


def test_killing_it_twice_and_resuming_changes_no_number(tmp_path: Path) -> None:
    text = TINY.replace("epochs = 3, batch_size = 64", "epochs = 12, batch_size = 8, save_every = 5")
    paper = tmp_path / "paper.toml"
    paper.write_text(text)
    entry = parse("p", text).entries[0]
    command = [sys.executable, "-c", CHILD, str(paper), str(tmp_path)]
    # in a process of its own as well: the number of threads decides the last bits
    subprocess.run([*command[:-1], str(tmp_path / "whole")], check=True, timeout=300)
    whole = json.loads(result_file(tmp_path / "whole" / "results", entry, 0).read_text())
    record = tmp_path / "runs" / "p" / "one" / "seed-0" / "record.jsonl"
    for lines in (2, 5):
        with subprocess.Popen(command) as child:
            while child.poll() is None and not (record.exists() and record.read_text().count("\n") >= lines):
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "results").exists()
    subprocess.run(command, check=True, timeout=300)
    result = json.loads(result_file(tmp_path / "results", entry, 0).read_text())
    assert numbers(result) == numbers(whole)


def result_of(entry: Entry, accuracy: float, *, complete: bool = True, epochs: int = 3) -> dict[str, Any]:
    assert entry.experiment
    return {
        "entry": entry.name,
        "experiment": entry.experiment.to_dict(),
        "parameters": 1234,
        "complete": complete,
        "epochs": epochs,
        "test": {"accuracy": accuracy, "loss": 0.1},
        "baseline": None,
        "data": "exact: the published files",
        "history": [{"epoch": 1, "train_loss": 1.0, "validation_loss": 1.0, "validation_accuracy": 0.5, "seconds": 1}],
    }


def test_a_row_shows_mean_and_spread_over_whole_runs(entry: Entry) -> None:
    row = Row(entry, (result_of(entry, 0.8), result_of(entry, 0.9), result_of(entry, 0.1, complete=False, epochs=1)))
    cells = row.cells()
    assert cells[1:5] == ("90.0%", "85.0% ± 7.1", "2", "100%")
    assert cells[5] == "1,234"
    assert cells[7] == "exact"


def test_a_row_of_stopped_runs_says_how_much_was_run(entry: Entry) -> None:
    assert Row(entry, (result_of(entry, 0.5, complete=False, epochs=1),)).cells()[2:5] == ("50.0%", "1", "33%")


def test_a_row_that_was_not_run_is_there_and_says_so(entry: Entry, tmp_path: Path) -> None:
    assert Row(entry).cells()[2] == "not run"
    assert Row(replace(entry, experiment=None, missing="x")).cells()[2] == "not in pendula"
    made = rows(tmp_path)
    assert len(made) > 90
    assert all(not row.results for row in made)
    text = markdown(made)
    assert "| not run |" in text
    assert "97.2%" in text


def test_a_result_that_no_entry_explains_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cornn" / "har3" / "seed-0.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(DataError, match="belongs to no entry"):
        rows(tmp_path)


def test_a_table_of_what_was_run_has_no_other_rows(entry: Entry) -> None:
    text = summary([Row(entry, (result_of(entry, 0.8),)), Row(entry)])
    assert text.count("\n") == 2
    assert "| Digits | LSTM | 90.0% | 80.0% | 1 | 100% | exact |" in text
