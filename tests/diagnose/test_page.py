"""The page of `pendula diagnose`: what it says, and how it looks in a real browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pendula
from pendula.cli import main
from pendula.diagnose import Diagnosis, examine, pictures
from pendula.diagnose import page as pages
from pendula.diagnose.page import PICTURED, page
from pendula.nets.spec import ModelSpec, Node
from pendula.tasks.base import Batch
from tests.browser import chromium  # noqa: F401

DOCS = Path(__file__).parents[2] / "docs"
PARTS = ["certificates", "gradients", "spectrum", "portraits", "about"]
KINDS = ["phase", "energy", "activity", "gains", "eigenvalues", "exponents"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a coRNN that is strongly damped, on top of an LSTM: something holds, something does not apply."""
    folder = tmp_path_factory.mktemp("diagnosis")
    torch.manual_seed(2)
    damped = Node("CoRNN", 6, physics={"dt": 0.06, "gamma": 66.0, "epsilon": 15.0})
    pendula.save(pendula.Model(ModelSpec(2, 3, (Node("LSTM", 5), damped))), folder / "model")
    assert main(["diagnose", str(folder / "model"), "--steps", "60", "--out", str(folder / "out")]) == 0
    return folder / "out" / "diagnosis.html"


@pytest.fixture(scope="module")
def data(made: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((made.parent / "diagnosis.json").read_text())
    return read


@pytest.fixture
def found() -> Diagnosis:
    """A diagnosis whose page is not drawn."""
    given = Batch(torch.randn(12, 2, 2), torch.zeros(2))
    return examine(pendula.CoRNN(2, 4), given, lambda y, _: y[-1].square().mean(), compare=None)


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_figures", lambda drawn: f"[{len(drawn)} pictures]")
    monkeypatch.setattr(pictures, "gradient_picture", lambda flow: None)
    for name in ("of_layer", "of_spectrum"):
        monkeypatch.setattr(pictures, name, lambda thing, name: [])


def opened(browser: Any, page: Path, width: int) -> Any:
    # a window can't be narrower than 500 points, a telephone is
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())
    return browser


def test_the_python_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "diagnose.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert "hold" in capsys.readouterr().out
    assert names["html"].startswith("<!doctype html>")
    assert names["data"]["certificates"]


@pytest.mark.parametrize("width", [1200, 360])
def test_nothing_scrolls_sideways(chromium: Any, made: Path, width: int) -> None:  # noqa: F811
    browser = opened(chromium, made, width)
    assert browser.execute_script("return innerWidth") == width
    # what lies inside of a picture is cut off at its border
    wider = """const wide = e => e.scrollWidth > innerWidth || e.getBoundingClientRect().right > innerWidth + 1;
        const all = [...document.querySelectorAll('body, body *')].filter(e => !e.ownerSVGElement);
        return all.filter(wide).map(e => e.outerHTML)"""
    assert browser.execute_script(wider) == []


@pytest.mark.parametrize("width", [1200, 360])
def test_the_pictures_are_seen(chromium: Any, made: Path, width: int) -> None:  # noqa: F811
    browser = opened(chromium, made, width)
    drawn = browser.find_elements("css selector", "figure > svg")
    # of two layers, and one of the gradients of both
    assert len(drawn) == 2 * len(KINDS) + 1
    for picture in drawn:
        assert picture.is_displayed()
        assert picture.size["width"] > 0.7 * min(width, 500) - 40
        assert picture.size["height"] > 100
        assert picture.get_attribute("role") == "img"
        assert len(picture.get_attribute("aria-label")) > 20
    # what is drawn lies within the picture that is shown
    script = """return [...document.querySelectorAll('figure > svg')].map(s => {
        const all = s.getBoundingClientRect();
        return [...s.querySelectorAll('path, use, image, text')].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width && r.left < all.right && r.right > all.left && r.top < all.bottom && r.bottom > all.top;
        }).length})"""
    assert min(browser.execute_script(script)) > 10
    assert len(browser.find_elements("css selector", "figcaption")) == len(drawn)


