"""Nothing is timed before its numbers are those of the reference."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pendula.bench.cases import GPU, Case

DOUBLE, SINGLE, LONG = 1e-12, 1e-4, 2e-3
"""Largest relative error, in the Euclidean norm of each tensor: float64 at a few steps; float32 at the size that is
timed; the same past 4096 steps, where float32 itself is off by some 5e-4, the reference too."""
LOOSE, LONG_ON_GPU = 1e-2, 1000
"""On a GPU: with products in half precision, where eager PyTorch's gradients are off by some 4e-3; and past so many
steps, where those of LinOSS in float32 differ by some 2e-3 between two orders of the sums."""


class Unequal(RuntimeError):
    """Two implementations of the same equations do not give the same numbers; the message says where."""


def errors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """The relative error of every tensor.

    >>> import torch
    >>> errors({"y": torch.tensor([3.0, 5.0])}, {"y": torch.tensor([3.0, 4.0])})
    {'y': 0.2}
    """
    if found.keys() != expected.keys():
        raise Unequal(f"gives {', '.join(found)} instead of {', '.join(expected)}")
    return {name: _error(found[name].double(), value.double()) for name, value in expected.items()}


def _error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        raise Unequal(f"gives a tensor {tuple(found.shape)} instead of {tuple(expected.shape)}")
    size = float(expected.norm())
    return float((found - expected).norm()) / (size if size > 0 else 1.0)


def require_equal(
    who: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float
) -> dict[str, float]:
    """The errors. Errors: `Unequal` where one is above the tolerance, or not a number."""
    try:
        measured = errors(found, expected)
    except Unequal as error:
        raise Unequal(f"{who} {error}") from error
    for name, value in measured.items():
        if not value <= tolerance:
            raise Unequal(f"{who} differs from the reference in {name} by {value:.2g} (at most {tolerance:.0e})")
    return measured


def tolerance(case: Case) -> float:
    """What is allowed in float32, at the size of the case."""
    if case.device == GPU:
        return SINGLE if case.autocast is None and case.steps <= LONG_ON_GPU else LOOSE
    return SINGLE if case.steps <= 4096 else LONG
