"""A single step from Python, as a stream takes it: input (B, I), the state carried from step to step."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pendula.bench.cases import EAGER, GRU, LSTM, TORCHRECURRENT
from pendula.bench.contestants import OURS, Absent, Contestant, Problem
from pendula.cells.base import Cell

STEPS = 20
"""Steps from zero after which states are compared."""
STATE = ("y", "z")


def ours(problem: Problem) -> Contestant:
    """The layer's stream, which carries its state itself."""
    layer, x = problem.layer("fused"), problem.x[0]
    stream = layer.stream(problem.case.batch)

    def numbers() -> dict[str, Tensor]:
        fresh = layer.stream(problem.case.batch)
        for _ in range(STEPS):
            fresh(x)
        return {word: s[0] for word, s in zip(STATE, fresh.state, strict=True)}

    return Contestant(OURS, lambda: stream(x), numbers=numbers)


def layer(problem: Problem) -> Contestant:
    """The same by the layer's `step`, which takes a state, checks it and gives a new one."""
    made, x = problem.layer("fused"), problem.x[0]
    zero = torch.zeros(1, problem.case.batch, problem.case.units)
    return _carried(f"{OURS}, layer.step", lambda s: made.step(x, s)[1], made.cell_type.State(zero, zero), same=True)


def eager(problem: Problem) -> Contestant:
    """The cell alone: its drive and its step."""
    cell, x = problem.layer("reference").cells[0], problem.x[0]
    assert isinstance(cell, Cell)
    start = cell.initial_state(problem.case.batch)
    return _carried(EAGER, lambda s: cell.step(s, cell.drive(x)), start, same=True)


def lstm(problem: Problem) -> Contestant:
    """PyTorch's LSTM cell of the same width."""
    cell, zero = nn.LSTMCell(problem.case.inputs, problem.case.units), _zero(problem)
    return _carried(LSTM, lambda s: cell(problem.x[0], s), (zero, zero))


def gru(problem: Problem) -> Contestant:
    """PyTorch's GRU cell of the same width."""
    cell = nn.GRUCell(problem.case.inputs, problem.case.units)
    return _carried(GRU, lambda s: cell(problem.x[0], s), _zero(problem))


def torchrecurrent(problem: Problem) -> Contestant:
    """The cell of the torchrecurrent package, with weights of its own. Errors: `Absent` where it is not installed."""
    try:
        package = importlib.import_module("torchrecurrent")
    except ImportError as error:
        raise Absent("torchrecurrent is not installed: pip install 'pendula[bench]'") from error
    cell = package.coRNNCell(problem.case.inputs, problem.case.units, recurrent_bias=False, cell_bias=False)
    zero = _zero(problem)
    return _carried(TORCHRECURRENT, lambda s: cell(problem.x[0], s), (zero, zero))


def _zero(problem: Problem) -> Tensor:
    return torch.zeros(problem.case.batch, problem.case.units)


def _carried(name: str, step: Callable[[Any], Any], start: Any, *, same: bool = False) -> Contestant:
    state = start

    def forward() -> None:
        nonlocal state
        with torch.inference_mode():
            state = step(state)

    def numbers() -> dict[str, Tensor]:
        nonlocal state
        state = start
        for _ in range(STEPS):
            forward()
        # a layer's state has an axis of layers
        return {word: s.flatten(0, -2) for word, s in zip(STATE, state, strict=True)}

    return Contestant(name, forward, numbers=numbers if same else None)
