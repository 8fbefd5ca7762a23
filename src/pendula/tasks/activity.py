"""What a person does, at every step of a long recording."""

from __future__ import annotations

from typing import ClassVar

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from pendula._check import DataError, one_of, positive_int
from pendula.tasks.base import Batch, Sequences, StoredTask
from pendula.tasks.chance import split
from pendula.tasks.recordings import provenance
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import fetch
from pendula.tasks.table import read_npz

FILE = "hapt_raw/hapt_raw.npz"
TEST_SUBJECTS = (2, 4, 9, 10, 12, 13, 18, 20, 24)
UNLABELLED = ("class", "ignored")
IGNORED = -1
ACTIVITIES = (
    *("none", "walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying"),
    *("stand_to_sit", "sit_to_stand", "sit_to_lie", "lie_to_sit", "stand_to_lie", "lie_to_stand"),
)


class Activity(StoredTask):
    """Label every step of the recordings behind UCI HAR: 61 of 9898 to 32089 steps (50 Hz), 6 channels (g and rad/s).

    30 subjects; the test part are the nine of UCI HAR, 2 4 9 10 12 13 18 20 24. About 27 % of the steps have no label
    ("none": between the activities). No published recurrent benchmark uses the whole recordings: numbers on this task
    compare with one another only.

    Args:
        unlabelled: "class": steps without a label are a class of their own (13 classes); "ignored": they count neither
            in the loss nor in the accuracy (12 classes), and are still read.
        window: cut the training recordings into pieces of that many steps, the last one shorter; None: whole
            recordings. Validation and test are whole always. Pieces in which every step is ignored are left out.
        validation_subjects: how many of the 21 training subjects are held out.
        split_seed: draws who is held out.
        standardise: whether a model on this task scales its inputs.

    Errors: DataError when ``hapt_raw/hapt_raw.npz`` is missing or something else.
    """

    name: ClassVar[str] = "activity"
    summary: ClassVar[str] = "activities at every step of long recordings, 9898 to 32089 steps of 6 channels"
    per_step = True

    def __init__(
        self,
        unlabelled: str = "class",
        window: int | None = None,
        validation_subjects: int = 2,
        split_seed: int = 0,
        standardise: bool = True,
    ) -> None:
        self.ignores = one_of("unlabelled", unlabelled, UNLABELLED) == "ignored"
        self.window = None if window is None else positive_int("window", window)
        self.standardise = standardise
        whole, subject = self._read()
        pool = torch.tensor([s not in TEST_SUBJECTS for s in subject.tolist()])
        subjects = len(set(subject[pool].tolist()))
        if positive_int("validation_subjects", validation_subjects) >= subjects:
            raise ValueError(
                f"validation_subjects must be less than {subjects}, the number of training subjects, "
                f"got {validation_subjects}"
            )
        share = validation_subjects / subjects
        seed = positive_int("split_seed", split_seed, least=0)
        training = pool.nonzero().squeeze(1)
        kept, held = (training[rows] for rows in split(len(training), (1 - share, share), seed, subject[pool]))
        train = whole.take(kept)
        parts = {
            "train": train if self.window is None else self._pieces(train, self.window),
            "validation": whole.take(held),
            "test": whole.take((~pool).nonzero().squeeze(1)),
        }
        super().__init__(parts)
        self.labels = ACTIVITIES[1:] if self.ignores else ACTIVITIES
        self.output_size = len(self.labels)
        names = ", ".join(str(s) for s in sorted(set(subject[held].tolist())))
        self.notes = (f"validation: the {len(held)} recordings of subjects {names}, who are in no other part",)

    def _read(self) -> tuple[Sequences, Tensor]:
        path = fetch(FILE)
        self.provenance = provenance(path, SOURCES["hapt_raw"])
        arrays = read_npz(path)
        for key in ("signal", "offsets", "label", "subject", "experiment"):
            if key not in arrays:
                raise DataError(f"{path} has no {key}: delete it, then `pendula data get hapt_raw`")
        # ignored steps become -1, the first activity 0
        y = torch.from_numpy(arrays["label"].astype(numpy.int64)) - int(self.ignores)
        names = tuple(f"exp{e:02d}_user{s:02d}" for e, s in zip(arrays["experiment"], arrays["subject"], strict=True))
        offsets = torch.from_numpy(arrays["offsets"].astype(numpy.int64))
        whole = Sequences(torch.from_numpy(arrays["signal"]), offsets, y, names=names)
        return whole, torch.from_numpy(arrays["subject"].astype(numpy.int64))

    def _pieces(self, train: Sequences, window: int) -> Sequences:
        starts = [torch.arange(int(a), int(b), window) for a, b in zip(train.offsets, train.offsets[1:], strict=False)]
        cut = Sequences(train.flat, torch.cat((*starts, train.offsets[-1:])), train.y)
        taught = [bool((y != IGNORED).any()) for y in train.y.tensor_split(cut.offsets[1:-1])]
        return cut if all(taught) else cut.take(torch.tensor(taught).nonzero().squeeze(1))

    def targets(self, part: str, index: Tensor) -> int:
        sequences = self.part(part)
        counted = torch.cat((torch.zeros(1, dtype=torch.int64), (sequences.y != IGNORED).cumsum(0)))
        return int((counted[sequences.offsets[index + 1]] - counted[sequences.offsets[index]]).sum())

    def count(self, batch: Batch) -> int:
        return int(_counted(batch).sum())

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        # a window of truncated backpropagation may have no label at all
        return self.measures(output, batch)["loss"] / max(self.count(batch), 1)

    def measures(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        counted = _counted(batch)
        logits, y = output[counted], batch.y[counted]
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        loss = functional.cross_entropy(logits, y, reduction="sum")
        return {"loss": loss, "accuracy": (logits.argmax(-1) == y).sum()}


def _counted(batch: Batch) -> Tensor:
    """(T, B): the steps that have a target."""
    counted = batch.y != IGNORED
    if batch.lengths is None:
        return counted
    return counted & (torch.arange(batch.x.shape[0], device=batch.y.device).unsqueeze(1) < batch.lengths)
