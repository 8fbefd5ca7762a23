"""The next character of a text."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests import tolerance

from pendula import BPTT, Model, ModelSpec, Node
from pendula._check import DataError
from pendula.learn.rule import carry_on
from pendula.tasks.characters import Characters

PARTS = ("train", "validation", "test")
Write = Callable[[str, str], Path]


def read(task: Characters, part: str) -> str:
    """The text of a part, from its inputs and its last target."""
    sequences = task.part(part)
    places = [*(sequences.flat - 1).tolist(), int(sequences.y[-1])]
    return "".join(task.symbols[k] for k in places)


def text_of(count: int) -> str:
    return "".join(chr(ord("a") + k * k % 23) for k in range(count - 1)) + "é"


def test_a_text_is_cut_into_its_first_ninety_percent_and_two_halves_of_the_rest(write: Write) -> None:
    text = text_of(1000)
    task = Characters(str(write("a.txt", text)), length=64)
    assert [read(task, part) for part in PARTS] == [text[:900], text[900:950], text[950:]]


def test_every_target_is_the_character_after_its_input(write: Write) -> None:
    part = Characters(str(write("a.txt", text_of(500))), length=30).part("train")
    assert torch.equal(part.y[:-1], part.flat[1:] - 1)


def test_pieces_follow_one_another_and_the_last_is_shorter(write: Write) -> None:
    part = Characters(str(write("a.txt", text_of(1000))), length=64).part("train")
    assert part.lengths.tolist() == [64] * 14 + [899 - 14 * 64]


@pytest.mark.parametrize("length", [29, 449, 450, 10_000])
def test_a_piece_that_would_be_empty_is_not_made(write: Write, length: int) -> None:
    part = Characters(str(write("a.txt", text_of(500))), length=length).part("train")
    assert int(part.lengths.min()) > 0
    assert int(part.lengths.sum()) == 449


def test_symbols_are_sorted_and_those_that_cannot_be_seen_are_named(write: Write) -> None:
    task = Characters(str(write("a.txt", "b a\tc\nB\u00a0" * 100)))
    assert task.symbols == "\t\n Babc\u00a0"
    assert task.labels == ("\\t", "\\n", "space", "B", "a", "b", "c", "\\xa0")
    assert (task.vocabulary, task.output_size) == (9, 8)


def test_a_symbol_of_the_test_part_alone_has_a_class(write: Write) -> None:
    assert "é" in Characters(str(write("a.txt", text_of(500)))).symbols


def test_batches_hold_tokens_and_targets_at_every_step(write: Write) -> None:
    task = Characters(str(write("a.txt", text_of(1000))), length=64)
    batch = task.rows("train", torch.tensor([14, 0]), 0, 0)
    assert (batch.x.dtype, batch.x.shape, batch.y.shape) == (torch.int64, (64, 2), (64, 2))
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [3, 64]
    assert batch.x[3:, 0].tolist() == [0] * 61
    assert task.targets("train", torch.tensor([14, 0])) == task.count(batch) == 67


def test_an_even_guess_costs_the_logarithm_of_the_number_of_symbols(write: Write) -> None:
    task = Characters(str(write("a.txt", "abcdefgh" * 100)), length=50)
    batch = next(task.batches("test", 3))
    sums = task.measures(torch.zeros(*batch.y.shape, 8), batch)
    assert float(sums["loss"]) / task.count(batch) == pytest.approx(math.log(8), rel=1e-5)
    assert float(sums["bits_per_character"]) / task.count(batch) == pytest.approx(3, rel=1e-5)
    assert task.selects == ("loss", False)


def test_windows_with_carried_states_read_the_same_text(write: Write) -> None:
    task = Characters(str(write("a.txt", text_of(1000))), length=300)
    model = Model(ModelSpec(4, task.output_size, (Node("LSTM", 6),), pool="steps", vocabulary=task.vocabulary)).double()
    batch = next(task.batches("train", 4))
    whole = task.measures(model(batch.x, lengths=batch.lengths)[0], batch)["loss"].detach()
    state, total, rule = None, 0.0, BPTT(window=50)
    for piece, rows in rule.windows(batch):
        assert piece.x.shape[0] <= 50
        loss, state = rule(model, piece, task.loss, lambda value: value.backward(), carry_on(state, rows))
        total += float(loss) * task.count(piece)
    assert total == pytest.approx(float(whole), rel=tolerance.ROUNDING["rtol"])


def test_a_folder_has_a_file_for_each_part(write: Write) -> None:
    for name, text in (("train", "abcab"), ("valid", "bca"), ("test", "cab ")):
        path = write(f"{name}.txt", text)
    task = Characters(str(path.parent))
    assert [read(task, part) for part in PARTS] == ["abcab", "bca", "cab "]
    assert task.notes == ("read: train.txt, valid.txt, test.txt",)


def test_the_lines_of_the_treebank_lose_the_spaces_around_them(write: Write) -> None:
    for part in ("train", "valid", "test"):
        path = write(f"ptb.{part}.txt", " no it was n't <unk> \n but N said so \n")
    assert read(Characters(str(path.parent)), "test") == "no it was n't <unk>\nbut N said so\n"


def test_both_spellings_of_the_treebank_are_one_text(write: Write) -> None:
    for part in ("train", "valid", "test"):
        write(f"words/ptb.{part}.txt", " no it was \n so \n")
        path = write(f"characters/ptb.char.{part}.txt", "n o _ i t _ w a s\n s o \n")
    assert read(Characters(str(path.parent)), "test") == "no it was\nso\n"
    assert read(Characters(str(path.parents[1] / "words")), "test") == "no it was\nso\n"


def test_of_a_folder_with_both_spellings_the_words_are_read_and_said(write: Write) -> None:
    for part in ("train", "valid", "test"):
        write(f"ptb.char.{part}.txt", "n o\n")
        path = write(f"ptb.{part}.txt", "no \n")
    assert Characters(str(path.parent)).notes == ("read: ptb.train.txt, ptb.valid.txt, ptb.test.txt",)


def test_a_folder_with_several_texts_is_refused(write: Write) -> None:
    for part in ("train", "valid", "test"):
        write(f"a.{part}.txt", "one")
        path = write(f"b.{part}.txt", "two")
    with pytest.raises(DataError, match="has several texts, a and b: put each into a folder of its own"):
        Characters(str(path.parent))


def test_two_files_for_one_part_are_refused(write: Write) -> None:
    write("train.txt", "abc")
    path = write("training.txt", "abc")
    with pytest.raises(DataError, match=r"two files for one part, train\.txt and training\.txt: take one away"):
        Characters(str(path.parent))


def test_a_folder_without_all_parts_says_what_it_has(write: Write) -> None:
    write("train.txt", "abc")
    path = write("notes.txt", "abc")
    with pytest.raises(DataError, match=r"needs a file for each part.*it has notes\.txt, train\.txt"):
        Characters(str(path.parent))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"\xff\xfe\x00", "is not a UTF-8 text"),
        ("a.txt", b"abcdefghij", "too short for a validation part of two characters"),
        ("a.txt", b"", "too short for a train part"),
    ],
)
def test_a_file_that_is_no_text_to_learn_from_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        Characters(str(tmp_path / name))


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there: give a text file, or a folder with"):
        Characters(str(tmp_path / "no.txt"))


def test_without_a_path_tiny_shakespeare_is_needed(private_cache: Path) -> None:
    with pytest.raises(DataError, match="`pendula data get tinyshakespeare` fetches it"):
        Characters()


@pytest.mark.parametrize("length", [0, 2.5])
def test_a_length_that_cannot_be_is_refused(length: object) -> None:
    with pytest.raises(ValueError, match="length must be a whole number, at least 1"):
        Characters(length=length)  # type: ignore[arg-type]


def test_the_shared_text_has_sixty_five_symbols(shared_data: Callable[[str], Path]) -> None:
    shared_data("tinyshakespeare/input.txt.gz")
    task = Characters()
    assert (task.output_size, task.vocabulary) == (65, 66)
    assert read(task, "train").startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
    assert [len(read(task, part)) for part in PARTS] == [1_003_854, 55_770, 55_770]
    assert task.provenance.startswith("exact")
