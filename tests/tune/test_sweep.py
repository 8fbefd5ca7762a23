"""Sweeps as a user starts them: what they leave, how they fail, how they go on."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from pendula.cli import main
from pendula.experiment import Experiment
from pendula.learn.record import where
from pendula.tune.results import toml
from tests.tune.spaces import RATE, WriteSpace


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


def rows(name: str = "small") -> list[dict[str, str]]:
    with open(f"runs/tune/{name}/trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def result(trial: int, seed: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"runs/tune/small/trials/{trial:04d}/seed-{seed}/result.json").read_text())
    return found


def test_the_best_trial_is_a_config_that_trains_to_the_same_number(write_space: WriteSpace) -> None:
    assert main(["tune", str(write_space())]) == 0
    found = rows()
    assert [row["outcome"] for row in found] == ["complete"] * 3
    best = min(float(row["loss"]) for row in found)
    assert main(["train", "--config", "runs/tune/small/best.toml", "--out", "again"]) == 0
    assert json.loads(Path("again/result.json").read_text())["validation"] == best


def test_trials_are_compared_by_the_mean_over_their_seeds(write_space: WriteSpace) -> None:
    assert main(["tune", str(write_space("trials = 2\nseeds = 2"))]) == 0
    wanted = [mean(result(trial, seed)["validation"] for seed in (0, 1)) for trial in (0, 1)]
    assert [float(row["loss"]) for row in rows()] == wanted
    assert [row["epochs"] for row in rows()] == ["4", "4"]


@pytest.mark.parametrize("storage", [None, "sqlite:///all.db", "elsewhere/all.journal"])
def test_a_finished_study_does_nothing_more_until_it_is_asked_for_more(
    write_space: WriteSpace, storage: str | None
) -> None:
    words = ["tune", str(write_space("trials = 2")), *(["--storage", storage] if storage else [])]
    assert main(words) == 0
    before = rows()
    assert main(words) == 0
    assert rows() == before
    assert main([*words, "--trials", "3"]) == 0
    assert rows()[:2] == before
    assert len(rows()) == 3


def test_values_that_do_not_go_together_fail_their_trial_only(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space("trials = 6\nsampler = 'random'", '"model.hidden_size" = { choices = [4, 0] }')
    assert main(["tune", str(space)]) == 0
    outcomes = {row["model.hidden_size"]: row["outcome"] for row in rows()}
    assert outcomes == {"4": "complete", "0": "failed"}
    assert "hidden_size must be a whole number, at least 1, got 0" in said(capsys)


def test_a_study_in_which_all_fails_says_why(write_space: WriteSpace, capsys: pytest.CaptureFixture[str]) -> None:
    space = write_space("trials = 2", '"model.hidden_size" = { choices = [0, -1] }')
    assert main(["tune", str(space)]) == 2
    assert "all 2 trials so far failed, the last one: hidden_size must be" in said(capsys)
    assert not Path("runs/tune/small/best.toml").exists()


def test_a_trial_that_diverges_is_recorded_and_the_study_goes_on(write_space: WriteSpace) -> None:
    space = write_space("trials = 6\nsampler = 'random'", '"train.learning_rate" = { choices = [0.01, 1e30] }')
    assert main(["tune", str(space)]) == 0
    outcomes = {row["train.learning_rate"]: (row["outcome"], row["said"][:21]) for row in rows()}
    assert outcomes == {"0.01": ("complete", ""), "1e+30": ("diverged", "the training diverged")}


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_bad_trials_are_pruned_and_leave_their_folder_whole(write_space: WriteSpace, pruner: str) -> None:
    rate = '"train.learning_rate" = { low = 1e-6, high = 1e-1, log = true }'
    assert main(["tune", str(write_space(f"trials = 10\npruner = '{pruner}'", rate, epochs=9))]) == 0
    pruned = [row for row in rows() if row["outcome"] == "pruned"]
    assert pruned
    for row in pruned:
        place = where(Path(f"runs/tune/small/trials/{int(row['trial']):04d}/seed-0"))
        assert (place.epoch, place.batch, len(place.history)) == (int(row["epochs"]), 0, int(row["epochs"]))
        assert place.epoch < 9


def test_without_a_pruner_every_trial_runs_to_its_end(write_space: WriteSpace) -> None:
    assert main(["tune", str(write_space("trials = 7\npruner = 'none'"))]) == 0
    assert {(row["outcome"], row["epochs"]) for row in rows()} == {("complete", "2")}


def test_the_same_study_draws_the_same_values_again(write_space: WriteSpace) -> None:
    space = str(write_space("trials = 12\nseed = 3", epochs=1))
    for out in ("runs/tune/small", "runs/tune/again"):
        assert main(["tune", space, "--out", out]) == 0
    first, second = ([row["train.learning_rate"] for row in rows(name)] for name in ("small", "again"))
    assert first == second
    assert len(set(first)) == 12


def test_a_study_is_not_mixed_with_another_space(write_space: WriteSpace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(write_space("trials = 1"))]) == 0
    changed = write_space("trials = 1", RATE.replace("1e-1", "1e-2"))
    assert main(["tune", str(changed)]) == 3
    assert "the study small was started with another parameters" in said(capsys)


def test_a_folder_with_something_else_in_it_is_left_alone(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Path("mine")
    home.mkdir()
    (home / "best.toml").write_text("mine")
    assert main(["tune", str(write_space()), "--out", "mine"]) == 3
    assert "mine is not empty, and holds no sweep: give another --out" in said(capsys)
    assert {path.name for path in home.iterdir()} == {"best.toml"}


@pytest.mark.parametrize("storage", [[], ["--storage", "sqlite:///x.db"]])
def test_a_report_on_nothing_says_so_and_makes_nothing(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str], storage: list[str]
) -> None:
    space = write_space()
    assert main(["tune", str(space), "--report", *storage]) == 3
    assert "this study has not been started" in said(capsys)
    assert list(Path().iterdir()) == [space]


def test_a_report_shows_the_study_and_writes_nothing(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    space = str(write_space("trials = 2"))
    assert main(["tune", space]) == 0
    (Path("runs/tune/small") / "trials.csv").unlink()
    said(capsys)
    assert main(["tune", space, "--report"]) == 0
    assert "small: 2 of 2 trials" in said(capsys)
    assert not Path("runs/tune/small/trials.csv").exists()


@pytest.mark.parametrize("storage", ["nosuch://x", "sqlite:////no/such/folder/x.db"])
def test_a_storage_that_can_not_be_used_is_named(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    assert main(["tune", str(write_space()), "--storage", storage]) == 3
    assert f"--storage {storage} can't be used" in said(capsys)


def test_importances_are_shown_when_there_are_enough_trials(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    both = RATE + '\n"train.weight_decay" = { low = 0, high = 1e-3 }'
    assert main(["tune", str(write_space("trials = 20\npruner = 'none'\nsampler = 'random'", both, epochs=1))]) == 0
    with open("runs/tune/small/importances.csv", newline="") as file:
        shares = {row["parameter"]: float(row["share"]) for row in csv.DictReader(file)}
    assert set(shares) == {"train.learning_rate", "train.weight_decay"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert "what mattered" in said(capsys)


def test_plain_data_survives_toml() -> None:
    words = 'a "quote", a \\ and\na line\x7f \U0001f600'
    data = Experiment().to_dict()
    data["task"]["options"] = {"a key": words, "list": [1, 2.5e-7, [True, "x"]], "none": None, "deep": {"x": 1e300}}
    kept = tomllib.loads(toml(data))
    assert kept["task"]["options"] == {"a key": words, "list": [1, 2.5e-7, [True, "x"]], "deep": {"x": 1e300}}
    assert Experiment.from_dict({**kept, "task": {}}) == Experiment()
