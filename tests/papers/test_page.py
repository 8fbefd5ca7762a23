"""The page of `pendula report`, opened in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest

from pendula.cli import main
from pendula.papers import find
from pendula.papers.reproduce import result_file
from tests.browser import chromium  # noqa: F401
from tests.papers.test_reproduce import result_of


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two measured entries: a whole run of three epochs and a stopped one of one epoch."""
    folder = tmp_path_factory.mktemp("report")
    for name, complete in (("cornn/har2", True), ("cornn/har2-lstm", False)):
        (entry,) = find([name])
        result = result_of(entry, 0.9, complete=complete, epochs=3 if complete else 1)
        line = result["history"][0]
        result["history"] = [line | {"epoch": n, "validation_accuracy": 0.5 + 0.1 * n} for n in range(1, 4)]
        if not complete:
            result["history"] = result["history"][:1]
        path = result_file(folder / "results", entry, 0)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(result))
    made = folder / "report.html"
    assert main(["report", "--results", str(folder / "results"), "--html", str(made)]) == 0
    return made


def opened(browser: Any, page: Path, width: int) -> Any:
    browser.set_window_size(width, 900)
    browser.get(page.as_uri())
    return browser


@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_is_drawn_whole_at_any_width(chromium: Any, page: Path, width: int) -> None:  # noqa: F811
    browser = opened(chromium, page, width)
    assert browser.title == "pendula: published and measured"
    rows = browser.find_elements("css selector", "tbody tr")
    assert len(rows) > 90
    # the page does not scroll sideways; wide tables do, in their own boxes
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert "97.2%" in browser.find_element("id", "cornn/har2").text
    assert "90.0%" in browser.find_element("id", "cornn/har2").text


def test_the_learning_curves_are_seen(chromium: Any, page: Path) -> None:  # noqa: F811
    browser = opened(chromium, page, 1200)
    (picture,) = browser.find_elements("css selector", "figure > svg")
    assert picture.size["width"] > 300
    assert picture.size["height"] > 100
    line = picture.find_element("css selector", "polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get_attribute("points").split()]
    # a rising accuracy rises on the screen, where y counts downwards
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    # the run of one epoch is a dot
    assert picture.find_elements("css selector", "circle")
    assert "coRNN" in browser.find_element("css selector", "ul.legend").text


def test_the_switch_leaves_what_was_run(chromium: Any, page: Path) -> None:  # noqa: F811
    browser = opened(chromium, page, 1200)
    browser.find_element("css selector", "label[for=measured]").click()
    shown = [row for row in browser.find_elements("css selector", "tbody tr") if row.is_displayed()]
    assert [row.get_attribute("id") for row in shown] == ["cornn/har2", "cornn/har2-lstm"]
    # one epoch of a hundred
    assert " 1% " in shown[1].text
    browser.find_element("css selector", "label[for=measured]").click()
    assert browser.find_element("id", "cornn/cifar").is_displayed()


def test_dark_mode_changes_paper_and_ink(chromium: Any, page: Path) -> None:  # noqa: F811
    browser = opened(chromium, page, 1200)
    colours = []
    for scheme in ("light", "dark"):
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        colours.append(browser.execute_script(script))
    light, dark = ([sum(map(int, c[4:-1].split(","))) for c in pair] for pair in colours)
    assert light[0] < light[1]
    assert dark[0] > dark[1]


def test_it_loads_nothing_and_complains_of_nothing(chromium: Any, page: Path) -> None:  # noqa: F811
    chromium.get_log("performance")
    browser = opened(chromium, page, 1200)
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    assert asked == {page.as_uri()}
    assert browser.get_log("browser") == []


def test_a_report_that_exists_is_not_overwritten_unasked(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = page.read_text()
    words = ["report", "--results", str(page.parent / "results"), "--html", str(page)]
    assert main(words) == 3
    assert "exists: give another name, or --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert page.read_text() == before
