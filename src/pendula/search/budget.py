"""What is drawn, and the size that a limit of parameters allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pendula.nets.spec import ModelSpec
from pendula.search.nago import Wiring


@dataclass(frozen=True)
class Drawn:
    """A network that was drawn.

    Args:
        spec: of the model.
        wiring: of its three levels.
        parameters: of the model, but for those that a coupling keeps at zero.
        stored: numbers that the model holds as parameters, with these zeros.
        scale: of an image network channels per unit (whole in the paper, here in steps of one channel of the widest
            stage); of a recurrent one units in a module per width.
    """

    spec: ModelSpec
    wiring: Wiring
    parameters: int
    stored: int
    scale: float


def largest(count: Callable[[int], int], limit: int, least: int) -> int:
    """The largest number from `least` on whose count is within the limit, by bisection; least - 1 if there is none.

    Args:
        count: never falls, and has no end.
        limit: of the count.
        least: positive.
    """
    low, high = least - 1, least
    while count(high) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= limit else (low, middle)
    return low
