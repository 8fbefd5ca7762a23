"""Spoken digits as raw audio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from pendula._check import DataError
from pendula.tasks.audio import FILE, SpokenDigits

PARTS = ("train", "validation", "test")
SPEAKERS = ("ann", "bob", "cy")


@pytest.fixture
def small(private_cache: Path) -> dict[tuple[str, int, int], numpy.ndarray]:
    """Three speakers, two digits, twelve takes of 40 to 60 samples."""
    draw = numpy.random.default_rng(3)
    keys = [(s, d, t) for s in SPEAKERS for d in (0, 7) for t in range(12)]
    waves = {key: draw.integers(-32768, 32768, draw.integers(40, 61), dtype=numpy.int16) for key in keys}
    arrays = {"speakers": numpy.array(SPEAKERS), "sample_rate": numpy.array(100, numpy.int32)}
    for part in ("train", "test"):
        own = [key for key in keys if (key[2] < 5) == (part == "test")]
        arrays[f"{part}_wave"] = numpy.concatenate([waves[key] for key in own])
        arrays[f"{part}_offsets"] = numpy.cumsum([0, *(len(waves[key]) for key in own)])
        facts = numpy.array([(d, SPEAKERS.index(s), t) for s, d, t in own], numpy.uint8)
        arrays |= {f"{part}_{name}": facts[:, k] for k, name in enumerate(("label", "speaker", "take"))}
    (private_cache / FILE).parent.mkdir(parents=True)
    numpy.savez(private_cache / FILE, **arrays)
    return waves


def names(task: SpokenDigits, part: str) -> list[tuple[str, int, int]]:
    split = [name.split("_") for name in task.part(part).names or ()]
    return [(speaker, int(digit), int(take)) for digit, speaker, take in split]


def test_the_official_split_goes_by_takes(small: object) -> None:
    task = SpokenDigits()
    takes = [{take for _, _, take in names(task, part)} for part in PARTS]
    assert takes == [{10, 11}, set(range(5, 10)), set(range(5))]
    assert [task.size(part) for part in PARTS] == [12, 30, 30]


def test_a_speaker_that_is_left_out_is_in_the_test_part_only(small: object) -> None:
    task = SpokenDigits(split="speaker", speaker="bob")
    heard = [{speaker for speaker, _, _ in names(task, part)} for part in PARTS]
    assert heard == [{"ann", "cy"}, {"ann", "cy"}, {"bob"}]
    assert [task.size(part) for part in PARTS] == [28, 20, 24]
    assert task.notes == ("test: bob, who is in no other part; validation: takes 5 to 9 of the others",)


def test_no_recording_is_in_two_parts_and_none_is_lost(small: dict[tuple[str, int, int], object]) -> None:
    for split in ("official", "speaker"):
        task = SpokenDigits(split=split, speaker="cy")
        assert sorted(key for part in PARTS for key in names(task, part)) == sorted(small)


@pytest.mark.parametrize("part", PARTS)
def test_raw_samples_and_their_digit_are_kept(small: dict[tuple[str, int, int], numpy.ndarray], part: str) -> None:
    task = SpokenDigits()
    sequences = task.part(part)
    for i, key in enumerate(names(task, part)):
        own = sequences.flat[sequences.offsets[i] : sequences.offsets[i + 1], 0]
        assert torch.equal(own * 32768, torch.from_numpy(small[key]).float())
        assert int(sequences.y[i]) == key[1]


def test_decimation_takes_means_and_drops_the_rest(small: dict[tuple[str, int, int], numpy.ndarray]) -> None:
    task = SpokenDigits(decimate=7)
    wave = small[names(task, "test")[2]].astype(float)
    own = task.part("test")
    got = own.flat[own.offsets[2] : own.offsets[3], 0].double().numpy()
    assert len(got) == len(wave) // 7
    assert got[1] == pytest.approx(sum(wave[7:14]) / 7 / 32768, abs=1e-7)


def test_long_recordings_are_cut_off_behind(small: dict[tuple[str, int, int], numpy.ndarray]) -> None:
    sequences = SpokenDigits(max_seconds=0.45).part("test")
    assert int(sequences.lengths.max()) == 45
    assert int(sequences.lengths.min()) < 45


def test_batches_tell_their_lengths(small: object) -> None:
    batch = SpokenDigits().rows("test", torch.arange(4), 0, 0)
    assert batch.lengths is not None
    assert batch.x.shape == (int(batch.lengths.max()), 4, 1)


def test_settings_that_cannot_be_are_refused(small: object) -> None:
    with pytest.raises(ValueError, match=r"speaker must be one of ann, bob, cy, got 'bop'.*did you mean 'bob'"):
        SpokenDigits(split="speaker", speaker="bop")
    with pytest.raises(ValueError, match=r"decimate must be at most 4\d, the shortest recording, got 100"):
        SpokenDigits(decimate=100)
    with pytest.raises(ValueError, match="max_seconds must be at least"):
        SpokenDigits(max_seconds=0.0)


def test_a_file_that_is_something_else_is_refused(private_cache: Path) -> None:
    (private_cache / FILE).parent.mkdir(parents=True)
    numpy.savez(private_cache / FILE, train_wave=numpy.zeros(3))
    with pytest.raises(DataError, match=r"fsdd\.npz has no train_offsets: delete it, then `pendula data get fsdd`"):
        SpokenDigits()


def test_another_set_in_the_same_form_is_not_called_exact(small: object) -> None:
    assert SpokenDigits().provenance.startswith("unknown: fsdd.npz is not the data set fsdd")


def test_the_real_set_has_the_published_counts(shared_data: Callable[[str], Path]) -> None:
    shared_data(FILE)
    official = SpokenDigits(decimate=8)
    assert [official.size(part) for part in PARTS] == [2400, 300, 300]
    assert torch.bincount(official.part("test").y).tolist() == [30] * 10
    assert official.provenance.startswith("exact: ")
    assert "Speech Commands" in official.provenance
    assert SpokenDigits(split="speaker", decimate=8).size("test") == 500
    lengths = torch.cat([SpokenDigits().part(part).lengths for part in PARTS])
    assert (int(lengths.min()), int(lengths.max())) == (1148, 18262)
