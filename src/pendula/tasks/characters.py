"""Texts read character by character: which one comes next?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from pendula._check import DataError, positive_int
from pendula.tasks.base import PARTS, Batch, Sequences, StoredTask
from pendula.tasks.store import fetch
from pendula.tasks.table import PART_NAMES
from pendula.tasks.texts import unpacked, wrong_shakespeare

TREEBANK, SPACED = "ptb", "ptb.char"


class Characters(StoredTask):
    """Predict the next character of a text, at every step.

    Each part is cut into pieces of `length` characters, one after another, none twice; the last one is shorter. The
    model starts each piece with no memory of the one before. Pieces much longer than ``--train.window`` are trained on
    by truncated backpropagation, which carries the state along: length 5000 and window 100, say.

    A character is the token k + 1 and the class k, its place among the sorted characters of the whole text; 0 is
    padding. The loss is in nats per character; `measures` also gives it in bits: loss / ln 2.

    Args:
        path: None for tiny Shakespeare: the first 90 % to train on, as usual; what is left, all of it for validation in
            most uses, is halved into validation and test here. A text file (UTF-8) is cut the same way. A folder has
            a file for each part, such as ``train.txt``, ``valid.txt`` and ``test.txt``, or the Penn Treebank's
            ``ptb.train.txt`` and so on (lines without the spaces around them) or ``ptb.char.train.txt`` (characters
            between spaces, _ for a space); its licence forbids to pass it on, so it has to be brought.
        length: characters of a piece.

    Attributes:
        symbols: the characters, sorted.

    Errors: DataError naming the file, what was found and what is needed.
    """

    name: ClassVar[str] = "characters"
    summary: ClassVar[str] = "the next character of a text: tiny Shakespeare, Penn Treebank or your own"
    per_step = True

    def __init__(self, path: str | None = None, length: int = 128) -> None:
        self.length = positive_int("length", length)
        texts, self.provenance, self.notes = _shakespeare() if path is None else _own(Path(path).expanduser())
        short = [part for part, text in texts.items() if len(text) < 2]
        if short:
            raise DataError(f"{path}: too short for a {short[0]} part of two characters: give a longer text")
        points = {part: numpy.frombuffer(text.encode("utf-32-le"), numpy.uint32) for part, text in texts.items()}
        codes = numpy.unique(numpy.concatenate(list(points.values())))
        self.symbols = "".join(map(chr, codes.tolist()))
        self.vocabulary, self.output_size = len(codes) + 1, len(codes)
        self.labels = tuple(map(_shown, self.symbols))
        super().__init__({part: self._cut(numpy.searchsorted(codes, own)) for part, own in points.items()})

    def _cut(self, places: NDArray[numpy.int64]) -> Sequences:
        """Pieces of a text; each character but the first is the target of the one before it."""
        steps = len(places) - 1
        offsets = torch.cat((torch.arange(0, steps, self.length), torch.tensor([steps])))
        return Sequences(torch.from_numpy(places[:-1] + 1), offsets, torch.from_numpy(places[1:]))

    def measures(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sums over the targets: "loss" (nats), "bits_per_character" and "accuracy"."""
        sums = super().measures(output, batch)
        return sums | {"bits_per_character": sums["loss"] / math.log(2)}

    @property
    def selects(self) -> tuple[str, bool]:
        return "loss", False


def _shown(symbol: str) -> str:
    """A character, or its name where it can't be seen."""
    if symbol == " ":
        return "space"
    return symbol if symbol.isprintable() else repr(symbol)[1:-1]


def _shakespeare() -> tuple[dict[str, str], str, tuple[str, ...]]:
    path = fetch("tinyshakespeare/input.txt.gz")
    wrong = wrong_shakespeare(path)
    if wrong:
        raise DataError(f"{path} is not tiny Shakespeare: {wrong}; delete it, then `pendula data get tinyshakespeare`")
    texts, notes = _parts(unpacked(path).decode())
    return texts, "exact: the text that char-rnn comes with", notes


def _own(path: Path) -> tuple[dict[str, str], str, tuple[str, ...]]:
    """The text of each part, where it is from, and what is to be said, in sentences."""
    said = f"your own data: {path}"
    if path.is_file():
        texts, notes = _parts(_text(path))
        return texts, said, notes
    if not path.is_dir():
        raise DataError(f"{path} is not there: give a text file, or a folder with train.txt, valid.txt and test.txt")
    families: dict[str, dict[str, Path]] = {}
    for file in sorted(path.glob("*.txt")):
        family, _, word = file.stem.rpartition(".")
        if word in PART_NAMES:
            twin = families.setdefault(family, {}).setdefault(PART_NAMES[word], file)
            if twin != file:
                raise DataError(f"{path} has two files for one part, {twin.name} and {file.name}: take one away")
    whole = sorted(family for family, files in families.items() if len(files) == len(PARTS))
    if not whole:
        found = ", ".join(file.name for file in sorted(path.glob("*.txt"))) or "no .txt file"
        raise DataError(f"{path} needs a file for each part, such as train.txt, valid.txt and test.txt; it has {found}")
    # the Treebank's folder has the same text as words and as characters
    if len(whole) > 1 and whole[:2] != [TREEBANK, SPACED]:
        raise DataError(f"{path} has several texts, {' and '.join(whole)}: put each into a folder of its own")
    files = families[whole[0]]
    texts = {part: _plain(_text(files[part]), whole[0]) for part in PARTS}
    return texts, said, (f"read: {', '.join(files[part].name for part in PARTS)}",)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a UTF-8 text ({error}): convert it, with iconv for instance") from error


def _plain(text: str, family: str) -> str:
    """A text as it is read: the Treebank's without the spaces that its files put around lines or characters."""
    if family == SPACED:
        return "".join("".join(line.split()).replace("_", " ") + "\n" for line in text.splitlines())
    if family == TREEBANK:
        return "".join(line.strip() + "\n" for line in text.splitlines())
    return text


def _parts(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The first 90 % to train on, 5 % for validation, 5 % to test."""
    edges = (0, len(text) * 9 // 10, len(text) * 19 // 20, len(text))
    parts = {part: text[a:b] for part, a, b in zip(PARTS, edges, edges[1:], strict=False)}
    return parts, ("parts: the first 90 % of the characters to train on, then 5 % for validation and 5 % to test",)
