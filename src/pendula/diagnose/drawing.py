"""A figure as an SVG that stands inside a page, in the page's own ink, light or dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's colours that are seen on white and on black, told apart by colour-blind readers too
BLUE, RED, GREEN, PINK, ORANGE, SKY = COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# drawn in this, and then made the colour of the text around the picture
INK = "#010203"
WIDTH, HEIGHT = 4.8, 2.7


@dataclass(frozen=True)
class Picture:
    """An SVG element; the caption says what is drawn, the alternative text what is to be seen."""

    name: str
    svg: str
    caption: str
    alternative: str


@contextmanager
def drawing(height: float = HEIGHT, **subplots: Any) -> Iterator[tuple[Any, Any, list[str]]]:
    """A figure, its axes, and a list that gets the SVG when the block ends."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'pendula[train]'") from error
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    style: dict[Any, Any] = {
        **dict.fromkeys(inked, INK),
        "svg.fonttype": "none",
        # names of clipping paths are the same each time
        "svg.hashsalt": "pendula",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.4,
    }
    made: list[str] = []
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(**subplots), made
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        made.append(text.getvalue())


def finished(name: str, svg: str, caption: str, alternative: str) -> Picture:
    """The SVG element alone, with ids of its own and nothing that would act on the page around it."""
    from html import escape

    svg = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="|xlink:href="#|url\(#', lambda found: f"{found[0]}{name}-", svg)
    head = f'<svg role="img" aria-label="{escape(alternative)}"'
    return Picture(name, svg.replace("<svg", head, 1).replace(INK, "currentColor").strip(), caption, alternative)


def plainly(words: str) -> str:
    """Words in which matplotlib sees no formula."""
    return words.replace("$", r"\$")


def positive(values: Sequence[float]) -> list[float]:
    """What a logarithm can be taken of; gaps elsewhere."""
    return [v if v > 0 and math.isfinite(v) else math.nan for v in values]
