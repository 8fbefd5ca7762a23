"""Every layer gives the numbers of a loop that was written without it; the page lists every row."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import pendula
from tests import independent
from tests.conformance.cases import CASES
from tests.conformance.measure import deviation, measure
from tests.conformance.page import COLUMNS, NOTICE, PAGE, listed, named, written
from tests.conformance.row import TOLERANCE, Case
from tests.independent.layers import LOOPS


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_layer_is_the_independent_loop(case: Case) -> None:
    assert measure(case, thorough=False).failures() == []


def test_every_network_has_a_row_and_a_loop() -> None:
    assert {case.network for case in CASES} == set(pendula.LAYERS)
    assert set(LOOPS) == set(pendula.LAYERS)


def test_no_row_stands_twice() -> None:
    assert len({named(case) for case in CASES}) == len(CASES)


def test_the_page_lists_exactly_these_rows() -> None:
    page = PAGE.read_text()
    assert page.startswith(NOTICE)
    assert listed(page) == [named(case) for case in CASES], "python -m tests.conformance writes it anew"
    assert "**" not in page.partition(COLUMNS)[2], "a row of the page failed"


def test_the_page_can_be_read_back() -> None:
    rows = [measure(case, thorough=False) for case in CASES[:2]]
    assert listed(written(rows)) == [named(case) for case in CASES[:2]]


@pytest.mark.parametrize("network", ["CoRNN", "LSTM"])
def test_a_wrong_layer_is_found(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.network == network)
    layer = case.layer()
    cell = type(layer.cells[0])
    right = cell.step

    def wrong(self: object, state: tuple[torch.Tensor, ...], *rest: object, **named: object) -> object:
        new = right(self, state, *rest, **named)
        return type(new)(*(s * (1 + 1e-11) for s in new))

    monkeypatch.setattr(cell, "step", wrong)
    assert deviation(case, layer, "reference", spans=False) > TOLERANCE


@pytest.mark.parametrize("module", ["oscillators", "rungekutta", "unitary", "quantum", "gated", "layers"])
def test_the_loops_know_nothing_of_the_package(module: str) -> None:
    path = Path(independent.__file__).parent / f"{module}.py"
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert not imported & {"pendula", "torch"}
