"""What `sm90.py` compiles: cases with limits of their own, and the options of every network's kernels together."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

BOTH = (False, True)


def empty(*shape: int) -> Tensor:
    return torch.empty(shape)


def irregular(steps: int, batch: int, spans: bool, lengths: bool) -> tuple[Tensor | None, Tensor | None]:
    return empty(steps, batch) if spans else None, torch.ones(batch, dtype=torch.int64) if lengths else None


def unicornn(
    steps: int = 130,
    batch: int = 8,
    units: int = 32,
    inputs: int = 32,
    memory: int = 0,
    *,
    spans: bool = False,
    lengths: bool = False,
    input: bool = True,
    shown: bool = True,
) -> None:
    from pendula.ops.gpu import unicornn as scan

    x, state, V = empty(steps, batch, inputs), empty(batch, units), empty(units, inputs)
    w, h, alpha, b = (empty(units) for _ in range(4))
    given = (x, state, state, w, h, alpha, V, b, *irregular(steps, batch, spans, lengths))
    outputs, y, z, kept = scan.forward(*given, memory, 64)
    seen, by_outputs = outputs if memory == 0 else empty(0), outputs if shown else None
    scan.backward(by_outputs, y, z, *given, seen, y, z, kept, memory, 64, input)


def cornn(
    steps: int = 130,
    batch: int = 5,
    units: int = 128,
    inputs: int = 9,
    products: int = 0,
    *,
    spans: bool = False,
    lengths: bool = False,
    implicit: bool = False,
    keep: bool = True,
    shown: bool = True,
    constants: bool = False,
    bias: bool = True,
) -> None:
    from pendula.ops.gpu import cornn as scan

    x, state, V = empty(steps, batch, inputs), empty(batch, units), empty(units, inputs)
    W, dt, seen = empty(units, units), empty(units), empty(steps, batch, units)
    given, physics = (x, state, state, W, W, V), (dt, dt, dt, *irregular(steps, batch, spans, lengths))
    scan.forward(*given, dt if bias else None, *physics, implicit, keep, products)
    if keep:
        by_outputs = seen if shown else None
        scan.backward(by_outputs, None, None, *given, *physics, seen, seen, seen, implicit, True, constants, products)


def lem(
    steps: int = 130,
    batch: int = 5,
    units: int = 128,
    inputs: int = 9,
    products: int = 0,
    *,
    spans: bool = False,
    lengths: bool = False,
    keep: bool = True,
    shown: bool = True,
    constants: bool = False,
) -> None:
    from pendula.ops.gpu import lem as scan

    x, state, V = empty(steps, batch, inputs), empty(batch, units), empty(4 * units, inputs)
    W, W_y, b, dt = empty(3 * units, units), empty(units, units), empty(4 * units), empty(units)
    given, steps_of = (x, state, state, W, W_y, V), (dt, *irregular(steps, batch, spans, lengths))
    outputs, _, _, gates, kept = scan.forward(*given, b, *steps_of, keep, products)
    if keep:
        by_outputs = outputs if shown else None
        scan.backward(by_outputs, None, None, *given, *steps_of, outputs, gates, kept, True, constants, products)


def linoss(
    steps: int = 785, batch: int = 5, units: int = 37, *, z: bool = False, y: bool = True, matrix: bool = True
) -> None:
    from pendula.ops.gpu import linoss as scan

    # as it lies in a drive
    force = empty(steps, batch, 5 * units)[..., 2 * units : 3 * units]
    state, M = empty(batch, units), empty(2, 3, units)
    seen_z, seen_y = scan.forward(force, M, state, state)
    by_z, by_y = seen_z if z else None, seen_y if y else None
    scan.backward(by_z, by_y, force, M, state, state, seen_z, seen_y, matrix)


def newton(
    steps: int = 130, batch: int = 8, units: int = 32, inputs: int = 2, *, spans: bool = False, lengths: bool = False
) -> None:
    from pendula.ops.gpu import newton as scan

    x, state, V = empty(steps, batch, inputs), empty(batch, units), empty(units, inputs)
    w, h, alpha, b = (empty(units) for _ in range(4))
    scan.solve(x, state, state, w, h, alpha, V, b, *irregular(steps, batch, spans, lengths))


everything: dict[str, Any] = {"spans": True, "lengths": True, "constants": True}
CASES: dict[str, Callable[[], None]] = {
    "cornn": lambda: cornn(784, 128, 128, 1, 0),
    "cornn-half": lambda: cornn(784, 128, 128, 1, 1),
    "cornn-bfloat16": lambda: cornn(784, 128, 128, 1, 2),
    "cornn-64": lambda: cornn(784, 128, 64, 9, 0),
    "cornn-lengths": lambda: cornn(lengths=True),
    "cornn-spans": lambda: cornn(spans=True),
    "cornn-irregular": lambda: cornn(units=100, implicit=True, **everything),
    "cornn-256": lambda: cornn(784, 128, 256, 1, 0),
    "cornn-512-half": lambda: cornn(784, 128, 512, 9, 1),
    "cornn-wide-irregular": lambda: cornn(units=500, implicit=True, **everything),
    "unicornn": lambda: unicornn(784, 128, 256, 256, 0),
    "unicornn-first-layer": lambda: unicornn(784, 128, 256, 1, 0, input=False),
    "unicornn-checkpoints": lambda: unicornn(1024, 128, 256, 256, 1),
    "unicornn-reversed-long": lambda: unicornn(1088, 8, 32, 32, 2),
    "unicornn-irregular": lambda: unicornn(spans=True, lengths=True),
    "unicornn-first-layer-irregular": lambda: unicornn(inputs=2, spans=True, lengths=True),
    "newton": lambda: newton(17984, 8, 32, 32),
    "newton-irregular": lambda: newton(spans=True, lengths=True),
    "lem": lambda: lem(784, 128, 128, 1, 0),
    "lem-half": lambda: lem(784, 128, 128, 1, 1),
    "lem-irregular": lambda: lem(units=100, **everything),
    "linoss": lambda: linoss(17984, 32, 64),
    "linoss-irregular": lambda: linoss(z=True),
}

NETWORKS: dict[str, tuple[Callable[..., None], dict[str, tuple[Any, ...]]]] = {
    "cornn": (
        cornn,
        {
            # with the weights in shared memory, and streamed
            "units": (128, 64, 1, 500),
            "products": (0, 1, 2),
            "inputs": (9, 1),
            **dict.fromkeys(("spans", "lengths", "implicit", "keep", "shown", "constants", "bias"), BOTH),
        },
    ),
    "lem": (
        lem,
        {
            "units": (128, 64, 1),
            "products": (0, 1, 2),
            **dict.fromkeys(("spans", "lengths", "keep", "shown", "constants"), BOTH),
        },
    ),
    "unicornn": (
        unicornn,
        {
            # whole chunks and others; few chains, and many
            "steps": (1024, 130),
            "units": (32, 8192),
            "inputs": (32, 2),
            "memory": (0, 1, 2),
            **dict.fromkeys(("spans", "lengths", "input", "shown"), BOTH),
        },
    ),
    "linoss": (
        linoss,
        {"steps": (17984, 785), "units": (37, 8192), **dict.fromkeys(("z", "y", "matrix"), BOTH)},
    ),
    "newton": (newton, dict.fromkeys(("spans", "lengths"), BOTH)),
}
"""Network -> what makes its launchers run, and the values of each option that is compiled for."""


def combinations(network: str) -> dict[str, Callable[[], None]]:
    """Every one: an hour of compiling for coRNN, minutes for the others."""
    _, options = NETWORKS[network]
    return _named(network, [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*options.values())])


def some(network: str) -> dict[str, Callable[[], None]]:
    """So many that any two options have met with all their values; the first values of each are together in one."""
    _, options = NETWORKS[network]
    every = [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*options.values())]
    missing = {pair for chosen in every for pair in _pairs(chosen)}
    found = []
    while missing:
        found.append(max(every, key=lambda chosen: len(missing.intersection(_pairs(chosen)))))
        missing.difference_update(_pairs(found[-1]))
    return _named(network, found)


def _pairs(chosen: dict[str, Any]) -> Iterator[Any]:
    return itertools.combinations(chosen.items(), 2)


def _named(network: str, chosen: list[dict[str, Any]]) -> dict[str, Callable[[], None]]:
    run, _ = NETWORKS[network]
    return {
        "-".join([network, *(f"{name}={value:d}" for name, value in c.items())]): functools.partial(run, **c)
        for c in chosen
    }
