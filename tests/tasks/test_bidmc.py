"""Heart rate, respiratory rate and blood oxygen."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.tasks.archives import half, ts

from pendula._check import DataError
from pendula.tasks import BIDMCHeartRate, BIDMCOxygen, BIDMCRespiratoryRate
from pendula.tasks.archive_files import wrong_values
from pendula.tasks.base import PARTS
from pendula.tasks.bidmc import BIDMC, random_parts
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import check, get

TARGET = "@targetLabel true"
TRAIN = half(1, [str(60 + k) for k in range(13)], [5] * 13)
TEST = half(2, [str(90.5 + k) for k in range(7)], [5] * 7)


@pytest.fixture
def small(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 windows of 5 steps as the published text files, put in the folder by hand."""
    monkeypatch.setattr(BIDMC, "shape", (20, 5, 2))
    source = replace(SOURCES["bidmc_hr"], verify=partial(wrong_values, shape=(20, 5, 2)))
    monkeypatch.setitem(SOURCES, "bidmc_hr", source)
    folder = private_cache / "bidmc"
    folder.mkdir(parents=True)
    (folder / "BIDMC32HR_TRAIN.ts").write_text(ts(TRAIN, TARGET))
    (folder / "BIDMC32HR_TEST.ts").write_text(ts(TEST, TARGET))
    return folder


def test_the_published_files_are_converted_and_checked(small: Path) -> None:
    assert get("bidmc_hr") == [small / "BIDMC32HR.npz"]
    assert check("bidmc_hr") == [("bidmc/BIDMC32HR.npz", "ok (converted from the published archive)")]


def test_windows_are_pooled_and_stay_with_their_target_raw(small: Path) -> None:
    get("bidmc_hr")
    task = BIDMCHeartRate()
    assert [task.size(part) for part in PARTS] == [14, 3, 3]
    pooled = {float(label): x for x, label in zip((*TRAIN[0], *TEST[0]), (*TRAIN[1], *TEST[1]), strict=True)}
    seen = []
    for part in PARTS:
        batch = task.rows(part, torch.arange(task.size(part)), 0, 0)
        for k, target in enumerate(batch.y[:, 0].tolist()):
            assert torch.equal(batch.x[:, k], torch.from_numpy(pooled[target]))
            seen.append(target)
    assert sorted(seen) == sorted(pooled)


def test_the_loss_is_the_mean_squared_error_so_that_its_root_is_what_papers_print(small: Path) -> None:
    get("bidmc_hr")
    task = BIDMCHeartRate()
    batch = task.rows("test", torch.arange(3), 0, 0)
    off = torch.tensor([[3.0], [-4.0], [0.0]])
    assert float(task.loss(batch.y + off, batch)) == pytest.approx(25 / 3, rel=1e-5)


def test_the_cuts_are_those_of_torch_random_split_on_a_data_set_of_that_size() -> None:
    """The recipe of the repository, written as there."""
    data = torch.utils.data.TensorDataset(torch.arange(7949))
    seeded = [torch.Generator().manual_seed(123456) for _ in range(2)]
    train, rest = torch.utils.data.random_split(data, [5565, 2384], generator=seeded[0])
    test, validation = torch.utils.data.random_split(rest, [1192, 1192], generator=seeded[1])
    parts = random_parts(7949, 123456)
    for name, expected in (("train", train), ("validation", validation), ("test", test)):
        assert parts[name].tolist() == [int(row) for (row,) in expected]


def test_another_seed_is_another_split(small: Path) -> None:
    get("bidmc_hr")
    assert BIDMCHeartRate(split_seed=1).digest() != BIDMCHeartRate().digest()


@pytest.mark.parametrize("task", [BIDMCHeartRate, BIDMCRespiratoryRate, BIDMCOxygen])
def test_a_missing_set_says_how_to_get_it(private_cache: Path, task: type[BIDMC]) -> None:
    with pytest.raises(DataError, match=f"`pendula data get {task.name}` fetches it, or put BIDMC32.*npz in .*bidmc"):
        task()


def test_a_file_of_another_size_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get("bidmc_hr")
    monkeypatch.setattr(BIDMC, "shape", (7949, 4000, 2))
    with pytest.raises(DataError, match=r"channels are \(20, 5, 2\), needed are \(7949, 4000, 2\); delete it, then"):
        BIDMCHeartRate()


def test_the_face_of_the_tasks(small: Path) -> None:
    get("bidmc_hr")
    task = BIDMCHeartRate()
    assert (task.target, task.output_size, task.input_size, task.standardise) == ("values", 1, 2, False)
    assert task.selects == ("loss", False)
