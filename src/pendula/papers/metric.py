"""The metrics of published tables, computed from what a run measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """How a number of a table comes from a run's result, and how it is written.

    value: of (measured on the test part, the task's baseline); more_is_better; unit: behind the number; digits.
    """

    name: str
    value: Callable[[Mapping[str, float], float | None], float]
    more_is_better: bool
    format: str

    def __call__(self, result: Mapping[str, Any]) -> float:
        return self.value(result["test"], result.get("baseline"))

    def write(self, number: float) -> str:
        """The number as a table prints it.

        >>> METRICS["accuracy"].write(0.972)
        '97.2%'
        """
        return self.format.format(number)


def _normalised(test: Mapping[str, float], baseline: float | None) -> float:
    if not baseline:
        raise ValueError("nrmse needs the baseline of the task: the variance of its targets")
    return math.sqrt(test["loss"] / baseline)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", lambda test, _: test["accuracy"], True, "{:.1%}"),
        Metric("mse", lambda test, _: test["loss"], False, "{:.2g}"),
        Metric("rmse", lambda test, _: math.sqrt(test["loss"]), False, "{:.3g}"),
        Metric("nrmse", _normalised, False, "{:.2g}"),
        Metric("cross-entropy", lambda test, _: test["loss"], False, "{:.2g}"),
        Metric("nll", lambda test, _: test["loss"], False, "{:.2f}"),
        Metric("bits per character", lambda test, _: test["loss"] / math.log(2), False, "{:.3f}"),
    )
}
