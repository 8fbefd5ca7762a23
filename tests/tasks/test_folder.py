"""A folder with a file per series: labels from folders, a labels file or columns; what is refused, and how."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pendula._check import DataError
from pendula.learn.fit import evaluate
from pendula.nets import Model, ModelSpec, Node
from pendula.predictions import predict
from pendula.tasks.base import PARTS
from pendula.tasks.files import Files, Labelled, read_unlabelled

pytest.importorskip("pyarrow")
Write = Callable[[str, str], Path]

# nine series of unequal length, sampled at uneven times; k is in all values, so that none is mistaken for another
SERIES = {f"r{k}": f"time,x,y\n0,{k},1\n{1 + k},{k}.5,2\n" + (f"{2.5 + k},{k}.25,3\n" * (k % 2)) for k in range(9)}
CLASSES = {name: ("calm", "rough", "stormy")[k % 3] for k, name in enumerate(SERIES)}
ROWS = "".join(f"{name}.csv,{label}\n" for name, label in CLASSES.items())


def by_class(write: Write, prefix: str = "") -> Path:
    for name, text in SERIES.items():
        write(f"{prefix}{CLASSES[name]}/{name}.csv", text)
    return write(".hidden", "").parent


def flat(write: Write, labels: str | None = "file,label\n" + ROWS, prefix: str = "") -> Path:
    for name, text in SERIES.items():
        write(f"{prefix}{name}.csv", text)
    if labels is not None:
        write(f"{prefix}labels.csv", labels)
    return write(".hidden", "").parent


def found(task: Files | Labelled) -> dict[str, tuple[list[list[float]], str]]:
    """Name without folders -> values and class, over the parts."""
    seen = {}
    for part in task.parts if isinstance(task, Files) else ["test"]:
        data = task.part(part)
        for i, name in enumerate(data.names or ()):
            rows = data.flat[int(data.offsets[i]) : int(data.offsets[i + 1])]
            assert task.labels is not None
            seen[name.rpartition("/")[2]] = (rows.tolist(), task.labels[int(data.y[i])])
    return seen


EXPECTED = {
    name: ([[float(v) for v in line.split(",")[1:]] for line in text.split()[1:]], CLASSES[name])
    for name, text in SERIES.items()
}


def names(task: Files, part: str) -> list[str]:
    return list(task.part(part).names or ())


def refused(folder: Path, message: str, **options: object) -> None:
    with pytest.raises(DataError, match=message):
        Files(str(folder), **options)


def test_a_folder_per_class_and_a_labels_file_say_the_same(write: Write, tmp_path: Path) -> None:
    a = Files(str(by_class(write, "a/") / "a"))
    b = Files(str(flat(write, prefix="b/") / "b"))
    assert found(a) == found(b) == EXPECTED
    assert a.labels == b.labels == ("calm", "rough", "stormy")
    assert a.median_gap is not None
    assert sorted(name for part in PARTS for name in names(a, part))[0] == "calm/r0"


@pytest.mark.parametrize(
    "labels",
    [
        "file,label\n" + ROWS.replace(".csv", ""),
        "id,label\n" + ROWS.replace(".csv", ""),
        "label,file\n" + "".join(f"{label},./{name}.CSV\n" for name, label in reversed(CLASSES.items())),
    ],
    ids=["stems", "ids", "endings in any order"],
)
def test_a_labels_file_may_name_files_with_or_without_ending(write: Write, labels: str) -> None:
    assert found(Files(str(flat(write, labels)))) == EXPECTED


def test_names_that_look_like_numbers_stay_as_they_are(write: Write) -> None:
    for k in range(8):
        write(f"{k:03}.csv", f"x\n{k}\n")
    folder = write("labels.csv", "id,label\n" + "".join(f"{k:03},{k % 2}\n" for k in range(8))).parent
    task = Files(str(folder))
    assert sorted(name for part in PARTS for name in names(task, part)) == [f"{k:03}" for k in range(8)]


def test_a_labels_file_may_hold_numbers_subjects_and_parts(write: Write) -> None:
    parts = ["train", "train", "Dev", "test"]
    rows = "".join(f"{name},{k / 4},p{k},{parts[k % 4]},sunny\n" for k, name in enumerate(SERIES))
    task = Files(str(flat(write, "file,label,subject,part,weather\n" + rows)))
    assert task.target == "values"
    assert names(task, "validation") == ["r2", "r6"]
    assert task.part("test").y.tolist() == [[0.75], [1.75]]
    assert "not read: the columns weather of labels.csv" in task.notes


def test_a_labels_file_may_be_parquet(write: Write) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    folder = flat(write)
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(folder / "labels.csv"), folder / "labels.parquet")
    refused(folder, "two labels files, labels.csv, labels.parquet")
    (folder / "labels.csv").unlink()
    assert found(Files(str(folder))) == EXPECTED


def test_folders_train_and_test_are_parts_whatever_form_each_has(write: Write) -> None:
    by_class(write, "train/")
    folder = flat(write, prefix="test/")
    write("test/more.csv", "time,y,x\n0,1,99\n3,2,98\n")
    (folder / "test" / "labels.csv").write_text("file,label\nmore.csv,rough\n" + ROWS)
    task = Files(str(folder))
    assert [task.size(part) for part in PARTS] == [6, 3, 10]
    assert names(task, "test")[0] == "test/more"
    # the first file says the order of the channels, and that is one of train
    assert task.channels == ("x", "y")
    assert task.part("test").flat[0].tolist() == [99, 1]


def test_folders_train_validation_and_test_leave_nothing_to_draw(write: Write) -> None:
    for part in ("train", "val", "test"):
        folder = by_class(write, f"{part}/")
    task = Files(str(folder))
    assert [task.size(part) for part in PARTS] == [9, 9, 9]
    assert any(note == "series: 9 train, 9 validation, 9 test" for note in task.notes)


def test_the_order_does_not_depend_on_the_file_system(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(by_class(write))
    before = Files(folder)
    listed, walked = Path.iterdir, os.walk
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(listed(self))))
    monkeypatch.setattr(os, "walk", lambda path, **how: ((p, d[::-1], f[::-1]) for p, d, f in walked(path, **how)))
    after = Files(folder)
    assert [names(after, part) for part in PARTS] == [names(before, part) for part in PARTS]
    assert after.digest() == before.digest()


def test_the_digest_covers_what_is_in_the_files(write: Write) -> None:
    folder = by_class(write)
    before = Files(str(folder)).digest()
    write("rough/r1.csv", SERIES["r1"].replace("1.5", "1.75"))
    values = Files(str(folder)).digest()
    write("rough/r1.csv", SERIES["r1"].replace("\n2,", "\n2.25,"))
    assert len({before, values, Files(str(folder)).digest()}) == 3


def test_other_files_are_told_of_and_hidden_ones_are_not(write: Write) -> None:
    write("calm/.r9.csv", "nonsense")
    write("__MACOSX/r9.csv", "nonsense")
    write("calm/photo.jpg", "")
    write("README.txt", "")
    task = Files(str(by_class(write)))
    assert found(task) == EXPECTED
    assert [note for note in task.notes if "not read" in note] == ["not read: README.txt, calm/photo.jpg"]


def test_what_was_found_is_said(write: Write) -> None:
    notes = Files(str(by_class(write))).notes
    assert notes[:3] == (
        "9 series of 2 to 3 samples and 2 channels: x, y",
        "time stamps are irregular, 1 to 9 apart; the median in training, 5.5, counts as 1",
        "3 classes: calm (3), rough (3), stormy (3)",
    )


def test_dates_are_said_in_seconds_and_not_mixed_with_numbers(write: Write) -> None:
    dated = {name: text.replace("\n", "\n2024-05-01T00:00:0") for name, text in SERIES.items()}
    for name, text in dated.items():
        write(f"{CLASSES[name]}/{name}.csv", "".join(line + "\n" for line in text.splitlines() if "," in line))
    folder = write(".hidden", "").parent
    task = Files(str(folder))
    assert any("1 to 9 s apart" in note for note in task.notes)
    new = write("../new/a.csv", SERIES["r1"])
    with pytest.raises(DataError, match=r"a\.csv has numbers as times, the training data had dates"):
        read_unlabelled(new, json.loads(json.dumps(task.description())))
    write("stormy/r8.csv", SERIES["r8"])
    refused(folder, "r0.csv has dates as times, r8.csv numbers: all files need the same")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "calm/r0.csv",
            "time,x\n0,1\n",
            r"calm/r3\.csv has 'y', unlike the first file, calm/r0\.csv",
        ),
        ("stormy/r8.csv", "time,x,z\n0,1,2\n", r"r8\.csv has 'z' and lacks 'y', unlike .* \(channels x, y\)"),
        ("stormy/r8.csv", "", r"r8\.csv is empty: needed are a line of column names"),
        ("stormy/r8.csv", "time,x,y\n", r"r8\.csv has no rows"),
        ("calm/r0.csv", "0.0,0.5,1.5\n1.0,0.5,2.5\n", r"r0\.csv has no header, its first line is 0\.0, 0\.5, 1\.5"),
        ("calm/r0.csv", "2024-05-01,0.5,1.5\n2024-05-02,0.5,2.5\n", r"r0\.csv has no header"),
        ("stormy/r8.csv", "time,x,y,label\n0,1,2,stormy\n", r"has a column 'label' and is in the folder of a class"),
        ("stormy/r8.csv", "x,y\n1,2\n", r"only one of .*r0\.csv and r8\.csv has times"),
        ("stormy/r8.parquet", SERIES["r8"], r"could not be read"),
        ("stormy/labels.csv", "file,label\n", r"labels\.csv is in the folder of a class, which says the label"),
        ("stormy/gale/r9.csv", SERIES["r8"], r"stormy holds r2.csv, .* which would be read, and gale, which would not"),
        ("stormy/r9.npz", "", r"and r9\.npz, which would not"),
        ("train/r9.csv", SERIES["r8"], r"holds train, which would be read, and calm, rough, stormy, which would not"),
    ],
)
def test_a_folder_per_class_that_does_not_fit_is_refused(write: Write, name: str, text: str, message: str) -> None:
    folder = by_class(write)
    write(name, text)
    refused(folder, message)


def test_two_files_of_one_name_are_refused(write: Write) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    folder = by_class(write)
    table = pyarrow.csv.read_csv(folder / "calm" / "r0.csv")
    pyarrow.parquet.write_table(table, folder / "calm" / "r0.parquet")
    refused(folder, r"r0\.csv and r0\.parquet are both series 'calm/r0': rename or drop one")


def test_columns_called_by_their_number_are_a_header(write: Write) -> None:
    for k in range(8):
        folder = write(f"{'ab'[k % 2]}/{k}.csv", f"0,1\n{k}.5,{k}\n").parent.parent
    assert Files(str(folder)).channels == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (ROWS, r"labels\.csv has no column 'file' or 'id': it has r0\.csv, calm"),
        ("filename,label\n" + ROWS, r"no column 'file' or 'id' \(did you mean 'filename'\?\)"),
        (
            "file,class\n" + ROWS,
            r"labels\.csv has no column 'label'.*: it has file, class; label='\.\.\.' names another",
        ),
        ("file,Label\n" + ROWS, "has no column 'label' but 'Label': give label='Label'"),
        ("file,label\n" + ROWS + "r2,rough\n", r"labels\.csv line 11 names 'r2' again, as .*labels\.csv line 4 does"),
        (
            "file,label\n" + ROWS + "r10.csv,calm\nz,calm\n",
            r"line 11 names 'r10', and no file .*; 1 more rows have none",
        ),
        ("file,label\n" + "".join(ROWS.splitlines(keepends=True)[:7]), r"labels\.csv has no row for r7\.csv, r8\.csv"),
        ("file,label\n" + ROWS.replace("r2.csv,stormy", "r2.csv,"), "series 'r2' has no label"),
        ("file,label\n" + ROWS.replace("r2.csv", ""), r"line 4 has no 'file': every row needs its file"),
        ("file,label,part\n" + ROWS.replace("\n", ",tarin\n"), r"line 2: part is 'tarin' \(did you mean 'train'\?\)"),
        ("", "is empty"),
    ],
)
def test_a_labels_file_that_does_not_fit_is_refused(write: Write, labels: str, message: str) -> None:
    refused(flat(write, labels), message)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "r8.csv",
            "time,x,y,label\n0,1,2,calm\n",
            r"has a column 'label' and is named in labels\.csv: drop the column",
        ),
        ("r8.csv", "id,time,x,y\na,0,1,2\nb,0,1,2\n", r"is named in labels\.csv as one series and has 2 ids"),
        ("deep/r9.csv", SERIES["r8"], "which would be read, and deep, which would not"),
        ("train/r9.csv", SERIES["r8"], "which would be read, and train, which would not"),
    ],
)
def test_files_beside_a_labels_file_that_do_not_fit_are_refused(
    write: Write, name: str, text: str, message: str
) -> None:
    folder = flat(write)
    write(name, text)
    refused(folder, message)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"test/calm/a.csv": "x\n1\n"}, "has test but no folder train: add one"),
        ({"train/a/a.csv": "x\n1\n", "training/a/a.csv": "x\n1\n"}, "two folders for train, train, training: merge"),
        (
            {"train/a/a.csv": "x\n1\n", "labels.csv": "file,label\na,b\n"},
            "labels.csv stands beside train: each of them",
        ),
        ({"train/test/a.csv": "x\n1\n"}, "would be a class of that name: parts are the uppermost folders"),
        ({"train/a.csv": "x,label,split\n1,a,test\n"}, "in the folder of train and has a part of its own"),
        ({"labels.csv": "file,label\na,b\n"}, "has no .csv or .parquet file of a series"),
        # long format: the test file needs its labels as well
        ({"train.csv": "id,x,label\na,1,b\n", "test.csv": "id,x\na,1\n"}, r"test\.csv has no column 'label'.* predict"),
        (
            {"a.csv": "x,y\n1,2\n"},
            r"has no labels: a\.csv has no column 'label' \(it has x, y\), and there is no labels",
        ),
    ],
)
def test_folders_of_parts_that_do_not_fit_are_refused(write: Write, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(name, text)
    refused(write(".hidden", "").parent, message)


STEPS = "time,x,label\n0,1,on\n1,2,off\n3,2,{}\n"


def per_step(write: Write) -> Path:
    for k in range(8):
        write(f"s{k}.csv", STEPS.format(("on", "off")[k % 2]) + "4,5,on\n" * (k % 2))
    return write(".hidden", "").parent


def test_a_label_at_every_step_is_learnt_and_predicted(write: Write) -> None:
    folder = per_step(write)
    task = Files(str(folder), per_step=True)
    assert (task.per_step, task.labels) == (True, ("off", "on"))
    assert any(note.startswith("a label at every step: 2 classes: off") for note in task.notes)
    for part in PARTS:
        data = task.part(part)
        assert data.y.shape == (data.flat.shape[0],)
    batch = next(task.batches("train", 6))
    assert batch.y.shape == batch.x.shape[:2]
    assert batch.y[:2].tolist() == [[1] * 6, [0] * 6]
    model = Model(ModelSpec(1, 2, (Node("CoRNN", 4),), pool="steps", labels=task.labels)).eval()
    description = json.loads(json.dumps(task.description()))
    measured = Labelled(folder, description, task.labels)
    assert measured.part("test").y.bincount().tolist() == [12, 16]
    right = evaluate(model, measured, "test")["accuracy"] * 28
    assert right == pytest.approx(round(right))
    table = predict(model, read_unlabelled(folder, description), {"per_step": True, "target": "classes"})
    assert table.column("id").to_pylist()[:4] == ["s0", "s0", "s0", "s1"]
    assert table.column("step").to_pylist()[:4] == [0, 1, 2, 0]


def test_numbers_at_every_step_are_values(write: Write) -> None:
    for k in range(8):
        folder = write(f"s{k}.csv", f"x,label\n1,{k}.5\n2,{k}.25\n").parent
    task = Files(str(folder), per_step=True)
    assert (task.target, task.output_size) == ("values", 1)
    numbers = [float(f"{name[1:]}{end}") for name in names(task, "train") for end in (".5", ".25")]
    assert task.part("train").y.tolist() == [[number] for number in numbers]


def test_labels_at_every_step_follow_their_rows_when_sorted_by_time(write: Write) -> None:
    text = "id,time,x,label\n" + "".join(f"{k},{t},{t},l{t}\n" for t in (2, 0, 1) for k in range(8))
    task = Files(str(write("a.csv", text)), per_step=True)
    data = task.part("train")
    assert data.y.tolist() == [0, 1, 2] * len(data)
    assert data.flat.squeeze(1).tolist() == [0, 1, 2] * len(data)


def test_a_labels_file_may_name_parts_of_series_with_labels_at_every_step(write: Write) -> None:
    rows = "".join(f"s{k},{('train', 'validation', 'test')[k % 3]}\n" for k in range(8))
    folder = per_step(write)
    write("labels.csv", "file,part\n" + rows)
    assert names(Files(str(folder), per_step=True), "test") == ["s2", "s5"]
    write("labels.csv", "file,label\n" + rows)
    refused(folder, "has a column 'label'; per_step=true takes that of the files: drop one", per_step=True)


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        (
            "s3.csv",
            STEPS.format("off"),
            {},
            r"s0\.csv line 3: label .* is 'off', before it was 'on'.*per_step=true takes",
        ),
        ("s3.csv", STEPS.format(""), {"per_step": True}, r"s3\.csv line 4 has no 'label': with per_step=true every"),
        ("s3.csv", "time,x\n0,1\n", {"per_step": True}, r"s3\.csv has no column 'label'"),
    ],
)
def test_labels_at_every_step_that_do_not_fit_are_refused(
    write: Write, name: str, text: str, options: dict[str, object], message: str
) -> None:
    folder = per_step(write)
    write(name, text)
    refused(folder, message, **options)


def test_classes_by_folder_and_labels_at_every_step_exclude_one_another(write: Write) -> None:
    refused(by_class(write), r"has a folder per class \(calm, rough, stormy\), and per_step=true", per_step=True)
    text = "@classLabel true a b\n@data\n" + "1,2:a\n1,2:b\n" * 8
    refused(write("../a.ts", text), r"a\.ts has one label per series: per_step=true needs \.csv", per_step=True)


def test_predictions_are_named_by_file_whatever_the_folder(write: Write) -> None:
    task = Files(str(by_class(write, "a/") / "a"))
    description = json.loads(json.dumps(task.description()))
    flat(write, "file,label\nnobody,looks\n", prefix="b/")
    folder = write("b/notes.txt", "").parent
    write("b/test.csv", SERIES["r3"])
    said: list[str] = []
    sequences = read_unlabelled(folder, description, said.append)
    assert sequences.names == (*SERIES, "test")
    assert said == ["not read: notes.txt"]
    assert read_unlabelled(folder.parent / "a", description).names == tuple(
        sorted(f"{label}/{name}" for name, label in CLASSES.items())
    )
    model = Model(ModelSpec(2, 3, (Node("CoRNN", 4),), labels=task.labels)).eval()
    table = predict(model, sequences, {"per_step": False, "target": "classes"})
    assert table.column("id").to_pylist() == [*SERIES, "test"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.npz": ""}, r"holds a\.npz: needed are \.csv or \.parquet files"),
        ({"a.txt": ""}, "holds no series"),
        ({"a.csv": "time,x\n0,1\n"}, r"a\.csv has no column 'y'"),
    ],
)
def test_folders_to_predict_that_do_not_fit_are_refused(write: Write, files: dict[str, str], message: str) -> None:
    description = Files(str(by_class(write))).description()
    for name, text in files.items():
        write(f"../new/{name}", text)
    with pytest.raises(DataError, match=message):
        read_unlabelled(write("../new/.hidden", "").parent, description)


def test_labelled_folders_are_measured_in_every_form(write: Write) -> None:
    task = Files(str(by_class(write, "a/") / "a"))
    description = json.loads(json.dumps(task.description()))
    other = Labelled(flat(write, prefix="b/") / "b", description, task.labels)
    assert found(other) == EXPECTED
    assert other.entire
    by_class(write, "c/train/")
    flat(write, prefix="c/test/")
    parted = Labelled(write("c/.hidden", "").parent, description, task.labels)
    assert found(parted) == EXPECTED
    assert not parted.entire
    with pytest.raises(DataError, match="has the class 'stormy'; the model knows calm, rough"):
        Labelled(write("c/.hidden", "").parent, description, ("calm", "rough"))


def test_folders_may_be_links(write: Write, tmp_path: Path) -> None:
    folder = by_class(write, "a/") / "a"
    (tmp_path / "linked").mkdir()
    for below in folder.iterdir():
        (tmp_path / "linked" / below.name).symlink_to(below, target_is_directory=True)
    task = Files(str(tmp_path / "linked"))
    assert found(task) == EXPECTED
    assert len(read_unlabelled(tmp_path / "linked", task.description())) == 9


def test_one_model_gives_the_same_from_a_folder_and_from_one_long_file(write: Write) -> None:
    folder = by_class(write, "a/") / "a"
    rows = [f"{name},{line}" for name, text in SERIES.items() for line in text.split()[1:]]
    long = write("long.csv", "\n".join(["id,time,x,y", *rows]) + "\n")
    description = Files(str(folder)).description()
    model = Model(ModelSpec(2, 3, (Node("CoRNN", 4),), labels=("a", "b", "c"))).eval()
    tables = [
        predict(model, read_unlabelled(path, description), {"per_step": False, "target": "classes"})
        for path in (folder, long)
    ]
    one, other = ({row["id"].rpartition("/")[2]: row for row in table.to_pylist()} for table in tables)
    assert one.keys() == other.keys()
    for name, row in one.items():
        assert torch.tensor(row["probability a"]) == pytest.approx(other[name]["probability a"])
