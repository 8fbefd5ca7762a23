"""What `pendula diagnose` shows of a learning rule: angles now, and their course over the training."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pendula
from pendula.cli import main
from pendula.diagnose import examine, pictures
from pendula.diagnose.alignment import LayerAngle, RuleReport
from pendula.diagnose.diagnosis import STATELESS
from pendula.diagnose.page import page
from pendula.experiment import open_run
from pendula.learn.dfa import alignment_report
from pendula.learn.record import RESUME_FILE, rule_tensors
from pendula.nets.checkpoint import read_tensors, write_tensors
from pendula.subjects import subject_of
from pendula.tasks.base import Batch
from tests.browser import chromium  # noqa: F401
from tests.diagnose.test_page import PARTS, opened
from tests.test_cli import SMALL, said

KERNEL = ["--train.rule", "dfa", "--train.rule.time", "kernel"]
IMAGES = ["--task.name", "digits", "--model.network", "ConvStack", "--model.hidden_size", "4", "--train.epochs", "1"]
IMAGES += ["--train.rule", "dfa", "--train.rule.plan", "stages", "--train.accelerator", "cpu"]
REPORT = RuleReport(
    "dfa (plan layers)",
    (LayerAngle("low", 97.25, 2.5), LayerAngle("high", 60.0, 0.5), LayerAngle("readout", 0.0, 1.0)),
    (1, 20, 40),
    {"low": (100.0, 98.0, 96.0), "high": (120.0, None, 59.0), "readout": (0.0, 0.0, 0.0)},
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of coRNN, measured during the training, and one of images that was not; a page of each, beside them."""
    folder = tmp_path_factory.mktemp("runs")
    recurrent = [*SMALL, *KERNEL, "--model.num_layers", "2", "--train.align", "2"]
    assert main(["train", *recurrent, "--out", str(folder / "cornn")]) == 0
    assert main(["train", *IMAGES, "--train.rule.sparsity", "0.5", "--out", str(folder / "images")]) == 0
    for name in ("cornn", "images"):
        words = ["--sequences", "4", "--compare", "none", "--out", str(folder / f"{name} seen")]
        assert main(["diagnose", str(folder / name), *words]) == 0
    return folder


