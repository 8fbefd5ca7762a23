"""Polyphonic music, and targets that are bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from pendula._check import DataError
from pendula.nets import Model, ModelSpec, Node
from pendula.tasks.base import Batch
from pendula.tasks.music import FILE_PARTS, SETS, Music

PARTS = ("train", "validation", "test")
LENGTHS = {"train": [5, 9, 2], "valid": [4], "test": [7, 3]}


@pytest.fixture
def small(private_cache: Path) -> dict[str, list[numpy.ndarray]]:
    """Six short pieces."""
    draw = numpy.random.default_rng(4)
    pieces = {part: [draw.integers(0, 2, (n, 88), numpy.uint8) for n in own] for part, own in LENGTHS.items()}
    arrays = {}
    for part, own in pieces.items():
        arrays[f"{part}_bits"] = numpy.packbits(numpy.concatenate(own), axis=1)
        arrays[f"{part}_offsets"] = numpy.cumsum([0, *map(len, own)])
    (private_cache / "poly_music").mkdir(parents=True)
    numpy.savez(private_cache / "poly_music/JSB_Chorales.npz", **arrays)
    return pieces


def test_each_step_asks_for_the_keys_of_the_next_one(small: dict[str, list[numpy.ndarray]]) -> None:
    task = Music()
    for part, word in FILE_PARTS.items():
        batch = task.rows(part, torch.arange(task.size(part)), 0, 0)
        for i, piece in enumerate(small[word]):
            steps = len(piece) - 1
            assert batch.x[:steps, i].tolist() == piece[:-1].tolist()
            assert batch.y[:steps, i].tolist() == piece[1:].tolist()


def test_the_loss_is_summed_over_the_keys_and_averaged_over_the_steps(small: object) -> None:
    task = Music()
    batch = task.rows("train", torch.arange(3), 0, 0)
    assert task.count(batch) == 4 + 8 + 1 == task.targets("train", torch.arange(3))
    coins = torch.zeros(*batch.y.shape, dtype=torch.float64)
    assert float(task.loss(coins, batch)) == pytest.approx(88 * math.log(2), rel=1e-12)


def test_the_loss_is_the_negative_log_likelihood_of_independent_coins() -> None:
    task = object.__new__(Music)
    task.target, task.per_step = "bits", True
    logits = torch.randn(3, 2, 5, dtype=torch.float64)
    y = (torch.rand(3, 2, 5) < 0.4).double()
    chance = logits.sigmoid()
    likelihood = torch.where(y > 0, chance, 1 - chance).log().sum()
    assert float(task.loss(logits, Batch(torch.zeros(3, 2, 5), y))) == pytest.approx(-float(likelihood) / 6, rel=1e-12)


def test_the_best_epoch_is_the_one_with_the_smallest_loss(small: object) -> None:
    task = Music()
    batch = task.rows("test", torch.arange(2), 0, 0)
    assert set(task.measures(torch.zeros_like(batch.y), batch)) == {"loss"}
    assert task.selects == ("loss", False)


def test_predictions_of_bits_are_a_probability_each_and_no_class(small: object) -> None:
    predictions = pytest.importorskip("pendula.predictions", reason="pyarrow is not here: predictions are left out")
    task = Music()
    model = Model(ModelSpec(88, 88, (Node("LSTM", 4),), pool="steps", labels=task.labels))
    table = predictions.predict(model, task.part("test"), {"target": "bits", "per_step": True})
    assert table.column_names[:3] == ["id", "step", "probability A0"]
    assert table.column_names[-1] == "probability C8"
    output, _ = model(task.rows("test", torch.tensor([0]), 0, 0).x)
    assert table["probability C4"].to_pylist()[:6] == pytest.approx(output[:, 0, 39].sigmoid().tolist(), abs=1e-6)


def test_keys_are_named_after_their_pitch() -> None:
    assert [Music.labels[k] for k in (0, 1, 39, 48, 87)] == ["A0", "A#0", "C4", "A4", "C8"]


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"set must be one of JSB_Chorales, Nottingham, .*, got 'JSB'"):
        Music("JSB")


def test_a_set_that_is_not_here_says_how_to_get_it(private_cache: Path) -> None:
    with pytest.raises(DataError, match=r"Nottingham\.npz is missing: `pendula data get nottingham` fetches it"):
        Music("Nottingham")


@pytest.mark.parametrize("key", ["train_bits", "valid_offsets"])
def test_a_file_that_is_something_else_is_refused(small: object, private_cache: Path, key: str) -> None:
    path = private_cache / "poly_music/JSB_Chorales.npz"
    arrays = dict(numpy.load(path))
    del arrays[key]
    numpy.savez(path, **arrays)
    with pytest.raises(DataError, match=r"has no (train|validation) rolls of 88 keys: delete it, then .*jsb_chorales"):
        Music()


def test_a_piece_of_one_step_is_refused(small: object, private_cache: Path) -> None:
    path = private_cache / "poly_music/JSB_Chorales.npz"
    arrays = dict(numpy.load(path))
    arrays["test_offsets"] = numpy.array([0, 1, 10])
    numpy.savez(path, **arrays)
    with pytest.raises(DataError, match="has a piece of 1 steps: needed are at least 2"):
        Music()


@pytest.mark.parametrize(
    ("name", "pieces", "steps"),
    [
        ("JSB_Chorales", [229, 76, 77], 13807),
        ("Nottingham", [694, 173, 170], 176561),
        ("MuseData", [524, 135, 124], 245202),
        ("Piano_midi", [87, 12, 25], 75911),
    ],
)
def test_the_real_sets_have_the_known_sizes(
    shared_data: Callable[[str], Path], name: str, pieces: list[int], steps: int
) -> None:
    shared_data(f"poly_music/{name}.npz")
    task = Music(name)
    assert name in SETS
    assert [task.size(part) for part in PARTS] == pieces
    # one step of each piece has no next one
    assert len(task.part("train").flat) == steps - pieces[0]
    assert task.provenance.startswith("exact: ")
