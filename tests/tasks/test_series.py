"""HAR-2 and HAR-6."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from pendula._check import DataError
from pendula.tasks.convert import HarFacts
from pendula.tasks.series import HAR, HAR2, HAR6

PARTS = ("train", "validation", "test")


@pytest.fixture
def small(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, numpy.ndarray]:
    """A file of 7 + 3 subjects with 12 windows each, whose first channel tells the subject, the second the activity."""
    arrays = {}
    for part, subjects in (("train", [1, 3, 5, 6, 7, 8, 11]), ("test", [2, 4, 9])):
        subject = numpy.repeat(numpy.array(subjects, numpy.uint8), 12)
        activity = numpy.tile(numpy.arange(6, dtype=numpy.uint8), 2 * len(subjects))
        x = numpy.random.default_rng(0).normal(3, 2, (len(subject), 4, 9)).astype(numpy.float32)
        x[..., 0], x[..., 1] = subject[:, None], activity[:, None]
        arrays |= {f"X_{part}": x, f"y_{part}": activity, f"subject_{part}": subject}
    flat = {part: arrays[f"X_{part}"].reshape(-1, 9).astype(float) for part in ("train", "test")}
    facts = HarFacts(
        {"train": 84, "test": 36},
        {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in arrays.items() if k[0] != "X"},
        {part: tuple(x.mean(0)) for part, x in flat.items()},
        {part: tuple(x.std(0)) for part, x in flat.items()},
        steps=4,
    )
    monkeypatch.setattr(HAR, "facts", facts)
    (private_cache / "uci_har").mkdir(parents=True)
    numpy.savez(private_cache / "uci_har/uci_har.npz", **arrays)
    return arrays


def subjects(task: HAR, part: str) -> set[int]:
    return set(task.part(part).flat[:, 0].int().tolist())


def test_no_subject_is_in_two_parts(small: object) -> None:
    task = HAR6()
    seen = [subjects(task, part) for part in PARTS]
    assert [len(s) for s in seen] == [5, 2, 3]
    assert len(set.union(*seen)) == 10
    assert [task.size(part) for part in PARTS] == [60, 24, 36]


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_number_of_held_out_subjects_is_the_one_asked_for(small: object, count: int) -> None:
    assert len(subjects(HAR6(validation_subjects=count), "validation")) == count


def test_the_held_out_subjects_are_drawn_by_the_split_seed_alone(small: object) -> None:
    torch.manual_seed(5)
    drawn = [subjects(HAR6(split_seed=seed), "validation") for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(map(frozenset, drawn))) > 1


def test_the_published_way_holds_out_a_tenth_of_the_windows_and_says_so(small: object) -> None:
    task = HAR6(validation="windows")
    assert [task.size(part) for part in PARTS] == [76, 8, 36]
    assert subjects(task, "validation") <= subjects(task, "train")
    assert "their subjects are in the training part too" in task.notes[0]


def test_har2_merges_sitting_laying_and_walking_upstairs_into_class_one(small: object) -> None:
    test = HAR2().part("test")
    activity = test.flat[test.offsets[:-1], 1].long()
    # WALKING, WALKING_UPSTAIRS, WALKING_DOWNSTAIRS, SITTING, STANDING, LAYING
    assert torch.equal(test.y, torch.tensor([0, 1, 0, 1, 0, 1])[activity])


def test_har6_keeps_the_six_activities(small: object) -> None:
    test = HAR6().part("test")
    assert torch.equal(test.y, test.flat[test.offsets[:-1], 1].long())
    assert HAR6.labels == ("walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying")


def test_the_face_of_both_tasks(small: object) -> None:
    two, six = HAR2(), HAR6()
    assert (two.name, two.target, two.output_size, len(two.labels)) == ("har2", "binary", 1, 2)
    assert (six.name, six.target, six.output_size, len(six.labels)) == ("har6", "classes", 6, 6)
    assert (two.input_size, two.standardise, HAR2(standardise=False).standardise) == (9, True, False)


def test_the_data_stays_raw_and_the_statistics_are_those_of_the_training_part(small: object) -> None:
    task = HAR6()
    flat = task.part("train").flat
    mean, scale = task.statistics()
    assert float(flat[:, 2:].mean()) == pytest.approx(3, abs=0.2)
    assert torch.allclose(mean, flat.mean(0), atol=1e-5)
    assert torch.allclose(scale, flat.std(0, correction=0), rtol=1e-5)


def test_training_windows_are_turned_anew_in_every_epoch_and_others_never(small: object) -> None:
    plain, turning = HAR6(), HAR6(rotate=20.0, compress=0.05)
    index = torch.arange(5)
    first, again, later = (turning.rows("train", index, 0, epoch).x for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, later)
    raw = plain.rows("train", index, 0, 0).x
    back = turning._expanded(first)
    # lengths of all three triads are kept, and one window is turned by one rotation
    for triad in (slice(0, 3), slice(3, 6), slice(6, 9)):
        assert torch.allclose(back[..., triad].norm(dim=-1), raw[..., triad].norm(dim=-1), rtol=1e-4)
    for part in ("validation", "test"):
        same = turning._expanded(turning.rows(part, index, 0, 0).x)
        assert torch.allclose(same, plain.rows(part, index, 0, 0).x, atol=1e-4)


def test_only_training_windows_are_stretched(small: object) -> None:
    task = HAR6(stretch=0.15)
    steps = HAR6().rows("train", torch.arange(3), 0, 0).x.shape[0]
    assert task.rows("train", torch.arange(3), 0, 0).x.shape[0] == int(steps / 1.15)
    assert task.rows("test", torch.arange(3), 0, 0).x.shape[0] == steps


def test_a_row_is_turned_alike_whatever_batch_it_stands_in(small: object) -> None:
    task = HAR6(rotate=20.0, yaw=30.0, stretch=0.1)
    both, alone = task.rows("train", torch.tensor([4, 2]), 3, 1).x, task.rows("train", torch.tensor([2]), 3, 1).x
    assert torch.equal(both[:, 1:], alone)


def test_compressed_channels_are_those_without_gravity_and_emphasis_scales_them(small: object) -> None:
    plain, compressed = HAR6(), HAR6(compress=0.05, emphasis=2.0)
    flat, other = plain.part("train").flat, compressed.part("train").flat
    assert torch.equal(flat[:, 6:], other[:, 6:])
    assert torch.allclose(other[:, :6], torch.asinh(flat[:, :6] / 0.05), atol=1e-5)
    _, scale = compressed.statistics()
    assert torch.allclose(scale[:6] * 2, other[:, :6].std(0, correction=0), rtol=1e-4)
    assert torch.allclose(scale[6:], other[:, 6:].std(0, correction=0), rtol=1e-4)


def test_a_converted_file_is_called_exact(small: dict[str, numpy.ndarray]) -> None:
    assert HAR2().provenance.startswith("exact: converted from the published text files")


def test_a_file_of_other_content_is_refused(small: dict[str, numpy.ndarray], private_cache: Path) -> None:
    numpy.savez(private_cache / "uci_har/uci_har.npz", **(small | {"y_test": small["y_test"][::-1]}))
    with pytest.raises(DataError, match="is not the UCI HAR data: y_test has the SHA-256"):
        HAR2()


def test_a_missing_file_says_how_to_get_it(private_cache: Path) -> None:
    with pytest.raises(DataError, match="`pendula data get uci_har` fetches it"):
        HAR2()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": "window"}, "validation must be one of subjects, windows, got 'window'"),
        ({"validation_subjects": 0}, "validation_subjects must be a whole number, at least 1, got 0"),
        ({"validation_subjects": 7}, "validation_subjects must be less than 7"),
        ({"split_seed": -1}, "split_seed must be a whole number, at least 0"),
        ({"rotate": -1.0}, "rotate must be a finite number, at least 0"),
        ({"compress": float("nan")}, "compress must be a finite number, at least 0"),
        ({"emphasis": 2.0}, "set compress too"),
        ({"stretch": 0.6}, "stretch must be at most 0.5"),
    ],
)
def test_arguments_that_cannot_be_are_refused(small: object, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HAR2(**arguments)


def test_the_shared_data_has_the_official_sizes_and_counts(shared_data: Callable[[str], Path]) -> None:
    shared_data("uci_har/uci_har.npz")
    task = HAR6()
    assert [task.size(part) for part in PARTS] == [6613, 739, 2947]
    assert task.part("test").y.bincount().tolist() == [496, 471, 420, 491, 532, 537]
    both = task.part("train").y.bincount() + task.part("validation").y.bincount()
    assert both.tolist() == [1226, 1073, 986, 1286, 1374, 1407]
    assert task.provenance.startswith("reconstructed from the raw recordings")
    assert task.rows("test", torch.arange(3), 0, 0).x.shape == (128, 3, 9)
