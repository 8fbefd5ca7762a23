"""The numbers in the README and in docs/results.md are the ones in results/."""

import importlib.util
import json
from pathlib import Path

import pytest

from pendula.experiment import Experiment
from pendula.papers.reproduce import same_settings
from pendula.papers.rows import Row, rows

ROOT = Path(__file__).parents[1]
FOUND = rows(ROOT / "results")
RUN = [row for row in FOUND if row.results]
FILES = sorted((ROOT / "results").glob("*/*/seed-*.json"))


def test_the_pages_show_what_was_measured() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.results().items():
        assert path.read_text() == text, f"{path.name} is not what results/ says: run `make docs`"


@pytest.mark.parametrize("row", RUN, ids=lambda row: row.entry.name)
def test_a_result_is_of_the_settings_of_its_entry(row: Row) -> None:
    assert row.entry.experiment
    for result in row.results:
        made = same_settings(Experiment.from_dict(result["experiment"]))
        seed = made.train.seed
        wanted = same_settings(row.entry.experiment).to_dict()
        wanted["train"]["seed"] = seed
        assert made == Experiment.from_dict(wanted)


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:]))
def test_a_result_says_where_it_comes_from(path: Path) -> None:
    run = json.loads(path.read_text())
    assert run["entry"] == "/".join(path.parts[-3:-1])
    assert path.stem == f"seed-{run['experiment']['train']['seed']}"
    assert run["commit"]
    assert not run["commit"].endswith("+"), "made from a changed source tree"
    assert run["versions"]["torch"]
    assert run["machine"]["processor"]
    assert run["data"]
    assert len(run["history"]) == run["epochs"]
    assert run["complete"] or run["epochs"] < run["experiment"]["train"]["epochs"]


def test_the_best_epoch_has_the_validation_metric_that_is_reported() -> None:
    for path in FILES:
        run = json.loads(path.read_text())
        line = run["history"][run["best_epoch"] - 1]
        assert run["validation"] in (line["validation_loss"], line.get("validation_accuracy")), path
