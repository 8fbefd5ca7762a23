"""CIFAR-10 row by row with noise, and pixel by pixel (spec sheets cornn.md 5.2, unicornn.md 5.2)."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from pendula._check import DataError
from pendula.tasks.cifar import JPEG, ORIGINAL, SCIFAR10, NoisyCIFAR10
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import get

PARTS = ("train", "validation", "test")
FILES = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]


def records(seed: int = 0) -> numpy.ndarray:
    """60 images (label, red plane, green plane, blue plane); the first pixel tells which one it is."""
    data = numpy.random.default_rng(seed).integers(0, 256, (60, 3073), numpy.uint8)
    data[:, 0], data[:, 1] = numpy.arange(60) % 10, numpy.arange(60)
    return data


def archive(path: Path, files: list[str] = FILES, cut: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name in files:
            k = FILES.index(name)
            body = records()[10 * k : 10 * k + 10].tobytes()
            body = body[: len(body) - cut]
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(body)
            file.addfile(member, io.BytesIO(body))
    return path


@pytest.fixture
def original(private_cache: Path) -> Path:
    return archive(private_cache / ORIGINAL)


@pytest.fixture
def jpeg(private_cache: Path) -> Path:
    """4 grey training images and 2 test images as JPEG files."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not here: what is claimed of the JPEG copy is left out")
    arrays = {}
    for part, levels in (("train", [10, 60, 110, 160]), ("test", [210, 250])):
        files = []
        for level in levels:
            buffer = io.BytesIO()
            image.fromarray(numpy.full((32, 32, 3), level, numpy.uint8)).save(buffer, "JPEG", quality=95)
            files.append(numpy.frombuffer(buffer.getvalue(), numpy.uint8))
        arrays[f"{part}_jpeg"] = numpy.concatenate(files)
        arrays[f"{part}_offsets"] = numpy.cumsum([0, *map(len, files)])
        arrays[f"{part}_label"] = numpy.arange(len(levels), dtype=numpy.uint8)
    path = private_cache / JPEG
    path.parent.mkdir(parents=True, exist_ok=True)
    numpy.savez(path, **arrays)
    return path


def numbers(task: NoisyCIFAR10, part: str) -> list[int]:
    """Which images a part has."""
    x = task.rows(part, torch.arange(task.size(part)), 0, 0).x
    return sorted((x[0, :, 0] * 255).round().int().tolist())


def test_a_step_holds_the_red_green_and_blue_values_of_a_row(original: Path) -> None:
    batch = NoisyCIFAR10(validation_size=5).rows("test", torch.tensor([3, 7]), 0, 0)
    assert batch.x.shape == (1000, 2, 96)
    planes = torch.from_numpy(records()[[53, 57], 1:].reshape(2, 3, 32, 32)).float() / 255
    for row in (0, 5, 31):
        assert torch.equal(batch.x[row], planes[:, :, row].reshape(2, 96))
    assert batch.y.tolist() == [3, 7]


def test_frozen_noise_is_one_block_for_all_sequences_parts_and_epochs(original: Path) -> None:
    task = NoisyCIFAR10(validation_size=5)
    blocks = [task.rows(part, torch.arange(3), 4, epoch).x[32:] for part in PARTS for epoch in (0, 1)]
    assert all(torch.equal(block, blocks[0]) for block in blocks)
    assert torch.equal(blocks[0][:, 0], blocks[0][:, 2])


def test_independent_noise_is_drawn_afresh_in_training_and_stays_in_the_test_part(original: Path) -> None:
    task = NoisyCIFAR10(noise="independent", validation_size=5)
    index = torch.arange(3)
    train = [task.rows("train", index, 4, epoch).x[32:] for epoch in (0, 1)]
    assert not torch.equal(train[0], train[1])
    assert not torch.equal(train[0][:, 0], train[0][:, 1])
    tests = [task.rows("test", index, seed, epoch).x[32:] for seed, epoch in ((4, 0), (5, 1))]
    assert torch.equal(tests[0], tests[1])
    assert not torch.equal(tests[0], task.rows("validation", index, 4, 0).x[32:])


