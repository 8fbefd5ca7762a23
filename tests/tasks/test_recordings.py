"""Published archives of recordings, made small, and the sets that are converted from them."""

from __future__ import annotations

import io
import sys
import tarfile
import wave
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy
import pytest

from pendula._check import DataError
from pendula.tasks import recordings
from pendula.tasks.recordings import (
    content,
    convert_activity,
    convert_digits,
    convert_music,
    provenance,
    wrong_activity,
    wrong_digits,
    wrong_music,
)
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import get
from pendula.tasks.table import read_npz


def wav(samples: numpy.ndarray, channels: int = 1, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def digits(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {"README.md": b"words", **files}.items():
            member = tarfile.TarInfo(f"free-spoken-digit-dataset-1.0.10/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


WAVES = {
    (speaker, digit, take): numpy.arange(4 + take) * 100 + digit - 300
    for speaker in ("theo", "ann")
    for digit in (3, 1)
    for take in (12, 4, 5)
}
FILES = {f"recordings/{d}_{s}_{t}.wav": wav(samples) for (s, d, t), samples in WAVES.items()}


def test_wav_files_become_one_array_by_speaker_digit_and_take(tmp_path: Path) -> None:
    target = tmp_path / "fsdd.npz"
    convert_digits(digits(tmp_path / "a.tar.gz", FILES), target)
    arrays = read_npz(target)
    assert arrays["speakers"].tolist() == ["ann", "theo"]
    assert arrays["test_take"].tolist() == [4] * 4
    assert arrays["train_take"].tolist() == [5, 12] * 4
    assert arrays["train_label"].tolist() == [1, 1, 3, 3] * 2
    assert arrays["train_speaker"].tolist() == [0] * 4 + [1] * 4
    third = arrays["train_wave"][arrays["train_offsets"][3] : arrays["train_offsets"][4]]
    assert third.tolist() == WAVES["ann", 3, 12].tolist()
    assert (third.dtype, arrays["train_label"].dtype, int(arrays["sample_rate"])) == (numpy.int16, numpy.uint8, 8000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (wav(numpy.arange(8), channels=2), "2 channels of 2 bytes at 8000 Hz"),
        (wav(numpy.arange(8), rate=16000), "1 channels of 2 bytes at 16000 Hz"),
        (wav(numpy.arange(0)), "0 samples"),
        (b"RIFF no wav", "is no wav file"),
        (b"", "is no wav file"),
    ],
)
def test_a_wav_file_of_another_kind_is_refused_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    archive = digits(tmp_path / "a.tar.gz", {**FILES, "recordings/9_ann_7.wav": data})
    with pytest.raises(DataError, match=f"9_ann_7.wav .*{words}"):
        convert_digits(archive, tmp_path / "fsdd.npz")
    assert not (tmp_path / "fsdd.npz").exists()


def activity(path: Path, **other: bytes) -> Path:
    """Two recordings of 6 and 4 samples."""
    files = {
        "RawData/acc_exp02_user01.txt": b"1 2 3\n" * 4,
        "RawData/gyro_exp02_user01.txt": b"4 5 6\n" * 4,
        "RawData/acc_exp01_user01.txt": b"0.5 -1 1e-3\n" * 6,
        "RawData/gyro_exp01_user01.txt": b"7 8 9\n" * 6,
        "RawData/labels.txt": b"1 1 5 2 3\n1 1 12 5 6\n2 1 1 1 4\n",
        "README.txt": b"words",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {f"RawData/{key}.txt": value for key, value in other.items()}).items():
            archive.writestr(name, data)
    return path


def test_signals_and_segments_become_a_label_for_every_step(tmp_path: Path) -> None:
    target = tmp_path / "hapt.npz"
    convert_activity(activity(tmp_path / "a.zip"), target)
    arrays = read_npz(target)
    assert arrays["offsets"].tolist() == [0, 6, 10]
    assert arrays["label"].tolist() == [0, 5, 5, 0, 12, 12, 1, 1, 1, 1]
    assert arrays["signal"][0].tolist() == pytest.approx([0.5, -1, 1e-3, 7, 8, 9])
    assert arrays["signal"][6].tolist() == [1, 2, 3, 4, 5, 6]
    assert (arrays["experiment"].tolist(), arrays["subject"].tolist()) == ([1, 2], [1, 1])
    assert arrays["signal"].dtype == numpy.float32


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("acc_exp02_user01", b"1 2 3\n" * 5, "experiment 2 has 5 and 4 samples"),
        ("acc_exp02_user01", b"1 2\n" * 4, "has 2 columns, needed are 3"),
        ("acc_exp02_user01", b"1 2 x\n" * 4, "is not a table of numbers"),
        ("acc_exp03_user02", b"1 2 3\n", "has no gyro or acc"),
        ("labels", b"7 1 5 2 3\n", "experiment 7, subject 1, label 5"),
        ("labels", b"1 1 13 2 3\n", "experiment 1, subject 1, label 13"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_does_not_fit_together_is_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        convert_activity(activity(tmp_path / "a.zip", **{name: data}), tmp_path / "hapt.npz")
    assert not (tmp_path / "hapt.npz").exists()


def rolls(seed: int = 0) -> dict[str, list[numpy.ndarray]]:
    draw = numpy.random.default_rng(seed)
    return {part: [draw.integers(0, 2, (n, 88)) for n in (3, 5)] for part in ("train", "valid", "test")}


def mat(path: Path, pieces: dict[str, list[numpy.ndarray]]) -> Path:
    scipy = pytest.importorskip("scipy.io", reason="scipy is not here: what is claimed of MATLAB files is left out")
    cells = {}
    for part, own in pieces.items():
        cells[f"{part}data"] = numpy.empty((1, len(own)), object)
        for i, piece in enumerate(own):
            cells[f"{part}data"][0, i] = piece
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.savemat(path, cells)
    return path


def test_piano_rolls_of_matlab_are_packed(tmp_path: Path) -> None:
    pieces = rolls()
    convert_music(mat(tmp_path / "JSB.mat", pieces), tmp_path / "JSB.npz")
    arrays = read_npz(tmp_path / "JSB.npz")
    for part, own in pieces.items():
        assert arrays[f"{part}_offsets"].tolist() == [0, 3, 8]
        assert numpy.unpackbits(arrays[f"{part}_bits"], axis=1).tolist() == numpy.concatenate(own).tolist()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda pieces: {**pieces, "valid": [numpy.zeros((3, 80))]}, "no validdata of piano rolls with 88 columns"),
        (lambda pieces: {k: v for k, v in pieces.items() if k != "test"}, "no testdata"),
        (lambda pieces: {**pieces, "test": [numpy.full((3, 88), 2)]}, "testdata has numbers that are not 0 or 1"),
    ],
)
def test_a_matlab_file_of_something_else_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, list[numpy.ndarray]]], dict[str, list[numpy.ndarray]]], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        convert_music(mat(tmp_path / "a.mat", spoil(rolls())), tmp_path / "a.npz")


