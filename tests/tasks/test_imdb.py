"""Film reviews as words or bytes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tests import tolerance

from pendula import Model, ModelSpec, Node
from pendula._check import DataError
from pendula.tasks import store
from pendula.tasks.imdb import IMDB

PARTS = ("train", "validation", "test")


def review(part: str, number: int) -> str:
    """A review of number + 1 words, one of them its own; odd ones have a word of their part."""
    return " ".join([f"{part}{number}", *(["the"] * (number % 5)), *([part] * (number % 2))])


@pytest.fixture
def small(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 + 10 reviews, the second half of each positive."""
    arrays: dict[str, numpy.ndarray] = {}
    for part, count in (("train", 20), ("test", 10)):
        coded = [review(part, k).encode() for k in range(count)]
        number = numpy.tile(numpy.arange(count // 2), 2)
        label = numpy.repeat([0, 1], count // 2)
        arrays |= {
            f"{part}_text": numpy.frombuffer(b"".join(coded), numpy.uint8),
            f"{part}_offsets": numpy.cumsum([0, *map(len, coded)]).astype(numpy.int64),
            f"{part}_label": label.astype(numpy.uint8),
            f"{part}_rating": (3 + 5 * label).astype(numpy.uint8),
            f"{part}_id": number.astype(numpy.int32),
        }
    path = private_cache / "imdb/imdb_bytes.npz"
    path.parent.mkdir(parents=True)
    numpy.savez(path, **arrays)
    known = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    monkeypatch.setattr(IMDB, "digests", known)
    return path


def said(task: IMDB, part: str, k: int) -> list[str]:
    sequences = task.part(part)
    tokens = sequences.flat[sequences.offsets[k] : sequences.offsets[k + 1]].tolist()
    return [("<padding>", "<unknown>", *task.words)[token] for token in tokens]


def test_seventy_percent_of_the_training_part_is_trained_on(small: Path) -> None:
    task = IMDB()
    assert [task.size(part) for part in PARTS] == [14, 6, 10]
    names = [set(task.part(part).names or ()) for part in ("train", "validation")]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 20


def test_what_is_held_out_is_drawn_by_the_split_seed_alone(small: Path) -> None:
    torch.manual_seed(4)
    drawn = [IMDB(split_seed=seed).part("validation").names for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_the_vocabulary_is_that_of_the_reviews_that_are_trained_on(small: Path) -> None:
    task = IMDB()
    own = {word for k in range(task.size("train")) for word in said(task, "train", k)}
    assert set(task.words) == own
    assert task.words[0] == "the"
    assert task.vocabulary == len(own) + 2
    assert not any(word.startswith("test") for word in task.words)


def test_a_word_that_training_has_not_is_unknown(small: Path) -> None:
    task = IMDB()
    assert said(task, "test", 3) == ["<unknown>", "the", "the", "the", "<unknown>"]
    assert "<padding>" not in said(task, "test", 3)


def test_only_so_many_words_are_known(small: Path) -> None:
    task = IMDB(vocabulary_size=1)
    assert (task.words, task.vocabulary) == (("the",), 3)


def test_words_keep_their_order_and_their_review(small: Path) -> None:
    task = IMDB()
    for k, name in enumerate(task.part("train").names or ()):
        side, number = name.split("_")[0].split("/")
        row = int(number) + 10 * (side == "pos")
        assert said(task, "train", k) == review("train", row).split()
        assert int(task.part("train").y[k]) == (side == "pos")


def test_bytes_are_themselves_plus_one(small: Path) -> None:
    task = IMDB("bytes")
    sequences = task.part("test")
    first = sequences.flat[: int(sequences.offsets[1])]
    assert bytes((first - 1).tolist()) == b"test0"
    assert (task.vocabulary, task.words) == (257, ())


@pytest.mark.parametrize("level", ["words", "bytes"])
def test_what_follows_the_longest_length_is_left_out(small: Path, level: str) -> None:
    whole, cut = IMDB(level), IMDB(level, max_length=3)
    assert torch.equal(cut.part("test").lengths, whole.part("test").lengths.clamp(max=3))
    for k in range(10):
        a, b = whole.part("test"), cut.part("test")
        assert torch.equal(a.flat[a.offsets[k] :][:3][: int(b.lengths[k])], b.flat[b.offsets[k] : b.offsets[k + 1]])


def test_batches_hold_tokens_padded_with_zero(small: Path) -> None:
    batch = IMDB().rows("test", torch.tensor([9, 0]), 0, 0)
    assert (batch.x.dtype, tuple(batch.x.shape)) == (torch.int64, (6, 2))
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [6, 1]
    assert batch.x[1:, 1].tolist() == [0] * 5
    assert bool((batch.x[:, 0] > 0).all())
    assert batch.y.tolist() == [1, 0]


def reader(task: IMDB) -> Model:
    return Model(ModelSpec(4, 1, (Node("CoRNN", 5),), vocabulary=task.vocabulary), dtype=torch.float64)


def test_a_padded_prediction_depends_on_the_batch(small: Path) -> None:
    task = IMDB(padded=True)
    alone, together = (task.rows("test", torch.tensor(rows), 0, 0) for rows in ([0], [0, 9]))
    assert together.lengths is None
    model = reader(task)
    a, b = model(alone.x)[0][0], model(together.x)[0][0]
    assert not torch.allclose(a, b, rtol=1e-6)


def test_a_prediction_does_not_depend_on_the_batch_otherwise(small: Path) -> None:
    task = IMDB()
    alone, together = (task.rows("test", torch.tensor(rows), 0, 0) for rows in ([0], [0, 9]))
    model = reader(task)
    a, b = model(alone.x)[0][0], model(together.x, lengths=together.lengths)[0][0]
    torch.testing.assert_close(a, b, **tolerance.ROUNDING)


def test_predictions_run_through_the_padding_as_the_measurement_does(small: Path) -> None:
    pytest.importorskip("pyarrow", reason="predictions need the [train] extra")
    from pendula.learn.fit import evaluate
    from pendula.predictions import predict

    task = IMDB(padded=True)
    model = reader(task).eval()
    table = predict(model, task.part("test"), {"per_step": False, "target": "binary"})
    said_right = [int(word) == y for word, y in zip(table["prediction"].to_pylist(), task.part("test").y, strict=True)]
    chance = table["probability 1"].to_pylist()
    loss = [-math.log(p if y else 1 - p) for p, y in zip(chance, task.part("test").y.tolist(), strict=True)]
    measured = evaluate(model, task, "test")
    assert measured["accuracy"] == sum(said_right) / 10
    assert measured["loss"] == pytest.approx(sum(loss) / 10, rel=1e-9)


def test_the_words_are_kept_in_the_cache_and_not_in_the_data_folder(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data/imdb"
    data.mkdir(parents=True)
    small.rename(data / small.name)
    monkeypatch.setenv("PENDULA_DATA", str(data.parent))
    IMDB()
    assert [p.name for p in data.iterdir()] == [small.name]
    assert len(list((store.cache() / "imdb").glob("words-*.npz"))) == 1


def test_other_reviews_are_refused(small: Path) -> None:
    arrays = dict(numpy.load(small, allow_pickle=False))
    numpy.savez(small, **(arrays | {"test_label": arrays["test_label"][::-1]}))
    with pytest.raises(DataError, match="does not hold the published reviews: test_label has the SHA-256"):
        IMDB()


def test_a_missing_file_says_how_to_get_it(private_cache: Path) -> None:
    with pytest.raises(DataError, match="`pendula data get imdb` fetches it"):
        IMDB()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "word"}, "level must be one of words, bytes, got 'word'.*'words'"),
        ({"max_length": 0}, "max_length must be a whole number, at least 1, got 0"),
        ({"vocabulary_size": 0}, "vocabulary_size must be a whole number, at least 1, got 0"),
        ({"split_seed": -1}, "split_seed must be a whole number, at least 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(small: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IMDB(**arguments)


def test_the_shared_reviews_have_the_published_sizes(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_data("imdb/imdb_bytes.npz")
    monkeypatch.setattr(store, "cache", lambda: tmp_path)
    task = IMDB(max_length=50)
    assert [task.size(part) for part in PARTS] == [17_500, 7_500, 25_000]
    assert task.vocabulary == 25_002
    assert int(task.part("test").y.sum()) == 12_500
    assert task.words[:4] == ("the", ".", ",", "and")
