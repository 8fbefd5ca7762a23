"""`pendula diagnose`, as a user types it: every network, real runs, text, noise, and very long sequences."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pendula
from pendula.cells import CELLS
from pendula.cli import main
from pendula.diagnose import certify, pictures
from pendula.nets.spec import ModelSpec, Node
from pendula.subjects import subject_of
from tests.test_cli import SMALL, said, write_series

NEWS = ["diagnosis.html", "diagnosis.json"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(network: str = "CoRNN", name: str = "model", units: int = 4, pool: str = "last", **options: Any) -> str:
    torch.manual_seed(1)
    pendula.save(pendula.Model(ModelSpec(2, 3, (Node(network, units),), pool=pool, **options)), name)
    return name


def found(folder: str = "diagnosis") -> dict[str, Any]:
    data: dict[str, Any] = json.loads((Path(folder) / "diagnosis.json").read_text())
    return data


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the pictures, which test_page.py and test_portraits.py look at: they take seconds."""
    picture = pictures.Picture("name", "", "", "")
    monkeypatch.setattr(pictures, "of_layer", lambda portrait, name: [])
    monkeypatch.setattr(pictures, "of_spectrum", lambda layer, name: [])
    monkeypatch.setattr(pictures, "gradient_picture", lambda flow: picture)


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize("network", CELLS)
def test_it_runs_on_every_network(network: str) -> None:
    assert main(["diagnose", saved(network), "--steps", "40", "--sequences", "2", "--compare", "none"]) == 0
    data = found()
    assert data["format"] == "pendula-diagnosis"
    assert data["certificates"]
    assert not [c for c in data["certificates"] if c["verdict"] == "broken"]
    for part in (data["gradients"]["layers"], data["spectrum"], data["portraits"]):
        assert [layer["network"] for layer in part] == [network]
    assert network in Path("diagnosis/diagnosis.html").read_text()


