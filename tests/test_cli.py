"""The command line, as a user types it."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pendula import load
from pendula.cells import CELLS
from pendula.cli import main

SMALL = ["--task.name", "adding", "--task.options.length", "8", "--task.options.epoch_size", "64"]
SMALL += ["--task.options.validation_size", "32", "--task.options.test_size", "32", "--model.hidden_size", "8"]
SMALL += ["--train.epochs", "2", "--train.accelerator", "cpu"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


def write_series(path: Path, count: int = 24, *, labelled: bool = True) -> None:
    """Rising and falling ramps of unequal length, sampled at unequal times."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "time", "height"] + ["label"] * labelled)
        for k in range(count):
            t = 0.0
            for n in range(4 + k % 3):
                t += 1.0 + 0.5 * ((n + k) % 2)
                rows.writerow([f"s{k}", t, (1 if k % 2 else -1) * t] + ["up" if k % 2 else "down"] * labelled)


def test_train_evaluate_and_resume_of_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--out", "run"]) == 0
    assert "test loss" in said(capsys)
    result = json.loads(Path("run/result.json").read_text())
    assert result["epochs"] == 2
    assert result["parameters"] == load("run/best").parameter_count
    assert result["versions"]["pendula"]
    assert result["machine"]["cores"]
    assert main(["evaluate", "run"]) == 0
    assert f"{result['test']['loss']:.6g}" in said(capsys)
    assert main(["train", "--resume", "run"]) == 0
    assert json.loads(Path("run/result.json").read_text()) == result


def test_a_run_never_goes_into_a_folder_with_something_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/thesis.txt").write_text("mine")
    assert main(["train", *SMALL, "--out", "run"]) == 3
    assert "run is not empty: give another --out, or go on with --resume run" in said(capsys)
    assert [p.name for p in Path("run").iterdir()] == ["thesis.txt"]


def test_resuming_takes_no_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", "run", "--train.epochs", "50"]) == 2
    assert "--resume goes on with the settings of the run: leave --train out" in said(capsys)


def test_the_demo_does_not_show_the_results_of_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--epochs", "1", "--out", "demo"]) == 0
    assert main(["demo", "--epochs", "2", "--out", "demo"]) == 3
    assert "holds a run with other settings" in said(capsys)


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_damaged_run_folder_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--out", "run"]) == 0
    (Path("run") / name).write_text("{")
    assert main(["train", "--resume", "run"]) == 3
    assert f"{Path('run') / name} is damaged" in said(capsys)


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pendula", "train", *SMALL, "--train.epochs", "400", "--out", "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "can be resumed" in err
    assert "Traceback" not in err
    config = json.loads(Path("run/config.json").read_text())
    assert config["experiment"]["train"]["epochs"] == 400
    assert Path("run/resume.safetensors").exists()