def seen(runs: Path, name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((runs / f"{name} seen" / "diagnosis.json").read_text())
    return data


def shown(runs: Path, name: str) -> Path:
    return runs / f"{name} seen" / "diagnosis.html"


@pytest.mark.parametrize("name", ["cornn", "images"])
def test_angles_are_those_of_the_run_s_rule_with_its_own_feedback(runs: Path, name: str) -> None:
    experiment, _, model = open_run(runs / name)
    rule = experiment.train.make_rule()
    rule.restore(rule_tensors(read_tensors(runs / name / RESUME_FILE)[0]))
    task = experiment.task.build()
    batch = task.rows("validation", torch.arange(4), 0, 0)
    wanted = alignment_report(model.train(), batch, task.loss, rule)
    layers = {layer["name"]: layer for layer in seen(runs, name)["learning"]["layers"]}
    assert list(layers) == list(wanted)
    assert {n: (l["degrees"], l["ratio"]) for n, l in layers.items()} == {
        n: (a.degrees, a.ratio) for n, a in wanted.items()
    }
    assert layers["readout"]["degrees"] == pytest.approx(0, abs=1e-3)


def test_feedback_that_the_seed_would_not_draw_is_read_from_the_run(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.symlink_to(runs / "cornn")
    before = subject_of(folder, part=None, data=None, sequences=4, steps=None).learning
    copied = tmp_path / "copy"
    copied.mkdir()
    for path in (runs / "cornn").iterdir():
        (copied / path.name).symlink_to(path)
    tensors, notes = read_tensors(copied / RESUME_FILE)
    (copied / RESUME_FILE).unlink()
    turned = {name: -t if name.startswith("rule/") else t for name, t in tensors.items()}
    write_tensors(copied / RESUME_FILE, turned, notes)
    after = subject_of(copied, part=None, data=None, sequences=4, steps=None).learning
    assert before is not None
    assert after is not None
    for old, new in zip(before.layers[:-1], after.layers[:-1], strict=True):
        assert old.degrees is not None
        assert new.degrees == pytest.approx(180 - old.degrees, abs=1e-3)
    # without the file, those of the seed, and it is said
    (copied / RESUME_FILE).unlink()
    drawn = subject_of(copied, part=None, data=None, sequences=4, steps=None)
    assert drawn.learning == before
    assert f"{RESUME_FILE} is not in {copied}" in drawn.notes[0]


def test_the_course_is_what_the_training_measured(runs: Path) -> None:
    lines = [json.loads(line) for line in (runs / "cornn" / "alignment.jsonl").read_text().splitlines()]
    found = seen(runs, "cornn")["learning"]
    assert found["steps"] == [line["step"] for line in lines] == [1, 2]
    for name, course in found["course"].items():
        assert course == [line["layers"][name]["degrees"] for line in lines]


@pytest.mark.parametrize("width", [1200, 360])
def test_the_table_is_read_and_fits(chromium: Any, runs: Path, width: int) -> None:  # noqa: F811
    for name in ("cornn", "images"):
        browser = opened(chromium, shown(runs, name), width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        rows = browser.find_elements("css selector", "#learning tbody tr")
        layers = seen(runs, name)["learning"]["layers"]
        assert len(rows) == len(layers)
        for row, layer in zip(rows, layers, strict=True):
            text = " ".join(row.text.split())
            assert text.startswith(layer["name"])
            assert f"{layer['degrees']:.1f} degrees" in text
            assert f"{layer['ratio']:.4g}" in text
            assert layer["sentence"] in text
            assert ("below 90 degrees: a short step" in text) is (layer["degrees"] < 90)


def test_the_picture_is_seen_with_a_line_for_each_layer(chromium: Any, runs: Path) -> None:  # noqa: F811
    browser = opened(chromium, shown(runs, "cornn"), 1200)
    (drawn,) = browser.find_elements("css selector", "#learning figure > svg")
    assert drawn.is_displayed()
    assert drawn.size["width"] > 300
    assert drawn.size["height"] > 100
    assert "layer0.1 from" in drawn.get_attribute("aria-label")
    text = [t.text for t in drawn.find_elements("css selector", "text")]
    assert {"layer0.0", "layer0.1", "readout", "optimiser step", "angle in degrees"} <= set(text)
    # a line has the length of its curve; its sample in the legend is shorter
    script = """const s = document.querySelector('#learning figure > svg'), found = {};
        for (const p of s.querySelectorAll('path')) {
            const colour = getComputedStyle(p).stroke;
            if (colour != 'none') found[colour] = Math.max(found[colour] || 0, p.getTotalLength()); }
        return found"""
    long = {colour for colour, length in browser.execute_script(script).items() if length > 100}
    colours = {f"rgb({int(c[1:3], 16)}, {int(c[3:5], 16)}, {int(c[5:], 16)})" for c in pictures.COLOURS[:3]}
    assert colours <= long


def test_a_page_of_images_has_this_part_alone_and_says_why(chromium: Any, runs: Path) -> None:  # noqa: F811
    browser = opened(chromium, shown(runs, "images"), 1200)
    parts = [part.get_attribute("id") for part in browser.find_elements("css selector", "details")]
    assert parts == ["learning", "about"]
    assert browser.find_element("css selector", ".note").text == STATELESS
    verdict = browser.find_element("id", "verdict").text
    assert verdict.split("\n") == seen(runs, "images")["verdict"]
    assert "the learning rule's update" in verdict
    assert "Conv of 4 channels" in browser.find_element("id", "subject").text
    assert "the first 4 images of the validation part of digits" in browser.find_element("id", "subject").text
    # it was not measured during the training
    assert browser.find_elements("css selector", "figure") == []
    assert "--train.align N" in browser.find_element("id", "learning").text


def test_data_of_images_has_nothing_of_states(runs: Path) -> None:
    data = seen(runs, "images")
    assert data["gradients"] is None
    assert [data[part] for part in ("certificates", "advice", "spectrum", "portraits")] == [[], [], [], []]
    assert data["learning"]["rule"] == ("dfa (plan stages, boundary dfa, source output, time bptt, sparsity 0.5)")
    assert data["about"]["pixels"] == "8 x 8"


def test_a_page_of_backpropagation_has_no_such_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--out", str(tmp_path / "run")]) == 0
    words = [
        "diagnose",
        str(tmp_path / "run"),
        "--sequences",
        "2",
        "--compare",
        "none",
        "--out",
        str(tmp_path / "seen"),
    ]
    assert main(words) == 0
    text = (tmp_path / "seen" / "diagnosis.html").read_text()
    assert re.findall(r'<details id="(\w+)"', text) == PARTS
    assert "earning rule" not in text + said(capsys)
    assert json.loads((tmp_path / "seen" / "diagnosis.json").read_text())["learning"] is None


def test_of_the_readout_rule_the_layers_are_said_to_stay(tmp_path: Path) -> None:
    assert main(["train", *SMALL, "--train.rule", "readout", "--out", str(tmp_path / "run")]) == 0
    found = subject_of(tmp_path / "run", part=None, data=None, sequences=2, steps=None).learning
    assert found is not None
    assert [layer.sentence for layer in found.layers][:-1] == ["the rule leaves this layer as it is"]
    assert found.verdict == (
        "A short step along the learning rule's update lowers the loss in 1 layer that it trains.",
    )
    assert found.rule == "readout (the read-out alone)"


def test_a_network_of_images_trained_by_backpropagation_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in IMAGES[:-2] if word not in ("--train.rule.plan", "stages")]
    words[words.index("dfa")] = "bptt"
    assert main(["train", *words, "--train.accelerator", "cpu", "--out", str(tmp_path / "run")]) == 0
    assert main(["diagnose", str(tmp_path / "run"), "--out", str(tmp_path / "seen")]) == 2
    assert "this model has no recurrent layer" in said(capsys)
    assert not (tmp_path / "seen").exists()


def test_images_are_not_cut(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(runs / "images"), "--steps", "5", "--out", str(tmp_path / "seen")]) == 2
    assert "looked at whole: leave --steps out" in said(capsys)


def test_damaged_angles_are_explained(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (runs / "cornn").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "alignment.jsonl").unlink()
    (tmp_path / "alignment.jsonl").write_text('{"step": 1, "lay')
    assert main(["diagnose", str(tmp_path), "--out", str(tmp_path / "seen")]) == 3
    assert "alignment.jsonl is damaged" in said(capsys)


@pytest.mark.parametrize(
    ("layer", "lowers", "sentence"),
    [
        (LayerAngle("a", 89.9, 1.0), True, "below 90 degrees: a short step of this layer lowers the loss"),
        (LayerAngle("a", 90.0, 1.0), False, "not below 90 degrees: a step does not lower the loss"),
        (LayerAngle("a", None, 0.0), None, "the rule leaves this layer as it is"),
        (LayerAngle("a", None, None), None, "backpropagation has nothing for this layer to learn"),
        (LayerAngle("a", None, math.nan), None, "not finite"),
    ],
)
def test_each_layer_has_its_sentence(layer: LayerAngle, lowers: bool | None, sentence: str) -> None:
    assert layer.lowers is lowers
    assert sentence in layer.sentence


def test_the_verdict_names_the_layers_that_are_led_astray() -> None:
    assert REPORT.verdict == (
        "A short step along the learning rule's update lowers the loss in 2 of 3 layers that it trains; in low it does "
        "not.",
    )
    better = replace(REPORT, layers=REPORT.layers[1:])
    assert better.verdict == (
        "A short step along the learning rule's update lowers the loss in all 2 layers that it trains.",
    )
    lost = replace(REPORT, layers=(LayerAngle("low", None, math.nan),))
    assert lost.verdict == ("The learning rule's update, or that of backpropagation, is not finite in low.",)


def test_what_is_not_a_number_is_plain_in_the_data() -> None:
    found = replace(REPORT, layers=(LayerAngle("low", None, math.inf),)).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["layers"][0]["ratio"] is None
    assert found["course"]["high"] == [120.0, None, 59.0]


def test_a_layer_that_never_had_an_angle_is_not_drawn() -> None:
    none = replace(REPORT, course={"low": (None, None, None)})
    assert pictures.alignment_picture(none) is None
    some = pictures.alignment_picture(replace(REPORT, course={**REPORT.course, "low": (None, None, None)}))
    assert some is not None
    assert "low from" not in some.alternative
    assert "high from 120 to 59" in some.alternative


def test_names_of_layers_are_not_read_as_html() -> None:
    layer = LayerAngle("<script>", 10.0, 1.0)
    given = Batch(torch.randn(6, 2, 2), torch.zeros(2))
    model = pendula.Model(pendula.ModelSpec(2, 1, (pendula.Node("Linear", 3),), pool="last"))
    report = RuleReport("<b>rule</b>", (layer,))
    text = page(examine(model, given, lambda y, _: y.square().mean(), learning=report))
    assert "<script" not in text
    assert "<b>rule" not in text


def test_training_ends_with_a_table_of_the_angles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, *KERNEL, "--train.align", "2", "--train.batch_size", "16", "--out", str(tmp_path / "run")]
    assert main(["train", *words]) == 0
    out = capsys.readouterr().out
    first, *_, last = json.loads((tmp_path / "run" / "result.json").read_text())["alignment"]
    assert (first["step"], last["step"]) == (1, 8)
    assert f"at step {first['step']}" in out
    assert f"at step {last['step']}" in out
    for name, found in last["layers"].items():
        row = next(line for line in out.splitlines() if line.split("│")[1:2] and line.split("│")[1].strip() == name)
        numbers = [f"{first['layers'][name]['degrees']:.1f}", f"{found['degrees']:.1f}", f"{found['ratio']:.3g}"]
        assert [cell.strip() for cell in row.split("│")[2:5]] == numbers


def test_training_without_align_has_no_such_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, *KERNEL, "--out", str(tmp_path / "run")]) == 0
    assert "angle" not in said(capsys)
