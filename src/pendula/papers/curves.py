"""Learning curves as SVG, to stand inside a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pendula.papers.rows import Row

# Okabe and Ito's colours that are seen on white and on black, told apart by colour-blind readers too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("", "6 3", "2 3")
WIDTH, HEIGHT, LEFT, BOTTOM = 560, 260, 56, 36
MOST = 400


@dataclass(frozen=True)
class Plane:
    """Where a number of epochs and a height stand in the picture."""

    last: int
    low: float
    high: float

    def x(self, epoch: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 8) * (epoch - 1) / max(self.last - 1, 1), 1)

    def y(self, height: float) -> float:
        return round(8 + (HEIGHT - 8 - BOTTOM) * (self.high - height) / (self.high - self.low), 1)


def curves(rows: Sequence[Row]) -> str:
    """The validation metric by epoch of every run of some rows, a colour per row; empty where nothing was run.

    A loss stands on a logarithmic scale.
    """
    runs = [(number, result["history"]) for number, row in enumerate(rows) for result in row.results]
    if not runs:
        return ""
    key = "validation_accuracy" if "validation_accuracy" in runs[0][1][0] else "validation_loss"
    lines = [(n, [(line["epoch"], _height(line[key], key)) for line in history]) for n, history in runs]
    heights = [height for _, line in lines for _, height in line]
    low, high = min(heights), max(heights)
    low, high = (low - 0.05, high + 0.05) if high - low < 1e-9 else (low, high)
    plane = Plane(max(epoch for _, line in lines for epoch, _ in line), low, high)
    name = key.replace("_", " ")
    drawn = "".join(_line(plane, number, line) for number, line in lines)
    legend = "".join(
        f'<li><svg width="26" height="8" aria-hidden="true"><line x2="26" y1="4" y2="4" {_stroke(n)}/></svg> '
        f"{escape(rows[n].entry.method)}</li>"
        for n in dict.fromkeys(number for number, _ in runs)
    )
    return (
        f'<figure><figcaption>{name} by epoch</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{name} by epoch">{_axes(plane, key)}{drawn}</svg><ul class="legend">{legend}</ul></figure>'
    )


def _axes(plane: Plane, key: str) -> str:
    marks = []
    for step in range(5):
        height = plane.low + (plane.high - plane.low) * step / 4
        y = plane.y(height)
        marks += [
            f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y}" y2="{y}" class="grid"/>',
            f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_label(height, key)}</text>',
        ]
    marks += [
        f'<text x="{plane.x(epoch)}" y="{HEIGHT - 18}" text-anchor="middle">{epoch}</text>'
        for epoch in sorted({1, (1 + plane.last) // 2, plane.last})
    ]
    return "".join(marks) + f'<text x="{(LEFT + WIDTH) // 2}" y="{HEIGHT - 3}" text-anchor="middle">epoch</text>'


def _line(plane: Plane, number: int, line: Sequence[tuple[int, float]]) -> str:
    if len(line) == 1:
        ((epoch, height),) = line
        return f'<circle cx="{plane.x(epoch)}" cy="{plane.y(height)}" r="3" fill="{COLOURS[number % len(COLOURS)]}"/>'
    points = " ".join(f"{plane.x(epoch)},{plane.y(height)}" for epoch, height in _thinned(line))
    return f'<polyline points="{points}" fill="none" {_stroke(number)}/>'


def _stroke(number: int) -> str:
    dashes = DASHES[number // len(COLOURS) % len(DASHES)]
    return f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="1.6" stroke-dasharray="{dashes}"'


def _height(value: float, key: str) -> float:
    return value if key == "validation_accuracy" else math.log10(max(value, 1e-12))


def _label(y: float, key: str) -> str:
    return f"{y:.3g}" if key == "validation_accuracy" else f"{10**y:.1e}"


def _thinned(line: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """Not more points than can be seen; the last one stays."""
    step = -(-len(line) // MOST)
    return [*line[:-1:step], line[-1]]
