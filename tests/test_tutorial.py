"""The tutorial on own data, walked through as it is written: its files, its commands and what they print."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pendula.cli import main

pytest.importorskip("pyarrow")

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial-own-data.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "" for line in text.splitlines()]
FEW, MANY = ["--train.epochs", "2"], ["--train.epochs", "25"]

Run = Callable[[str, list[str]], str]


def shown(command: str) -> str:
    """The block that follows a command on the page."""
    place = next(k for k, (language, text) in enumerate(BLOCKS) if language == "" and command in text)
    language, text = BLOCKS[place + 1]
    assert language == "text", f"the page shows no output of {command}"
    return text


def masked(text: str) -> list[str]:
    """Lines without what depends on the machine and on the number of epochs: numbers, widths, frames, classes."""
    text = re.sub(r"[┃│┌┐└┘─┬┴]", " ", text.replace(str(Path.cwd()), "/home/you"))
    text = re.sub(r"\d+(\.\d+)?(e-?\d+)?", "#", text)
    text = re.sub(r'"(calm|normal|rough)"', "CLASS", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() not in ("", "...")]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command of the page beside the page's files, and returns what it prints."""
    # pytest's own folders have long names, which wrap in a table
    folder = tempfile.TemporaryDirectory(prefix="t")
    monkeypatch.chdir(folder.name)
    (making,) = (text for language, text in BLOCKS if language == "python")
    exec(making, {})

    def typed(command: str, more: list[str]) -> str:
        capsys.readouterr()
        assert main([*shlex.split(command)[1:], *more]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    yield typed
    monkeypatch.undo()
    folder.cleanup()


def test_the_commands_of_the_page_do_and_print_what_it_says(run: Run) -> None:
    check, train, longer, resume, predict, evaluate = COMMANDS
    assert Path("buoy/calm/000.csv").read_text().startswith(BLOCKS[1][1])
    assert run(check, []) == shown(check)

    assert not set(masked(shown(train))) - set(masked(run(train, [*FEW, "--train.accelerator", "cpu"])))
    assert json.loads(Path("runs/buoy/result.json").read_text())["epochs"] == 2

    words = [sys.executable, "-m", *shlex.split(longer), *MANY, "--train.accelerator", "cpu"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = next(line for line in process.stdout if "epoch 1/" in line)
        process.kill()
    assert masked(shown(longer)) == [*masked(printed), "Killed"]
    assert not Path("runs/longer/result.json").exists()
    assert not set(masked(shown(resume))) - set(masked(run(resume, [])))
    assert json.loads(Path("runs/longer/result.json").read_text())["epochs"] == 25

    assert run(predict, []) == shown(predict)
    place = next(k for k, (_, text) in enumerate(BLOCKS) if text == shown(predict))
    lines = Path("predictions.csv").read_text().splitlines(keepends=True)
    assert masked("".join(lines[:4])) == masked(BLOCKS[place + 1][1])
    assert len(lines) == 61
    assert not set(masked(shown(evaluate))) - set(masked(run(evaluate, [])))


def test_default_settings_are_far_better_than_chance_on_the_pages_data(run: Run) -> None:
    run(COMMANDS[1], ["--train.accelerator", "cpu"])
    result = json.loads(Path("runs/buoy/result.json").read_text())
    assert result["test"]["accuracy"] > 2 / 3
