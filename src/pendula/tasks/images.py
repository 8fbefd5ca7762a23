"""Images read pixel by pixel: digits (bundled with scikit-learn) and MNIST, in order or permuted."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import ClassVar

import numpy
import torch
from torch import Tensor

from pendula._check import DataError
from pendula.tasks.base import Sequences, StoredTask
from pendula.tasks.chance import generator_for, split
from pendula.tasks.store import fetch


class Digits(StoredTask):
    """Handwritten digits of 8 x 8 pixels read one by one: 64 steps, 10 classes.

    The test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998), 1797 images
    bundled with scikit-learn; split 1197 / 300 / 300 at random by a fixed seed, stratified by nothing.

    Args:
        permuted: read the pixels in one fixed random order.
    """

    name: ClassVar[str] = "digits"
    summary: ClassVar[str] = "8 x 8 handwritten digits pixel by pixel, 64 steps (bundled with scikit-learn)"
    provenance = "exact: bundled with scikit-learn"
    image: tuple[int, int] | None = (8, 8)

    def __init__(self, permuted: bool = False) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError(f"digits come with scikit-learn ({error}): pip install 'pendula[train]'") from error
        pixels, label = load_digits(return_X_y=True)
        x = torch.from_numpy(pixels / 16.0).float().unsqueeze(-1)
        if permuted:
            self.image = None
            x = x[:, torch.randperm(64, generator=generator_for(64))]
        y = torch.from_numpy(label).long()
        train, validation, test = split(len(y), (1197 / 1797, 300 / 1797, 300 / 1797), seed=0)
        parts = {"train": train, "validation": validation, "test": test}
        super().__init__({part: Sequences.stacked(x[rows], y[rows]) for part, rows in parts.items()})
        self.output_size, self.labels = 10, tuple("0123456789")


class SMNIST(StoredTask):
    """MNIST read pixel by pixel in order: 784 steps, 10 classes, pixels in [0, 1].

    57 000 / 3 000 / 10 000 as in the scripts of coRNN, LEM and UnICORNN (spec sheet ``cornn.md`` 5.2); which 3 000 of
    the training images are held out is drawn by `split_seed` here, not with the authors' stream of random numbers.

    Args:
        split_seed: draws the validation images.
    """

    name: ClassVar[str] = "smnist"
    summary: ClassVar[str] = "MNIST pixel by pixel, 784 steps"
    provenance = "exact: the four published files"
    image: tuple[int, int] | None = (28, 28)

    def __init__(self, split_seed: int = 0) -> None:
        train, test = (self._read(kind) for kind in ("train", "t10k"))
        kept, held = split(len(train[1]), (0.95, 0.05), split_seed)
        x, y = train
        parts = {"train": (x[kept], y[kept]), "validation": (x[held], y[held]), "test": test}
        order = self._order()
        super().__init__({k: Sequences.stacked(x[:, order].unsqueeze(-1), y) for k, (x, y) in parts.items()})
        self.output_size, self.labels = 10, tuple("0123456789")

    def _order(self) -> Tensor:
        return torch.arange(784)

    def _read(self, kind: str) -> tuple[Tensor, Tensor]:
        x = read_idx(fetch(f"mnist/{kind}-images-idx3-ubyte.gz")).reshape(-1, 784)
        y = read_idx(fetch(f"mnist/{kind}-labels-idx1-ubyte.gz"))
        return torch.from_numpy(x).float() / 255, torch.from_numpy(y).long()


class PSMNIST(SMNIST):
    """MNIST read pixel by pixel in one fixed random order.

    Args:
        permutation_seed: 12008 is the permutation of the coRNN paper's script, 5544 that of UnICORNN and LEM: torch's
            `randperm(784)` right after seeding (spec sheet ``cornn.md`` 5.2). Numbers on different permutations do
            not compare exactly.
        split_seed: draws the validation images.
    """

    name: ClassVar[str] = "psmnist"
    summary: ClassVar[str] = "MNIST pixel by pixel in a fixed random order, 784 steps"
    image = None

    def __init__(self, permutation_seed: int = 12008, split_seed: int = 0) -> None:
        self.permutation_seed = permutation_seed
        super().__init__(split_seed)

    def _order(self) -> Tensor:
        return permutation(self.permutation_seed)


def permutation(seed: int) -> Tensor:
    """`torch.randperm(784)` right after seeding, the published permutations of psMNIST.

    >>> permutation(12008)[:3].tolist(), permutation(5544)[:3].tolist()
    ([91, 97, 471], [327, 72, 48])
    """
    return torch.randperm(784, generator=torch.Generator().manual_seed(seed))


def read_idx(path: Path) -> numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.uint8]]:
    """A gzipped idx file of bytes, the format of MNIST. Errors: DataError if it is something else."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}; delete it and fetch it again") from error
    rank = data[3] if len(data) > 4 and data[:3] == b"\0\0\x08" else 0
    shape = tuple(int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(rank))
    body = numpy.frombuffer(data[4 + 4 * rank :], numpy.uint8)
    if not rank or len(data) < 4 + 4 * rank or body.size != numpy.prod(shape):
        raise DataError(f"{path} is not an idx file of bytes: delete it and fetch it again")
    return body.reshape(shape).copy()
