"""Tasks with tokens are trained, resumed and predicted like any other."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pendula import Model, ModelSpec, Node
from pendula._check import DataError
from pendula.choices import ModelChoice
from pendula.cli import main
from pendula.learn.fit import evaluate, fit
from pendula.learn.training import Training
from pendula.tasks.base import Sequences, StoredTask
from pendula.tasks.synthetic import Adding

TRAINING = Training(epochs=4, batch_size=10, learning_rate=0.02, accelerator="cpu")


class Mark(StoredTask):
    """Whether the token 5 stands in a text of 3 to 9 tokens."""

    name = "mark"
    summary = "toy"
    target = "binary"
    output_size = 1
    labels = ("absent", "present")
    vocabulary = 7

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        lengths = torch.randint(3, 10, (120,), generator=generator)
        offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
        flat = torch.randint(1, 5, (int(offsets[-1]),), generator=generator)
        y = torch.arange(120) % 2
        flat[offsets[:-1][y == 1]] = 5
        whole = Sequences(flat.to(torch.int16), offsets, y, names=tuple(f"text {k}" for k in range(120)))
        parts = zip(("train", "validation", "test"), torch.arange(120).split(40), strict=True)
        super().__init__({part: whole.take(rows) for part, rows in parts})


def model(task: StoredTask, **options: float) -> Model:
    torch.manual_seed(0)
    return Model(ModelSpec(6, 1, (Node("LSTM", 8),), vocabulary=task.vocabulary, **options))  # type: ignore[arg-type]


def test_a_task_with_tokens_is_learnt(tmp_path: Path) -> None:
    task = Mark()
    fitted = fit(model(task), task, replace(TRAINING, epochs=12), tmp_path)
    assert evaluate(fitted.model, task, "test")["accuracy"] > 0.9


def test_the_masks_of_tokens_depend_on_the_seed_and_the_place_alone(tmp_path: Path) -> None:
    task, ends = Mark(), []
    for name in ("a", "b"):
        torch.manual_seed(len(ends))
        fitted = fit(model(task, embedding_dropout=0.2, token_dropout=0.2), task, TRAINING, tmp_path / name)
        ends.append(fitted.model.state_dict())
        torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(ends[0].values(), ends[1].values(), strict=True))


def test_noise_on_tokens_is_refused(tmp_path: Path) -> None:
    task = Mark()
    with pytest.raises(ValueError, match="input_noise is added to numbers, and mark has tokens: leave input_noise out"):
        fit(model(task), task, replace(TRAINING, input_noise=0.1), tmp_path)


def test_the_model_for_tokens_has_an_embedding_of_the_size_asked_for() -> None:
    choice = ModelChoice(hidden_size=4, embedding_size=12, embedding_dropout=0.1, token_dropout=0.2)
    spec = choice.spec(Mark())
    assert (spec.input_size, spec.vocabulary) == (12, 7)
    assert (spec.embedding_dropout, spec.token_dropout) == (0.1, 0.2)


def test_the_size_of_an_embedding_is_of_no_use_where_there_are_numbers() -> None:
    spec = ModelChoice(hidden_size=4, embedding_size=12).spec(Adding())
    assert (spec.input_size, spec.vocabulary) == (2, None)


def test_dropping_tokens_is_refused_where_there_are_numbers() -> None:
    with pytest.raises(ValueError, match="token_dropout drops from an embedding of tokens, and there is none"):
        ModelChoice(token_dropout=0.1).spec(Adding())


def test_stacked_tokens_stay_whole_numbers() -> None:
    made = Sequences.stacked(torch.arange(12).reshape(3, 4), torch.zeros(3, dtype=torch.int64))
    assert made.flat.tolist() == list(range(12))
    assert made.batch(torch.tensor([2]), per_step=False).x.tolist() == [[8], [9], [10], [11]]


def test_sequences_that_read_padding_do_so_in_every_part() -> None:
    whole = replace(Mark().part("train"), reads_padding=True)
    assert whole.take(torch.arange(5)).batch(torch.arange(5), per_step=False).lengths is None


def test_other_tokens_are_other_data() -> None:
    first, other = Mark(), Mark()
    other.part("train").flat[0] = 6
    assert first.digest() != other.digest()


def test_a_text_is_trained_on_in_windows_and_predicted_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat; " * 60)
    out = tmp_path / "run"
    words = ["--task.name", "characters", "--task.options.path", str(text), "--task.options.length", "200"]
    words += ["--model.network", "LSTM", "--model.hidden_size", "6", "--model.embedding_size", "4"]
    assert main(["train", *words, "--train.window", "40", "--train.epochs", "1", "--out", str(out)]) == 0
    assert main(["predict", str(out), "--out", str(tmp_path / "said.csv")]) == 0
    with open(tmp_path / "said.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(k) for k in range(71)]
    assert set(rows[0]) == {"id", "step", "prediction", *(f"probability {s}" for s in ["space", *";acehmnost"])}
    assert main(["predict", str(out), "--data", str(text)]) == 3
    assert "was trained on characters, not on files: leave --data out" in " ".join(capsys.readouterr().err.split())


def test_a_text_that_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    task = Mark()
    stopped = replace(TRAINING, epochs=1)
    fit(model(task), task, stopped, tmp_path)
    task.part("train").flat[0] = 6
    with pytest.raises(DataError, match="was started with other settings"):
        fit(model(task), task, stopped, tmp_path, resume=True)
