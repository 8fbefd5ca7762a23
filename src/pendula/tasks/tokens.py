"""Texts as numbers: words and punctuation marks, counted and numbered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from pendula._check import DataError
from pendula.tasks.table import read_npz
from pendula.tasks.texts import write_whole

Bytes = NDArray[numpy.uint8]
Integers = NDArray[numpy.int64]

PATTERN = r"\w+(?:'\w+)*|[^\w\s]"
"""A word, with its apostrophes (don't, o'clock), or a single mark that is neither part of a word nor a space."""

LINE_BREAK = "<br />"
PADDING, UNKNOWN, FIRST = 0, 1, 2
_BETWEEN = "\0"


class Words(NamedTuple):
    """Texts as places in a lexicon: text i is ``places[offsets[i]:offsets[i + 1]]``."""

    places: NDArray[numpy.int32]
    offsets: Integers


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks, one after another; line breaks of HTML are left out.

    >>> words("Don't<br />WATCH it, 2/10!")
    ["don't", 'watch', 'it', ',', '2', '/', '10', '!']
    """
    return re.findall(PATTERN, text.lower().replace(LINE_BREAK, " "))


def tokenised(texts: Mapping[str, tuple[Bytes, Integers]]) -> tuple[dict[str, Words], list[str]]:
    """The words of the texts of each part, and the lexicon: every word once, as they appear.

    Args:
        texts: for each part the bytes of its texts (UTF-8) one after another, and where each begins, with the end.

    Errors: DataError where a text is not UTF-8, or holds the character 0.
    """
    lexicon: dict[str, int] = {_BETWEEN: 0}
    found = {}
    for part, (flat, offsets) in texts.items():
        whole, edges = flat.tobytes(), offsets.tolist()
        joined = _BETWEEN.encode().join(whole[a:b] for a, b in pairwise(edges))
        try:
            said = words(joined.decode())
        except UnicodeDecodeError as error:
            raise DataError(f"the texts of {part} are not UTF-8 ({error}): fetch them again") from error
        for word in dict.fromkeys(said):
            lexicon.setdefault(word, len(lexicon))
        places = numpy.fromiter(map(lexicon.__getitem__, said), numpy.int32, len(said))
        between = numpy.flatnonzero(places == 0)
        if len(between) != len(offsets) - 2:
            raise DataError(f"the texts of {part} hold the character 0: they are not texts; fetch them again")
        lengths = numpy.diff(numpy.concatenate(([-1], between, [len(places)]))) - 1
        found[part] = Words(places[places > 0] - 1, numpy.concatenate(([0], numpy.cumsum(lengths))))
    return found, list(lexicon)[1:]


def tokenised_once(
    texts: Mapping[str, tuple[Bytes, Integers]], folder: Path
) -> tuple[dict[str, Words], list[str], tuple[str, ...]]:
    """`tokenised`, kept in a file of the folder that is named after the texts; and what is to be said, in sentences."""
    key = hashlib.sha256(f"{PATTERN} {LINE_BREAK} {sorted(texts)}".encode())
    for part in sorted(texts):
        for array in texts[part]:
            key.update(numpy.ascontiguousarray(array).data)
    path = folder / f"words-{key.hexdigest()[:20]}.npz"
    if path.is_file():
        try:
            arrays = read_npz(path)
            kept = {part: Words(arrays[f"{part}_places"], arrays[f"{part}_offsets"]) for part in texts}
            return kept, arrays["lexicon"].tobytes().decode().split("\n"), ()
        except (DataError, KeyError, UnicodeDecodeError):
            # a file of ours that is damaged is made anew
            path.unlink(missing_ok=True)
    found, lexicon = tokenised(texts)
    content: dict[str, Any] = {"lexicon": numpy.frombuffer("\n".join(lexicon).encode(), numpy.uint8)}
    for part, own in found.items():
        content |= {f"{part}_places": own.places, f"{part}_offsets": own.offsets}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: numpy.savez(file, **content))
    except (DataError, OSError) as error:
        return found, lexicon, (f"the words are not kept, every run has to find them again: {error}",)
    return found, lexicon, ()


def vocabulary_of(places: NDArray[Any], lexicon: list[str], size: int) -> tuple[tuple[str, ...], NDArray[numpy.int32]]:
    """The most frequent words, and the token of each place of the lexicon.

    Tokens are 0 for padding, 1 for words that are not in the vocabulary, then the words by falling frequency, equally
    frequent ones in the order of their letters.

    >>> vocabulary_of(numpy.array([1, 1, 0, 2]), ["b", "a", "c", "d"], 2)
    (('a', 'b'), array([3, 2, 1, 1], dtype=int32))
    """
    counts = numpy.bincount(places, minlength=len(lexicon)).tolist()
    order = sorted(range(len(lexicon)), key=lambda place: (-counts[place], lexicon[place]))
    chosen = [place for place in order[:size] if counts[place]]
    tokens = numpy.full(len(lexicon), UNKNOWN, numpy.int32)
    tokens[chosen] = numpy.arange(FIRST, FIRST + len(chosen))
    return tuple(lexicon[place] for place in chosen), tokens
