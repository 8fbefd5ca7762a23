"""Published texts: archives become the files that are read, verified, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy
import pytest

from pendula._check import DataError
from pendula.tasks import texts
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import check, fetch, get
from pendula.tasks.table import read_npz
from pendula.tasks.texts import REVIEWS, SHAKESPEARE, convert_reviews, read_reviews, wrong_reviews, wrong_shakespeare

WRITTEN = {
    "aclImdb/train/pos/2_9.txt": "Great é",
    "aclImdb/train/neg/10_1.txt": "worst",
    "aclImdb/train/neg/2_4.txt": "bad<br />film",
    "aclImdb/train/pos/0_7.txt": "good",
    "aclImdb/train/unsup/0_0.txt": "unlabelled",
    "aclImdb/test/pos/0_10.txt": "superb",
    "aclImdb/test/neg/0_2.txt": "dull",
    "aclImdb/imdb.vocab": "bad good",
}


def packed(path: Path, written: dict[str, str] = WRITTEN) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, text in written.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def facts() -> dict[str, str]:
    """The digests of what is written above, worked out by hand."""
    arrays = {
        "train_text": numpy.frombuffer("bad<br />filmworstgoodGreat é".encode(), numpy.uint8),
        "train_offsets": numpy.array([0, 13, 18, 22, 30], numpy.int64),
        "train_label": numpy.array([0, 0, 1, 1], numpy.uint8),
        "train_rating": numpy.array([4, 1, 7, 9], numpy.uint8),
        "train_id": numpy.array([2, 10, 0, 2], numpy.int32),
        "test_text": numpy.frombuffer(b"dullsuperb", numpy.uint8),
        "test_offsets": numpy.array([0, 4, 10], numpy.int64),
        "test_label": numpy.array([0, 1], numpy.uint8),
        "test_rating": numpy.array([2, 10], numpy.uint8),
        "test_id": numpy.array([0, 0], numpy.int32),
    }
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def test_the_reviews_of_an_archive_stand_negative_first_by_number(tmp_path: Path) -> None:
    target = convert_reviews(packed(tmp_path / "a.tar.gz"), tmp_path / "imdb.npz", facts())
    assert wrong_reviews(target, facts()) is None
    assert {name: array.dtype.name for name, array in read_npz(target).items()} == {
        f"{part}_{name}": kind
        for part in ("train", "test")
        for name, kind in {
            "text": "uint8",
            "offsets": "int64",
            "label": "uint8",
            "rating": "uint8",
            "id": "int32",
        }.items()
    }


def test_an_archive_of_other_reviews_writes_nothing(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", WRITTEN | {"aclImdb/test/neg/0_2.txt": "dulL"})
    with pytest.raises(DataError, match="does not hold the published reviews: test_text has the SHA-256"):
        convert_reviews(archive, tmp_path / "imdb.npz", facts())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz"]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"<html>" + data])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    archive = packed(tmp_path / "a.tar.gz")
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DataError, match=r"is not a whole tar\.gz archive.*fetch it again"):
        convert_reviews(archive, tmp_path / "imdb.npz", facts())


def test_an_archive_without_reviews_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train_text has the SHA-256"):
        convert_reviews(packed(tmp_path / "a.tar.gz", {"readme.txt": "hello"}), tmp_path / "imdb.npz", facts())


def test_reviews_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    target = convert_reviews(packed(tmp_path / "a.tar.gz"), tmp_path / "imdb.npz", facts())
    with pytest.raises(DataError, match=r"published reviews: train_text has the SHA.*`pendula data get imdb`"):
        read_reviews(target)


def test_get_makes_the_reviews_from_the_archive_of_a_server(
    private_cache: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    packed(folder / "imdb/aclImdb_v1.tar.gz")
    known = facts()
    made = replace(
        SOURCES["imdb"],
        convert=partial(convert_reviews, digests=known),
        verify=partial(wrong_reviews, digests=known),
    )
    monkeypatch.setitem(SOURCES, "imdb", made)
    (path,) = get("imdb", base_url=address)
    assert path == private_cache / "imdb/imdb_bytes.npz"
    assert check("imdb") == [("imdb/imdb_bytes.npz", "ok (converted from the published archive)")]
    assert sorted(p.name for p in path.parent.iterdir()) == ["imdb_bytes.npz"]


def test_get_packs_tiny_shakespeare_from_the_text_of_a_server(
    private_cache: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    (folder / "tinyshakespeare").mkdir()
    (folder / "tinyshakespeare/input.txt").write_bytes(b"First Citizen:\n")
    known = hashlib.sha256(b"First Citizen:\n").hexdigest()
    made = replace(SOURCES["tinyshakespeare"], verify=partial(wrong_shakespeare, known=known))
    monkeypatch.setitem(SOURCES, "tinyshakespeare", made)
    (path,) = get("tinyshakespeare", base_url=address)
    assert gzip.decompress(path.read_bytes()) == b"First Citizen:\n"
    assert [p.name for p in path.parent.iterdir()] == ["input.txt.gz"]


def test_another_text_than_tiny_shakespeare_is_not_kept(private_cache: Path, mirror: tuple[Path, str]) -> None:
    folder, address = mirror
    (folder / "tinyshakespeare").mkdir()
    (folder / "tinyshakespeare/input.txt").write_bytes(b"Tolstoy")
    with pytest.raises(DataError, match=f"needed is {SHAKESPEARE}; nothing was kept"):
        get("tinyshakespeare", base_url=address)
    assert list((private_cache / "tinyshakespeare").iterdir()) == []


def test_the_penn_treebank_has_to_be_brought(private_cache: Path) -> None:
    with pytest.raises(DataError, match=r"licence forbids to hand it out.*--task\.options\.path FOLDER"):
        get("penn_treebank")
    with pytest.raises(DataError, match="its licence forbids to hand it out"):
        fetch("penn_treebank/ptb.train.txt")


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be written"):
        texts.write_whole(tmp_path / "no-such-folder/a", lambda file: file.write(b""))


def test_the_shared_reviews_are_the_published_ones(shared_data: Callable[[str], Path]) -> None:
    assert wrong_reviews(shared_data("imdb/imdb_bytes.npz"), REVIEWS) is None


def test_the_shared_text_is_tiny_shakespeare(shared_data: Callable[[str], Path]) -> None:
    assert wrong_shakespeare(shared_data("tinyshakespeare/input.txt.gz")) is None
