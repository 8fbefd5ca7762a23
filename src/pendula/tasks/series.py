"""Activities from a phone at the waist: HAR-2 and HAR-6."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy
import torch
from torch import Tensor

from pendula._check import at_least_zero, one_of, positive_int
from pendula.tasks.base import Batch, Sequences, StoredTask
from pendula.tasks.chance import generator_for, split
from pendula.tasks.convert import ACTIVITIES, PUBLISHED, HarFacts, read_har
from pendula.tasks.motion import varied
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import fetch

VALIDATIONS = ("subjects", "windows")
BODY, WHOLE = slice(0, 6), slice(6, 9)
"""The channels without gravity, acceleration and turning of the body; and those of the whole acceleration."""


class HAR(StoredTask):
    """Windows of 128 steps (2.56 s at 50 Hz), 9 channels (g and rad/s), of 30 subjects; test is the published part.

    Inputs stay in their units; with `standardise` the model scales them by the statistics of the training part. The
    FastGRNN and coRNN papers held out about a tenth of the training windows, not of the subjects; windows overlap by
    half, so such a validation part has seen its subjects and half of its samples, and says too much good. Holding out
    whole subjects, the default here, is harder and foretells the test part (whose subjects are new) better.

    Args:
        validation: "subjects" holds out whole training subjects, "windows" a random tenth of the windows, as published.
        validation_subjects: how many of the 21 training subjects are held out; unused for "windows".
        split_seed: draws what is held out.
        standardise: whether a model on this task scales its inputs.
        rotate: standard deviation, in degrees, of a random rotation of the phone: each training window is turned about
            an axis of its own, all three triads alike, anew in every epoch; 0 for none. Not in the papers, nor are the
            following.
        yaw: the same about the direction of gravity, before it.
        stretch: in [0, 0.5]: each training window runs at a speed of its own, from 1 - stretch to 1 + stretch, and has
            128 / (1 + stretch) steps.
        compress: where positive, the six channels without gravity become asinh(value / compress), which shows the small
            movements of a person who sits or stands beside those of one who walks.
        emphasis: what the compressed channels are multiplied with after standardising.

    Errors: DataError when ``uci_har/uci_har.npz`` is missing or not the published data.
    """

    facts: ClassVar[HarFacts] = PUBLISHED

    def __init__(
        self,
        validation: str = "subjects",
        validation_subjects: int = 2,
        split_seed: int = 0,
        standardise: bool = True,
        rotate: float = 0.0,
        yaw: float = 0.0,
        stretch: float = 0.0,
        compress: float = 0.0,
        emphasis: float = 1.0,
    ) -> None:
        self.validation = one_of("validation", validation, VALIDATIONS)
        self.validation_subjects = positive_int("validation_subjects", validation_subjects)
        self.split_seed = positive_int("split_seed", split_seed, least=0)
        self.standardise = standardise
        self.rotate, self.yaw = at_least_zero("rotate", rotate), at_least_zero("yaw", yaw)
        self.stretch, self.compress = at_least_zero("stretch", stretch), at_least_zero("compress", compress)
        self.emphasis = at_least_zero("emphasis", emphasis)
        if self.stretch > 0.5:
            raise ValueError(f"stretch must be at most 0.5 (half as fast to half as fast again), got {stretch}")
        if emphasis != 1 and not (compress and standardise and emphasis):
            raise ValueError("emphasis is of compressed and standardised channels: set compress too, or leave it out")
        file = SOURCES["uci_har"].files[0]
        arrays, self.provenance = read_har(fetch(file.path), file.sha256, self.facts)
        # (N, T, I) and (N,) of each part
        (x, y), test = ((torch.from_numpy(arrays[f"X_{p}"]), self._target(arrays[f"y_{p}"])) for p in ("train", "test"))
        subject = torch.from_numpy(arrays["subject_train"].astype(numpy.int64))
        kept, held = self._held_out(subject)
        parts = {"train": (x[kept], y[kept]), "validation": (x[held], y[held]), "test": test}
        super().__init__({part: Sequences.stacked(self._compressed(x), y) for part, (x, y) in parts.items()})
        self.notes = self._notes(subject[held])

    def rows(self, part: str, index: Tensor, seed: int, epoch: int) -> Batch:
        batch = super().rows(part, index, seed, epoch)
        if part != "train" or not (self.rotate or self.yaw or self.stretch):
            return batch
        streams = [generator_for(seed, epoch, 1, int(i)) for i in index]
        raw = self._expanded(batch.x)
        x = varied(raw, streams, stretch=self.stretch, yaw=self.yaw, rotate=self.rotate, gravity=WHOLE)
        return replace(batch, x=self._compressed(x))

    def statistics(self) -> tuple[Tensor, Tensor]:
        mean, scale = super().statistics()
        scale[BODY] /= self.emphasis
        return mean, scale

    def _compressed(self, x: Tensor) -> Tensor:
        if not self.compress:
            return x
        x = x.clone()
        x[..., BODY] = torch.asinh(x[..., BODY] / self.compress)
        return x

    def _expanded(self, x: Tensor) -> Tensor:
        if not self.compress:
            return x
        x = x.clone()
        x[..., BODY] = torch.sinh(x[..., BODY]) * self.compress
        return x

    def _held_out(self, subject: Tensor) -> list[Tensor]:
        if self.validation == "windows":
            return split(len(subject), (0.9, 0.1), self.split_seed)
        subjects = len(set(subject.tolist()))
        if self.validation_subjects >= subjects:
            raise ValueError(
                f"validation_subjects must be less than {subjects}, the number of training subjects, "
                f"got {self.validation_subjects}"
            )
        share = self.validation_subjects / subjects
        return split(len(subject), (1 - share, share), self.split_seed, subject)

    def _notes(self, held: Tensor) -> tuple[str, ...]:
        if self.validation == "windows":
            return (f"validation: {len(held)} windows drawn at random, their subjects are in the training part too",)
        names = ", ".join(str(s) for s in sorted(set(held.tolist())))
        return (f"validation: the {len(held)} windows of subjects {names}, who are in no other part",)

    def _target(self, activity: numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.uint8]]) -> Tensor:
        return torch.from_numpy(activity.astype(numpy.int64))


class HAR2(HAR):
    """Six activities merged into two classes (spec sheet ``cornn.md`` 5.2); one output, the log-odds of class 1.

    See `HAR` for the split and the arguments.
    """

    name: ClassVar[str] = "har2"
    summary: ClassVar[str] = "human activity from a phone, two merged classes, 128 steps of 9 channels"
    target = "binary"
    output_size = 1
    labels = ("standing, walking or walking downstairs", "sitting, laying or walking upstairs")

    def _target(self, activity: numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.uint8]]) -> Tensor:
        ones = [ACTIVITIES.index(name) for name in ("SITTING", "LAYING", "WALKING_UPSTAIRS")]
        return torch.from_numpy(numpy.isin(activity, ones).astype(numpy.int64))


class HAR6(HAR):
    """Six activities. See `HAR` for the split and the arguments."""

    name: ClassVar[str] = "har6"
    summary: ClassVar[str] = "human activity from a phone, six classes, 128 steps of 9 channels"
    output_size = 6
    labels = tuple(activity.lower() for activity in ACTIVITIES)
