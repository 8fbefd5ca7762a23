"""Polyphonic music: which keys sound next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from pendula._check import DataError, one_of
from pendula.tasks.base import Batch, Sequences, StoredTask
from pendula.tasks.recordings import provenance
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import fetch
from pendula.tasks.table import read_npz

KEYS = 88
SETS = ("JSB_Chorales", "Nottingham", "MuseData", "Piano_midi")
FILE_PARTS = {"train": "train", "validation": "valid", "test": "test"}
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


class Rolls(Sequences):
    """Piano rolls of bytes; a batch of them has zeros and ones as floating numbers."""

    def batch(self, index: Tensor, *, per_step: bool) -> Batch:
        batch = super().batch(index, per_step=per_step)
        return replace(batch, x=batch.x.float(), y=batch.y.float())


class Music(StoredTask):
    """Piano rolls of 88 keys: from the keys that sound at each step, those of the next one.

    The loss is the negative log-likelihood in nats of a step's keys, each a coin of its own: summed over the 88 keys,
    averaged over all steps of a part (the "frame-level" figure of Boulanger-Lewandowski, Bengio and Vincent 2012). Of a
    piece of T steps, steps 2 to T are predicted, as in the public code of Bai, Kolter and Koltun (2018); splits are
    those of the files.

    Args:
        set: "JSB_Chorales", "Nottingham", "MuseData" or "Piano_midi".

    Errors: DataError when ``poly_music/<set>.npz`` is missing or something else.
    """

    name: ClassVar[str] = "music"
    summary: ClassVar[str] = "polyphonic music, the 88 keys of the next step (JSB chorales, Nottingham and others)"
    target = "bits"
    per_step = True
    output_size = KEYS
    # key k is MIDI pitch 21 + k, and pitch 60 is C4
    labels = tuple(f"{NOTES[pitch % 12]}{pitch // 12 - 1}" for pitch in range(21, 21 + KEYS))

    def __init__(self, set: str = "JSB_Chorales") -> None:
        self.set = one_of("set", set, SETS)
        path = fetch(f"poly_music/{self.set}.npz")
        arrays, name = read_npz(path), self.set.lower()
        parts: dict[str, Sequences] = {}
        for part, word in FILE_PARTS.items():
            packed, offsets = arrays.get(f"{word}_bits"), arrays.get(f"{word}_offsets")
            if packed is None or offsets is None or packed.ndim != 2 or packed.shape[1] * 8 != KEYS:
                raise DataError(f"{path} has no {part} rolls of 88 keys: delete it, then `pendula data get {name}`")
            parts[part] = _next_steps(numpy.unpackbits(packed, axis=1), offsets.astype(numpy.int64), path)
        super().__init__(parts)
        self.provenance = provenance(path, SOURCES[name])


def _next_steps(roll: NDArray[numpy.uint8], offsets: NDArray[numpy.int64], path: Path) -> Rolls:
    """Steps 1 to T - 1 of each piece, and as targets its steps 2 to T."""
    lengths = numpy.diff(offsets)
    if lengths.min() < 2:
        raise DataError(f"{path} has a piece of {lengths.min()} steps: needed are at least 2, to predict the second")
    last = numpy.zeros(len(roll), bool)
    last[offsets[1:] - 1] = True
    first = numpy.zeros(len(roll), bool)
    first[offsets[:-1]] = True
    x, y = torch.from_numpy(roll[~last]), torch.from_numpy(roll[~first])
    return Rolls(x, torch.from_numpy(offsets - numpy.arange(len(offsets))), y)