def test_independent_noise_does_not_depend_on_the_batch(original: Path) -> None:
    task = NoisyCIFAR10(noise="independent", validation_size=5)
    together = task.rows("train", torch.tensor([2, 8]), 1, 3).x
    assert torch.equal(together[:, 1:], task.rows("train", torch.tensor([8]), 1, 3).x)


@pytest.mark.parametrize("noise", ["frozen", "independent"])
def test_the_noise_is_standard_normal(original: Path, noise: str) -> None:
    values = NoisyCIFAR10(noise=noise, validation_size=5).rows("train", torch.tensor([0]), 0, 0).x[32:].double()
    # four standard errors of 968 x 96 numbers
    assert abs(float(values.mean())) < 4 / values.numel() ** 0.5
    assert float(values.var()) == pytest.approx(1, abs=4 * (2 / values.numel()) ** 0.5)


def test_every_image_is_in_one_part_and_the_test_part_is_the_published_one(original: Path) -> None:
    task = NoisyCIFAR10(validation_size=8)
    assert [task.size(part) for part in PARTS] == [42, 8, 10]
    assert sorted(numbers(task, "train") + numbers(task, "validation")) == list(range(50))
    assert numbers(task, "test") == list(range(50, 60))


def test_the_held_out_images_are_drawn_by_the_split_seed(original: Path) -> None:
    drawn = [numbers(NoisyCIFAR10(validation_size=8, split_seed=seed), "validation") for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("other", [{"noise": "independent"}, {"noise_seed": 1}, {"split_seed": 1}])
def test_the_digest_tells_other_noise_and_other_splits(original: Path, other: dict[str, int]) -> None:
    plain = NoisyCIFAR10(validation_size=8).digest()
    assert plain == NoisyCIFAR10(validation_size=8).digest()
    assert plain != NoisyCIFAR10(validation_size=8, **other).digest()


def test_settings_that_cannot_be_are_refused(original: Path) -> None:
    with pytest.raises(ValueError, match=r"noise must be one of frozen, independent, got 'frosen'.*did you mean"):
        NoisyCIFAR10(noise="frosen")
    with pytest.raises(ValueError, match="validation_size must be less than 50, the number of training images, got 50"):
        NoisyCIFAR10(validation_size=50)
    with pytest.raises(ValueError, match="images must be one of auto, original, jpeg"):
        NoisyCIFAR10(images="png")


def test_an_archive_that_is_not_the_published_one_is_not_called_exact(original: Path) -> None:
    assert NoisyCIFAR10(validation_size=5).provenance.startswith("unknown: cifar-10-binary.tar.gz is not")


def test_the_archive_comes_whole_from_its_address_and_is_called_exact_then(
    mirror: tuple[Path, str], private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    sent = archive(folder / ORIGINAL)
    source = SOURCES["cifar10"]
    small = replace(source.files[0], sha256=hashlib.sha256(sent.read_bytes()).hexdigest())
    monkeypatch.setitem(SOURCES, "cifar10", replace(source, files=(small,)))
    assert get("cifar10", base_url=address) == [private_cache / ORIGINAL]
    assert NoisyCIFAR10(validation_size=5).provenance == "exact: the published binary archive"


def test_the_published_archive_is_the_one_that_its_authors_name() -> None:
    file = SOURCES["cifar10"].files[0]
    assert file.urls == ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
    assert (file.size, file.sha256[:8]) == (170052171, "c4a38c50")


@pytest.mark.parametrize("spoil", ["no archive", "cut", "file", "records"])
def test_a_damaged_archive_is_refused(private_cache: Path, spoil: str) -> None:
    path = archive(private_cache / ORIGINAL, FILES[1:] if spoil == "file" else FILES, cut=7 * (spoil == "records"))
    if spoil == "no archive":
        path.write_bytes(b"<html>not found</html>")
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz .*delete it and fetch it again"):
        NoisyCIFAR10(validation_size=5)


def test_without_any_copy_it_says_how_to_get_the_originals(private_cache: Path) -> None:
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is missing: `pendula data get cifar10` fetches it"):
        NoisyCIFAR10()


def test_the_lossy_copy_is_read_where_the_originals_are_not_and_says_so(jpeg: Path) -> None:
    task = NoisyCIFAR10(validation_size=1)
    assert [task.size(part) for part in PARTS] == [3, 1, 2]
    levels = task.rows("test", torch.arange(2), 0, 0).x[:32].mean((0, 2)) * 255
    assert levels.round().tolist() == [210, 250]
    assert task.provenance.startswith("lossy: ")
    assert task.provenance.endswith("not to be set beside published numbers")
    assert "`pendula data get cifar10` fetches the originals" in task.notes[0]


def test_the_originals_come_first_and_the_copy_can_be_ruled_out(jpeg: Path, private_cache: Path) -> None:
    with pytest.raises(DataError, match="`pendula data get cifar10`"):
        NoisyCIFAR10(images="original", validation_size=1)
    archive(private_cache / ORIGINAL)
    assert NoisyCIFAR10(validation_size=1).size("test") == 10
    assert NoisyCIFAR10(images="jpeg", validation_size=1).size("test") == 2


def test_without_pillow_it_says_what_to_install(jpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"needs Pillow: pip install 'pendula\[train\]'"):
        NoisyCIFAR10(validation_size=1)


def test_a_damaged_jpeg_file_is_named(jpeg: Path) -> None:
    arrays = dict(numpy.load(jpeg))
    arrays["test_jpeg"][arrays["test_offsets"][1] :] = 0
    numpy.savez(jpeg, **arrays)
    with pytest.raises(DataError, match="image 1 of test is damaged"):
        NoisyCIFAR10(validation_size=1)


def test_sequential_cifar_reads_the_pixels_row_by_row(original: Path) -> None:
    batch = SCIFAR10(validation_size=5).rows("test", torch.tensor([4]), 0, 0)
    assert batch.x.shape == (1024, 1, 3)
    planes = torch.from_numpy(records()[54, 1:].reshape(3, 32, 32)).float() / 255
    assert torch.equal(batch.x[32 * 6 + 11, 0], planes[:, 6, 11])
    assert batch.lengths is None


def test_the_statistics_of_sequential_cifar_are_those_of_its_pixels(original: Path) -> None:
    task = SCIFAR10(validation_size=5)
    mean, scale = task.statistics()
    values = task.rows("train", torch.arange(45), 0, 0).x.double().reshape(-1, 3)
    assert torch.allclose(mean.double(), values.mean(0), atol=1e-6)
    assert torch.allclose(scale.double(), values.std(0, correction=0), atol=1e-6)


@pytest.fixture
def real(shared_data: Callable[[str], Path]) -> dict[str, numpy.ndarray]:
    return dict(numpy.load(shared_data(JPEG)))


def test_the_real_copy_has_the_known_colours(real: dict[str, numpy.ndarray], jpeg: Path) -> None:
    # 100 of each class: the file is sorted
    rows = numpy.arange(0, 10000, 10)
    pieces = [real["test_jpeg"][real["test_offsets"][i] : real["test_offsets"][i + 1]] for i in rows]
    some = {"jpeg": numpy.concatenate(pieces), "offsets": numpy.cumsum([0, *map(len, pieces)])}
    some["label"] = real["test_label"][rows]
    numpy.savez(jpeg, **{f"{part}_{key}": value for part in ("train", "test") for key, value in some.items()})
    task = SCIFAR10(images="jpeg", validation_size=10)
    assert torch.bincount(task.part("test").y).tolist() == [100] * 10
    pixels = task.rows("test", torch.arange(1000), 0, 0).x
    # the means of the published training images [from memory]: 0.4914, 0.4822, 0.4465
    assert pixels.mean((0, 1)).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)
