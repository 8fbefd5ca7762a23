"""Digits and MNIST (spec sheet cornn.md 5.2)."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from pendula._check import DataError
from pendula.tasks.images import PSMNIST, SMNIST, Digits, permutation, read_idx


def test_digits_are_split_1197_300_300_without_overlap() -> None:
    pytest.importorskip("sklearn")
    task = Digits()
    from sklearn.datasets import load_digits

    whole = torch.from_numpy(load_digits(return_X_y=True)[0] / 16.0).float()
    parts = {part: task.part(part).flat.reshape(-1, 64) for part in ("train", "validation", "test")}
    assert [len(x) for x in parts.values()] == [1197, 300, 300]
    # all images differ, so that equal multisets of images mean that each stands in one part
    together = torch.cat(list(parts.values()))
    assert len(whole.unique(dim=0)) == 1797
    assert torch.equal(together.unique(dim=0), whole.unique(dim=0))


def test_permuted_digits_have_the_same_pixels_in_another_order() -> None:
    pytest.importorskip("sklearn")
    plain, permuted = (Digits(permuted=p).part("test").flat.reshape(-1, 64) for p in (False, True))
    assert not torch.equal(plain, permuted)
    assert torch.equal(plain.sort(1).values, permuted.sort(1).values)


@pytest.mark.parametrize(
    ("seed", "start", "checksum"),
    [
        (12008, [91, 97, 471, 426, 157, 451, 312, 198, 117, 454], 121301791),
        (5544, [327, 72, 48, 129, 109, 101, 69, 569, 79, 263], 121087537),
    ],
)
def test_the_published_permutations_are_reproduced(seed: int, start: list[int], checksum: int) -> None:
    order = permutation(seed)
    assert order[:10].tolist() == start
    assert int((torch.arange(784) * order).sum()) == checksum


def test_mnist_has_the_published_mean_deviation_and_counts(shared_data: Callable[[str], Path]) -> None:
    x = read_idx(shared_data("mnist/train-images-idx3-ubyte.gz"))
    y = read_idx(shared_data("mnist/train-labels-idx1-ubyte.gz"))
    z = read_idx(shared_data("mnist/t10k-labels-idx1-ubyte.gz"))
    assert x.shape == (60000, 28, 28)
    assert x.mean() / 255 == pytest.approx(0.13066, abs=5e-6)
    assert x.std() / 255 == pytest.approx(0.30811, abs=5e-6)
    assert numpy.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert numpy.bincount(z).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_smnist_is_57000_3000_10000_and_psmnist_is_its_permutation(shared_data: Callable[[str], Path]) -> None:
    shared_data("mnist/train-images-idx3-ubyte.gz")
    task = SMNIST()
    assert [task.size(part) for part in ("train", "validation", "test")] == [57000, 3000, 10000]
    rows = torch.arange(20)
    plain = task.rows("test", rows, 0, 0).x
    del task
    permuted = PSMNIST().rows("test", rows, 0, 0).x
    assert plain.shape == (784, 20, 1)
    assert torch.equal(permuted, plain[permutation(12008)])


@pytest.mark.parametrize(
    "data",
    [
        b"no gzip",
        gzip.compress(b""),
        gzip.compress(b"x" * 30),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x05ab"),
        gzip.compress(b"\0\0\x08\x03ab"),
    ],
)
def test_a_file_that_is_not_idx_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"images\.gz is not .*fetch it again"):
        read_idx(path)


@pytest.mark.parametrize("place", [20, 600, -6])
def test_a_gzip_file_that_is_damaged_anywhere_is_refused(tmp_path: Path, place: int) -> None:
    path = tmp_path / "images.gz"
    whole = bytearray(gzip.compress(numpy.random.default_rng(0).integers(0, 4, 5000, numpy.uint8).tobytes()))
    whole[place] ^= 0x55
    path.write_bytes(whole)
    with pytest.raises(DataError, match="fetch it again"):
        read_idx(path)


@pytest.mark.parametrize(
    ("permuted", "digest"),
    [
        (False, "58141f78fc179a70"),
        (True, "892441d2facdda4a"),
    ],
)
def test_the_test_part_of_digits_is_the_one_held_out_while_settings_were_chosen(permuted: bool, digest: str) -> None:
    flat = Digits(permuted).part("test").flat
    assert hashlib.sha256(flat.numpy().tobytes()).hexdigest().startswith(digest)
