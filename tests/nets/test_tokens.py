"""Token ids in, through an embedding: padding counts for nothing, masks are locked, wrong ids are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula import Model, ModelSpec, Node, ShapeError
from pendula.nets.embedding import Embedding
from pendula.ops import native
from tests import tolerance

LENGTHS = [3, 1, 6]


def spec(network: str = "CoRNN", **options: Any) -> ModelSpec:
    return ModelSpec(5, 3, (Node(network, 4, num_layers=2),), **{"vocabulary": 11, **options})


def model(network: str = "CoRNN", **options: Any) -> Model:
    return Model(spec(network, **options), dtype=torch.float64)


def tokens() -> Tensor:
    ids = torch.randint(1, 11, (6, 3))
    for b, length in enumerate(LENGTHS):
        ids[length:, b] = 0
    return ids


@pytest.mark.parametrize("network", ["CoRNN", "LSTM", "UnICORNN"])
@pytest.mark.parametrize("pool", ["last", "mean", "steps"])
def test_a_padded_batch_predicts_like_its_texts_one_by_one(network: str, pool: str) -> None:
    built, ids = model(network, pool=pool), tokens()
    together, _ = built(ids, lengths=LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone, _ = built(ids[:length, b : b + 1])
        got = together[:length, b] if pool == "steps" else together[b]
        assert_close(got, alone.select(-2, 0), **tolerance.ROUNDING)


def test_what_stands_in_the_padding_has_no_influence() -> None:
    built, ids = model(), tokens()
    other = torch.where(ids == 0, 7, ids)
    assert_close(built(ids, lengths=LENGTHS)[0], built(other, lengths=LENGTHS)[0], **tolerance.EXACT)


def test_without_lengths_the_recurrence_runs_through_the_padding_on_inputs_of_zero() -> None:
    built, ids = model(), tokens()
    assert built.embedding is not None
    x = built.embedding.weight[ids].masked_fill((ids == 0).unsqueeze(-1), 0)
    outputs, _ = built.layers["layer0"](x)
    assert_close(built(ids)[0], built.readout(outputs[-1]), **tolerance.ROUNDING)


def test_the_row_of_the_padding_is_zero_and_stays_so() -> None:
    built, ids = model(), tokens()
    optimiser = pendula.make_optimiser(built, "adamw", lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        built(ids)[0].square().sum().backward()
        optimiser.step()
    assert built.embedding is not None
    weight = built.embedding.weight
    assert weight[0].tolist() == [0.0] * 5
    assert weight.grad is not None
    assert bool(weight.grad[1:].any())


@pytest.mark.parametrize(("network", "layers", "published"), [("CoRNN", 1, 45_825), ("UnICORNN", 2, 30_081)])
def test_the_published_models_for_imdb_have_their_parameters(network: str, layers: int, published: int) -> None:
    node = Node(network, 128, num_layers=layers)
    built = Model(ModelSpec(100, 1, (node,), vocabulary=25_002))
    assert built.embedding is not None
    assert built.parameter_count == published + built.embedding.weight.numel()
    assert built.embedding.weight.numel() == 2_500_200


def test_a_model_with_tokens_comes_back_from_its_folder(tmp_path: Path) -> None:
    built = model(embedding_dropout=0.2, token_dropout=0.1).eval()
    loaded = pendula.load(pendula.save(built, tmp_path / "model"))
    assert loaded.spec == built.spec
    ids = tokens()
    assert_close(loaded(ids)[0], built(ids)[0], **tolerance.EXACT)


def test_the_spec_of_a_model_without_tokens_is_written_as_it_was_before_there_were_tokens() -> None:
    written = ModelSpec(2, 1, (Node("GRU", 3),)).to_dict()
    assert set(written) == {"input_size", "output_size", "nodes", "pool", "standardise"}
    assert ModelSpec.from_dict(written).vocabulary is None


def test_a_carried_state_continues_the_text() -> None:
    built, ids = model(), tokens()
    _, state = built(ids[:2])
    assert_close(built(ids[2:], state)[0], built(ids)[0], **tolerance.ROUNDING)


def test_embedding_dropout_drops_columns_of_a_text_over_all_its_times() -> None:
    built = Embedding(50, 400, dropout=0.3, dtype=torch.float64)
    ids = torch.randint(1, 50, (7, 3))
    ratio = (built(ids) / built.weight[ids]).detach()
    assert_close(ratio, ratio[:1].expand_as(ratio), **tolerance.ROUNDING)
    assert not torch.equal(ratio[0, 0], ratio[0, 1])
    assert ratio.unique().tolist()[0] == 0
    assert float(ratio.max()) == pytest.approx(1 / 0.7)
    # 1200 draws: three standard deviations are 0.04
    assert float((ratio[0] == 0).double().mean()) == pytest.approx(0.3, abs=0.04)


def test_token_dropout_drops_a_token_wherever_it_stands() -> None:
    built = Embedding(400, 3, token_dropout=0.65, dtype=torch.float64)
    ids = torch.arange(1, 400).repeat(2).reshape(2, 399)
    ids = torch.stack((ids[0], ids[1].flip(0)))
    ratio = (built(ids) / built.weight[ids]).detach()
    assert_close(ratio[1], ratio[0].flip(0), **tolerance.ROUNDING)
    assert_close(ratio, ratio[..., :1].expand_as(ratio), **tolerance.ROUNDING)
    assert float(ratio.max()) == pytest.approx(1 / 0.35)
    assert float((ratio[0, :, 0] == 0).double().mean()) == pytest.approx(0.65, abs=0.08)


def test_nothing_is_dropped_in_evaluation() -> None:
    built = Embedding(9, 4, dropout=0.9, token_dropout=0.9).eval()
    ids = torch.randint(1, 9, (5, 2))
    assert_close(built(ids), built.weight[ids], **tolerance.EXACT)


@pytest.mark.parametrize(
    ("ids", "error", "said"),
    [
        (
            torch.tensor([[1, 2], [3, 11]]),
            ValueError,
            r"from 0 \(padding\) to 10, got 11 at step 1 of sequence 1: give",
        ),
        (torch.tensor([[1, -1]]), ValueError, "got -1 at step 0 of sequence 1"),
        (torch.zeros(2, 3), TypeError, r"torch.int64, got torch.float32: call input.to\(torch.int64\)"),
        (torch.zeros(2, 3, dtype=torch.int32), TypeError, "torch.int64, got torch.int32"),
        (torch.zeros(2, 3, 1, dtype=torch.int64), ShapeError, r"\(time, batch\), neither zero, got \(2, 3, 1\)"),
        (torch.zeros(0, 3, dtype=torch.int64), ShapeError, r"neither zero, got \(0, 3\)"),
        ([[1, 2]], TypeError, "input must be a tensor of token ids.*got list"),
    ],
)
def test_what_are_no_tokens_of_the_vocabulary_is_refused(ids: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        model()(ids)


def test_lengths_are_checked_as_for_numbers() -> None:
    with pytest.raises(ValueError, match="lengths must be from 1 to 6"):
        model()(tokens(), lengths=[7, 1, 1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vocabulary": 1}, "vocabulary must be a whole number, at least 2, got 1"),
        ({"vocabulary": 2.5}, "vocabulary must be a whole number"),
        ({"standardise": True}, "standardise=True scales numbers, and a vocabulary makes the input tokens"),
        ({"embedding_dropout": 1.0}, r"embedding_dropout must be in \[0, 1\), got 1.0"),
        ({"vocabulary": None, "token_dropout": 0.1}, "token_dropout drops from an embedding.*without a vocabulary"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spec(**options)


def test_a_reservoir_refuses_tokens() -> None:
    with pytest.raises(ValueError, match="a reservoir reads numbers, not tokens"):
        pendula.Reservoir(spec())


@pytest.mark.skipif(bool(native.missing()), reason="without the compiled scans the export holds one length only")
def test_it_is_exported_for_any_length_and_batch() -> None:
    built = model().float().eval()
    steps, batch = torch.export.Dim("steps", min=2, max=4096), torch.export.Dim("batch", min=2, max=4096)
    with torch.no_grad():
        program = torch.export.export(built, (tokens(),), dynamic_shapes=({0: steps, 1: batch},))
        ids = torch.randint(0, 11, (9, 5))
        assert_close(program.module()(ids)[0], built(ids)[0], **tolerance.FLOAT32)


def test_it_compiles_whole() -> None:
    built, ids = model().float().eval(), tokens()
    torch._dynamo.reset()
    compiled = torch.compile(built, backend="aot_eager", fullgraph=True)
    assert_close(compiled(ids)[0], built(ids)[0], **tolerance.FLOAT32)
