"""The .ts format of the UEA and UCR archives (sktime's description, version 1.0)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy

from pendula._check import DataError
from pendula.tasks.table import Floats, Table

TUPLES = re.compile(r"\)\s*:\s*")
PAIRS = re.compile(r"\)\s*,\s*\(")


@dataclass
class _Header:
    """What the lines with @ say."""

    classes: tuple[str, ...] | None = None
    target: str | None = None
    dimensions: int | None = None
    equal: bool = False
    seen: list[str] = field(default_factory=list)


def read_ts(path: Path, *, labelled: bool = True) -> Table:
    """Series of a .ts file: one a line, dimensions separated by ":", missing values "?", the label last.

    Values may be pairs (time, value); dimensions with different times are brought together, with missing values.
    Channels are called "0", "1", ...; series by their number from 0.

    Errors: DataError naming the line.
    """
    try:
        # names in the comments of older files are not always UTF-8
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror}") from error
    header, lines = _header(path, text)
    if labelled and header.target is None:
        raise DataError(
            f"{path} says of no label: needed is '@classLabel true name name ...' or '@targetLabel true' before @data; "
            f"found {', '.join(header.seen) or 'nothing'}"
        )
    blocks: list[Floats] = []
    stamps: list[Floats | None] = []
    labels: list[str] = []
    for number, line in lines:
        where = f"{path} line {number}"
        pieces = _pieces(line)
        if header.target is not None:
            labels.append(_label(where, pieces, header))
        if header.dimensions is None:
            header.dimensions = len(pieces)
        if len(pieces) != header.dimensions:
            raise DataError(f"{where} has {len(pieces)} dimensions, by the lines before it needs {header.dimensions}")
        values, times = _paired(where, pieces) if pieces[0].startswith("(") else (_plain(where, pieces), None)
        if header.equal and blocks and len(values) != len(blocks[0]):
            raise DataError(f"{where} has {len(values)} samples, before it were {len(blocks[0])}: @equalLength is true")
        if blocks and (times is None) != (stamps[0] is None):
            raise DataError(f"{where} mixes values with and without time stamps: all lines need the same")
        blocks.append(values)
        stamps.append(times)
    if not blocks:
        raise DataError(f"{path} has no series: no line stands after @data")
    known: tuple[str, ...] | Floats | None = None
    if labelled:
        known = numpy.array([[float(v)] for v in labels]) if header.target == "values" else tuple(labels)
    return Table(
        numpy.concatenate(blocks),
        numpy.concatenate(([0], numpy.cumsum([len(block) for block in blocks]))),
        tuple(str(k) for k in range(blocks[0].shape[1])),
        tuple(str(k) for k in range(len(blocks))),
        None if stamps[0] is None else numpy.concatenate([s for s in stamps if s is not None]),
        known,
        header.classes,
    )


def _header(path: Path, text: str) -> tuple[_Header, Iterator[tuple[int, str]]]:
    header = _Header()
    numbered = iter(enumerate(map(str.strip, text.splitlines()), 1))
    for number, line in numbered:
        if not line or line.startswith("#"):
            continue
        if not line.startswith("@"):
            raise DataError(f"{path} line {number} is {line[:40]!r}: lines before @data start with @ or #")
        key, *given = line.split()
        header.seen.append(key)
        said = bool(given) and given[0].lower() == "true"
        match key.lower():
            case "@data":
                return header, ((n, rest) for n, rest in numbered if rest and not rest.startswith("#"))
            case "@classlabel" if said:
                header.target, header.classes = "classes", tuple(given[1:]) or None
            case "@targetlabel" if said:
                header.target = "values"
            case "@equallength":
                header.equal = said
            case "@univariate" if said:
                header.dimensions = 1
            case "@dimension" | "@dimensions":
                if len(given) != 1 or not given[0].isdigit() or int(given[0]) < 1:
                    raise DataError(f"{path} line {number} is {line!r}: needed is {key} and a whole number")
                header.dimensions = int(given[0])
    raise DataError(f"{path} has no @data line: needed is the .ts format, with series after @data")


def _pieces(line: str) -> list[str]:
    # a time stamp has colons itself: dimensions end with a bracket then
    return [p.strip() for p in (TUPLES.split(line) if line.startswith("(") else line.split(":"))]


def _label(where: str, pieces: list[str], header: _Header) -> str:
    label = pieces.pop()
    if not pieces or not label:
        raise DataError(f"{where} has no label: needed is ':label' at the end")
    if header.target == "values":
        try:
            float(label)
        except ValueError as error:
            raise DataError(f"{where} ends with {label!r}: @targetLabel needs a number") from error
    elif header.classes and label not in header.classes:
        raise DataError(f"{where} has the label {label!r}: @classLabel says {', '.join(header.classes)}")
    return label


def _plain(where: str, pieces: list[str]) -> Floats:
    columns = [numbers_in(where, piece) for piece in pieces]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        said = ", ".join(map(str, lengths))
        raise DataError(f"{where} is ragged: its dimensions have {said} samples, all need the same")
    return numpy.stack(columns, 1)


def _paired(where: str, pieces: list[str]) -> tuple[Floats, Floats]:
    dimensions: list[dict[float, float]] = []
    for piece in pieces:
        taken: dict[float, float] = {}
        for pair in PAIRS.split(piece.removeprefix("(").removesuffix(")")):
            stamp, comma, value = pair.rpartition(",")
            if not comma:
                raise DataError(f"{where} has {pair[:40]!r}: needed is (time,value)")
            moment = _moment(where, stamp.strip())
            if moment in taken:
                raise DataError(f"{where} has two samples at time {stamp} in one dimension: merge them, or drop one")
            taken[moment] = number(where, value)
        dimensions.append(taken)
    times = sorted(set().union(*dimensions))
    values = numpy.array([[taken.get(moment, numpy.nan) for taken in dimensions] for moment in times])
    return values, numpy.array(times)


def numbers_in(where: str, text: str) -> Floats:
    """Numbers with commas between them, NaN for ?. Errors: DataError for anything else."""
    pieces = text.split(",")
    try:
        values = numpy.array(pieces, numpy.float64)
        if not numpy.isinf(values).any():
            return values
    except ValueError:
        # a missing value, or an error that has to be named: one by one
        pass
    return numpy.array([number(where, piece) for piece in pieces])


def number(where: str, text: str) -> float:
    """A number, NaN for ?. Errors: DataError for anything else."""
    text = text.strip()
    if text == "?":
        return float("nan")
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{where} has the value {text[:40]!r}: needed is a number, or ? where missing") from error
    if numpy.isinf(value):
        raise DataError(f"{where} has the value {text}: needed are finite numbers, or ? where missing")
    return value


def _moment(where: str, text: str) -> float:
    try:
        if re.fullmatch(r"[\d.eE+-]+", text):
            return float(text)
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{where} has the time stamp {text[:40]!r}: needed is a number or an ISO date") from error
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
