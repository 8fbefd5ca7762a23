"""From the published files of the archives to npz files, from a server on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from tests.tasks.archives import TEST, TRAIN, half, relational_arff, ts, zipped

from pendula._check import DataError
from pendula.tasks import archive_files
from pendula.tasks.archive_facts import KNOWN, NAMES, Facts
from pendula.tasks.archive_files import (
    arrays_of,
    content_digest,
    convert_zip,
    exactness,
    find_pair,
    projection,
    read_published,
    verify_set,
    verify_values,
    wrong_set,
)
from pendula.tasks.store import check, fetch, get, listing
from pendula.tasks.table import read_npz

Write = Callable[[str, str], Path]
TS = {"Small_TRAIN.ts": ts(TRAIN), "Small_TEST.ts": ts(TEST)}
ARFF = {"Small_TRAIN.arff": relational_arff(TRAIN), "Small_TEST.arff": relational_arff(TEST)}


def small(write: Write) -> dict[str, numpy.ndarray]:
    return arrays_of(*(read_published(write(name, text)) for name, text in TS.items()))


def facts_of(arrays: dict[str, numpy.ndarray]) -> Facts:
    counts = (len(arrays["y_train"]), len(arrays["y_test"]), *arrays["X_train"].shape[1:], len(arrays["classes"]))
    labels = content_digest(arrays, ("y", "length"))
    return Facts(counts, "0" * 64, 1, content_digest(arrays), labels, projection(arrays)[0])


def test_both_halves_become_arrays_in_the_form_of_the_shared_data(write: Write) -> None:
    arrays = small(write)
    assert {k: (v.shape, v.dtype.str) for k, v in arrays.items() if k != "classes"} == {
        "X_train": ((12, 6, 2), "<f4"),
        "y_train": ((12,), "|u1"),
        "length_train": ((12,), "<i4"),
        "X_test": ((6, 6, 2), "<f4"),
        "y_test": ((6,), "|u1"),
        "length_test": ((6,), "<i4"),
    }
    assert arrays["length_test"].tolist() == [2, 6, 3, 4, 1, 2]
    assert arrays["classes"].tolist() == ["a", "b", "c"]
    numpy.testing.assert_array_equal(arrays["X_test"][2, :3], TEST[0][2])
    assert not arrays["X_test"][2, 3:].any()


def test_series_of_one_length_have_no_lengths_and_classes_of_numbers_stand_by_size(write: Write) -> None:
    halves = [half(seed, ["10", "9", "-1"], [4, 4, 4]) for seed in (1, 2)]
    paths = [write(f"{k}.ts", ts(h, "@classLabel true 10 9 -1")) for k, h in enumerate(halves)]
    arrays = arrays_of(*map(read_published, paths))
    assert "length_train" not in arrays
    assert arrays["classes"].tolist() == ["-1", "9", "10"]
    assert arrays["y_train"].tolist() == [2, 1, 0]


def test_numbers_as_targets_stay_numbers(write: Write) -> None:
    paths = [write(f"{k}.ts", ts(half(k, ["0.5", "-3"], [4, 4]), "@targetLabel true")) for k in (1, 2)]
    arrays = arrays_of(*map(read_published, paths))
    assert arrays["y_train"].tolist() == [0.5, -3]
    assert arrays["y_train"].dtype == numpy.float32
    assert "classes" not in arrays


def test_halves_that_do_not_go_together_are_refused(write: Write) -> None:
    two, three = (read_published(write(f"{k}.ts", ts(half(1, ["a"], [4], k)))) for k in (2, 3))
    with pytest.raises(DataError, match="train has 2 dimensions, test 3: both need the same"):
        arrays_of(two, three)


@pytest.mark.parametrize("files", [TS, ARFF, {f"Small/{k}": v for k, v in TS.items()}], ids=["ts", "arff", "folder"])
def test_an_archive_is_converted_from_its_ts_or_arff_files(tmp_path: Path, write: Write, files: dict[str, str]) -> None:
    (tmp_path / "Small.zip").write_bytes(zipped(files))
    convert_zip(tmp_path / "Small.zip", tmp_path / "Small.npz")
    made = read_npz(tmp_path / "Small.npz")
    assert content_digest(made) == content_digest(small(write))
    assert wrong_set(tmp_path / "Small.npz") is None


def test_variants_and_single_dimensions_in_an_archive_are_passed_over(tmp_path: Path, write: Write) -> None:
    others = {k.replace("Small", "Small_eq"): ts(half(9, ["a"], [3])) for k in TS}
    dimensions = {k.replace("Small", "SmallDimension1"): "no series" for k in ARFF}
    renamed = {k.replace("Small", "SmallUni"): text for k, text in TS.items()}
    (tmp_path / "Small.zip").write_bytes(zipped(others | dimensions | renamed))
    convert_zip(tmp_path / "Small.zip", tmp_path / "Small.npz")
    assert content_digest(read_npz(tmp_path / "Small.npz")) == content_digest(small(write))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>no such set", r"is not a whole zip archive .*: fetch it again; is 'Smal' the published name"),
        (zipped(TS)[:300], "is not a whole zip archive"),
        (
            zipped({"Smal_TRAIN.ts": TS["Small_TRAIN.ts"]}),
            r"has no pair Smal_TRAIN\.ts and Smal_TEST\.ts \(or \.arff\)",
        ),
        (
            zipped(dict.fromkeys(("Smal_TRAIN.ts", "Smal_TEST.ts"), "no series")),
            r"Smal_TRAIN\.ts line 1 is 'no series'",
        ),
    ],
    ids=["a page", "cut off", "half", "no series"],
)
def test_a_damaged_archive_is_refused_and_nothing_is_written(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "Smal.zip").write_bytes(data)
    with pytest.raises(DataError, match=message):
        convert_zip(tmp_path / "Smal.zip", tmp_path / "Smal.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["Smal.zip"]


def test_a_page_in_place_of_an_archive_names_the_nearest_set(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("<html>")
    with pytest.raises(DataError, match=r"'EigenWorm' the published name \(did you mean 'EigenWorms'\?\)\?"):
        convert_zip(tmp_path / "a.zip", tmp_path / "EigenWorm.npz")


def test_any_set_is_downloaded_converted_and_checked_by_its_name(
    private_cache: Path, mirror: tuple[Path, str], write: Write
) -> None:
    pytest.importorskip("pooch")
    (mirror[0] / "ucr_uea").mkdir()
    (mirror[0] / "ucr_uea/Small.zip").write_bytes(zipped(TS))
    assert get("Small", base_url=mirror[1]) == [private_cache / "ucr_uea/Small.npz"]
    assert [p.name for p in (private_cache / "ucr_uea").iterdir()] == ["Small.npz"]
    assert content_digest(read_npz(fetch("ucr_uea/Small.npz"))) == content_digest(small(write))
    assert check("Small") == [("ucr_uea/Small.npz", "ok (converted from the published archive)")]
    assert [row.where for row in listing() if row.name == "Small"] == [private_cache / "ucr_uea"]


def test_a_set_that_is_missing_is_asked_for_by_its_name(private_cache: Path) -> None:
    with pytest.raises(DataError, match=r"`pendula data get PEMS-SF` fetches it, or put PEMS-SF\.npz in .*/ucr_uea"):
        fetch("ucr_uea/PEMS-SF.npz")


def test_a_name_in_other_letters_is_put_right() -> None:
    with pytest.raises(DataError, match=r"no data set 'japanesevowels' \(did you mean 'JapaneseVowels'\?\)"):
        get("japanesevowels")


def test_a_download_that_is_not_the_known_set_is_not_kept(
    private_cache: Path, mirror: tuple[Path, str], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pooch")
    monkeypatch.setitem(KNOWN, "Small", facts_of(small(write)))
    (mirror[0] / "ucr_uea").mkdir()
    (mirror[0] / "ucr_uea/Small.zip").write_bytes(zipped(TS | {"Small_TEST.ts": ts(half(3, list("abcabc"), [6] * 6))}))
    with pytest.raises(
        DataError, match=r"is damaged: labels, lengths or their order are not those of Small; nothing was"
    ):
        get("Small", base_url=mirror[1])
    assert list((private_cache / "ucr_uea").iterdir()) == []


def swapped(arrays: dict[str, numpy.ndarray]) -> None:
    arrays["X_train"][[0, 1]] = arrays["X_train"][[1, 0]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.pop("y_test"), "it has no y_test"),
        (
            lambda a: a.update(X_test=a["X_test"][:, :4]),
            "X_test is (6, 4, 2) and y_test (6,), needed are (N, T, I) and",
        ),
        (lambda a: a["y_train"].__setitem__(0, 3), "y_train has to be 0 to 2, places in classes"),
        (lambda a: a["length_train"].__setitem__(0, 7), "length_train has to be 1 to 6, one for each series"),
        (
            lambda a: a.update(classes=a["classes"][[0, 1, 2, 2]]),
            "steps, channels and classes are (12, 6, 6, 2, 4), of",
        ),
        (lambda a: a["y_train"].__setitem__(0, 1), "labels, lengths or their order are not those of Small"),
        (lambda a: a["X_train"].__setitem__((0, 0, 0), 9), "the values are not those of Small: their projection is"),
        (lambda a: a["X_train"].__setitem__((0, 0, 0), 3.4e38), "the values are not those of Small"),
        (swapped, "the values are not those of Small"),
    ],
)
def test_the_content_of_a_known_set_is_verified(
    write: Write, spoil: Callable[[dict[str, numpy.ndarray]], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = small(write)
    monkeypatch.setitem(KNOWN, "Small", facts_of(arrays))
    assert verify_set(arrays, "Small") is None
    spoil(arrays)
    assert message in str(verify_set(arrays, "Small"))


def test_values_printed_with_seven_digits_are_the_set_but_not_called_exact(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = small(write)
    monkeypatch.setitem(KNOWN, "Small", facts_of(arrays))
    assert exactness(arrays, "Small").startswith("exact: ")
    for part in ("X_train", "X_test"):
        rounded = [float(f"{x:.6e}") for x in arrays[part].ravel()]
        arrays[part] = numpy.array(rounded, numpy.float32).reshape(arrays[part].shape)
    assert verify_set(arrays, "Small") is None
    assert "not digit for digit" in exactness(arrays, "Small")


def test_a_set_of_which_nothing_is_known_says_so(write: Write) -> None:
    assert "no checksum of this set is known" in exactness(small(write), "Small")


def test_a_pair_is_found_by_name_and_ts_files_stand_before_arff_files(write: Write) -> None:
    for name, text in (TS | ARFF).items():
        folder = write(name, text).parent
    assert find_pair(folder) == (folder / "Small_TRAIN.ts", folder / "Small_TEST.ts")
    assert find_pair(folder, "Other") is None
    (folder / "Small_TEST.ts").unlink()
    assert find_pair(folder) == (folder / "Small_TRAIN.arff", folder / "Small_TEST.arff")


def test_several_pairs_in_a_folder_ask_for_the_name(write: Write) -> None:
    for name, text in TS.items():
        folder = write(name, text).parent
        write(name.replace("Small", "Other"), text)
    with pytest.raises(DataError, match=r"holds Other_TRAIN\.ts, Small_TRAIN\.ts: say which `set` is meant"):
        find_pair(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.pop("y_test"), "it has no y_test"),
        (
            lambda a: a.update(X_test=a["X_test"][:1]),
            "series in both parts, steps and channels are (3, 4, 2), needed are",
        ),
        (lambda a: a.update(y_test=a["y_test"].astype(int)), "y_test is int64 (2,), needed is a number for each of 2"),
        (lambda a: a["X_train"].__setitem__((0, 0, 0), numpy.nan), "X_train or y_train has values that are not finite"),
    ],
)
def test_a_set_with_numbers_as_targets_is_verified(
    spoil: Callable[[dict[str, numpy.ndarray]], object], message: str
) -> None:
    arrays = {"X_train": numpy.ones((2, 4, 2)), "y_train": numpy.ones(2), "X_test": numpy.ones((2, 4, 2))}
    arrays["y_test"] = numpy.zeros(2)
    assert verify_values(arrays, (4, 4, 2)) is None
    spoil(arrays)
    assert message in str(verify_values(arrays, (4, 4, 2)))


def test_the_names_are_those_of_128_univariate_30_multivariate_and_six_asphalt_sets() -> None:
    assert len(NAMES) == len(set(NAMES)) == 164
    assert set(KNOWN) <= set(NAMES)


@pytest.mark.parametrize("name", KNOWN)
def test_the_known_facts_are_those_of_the_shared_file(name: str, shared_data: Callable[[str], Path]) -> None:
    path = shared_data(f"ucr_uea/{name}.npz")
    arrays = read_npz(path)
    own = facts_of(arrays)
    known = KNOWN[name]
    assert own._replace(sha256=known.sha256, size=known.size, projection=known.projection) == known
    assert own.projection == pytest.approx(known.projection, rel=1e-8)
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size) == (known.sha256, known.size)


@pytest.mark.parametrize("form", [ts, relational_arff])
def test_a_shared_set_survives_the_round_trip_through_the_text_of_the_archives(
    form: Callable[..., str], shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    arrays = read_npz(shared_data("ucr_uea/JapaneseVowels.npz"))
    names = arrays["classes"].tolist()
    files = {}
    for part in ("train", "test"):
        series = [x[:n] for x, n in zip(arrays[f"X_{part}"], arrays[f"length_{part}"], strict=True)]
        labels = [names[k] for k in arrays[f"y_{part}"]]
        said = f"@classLabel true {' '.join(names)}" if form is ts else f"{{{','.join(names)}}}"
        suffix = "ts" if form is ts else "arff"
        files[f"JapaneseVowels_{part.upper()}.{suffix}"] = form((series, labels), said)
    (tmp_path / "a.zip").write_bytes(zipped(files))
    convert_zip(tmp_path / "a.zip", tmp_path / "JapaneseVowels.npz")
    assert archive_files.exactness(read_npz(tmp_path / "JapaneseVowels.npz"), "JapaneseVowels").startswith("exact")
