"""Film reviews: is the writer for or against?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy
import torch
from numpy.typing import NDArray

from pendula._check import one_of, positive_int
from pendula.tasks import store
from pendula.tasks.base import PARTS, Sequences, StoredTask
from pendula.tasks.chance import split
from pendula.tasks.texts import REVIEWS, read_reviews
from pendula.tasks.tokens import FIRST, Words, tokenised_once, vocabulary_of

LEVELS = ("words", "bytes")


class IMDB(StoredTask):
    """The 50 000 labelled reviews of the Large Movie Review Dataset: positive or negative.

    The published training part is split at random, 70 % to train and 30 % for validation (17 500 and 7 500), and its
    25 000 most frequent words are the vocabulary, as in the scripts of coRNN and UnICORNN (spec sheets ``cornn.md`` and
    ``unicornn.md`` 5.2); the test part is the published one. Words are found by one regular expression here
    (`pendula.tasks.tokens.PATTERN`, lower case, punctuation marks are words of their own), not by spaCy, and which
    reviews are held out is not what the authors drew: tokens differ from theirs. No pretrained vectors are used.

    Tokens: 0 padding, 1 any other word, 2 and up the words by falling frequency; for "bytes", the byte + 1.

    Args:
        level: "words", or "bytes" (257 tokens; what the Long Range Arena reads, with max_length=4096).
        max_length: what follows the first so many tokens of a review is left out; None leaves out nothing.
        padded: the variant of the two papers' scripts. A model is not told how long the reviews of a batch are and runs
            on through the padding, to the length of the longest; what it says of a review then depends on the other
            reviews of its batch (256 in their order when measuring or predicting).
        vocabulary_size: words to know, "unknown" and padding not counted; no use for "bytes".
        split_seed: draws the validation part.

    Attributes:
        words: the words of tokens 2 and up; empty for "bytes".

    Errors: DataError when ``imdb/imdb_bytes.npz`` is missing or not the published data.
    """

    name: ClassVar[str] = "imdb"
    summary: ClassVar[str] = "film reviews, for or against: words (about 270) or bytes (about 1300)"
    target = "binary"
    output_size = 1
    labels = ("negative", "positive")
    baseline = math.log(2)
    digests: ClassVar[Mapping[str, str]] = REVIEWS

    def __init__(
        self,
        level: str = "words",
        max_length: int | None = None,
        padded: bool = False,
        vocabulary_size: int = 25_000,
        split_seed: int = 0,
    ) -> None:
        self.level, self.padded = one_of("level", level, LEVELS), padded
        self.max_length = None if max_length is None else positive_int("max_length", max_length)
        self.vocabulary_size = positive_int("vocabulary_size", vocabulary_size)
        self.split_seed = positive_int("split_seed", split_seed, least=0)
        arrays = read_reviews(store.fetch("imdb/imdb_bytes.npz"), self.digests)
        self.provenance = "exact: the published reviews; the tokens are ours, not those of spaCy"
        rows = split(len(arrays["train_label"]), (0.7, 0.3), self.split_seed)
        tokens = self._tokens(arrays, rows[0].numpy())
        whole = {part: self._sequences(arrays, part, own) for part, own in tokens.items()}
        parts = [whole["train"].take(rows[0]), whole["train"].take(rows[1]), whole["test"]]
        super().__init__(dict(zip(PARTS, parts, strict=True)))

    def _tokens(self, arrays: dict[str, NDArray[Any]], train: NDArray[Any]) -> dict[str, Words]:
        """The tokens of the published parts; the vocabulary is that of the rows to train on."""
        texts = {part: (arrays[f"{part}_text"], arrays[f"{part}_offsets"]) for part in ("train", "test")}
        if self.level == "bytes":
            self.vocabulary, self.words = 257, tuple[str, ...]()
            self.provenance = "exact: the published reviews, byte by byte"
            return {part: Words(text.astype(numpy.int32) + 1, offsets) for part, (text, offsets) in texts.items()}
        found, lexicon, self.notes = tokenised_once(texts, store.cache() / "imdb")
        places, offsets = found["train"]
        read = numpy.zeros(len(offsets) - 1, bool)
        read[train] = True
        seen = places[numpy.repeat(read, numpy.diff(offsets))]
        self.words, token = vocabulary_of(seen, lexicon, self.vocabulary_size)
        self.vocabulary = FIRST + len(self.words)
        return {part: Words(token[own.places], own.offsets) for part, own in found.items()}

    def _sequences(self, arrays: dict[str, NDArray[Any]], part: str, tokens: Words) -> Sequences:
        flat, offsets = tokens.places, tokens.offsets
        if self.max_length is not None:
            lengths = numpy.minimum(numpy.diff(offsets), self.max_length)
            pairs = zip(offsets.tolist(), lengths.tolist(), strict=False)
            flat = numpy.concatenate([flat[start : start + length] for start, length in pairs])
            offsets = numpy.concatenate(([0], numpy.cumsum(lengths)))
        label, number, rating = (arrays[f"{part}_{name}"].tolist() for name in ("label", "id", "rating"))
        # what the files of the archive are called
        sides = ("neg", "pos")
        names = tuple(f"{sides[y]}/{k}_{stars}" for y, k, stars in zip(label, number, rating, strict=True))
        # the usual vocabulary fits into two bytes a token
        kind = numpy.int16 if int(flat.max()) < 1 << 15 else numpy.int32
        x, y = torch.from_numpy(flat.astype(kind)), torch.tensor(label, dtype=torch.int64)
        return Sequences(x, torch.from_numpy(offsets), y, names=names, reads_padding=self.padded)