def test_the_curve_of_the_gradients_falls_as_the_numbers_do(
    chromium: Any,  # noqa: F811
    made: Path,
    data: dict[str, Any],
) -> None:
    browser = opened(chromium, made, 1200)
    medians = data["gradients"]["layers"][1]["median"]
    assert medians[-1] < 1e-3 * medians[0]
    script = """const s = document.querySelector('#gradients figure > svg');
        const lines = [...s.querySelectorAll('path')].filter(p => getComputedStyle(p).stroke == 'rgb(213, 94, 0)');
        return lines.map(p => { const l = p.getTotalLength(), a = p.getPointAtLength(0), b = p.getPointAtLength(l);
            return [a.x, a.y, b.x, b.y, l] })"""
    # the other one is the sample in the legend
    x0, y0, x1, y1, _ = max(browser.execute_script(script), key=lambda line: line[-1])
    assert x1 > x0 + 100
    assert y1 > y0 + 20


def test_the_verdict_is_read_first_and_is_that_of_the_data(
    chromium: Any,  # noqa: F811
    made: Path,
    data: dict[str, Any],
) -> None:
    browser = opened(chromium, made, 360)
    verdict = browser.find_element("id", "verdict")
    assert verdict.text.split("\n") == data["verdict"]
    assert verdict.rect["y"] < 400
    subject = browser.find_element("id", "subject").text
    assert "LSTM of 5 units, CoRNN of 6 units, on 8 sequences of noise" in subject
    assert "noise" in browser.find_element("css selector", ".note").text


def test_certificates_stand_in_a_table_for_each_layer(
    chromium: Any,  # noqa: F811
    made: Path,
    data: dict[str, Any],
) -> None:
    browser = opened(chromium, made, 1200)
    tables = browser.find_elements("css selector", "#certificates table")
    places = list(dict.fromkeys(c["where"] for c in data["certificates"]))
    heads = browser.find_elements("css selector", "#certificates h3")
    assert [h.text for h in heads] == places == ["layer0", "layer1"]
    rows = [row for table in tables for row in table.find_elements("css selector", "tbody tr")]
    assert len(rows) == len(data["certificates"])
    for row, certificate in zip(rows, data["certificates"], strict=True):
        cells = [cell.text for cell in row.find_elements("css selector", "td")]
        assert cells[0].split("\n")[0] == certificate["name"]
        assert cells[1] == certificate["verdict"]
        why = certificate["why_not"] or certificate["condition"]
        assert " ".join(why.removeprefix("does not apply: ").split()) in " ".join(cells[-1].split())
    assert {c["verdict"] for c in data["certificates"]} == {"holds", "does not apply"}


def test_advice_is_read_in_sentences(chromium: Any, made: Path, data: dict[str, Any]) -> None:  # noqa: F811
    browser = opened(chromium, made, 1200)
    advice = browser.find_elements("css selector", "#advice li")
    assert len(advice) == len(data["advice"]) > 0
    for shown, given in zip(advice, data["advice"], strict=True):
        assert given["what"] in shown.text
        assert given["source"] in shown.text
    for sentence in [layer["sentence"] for layer in data["gradients"]["layers"]]:
        assert sentence in browser.find_element("id", "gradients").text
    for layer in data["spectrum"]:
        assert layer["parallel"]["sentence"] in browser.find_element("id", "spectrum").text


def test_each_part_can_be_closed_and_opened(chromium: Any, made: Path) -> None:  # noqa: F811
    browser = opened(chromium, made, 360)
    for name in PARTS:
        part = browser.find_element("id", name)
        inside = part.find_element("css selector", "summary ~ *")
        assert inside.is_displayed()
        part.find_element("css selector", "summary").click()
        assert not inside.is_displayed()
        part.find_element("css selector", "summary").click()
        assert inside.is_displayed()


