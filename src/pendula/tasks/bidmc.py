"""Heart rate, respiratory rate and blood oxygen from two signals of a bedside monitor (BIDMC)."""

from __future__ import annotations

from typing import ClassVar

import numpy
import torch
from torch import Tensor
from torch.utils.data import TensorDataset, random_split

from pendula._check import DataError, positive_int
from pendula.tasks.archive_files import verify_values
from pendula.tasks.base import PARTS, Sequences, StoredTask
from pendula.tasks.store import fetch
from pendula.tasks.table import read_npz


class BIDMC(StoredTask):
    """7949 windows of 4000 steps and 2 channels (PPG and ECG, raw) of 53 patients; one number is predicted of each.

    Sets of the time series extrinsic regression archive (Tan et al. 2020, arXiv 2006.10996), made from recordings of
    Pimentel et al. 2017 (signals and patients: from memory). The loss is the mean squared error in the unit of the
    target; papers print its square root.

    The published training and test part are pooled and split 5565 / 1192 / 1192 as the LEM repository does for the
    heart rate (spec sheet ``cornn.md`` 5.6): torch's random_split, seed 123456 for both cuts, the second one ordered
    test, validation. UnICORNN gives no seed. Windows of one patient overlap and are in all parts: such a split says too
    much good of a network on new patients.

    Args:
        split_seed: the seed of both cuts.
        standardise: whether a model on this task scales its inputs; the papers feed raw values.

    Errors: DataError when ``bidmc/BIDMC32<HR, RR or SpO2>.npz`` is missing (it says how to get it) or something else.
    """

    file: ClassVar[str]
    shape: ClassVar[tuple[int, int, int]] = (7949, 4000, 2)
    target = "values"
    output_size = 1

    def __init__(self, split_seed: int = 123456, standardise: bool = False) -> None:
        self.split_seed = positive_int("split_seed", split_seed, least=0)
        self.standardise = standardise
        path = fetch(self.file)
        arrays = read_npz(path)
        wrong = verify_values(arrays, self.shape)
        if wrong:
            raise DataError(
                f"{path} is damaged or another set: {wrong}; delete it, then `pendula data get {self.name}`"
            )
        self.provenance = "the archive's published files as they came; no checksum of this set is known"
        x = torch.from_numpy(numpy.concatenate([arrays["X_train"], arrays["X_test"]]))
        y = torch.from_numpy(numpy.concatenate([arrays["y_train"], arrays["y_test"]])).unsqueeze(1)
        rows = random_parts(len(y), self.split_seed)
        super().__init__({part: Sequences.stacked(x[rows[part]], y[rows[part]]) for part in PARTS})
        self.notes = (
            f"train and test pooled, then split as in LEM's repository, seed {split_seed}; patients are mixed",
        )


class BIDMCHeartRate(BIDMC):
    """Heart rate in beats per minute. See `BIDMC`."""

    name: ClassVar[str] = "bidmc_hr"
    summary: ClassVar[str] = "heart rate from a bedside monitor, 4000 steps of 2 channels"
    file = "bidmc/BIDMC32HR.npz"


class BIDMCRespiratoryRate(BIDMC):
    """Respiratory rate in breaths per minute. See `BIDMC`."""

    name: ClassVar[str] = "bidmc_rr"
    summary: ClassVar[str] = "respiratory rate from a bedside monitor, 4000 steps of 2 channels"
    file = "bidmc/BIDMC32RR.npz"


class BIDMCOxygen(BIDMC):
    """Blood oxygen saturation in per cent. See `BIDMC`."""

    name: ClassVar[str] = "bidmc_spo2"
    summary: ClassVar[str] = "blood oxygen from a bedside monitor, 4000 steps of 2 channels"
    file = "bidmc/BIDMC32SpO2.npz"


def random_parts(count: int, seed: int) -> dict[str, Tensor]:
    """Row numbers of each part: 30 % cut off, then halved into test and validation, by torch's random_split.

    >>> [len(random_parts(7949, 123456)[part]) for part in ("train", "validation", "test")]
    [5565, 1192, 1192]
    """

    def cut(rows: Tensor, sizes: list[int]) -> list[Tensor]:
        chosen = random_split(TensorDataset(rows), sizes, generator=torch.Generator().manual_seed(seed))
        return [rows[torch.tensor(subset.indices, dtype=torch.int64)] for subset in chosen]

    held = 3 * count // 10
    train, rest = cut(torch.arange(count), [count - held, held])
    test, validation = cut(rest, [held - held // 2, held // 2])
    return {"train": train, "validation": validation, "test": test}
