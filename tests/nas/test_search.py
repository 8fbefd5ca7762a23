"""Searches as a user starts them: what they leave, how they fail, what a report makes of them."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

pytest.importorskip("optuna", reason="a search runs on Optuna")
pytest.importorskip("networkx", reason="graphs are drawn by networkx")

from pendula.cli import main
from pendula.experiment import Experiment, read_config
from pendula.nas.networks import build_task
from pendula.nas.report import open_search
from pendula.nas.worker import NETWORKS, PENALISED
from pendula.search import bayesian
from pendula.search.optimise import REPEATS
from pendula.tune.places import holders
from tests.nas.spaces import DISCRETE, WriteSpace

HOME = Path("runs/search/small")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


def rows(report: str = "report-1") -> list[dict[str, str]]:
    with open(HOME / report / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def points(home: Path = HOME) -> list[dict[str, Any]]:
    return [t.params for t in holders(open_search(str(home))[0].trials).values()]


def test_the_best_network_is_a_config_that_trains_to_the_same_number(write_space: WriteSpace) -> None:
    assert main(["search", "run", str(write_space("trials = 2\nsamples = 2"))]) == 0
    assert main(["search", "report", str(HOME), "--best", "1"]) == 0
    found = rows()
    assert [row["outcome"] for row in found] == ["complete"] * 2
    best = min(found, key=lambda row: float(row["loss"]))
    wanted = min(float(value) for value in best["loss, each network"].split())
    config = HOME / "report-1" / "best-1.toml"
    assert not (HOME / "report-1" / "best-2.toml").exists()
    assert main(["train", "--config", str(config), "--out", "again"]) == 0
    result = json.loads(Path("again/result.json").read_text())
    assert result["validation"] == wanted
    assert set(result["test"]) == {"loss"}
    assert main(["train", "--resume", "again"]) == 0
    # the run of the search had the same settings, and never saw the test part
    number = int(best["trial"])
    folder = next(f for f in (HOME / "trials" / f"{number:04d}").iterdir() if _validation(f) == wanted)
    assert read_config(folder)[0] == Experiment.from_dict(tomllib.loads(config.read_text()))
    assert json.loads((folder / "result.json").read_text())["test"] == {}


def _validation(run: Path) -> float:
    return float(json.loads((run / "result.json").read_text())["validation"])


def test_a_trial_is_worth_the_mean_of_its_networks_and_keeps_each(write_space: WriteSpace) -> None:
    assert main(["search", "run", str(write_space("trials = 1\nsamples = 2"))]) == 0
    (trial,) = open_search(str(HOME))[0].trials
    each = [_validation(HOME / "trials" / "0000" / f"network-{number}") for number in (0, 1)]
    assert trial.user_attrs[REPEATS] == [each]
    assert trial.value == sum(each) / 2
    assert len({network["seed"] for network in trial.user_attrs[NETWORKS]}) == 2


def test_the_same_search_draws_the_same_networks_again(write_space: WriteSpace) -> None:
    space = str(write_space("trials = 2"))
    told = []
    for home in ("one", "two"):
        assert main(["search", "run", space, "--out", home]) == 0
        nodes = [read_config(Path(home) / "trials" / n / "network-0")[0].model.nodes for n in ("0000", "0001")]
        told.append((points(Path(home)), nodes))
    assert told[0] == told[1]


def test_a_small_space_is_tried_whole_and_no_point_twice(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "run", str(write_space("trials = 50\noptimiser = 'bohb'", DISCRETE))]) == 0
    assert "the space has 4 points: each is tried once" in said(capsys)
    assert sorted(tuple(point.values()) for point in points()) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert main(["search", "run", "small.toml", "--trials", "9"]) == 0
    assert len(points()) == 4


def test_a_network_that_can_not_be_built_counts_as_the_worst(write_space: WriteSpace) -> None:
    # two layers of one module have room for 60 parameters, two of four modules have not
    generator = DISCRETE.replace("middle_nodes = { low = 1, high = 2 }", "middle_nodes = { low = 1, high = 4 }")
    assert main(["search", "run", str(write_space("trials = 8", generator, limit=60))]) == 0
    study, space = open_search(str(HOME))
    trials = [t for t in holders(study.trials).values() if t.values]
    bad = [t for t in trials if PENALISED in t.user_attrs]
    good = [t.values[0] for t in trials if PENALISED not in t.user_attrs]
    assert bad
    assert good
    assert all("is too small for these" in t.user_attrs["said"] for t in bad)
    # a value that was there, or that of the best constant prediction
    assert {t.values[0] for t in bad} <= {*good, build_task(space).baseline}


def test_hyperband_stops_bad_points_early(write_space: WriteSpace) -> None:
    assert main(["search", "run", str(write_space("trials = 10\noptimiser = 'bohb'", epochs=9))]) == 0
    trials = holders(open_search(str(HOME))[0].trials).values()
    assert {t.user_attrs["epochs"] for t in trials if t.state.name == "COMPLETE"} == {9}
    pruned = [t.user_attrs["epochs"] for t in trials if t.state.name == "PRUNED"]
    assert pruned
    assert max(pruned) < 9


def test_several_objectives_have_a_front(write_space: WriteSpace, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("botorch", reason="several objectives are BoTorch's")
    assert (
        main(["search", "run", str(write_space("trials = 3\noptimiser = 'mobo'\nobjectives = ['loss', 'memory']"))])
        == 0
    )
    assert main(["search", "report", str(HOME), "--out", "told"]) == 0
    assert "small: the front" in said(capsys)
    with open("told/trials.csv", newline="") as file:
        found = [(float(row["loss"]), float(row["memory"])) for row in csv.DictReader(file)]
    front = [a for a in found if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in found)]
    assert len(list(Path("told").glob("best-*.toml"))) == len(front)


def test_the_network_of_the_paper_proposes_the_points_of_a_search(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("botorch", reason="several objectives are BoTorch's")
    seen = []

    def learn(points: torch.Tensor, values: torch.Tensor, *, seed: int) -> bayesian.Networks:
        seen.append(values.shape)
        return drawn(points, values, seed=seed)

    drawn = bayesian.learn
    monkeypatch.setattr(bayesian, "learn", learn)
    generator = DISCRETE.replace("density = 1.0\n", "").replace("{ low = 1, high = 2 }", "1")
    search = "trials = 4\nsamples = 2\noptimiser = 'mobo'\nsurrogate = 'bnn'\n"
    assert main(["search", "run", str(write_space(search, generator))]) == 0
    # one variable: two trials begin, each with two networks of two objectives
    assert seen == [(4, 2), (6, 2)]
    assert len({tuple(point.values()) for point in points()}) == 4
    assert main(["search", "report", str(HOME)]) == 0
    assert json.loads((HOME / "report-1" / "best-1.json").read_text())["space"]["search"]["surrogate"] == "bnn"
    said(capsys)
    assert main(["search", "run", str(write_space(search.replace("bnn", "gp"), generator))]) == 3
    assert "the study small was started with another search" in said(capsys)


def test_a_report_never_writes_over_another_one(write_space: WriteSpace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "run", str(write_space("trials = 1"))]) == 0
    for _ in range(2):
        assert main(["search", "report", str(HOME)]) == 0
    assert (HOME / "report-1" / "best-1.toml").read_text() == (HOME / "report-2" / "best-1.toml").read_text()
    assert main(["search", "report", str(HOME), "--out", str(HOME / "report-1")]) == 3
    assert "is not empty: give another --out" in said(capsys)


def test_a_picture_of_a_space_and_of_a_network_that_was_found(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    space = str(write_space("trials = 1"))
    assert main(["search", "run", space, "--storage", "all.journal"]) == 0
    assert main(["search", "report", "all.journal", "--out", "told"]) == 0
    facts = json.loads(Path("told/best-1.json").read_text())
    said(capsys)
    assert main(["search", "show", "told/best-1.toml", "--out", "best.svg"]) == 0
    assert f"{facts['parameters']} parameters" in said(capsys)
    words = " ".join(text for text in ElementTree.parse("best.svg").getroot().itertext())
    assert f"small, trial 0: {facts['parameters']} parameters" in words
    assert main(["search", "show", space, "--seed", "3", "--out", "space.png"]) == 0
    assert Path("space.png").read_bytes().startswith(b"\x89PNG")
    assert main(["search", "show", space, "--out", "space.png"]) == 3
    assert "space.png exists" in said(capsys)


def test_a_study_is_not_mixed_with_another_space(write_space: WriteSpace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "run", str(write_space("trials = 1"))]) == 0
    assert main(["search", "run", str(write_space("trials = 1\nseed = 1"))]) == 3
    assert "the study small was started with another search" in said(capsys)


WRONG = [
    (["run", "small.toml", "--best", "3"], 2, "--best is for `pendula search report`: leave it out"),
    (["show", "small.toml"], 2, "search show needs --out"),
    (["show", "small.toml", "--out", "a.gif"], 2, "the ending must be one of svg, png, got 'gif'"),
    (["run", "small.toml", "--workers", "0"], 2, "--workers must be a whole number"),
    (["run", "small.toml", "--budget", "soon"], 2, "--budget must be a time"),
    (["run", "nothing.toml"], 3, "nothing.toml"),
    (["report", "nothing"], 3, "nothing is not there: this study has not been started"),
    (["run", "small.toml", "--out", "mine"], 3, "mine is not empty, and holds no search"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_word_is_refused_before_any_work(
    write_space: WriteSpace, capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    write_space()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("mine")
    assert main(["search", *words]) == code
    assert sentence in said(capsys)
    assert sorted(path.name for path in Path().iterdir()) == ["mine", "small.toml"]
