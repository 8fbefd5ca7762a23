"""Gradients against the time lag of one layer: what they mean, in one word and in sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from pendula.diagnose.plain import plain

# vanishing: at the longest lag, less than this share of the largest norm is left
FADED = 1e-3
# exploding: from half the longest lag to the longest the norm grows by more than this factor. A power of the lag, such
# as a stack of undamped oscillators has (spec sheet unicornn.md 4.7), grows by 2^p only
GROWN = 100.0
# half a unit in the last place of a float32: what is smaller is lost when it is added to a number of size one
LOST = 2.0**-24
# Adam divides by sqrt(v) + eps: gradients below eps make shorter steps than its learning rate says
ADAM_EPS = 1e-8
# times the smallest normal number: below it the products that make up a step back underflow, and what is left may stand
# still or vanish at once
UNDERFLOW = 1e4


@dataclass(frozen=True)
class LayerGradients:
    """The gradients of the states of one layer and direction.

    Attributes:
        name: where it stands in the model; network: its name in `pendula.CELLS`; state_size: S, numbers of a state.
        lags: steps that are still to come; at a sequence's own length it is the initial state.
        sequences: how many sequences are that long; mean, median: over these, of the norm over all S numbers.
        verdict: "steady", "vanishing", "exploding", "zero" or "not finite", read off the medians with `FADED` and
            `GROWN`; sentence: the same in words.
        slope: of the logarithm of the median, per step, by least squares over the lags; None without two that are
            finite and don't underflow.
        memory: effective memory in steps: the longest lag whose median is at least `FADED` times the largest.
        remains: the median at the longest lag as a share of the largest.
        underflow_from: the lag from which on every median is too small for the type of the weights (below `UNDERFLOW`
            times its smallest normal number); None where the last one is not.
        parameter: the largest gradient of a parameter of the cell, of the whole loss; None without trained parameters.
    """

    name: str
    network: str
    state_size: int
    lags: tuple[int, ...]
    sequences: tuple[int, ...]
    mean: tuple[float, ...]
    median: tuple[float, ...]
    verdict: str
    slope: float | None
    memory: int
    remains: float
    underflow_from: int | None
    parameter: float | None

    @property
    def reaches(self) -> bool:
        """Whether the effective memory is as long as the longest lag."""
        return self.memory == self.lags[-1]

    @property
    def sentence(self) -> str:
        return _in_words(self)

    def to_dict(self) -> dict[str, Any]:
        return {**plain(self), "sentence": self.sentence}


def judged(
    lags: tuple[int, ...], norms: Tensor, count: Tensor, *, loss: Tensor, parameter: float | None, **where: Any
) -> LayerGradients:
    """The verdict on norms (lags, B) of sequences of `count` (B,) steps, for a loss; `where`: the other attributes."""
    rows = [norm[count >= lag] for lag, norm in zip(lags, norms, strict=True)]
    mean, median = [float(r.mean()) for r in rows], [float(r.quantile(0.5)) for r in rows]
    # a state that has become NaN may send back zeros, so the loss is looked at as well
    finite = bool(loss.isfinite()) and all(map(math.isfinite, median))
    largest = max(median) if finite else math.nan
    memory = max((lag for lag, m in zip(lags, median, strict=True) if m >= FADED * largest), default=0)
    near = max((m for lag, m in zip(lags, median, strict=True) if 2 * lag <= lags[-1]), default=0.0)
    if not finite:
        verdict = "not finite"
    elif largest == 0:
        verdict, memory = "zero", 0
    elif median[-1] < FADED * largest:
        verdict = "vanishing"
    else:
        verdict = "exploding" if median[-1] > GROWN * near else "steady"
    floor = UNDERFLOW * torch.finfo(loss.dtype).tiny
    ended = next((i for i in range(len(lags)) if all(m < floor for m in median[i:])), None)
    return LayerGradients(
        **where,
        lags=lags,
        sequences=tuple(len(r) for r in rows),
        mean=tuple(mean),
        median=tuple(median),
        verdict=verdict,
        slope=_slope([(lag, m) for lag, m in zip(lags, median, strict=True) if floor <= m < math.inf]),
        memory=memory,
        remains=median[-1] / largest if largest else 0.0,
        underflow_from=None if ended is None else lags[ended],
        parameter=parameter,
    )


def _slope(known: list[tuple[int, float]]) -> float | None:
    if len(known) < 2:
        return None
    t, size = numpy.array(known, dtype=numpy.float64).T
    # the lags crowd at the short end; each point weighs as many steps as it stands for
    return float(numpy.polyfit(t, numpy.log(size), 1, w=numpy.sqrt(numpy.gradient(t)))[0])


def _in_words(g: LayerGradients) -> str:
    head = f"{g.name} ({g.network}): "
    longest, last = g.lags[-1], g.median[-1]
    if g.verdict == "not finite":
        first = next((lag for lag, m in zip(g.lags, g.median, strict=True) if not math.isfinite(m)), None)
        if first is None:
            return f"{head}not finite: the loss is not, so its gradients mean nothing."
        return f"{head}not finite: the gradient of the state overflows, at a lag of {first} steps for the first time."
    if g.verdict == "zero":
        return f"{head}zero: no gradient reaches the state at any lag."
    slope = "" if g.slope is None else f" ({g.slope:+.2g} in its logarithm per step)"
    left = f"{longest} steps back, {g.remains:.2g} of the largest gradient of the state is left{slope}."
    if g.verdict == "exploding":
        return f"{head}exploding: {longest} steps back the gradient of the state is {last:.2g}{slope}."
    if g.verdict == "steady":
        said = f"{head}steady: {left}"
    else:
        said = f"{head}vanishing: {left} Effective memory (down to {FADED:g}): {g.memory} steps."
        if g.underflow_from is not None:
            said += f" From {g.underflow_from} steps on it is too small for the type of the weights."
        if g.remains < LOST:
            small = f", and below Adam's eps of {ADAM_EPS:g} as well" if last < ADAM_EPS else ""
            said += f" That is lost in float32 when it is added to what the last steps give (below {LOST:.0e}){small}."
    if g.parameter is not None and g.parameter < ADAM_EPS:
        said += (
            f" The largest gradient of a parameter is {g.parameter:.2g}, below Adam's eps of {ADAM_EPS:g}, so its "
            "steps are shorter than its learning rate says."
        )
    return said
