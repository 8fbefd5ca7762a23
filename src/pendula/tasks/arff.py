"""The .arff format of the UEA and UCR archives (Weka's attribute-relation file format, as the archives write it)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy

from pendula._check import DataError
from pendula.tasks.table import Floats, Table
from pendula.tasks.uea import number, numbers_in, read_ts

ATTRIBUTE = re.compile(r"""@attribute\s+("[^"]*"|'[^']*'|[^\s{]+)\s*(.*)""", re.IGNORECASE)
NOMINAL = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""")
NUMBERS = ("numeric", "real", "integer")
LABEL_NAMES = ("class", "target", "label")


@dataclass
class _Header:
    """values: how many numbers a dimension has; classes: None where the label is a number."""

    values: int
    relational: bool
    classes: tuple[str, ...] | None
    labelled: bool


def read_arff(path: Path, *, labelled: bool = True) -> Table:
    """Series of an .arff file: one a line, the label last, missing values "?".

    With a relational attribute, its text in quotes holds the dimensions, separated by a backslash and n. This format
    has one length for all series: samples at the end that are missing in all dimensions are taken for padding and cut.
    Channels are called "0", "1", ...; series by their number from 0.

    Errors: DataError naming the line.
    """
    try:
        # comments of older files are not always UTF-8
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror}") from error
    header, start = _header(path, lines, labelled)
    blocks: list[Floats] = []
    labels: list[str] = []
    for row, line in enumerate(map(str.strip, lines[start:]), start + 1):
        if not line or line.startswith("%"):
            continue
        where = f"{path} line {row}"
        text, label = _parted(where, line, header)
        labels.append(_known(where, label, header) if labelled else label)
        block = numpy.stack([_dimension(where, piece, header.values) for piece in text.split("\\n")], 1)
        if blocks and block.shape[1] != blocks[0].shape[1]:
            raise DataError(f"{where} has {block.shape[1]} dimensions, the lines before it {blocks[0].shape[1]}")
        blocks.append(_unpadded(block))
    if not blocks:
        raise DataError(f"{path} has no series: no line stands after @data")
    known: tuple[str, ...] | Floats | None = None
    if labelled:
        known = tuple(labels) if header.classes is not None else numpy.array([[float(v)] for v in labels])
    return Table(
        numpy.concatenate(blocks),
        numpy.concatenate(([0], numpy.cumsum([len(block) for block in blocks]))),
        tuple(str(k) for k in range(blocks[0].shape[1])),
        tuple(str(k) for k in range(len(blocks))),
        None,
        known,
        header.classes,
    )


def _header(path: Path, lines: list[str], labelled: bool) -> tuple[_Header, int]:
    """What the attributes say, and the number of the first line of data."""
    inside, relational = False, False
    inner = 0
    outer: list[tuple[str, str]] = []
    for row, line in enumerate(map(str.strip, lines), 1):
        word = line.lower()
        if not line or line.startswith("%") or word.startswith("@relation"):
            continue
        if word.startswith("@data"):
            return _attributes(path, outer, inner, relational, labelled), row
        if word.startswith("@end"):
            inside = False
        elif found := ATTRIBUTE.fullmatch(line):
            name, kind = found[1].strip("'\""), found[2].strip()
            if kind.lower() == "relational":
                inside = relational = True
            elif inside:
                inner += 1
            else:
                outer.append((name, kind))
        else:
            raise DataError(f"{path} line {row} is {line[:40]!r}: before @data lines start with @attribute or %")
    raise DataError(f"{path} has no @data line: needed is the .arff format, with series after @data")


def _attributes(path: Path, outer: list[tuple[str, str]], inner: int, relational: bool, labelled: bool) -> _Header:
    """The label is the last attribute outside a relational one; the samples are the others, or those inside."""
    last, kind = outer[-1] if outer else ("", "")
    nominal = kind.startswith("{")
    has_label = bool(outer) and (labelled or nominal or last.lower() in LABEL_NAMES)
    samples = outer[:-1] if has_label else outer
    values = inner if relational else len(samples)
    if not values or (relational and samples) or (labelled and not outer):
        raise DataError(
            f"{path} has {inner} attributes inside a relational one and {len(outer)} outside: needed are samples, all "
            "inside or all outside, and the label last"
        )
    for name, other in samples if nominal else outer:
        if other.lower() not in NUMBERS:
            raise DataError(
                f"{path} has the attribute {name!r} of kind {other[:40]!r}: needed are numbers, or {{names}}"
            )
    if not nominal:
        return _Header(values, relational, None, has_label)
    names = (found[1].strip("'\"") for found in NOMINAL.finditer(kind[1:].rpartition("}")[0]))
    return _Header(values, relational, tuple(name for name in names if name), has_label)


def _parted(where: str, line: str, header: _Header) -> tuple[str, str]:
    """The samples and the label of a line."""
    if header.relational:
        quote = line[0]
        end = line.find(quote, 1)
        if quote not in "'\"" or end < 0:
            raise DataError(
                f"{where} is {line[:40]!r}: needed are dimensions in quotes, because an attribute is relational"
            )
        return line[1:end], line[end + 1 :].lstrip(", ").strip("'\"")
    if not header.labelled:
        return line, ""
    if line[-1] in "'\"":
        start = line.find(line[-1])
        return line[:start].rstrip(", "), line[start + 1 : -1]
    text, _, label = line.rpartition(",")
    return text, label.strip()


def _known(where: str, label: str, header: _Header) -> str:
    if header.classes is None:
        return str(number(where, label))
    if label not in header.classes:
        raise DataError(f"{where} has the label {label!r}: the header says {', '.join(header.classes)}")
    return label


def _dimension(where: str, text: str, values: int) -> Floats:
    found = numbers_in(where, text)
    if len(found) != values:
        raise DataError(f"{where} has a dimension of {len(found)} samples, by the header all have {values}")
    return found


def _unpadded(block: Floats) -> Floats:
    known = numpy.flatnonzero(~numpy.isnan(block).all(1))
    return block[: int(known[-1]) + 1 if len(known) else 1]


READERS = {".ts": read_ts, ".arff": read_arff}
"""How the published files of the archives are read."""
