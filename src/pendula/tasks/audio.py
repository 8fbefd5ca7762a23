"""Spoken digits as raw audio."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from numpy.typing import NDArray

from pendula._check import DataError, between, one_of, positive_int
from pendula.tasks.base import Sequences, StoredTask
from pendula.tasks.recordings import provenance
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import fetch
from pendula.tasks.table import read_npz

FILE = "fsdd/fsdd.npz"
SPLITS = ("official", "speaker")
TEST_TAKES, VALIDATION_TAKES = range(5), range(5, 10)


class SpokenDigits(StoredTask):
    """Ten spoken digits as raw audio at 8 kHz, one channel in [-1, 1): 1148 to 18262 steps, 10 classes.

    The Free Spoken Digit Dataset: 6 speakers, 50 takes of each digit. "official" is the split of its authors, takes 0
    to 4 for the test; its speakers are all heard in training. "speaker" tests on one who is never heard: harder and
    more honest. In both, takes 5 to 9 of those who are heard are the validation part.

    It stands in for the raw Speech Commands task of the work on long memory, which is larger: the numbers do not
    compare.

    Args:
        split: "official" or "speaker".
        speaker: who is left out for the test, with split="speaker".
        decimate: k: means of k samples after one another, so that a sequence is k times shorter; 1 is raw audio.
        max_seconds: what is longer is cut off behind; None: nothing.
        standardise: whether a model on this task scales its inputs.

    Errors: ValueError for a speaker that is none; DataError when ``fsdd/fsdd.npz`` is missing or something else.
    """

    name: ClassVar[str] = "spoken_digits"
    summary: ClassVar[str] = "spoken digits as raw audio, 1148 to 18262 steps"
    output_size, labels = 10, tuple("0123456789")

    def __init__(
        self,
        split: str = "official",
        speaker: str = "theo",
        decimate: int = 1,
        max_seconds: float | None = None,
        standardise: bool = True,
    ) -> None:
        self.split = one_of("split", split, SPLITS)
        self.decimate = positive_int("decimate", decimate)
        self.standardise = standardise
        path = fetch(FILE)
        found = provenance(path, SOURCES["fsdd"])
        self.provenance = f"{found}; stands in for Speech Commands, whose numbers do not compare"
        wave, offsets, facts, speakers, rate = _read(path)
        self.speaker = one_of("speaker", speaker, speakers) if self.split == "speaker" else None
        steps = numpy.diff(offsets)
        if max_seconds is not None:
            steps = numpy.minimum(steps, int(between("max_seconds", max_seconds, 1 / rate, float("inf")) * rate))
        if steps.min() < self.decimate:
            raise ValueError(f"decimate must be at most {steps.min()}, the shortest recording, got {decimate}")
        waves = [self._means(wave[o : o + n]) for o, n in zip(offsets[:-1], steps, strict=True)]
        label, who, take = facts.T
        names = [f"{d}_{speakers[s]}_{t}" for d, s, t in facts.tolist()]
        parts = {}
        for part, chosen in self._chosen(numpy.array(speakers)[who] == self.speaker, take).items():
            rows = numpy.flatnonzero(chosen)
            lengths = torch.tensor([0, *(len(waves[i]) for i in rows)])
            flat = torch.from_numpy(numpy.concatenate([waves[i] for i in rows])).unsqueeze(1)
            y = torch.from_numpy(label[rows])
            parts[part] = Sequences(flat, lengths.cumsum(0), y, names=tuple(names[i] for i in rows))
        super().__init__(parts)
        if self.speaker:
            self.notes = (f"test: {self.speaker}, who is in no other part; validation: takes 5 to 9 of the others",)

    def _chosen(self, left_out: NDArray[Any], take: NDArray[Any]) -> dict[str, NDArray[Any]]:
        test = left_out if self.speaker else numpy.isin(take, TEST_TAKES)
        validation = numpy.isin(take, VALIDATION_TAKES) & ~test
        return {"train": ~test & ~validation, "validation": validation, "test": test}

    def _means(self, wave: NDArray[Any]) -> NDArray[numpy.float32]:
        whole = len(wave) - len(wave) % self.decimate
        # sums and their division by 32768 are exact: means of 1 are the samples themselves
        means: NDArray[numpy.float64] = wave[:whole].reshape(-1, self.decimate).mean(1, dtype=numpy.float64)
        return (means / 32768).astype(numpy.float32)


def _read(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[numpy.int64], list[str], int]:
    """Samples, offsets, facts (N, 3: digit, speaker, take), names of the speakers, samples per second."""
    arrays = read_npz(path)
    keys = ("wave", "offsets", "label", "speaker", "take")
    for key in [f"{part}_{key}" for part in ("train", "test") for key in keys] + ["speakers", "sample_rate"]:
        if key not in arrays:
            raise DataError(f"{path} has no {key}: delete it, then `pendula data get fsdd`")
    train, test = ([arrays[f"{part}_{key}"] for key in keys] for part in ("train", "test"))
    wave, label, speaker, take = (numpy.concatenate((train[k], test[k])) for k in (0, 2, 3, 4))
    offsets = numpy.concatenate((train[1], train[1][-1] + test[1][1:]))
    facts = numpy.stack((label, speaker, take), 1).astype(numpy.int64)
    return wave, offsets, facts, arrays["speakers"].tolist(), int(arrays["sample_rate"])
