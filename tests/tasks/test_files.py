"""A user's own data: every format, every refusal, splits, missing values, uneven time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import pytest
import torch

from pendula._check import DataError
from pendula.tasks.base import PARTS
from pendula.tasks.files import Files, read_unlabelled

pyarrow = pytest.importorskip("pyarrow")
Write = Callable[[str, str], Path]


def table(
    lengths: Sequence[int], labels: Sequence[object], *, header: str = "id,time,x,y,label", extra: Sequence[str] = ()
) -> str:
    """Series s0, s1, ... in long format: x counts the samples of all series, y is 10 times the series."""
    lines, x = [header], 0
    for k, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        for t in range(length):
            lines.append(f"s{k},{t * 0.5},{x},{10 * k},{label}" + (f",{extra[k]}" if extra else ""))
            x += 1
    return "\n".join(lines) + "\n"


LENGTHS = [3, 1, 4, 2, 5, 3, 2, 6, 1, 2]
LABELS = ["walk", "run"] * 5


def names(task: Files) -> dict[str, list[str]]:
    return {part: list(task.part(part).names or ()) for part in PARTS}


def series(task: Files) -> dict[str, tuple[list[list[float]], int | float]]:
    """Name -> values and target, over all parts."""
    found = {}
    for part in PARTS:
        data = task.part(part)
        for i, name in enumerate(data.names or ()):
            rows = data.flat[int(data.offsets[i]) : int(data.offsets[i + 1])]
            found[name] = (rows.tolist(), data.y[i].squeeze().item())
    return found


def refused(path: Path, message: str, **arguments: object) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Files(str(path), **arguments)
    assert str(path.name) in str(caught.value)


def test_csv_gives_each_series_with_its_own_length_class_and_channels(write: Write) -> None:
    task = Files(str(write("a.csv", table(LENGTHS, LABELS))))
    assert (task.channels, task.input_size, task.labels, task.output_size) == (("x", "y"), 2, ("run", "walk"), 2)
    found = series(task)
    assert [len(found[f"s{k}"][0]) for k in range(10)] == LENGTHS
    assert found["s2"] == ([[4, 20], [5, 20], [6, 20], [7, 20]], 1)
    assert found["s3"][1] == 0
    assert task.part("train").timespans is None
    assert task.median_gap is None


def test_parquet_gives_the_same_as_csv(write: Write) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    path = write("a.csv", table(LENGTHS, LABELS))
    content = pyarrow.csv.read_csv(path)
    # pandas writes names as categories and leaves its index behind
    content = content.set_column(4, "label", content["label"].dictionary_encode())
    content = content.append_column("__index_level_0__", pyarrow.array(range(content.num_rows)))
    other = path.with_suffix(".parquet")
    pyarrow.parquet.write_table(content, other)
    assert series(Files(str(other))) == series(Files(str(path)))


def test_rows_may_stand_in_any_order_where_there_is_a_time(write: Write) -> None:
    text = table(LENGTHS, LABELS)
    header, *rows = text.splitlines()
    shuffled = [rows[k] for k in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()]
    ordered, other = (Files(str(write(f"{n}.csv", t))) for n, t in (("a", text), ("b", "\n".join([header, *shuffled]))))
    assert series(ordered) == series(other)


def test_without_a_time_column_rows_are_taken_as_they_stand(write: Write) -> None:
    text = "id,x,label\n" + "".join(f"{k},{9 - t},{k % 2}\n" for k in range(8) for t in range(3))
    task = Files(str(write("a.csv", text)))
    assert series(task)["3"] == ([[9], [8], [7]], 1)
    assert any("no time stamps" in note for note in task.notes)


def test_columns_may_have_other_names(write: Write) -> None:
    text = table(LENGTHS, LABELS, header="who,when,x,y,what")
    task = Files(str(write("a.csv", text)), id="who", time="when", label="what")
    assert task.channels == ("x", "y")
    assert series(task) == series(Files(str(write("b.csv", table(LENGTHS, LABELS)))))


def test_numbers_with_fractions_are_values_and_whole_ones_classes(write: Write) -> None:
    values = Files(str(write("a.csv", table(LENGTHS, [k / 4 for k in range(10)]))))
    classes = Files(str(write("b.csv", table(LENGTHS, [k % 3 + 8 for k in range(10)]))))
    assert (values.target, values.output_size, values.labels) == ("values", 1, None)
    assert series(values)["s3"][1] == 0.75
    assert values.part("train").y.shape[1:] == (1,)
    assert (classes.target, classes.labels) == ("classes", ("8", "9", "10"))


def test_the_target_can_be_forced(write: Write) -> None:
    path = write("a.csv", table(LENGTHS, [k % 3 for k in range(10)]))
    assert series(Files(str(path), target="values"))["s5"][1] == 2.0
    fractions = write("b.csv", table(LENGTHS, [0.5, 1.5] * 5))
    assert Files(str(fractions), target="classes").labels == ("0.5", "1.5")
    refused(write("c.csv", table(LENGTHS, LABELS)), "the label 'walk': a target of numbers", target="values")


def test_a_batch_pads_the_shorter_series(write: Write) -> None:
    task = Files(str(write("a.csv", table(LENGTHS, LABELS))))
    batch = next(task.batches("train", 6))
    assert batch.lengths is not None
    assert batch.x.shape == (int(batch.lengths.max()), 6, 2)


def npz(path: Path, **arrays: object) -> Path:
    numpy.savez(path, **{name: numpy.asarray(values) for name, values in arrays.items()})
    return path


def padded() -> tuple[numpy.ndarray, numpy.ndarray]:
    x = numpy.arange(12 * 5 * 2, dtype=numpy.float32).reshape(12, 5, 2)
    return x, numpy.array([5, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 5])


def test_npz_with_lengths_drops_the_padding(tmp_path: Path) -> None:
    x, lengths = padded()
    task = Files(str(npz(tmp_path / "a.npz", X=x, y=numpy.arange(12) % 3, lengths=lengths)))
    found = series(task)
    assert task.channels == ("0", "1")
    assert [len(found[str(i)][0]) for i in range(12)] == lengths.tolist()
    assert found["2"] == (x[2, :2].tolist(), 2)


def test_npz_with_offsets_gives_the_same_as_padded(tmp_path: Path) -> None:
    x, lengths = padded()
    y = numpy.arange(12) % 3
    flat = numpy.concatenate([row[:n] for row, n in zip(x, lengths, strict=True)])
    offsets = numpy.concatenate(([0], lengths.cumsum()))
    a = npz(tmp_path / "a.npz", flat=flat, offsets=offsets, y=y)
    b = npz(tmp_path / "b.npz", X=x, y=y, lengths=lengths)
    assert series(Files(str(a))) == series(Files(str(b)))


def test_npz_with_train_and_test_keeps_them_and_names_the_classes(tmp_path: Path) -> None:
    x, lengths = padded()
    y = numpy.arange(12, dtype=numpy.uint8) % 2
    train = {"X_train": x, "y_train": y, "length_train": lengths}
    task = Files(str(npz(tmp_path / "a.npz", **train, X_test=x[:5], y_test=y[:5], classes=["no", "yes"])))
    assert task.labels == ("no", "yes")
    assert [task.size(part) for part in PARTS] == [10, 2, 5]
    assert names(task)["test"] == [f"test/{i}" for i in range(5)]


def test_npz_of_one_channel_and_numbers_is_read(tmp_path: Path) -> None:
    x, _ = padded()
    task = Files(str(npz(tmp_path / "a.npz", X=x[:, :, 0], y=numpy.ones((12, 2)))))
    assert (task.input_size, task.output_size, task.target) == (1, 2, "values")


def test_npz_subjects_are_kept_apart(tmp_path: Path) -> None:
    x, _ = padded()
    subject = numpy.repeat(numpy.arange(4), 3)
    task = Files(str(npz(tmp_path / "a.npz", X=x, y=numpy.arange(12) % 2, subject=subject)))
    groups = [{int(name) // 3 for name in found} for found in names(task).values()]
    assert sorted(map(len, groups)) == [1, 1, 2]
    assert len(set.union(*groups)) == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Z": [1]}, "holds Z: needed are X and y"),
        ({"X": numpy.zeros((4, 3))}, "has no y"),
        ({"X": numpy.zeros((4, 3)), "y": [0, 1]}, r"y must hold one value per series, shape \(4,\), got \(2,\)"),
        ({"X": numpy.zeros((4, 0)), "y": [0, 1, 0, 1]}, r"X must be \(series, samples, channels\)"),
        ({"X": [["a", "b"]] * 4, "y": [0, 1, 0, 1]}, "X holds <U1, needed are numbers"),
        ({"X": numpy.full((4, 3), numpy.inf), "y": [0, 1, 0, 1]}, "X holds infinite values"),
        ({"X": numpy.zeros((4, 3)), "y": [0, 1, 0, 1], "lengths": [1, 2, 3, 4]}, "lengths must be .* from 1 to 3"),
        ({"X": numpy.zeros((4, 3)), "y": [0, 1, 0, 2], "classes": ["a", "b"]}, "y must be 0 to 1, places in classes"),
        ({"X": numpy.zeros((4, 3)), "y": [0.5, numpy.nan, 1, 2]}, "y holds NaN"),
        ({"flat": numpy.zeros(6), "y": [0, 1]}, "has flat but no offsets"),
        ({"flat": numpy.zeros(6), "offsets": [0, 3, 5], "y": [0, 1]}, "offsets must be .* rising from 0 to 6"),
        ({"flat": numpy.zeros(6), "offsets": [0, 0, 6], "y": [0, 1]}, "offsets must be .* rising from 0 to 6"),
        ({"X_test": numpy.zeros((4, 3)), "y_test": [0, 1, 0, 1]}, "needed are X and y"),
        ({"X": numpy.zeros((4, 3)), "y": numpy.zeros((4, 3), int)}, "y must hold one value per series"),
        (
            {"X_train": numpy.zeros((2, 3)), "y_train": [0, 1], "X_test": numpy.zeros((2, 3, 2)), "y_test": [0, 1]},
            "the parts have 1, 2 channels",
        ),
    ],
)
def test_npz_that_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    refused(npz(tmp_path / "a.npz", **arrays), message)


def test_npz_with_objects_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("it was unpickled",))

    path = tmp_path / "a.npz"
    numpy.savez(path, X=numpy.array([Trap()], dtype=object), y=[0])
    refused(path, "never unpickled")


@pytest.mark.parametrize("damage", [lambda data: data[:300], lambda data: b"no npz", lambda data: b"\x93NUMPY" + data])
def test_npz_that_is_damaged_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = npz(tmp_path / "a.npz", X=numpy.zeros((4, 3)), y=[0, 1, 0, 1])
    path.write_bytes(damage(path.read_bytes()))
    refused(path, "could not be read as npz")


def test_a_single_array_under_the_name_of_an_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with open(path, "wb") as file:
        numpy.save(file, numpy.zeros(3))
    refused(path, "holds a single array")


TS = """# a comment
@problemName Toy
@timeStamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
1,2,3:4,5,6:up
1,2:?,5:down
7,8,9,10:1,1,1,1:up
"""


def test_ts_gives_lengths_dimensions_missing_values_and_class_names(write: Write) -> None:
    write("Toy_TRAIN.ts", TS * 1 + "1:1:up\n2:2:down\n3:3:down\n")
    folder = write("Toy_TEST.ts", TS).parent
    task = Files(str(folder))
    found = series(task)
    assert task.labels == ("up", "down")
    assert [task.size(part) for part in PARTS] == [4, 2, 3]
    assert found["Toy_TEST/0"] == ([[1, 4], [2, 5], [3, 6]], 0)
    # a missing first value takes the first known one
    assert found["Toy_TEST/1"] == ([[1, 5], [2, 5]], 1)
    assert len(found["Toy_TEST/2"][0]) == 4


def test_ts_with_a_target_is_regression(write: Write) -> None:
    text = "@univariate true\n@targetlabel true\n@data\n" + "".join(f"1,2,{k}:{k / 2}\n" for k in range(8))
    task = Files(str(write("a.ts", text)))
    assert (task.target, task.output_size) == ("values", 1)
    assert series(task)["5"] == ([[1], [2], [5]], 2.5)


def test_ts_with_numbered_times_becomes_time_spans(write: Write) -> None:
    body = "".join(f"(0,1),(1,2),(2,3),(5,{k}):{'ab'[k % 2]}\n" for k in range(8))
    task = Files(str(write("a.ts", "@timeStamps true\n@univariate true\n@classLabel true a b\n@data\n" + body)))
    spans = task.part("train").timespans
    assert spans is not None
    assert task.median_gap == 1
    assert spans[:4].tolist() == [1, 1, 1, 3]


def test_ts_dimensions_with_other_times_are_brought_together(write: Write) -> None:
    line = "(2004-08-10 18:00:00,1),(2004-08-10 18:00:02,3):(2004-08-10 18:00:01,7),(2004-08-10 18:00:02,8):"
    body = "".join(f"{line}{'ab'[k % 2]}\n" for k in range(8))
    task = Files(str(write("a.ts", "@timeStamps true\n@classLabel true a b\n@data\n" + body)))
    assert series(task)["3"][0] == [[1, 7], [1, 7], [3, 8]]
    assert any("8 values of channel '0'" in note and "8 values of channel '1'" in note for note in task.notes)
    assert task.median_gap is None


HEAD = "@classLabel true a b\n@data\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@problemName x\n@data\n1,2:a\n", "says of no label: needed is '@classLabel true"),
        (HEAD + "1,2:3,4:a\n1,2:3:b\n", "line 4 is ragged: its dimensions have 2, 1 samples"),
        (HEAD + "1,2:3,4:a\n1,2:b\n", "line 4 has 1 dimensions, by the lines before it needs 2"),
        (HEAD + "1,2:a\n1,two:b\n", "line 4 has the value 'two'"),
        (HEAD + "1,2:a\n1,:b\n", "line 4 has the value ''"),
        (HEAD + "1,2:a\n1,inf:b\n", "line 4 has the value inf"),
        (HEAD + "1,2:a\n1,2:c\n", "line 4 has the label 'c': @classLabel says a, b"),
        (HEAD + "1,2:a\n1,2\n", "line 4 has no label"),
        (HEAD, "has no series"),
        ("@classLabel true a b\n1,2:a\n", "line 2 is '1,2:a': lines before @data"),
        ("@classLabel true a b\n", "has no @data line"),
        ("@dimensions two\n@data\n", "line 1 is '@dimensions two'"),
        ("@equalLength true\n" + HEAD + "1,2:a\n1:b\n", "line 5 has 1 samples, before it were 2"),
        (HEAD + "1,2:a\n(0,1),(1,2):b\n", "line 4 mixes values with and without time stamps"),
        (HEAD + "(0,1),(0,2):a\n", "line 3 has two samples at time 0"),
        (HEAD + "(noon,1),(0,2):a\n", "line 3 has the time stamp 'noon'"),
        (HEAD + "(0),(1):a\n", r"line 3 has '0': needed is \(time,value\)"),
        ("@targetLabel true\n@data\n1,2:warm\n", "line 3 ends with 'warm'"),
    ],
)
def test_ts_that_does_not_fit_is_refused_with_its_line(write: Write, text: str, message: str) -> None:
    refused(write("a.ts", text), message)


def test_a_folder_of_parts_keeps_them(write: Write) -> None:
    for part, count in (("train", 8), ("valid", 3), ("test", 4)):
        folder = write(f"{part}.csv", table([2] * count, LABELS[:count])).parent
    task = Files(str(folder))
    assert [task.size(part) for part in PARTS] == [8, 3, 4]
    # the ids repeat in every file
    assert names(task)["validation"] == ["valid/s0", "valid/s1", "valid/s2"]


def test_a_folder_per_class_names_classes_and_series(write: Write) -> None:
    for label in ("cat", "dog"):
        for k in range(4):
            folder = write(f"{label}/{label}{k}.csv", f"time,x\n0,{k}\n1,{k + 1}\n").parent.parent
    task = Files(str(folder))
    assert task.labels == ("cat", "dog")
    assert series(task)["dog/dog3"] == ([[3], [4]], 1)
    assert [task.size(part) for part in PARTS] == [4, 2, 2]


def test_series_of_the_same_name_in_two_classes_are_told_apart(write: Write) -> None:
    for label in ("cat", "dog"):
        for k in range(4):
            folder = write(f"{label}/{k}.csv", f"x\n{k}\n").parent.parent
    assert sorted(series(Files(str(folder)))) == [f"{label}/{k}" for label in ("cat", "dog") for k in range(4)]


def test_a_flat_folder_has_one_series_per_file(write: Write) -> None:
    for k in range(8):
        folder = write(f"r{k}.csv", "time,x,label\n" + f"0,{k},{k / 2}\n1,{k},{k / 2}\n").parent
    task = Files(str(folder))
    # labels of one file may look like whole numbers, of another not
    assert task.target == "values"
    assert series(task)["r5"] == ([[5], [5]], 2.5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": "x"}, r"holds notes\.txt: needed are \.csv or \.parquet files with a labels\.csv"),
        ({"test.csv": "id,x,label\na,1,b\n"}, "has test.csv but no file for train"),
        ({"train.csv": table([1] * 8, LABELS[:8]), "train.parquet": "x"}, "has two files for train|could not be read"),
        ({"train/a.csv": "x\n1\n", "test/b.csv": "x\n1\n"}, "train has no labels: a.csv has no column 'label'"),
        ({"a.csv": "x,label\n1,a\n", "b.csv": "x,z,label\n1,2,b\n"}, r"b\.csv has 'z', unlike the first file, a\.csv"),
        ({"a.csv": "x,z,label\n1,2,a\n", "b.csv": "x,label\n1,b\n"}, r"b\.csv lacks 'z'"),
        ({"a.csv": "time,x,label\n1,2,a\n", "b.csv": "x,label\n1,b\n"}, "has times: all files need them, or none"),
        ({"cat/a.csv": "x,label\n1,a\n"}, "has a column 'label' and is in the folder of a class"),
        ({"train.csv": "id,x,label,split\na,1,b,train\n"}, "drop the column 'split'"),
    ],
)
def test_folders_that_do_not_fit_are_refused(write: Write, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(name, text)
    folder = write(".hidden", "").parent
    with pytest.raises(DataError, match=message):
        Files(str(folder))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "holds nothing: needed are")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,x,label\n", "has no rows"),
        ("id,x,label\na,1\n", "could not be read: .*Expected 3 columns"),
        ("id,x,lable\na,1,b\n", r"has no column 'label' \(did you mean 'lable'\?\): it has id, x, lable; label='...'"),
        ("x,label\n1,b\n", "has no column 'id'"),
        ("id,x,Label\na,1,b\n", "has no column 'label' but 'Label': give label='Label'"),
        ("id,Time,x,label\na,1,1,b\n", "has no column 'time' but 'Time': give time='Time'"),
        ("id;x;label\na;1;b\n", "separate columns by commas"),
        ("id,x,x,label\na,1,1,b\n", "has two columns 'x'"),
        (",id,x,label\n0,a,1,b\n", "column 1 has no name"),
        ("id,label\na,b\n", "has no channels"),
        ("id,x,label\na,1,b\na,one,b\n", "line 3: 'x' is 'one': a channel needs numbers"),
        ("id,x,label\na,2024-01-01,b\n", "column 'x' holds date32.*give time='x'"),
        ("id,x,label\na,1,b\na,inf,b\n", "line 3: 'x' is inf: needed are finite numbers"),
        ("id,x,label\na,1,b\na,2,c\n", "line 3: label of series 'a' is 'c', before it was 'b'"),
        ("id,x,label\na,1,0.5\na,2,0.25\n", "line 3: label of series 'a' is 0.25, before it was 0.5"),
        ("id,x,label\na,1,b\nb,2,\n", "series 'b' has no label"),
        ("id,x,label\na,1,0.5\nb,2,\n", "series 'b' has no label"),
        ("id,x,label\na,1,b\n,2,b\n", "line 3 has no 'id'"),
        ("id,x,label\na,1,b\nb,2,b\n", "has one class only, 'b'"),
        ("id,x,label\na,1,b\nb,2,c\n", r"has too few series to hold some out for validation and test \(at random: 2\)"),
        ("id,time,x,label\na,1,1,b\na,1,2,b\n", "line 3: series 'a' has two samples at time 1: merge them"),
        ("id,time,x,label\na,1,1,b\na,,2,b\n", "line 3 has no 'time'"),
        ("id,time,x,label\na,noon,1,b\n", "column 'time' needs numbers or ISO dates"),
        ("id,x,label,split\na,1,b,tain\n", r"split of series 'a' is 'tain' \(did you mean 'train'\?\)"),
        ("id,x,label,split\na,1,b,train\na,1,b,test\n", "line 3: split of series 'a' is 'test', before it was 'train'"),
        ("id,x,label,split\na,1,b,test\nc,1,d,test\n", "has no series in train"),
        ("id,x,label,subject\na,1,b,s\na,1,b,t\n", "line 3: subject of series 'a' is 't', before it was 's'"),
    ],
)
def test_csv_that_does_not_fit_is_refused(write: Write, text: str, message: str) -> None:
    refused(write("a.csv", text), message)


def test_a_file_of_another_kind_is_refused(write: Write) -> None:
    refused(
        write("a.xlsx", "x"),
        r"is of a kind that is not read.*: needed is one of \.npz, .*\.csv, \.parquet; save the sheet as \.csv",
    )


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "no.csv", "does not exist: give a file")


def test_text_that_is_not_utf8_is_refused(write: Write) -> None:
    path = write("a.csv", "")
    path.write_bytes("id,x,label\na,1,\u00e9\nb,1,e\n".encode("latin-1"))
    refused(path, "column 'label' is not text in UTF-8")


def test_header_and_names_may_have_spaces_and_a_byte_order_mark(write: Write) -> None:
    path = write("a.csv", "")
    rows = "".join(f"{k}, 1.5, c{k % 2}\r\n" for k in range(8))
    path.write_bytes(f"\ufeffid, x, label\r\n{rows}".encode())
    task = Files(str(path))
    assert (task.channels, task.labels) == (("x",), ("c0", "c1"))


def test_a_damaged_parquet_file_is_refused(write: Write) -> None:
    refused(write("a.parquet", "PAR1 no parquet"), "could not be read")


def test_without_pyarrow_the_extra_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.csv", table(LENGTHS, LABELS))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(path, r"pip install 'pendula\[train\]'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"missing": "drop"}, "missing must be one of forward, refuse"),
        ({"target": "class"}, r"target must be one of .*did you mean 'classes'"),
        ({"split_seed": -1}, "split_seed must be a whole number, at least 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(write: Write, arguments: dict[str, object], message: str) -> None:
    path = write("a.csv", table(LENGTHS, LABELS))
    with pytest.raises(ValueError, match=message):
        Files(str(path), **arguments)


def test_parts_are_drawn_70_15_15_with_every_class_in_each(write: Write) -> None:
    labels = [k % 4 for k in range(100)]
    task = Files(str(write("a.csv", table([1] * 100, labels))))
    assert [task.size(part) for part in PARTS] == [68, 16, 16]
    assert all(sorted(set(task.part(part).y.tolist())) == [0, 1, 2, 3] for part in PARTS)


def test_three_series_of_a_class_are_enough_for_all_parts(write: Write) -> None:
    task = Files(str(write("a.csv", table([1] * 6, ["a", "a", "a", "b", "b", "b"]))))
    assert all(sorted(task.part(part).y.tolist()) == [0, 1] for part in PARTS)


def test_parts_are_disjoint_and_drawn_by_the_seed_alone(write: Write) -> None:
    path = str(write("a.csv", table([1] * 40, LABELS * 4)))
    drawn = [names(Files(path, split_seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert sorted(name for part in drawn[0].values() for name in part) == sorted(f"s{k}" for k in range(40))


def test_no_subject_is_in_two_parts(write: Write) -> None:
    subjects = [f"p{k % 7}" for k in range(40)]
    text = table([2] * 40, LABELS * 4, header="id,time,x,y,label,subject", extra=subjects)
    task = Files(str(write("a.csv", text)))
    seen = [{subjects[int(name[1:])] for name in found} for found in names(task).values()]
    assert list(map(len, seen)) == [5, 1, 1]
    assert len(set.union(*seen)) == 7
    assert any("whole subjects" in note for note in task.notes)


def test_two_subjects_are_too_few(write: Write) -> None:
    text = table([1] * 10, LABELS, header="id,time,x,y,label,subject", extra=["a", "b"] * 5)
    refused(write("a.csv", text), r"too few series to hold some out for validation and test \(whole subjects: 2\)")


def test_a_column_of_parts_is_followed_and_only_what_is_absent_is_drawn(write: Write) -> None:
    parts = ["train"] * 16 + ["test"] * 4
    text = table([1] * 20, LABELS * 2, header="id,time,x,y,label,split", extra=parts)
    task = Files(str(write("a.csv", text)))
    assert sorted(names(task)["test"]) == [f"s{k}" for k in range(16, 20)]
    assert [task.size(part) for part in PARTS] == [14, 2, 4]


def test_a_subject_that_the_user_put_in_two_parts_is_noted(write: Write) -> None:
    text = "id,x,label,split,subject\n" + "".join(
        f"{k},{k},{k % 2},{('train', 'validation', 'test')[k % 3]},p{k % 2}\n" for k in range(12)
    )
    task = Files(str(write("a.csv", text)))
    assert "2 subjects are in both train and test, 'p0' for one" in task.notes


def test_a_class_that_is_not_in_the_training_part_is_noted(write: Write) -> None:
    text = "id,x,label,split\n0,1,a,train\n1,1,b,train\n2,1,c,validation\n3,1,a,test\n"
    assert "no series of the training part is of class 'c'" in Files(str(write("a.csv", text))).notes


MISSING = """id,time,x,z,label,split
a,0,,5,0,train
a,1,2,,0,train
a,2,,,0,train
b,0,4,7,1,train
c,0,,1,0,validation
c,1,,2,0,validation
d,0,1,1,1,test
"""


def test_missing_values_take_the_last_then_the_first_known_and_else_the_training_mean(write: Write) -> None:
    task = Files(str(write("a.csv", MISSING)))
    found = series(task)
    assert found["a"][0] == [[2, 5], [2, 5], [2, 5]]
    # the known values of x in the training part are 2 and 4
    assert found["c"][0] == [[3, 1], [3, 2]]


def test_missing_values_are_counted_per_channel(write: Write) -> None:
    notes = Files(str(write("a.csv", MISSING))).notes
    assert any("4 values of channel 'x', 2 values of channel 'z'" in note for note in notes)


def test_missing_values_do_not_leak_from_one_series_into_the_next(write: Write) -> None:
    text = "id,x,label\n" + "".join(f"{k},{k},{k % 2}\n{k},,{k % 2}\n" for k in range(8))
    assert all(rows == [[float(name)]] * 2 for name, (rows, _) in series(Files(str(write("a.csv", text)))).items())


def test_missing_values_are_refused_on_demand(write: Write) -> None:
    refused(write("a.csv", MISSING), "4 values of channel 'x', .*first in channel 'x' of series 'a'", missing="refuse")


def test_a_channel_without_any_training_value_is_refused(write: Write) -> None:
    text = "id,x,z,label,split\na,1,,0,train\nb,1,,1,train\nc,1,1,0,validation\nd,1,1,1,test\n"
    refused(write("a.csv", text), "channel 'z' has no value in the training part")


def test_uneven_time_stamps_become_spans_in_units_of_the_training_median(write: Write) -> None:
    text = "id,time,x,label,split\n" + "".join(
        f"{k},{t},1,{k % 2},{part}\n"
        for k, (part, times) in enumerate(
            [("train", (0, 2, 4, 7)), ("train", (1, 3, 5)), ("validation", (0, 100)), ("test", (0, 1, 5))]
        )
        for t in times
    )
    task = Files(str(write("a.csv", text)))
    assert task.median_gap == 2
    spans = {part: task.part(part).timespans for part in PARTS}
    assert all(s is not None for s in spans.values())
    assert spans["train"].tolist() == [1, 1, 1, 1.5, 1, 1, 1]
    assert spans["validation"].tolist() == [1, 50]
    assert spans["test"].tolist() == [1, 0.5, 2]
    assert any("irregular, 1 to 100 apart; the median in training, 2, counts as 1" in note for note in task.notes)


@pytest.mark.parametrize(
    "stamps",
    [
        ["2024-03-31T00:00:00", "2024-03-31T00:30:00", "2024-03-31T01:00:00"],
        ["2024-03-31 00:00:00.25", "2024-03-31 00:00:00.5", "2024-03-31 00:00:00.75"],
        ["2024-03-31T00:00:00Z", "2024-03-31T00:00:01Z", "2024-03-31T00:00:02Z"],
        ["2024-03-30", "2024-03-31", "2024-04-01"],
        ["00:00:01", "00:00:02", "00:00:03"],
        ["1711843200.02", "1711843200.04", "1711843200.06"],
        ["1711843200000000001", "1711843200000000002", "1711843200000000003"],
        ["0.1", "0.2", "0.30000000000000004"],
    ],
)
def test_even_dates_and_numbers_are_regular(write: Write, stamps: list[str]) -> None:
    text = "id,time,x,label\n" + "".join(f"{k},{t},1,{k % 2}\n" for k in range(8) for t in stamps)
    task = Files(str(write("a.csv", text)))
    assert task.median_gap is None
    assert task.part("train").timespans is None
    assert any("regular" in note for note in task.notes)


def test_dates_are_measured_in_seconds(write: Write) -> None:
    stamps = ["2024-01-01 00:00:00", "2024-01-01 00:01:00", "2024-01-01 00:02:00", "2024-01-01 01:00:00"]
    text = "id,time,x,label\n" + "".join(f"{k},{t},1,{k % 2}\n" for k in range(8) for t in stamps)
    assert Files(str(write("a.csv", text))).median_gap == 60


def test_the_description_is_plain_data(write: Write) -> None:
    task = Files(str(write("a.csv", table(LENGTHS, LABELS))))
    assert json.loads(json.dumps(task.description())) == task.description()
    assert task.description()["channels"] == ["x", "y"]


def test_unlabelled_series_are_read_as_the_training_data_were(write: Write) -> None:
    path = write("a.csv", table(LENGTHS, LABELS))
    description = json.loads(json.dumps(Files(str(path)).description()))
    # other order of columns, subjects that are not needed, no label
    new = write("new.csv", "y,subject,time,id,x\n5,hello,0,a,1\n6,,0.5,a,\n7,you,0,b,\n")
    found = read_unlabelled(new, description)
    assert found.names == ("a", "b")
    assert found.flat[:2].tolist() == [[1, 5], [1, 6]]
    assert found.flat[2, 0] == pytest.approx(description["fill"][0])
    assert found.y.tolist() == [0, 0]
    assert found.timespans is None


def test_labels_of_unlabelled_series_are_not_looked_at(write: Write) -> None:
    path = write("a.csv", table(LENGTHS, LABELS))
    description = Files(str(path)).description()
    assert len(read_unlabelled(path, description)) == 10


def test_an_unlabelled_file_without_ids_is_one_series(write: Write) -> None:
    description = Files(str(write("a.csv", table(LENGTHS, LABELS)))).description()
    found = read_unlabelled(write("today.csv", "time,x,y\n0,1,2\n0.5,3,4\n"), description)
    assert (found.names, found.offsets.tolist()) == (("today",), [0, 2])


def test_unlabelled_time_is_measured_by_the_training_median(write: Write) -> None:
    text = "id,time,x,label\n" + "".join(f"{k},{t},1,{k % 2}\n" for k in range(8) for t in (0, 2, 4, 9))
    description = Files(str(write("a.csv", text))).description()
    found = read_unlabelled(write("b.csv", "id,time,x\na,0,1\na,1,1\na,7,1\n"), description)
    assert found.timespans is not None
    assert found.timespans.tolist() == [1, 0.5, 3]
    with pytest.raises(DataError, match=r"c\.csv has no time stamps, the training data had uneven ones"):
        read_unlabelled(write("c.csv", "id,x\na,1\n"), description)


def test_unlabelled_time_that_regular_training_data_do_not_allow_is_refused(write: Write) -> None:
    description = Files(str(write("a.csv", table(LENGTHS, LABELS)))).description()
    with pytest.raises(DataError, match=r"has samples 1 to 1 apart, in training all were 0\.5 apart"):
        read_unlabelled(write("b.csv", "id,time,x,y\na,0,1,1\na,1,1,1\n"), description)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.csv", "id,time,X2,y\na,0,1,2\n", r"b\.csv has no column 'x'"),
        ("b.ts", "@data\n1,2:3,4\n", r"b\.ts has no channel 'x': it has 0, 1; needed are x, y"),
        ("b.csv", "id,time,x,y\na,0,one,2\n", "line 2: 'x' is 'one'"),
    ],
)
def test_unlabelled_files_that_do_not_fit_are_refused(write: Write, name: str, text: str, message: str) -> None:
    description = Files(str(write("a.csv", table(LENGTHS, LABELS)))).description()
    with pytest.raises(DataError, match=message):
        read_unlabelled(write(name, text), description)


def test_unlabelled_ts_and_npz_are_read(write: Write, tmp_path: Path) -> None:
    x, lengths = padded()
    description = Files(str(npz(tmp_path / "a.npz", X=x, y=numpy.arange(12) % 2, lengths=lengths))).description()
    assert read_unlabelled(npz(tmp_path / "b.npz", X=x[:3]), description).lengths.tolist() == [5, 5, 5]
    for text in ("@classLabel false\n@data\n1,2:3,4\n", HEAD + "1,2:3,4:a\n"):
        assert read_unlabelled(write("b.ts", text), description).flat.tolist() == [[1, 3], [2, 4]]


def test_a_description_that_lacks_something_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="lacks channels, id, time, label"):
        read_unlabelled(write("a.csv", "x\n1\n"), {"fill": []})


def test_japanese_vowels_have_their_lengths_speakers_and_parts(shared_data: Callable[[str], Path]) -> None:
    task = Files(str(shared_data("ucr_uea/JapaneseVowels.npz")))
    assert [task.size(part) for part in PARTS] == [234, 36, 370]
    assert (task.input_size, task.output_size, task.labels) == (12, 9, tuple("123456789"))
    lengths = torch.cat([task.part(part).lengths for part in PARTS])
    assert (int(lengths.min()), int(lengths.max())) == (7, 29)
    assert task.part("validation").y.bincount().tolist() == [4] * 9
    assert task.part("test").y.bincount().max() == 88


@pytest.mark.parametrize("beside", ["train.csv", "loose.csv"])
def test_a_folder_of_two_kinds_is_refused_rather_than_half_read(tmp_path: Path, beside: str) -> None:
    text = "id,time,a,label\n" + "".join(f"{k},{t},{t * k},{'ab'[k % 2]}\n" for k in range(8) for t in range(3))
    (tmp_path / beside).write_text(text)
    (tmp_path / "walking").mkdir()
    (tmp_path / "walking" / "1.csv").write_text(text)
    with pytest.raises(DataError, match=rf"holds {beside}, which would be read, and walking, which would not"):
        Files(str(tmp_path))
