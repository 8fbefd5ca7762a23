"""Batches, shards, splits and padding."""

from __future__ import annotations

import pytest
import torch

from pendula._check import DataError
from pendula.tasks.base import Batch, Sequences, StoredTask
from pendula.tasks.chance import split


class Stored(StoredTask):
    """Series of lengths 1 to 7 whose values say which series and which step they are."""

    name = "stored"
    summary = "for tests"
    output_size = 3

    def __init__(self, count: int = 23, per_step: bool = False, timespans: bool = False) -> None:
        self.per_step = per_step
        lengths = torch.arange(count) % 7 + 1
        offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
        series = torch.repeat_interleave(torch.arange(count), lengths)
        step = torch.arange(len(series)) - offsets[series]
        flat = torch.stack((series, step), 1).float() + 1
        y = (series if per_step else torch.arange(count)) % 3
        whole = Sequences(flat, offsets, y, step.float() + 0.5 if timespans else None)
        super().__init__({"train": whole, "validation": whole.take(torch.arange(5))})


def drawn(task: StoredTask, **options: int) -> list[Batch]:
    return list(task.batches("train", 5, **options))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(p.x, q.x) and torch.equal(p.y, q.y) for p, q in zip(a, b, strict=True))


def test_batches_are_a_function_of_seed_and_epoch_alone() -> None:
    task = Stored()
    first = drawn(task, seed=3, epoch=2)
    torch.manual_seed(99)
    assert same(first, drawn(task, seed=3, epoch=2))


@pytest.mark.parametrize("other", [{"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}])
def test_another_seed_or_epoch_gives_another_order(other: dict[str, int]) -> None:
    task = Stored()
    assert not same(drawn(task, seed=3, epoch=2), drawn(task, **other))


def test_starting_later_gives_the_rest_of_the_same_epoch() -> None:
    task = Stored()
    assert same(drawn(task, seed=1, start=2), drawn(task, seed=1)[2:])


def test_an_epoch_has_every_training_row_once() -> None:
    seen = torch.cat([batch.x[0, :, 0] for batch in drawn(Stored(), seed=5)])
    assert sorted(seen.tolist()) == list(range(1, 24))


def test_validation_is_not_shuffled() -> None:
    (batch,) = Stored().batches("validation", 10, seed=7, epoch=7)
    assert batch.x[0, :, 0].tolist() == [1, 2, 3, 4, 5]


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        next(Stored().batches("trian", 5))


def test_a_part_that_the_task_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(DataError, match="stored has no test part: it has train, validation"):
        next(Stored().batches("test", 5))


def test_shards_of_two_processes_partition_every_batch() -> None:
    task = Stored()
    whole = [set(batch.x[0, :, 0].tolist()) for batch in drawn(task, seed=2)]
    shards = [[set(b.x[0, :, 0].tolist()) for b in drawn(task, seed=2, rank=rank, world=2)] for rank in (0, 1)]
    assert [a | b for a, b in zip(*shards, strict=True)] == whole
    assert not any(a & b for a, b in zip(*shards, strict=True))


@pytest.mark.parametrize("per_step", [False, True])
def test_the_mean_over_processes_of_share_times_loss_is_the_loss_of_the_batch(per_step: bool) -> None:
    task = Stored(per_step=per_step)
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(batch: Batch) -> torch.Tensor:
        x = batch.x.double() if per_step else batch.x[0].double()
        return task.loss(x @ weight, batch)

    shards = [drawn(task, seed=2, rank=rank, world=2) for rank in (0, 1)]
    for whole, parts in zip(drawn(task, seed=2), zip(*shards, strict=True), strict=True):
        mean = sum(part.share * loss(part) for part in parts) / 2
        assert mean == pytest.approx(float(loss(whole)), rel=1e-12)


def test_a_process_without_a_row_takes_part_and_weighs_nothing() -> None:
    task = Stored(count=11)
    last = [drawn(task, seed=2, rank=rank, world=2)[-1] for rank in (0, 1)]
    assert [batch.share for batch in last] == [2.0, 0.0]
    assert last[1].x.shape[1] == 1


def test_padding_is_zero_and_its_time_spans_are_one() -> None:
    task = Stored(timespans=True)
    batch = task.rows("train", torch.tensor([6, 0, 2]), 0, 0)
    assert batch.lengths is not None
    assert batch.timespans is not None
    padding = torch.arange(7).unsqueeze(1) >= batch.lengths
    assert batch.lengths.tolist() == [7, 1, 3]
    assert batch.x[padding].abs().sum() == 0
    assert batch.timespans[padding].unique().tolist() == [1.0]
    assert batch.timespans[:3, 2].tolist() == [0.5, 1.5, 2.5]


def test_series_of_one_length_carry_no_lengths() -> None:
    batch = Stored().rows("train", torch.tensor([3, 10]), 0, 0)
    assert batch.lengths is None


def test_padding_does_not_change_the_stored_values() -> None:
    task = Stored()
    before = task.part("train").flat.clone()
    list(task.batches("train", 5))
    assert torch.equal(task.part("train").flat, before)


def test_taken_sequences_are_the_sequences_that_were_asked_for() -> None:
    whole = Stored(timespans=True, per_step=True).part("train")
    some = whole.take(torch.tensor([9, 4]))
    assert some.flat[:, 0].tolist() == [10.0] * 3 + [5.0] * 5
    assert some.offsets.tolist() == [0, 3, 8]
    assert some.y.tolist() == [9 % 3] * 3 + [4 % 3] * 5


def test_statistics_are_those_of_the_training_samples_and_one_where_constant() -> None:
    x = torch.randn(50, 4, 2, generator=torch.Generator().manual_seed(0))
    x[..., 1] = 0.3
    task = Stored()
    StoredTask.__init__(task, {"train": Sequences.stacked(x, torch.zeros(50, dtype=torch.int64))})
    mean, scale = task.statistics()
    assert torch.allclose(mean, x.reshape(-1, 2).mean(0), atol=1e-6)
    assert scale[0] == pytest.approx(float(x[..., 0].std(correction=0)), rel=1e-6)
    assert scale[1] == 1


def test_a_split_has_every_row_once() -> None:
    parts = split(101, (0.7, 0.15, 0.15), seed=3)
    assert torch.cat(parts).sort().values.tolist() == list(range(101))
    assert [len(part) for part in parts] == [71, 15, 15]


def test_a_split_by_groups_has_no_group_in_two_parts() -> None:
    groups = torch.randint(0, 12, (200,), generator=torch.Generator().manual_seed(1))
    parts = split(200, (0.5, 0.25, 0.25), seed=3, groups=groups)
    seen = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, parts)) == 200
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_a_split_depends_on_its_seed() -> None:
    assert not torch.equal(split(50, (0.5, 0.5), seed=0)[0], split(50, (0.5, 0.5), seed=1)[0])