def test_without_scipy_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"read with scipy: pip install 'pendula\[train\]'"):
        convert_music(tmp_path / "a.mat", tmp_path / "a.npz")


@pytest.mark.parametrize("convert", [convert_digits, convert_activity, convert_music])
@pytest.mark.parametrize("data", [b"", b"<html>not found</html>" * 20])
def test_what_is_no_archive_is_refused(tmp_path: Path, convert: Callable[[Path, Path], None], data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DataError, match="delete it and fetch it again"):
        convert(tmp_path / "a", tmp_path / "b.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


KEYS = {
    "fsdd": [f"{p}_{k}" for p in ("train", "test") for k in ("wave", "offsets", "label", "speaker", "take")]
    + ["speakers", "sample_rate"],
    "hapt_raw": ["offsets", "label", "experiment", "subject", "segments"],
    "jsb_chorales": [f"{p}_{k}" for p in ("train", "valid", "test") for k in ("bits", "offsets")],
}


def published(name: str, folder: Path) -> Path:
    """The archive of a set as a server would have it, small."""
    if name == "fsdd":
        return digits(folder / "fsdd/v1.0.10.tar.gz", FILES)
    if name == "hapt_raw":
        (folder / "hapt_raw").mkdir()
        address = SOURCES["hapt_raw"].archive[0].rsplit("/", 1)[1]
        return activity(folder / "hapt_raw" / address)
    return mat(folder / "poly_music/JSB_Chorales.mat", rolls())


def known(name: str, archive: Path, scratch: Path) -> Callable[[Path], str | None]:
    """The check of a set, told of the small content."""
    source = SOURCES[name]
    made = scratch / Path(source.files[0].path).name
    assert source.convert is not None
    source.convert(archive, made)
    arrays = read_npz(made)
    digest = content(arrays, KEYS[name])
    if name == "fsdd":
        return partial(wrong_digits, known=digest)
    if name == "hapt_raw":
        signal = arrays["signal"].astype(float)
        return partial(wrong_activity, known=digest, mean=tuple(signal.mean(0)), std=tuple(signal.std(0)))
    return partial(wrong_music, known={"JSB_Chorales": digest})


@pytest.mark.parametrize("name", list(KEYS))
def test_a_set_is_downloaded_converted_and_checked(
    name: str, mirror: tuple[Path, str], private_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    verify = known(name, published(name, folder), tmp_path)
    source = replace(SOURCES[name], verify=verify)
    monkeypatch.setitem(SOURCES, name, source)
    (path,) = get(name, base_url=address)
    assert path == private_cache / source.files[0].path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert provenance(path, source) == source.provenance


@pytest.mark.parametrize("name", list(KEYS))
def test_an_archive_with_other_content_than_the_published_one_is_not_kept(
    name: str, mirror: tuple[Path, str], private_cache: Path
) -> None:
    folder, address = mirror
    published(name, folder)
    with pytest.raises(DataError, match=r"is damaged: .*SHA-256 .*needed is .*nothing was kept"):
        get(name, base_url=address)
    assert [path for path in private_cache.rglob("*") if path.is_file()] == []


def test_signals_that_are_off_are_found_and_so_are_missing_numbers(tmp_path: Path) -> None:
    archive = activity(tmp_path / "a.zip")
    check = known("hapt_raw", archive, tmp_path)
    path = tmp_path / "hapt_raw.npz"
    assert check(path) is None
    arrays = read_npz(path)
    for value in (1e-3, numpy.nan):
        numpy.savez(path, **arrays | {"signal": arrays["signal"] + numpy.float32(value)})
        assert "the mean of the channels is" in str(check(path))
    numpy.savez(path, **arrays | {"signal": arrays["signal"][:-1]})
    assert "signal is (9, 6), needed is (10, 6)" in str(check(path))


def test_a_file_of_something_else_is_called_unknown(tmp_path: Path) -> None:
    path = tmp_path / "fsdd.npz"
    numpy.savez(path, other=numpy.zeros(2))
    assert provenance(path, SOURCES["fsdd"]) == "unknown: fsdd.npz is not the data set fsdd as known here"


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("fsdd/fsdd.npz", wrong_digits),
        ("hapt_raw/hapt_raw.npz", wrong_activity),
        *((f"poly_music/{name}.npz", wrong_music) for name in recordings.MUSIC),
    ],
)
def test_the_files_at_hand_have_the_known_content(
    shared_data: Callable[[str], Path], name: str, check: Callable[[Path], str | None]
) -> None:
    assert check(shared_data(name)) is None
