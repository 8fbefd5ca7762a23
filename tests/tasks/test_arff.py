"""The .arff format, as the UCR and UEA archives write it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from tests.tasks.archives import TRAIN, half, relational_arff, ts

from pendula._check import DataError
from pendula.tasks import Files
from pendula.tasks.arff import read_arff
from pendula.tasks.uea import read_ts

Write = Callable[[str, str], Path]

UNIVARIATE = """% a comment
@relation Small

@attribute att0 numeric
@attribute att1 REAL
@attribute att2 numeric
@attribute target {1,2}

@DATA
-0.5,1e-3,2,2
% between
0.25,?,3,1
"""


def test_a_univariate_file_has_one_channel_and_the_label_last(write: Write) -> None:
    table = read_arff(write("a.arff", UNIVARIATE))
    numpy.testing.assert_array_equal(table.values, [[-0.5], [1e-3], [2], [0.25], [numpy.nan], [3]])
    assert (table.offsets.tolist(), table.labels, table.classes) == ([0, 3, 6], ("2", "1"), ("1", "2"))
    assert (table.channels, table.names, table.times) == (("0",), ("0", "1"), None)


def test_a_relational_file_is_read_as_the_ts_file_of_the_same_series(write: Write) -> None:
    one, other = read_arff(write("a.arff", relational_arff(TRAIN))), read_ts(write("a.ts", ts(TRAIN)))
    numpy.testing.assert_array_equal(one.values, other.values)
    numpy.testing.assert_array_equal(one.offsets, other.offsets)
    assert (one.labels, one.classes, one.channels) == (other.labels, other.classes, other.channels)


def test_padding_is_cut_at_the_end_only_and_where_all_dimensions_miss(write: Write) -> None:
    series = half(3, ["a"], [4])
    series[0][0][1] = numpy.nan
    series[0][0][3, 0] = numpy.nan
    table = read_arff(write("a.arff", relational_arff(series)))
    numpy.testing.assert_array_equal(table.values.astype(numpy.float32), series[0][0])


def test_labels_may_stand_in_quotes_and_hold_commas_and_spaces(write: Write) -> None:
    text = UNIVARIATE.replace("{1,2}", "{'one, two', \"2\"}").replace(",2,2", ',2,"2"').replace(",3,1", ",3,'one, two'")
    table = read_arff(write("a.arff", text))
    assert (table.labels, table.classes) == (("2", "one, two"), ("one, two", "2"))


def test_a_label_of_a_numeric_attribute_is_a_number(write: Write) -> None:
    table = read_arff(write("a.arff", UNIVARIATE.replace("{1,2}", "numeric").replace(",2,2", ",2,-7.5")))
    assert table.classes is None
    numpy.testing.assert_array_equal(table.labels, [[-7.5], [1]])


@pytest.mark.parametrize(
    "text",
    [UNIVARIATE, UNIVARIATE.replace(",2,2", ",2,?"), UNIVARIATE.replace("{1,2}", "numeric")],
    ids=["names", "not known", "numbers"],
)
def test_series_to_predict_are_read_without_their_label(write: Write, text: str) -> None:
    table = read_arff(write("a.arff", text), labelled=False)
    assert (table.labels, table.offsets.tolist()) == (None, [0, 3, 6])


def test_a_file_without_a_label_can_be_predicted(write: Write) -> None:
    text = UNIVARIATE.replace("@attribute target {1,2}\n", "").replace(",2,2", ",2").replace(",3,1", ",3")
    assert read_arff(write("a.arff", text), labelled=False).offsets.tolist() == [0, 3, 6]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.replace("@DATA", "@dat"), r"line 9 is '@dat': before @data lines start with @attribute or %"),
        (lambda t: t.partition("@DATA")[0], "has no @data line"),
        (lambda t: t.partition("-0.5")[0], "has no series: no line stands after @data"),
        (lambda t: t.replace(",2,2", ",2,3"), r"line 10 has the label '3': the header says 1, 2"),
        (lambda t: t.replace("-0.5,", ""), r"line 10 has a dimension of 2 samples, by the header all have 3"),
        (lambda t: t.replace("-0.5", "half"), r"line 10 has the value 'half': needed is a number, or \? where missing"),
        (lambda t: t.replace("-0.5", "inf"), r"line 10 has the value inf: needed are finite numbers"),
        (lambda t: t.replace("att1 REAL", "att1 date"), "has the attribute 'att1' of kind 'date': needed are numbers"),
        (lambda t: t.replace("target {1,2}", "target string"), "has the attribute 'target' of kind 'string'"),
        (lambda t: "@attribute target {1}\n@data\n1", "has 0 attributes inside a relational one and 1 outside"),
    ],
)
def test_a_spoilt_file_is_refused_with_the_place(write: Write, spoil: Callable[[str], str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_arff(write("a.arff", spoil(UNIVARIATE)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.replace("',", ","), "needed are dimensions in quotes"),
        (lambda t: t.rpartition("\\n")[0] + "',a\n", "has 1 dimensions, the lines before it 2"),
        (lambda t: t.replace("@attribute activity", "@attribute w numeric\n@attribute activity"), "all inside or all"),
    ],
)
def test_a_spoilt_relational_file_is_refused(write: Write, spoil: Callable[[str], str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_arff(write("a.arff", spoil(relational_arff(TRAIN))))


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.arff could not be read: No such file"):
        read_arff(tmp_path / "none.arff")


def test_a_users_own_arff_file_is_a_task(write: Write) -> None:
    task = Files(str(write("a.arff", relational_arff(half(1, list("abc") * 6, [3, 4, 5] * 6)))))
    assert (task.labels, task.input_size, task.provenance[:13]) == (("a", "b", "c"), 2, "your own data")


def test_a_folder_of_an_unpacked_archive_is_read_once_from_its_ts_files(write: Write) -> None:
    for part in ("TRAIN", "TEST"):
        folder = write(f"set/Small_{part}.ts", ts(TRAIN)).parent
        write(f"set/Small_{part}.arff", relational_arff(TRAIN))
        write(f"set/SmallDimension1_{part}.arff", relational_arff(TRAIN))
    task = Files(str(folder))
    assert task.size("train") + task.size("validation") + task.size("test") == 24


def test_a_folder_with_arff_files_only_is_read_by_its_halves(write: Write) -> None:
    for part in ("TRAIN", "TEST"):
        folder = write(f"set/Small_{part}.arff", relational_arff(TRAIN)).parent
    assert Files(str(folder)).size("test") == 12
