"""Pictures of wirings: an SVG or a PNG of the three levels, the same for the same wiring."""

from __future__ import annotations

import builtins
from typing import Any
from xml.etree import ElementTree

import pytest

from pendula import DataError
from pendula.search.draw import picture
from pendula.search.graphs import Graph, watts_strogatz
from pendula.search.nago import Cell, Generator, Wiring, sample

WIRING = sample(Generator(5, 2, 0.5, 3, 0.5, 6, 4, 0.5), 1)
COUPLED = Wiring(Graph(1, ()), (Cell(0, Graph(1, ()), (watts_strogatz(40, 4, 0.5, seed=0),)),))
BARE = Wiring(Graph(1, ()), (Cell(0, Graph(1, ()), (Graph(1, ()),)),))


def words_of(svg: bytes) -> list[str]:
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


def test_a_picture_shows_every_cell_and_its_numbers_of_nodes_and_edges() -> None:
    words = words_of(picture(WIRING, title="a title"))
    assert {"a title", "cells", *(f"in cell {cell}" for cell in range(5))} <= set(words)
    for number, cell in enumerate(WIRING.cells):
        assert f"cell {number}, stage {cell.stage}" in words
    assert words.count("6 nodes, 12 edges") == 5


def test_a_graph_that_was_repaired_says_so() -> None:
    repaired = sample(Generator(5, 2, 0.5, 10, 0.1, 3, 2, 0.5), 0)
    assert repaired.repaired
    assert sum("(repaired)" in word for word in words_of(picture(repaired))) == repaired.repaired


def test_the_same_wiring_gives_the_same_file() -> None:
    assert picture(WIRING) == picture(WIRING)


@pytest.mark.parametrize("wiring", [WIRING, COUPLED, BARE], ids=["cells", "oscillators", "one layer"])
def test_a_png_is_a_png(wiring: Wiring) -> None:
    assert picture(wiring, kind="png").startswith(b"\x89PNG")


def test_a_crowd_is_drawn_without_numbers() -> None:
    words = words_of(picture(COUPLED))
    assert "40 nodes, 80 edges" in words
    assert "39" not in words


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(ValueError, match="kind must be one of svg, png, got 'gif'"):
        picture(WIRING, kind="gif")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match=r"pip install 'pendula\[train\]'"):
        picture(WIRING)