def test_dark_mode_changes_paper_and_ink_of_page_and_pictures(chromium: Any, made: Path) -> None:  # noqa: F811
    browser = opened(chromium, made, 1200)
    seen = []
    for scheme in ("light", "dark"):
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        script = """const text = document.querySelector('#gradients figure svg text');
            const body = getComputedStyle(document.body);
            return [body.backgroundColor, body.color, getComputedStyle(text).fill,
                getComputedStyle(document.querySelector('td.holds')).color]"""
        seen.append([sum(map(int, c[4:-1].split(","))) for c in browser.execute_script(script)])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    light, dark = seen
    assert all(light[0] > ink + 300 for ink in light[1:])
    assert all(dark[0] < ink - 300 for ink in dark[1:])


def test_it_loads_nothing_and_complains_of_nothing(chromium: Any, made: Path) -> None:  # noqa: F811
    chromium.get_log("performance")
    chromium.get_log("browser")
    browser = opened(chromium, made, 1200)
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    # the activity of the units is a picture of points, written out within the page
    assert {url for url in asked if not url.startswith("data:image/png")} == {made.as_uri()}
    assert browser.get_log("browser") == []


@pytest.mark.usefixtures("_undrawn")
def test_a_broken_bound_is_called_broken(found: Diagnosis) -> None:
    first, *others = found.certificates
    assert first.holds
    broken = replace(found, certificates=[replace(first, holds=False), *others])
    applying = sum(c.applies for c in found.certificates)
    sentence = f"1 of the {applying} proven statements that apply is broken: {first.name} (layer)."
    assert broken.verdict[0] == sentence
    text = page(broken)
    assert '<td class="broken">broken</td>' in text
    assert '<section id="verdict" class=broken>' in text
    assert "class=broken" not in page(found)


@pytest.mark.usefixtures("_undrawn")
def test_what_does_not_apply_is_never_counted_as_holding(found: Diagnosis) -> None:
    declined = [replace(c, applies=False, holds=None, why_not="does not apply: it fails") for c in found.certificates]
    none = replace(found, certificates=declined)
    assert none.verdict[0].startswith("No proven statement applies to this network")
    text = page(none)
    assert 'class="holds"' not in text
    assert text.count(">does not apply</td>") == len(declined)
    mixed = replace(found, certificates=[found.certificates[0], *declined[1:]])
    assert mixed.verdict[:2] == (
        "The one proven statement that applies holds.",
        f"{len(declined) - 1} more do not apply, which is no pass: the table says why.",
    )


@pytest.mark.usefixtures("_undrawn")
def test_words_of_the_user_are_not_read_as_html(found: Diagnosis) -> None:
    text = page(replace(found, about={"run": "<script>alert(1)</script>", "batch": "a & b"}, notes=["<b>note</b>"]))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "a &amp; b" in text
    assert "&lt;b&gt;note" in text


def test_a_deep_network_is_pictured_from_its_first_to_its_last_layer(
    found: Diagnosis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "gradient_picture", lambda flow: pictures.Picture("g", "", "", ""))
    monkeypatch.setattr(pictures, "of_layer", lambda layer, name: [pictures.Picture(name, name, "", "")])
    monkeypatch.setattr(pictures, "of_spectrum", lambda layer, name: [pictures.Picture(name, name, "", "")])
    text = page(replace(found, spectrum=20 * list(found.spectrum), portraits=20 * list(found.portraits)))
    for kind in ("spectrum", "portrait"):
        drawn = [int(n) for n in re.findall(rf"<figure>{kind}(\d+)", text)]
        assert len(drawn) == PICTURED
        assert (drawn[0], drawn[-1]) == (0, 19)
    assert f"Pictures of {PICTURED} of 20 layers and directions; diagnosis.json has all." in text


def test_the_whole_diagnosis_is_plain_data(found: Diagnosis) -> None:
    data = found.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["verdict"] == list(found.verdict)
    assert len(data["certificates"]) == len(found.certificates)
