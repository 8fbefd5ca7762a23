"""Texts as tokens: which words there are, which are known, and what is kept."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy
import pytest

from pendula._check import DataError
from pendula.tasks import tokens
from pendula.tasks.tokens import tokenised, tokenised_once, vocabulary_of, words

TEXTS = {
    "train": ["It's GOOD, good!", "", "Élan<br /><br />vital -- 1/10"],
    "test": ["good film", "a b c"],
}


def flat(texts: list[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    coded = [text.encode() for text in texts]
    return numpy.frombuffer(b"".join(coded), numpy.uint8), numpy.cumsum([0, *map(len, coded)])


GIVEN = {part: flat(texts) for part, texts in TEXTS.items()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't stop.", ["don't", "stop", "."]),
        ("a<br />b<BR />", ["a", "b"]),
        ("'quoted' well-known", ["'", "quoted", "'", "well", "-", "known"]),
        ("wow!!! $5", ["wow", "!", "!", "!", "$", "5"]),
        ("naïve\tcafé", ["naïve", "café"]),
        (" ", []),
    ],
)
def test_words_and_marks_are_found(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_every_text_gets_its_own_words() -> None:
    found, lexicon = tokenised(GIVEN)
    for part, texts in TEXTS.items():
        places, offsets = found[part]
        assert [[lexicon[k] for k in places[a:b]] for a, b in pairwise(offsets)] == [words(text) for text in texts]
    assert len(set(lexicon)) == len(lexicon)


def test_a_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(DataError, match="the texts of train are not UTF-8"):
        tokenised({"train": (numpy.array([0xC3, 0x28], numpy.uint8), numpy.array([0, 2]))})


def test_the_character_that_parts_texts_is_refused_inside_one() -> None:
    with pytest.raises(DataError, match="the texts of train hold the character 0"):
        tokenised({"train": flat(["a\0b", "c"])})


def test_what_was_found_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, lexicon, _ = tokenised_once(GIVEN, tmp_path / "cache")
    monkeypatch.setattr(tokens, "words", lambda text: pytest.fail("the words were found again"))
    again, same, notes = tokenised_once(GIVEN, tmp_path / "cache")
    assert (same, notes) == (lexicon, ())
    for part in GIVEN:
        assert all(numpy.array_equal(a, b) for a, b in zip(first[part], again[part], strict=True))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_other_texts_are_kept_elsewhere(tmp_path: Path) -> None:
    tokenised_once(GIVEN, tmp_path)
    found, lexicon, _ = tokenised_once(GIVEN | {"test": flat(["else"])}, tmp_path)
    assert [lexicon[k] for k in found["test"].places] == ["else"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    first, *_ = tokenised_once(GIVEN, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again, *_ = tokenised_once(GIVEN, tmp_path)
    assert numpy.array_equal(again["train"].places, first["train"].places)
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_said_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file stands here")
    found, _, notes = tokenised_once(GIVEN, tmp_path / "cache")
    assert len(found["train"].places) > 0
    assert notes[0].startswith("the words are not kept, every run has to find them again")


def test_the_most_frequent_words_are_known_and_equals_go_by_letter() -> None:
    lexicon = ["zoo", "b", "a", "never"]
    known, token = vocabulary_of(numpy.array([0, 1, 2, 0]), lexicon, 2)
    assert known == ("zoo", "a")
    assert token.tolist() == [2, 1, 3, 1]


def test_a_word_that_does_not_occur_is_not_in_the_vocabulary() -> None:
    assert vocabulary_of(numpy.array([1]), ["a", "b"], 10)[0] == ("b",)
