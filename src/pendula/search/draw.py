"""The three levels of a wiring as a picture."""

from __future__ import annotations

import io
import math
from typing import Any

from pendula._check import DataError, one_of
from pendula.search.graphs import Graph
from pendula.search.nago import Wiring

FORMATS = ("svg", "png")
# Okabe and Ito's colours, told apart by colour-blind readers; the stages also have their numbers
STAGES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
INK = "#444444"
COLUMN, ROW = 1.6, 1.3
CROWD = 14
"""More nodes than this are drawn around a circle, without numbers and roles."""


def picture(wiring: Wiring, *, kind: str = "svg", title: str = "") -> bytes:
    """A picture of a wiring: the top graph, the middle graph of each cell, and one graph of operations of each.

    Nodes stand in the order of their numbers, and every edge leads to the right; large graphs stand around a circle.
    Triangles read what enters the graph, squares are what leaves it, circles do neither; the colour is the stage.

    Args:
        wiring: what was drawn, of an image network or a recurrent one.
        kind: "svg" or "png".
        title: above the picture.

    Errors: DataError naming the extra when matplotlib is missing.
    """
    one_of("kind", kind, FORMATS)
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("pictures need matplotlib: pip install 'pendula[train]'") from error
    cells = wiring.cells
    bottoms = [_of_most(cell.bottoms) for cell in cells]
    rows = 2 + any(graph.size > 1 for graph in bottoms)
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "pendula", "font.size": 8}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(max(5.0, COLUMN * len(cells)), ROW * rows + 0.6), layout="constrained")
        grid = figure.add_gridspec(rows, len(cells))
        stages = [cell.stage for cell in cells]
        _graph(figure.add_subplot(grid[0, :]), wiring.top, [_colour(stage) for stage in stages], "cells")
        for column, (cell, bottom) in enumerate(zip(cells, bottoms, strict=True)):
            colour, place = _colour(cell.stage), f"cell {column}, stage {cell.stage}"
            _graph(figure.add_subplot(grid[1, column]), cell.middle, [colour] * cell.middle.size, place)
            if rows == 3:
                _graph(figure.add_subplot(grid[2, column]), bottom, [colour] * bottom.size, f"in cell {column}")
        figure.legend(handles=_roles(), loc="outside lower center", ncols=3, frameon=False)
        if title:
            figure.suptitle(title)
        file = io.BytesIO()
        # without a date, equal wirings give equal files
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def _graph(axes: Any, graph: Graph, colours: list[str], name: str) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    added = " (repaired)" if graph.repaired else ""
    axes.set_title(f"{name}\n{graph.size} nodes, {len(graph.edges)} edges{added}", fontsize=7, color=INK)
    axes.set_axis_off()
    crowded = graph.size > CROWD
    places = [_place(node, graph.size, crowded) for node in range(graph.size)]
    for low, high in graph.edges:
        (x, y), (to_x, to_y) = places[low], places[high]
        # an arc as high as it is long, every other one below the nodes
        high_at = 0.0 if high == low + 1 else (1 if (low + high) % 2 else -1) * 2 * (to_x - x)
        bend = (0.0, 0.0) if crowded else ((x + to_x) / 2, high_at)
        lines = [Path.MOVETO, Path.LINETO] if crowded else [Path.MOVETO, Path.CURVE3, Path.CURVE3]
        points = [(x, y), (to_x, to_y)] if crowded else [(x, y), bend, (to_x, to_y)]
        width = 0.2 if crowded else 0.8
        axes.add_patch(PathPatch(Path(points, lines), facecolor="none", edgecolor=INK, linewidth=width))
    for node, (x, y) in enumerate(places):
        marker = "o" if crowded else _marker(graph, node)
        axes.plot([x], [y], marker, color=colours[node], markersize=2.5 if crowded else 8)
        if not crowded:
            axes.annotate(str(node), (x, y), ha="center", va="center", fontsize=5, color="white")
    axes.set_xlim((-1.1, 1.1) if crowded else (-0.1, 1.1))
    axes.set_ylim(-1.15, 1.15)
    if crowded:
        axes.set_aspect("equal")


def _of_most(graphs: tuple[Graph, ...]) -> Graph:
    """The first of the largest graphs of a cell."""
    return max(graphs, key=lambda graph: graph.size, default=Graph(1, ()))


def _place(node: int, size: int, crowded: bool) -> tuple[float, float]:
    angle = 2 * math.pi * node / size
    return (math.cos(angle), math.sin(angle)) if crowded else (node / (size - 1) if size > 1 else 0.5, 0.0)


def _marker(graph: Graph, node: int) -> str:
    if node in graph.inputs:
        return ">"
    return "s" if node in graph.outputs else "o"


def _roles() -> list[Any]:
    from matplotlib.lines import Line2D

    named = {">": "reads what enters", "s": "leaves", "o": "inside"}
    return [
        Line2D([], [], marker=marker, color="none", markerfacecolor=INK, label=word) for marker, word in named.items()
    ]


def _colour(stage: int) -> str:
    return STAGES[stage % len(STAGES)]
