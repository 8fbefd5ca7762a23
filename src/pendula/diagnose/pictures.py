"""Portraits, gradients and spectra as SVG that stands inside a page, in the page's own ink, light or dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pendula.diagnose.gradients import GradientFlow
from pendula.diagnose.portraits import Portrait
from pendula.diagnose.spectrum import LayerSpectrum

# Okabe and Ito's colours that are seen on white and on black, told apart by colour-blind readers too
BLUE, RED, GREEN, PINK, ORANGE, SKY = COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# drawn in this, and then made the colour of the text around the picture
INK = "#010203"
WIDTH, HEIGHT = 4.8, 2.7
# a bound that is far away would flatten what it bounds
FAR = 1e3


@dataclass(frozen=True)
class Picture:
    """An SVG element; the caption says what is drawn, the alternative text what is to be seen."""

    name: str
    svg: str
    caption: str
    alternative: str


@contextmanager
def _drawing(height: float = HEIGHT, **subplots: Any) -> Iterator[tuple[Any, Any, list[str]]]:
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


def _picture(name: str, svg: str, caption: str, alternative: str) -> Picture:
    """The SVG element alone, with ids of its own and nothing that would act on the page around it."""
    from html import escape

    svg = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="|xlink:href="#|url\(#', lambda found: f"{found[0]}{name}-", svg)
    head = f'<svg role="img" aria-label="{escape(alternative)}"'
    return Picture(name, svg.replace("<svg", head, 1).replace(INK, "currentColor").strip(), caption, alternative)


def gradient_picture(flow: GradientFlow) -> Picture:
    """|dLoss/dstate| against the lag, both logarithmic, with those of the rival."""
    with _drawing(height=3.2) as (_, axes, made):
        for number, layer in enumerate(flow.layers):
            colour = COLOURS[number % len(COLOURS)]
            label = f"{layer.name} ({layer.network})"
            axes.plot(layer.lags, _positive(layer.median), color=colour, label=_plainly(label))
        for number, layer in enumerate(flow.rival.layers if flow.rival else ()):
            colour = COLOURS[(len(flow.layers) + number) % len(COLOURS)]
            label = f"{layer.name} (untrained {layer.network})"
            axes.plot(layer.lags, _positive(layer.median), color=colour, linestyle="--", label=_plainly(label))
        axes.set_xscale("symlog", linthresh=1)
        if any(math.isfinite(v) for layer in flow.layers for v in _positive(layer.median)):
            axes.set_yscale("log")
        axes.set_xlabel("lag, steps before the end")
        axes.set_ylabel("|dLoss/dstate|, median")
        if len(flow.layers) <= 8:
            axes.legend()
    said = "; ".join(f"{layer.name}: {layer.verdict}, effective memory {layer.memory} steps" for layer in flow.layers)
    words = "Norm of the gradient of the loss in the state against the lag, median over the sequences"
    dashed = f"; dashed: an untrained {flow.rival.layers[0].network} of the same width" if flow.rival else ""
    return _picture("gradients", made[0], f"{words}{dashed}.", f"{words}. {said}.")


def phase_picture(portrait: Portrait, name: str) -> Picture | None:
    """Position against velocity, or the first two principal components."""
    if not portrait.curves:
        return None
    side = math.ceil(len(portrait.curves) ** 0.5)
    with _drawing(ncols=side, nrows=-(-len(portrait.curves) // side), height=3.4, squeeze=False) as drawn:
        figure, panels, made = drawn
        for axes, colour, (label, across, up) in zip(panels.flat, COLOURS, portrait.curves, strict=False):
            axes.plot(across, up, color=colour, linewidth=0.9)
            axes.plot(across[0], up[0], "o", color=INK, markersize=4, fillstyle="none")
            axes.plot(across[-1], up[-1], "s", color=INK, markersize=4)
            axes.locator_params(nbins=4)
            if len(portrait.curves) > 1:
                axes.set_title(label, fontsize=8)
        figure.supxlabel(portrait.axes[0], fontsize=9)
        figure.supylabel(portrait.axes[1], fontsize=9)
    window = f"the first {portrait.window} of {portrait.steps} steps" * (portrait.window < portrait.steps)
    window = window or f"{portrait.steps} steps"
    words = f"Phase portrait of {portrait.name} over {window}: {portrait.axes[1]} against {portrait.axes[0]}"
    units = ", ".join(label for label, _, _ in portrait.curves)
    chosen = f" of the units that move most ({units})" * (len(portrait.curves) > 1)
    return _picture(name, made[0], f"{words}{chosen}. Circle: start; square: end.", f"{words}{chosen}")


def energy_picture(portrait: Portrait, name: str) -> Picture:
    """Energy over time, with the proven bound where one applies and is near enough to be drawn."""
    times = [min((k + 1) * portrait.stride, portrait.steps) for k in range(len(portrait.energy[0]))]
    largest = max((v for row in portrait.energy for v in row if math.isfinite(v)), default=math.nan)
    bound = portrait.bound
    near = bound is not None and bound[-1] < FAR * largest
    with _drawing() as (_, axes, made):
        for number, row in enumerate(portrait.energy):
            axes.plot(times, row, color=COLOURS[number % len(COLOURS)], label=f"sequence {number + 1}")
        if near:
            axes.plot(times, bound, color=INK, linestyle="--", label="proven bound")
            if bound is not None and bound[-1] > 5 * largest > 0:
                axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("energy" if "norm" not in portrait.measure else "|state|^2")
        axes.legend()
    what = f"Energy of {portrait.name} over time: {portrait.measure}"
    pooled = f", the largest of each {portrait.stride} steps" * (portrait.stride > 1)
    limit = "." if bound is None else f". The proven bound is {bound[-1]:.3g} at the end" + "." * near
    limit += "" if near or bound is None else ", too far away to be drawn."
    return _picture(name, made[0], f"{what}{pooled}{limit}", f"{what}; the largest value is {largest:.3g}")


def raster_picture(portrait: Portrait, name: str) -> Picture:
    """Activity of the units over time."""
    largest = max((abs(v) for row in portrait.activity for v in row if math.isfinite(v)), default=0.0) or 1.0
    lowest = 0.0 if portrait.shown == "modulus" else -largest
    with _drawing() as (figure, axes, made):
        image = axes.imshow(
            portrait.activity,
            aspect="auto",
            interpolation="nearest",
            # one hue for each sign, white for rest; of a modulus the upper half
            cmap="PuOr" if lowest else "cividis",
            vmin=lowest,
            vmax=largest,
            extent=(0, portrait.steps, len(portrait.units) - 0.5, -0.5),
        )
        axes.grid(visible=False)
        axes.locator_params("x", nbins=6)
        axes.set_xlabel("step")
        axes.set_ylabel("unit")
        marks = range(0, len(portrait.units), max(1, len(portrait.units) // 8))
        axes.set_yticks(list(marks), [str(portrait.units[k]) for k in marks])
        figure.colorbar(image, ax=axes, label=portrait.shown)
    pooled = f", of each {portrait.stride} steps the value farthest from zero" * (portrait.stride > 1)
    words = f"Activity of {portrait.name}: {portrait.shown} of {len(portrait.units)} units over {portrait.steps} steps"
    return _picture(name, made[0], f"{words}{pooled}.", f"{words}; the largest size is {largest:.3g}")


def gains_picture(layer: LayerSpectrum, name: str) -> Picture | None:
    """Singular values of the step Jacobian along the trajectory."""
    gains = layer.gains
    if gains is None:
        return None
    with _drawing() as (_, axes, made):
        rows = (
            (gains.largest, "largest", RED, "o-"),
            (gains.median, "median", BLUE, "s-"),
            (gains.smallest, "smallest", GREEN, "^-"),
        )
        for values, label, colour, line in rows:
            axes.plot([t + 1 for t in gains.times], values, line, color=colour, label=label, markersize=3.5)
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        finite = [v for v in gains.largest if math.isfinite(v)]
        if finite and max(finite) > 20 * max(min(gains.smallest), 1e-300):
            axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_xlabel("step")
        axes.set_ylabel("singular value")
        axes.legend()
    words = f"Singular values of the step Jacobian of {layer.name} along the trajectory: above 1 a step stretches"
    seen = f"from {min(gains.smallest):.3g} to {max(gains.largest):.3g}"
    return _picture(name, made[0], f"{words}.", f"{words}; they go {seen}")


def eigenvalue_picture(layer: LayerSpectrum, name: str) -> Picture | None:
    """The spectrum in the stability region of the scheme."""
    if not layer.linearisations:
        return None
    region = layer.region
    upper = list(region.boundary)
    edge = [*upper, *((x, -y) for x, y in reversed(upper))]
    with _drawing(height=3.8) as (figure, axes, made):
        axes.fill([x for x, _ in edge], [y for _, y in edge], color=INK, alpha=0.09, linewidth=0)
        axes.plot([x for x, _ in edge], [y for _, y in edge], color=INK, linewidth=0.8)
        for line, mark, colour in zip(layer.linearisations, ("o", "x"), (BLUE, ORANGE), strict=False):
            for inside, shade, words in ((True, colour, ""), (False, RED, ", outside")):
                at = [point for point, own in zip(line.points, line.inside, strict=True) if own is inside]
                if at:
                    axes.plot(
                        [x for x, _ in at],
                        [y for _, y in at],
                        mark,
                        color=shade,
                        fillstyle="none",
                        markersize=5 if mark == "o" else 4,
                        linestyle="",
                        label=f"{line.where}{words}",
                    )
        axes.set_aspect("equal")
        axes.set_xlabel("real part")
        axes.set_ylabel("imaginary part")
        figure.legend(loc="outside lower center")
    what = (
        "Eigenvalues of the step in the unit disc"
        if region.polynomial is None
        else (f"dt times the eigenvalues of the vector field in the stability region of {region.scheme}")
    )
    counts = ", ".join(
        f"{sum(not own for own in line.inside)} of {len(line.inside)} outside {line.where}"
        for line in layer.linearisations
    )
    return _picture(name, made[0], f"{what}, {layer.name}: {counts}.", f"{what} of {layer.name}: {counts}")


def exponent_picture(layer: LayerSpectrum, name: str) -> Picture | None:
    """The leading Lyapunov exponents, with their spread over the sequences."""
    found = layer.lyapunov
    shown = [
        (k + 1, v, s) for k, (v, s) in enumerate(zip(found.exponents, found.spread, strict=True)) if math.isfinite(v)
    ]
    if not shown:
        return None
    with _drawing(height=2.4) as (_, axes, made):
        number, value, spread = zip(*shown, strict=True)
        axes.axhspan(-found.tolerance, found.tolerance, color=INK, alpha=0.09, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.errorbar(number, value, yerr=spread, fmt="o", color=BLUE, capsize=3)
        axes.set_xticks(number)
        axes.set_xlabel("number")
        axes.set_ylabel("exponent per step")
    words = f"The first {len(shown)} Lyapunov exponents of {layer.name}, over {found.steps:.0f} steps"
    note = "Grey: what can't be told from zero."
    said = ", ".join(f"{v:+.3g}" for _, v, _ in shown)
    return _picture(
        name, made[0], f"{words}. Bars: spread over {found.sequences} sequences. {note}", f"{words}: {said}"
    )


def of_layer(portrait: Portrait, name: str) -> list[Picture]:
    """Phase portrait, energy and activity of one layer; `name` begins the ids."""
    drawn = (phase_picture(portrait, f"{name}-phase"), energy_picture(portrait, f"{name}-energy"))
    return [picture for picture in (*drawn, raster_picture(portrait, f"{name}-activity")) if picture is not None]


def of_spectrum(layer: LayerSpectrum, name: str) -> list[Picture]:
    """Singular values, eigenvalues and exponents of one layer; `name` begins the ids."""
    makers = ((gains_picture, "gains"), (eigenvalue_picture, "eigenvalues"), (exponent_picture, "exponents"))
    drawn = (make(layer, f"{name}-{kind}") for make, kind in makers)
    return [picture for picture in drawn if picture is not None]


def _plainly(words: str) -> str:
    """Words in which matplotlib sees no formula."""
    return words.replace("$", r"\$")


def _positive(values: Sequence[float]) -> list[float]:
    """What a logarithm can be taken of; gaps elsewhere."""
    return [v if v > 0 and math.isfinite(v) else math.nan for v in values]
