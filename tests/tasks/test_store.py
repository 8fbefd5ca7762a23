"""Finding, fetching and checking data files, from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy
import pytest

from pendula._check import DataError
from pendula.tasks import convert, store
from pendula.tasks.convert import (
    ACTIVITIES,
    CHANNELS,
    PUBLISHED,
    HarFacts,
    convert_har,
    read_har,
    verify_har,
    wrong_har,
)
from pendula.tasks.source import Source, Stored
from pendula.tasks.sources import SOURCES
from pendula.tasks.store import check, fetch, get, listing
from pendula.tasks.table import read_npz

ARCHIVE = "uci_har/human+activity+recognition+using+smartphones.zip"
CONTENT = {"toy/a.bin": b"first file", "toy/b.bin": b"second file" * 1000}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Source:
    """A set of two small files."""
    files = tuple(Stored(path, sha256(data), len(data)) for path, data in CONTENT.items())
    source = Source("toy", "for tests", files, "none", "none", "exact", "get it")
    monkeypatch.setitem(SOURCES, "toy", source)
    return source


def fill(folder: Path, content: dict[str, bytes] = CONTENT) -> None:
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def left(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_fetch_looks_in_the_data_folder_first_and_then_in_the_cache(
    private_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(private_cache)
    assert fetch("toy/a.bin") == private_cache / "toy/a.bin"
    monkeypatch.setenv("PENDULA_DATA", str(tmp_path))
    assert fetch("toy/a.bin") == private_cache / "toy/a.bin"
    fill(tmp_path)
    assert fetch("toy/a.bin") == tmp_path / "toy/a.bin"


def test_a_missing_file_says_how_to_get_it(
    private_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENDULA_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        fetch("mnist/t10k-labels-idx1-ubyte.gz")
    assert str(caught.value) == (
        "mnist/t10k-labels-idx1-ubyte.gz is missing: `pendula data get mnist` fetches it, or put "
        f"t10k-labels-idx1-ubyte.gz in {tmp_path}/mnist or {private_cache}/mnist, or set PENDULA_DATA to a folder that "
        "has mnist/t10k-labels-idx1-ubyte.gz"
    )


def test_a_missing_file_of_no_known_set_does_not_promise_a_download(private_cache: Path) -> None:
    with pytest.raises(DataError, match=r"^mine/x\.npz is missing: put x\.npz in .*cache/mine, or set PENDULA_DATA"):
        fetch("mine/x.npz")


def test_a_data_folder_that_does_not_exist_is_an_error_and_not_passed_over(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(private_cache)
    monkeypatch.setenv("PENDULA_DATA", "/no/such/folder")
    with pytest.raises(DataError, match="PENDULA_DATA is '/no/such/folder', which is not a folder"):
        fetch("toy/a.bin")


def test_the_cache_is_the_user_cache_with_and_without_pooch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        pytest.importorskip("pooch")
        assert store.cache() == tmp_path / "pendula"
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert store.cache() == tmp_path / "pendula"


def test_get_downloads_into_the_cache_and_check_says_ok(
    toy: Source, private_cache: Path, mirror: tuple[Path, str]
) -> None:
    pytest.importorskip("pooch")
    fill(mirror[0])
    paths = get("toy", base_url=mirror[1] + "/")
    assert {str(p.relative_to(private_cache)): p.read_bytes() for p in paths} == CONTENT
    assert left(private_cache) == sorted(CONTENT)
    assert check("toy") == [("toy/a.bin", "ok"), ("toy/b.bin", "ok")]


def test_get_keeps_good_files_and_fetches_the_rest(toy: Source, private_cache: Path, mirror: tuple[Path, str]) -> None:
    pytest.importorskip("pooch")
    fill(private_cache, {"toy/a.bin": CONTENT["toy/a.bin"], "toy/b.bin": b"half a"})
    # the mirror has not even the first file: it must not be asked for it
    fill(mirror[0], {"toy/b.bin": CONTENT["toy/b.bin"]})
    get("toy", base_url=mirror[1])
    assert [state for _, state in check("toy")] == ["ok", "ok"]


def test_get_without_a_connection_is_content_with_good_files(toy: Source, private_cache: Path) -> None:
    fill(private_cache)
    assert get("toy") == [private_cache / path for path in CONTENT]


def test_a_wrong_checksum_keeps_nothing_and_names_both_digests(
    toy: Source, private_cache: Path, mirror: tuple[Path, str]
) -> None:
    pytest.importorskip("pooch")
    fill(mirror[0], {"toy/a.bin": b"another file"})
    with pytest.raises(DataError) as caught:
        get("toy", base_url=mirror[1])
    assert f"gave SHA-256 {sha256(b'another file')}, expected {toy.files[0].sha256}" in str(caught.value)
    assert "nothing was kept" in str(caught.value)
    assert left(private_cache) == []


def test_a_second_address_is_tried_when_the_first_fails(
    private_cache: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pooch")
    fill(mirror[0], {"good/a.bin": b"good", "bad/a.bin": b"bad"})
    urls = tuple(f"{mirror[1]}/{place}/a.bin" for place in ("missing", "bad", "good"))
    source = Source("toy", "", (Stored("toy/a.bin", sha256(b"good"), 4, urls),), "", "", "", "")
    monkeypatch.setitem(SOURCES, "toy", source)
    (path,) = get("toy")
    assert path.read_bytes() == b"good"


def test_every_failed_address_is_named_with_its_reason(
    private_cache: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pooch")
    urls = (f"{mirror[1]}/a.bin", "http://127.0.0.1:9/a.bin")
    source = Source("toy", "", (Stored("toy/a.bin", sha256(b"good"), 4, urls),), "", "", "", "")
    monkeypatch.setitem(SOURCES, "toy", source)
    with pytest.raises(DataError) as caught:
        get("toy")
    said = str(caught.value)
    assert "404" in said
    assert "http://127.0.0.1:9/a.bin could not be reached (no connection)" in said
    assert f"put a.bin in {private_cache}/toy, or set PENDULA_DATA to a folder that has toy/a.bin" in said
    assert left(private_cache) == []


def test_a_damaged_file_in_the_data_folder_is_not_hidden_by_a_download(
    toy: Source, private_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENDULA_DATA", str(tmp_path))
    fill(tmp_path, {"toy/a.bin": b"damaged"})
    with pytest.raises(DataError, match=r"toy/a\.bin is damaged: .*delete it, then get toy again"):
        get("toy")


def test_check_tells_missing_and_damaged_apart(toy: Source, private_cache: Path) -> None:
    fill(private_cache, {"toy/b.bin": b"damaged"})
    assert check("toy") == [
        ("toy/a.bin", "missing"),
        ("toy/b.bin", f"damaged: SHA-256 {sha256(b'damaged')}, expected {toy.files[1].sha256}"),
    ]


def test_an_unknown_set_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"no data set 'minst' \(did you mean 'mnist'\?\): there are mnist, uci_har"):
        get("minst")


def test_without_pooch_the_extra_is_named(toy: Source, private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"pip install 'pendula\[train\]'"):
        get("toy", base_url="http://127.0.0.1:9")


def test_the_listing_says_where_a_complete_set_is(toy: Source, private_cache: Path) -> None:
    fill(private_cache, {"toy/a.bin": CONTENT["toy/a.bin"]})
    assert {row.name: row.where for row in listing()} == dict.fromkeys(SOURCES)
    fill(private_cache)
    row = next(row for row in listing() if row.name == "toy")
    assert (row.where, row.size) == (private_cache / "toy", sum(map(len, CONTENT.values())))


def test_a_progress_bar_does_not_disturb_the_download(
    toy: Source, private_cache: Path, mirror: tuple[Path, str]
) -> None:
    pytest.importorskip("pooch")
    pytest.importorskip("rich")
    fill(mirror[0])
    get("toy", base_url=mirror[1], progress=True)
    assert [state for _, state in check("toy")] == ["ok", "ok"]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_says_what_a_user_has_to_know(name: str) -> None:
    source = SOURCES[name]
    assert name == source.name
    assert all([source.summary, source.licence, source.citation, source.provenance, source.how_to_get])


@pytest.mark.parametrize("name", SOURCES)
def test_every_download_of_a_source_can_be_verified_and_every_address_is_an_encrypted_one(name: str) -> None:
    source = SOURCES[name]
    assert source.verify or all(len(file.sha256) == 64 for file in source.files if source.downloads(file))
    assert (source.convert is None) == (source.archive == ())
    addresses = [a for a in source.archive if "://" in a] + [url for file in source.files for url in file.urls]
    assert all(address.startswith("https://") for address in addresses)


@pytest.mark.parametrize("call", [lambda: fetch("toy/a.bin"), lambda: get("toy")], ids=["fetch", "get"])
def test_a_file_that_cannot_be_downloaded_says_how_it_is_had(
    call: Callable[[], object], toy: Source, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pooch")
    monkeypatch.setitem(SOURCES, "toy", replace(toy, how_to_get="ask the authors for it"))
    with pytest.raises(DataError, match=r"toy/a\.bin .*ask the authors for it; .*put a\.bin in .*cache/toy"):
        call()


def joined(first: Path, second: Path, target: Path) -> None:
    target.write_bytes(first.read_bytes() + second.read_bytes())


@pytest.fixture
def two_archives(monkeypatch: pytest.MonkeyPatch) -> Source:
    """A file made of two archives, the second of which nobody hands out."""
    file = Stored("toy/a.bin", sha256(b"onetwo"), 6)
    archive = ("https://localhost/one.bin", "two.bin")
    source = Source("toy", "", (file,), "", "", "", "ask the authors for two.bin", archive, joined)
    monkeypatch.setitem(SOURCES, "toy", source)
    return source


def test_a_file_is_converted_from_an_archive_of_a_host_and_one_that_a_user_put_there(
    two_archives: Source, private_cache: Path, mirror: tuple[Path, str]
) -> None:
    pytest.importorskip("pooch")
    fill(mirror[0], {"toy/one.bin": b"one"})
    fill(private_cache, {"toy/two.bin": b"two"})
    (path,) = get("toy", base_url=mirror[1])
    assert path.read_bytes() == b"onetwo"
    assert left(private_cache) == ["toy/a.bin", "toy/two.bin"]


def test_an_archive_that_a_user_has_to_put_there_is_asked_for(two_archives: Source, private_cache: Path) -> None:
    fill(private_cache, {"toy/one.bin": b"one"})
    with pytest.raises(
        DataError, match=r"ask the authors for two\.bin; .*put two\.bin in .*cache/toy and get toy again"
    ):
        get("toy")


def test_a_converted_file_that_is_not_what_it_should_be_is_not_kept(two_archives: Source, private_cache: Path) -> None:
    fill(private_cache, {"toy/one.bin": b"one", "toy/two.bin": b"2"})
    with pytest.raises(DataError, match=r"toy/a\.bin, made from .*, is damaged: SHA-256"):
        get("toy")
    assert left(private_cache) == ["toy/one.bin", "toy/two.bin"]


def tiny_har(seed: int = 0) -> dict[str, numpy.ndarray]:
    draw = numpy.random.default_rng(seed)
    arrays = {}
    for part, windows in (("train", 6), ("test", 4)):
        arrays[f"X_{part}"] = draw.normal(size=(windows, 5, 9)).astype(numpy.float32)
        arrays[f"y_{part}"] = draw.integers(0, 6, windows).astype(numpy.uint8)
        arrays[f"subject_{part}"] = draw.integers(1, 31, windows).astype(numpy.uint8)
    return arrays


def facts_of(arrays: dict[str, numpy.ndarray]) -> HarFacts:
    flat = {part: arrays[f"X_{part}"].reshape(-1, 9).astype(float) for part in ("train", "test")}
    keys = [key for key in arrays if key[0] in "ys"]
    return HarFacts(
        {part: len(arrays[f"y_{part}"]) for part in flat},
        {key: sha256(arrays[key].tobytes()) for key in keys},
        {part: tuple(x.mean(0)) for part, x in flat.items()},
        {part: tuple(x.std(0)) for part, x in flat.items()},
        steps=5,
    )


def known_as(facts: HarFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of the windows, with the content of a small archive as the published one."""
    made = replace(
        SOURCES["uci_har"], convert=partial(convert_har, facts=facts), verify=partial(wrong_har, facts=facts)
    )
    monkeypatch.setitem(SOURCES, "uci_har", made)


