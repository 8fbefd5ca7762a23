"""CIFAR-10 as a sequence: row by row and then noise, or pixel by pixel."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from pendula._check import DataError, one_of, positive_int
from pendula.tasks.base import PARTS, Batch, Sequences, StoredTask, Task
from pendula.tasks.chance import generator_for, split
from pendula.tasks.recordings import provenance
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import fetch, find
from pendula.tasks.table import read_npz

ORIGINAL, JPEG = "cifar10/cifar-10-binary.tar.gz", "cifar10_jpeg/cifar10_jpeg.npz"
IMAGES = ("auto", "original", "jpeg")
NOISES = ("frozen", "independent")
STEPS, ROWS, SIDE = 1000, 32, 32
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LOSSY = (
    "lossy: JPEG copies of CIFAR-10 (about 30.5 dB beside the originals), not the published pixels; "
    "not to be set beside published numbers"
)

Bytes = NDArray[numpy.uint8]


class Pixels(Sequences):
    """Sequences of bytes; a batch of them is in [0, 1]."""

    def batch(self, index: Tensor, *, per_step: bool) -> Batch:
        batch = super().batch(index, per_step=per_step)
        return replace(batch, x=batch.x.float() / 255)


class NoisyCIFAR10(Task):
    """CIFAR-10 row by row, then noise: 32 steps of 96 pixels in [0, 1] and 968 of Gaussian noise N(0, 1), 10 classes.

    Step r of an image holds its row r: 32 red, 32 green, 32 blue values (spec sheets ``cornn.md`` 5.2 and
    ``unicornn.md`` 5.2). The scripts of coRNN, UnICORNN and LEM draw one block of noise for all sequences of all parts
    and epochs ("frozen"), which a network can learn to expect; the task as posed in the antisymmetric-RNN paper (ICLR
    2019, cited in the sheet) has independent noise. Numbers of the two do not compare. Which images are held out is
    drawn by `split_seed` here, not with the authors' stream of random numbers.

    Args:
        noise: "frozen", or "independent": each sequence its own, drawn afresh in every epoch of training, fixed in
            validation and test.
        images: "original", the published pixels; "jpeg", the lossy copy; "auto", the first of them that is there.
        validation_size: training images held out: 3000 in coRNN, 2000 in UnICORNN and LEM.
        split_seed: draws them.
        noise_seed: draws the frozen block, and the independent noise of validation and test.

    Errors: DataError when neither copy is there, one is damaged, or Pillow is missing for the JPEG copy.
    """

    name: ClassVar[str] = "noisy_cifar10"
    summary: ClassVar[str] = "CIFAR-10 row by row, then noise: 1000 steps of 96"
    input_size, output_size, labels = 96, 10, LABELS

    def __init__(
        self,
        noise: str = "frozen",
        images: str = "auto",
        validation_size: int = 3000,
        split_seed: int = 0,
        noise_seed: int = 0,
    ) -> None:
        self.noise = one_of("noise", noise, NOISES)
        self.noise_seed = positive_int("noise_seed", noise_seed, least=0)
        read, self.provenance, self.notes = read_images(images)
        # (N, colour, row, column) -> (N, row, colour and column)
        rows = {part: (x.transpose(0, 2, 1, 3).reshape(-1, ROWS, 96), y) for part, (x, y) in read.items()}
        self.parts = _parts(rows, validation_size, split_seed)
        self.block = torch.randn(STEPS - ROWS, 96, generator=generator_for(self.noise_seed, STEPS - ROWS))

    def size(self, part: str) -> int:
        return len(self.parts[part])

    def rows(self, part: str, index: Tensor, seed: int, epoch: int) -> Batch:
        batch = self.parts[part].batch(index, per_step=False)
        if self.noise == "frozen":
            noise = self.block.unsqueeze(1).expand(-1, len(index), -1)
        else:
            stream = (seed, epoch, 0) if part == "train" else (self.noise_seed, 0, PARTS.index(part))
            drawn = [torch.randn(STEPS - ROWS, 96, generator=generator_for(*stream, int(i))) for i in index]
            noise = torch.stack(drawn, 1)
        return replace(batch, x=torch.cat((batch.x, noise)))

    def digest(self) -> str:
        # the images, and with a first batch the noise
        whole = hashlib.sha256(super().digest().encode())
        for pixels in self.parts.values():
            whole.update(pixels.flat.numpy().data)
            whole.update(pixels.y.numpy().data)
        return whole.hexdigest()


class SCIFAR10(StoredTask):
    """CIFAR-10 read pixel by pixel: 1024 steps of red, green and blue in [0, 1], row by row, 10 classes.

    "Sequential CIFAR" of the work on long memory; papers differ in whether they normalise the channels: with
    `standardise` the model scales them by the statistics of the training part.

    Args:
        images, validation_size, split_seed: as for `NoisyCIFAR10`.
        standardise: whether a model on this task scales its inputs.

    Errors: as for `NoisyCIFAR10`.
    """

    name: ClassVar[str] = "scifar10"
    summary: ClassVar[str] = "CIFAR-10 pixel by pixel, 1024 steps of 3"
    output_size, labels, image = 10, LABELS, (SIDE, SIDE)

    def __init__(
        self, images: str = "auto", validation_size: int = 5000, split_seed: int = 0, standardise: bool = True
    ) -> None:
        self.standardise = standardise
        read, self.provenance, self.notes = read_images(images)
        pixels = {part: (x.transpose(0, 2, 3, 1).reshape(-1, SIDE * SIDE, 3), y) for part, (x, y) in read.items()}
        super().__init__(dict(_parts(pixels, validation_size, split_seed)))

    def statistics(self) -> tuple[Tensor, Tensor]:
        # how often each value occurs says all, in a thousandth of the memory
        counts = torch.stack([torch.bincount(c, minlength=256) for c in self.part("train").flat.T]).double()
        share, value = counts / counts.sum(1, keepdim=True), torch.arange(256) / 255
        mean = (share * value).sum(1)
        scale = (share * (value - mean.unsqueeze(1)).square()).sum(1).sqrt()
        return mean.float(), torch.where(scale > 0, scale, 1).float()


def read_images(images: str) -> tuple[dict[str, tuple[Bytes, Bytes]], str, tuple[str, ...]]:
    """Pixels (N, 3, 32, 32) and labels (N,) of "train" and "test"; their provenance; and what has to be said.

    images: "original", "jpeg" or "auto", as for `NoisyCIFAR10`.
    """
    if one_of("images", images, IMAGES) == "original" or (images == "auto" and (find(ORIGINAL) or not find(JPEG))):
        path = fetch(ORIGINAL)
        return _read_original(path), provenance(path, SOURCES["cifar10"]), ()
    note = f"the images are {LOSSY}; `pendula data get cifar10` fetches the originals"
    return _read_jpeg(fetch(JPEG)), LOSSY, (note,)


def _read_original(path: Path) -> dict[str, tuple[Bytes, Bytes]]:
    names = {f"data_batch_{k}.bin": "train" for k in range(1, 6)} | {"test_batch.bin": "test"}
    found: dict[str, Bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                content = archive.extractfile(member) if name in names and member.isfile() else None
                if content is not None:
                    found[name] = numpy.frombuffer(content.read(), numpy.uint8)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path} is not a whole tar.gz archive ({error}): delete it and fetch it again") from error
    for name in names:
        # a record is the label and 3072 pixels: the red plane, the green one, the blue one
        if name not in found or not len(found[name]) or len(found[name]) % 3073 or found[name][::3073].max() > 9:
            raise DataError(f"{path} has no {name} with records of CIFAR-10: delete it and fetch it again")
    parts = {}
    for part in ("train", "test"):
        records = numpy.concatenate([found[name] for name in names if names[name] == part]).reshape(-1, 3073)
        parts[part] = records[:, 1:].reshape(-1, 3, SIDE, SIDE), records[:, 0]
    return parts


def _read_jpeg(path: Path) -> dict[str, tuple[Bytes, Bytes]]:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("the JPEG copy of CIFAR-10 needs Pillow: pip install 'pendula[train]'") from error
    arrays = read_npz(path)
    parts = {}
    for part in ("train", "test"):
        flat, offsets, label = _of_part(arrays, part, path)
        pixels = numpy.empty((len(label), SIDE, SIDE, 3), numpy.uint8)
        for i, (start, end) in enumerate(pairwise(offsets)):
            try:
                pixels[i] = numpy.asarray(Image.open(io.BytesIO(flat[start:end].tobytes())).convert("RGB"))
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: image {i} of {part} is damaged ({error}): get the file again") from error
        parts[part] = pixels.transpose(0, 3, 1, 2), label
    return parts


def _of_part(arrays: dict[str, NDArray[Any]], part: str, path: Path) -> tuple[NDArray[Any], NDArray[Any], Bytes]:
    keys = [f"{part}_{what}" for what in ("jpeg", "offsets", "label")]
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise DataError(f"{path} has no {missing[0]}: it is not the JPEG copy of CIFAR-10")
    flat, offsets, label = (arrays[key] for key in keys)
    return flat, offsets, label


def _parts(read: dict[str, tuple[Bytes, Bytes]], validation_size: int, split_seed: int) -> dict[str, Pixels]:
    x, y = read["train"]
    held_out = positive_int("validation_size", validation_size)
    if held_out >= len(y):
        raise ValueError(f"validation_size must be less than {len(y)}, the number of training images, got {held_out}")
    share = held_out / len(y)
    kept, held = (rows.numpy() for rows in split(len(y), (1 - share, share), split_seed))
    return {
        "train": _pixels(x[kept], y[kept]),
        "validation": _pixels(x[held], y[held]),
        "test": _pixels(*read["test"]),
    }


def _pixels(x: Bytes, y: Bytes) -> Pixels:
    count, steps, features = x.shape
    flat = torch.from_numpy(x.reshape(-1, features).copy())
    return Pixels(flat, torch.arange(count + 1) * steps, torch.from_numpy(y.astype(numpy.int64)))
