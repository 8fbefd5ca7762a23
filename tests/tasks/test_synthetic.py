"""Adding and copying (spec sheets cornn.md 5.2, urnn.md 7.1 and U12)."""

from __future__ import annotations

import pytest
import torch

from pendula.tasks.base import Task
from pendula.tasks.synthetic import Adding, Copying


def test_adding_has_the_published_baseline_of_one_sixth() -> None:
    task = Adding(length=20)
    y = task.rows("train", torch.arange(100_000), 0, 0).y.double()
    # the sheet's tolerance: three standard errors, 0.1972 / sqrt(n) each
    assert float(y.var()) == pytest.approx(0.1667, abs=0.002)
    assert task.baseline == 1 / 6


def test_adding_marks_one_value_in_each_half_and_asks_for_their_sum() -> None:
    batch = Adding(length=51).rows("train", torch.arange(300), 4, 0)
    values, marks = batch.x.unbind(2)
    assert torch.equal(marks[:25].sum(0), torch.ones(300))
    assert torch.equal(marks[25:].sum(0), torch.ones(300))
    assert torch.allclose((values * marks).sum(0, keepdim=True).T, batch.y)


def test_adding_reaches_every_place_of_both_halves() -> None:
    marks = Adding(length=7).rows("train", torch.arange(500), 0, 0).x[:, :, 1]
    assert bool((marks.sum(1) > 0).all())


def test_copying_has_the_published_layout_at_a_delay_of_100() -> None:
    batch = Copying(delay=100).rows("train", torch.arange(8), 0, 0)
    tokens = batch.x.argmax(-1)
    assert batch.x.shape == (120, 8, 10)
    assert bool((tokens[109] == 9).all())
    assert int((tokens == 9).sum()) == 8
    assert int(tokens[10:109].abs().sum() + tokens[110:].abs().sum()) == 0
    assert int(batch.y[:110].abs().sum()) == 0
    assert torch.equal(batch.y[110:], tokens[:10])


def test_copying_uses_all_eight_symbols() -> None:
    batch = Copying(delay=5).rows("train", torch.arange(100), 0, 0)
    assert batch.y[-10:].unique().tolist() == list(range(1, 9))


@pytest.mark.parametrize(
    ("delay", "loss"),
    [(100, 0.173286795), (200, 0.094520070), (300, 0.064982548), (500, 0.039989260), (1000, 0.020386682)],
)
def test_copying_has_the_published_baseline(delay: int, loss: float) -> None:
    assert Copying(delay=delay).baseline == pytest.approx(loss, abs=5e-10)


def test_the_best_guess_without_memory_costs_the_baseline() -> None:
    task = Copying(delay=30)
    batch = task.rows("train", torch.arange(4), 0, 0)
    logits = torch.full((50, 4, 9), -1e4, dtype=torch.float64)
    logits[:40, :, 0] = 0
    logits[40:, :, 1:] = 0
    assert float(task.loss(logits, batch)) == pytest.approx(task.baseline, rel=1e-12)


@pytest.mark.parametrize("task", [Adding(length=9), Copying(delay=3)], ids=lambda task: task.name)
def test_training_rows_are_drawn_afresh_in_every_epoch_and_the_rest_once(task: Task) -> None:
    index = torch.arange(6)
    assert not torch.equal(task.rows("train", index, 0, 0).x, task.rows("train", index, 0, 1).x)
    assert torch.equal(task.rows("test", index, 0, 0).x, task.rows("test", index, 5, 1).x)
    assert not torch.equal(task.rows("test", index, 0, 0).x, task.rows("validation", index, 0, 0).x)


@pytest.mark.parametrize("task", [Adding(length=9), Copying(delay=3)], ids=lambda task: task.name)
def test_a_row_does_not_depend_on_its_batch(task: Task) -> None:
    together = task.rows("train", torch.tensor([3, 8]), 1, 2)
    alone = task.rows("train", torch.tensor([8]), 1, 2)
    assert torch.equal(together.x[:, 1:], alone.x)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="length must be a whole number, at least 2, got 1"):
        Adding(length=1)
    with pytest.raises(ValueError, match="test_size"):
        Copying(test_size=0)