def test_a_run_of_the_command_line_is_diagnosed_on_its_validation_part(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task.name", "digits", "--model.hidden_size", "4", "--train.epochs", "1", "--train.accelerator", "cpu"]
    assert main(["train", *words, "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["diagnose", "run", "--sequences", "3", "--out", "seen"]) == 0
    data, shown = found("seen"), said(capsys)
    assert data["about"]["batch"] == "the first 3 sequences of the validation part of digits"
    assert data["about"]["sequences"] == 3
    assert data["about"]["steps"] == 64
    assert data["about"]["epochs"] == 1
    assert data["notes"] == []
    assert data["gradients"]["rival"]["layers"][0]["network"] == "LSTM"
    for sentence in data["verdict"]:
        assert sentence in shown
    assert "seen/diagnosis.html" in shown
    assert sorted(p.name for p in Path("seen").iterdir()) == NEWS
    # what was measured is what certify says of the model and the batch that the page names
    subject = subject_of(Path("run"), part=None, data=None, sequences=3, steps=None)
    assert data["certificates"] == [c.to_dict() for c in certify(subject.model, subject.batch)]
    task = pendula.experiment.TaskChoice("digits").build()
    assert torch.equal(subject.batch.x, task.rows("validation", torch.arange(3), 0, 0).x)


def test_its_last_model_is_another_one() -> None:
    assert main(["train", *SMALL, "--out", "run"]) == 0
    best = subject_of(Path("run"), part="test", data=None, sequences=2, steps=None)
    for name in ("best", "last"):
        subject = subject_of(Path("run") / name, part="test", data=None, sequences=2, steps=None)
        kept = pendula.load(Path("run") / name).state_dict()
        assert all(torch.equal(value, kept[key]) for key, value in subject.model.state_dict().items())
        assert torch.equal(subject.batch.x, best.batch.x)


@pytest.mark.usefixtures("_undrawn")
def test_own_files_are_read_as_in_training() -> None:
    write_series(Path("mine.csv"))
    words = ["--task.name", "files", "--task.options.path", "mine.csv", "--model.hidden_size", "4"]
    words += ["--model.physics.dt", "0.2", "--train.epochs", "1", "--train.accelerator", "cpu"]
    assert main(["train", *words, "--out", "run"]) == 0
    write_series(Path("new.csv"), count=7)
    subject = subject_of(Path("run"), part=None, data="new.csv", sequences=5, steps=None)
    assert subject.about["batch"] == "the first 5 of new.csv"
    assert subject.batch.timespans is not None
    assert subject.batch.lengths is not None
    assert main(["diagnose", "run", "--data", "new.csv", "--compare", "none"]) == 0
    assert found()["about"]["steps"] == "4 to 6"
    assert found()["spectrum"][0]["lyapunov"]["sequences"] == 2


def test_only_the_first_steps_are_looked_at_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--out", "run"]) == 0
    subject = subject_of(Path("run"), part=None, data=None, sequences=2, steps=5)
    assert subject.batch.x.shape[0] == 5
    assert subject.notes == ("Only the first 5 of 8 steps were looked at; the targets are those of the whole.",)


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize("pool", ["last", "mean", "steps"])
def test_a_model_alone_gets_noise_and_a_note(pool: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", saved(pool=pool), "--steps", "20", "--compare", "none"]) == 0
    assert "is a model without a task: it was given noise" in said(capsys)
    (note,) = found()["notes"]
    assert "noise" in note
    assert found()["about"]["batch"] == "8 sequences of noise"
    assert found()["gradients"]["steps"] == 20
    assert note.replace("'", "&#x27;") in Path("diagnosis/diagnosis.html").read_text()


def test_noise_for_a_model_that_standardises_is_on_its_scale() -> None:
    model = pendula.Model(ModelSpec(2, 3, (Node("CoRNN", 4),), standardise=True))
    model.set_standard(torch.tensor([50.0, -2.0]), torch.tensor([10.0, 0.1]))
    pendula.save(model, "model")
    x = subject_of(Path("model"), part=None, data=None, sequences=30, steps=400).batch.x.flatten(0, 1)
    assert x.mean(0) == pytest.approx(torch.tensor([50.0, -2.0]), rel=0.05)
    assert x.std(0) == pytest.approx(torch.tensor([10.0, 0.1]), rel=0.05)


@pytest.mark.usefixtures("_undrawn")
def test_a_model_for_tokens_gets_tokens() -> None:
    model = saved(vocabulary=9)
    subject = subject_of(Path(model), part=None, data=None, sequences=4, steps=50)
    assert subject.batch.x.dtype == torch.int64
    assert sorted(subject.batch.x.unique().tolist()) == list(range(1, 9))
    assert main(["diagnose", model, "--steps", "20", "--sequences", "2"]) == 0
    assert "tokens drawn at random" in found()["notes"][0]


@pytest.mark.usefixtures("_undrawn")
def test_a_diverged_model_is_diagnosed_and_nothing_certified(capsys: pytest.CaptureFixture[str]) -> None:
    model = pendula.load(saved())
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    pendula.save(model, "model", overwrite=True)
    assert main(["diagnose", "model", "--steps", "20", "--compare", "none"]) == 0
    assert "Nothing is certified: the training has diverged: not all of layers.layer0" in said(capsys)
    data = found()
    assert data["certificates"] == []
    assert data["gradients"]["layers"][0]["verdict"] == "not finite"
    assert "All" not in data["verdict"][0]


@pytest.mark.usefixtures("_undrawn")
def test_the_network_to_compare_with_can_be_chosen() -> None:
    assert main(["diagnose", saved(), "--steps", "20", "--compare", "Elman"]) == 0
    assert found()["gradients"]["rival"]["layers"][0]["network"] == "Elman"
    assert "With an untrained Elman" in Path("diagnosis/diagnosis.html").read_text()


@pytest.mark.usefixtures("_undrawn")
def test_what_is_there_is_not_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["diagnose", saved(), "--steps", "10", "--compare", "none"]
    Path("diagnosis").mkdir()
    Path("diagnosis/thesis.txt").write_text("mine")
    assert main(words) == 3
    assert "diagnosis is not empty: give another --out, or --overwrite" in said(capsys)
    assert [p.name for p in Path("diagnosis").iterdir()] == ["thesis.txt"]
    assert main([*words, "--overwrite"]) == 0
    assert sorted(p.name for p in Path("diagnosis").iterdir()) == [*NEWS, "thesis.txt"]
    assert Path("diagnosis/thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code", "needed"),
    [
        (["nowhere"], 3, "nowhere is not a run"),
        (["model", "--part", "test"], 2, "without a task, so it has no data: leave --part and --data out"),
        (["model", "--compare", "LSTN"], 2, "did you mean 'LSTM'?"),
        (["model", "--sequences", "0"], 2, "--sequences must be a whole number"),
        (["model", "--steps", "0"], 2, "--steps must be a whole number"),
        (["model", "--out", "model/spec.json"], 3, "is not empty"),
    ],
)
def test_wrong_words_are_explained_in_one_line(
    words: list[str], code: int, needed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saved()
    assert main(["diagnose", *words]) == code
    assert needed in said(capsys)
    assert not Path("diagnosis").exists()


def test_its_help_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["diagnose", "--help"])
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN"])
def test_17984_steps_fit_into_2_gigabytes(network: str) -> None:
    """The length of EigenWorms. The peak is what the kernel counted for the whole process, imports included."""
    code = (
        "import resource, sys, torch\n"
        "from pendula.cli import main\n"
        "torch.set_num_threads(1)\n"
        "done = main(sys.argv[1:])\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "sys.exit(done)"
    )
    words = ["diagnose", saved(network), "--steps", "17984", "--sequences", "1", "--compare", "none"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout.split("peak")[1]) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 2e6
    data = found()
    assert data["gradients"]["layers"][0]["lags"][-1] == 17984
    assert data["portraits"][0]["steps"] == 17984
    assert Path("diagnosis/diagnosis.html").stat().st_size < 2e6
