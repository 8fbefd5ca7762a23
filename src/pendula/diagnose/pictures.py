"""Portraits, gradients, spectra and angles as pictures for the page of a diagnosis."""

from __future__ import annotations

import math

from pendula.diagnose.alignment import RuleReport
from pendula.diagnose.drawing import (
    BLUE,
    COLOURS,
    GREEN,
    INK,
    ORANGE,
    RED,
    Picture,
    drawing,
    finished,
    plainly,
    positive,
)
from pendula.diagnose.gradients import GradientFlow
from pendula.diagnose.portraits import Portrait
from pendula.diagnose.spectrum import LayerSpectrum

# a bound that is far away would flatten what it bounds
FAR = 1e3
STYLES = ("-", "--", ":", "-.")


def gradient_picture(flow: GradientFlow) -> Picture:
    """|dLoss/dstate| against the lag, both logarithmic, with those of the rival."""
    with drawing(height=3.2) as (_, axes, made):
        for number, layer in enumerate(flow.layers):
            colour = COLOURS[number % len(COLOURS)]
            label = f"{layer.name} ({layer.network})"
            axes.plot(layer.lags, positive(layer.median), color=colour, label=plainly(label))
        for number, layer in enumerate(flow.rival.layers if flow.rival else ()):
            colour = COLOURS[(len(flow.layers) + number) % len(COLOURS)]
            label = f"{layer.name} (untrained {layer.network})"
            axes.plot(layer.lags, positive(layer.median), color=colour, linestyle="--", label=plainly(label))
        axes.set_xscale("symlog", linthresh=1)
        if any(math.isfinite(v) for layer in flow.layers for v in positive(layer.median)):
            axes.set_yscale("log")
        axes.set_xlabel("lag, steps before the end")
        axes.set_ylabel("|dLoss/dstate|, median")
        if len(flow.layers) <= 8:
            axes.legend()
    said = "; ".join(f"{layer.name}: {layer.verdict}, effective memory {layer.memory} steps" for layer in flow.layers)
    words = "Norm of the gradient of the loss in the state against the lag, median over the sequences"
    dashed = f"; dashed: an untrained {flow.rival.layers[0].network} of the same width" if flow.rival else ""
    return finished("gradients", made[0], f"{words}{dashed}.", f"{words}. {said}.")


def alignment_picture(report: RuleReport) -> Picture | None:
    """Angles over a training, a line for each layer."""
    lines = {layer: course for layer, course in report.course.items() if any(d is not None for d in course)}
    if not lines:
        return None
    rows = -(-len(lines) // 3)
    with drawing(height=2.6 + 0.2 * rows) as (figure, axes, made):
        for number, (layer, course) in enumerate(lines.items()):
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number // len(COLOURS) % len(STYLES)]}
            degrees = [math.nan if d is None else d for d in course]
            # of one measurement there is no line to see
            axes.plot(report.steps, degrees, marker="o", markersize=2.5, label=plainly(layer), **style)
        axes.axhline(90, color=INK, linewidth=0.8, linestyle=":")
        axes.set_ylim(bottom=-3)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("angle in degrees")
        figure.legend(loc="outside lower center", ncols=3)
    ends = {layer: [d for d in course if d is not None] for layer, course in lines.items()}
    said = ", ".join(f"{layer} from {seen[0]:.0f} to {seen[-1]:.0f}" for layer, seen in ends.items())
    words = "Angle between the rule's update and that of backpropagation during the training"
    limit = "Below the dotted line, at 90 degrees, a short step lowers the loss."
    return finished(
        "alignment", made[0], f"{words}, each on the batch of its step. {limit}", f"{words}: {said} degrees"
    )


def phase_picture(portrait: Portrait, name: str) -> Picture | None:
    """Position against velocity, or the first two principal components."""
    if not portrait.curves:
        return None
    side = math.ceil(len(portrait.curves) ** 0.5)
    with drawing(ncols=side, nrows=-(-len(portrait.curves) // side), height=3.4, squeeze=False) as drawn:
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
    return finished(name, made[0], f"{words}{chosen}. Circle: start; square: end.", f"{words}{chosen}")


def energy_picture(portrait: Portrait, name: str) -> Picture:
    """Energy over time, with the proven bound where one applies and is near enough to be drawn."""
    times = [min((k + 1) * portrait.stride, portrait.steps) for k in range(len(portrait.energy[0]))]
    largest = max((v for row in portrait.energy for v in row if math.isfinite(v)), default=math.nan)
    bound = portrait.bound
    near = bound is not None and bound[-1] < FAR * largest
    with drawing() as (_, axes, made):
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
    return finished(name, made[0], f"{what}{pooled}{limit}", f"{what}; the largest value is {largest:.3g}")


def raster_picture(portrait: Portrait, name: str) -> Picture:
    """Activity of the units over time."""
    largest = max((abs(v) for row in portrait.activity for v in row if math.isfinite(v)), default=0.0) or 1.0
    lowest = 0.0 if portrait.shown == "modulus" else -largest
    with drawing() as (figure, axes, made):
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
    return finished(name, made[0], f"{words}{pooled}.", f"{words}; the largest size is {largest:.3g}")


def gains_picture(layer: LayerSpectrum, name: str) -> Picture | None:
    """Singular values of the step Jacobian along the trajectory."""
    gains = layer.gains
    if gains is None:
        return None
    with drawing() as (_, axes, made):
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
    return finished(name, made[0], f"{words}.", f"{words}; they go {seen}")


def eigenvalue_picture(layer: LayerSpectrum, name: str) -> Picture | None:
    """The spectrum in the stability region of the scheme."""
    if not layer.linearisations:
        return None
    region = layer.region
    upper = list(region.boundary)
    edge = [*upper, *((x, -y) for x, y in reversed(upper))]
    with drawing(height=3.8) as (figure, axes, made):
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
    return finished(name, made[0], f"{what}, {layer.name}: {counts}.", f"{what} of {layer.name}: {counts}")


def exponent_picture(layer: LayerSpectrum, name: str) -> Picture | None:
    """The leading Lyapunov exponents, with their spread over the sequences."""
    found = layer.lyapunov
    shown = [
        (k + 1, v, s) for k, (v, s) in enumerate(zip(found.exponents, found.spread, strict=True)) if math.isfinite(v)
    ]
    if not shown:
        return None
    with drawing(height=2.4) as (_, axes, made):
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
    return finished(
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
