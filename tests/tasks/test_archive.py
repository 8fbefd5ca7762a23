"""The sets of the UCR and UEA archives as tasks, and EigenWorms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from tests.tasks.archives import half, relational_arff, ts

from pendula._check import DataError
from pendula.tasks import Archive, EigenWorms
from pendula.tasks.archive import halved, hold_out
from pendula.tasks.archive_facts import KNOWN
from pendula.tasks.archive_files import arrays_of, read_published
from pendula.tasks.base import PARTS

Write = Callable[[str, str], Path]
LABELS = list("aabbccaabbcc")
TRAIN, TEST = half(1, LABELS * 2, [3, 5, 4, 2] * 6), half(2, LABELS, [2, 6, 3] * 4)


@pytest.fixture
def small(private_cache: Path) -> Path:
    """The folder of a set called Small, of 24 + 12 series, as published files."""
    folder = private_cache / "ucr_uea"
    folder.mkdir(parents=True)
    (folder / "Small_TRAIN.ts").write_text(ts(TRAIN))
    (folder / "Small_TEST.ts").write_text(ts(TEST))
    return folder


def sizes(task: Archive) -> list[int]:
    return [task.size(part) for part in PARTS]


def same(one: Archive, other: Archive) -> bool:
    return one.digest() == other.digest()


def test_the_published_test_part_stays_and_some_of_each_class_is_held_out(small: Path) -> None:
    task = Archive("Small", validation=0.25)
    assert sizes(task) == [18, 6, 12]
    assert task.part("validation").y.bincount().tolist() == [2, 2, 2]
    test = task.part("test")
    assert torch.equal(test.y, torch.tensor(["abc".index(label) for label in TEST[1]]))
    assert torch.equal(test.flat, torch.from_numpy(numpy.concatenate(TEST[0])))


def test_each_series_keeps_its_own_length(small: Path) -> None:
    task = Archive("Small")
    assert task.part("test").lengths.tolist() == [2, 6, 3] * 4
    batch = task.rows("test", torch.arange(3), 0, 0)
    assert batch.x.shape == (6, 3, 2)
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [2, 6, 3]


def test_pooled_puts_both_parts_together_and_draws_three(small: Path) -> None:
    task = Archive("Small", split="pooled")
    assert sizes(task) == [25, 6, 5]
    rows = [float(x) for part in PARTS for x in task.part(part).flat[:, 0]]
    published = [float(x) for series in (*TRAIN[0], *TEST[0]) for x in series[:, 0]]
    assert sorted(rows) == sorted(published)
    assert "not the authors' draw" in task.notes[0]


@pytest.mark.parametrize("split", ["official", "pooled"])
def test_the_split_is_drawn_by_its_seed_alone(small: Path, split: str) -> None:
    torch.manual_seed(3)
    one, again, other = (Archive("Small", split=split, split_seed=seed) for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)


def test_all_forms_of_a_set_give_the_same_task(small: Path, tmp_path: Path) -> None:
    task = Archive("Small")
    pair = [read_published(small / f"Small_{part}.ts") for part in ("TRAIN", "TEST")]
    numpy.savez(tmp_path / "mine.npz", **arrays_of(*pair))
    own = tmp_path / "own"
    own.mkdir()
    (own / "Small_TRAIN.arff").write_text(relational_arff(TRAIN))
    (own / "Small_TEST.arff").write_text(relational_arff(TEST))
    for path in (tmp_path / "mine.npz", own, small):
        found = Archive(path=str(path))
        assert same(found, task)
        assert found.provenance == f"your own data: {path}"
    folder = small / "Small"
    folder.mkdir()
    for name in ("Small_TRAIN.ts", "Small_TEST.ts"):
        (small / name).rename(folder / name)
    assert same(Archive("Small"), task)


def test_the_face_of_a_set(small: Path) -> None:
    task = Archive("Small", standardise=False)
    assert (task.name, task.target, task.output_size, task.labels) == ("ucr_uea", "classes", 3, ("a", "b", "c"))
    assert (task.input_size, task.standardise, Archive("Small").standardise) == (2, False, True)
    assert "no checksum of this set is known" in task.provenance


def test_missing_values_take_the_last_known_one_and_are_told(small: Path) -> None:
    holes = half(2, LABELS, [4] * 12)
    holes[0][0][1, 0] = numpy.nan
    (small / "Small_TEST.ts").write_text(ts(holes))
    task = Archive("Small")
    first = task.part("test").flat[:4, 0]
    assert first[1] == first[0]
    assert task.notes[1] == "missing: 1 value of channel '0'; filled with the last known value of the series"


def test_a_class_that_no_training_series_has_is_told(small: Path) -> None:
    (small / "Small_TRAIN.ts").write_text(ts(half(1, ["a", "b"] * 6, [4] * 12)))
    assert Archive("Small").notes[-1] == "no training series is of class 'c'"


@pytest.mark.parametrize("share", [0.1, 0.15, 0.3, 0.5])
def test_what_is_held_out_is_spread_over_the_classes_as_evenly_as_can_be(share: float) -> None:
    y = torch.tensor([0] * 40 + [1] * 20 + [2] * 7 + [3])
    kept, held = hold_out(y, share, 0)
    assert len(held) == round(share * 68)
    assert torch.equal(torch.cat((kept, held)).sort().values, torch.arange(68))
    for name, count in ((0, 40), (1, 20), (2, 7), (3, 1)):
        assert abs(int((y[held] == name).sum()) - share * count) <= 1
    assert int((y[kept] == 3).sum()) == 1


def test_a_set_that_is_missing_says_how_to_get_it(private_cache: Path) -> None:
    with pytest.raises(DataError, match="`pendula data get CharacterTrajectories` fetches it"):
        Archive("CharacterTrajectories")


def test_a_file_that_is_not_the_known_set_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "Small", KNOWN["GunPoint"])
    with pytest.raises(
        DataError, match=r"Small_TRAIN\.ts is damaged or another set: .*, then `pendula data get Small`"
    ):
        Archive("Small")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "set must be the name of a set, such as 'JapaneseVowels', or path must say where one is"),
        (
            {"set": "Small", "split": "pool"},
            r"split must be one of official, pooled, got 'pool' \(did you mean 'pooled'",
        ),
        ({"set": "Small", "validation": 0}, "validation must be above 0 and at most 0.5, got 0"),
        ({"set": "Small", "validation": 0.6}, "validation must be above 0 and at most 0.5, got 0.6"),
        ({"set": "Small", "split_seed": -1}, "split_seed must be a whole number, at least 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(small: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Archive(**arguments)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"has no pair \*_TRAIN\.ts and _TEST\.ts \(or \.arff\)"),
        ("none", "none is not there or of another kind: needed is a folder with the pair, or an npz file"),
        ("x.npz", "cannot be read as a set: it has no X_train, y_train, X_test, y_test, classes"),
    ],
)
def test_a_path_without_a_set_says_what_is_needed(tmp_path: Path, name: str, message: str) -> None:
    numpy.savez(tmp_path / "x.npz", a=numpy.zeros(1))
    with pytest.raises(DataError, match=message):
        Archive(path=str(tmp_path / name))


def test_too_few_series_for_three_parts_are_refused(small: Path) -> None:
    for part in ("TRAIN", "TEST"):
        (small / f"Small_{part}.ts").write_text(ts(half(1, ["a"], [4])))
    with pytest.raises(DataError, match="2 series are too few: train, validation and test would have 1, 1, 0"):
        Archive("Small", split="pooled")


@pytest.mark.parametrize("name", KNOWN)
def test_the_shared_sets_are_exact_and_have_their_official_sizes(name: str, shared_data: Callable[[str], Path]) -> None:
    shared_data(f"ucr_uea/{name}.npz")
    task = Archive(name)
    train, test, steps, channels, classes = KNOWN[name].counts
    assert (task.size("train") + task.size("validation"), task.size("test")) == (train, test)
    assert (task.input_size, task.output_size) == (channels, classes)
    assert max(int(task.part(part).lengths.max()) for part in PARTS) == steps
    assert task.provenance.startswith("exact")


def test_japanese_vowels_have_7_to_29_steps(shared_data: Callable[[str], Path]) -> None:
    shared_data("ucr_uea/JapaneseVowels.npz")
    lengths = torch.cat([Archive("JapaneseVowels").part(part).lengths for part in PARTS])
    assert (int(lengths.min()), int(lengths.max())) == (7, 29)


def test_the_259_worms_are_split_181_39_39_and_none_is_in_two_parts() -> None:
    pytest.importorskip("sklearn")
    parts = halved(259, 1234)
    assert [len(part) for part in parts] == [181, 39, 39]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(259))


def test_the_worms_are_split_as_whole_arrays_are_by_scikit_learn(private_cache: Path) -> None:
    """The recipe of the repository on the arrays themselves, in its order: first validation, then test."""
    selection = pytest.importorskip("sklearn.model_selection")
    folder = private_cache / "ucr_uea"
    folder.mkdir(parents=True)
    halves = [half(1, LABELS * 2, [4] * 24, 6), half(2, LABELS, [4] * 12, 6)]
    for part, text in zip(("TRAIN", "TEST"), halves, strict=True):
        (folder / f"EigenWorms_{part}.arff").write_text(relational_arff(text))
    x = numpy.stack([*halves[0][0], *halves[1][0]])
    train, rest = selection.train_test_split(x, test_size=0.3, random_state=1234)
    validation, test = selection.train_test_split(rest, test_size=0.5, random_state=1234)
    task = EigenWorms()
    for part, expected in (("train", train), ("validation", validation), ("test", test)):
        assert torch.equal(task.part(part).flat, torch.from_numpy(expected.reshape(-1, 6)))
    assert (task.standardise, task.labels) == (False, ("a", "b", "c"))


def test_the_worms_say_how_they_are_had(private_cache: Path) -> None:
    with pytest.raises(DataError, match="`pendula data get EigenWorms` fetches it"):
        EigenWorms()