def test_own_csv_files_are_trained_on_and_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    write_series(Path("mine.csv"))
    write_series(Path("new.csv"), count=5, labelled=False)
    words = ["--task.name", "files", "--task.options.path", "mine.csv", "--model.hidden_size", "8"]
    words += ["--train.epochs", "30", "--train.learning_rate", "0.05", "--train.accelerator", "cpu"]
    assert main(["train", *words, "--model.physics.dt", "0.2", "--out", "run"]) == 0
    assert json.loads(Path("run/result.json").read_text())["test"]["accuracy"] == 1.0
    assert main(["predict", "run", "--data", "new.csv", "--out", "out.csv"]) == 0
    with open("out.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"s{k}" for k in range(5)]
    assert [row["prediction"] for row in rows] == ["down", "up", "down", "up", "down"]
    assert all(float(row["probability up"]) + float(row["probability down"]) == pytest.approx(1) for row in rows)
    assert main(["predict", "run", "--data", "new.csv", "--out", "out.csv"]) == 3
    assert "out.csv exists" in said(capsys)
    assert main(["predict", "run", "--data", "new.csv", "--out", "out.parquet"]) == 0
    import pyarrow.parquet

    assert pyarrow.parquet.read_table("out.parquet").column("prediction").to_pylist() == [r["prediction"] for r in rows]
    capsys.readouterr()
    assert main(["evaluate", "run", "--data", "mine.csv"]) == 0
    shown = said(capsys)
    assert "sequences │ 24" in shown
    assert "accuracy │ 1 " in shown
    assert main(["data", "check", "mine.csv"]) == 0
    assert "irregular" in said(capsys)


def test_evaluating_on_files_reads_them_as_in_training(capsys: pytest.CaptureFixture[str]) -> None:
    write_series(Path("mine.csv"))
    words = ["--task.name", "files", "--task.options.path", "mine.csv", "--model.hidden_size", "8", "--out", "run"]
    assert main(["train", *words, "--train.epochs", "3", "--train.accelerator", "cpu"]) == 0
    with open("mine.csv") as file:
        rows = list(csv.DictReader(file))
    # ten times slower, and with the columns in another order
    with open("slow.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["label", "height", "time", "id"])
        writer.writeheader()
        writer.writerows({**row, "time": 10 * float(row["time"])} for row in rows)
    losses = []
    for name in ("mine.csv", "slow.csv"):
        capsys.readouterr()
        assert main(["evaluate", "run", "--data", name]) == 0
        losses.append(said(capsys).split("loss │ ")[1].split()[0])
    assert losses[0] != losses[1]
    with open("odd.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "time", "height", "label"])
        writer.writeheader()
        writer.writerows({**row, "label": "sideways"} for row in rows)
    assert main(["evaluate", "run", "--data", "odd.csv"]) == 3
    assert "has the class 'sideways'; the model knows down, up" in said(capsys)


def test_missing_values_are_reported_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    write_series(Path("mine.csv"))
    text = Path("mine.csv").read_text().splitlines()
    cells = text[3].split(",")
    text[3] = ",".join([*cells[:2], "", cells[3]])
    Path("mine.csv").write_text("\n".join(text))
    words = ["--task.name", "files", "--task.options.path", "mine.csv", "--model.hidden_size", "4", "--out", "run"]
    assert main(["train", *words, "--train.epochs", "1", "--train.accelerator", "cpu"]) == 0
    assert "missing: 1" in said(capsys)


def test_a_network_without_a_time_step_refuses_irregular_series_before_the_run_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_series(Path("mine.csv"))
    words = ["train", "--task.name", "files", "--task.options.path", "mine.csv", "--model.network", "LSTM"]
    assert main([*words, "--out", "run"]) == 2
    assert "LSTM has no time step" in said(capsys)
    assert not Path("run").exists()


def test_predict_on_a_stored_task_names_classes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task.name", "digits", "--model.hidden_size", "4", "--train.epochs", "1", "--train.accelerator", "cpu"]
    assert main(["train", *words, "--out", "run"]) == 0
    assert main(["predict", "run", "--out", "out.csv"]) == 0
    with open("out.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300
    assert set(rows[0]) == {"id", "prediction", *(f"probability {k}" for k in range(10))}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["train", "--train.epoch", "3"], "did you mean train.epochs?"),
        (["train", "--train.epochs", "many"], "train.epochs"),
        (["train", "--train.optimiser", "adm"], "adm"),
        (["trian"], "train"),
        ([], "train,evaluate,predict"),
    ],
)
def test_wrong_words_exit_with_2_and_help(words: list[str], needed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert needed in said(capsys)


@pytest.mark.parametrize(
    ("words", "code", "needed"),
    [
        (["train", "--task.name", "digit"], 2, "did you mean 'digits'?"),
        (["train", "--task.options.permutd", "true"], 2, "did you mean 'permuted'?"),
        (["train", "--model.network", "coRNN"], 2, "did you mean 'CoRNN'?"),
        (["train", "--model.physics.gama", "1"], 2, "did you mean 'gamma'?"),
        (["train", "--model.physics.dt", "-1"], 2, "dt must be positive"),
        (["train", *SMALL, "--train.window", "3"], 2, "needs a target at every step"),
        (["train", "--resume", "nowhere"], 3, "nowhere is not a run"),
        (["train", "--task.name", "files", "--task.options.path", "nothing.csv"], 3, "nothing.csv"),
        (["evaluate", "nowhere"], 3, "nowhere is not a run"),
        (["predict", "nowhere"], 3, "nowhere is not a run"),
        (["data", "get"], 2, "data get needs a set"),
        (["data", "check", "nothing.csv"], 3, "nothing.csv"),
        (["train", "--task.name", "files"], 2, "needs --task.options.path"),
        (["train", "--task.options.permuted", "7"], 2, "must be a bool"),
        (["train", "--train.epochs", "0"], 2, "epochs must be a whole number"),
        (["train", "--train.seed", "-1"], 2, "seed must be a whole number"),
        (["demo", "--seeds", "0"], 2, "seeds must be a whole number"),
        (["train", *SMALL, "--out", "/dev/null/run"], 3, "/dev/null"),
        (["train", "--model.network", "Elman", "--model.physics.dt", "1"], 2, "it has none"),
        (["train", "--model.physics.learnable", "dt"], 2, "learnable must be a list"),
        (["data", "check", "mnits"], 3, "did you mean 'mnist'?"),
    ],
)
def test_wrong_values_are_explained_in_one_line(
    words: list[str], code: int, needed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    text = said(capsys)
    assert text.startswith("pendula: ")
    assert needed in text


def test_a_diverging_run_exits_with_4(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, "--train.learning_rate", "1e38", "--train.optimiser", "sgd", "--out", "run"]
    assert main(["train", *words]) == 4
    text = said(capsys)
    assert "no finite gradient or loss at step" in text
    assert "No epoch had ended" in text


@pytest.mark.parametrize("ending", ["toml", "yaml", "json"])
def test_a_config_file_is_read_overridden_and_dumped(ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {
        "toml": '[task]\nname = "copying"\n[train]\nepochs = 7\n[model.physics]\ndt = 0.2\n',
        "yaml": "task:\n  name: copying\ntrain:\n  epochs: 7\nmodel:\n  physics:\n    dt: 0.2\n",
        "json": '{"task": {"name": "copying"}, "train": {"epochs": 7}, "model": {"physics": {"dt": 0.2}}}',
    }
    Path(f"c.{ending}").write_text(texts[ending])
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", f"c.{ending}", "--train.seed", "5", "--print_config"])
    assert stop.value.code in (0, None)
    dumped = capsys.readouterr().out
    for line in ("name: copying", "epochs: 7", "dt: 0.2", "seed: 5", "learning_rate: 0.01"):
        assert line in dumped
    Path("again.yaml").write_text(dumped)
    with pytest.raises(SystemExit):
        main(["train", "--config", "again.yaml", "--print_config"])
    assert capsys.readouterr().out == dumped


@pytest.mark.parametrize("what", ["networks", "tasks", "backends"])
def test_lists_fit_80_columns(what: str, tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-m", "pendula"]
    shown = subprocess.run([*command, "list", what], capture_output=True, text=True, env=environment, check=True).stdout
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert len(shown.splitlines()) > 4


def test_piped_each_network_is_one_line_with_equation_parameters_and_source() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "pendula", "list", "networks"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    for name, cell in CELLS.items():
        (line,) = [line for line in shown.splitlines() if line.split()[1:2] == [name]]
        assert cell.equation in line
        assert cell.source in line
        assert f"{sum(p.numel() for p in cell(1, 128).parameters()):,}" in line


@pytest.mark.parametrize("words", [[], ["train"], ["evaluate"], ["predict"], ["list"], ["data"], ["demo"]])
def test_help_fits_80_columns(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80, [line for line in lines if len(line) > 80]


def test_the_demo_trains_both_networks_and_draws_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--epochs", "1", "--out", "demo"]) == 0
    assert Path("demo/learning-curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "27,370" in said(capsys)
    runs = sorted(p.parent.name for p in Path("demo").rglob("result.json"))
    assert runs == ["cornn-seed0"] * 2 + ["lstm-seed0"] * 2
