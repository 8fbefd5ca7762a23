"""Arguments are checked here, in one voice: what was got, what is needed, what to do."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor


class ShapeError(ValueError):
    """A tensor has the wrong rank or size."""


class BackendError(RuntimeError):
    """A fused scan was demanded that cannot run here; the message says why."""


class DataError(RuntimeError):
    """Data or a file is missing, damaged or of the wrong kind; the message says what to do."""


class StabilityWarning(UserWarning):
    """A published stability inequality fails for the numbers given."""


def positive_int(name: str, value: object, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")
    return int(value)


def at_least_zero(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number, at least 0, got {value!r}")
    return float(value)


def probability(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")
    return float(value)


def one_of(name: str, value: str, choices: Iterable[str]) -> str:
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}{did_you_mean(value, known)}")
    return value


def seconds_of(name: str, text: str) -> float:
    """A time in seconds from words such as "20m", "1h30m" or "90s".

    >>> seconds_of("budget", "1h30m")
    5400.0
    """
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0.0, 0.0, 0.0)
    except ValueError:
        hours = minutes = seconds = 0.0
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise ValueError(f"{name} must be a time such as 90s, 20m or 1h30m, got {text!r}")
    return total


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A tail for an error message: the nearest known name, or nothing."""
    names = list(known)
    same = [name for name in names if name.lower() == str(word).lower()]
    near = same or difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def per_unit(name: str, value: object, units: int, *, zero: bool = False) -> Tensor:
    """A positive number (or zero if allowed), or one for each unit, as a float64 tensor of shape () or (units,)."""
    try:
        values = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a number or one number per unit, got {value!r}") from error
    if values.shape not in ((), (units,)):
        raise ShapeError(
            f"{name} must be one number or one per unit, shape () or ({units},), got shape {tuple(values.shape)}"
        )
    if values.device.type != "meta" and not bool(
        ((values >= 0 if zero else values > 0) & torch.isfinite(values)).all()
    ):
        raise ValueError(f"{name} must be {'at least 0' if zero else 'positive'} and finite, got {value!r}")
    return values


def sequence_input(x: Tensor, features: int, weight: Tensor, *, layout: str = "time, batch") -> None:
    """x is (*layout, I), no size zero, of the type and on the device of the parameters."""
    if not isinstance(x, Tensor):
        raise TypeError(f"input must be a tensor, got {type(x).__name__}: convert with torch.as_tensor(input)")
    if x.dim() != layout.count(",") + 2 or x.shape[-1] != features:
        raise ShapeError(f"input must be ({layout}, {features}), got {tuple(x.shape)}")
    same_kind("input", x, weight)
    if 0 in x.shape:
        raise ShapeError(
            f"input must have at least one time step and one sequence, got ({layout}, I) = {tuple(x.shape)}"
        )


def same_kind(name: str, x: Tensor, weight: Tensor) -> None:
    """x has the floating type and the device of the parameters (any floating type under autocast)."""
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}: call {name}.to({weight.dtype})")
    if x.device != weight.device:
        raise ValueError(f"{name} is on {x.device}, the parameters are on {weight.device}: move one of them with .to()")
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(weight.device.type):
        raise TypeError(f"{name} is {x.dtype}, the parameters are {weight.dtype}: convert one of them with .to()")


def lengths_of(lengths: object, steps: int, batch: int, device: torch.device) -> Tensor:
    """One length per sequence, 1 to T, as an int64 tensor (B,) on the device of the input."""
    values = torch.as_tensor(lengths)
    if values.shape != (batch,):
        raise ShapeError(f"lengths must hold one number per sequence, shape ({batch},), got {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"lengths must be whole numbers, got {values.dtype}")
    if torch.compiler.is_compiling():
        torch._assert_async(((values >= 1) & (values <= steps)).all(), "lengths must be from 1 to the padded length")
        return values.to(device=device, dtype=torch.int64)
    low, high = int(values.min()), int(values.max())
    if low < 1 or high > steps:
        raise ValueError(
            f"lengths must be from 1 to {steps} (the padded length of the input), got {low} to {high}: "
            "drop empty sequences, and pad the input to the longest"
        )
    return values.to(device=device, dtype=torch.int64)


def timespans_of(timespans: object, steps: int, batch: int, like: Tensor, *, batch_first: bool = False) -> Tensor:
    """(T, B) of positive numbers in the type of the parameters; from (B, T) with batch_first, trailing 1 allowed."""
    spans = torch.as_tensor(timespans, dtype=like.dtype, device=like.device)
    given = tuple(spans.shape)
    if spans.dim() == 3 and spans.shape[2] == 1:
        spans = spans.squeeze(2)
    if batch_first and spans.dim() == 2:
        spans = spans.transpose(0, 1)
    if spans.shape != (steps, batch):
        needed = (batch, steps) if batch_first else (steps, batch)
        raise ShapeError(f"timespans must hold one number per step and sequence, shape {needed}, got {given}")
    return spans


def positive_timespans(spans: Tensor, valid: Tensor | None) -> None:
    bad = ~((spans > 0) & torch.isfinite(spans))
    if valid is not None:
        bad &= valid
    if torch.compiler.is_compiling():
        torch._assert_async(~bad.any(), "timespans must be positive and finite")
        return
    if bool(bad.any()):
        step, sequence = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"timespans must be positive and finite, got {float(spans[step, sequence])} at step {step} of sequence "
            f"{sequence}: merge samples that share a time stamp"
        )


def known_keys(where: str, given: Iterable[str], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            has = f"it has: {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{where} has no {key!r}{did_you_mean(key, known)}; {has}")


def finite_number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def between(name: str, value: float, low: float, high: float) -> float:
    """A number from low to high, both included; high may be infinite."""
    number = finite_number(name, value)
    if not low <= number <= high:
        needed = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be {needed}, got {value!r}")
    return number
