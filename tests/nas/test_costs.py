"""What a network costs, beside how well it does."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("optuna", reason="a search runs on Optuna")
pytest.importorskip("networkx", reason="graphs are drawn by networkx")

from pendula import Model, ModelSpec, Node
from pendula.nas.networks import latency, memory
from pendula.tasks import TASKS
from pendula.tasks.base import Task


def model(units: int) -> Model:
    torch.manual_seed(0)
    return Model(ModelSpec(2, 1, (Node("Elman", units),)))


def adding(length: int) -> Task:
    return TASKS["adding"](length=length, epoch_size=16, validation_size=16, test_size=16)


def test_memory_grows_with_the_steps_and_is_the_same_every_time() -> None:
    short, long = (memory(model(16), adding(length)) for length in (10, 40))
    assert memory(model(16), adding(10)) == short
    # a state of 16 numbers of 4 bytes is the least that each step keeps
    assert long - short >= 30 * 16 * 4


def test_memory_does_not_count_the_weights() -> None:
    few, many = (memory(model(units), adding(10)) for units in (40, 400))
    # the states grow as the units, the weights as their square
    assert many / few == pytest.approx(10, rel=0.2)


def test_latency_is_a_time() -> None:
    assert 0 < latency(model(4), adding(10)) < 60_000