def har_archive(arrays: dict[str, numpy.ndarray], *, nested: bool = True, without: str = "") -> bytes:
    """A zip in the layout of the real one, with the clutter that it has."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("UCI HAR Dataset/README.txt", "read me")
        file.writestr("UCI HAR Dataset/train/X_train.txt", "  2.8858451e-001 -2.0294171e-002\n")
        for part in ("train", "test"):
            texts = {f"{part}/y_{part}.txt": (arrays[f"y_{part}"] + 1)[:, None], f"{part}/subject_{part}.txt": None}
            texts[f"{part}/subject_{part}.txt"] = arrays[f"subject_{part}"][:, None]
            for k, channel in enumerate(CHANNELS):
                texts[f"{part}/Inertial Signals/{channel}_{part}.txt"] = arrays[f"X_{part}"][:, :, k]
            for name, rows in texts.items():
                if name != without:
                    form = "%d" if rows.dtype == numpy.uint8 else " %.7e"
                    text = "\n".join(" ".join(form % value for value in row) for row in rows)
                    file.writestr(f"UCI HAR Dataset/{name}", text + "\n")
                    file.writestr(f"__MACOSX/UCI HAR Dataset/{name}", "no numbers")
    if not nested:
        return inner.getvalue()
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as file:
        file.writestr("UCI HAR Dataset.zip", inner.getvalue())
        file.writestr("UCI HAR Dataset.names", "names")
    return outer.getvalue()


@pytest.mark.parametrize("nested", [True, False])
def test_the_archive_is_converted_with_its_digest_on_record(tmp_path: Path, nested: bool) -> None:
    arrays, archive = tiny_har(), tmp_path / "a.zip"
    archive.write_bytes(har_archive(arrays, nested=nested))
    made = read_npz(convert_har(archive, tmp_path / "har.npz", facts_of(arrays)))
    for key, values in arrays.items():
        assert made[key].dtype == values.dtype
        numpy.testing.assert_allclose(made[key], values, rtol=1e-6)
    assert str(made["archive_sha256"]) == sha256(archive.read_bytes())
    assert tuple(made["channels"]) == CHANNELS
    assert tuple(made["classes"]) == ACTIVITIES


def test_an_archive_with_other_content_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(har_archive(tiny_har(seed=1)))
    with pytest.raises(DataError, match="is not the published UCI HAR data: y_train has the SHA-256"):
        convert_har(archive, tmp_path / "har.npz", facts_of(tiny_har()))
    assert left(tmp_path) == ["a.zip"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no zip", "is not a whole zip archive"),
        (har_archive(tiny_har())[:5000], "is not a whole zip archive"),
        (har_archive(tiny_har(), without="test/Inertial Signals/body_gyro_y_test.txt"), "has no test/Inertial Signals"),
    ],
    ids=["no zip", "cut off", "a file missing"],
)
def test_an_archive_that_is_damaged_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(data)
    with pytest.raises(DataError, match=message):
        convert_har(archive, tmp_path / "har.npz", facts_of(tiny_har()))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.pop("X_test"), r"X_test is missing"),
        (lambda a: a.update(X_train=a["X_train"][:, :4]), r"X_train is \(6, 4, 9\), needed is \(6, 5, 9\)"),
        (lambda a: a.pop("subject_test"), "subject_test is missing"),
        (lambda a: a["y_test"].__setitem__(0, a["y_test"][0] ^ 1), "y_test has the SHA-256"),
        (lambda a: a["X_train"].__setitem__((0, 0, 3), 9), "the mean of body_gyro_x in train is"),
        (lambda a: a["X_test"].__setitem__((0, 0, 0), numpy.nan), "the mean of body_acc_x in test is nan"),
        (lambda a: a.update(X_test=2 * a["X_test"] - a["X_test"].mean((0, 1))), "the std of"),
    ],
)
def test_the_content_is_verified(spoil: Callable[[dict[str, numpy.ndarray]], object], message: str) -> None:
    arrays = tiny_har()
    facts = facts_of(arrays)
    assert verify_har(arrays, facts) is None
    spoil(arrays)
    assert message.replace("\\", "") in str(verify_har(arrays, facts))


def test_get_converts_the_archive_of_a_mirror_and_check_says_so(
    private_cache: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pooch")
    arrays = tiny_har()
    known_as(facts_of(arrays), monkeypatch)
    fill(mirror[0], {ARCHIVE: har_archive(arrays)})
    assert get("uci_har", base_url=mirror[1]) == [private_cache / "uci_har/uci_har.npz"]
    assert left(private_cache) == ["uci_har/uci_har.npz"]
    assert check("uci_har") == [("uci_har/uci_har.npz", "ok (converted from the published archive)")]
    # kept, without asking anybody
    assert get("uci_har", base_url="http://127.0.0.1:9") == [private_cache / "uci_har/uci_har.npz"]


def test_get_converts_an_archive_that_was_put_in_the_folder_by_hand(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = tiny_har()
    known_as(facts_of(arrays), monkeypatch)
    fill(private_cache, {ARCHIVE: har_archive(arrays)})
    get("uci_har")
    assert left(private_cache) == sorted([ARCHIVE, "uci_har/uci_har.npz"])


def test_an_archive_that_is_not_the_published_one_is_not_kept(private_cache: Path, mirror: tuple[Path, str]) -> None:
    pytest.importorskip("pooch")
    fill(mirror[0], {ARCHIVE: har_archive(tiny_har(seed=1))})
    with pytest.raises(DataError, match="is not the published UCI HAR data"):
        get("uci_har", base_url=mirror[1])
    assert left(private_cache) == []


def test_har_without_a_connection_says_where_to_put_what(private_cache: Path) -> None:
    pytest.importorskip("pooch")
    with pytest.raises(DataError) as caught:
        get("uci_har", base_url="http://127.0.0.1:9")
    said = str(caught.value)
    assert f"download {SOURCES['uci_har'].archive[0]} elsewhere, put it in {private_cache}/uci_har" in said
    assert f"or put uci_har.npz in {private_cache}/uci_har" in said


def test_a_damaged_har_file_is_called_damaged(private_cache: Path) -> None:
    fill(private_cache, {"uci_har/uci_har.npz": b"PK no npz"})
    ((_, state),) = check("uci_har")
    assert state.startswith("damaged: ")


def test_a_har_file_of_other_content_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "har.npz"
    numpy.savez(path, **tiny_har(seed=1))
    with pytest.raises(DataError, match="is not the UCI HAR data: y_train has the SHA-256"):
        read_har(path, "none", facts_of(tiny_har()))


def test_the_known_facts_are_those_of_the_shared_file(shared_data: Callable[[str], Path]) -> None:
    arrays = read_npz(shared_data("uci_har/uci_har.npz"))
    assert verify_har(arrays) is None
    assert verify_har(arrays, replace(PUBLISHED, tolerance=6e-7)) is None
    assert tuple(arrays["channels"]) == CHANNELS
    assert tuple(arrays["classes"]) == ACTIVITIES


def test_the_shared_files_have_the_known_digests(shared_data: Callable[[str], Path]) -> None:
    shared_data("mnist/t10k-labels-idx1-ubyte.gz")
    shared_data("uci_har/uci_har.npz")
    assert {state for name in ("mnist", "uci_har") for _, state in check(name)} == {"ok"}


def test_the_shared_har_file_survives_the_round_trip_through_the_text_of_the_archive(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    arrays = {k: v[:40] for k, v in read_npz(shared_data("uci_har/uci_har.npz")).items() if k[:2] in ("X_", "y_", "su")}
    facts = replace(facts_of(arrays), steps=128)
    archive = tmp_path / "a.zip"
    archive.write_bytes(har_archive(arrays))
    made, provenance = read_har(convert_har(archive, tmp_path / "har.npz", facts), "none", facts)
    assert provenance.startswith("exact: converted from the published text files")
    assert sha256(archive.read_bytes()) in provenance
    assert convert.verify_har(made, facts) is None
