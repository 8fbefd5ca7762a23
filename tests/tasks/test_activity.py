"""Activities at every step of long recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from pendula._check import DataError
from pendula.tasks.activity import ACTIVITIES, FILE, TEST_SUBJECTS, Activity
from pendula.tasks.series import HAR

PARTS = ("train", "validation", "test")
SUBJECTS = [1, 1, 2, 3, 5, 5, 6, 9]


@pytest.fixture
def small(private_cache: Path) -> dict[str, numpy.ndarray]:
    """8 recordings of 40 to 47 steps; channel 0 tells the subject, channel 1 the label; some steps have none."""
    lengths = numpy.arange(40, 48)
    total = int(lengths.sum())
    label = numpy.random.default_rng(1).integers(0, 13, total).astype(numpy.uint8)
    signal = numpy.random.default_rng(2).normal(2, 3, (total, 6)).astype(numpy.float32)
    signal[:, 0], signal[:, 1] = numpy.repeat(SUBJECTS, lengths), label
    offsets = numpy.concatenate(([0], numpy.cumsum(lengths)))
    # a stretch without labels at the end of a training recording
    label[offsets[1] - 20 : offsets[1]] = 0
    arrays = {"signal": signal, "offsets": offsets, "label": label}
    arrays |= {"subject": numpy.array(SUBJECTS, numpy.uint8), "experiment": numpy.arange(1, 9, dtype=numpy.uint8)}
    (private_cache / FILE).parent.mkdir(parents=True)
    numpy.savez(private_cache / FILE, **arrays)
    return arrays


def subjects(task: Activity, part: str) -> set[int]:
    return set(task.part(part).flat[:, 0].int().tolist())


def uniform(task: Activity, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.zeros(*shape, task.output_size, dtype=torch.float64)


def test_no_subject_is_in_two_parts_and_the_test_subjects_are_those_of_uci_har(small: object) -> None:
    task = Activity(validation_subjects=2)
    seen = [subjects(task, part) for part in PARTS]
    assert seen[2] == {2, 9} == {s for s in SUBJECTS if s in TEST_SUBJECTS}
    assert [len(s) for s in seen] == [2, 2, 2]
    assert set.union(*seen) == {1, 2, 3, 5, 6, 9}


def test_the_held_out_subjects_are_drawn_by_the_split_seed_alone(small: object) -> None:
    torch.manual_seed(5)
    drawn = [frozenset(subjects(Activity(split_seed=seed), "validation")) for seed in (0, 0, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_all_thirteen_labels_are_classes_by_default(small: dict[str, numpy.ndarray]) -> None:
    task = Activity()
    assert (task.output_size, task.labels) == (13, ACTIVITIES)
    test = task.part("test")
    kept = small["label"][numpy.isin(small["signal"][:, 0], TEST_SUBJECTS)]
    assert test.y.tolist() == kept.tolist()


def test_ignored_steps_count_neither_in_the_loss_nor_in_the_accuracy(small: object) -> None:
    task = Activity(unlabelled="ignored")
    assert (task.output_size, task.labels) == (12, ACTIVITIES[1:])
    batch = task.rows("test", torch.arange(2), 0, 0)
    assert batch.lengths is not None
    valid = torch.arange(batch.x.shape[0]).unsqueeze(1) < batch.lengths
    # channel 1 is the label in the file
    told = batch.x[..., 1].long()
    counted = valid & (told > 0)
    assert task.count(batch) == int(counted.sum()) < int(valid.sum())
    right = torch.nn.functional.one_hot((told - 1).clamp(min=0), 12).double() * 50
    wrong_where_ignored = torch.where(counted.unsqueeze(2), right, -right)
    measured = task.measures(wrong_where_ignored, batch)
    assert int(measured["accuracy"]) == task.count(batch)
    assert float(measured["loss"]) == pytest.approx(0, abs=1e-9)
    assert float(task.loss(uniform(task, told.shape), batch)) == pytest.approx(numpy.log(12), rel=1e-12)


def test_unlabelled_steps_count_where_they_are_a_class(small: object) -> None:
    task = Activity()
    batch = task.rows("test", torch.arange(2), 0, 0)
    assert batch.lengths is not None
    assert task.count(batch) == int(batch.lengths.sum())
    assert float(task.loss(uniform(task, batch.x.shape[:2]), batch)) == pytest.approx(numpy.log(13), rel=1e-12)


def test_the_number_of_targets_is_what_the_batch_counts(small: object) -> None:
    for unlabelled in ("class", "ignored"):
        task = Activity(unlabelled=unlabelled, window=9)
        for index in (torch.tensor([0, 3, 7]), torch.tensor([5])):
            assert task.targets("train", index) == task.count(task.rows("train", index, 0, 0))


def test_a_window_without_any_label_costs_nothing_and_has_a_gradient_of_zero(small: object) -> None:
    task = Activity(unlabelled="ignored")
    batch = task.rows("train", torch.tensor([0]), 0, 0)
    logits = torch.zeros(20, 1, 12, requires_grad=True)
    empty = type(batch)(batch.x[-20:], torch.full((20, 1), -1))
    task.loss(logits, empty).backward()
    assert float(task.loss(logits, empty).detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_windows_cut_the_training_recordings_only_and_lose_nothing(small: object) -> None:
    whole, cut = Activity(), Activity(window=9)
    assert torch.equal(whole.part("train").flat, cut.part("train").flat)
    assert torch.equal(whole.part("train").y, cut.part("train").y)
    assert int(cut.part("train").lengths.max()) == 9
    assert cut.size("train") == sum(-(-int(n) // 9) for n in whole.part("train").lengths)
    assert cut.size("test") == whole.size("test") == 2


def test_windows_with_nothing_to_learn_are_left_out(small: object) -> None:
    cut = Activity(unlabelled="ignored", window=5, validation_subjects=1, split_seed=2)
    assert 1 in subjects(cut, "train")
    assert all(cut.targets("train", torch.tensor([i])) > 0 for i in range(cut.size("train")))
    assert cut.size("train") < Activity(window=5, validation_subjects=1, split_seed=2).size("train")


def test_settings_that_cannot_be_are_refused(small: object) -> None:
    with pytest.raises(ValueError, match="validation_subjects must be less than 4, the number of training subjects"):
        Activity(validation_subjects=4)
    with pytest.raises(ValueError, match="unlabelled must be one of class, ignored"):
        Activity(unlabelled="drop")
    with pytest.raises(ValueError, match="window must be a whole number, at least 1, got 0"):
        Activity(window=0)


def test_a_file_that_is_something_else_is_refused(private_cache: Path) -> None:
    (private_cache / FILE).parent.mkdir(parents=True)
    numpy.savez(private_cache / FILE, signal=numpy.zeros(3))
    with pytest.raises(DataError, match=r"hapt_raw\.npz has no offsets: delete it, then `pendula data get hapt_raw`"):
        Activity()


def test_the_real_recordings_have_the_known_sizes(shared_data: Callable[[str], Path]) -> None:
    shared_data(FILE)
    task = Activity()
    assert [task.size(part) for part in PARTS] == [38, 4, 19]
    lengths = torch.cat([task.part(part).lengths for part in PARTS])
    assert (int(lengths.min()), int(lengths.max()), int(lengths.sum())) == (9898, 32089, 1122772)
    assert task.provenance.startswith("exact: ")


def test_the_held_out_subjects_are_those_of_har_with_the_same_seed(shared_data: Callable[[str], Path]) -> None:
    shared_data(FILE)
    shared_data("uci_har/uci_har.npz")

    class Six(HAR):
        name, summary, output_size = "six", "", 6

    for seed in (0, 1):
        har, own = (task.notes[0].split("subjects ")[1] for task in (Six(split_seed=seed), Activity(split_seed=seed)))
        assert har == own
