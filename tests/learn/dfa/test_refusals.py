"""What direct feedback alignment refuses, and in which words."""

from __future__ import annotations

import pytest
import torch
from tests.learn.dfa.networks import conv, images, listener, random, reader, sequences
from tests.learn.dfa.sheet import gradients
from torch import nn

from pendula import Model, ModelSpec, Node
from pendula.learn.dfa import DFA, FeedbackSpec
from pendula.learn.dfa.store import Feedback
from pendula.tasks.base import Batch


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"plan": "layer"}, "plan must be one of layers, stages, whole"),
        ({"plan": ["layer0", "layer1"]}, "or lists of layers' names"),
        ({"boundary": "bpp"}, "boundary must be one of bp, lower, dfa, dfa_between, fa"),
        ({"source": "top"}, "source must be one of module, output"),
        ({"time": "brodcast"}, "time must be one of .*did you mean 'broadcast'"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\], got 1.5"),
        ({"discount": float("nan")}, "discount must be a finite number"),
        ({"discount": "half"}, "discount must be a finite number"),
        ({"time": "windows"}, "give both or neither"),
        ({"window": 5}, "give both or neither"),
        ({"time": "windows", "window": 0}, "window must be a whole number"),
        ({"groups": 0}, "groups must be a whole number"),
        ({"sparsity": 1.0}, r"in \[0, 1\), got 1.0"),
        ({"sparsity": -0.1}, r"in \[0, 1\), got -0.1"),
        ({"sparsity": float("nan")}, "sparsity must be a finite number"),
        ({"kind": "ternary"}, "kind must be one of uniform, normal, binary"),
        ({"pattern": "rows"}, "pattern must be one of random, structured"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"time": "local", "boundary": "bp"}, 'it needs boundary="dfa" and source="output"'),
        ({"time": "trace", "source": "module"}, 'it needs boundary="dfa" and source="output"'),
        ({"boundary": "fa", "plan": "whole"}, 'it needs plan="layers"'),
    ],
)
def test_wrong_settings_are_refused(words: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DFA(**words)


def stack(network: str, **words: object) -> Model:
    return random(ModelSpec(2, 3, (Node(network, 4, num_layers=2, **words),)))


@pytest.mark.parametrize(
    ("rule", "model", "said"),
    [
        (DFA(plan=[["layer0.0", "layer.1"]]), stack("GRU"), "'layer.1', .*did you mean 'layer0.1'"),
        (DFA(plan=[["layer0.0"]]), stack("GRU"), r"every layer once and in order \(layer0.0, layer0.1\), got layer0.0"),
        (DFA(plan=[["layer0.1"], ["layer0.0"]]), stack("GRU"), "in order .* got layer0.1, layer0.0"),
        (DFA(plan=[["layer0.0", "layer0.1"], ["layer0.1"]]), stack("GRU"), "every layer once"),
        (DFA(time="kernel"), stack("LSTM"), "LSTM does not: take CoRNN or FastRNN"),
        (DFA(time="kernel"), stack("UnICORNN"), 'UnICORNN does not: .* or time="discounted"'),
        (DFA(time="trace"), stack("CoRNN"), "those of CoRNN see one another: take UnICORNN"),
        (DFA(time="local"), stack("GRU", bidirectional=True), 'layer0 is bidirectional: take time="bptt"'),
        (DFA(time="local"), stack("LinOSS", dropout=0.1), "LinOSS would drop differently: set dropout=0"),
        (DFA(time="lags"), listener("mean"), 'take time="discounted"'),
        (
            DFA(time="trace"),
            random(ModelSpec(2, 3, (Node("Linear", 4), Node("UnICORNN", 4)))),
            "recurrent layers alone",
        ),
        (DFA(time="local"), random(ModelSpec(2, 3, (Node("Linear", 4),))), "leave time out"),
        (
            DFA(time="local"),
            random(ModelSpec(2, 3, (Node("Linear", 4, dropout=0.5), Node("GRU", 4)))),
            "layer0 would drop differently: set dropout=0",
        ),
        (
            DFA(time="trace"),
            random(
                ModelSpec(
                    2,
                    3,
                    (
                        Node("UnICORNN", 4, "a"),
                        Node("UnICORNN", 4, "b", inputs=("input",)),
                        Node("UnICORNN", 4, inputs=("a", "b"), merge="weighted"),
                    ),
                )
            ),
            "does not reach the weights of a merge",
        ),
        (DFA(boundary="fa"), stack("GRU"), 'take time="fa"'),
        (DFA(boundary="fa"), reader(), 'take time="fa"'),
        (DFA(), nn.Linear(2, 3), "trains a pendula.Model, layer by layer, got Linear"),
    ],
)
def test_models_that_a_rule_can_not_train_are_refused(rule: DFA, model: nn.Module, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rule.prepare(model)


@pytest.mark.parametrize("words", [{"embedding_dropout": 0.5}, {"token_dropout": 0.5}])
def test_embedding_that_drops_is_refused_by_two_passes(words: dict[str, float]) -> None:
    model = Model(ModelSpec(4, 3, (Node("LSTM", 5),), vocabulary=11, **words))
    DFA().prepare(model)
    with pytest.raises(ValueError, match="the embedding would drop differently"):
        DFA(time="local").prepare(model)


def test_kernel_is_for_equal_steps() -> None:
    batch = sequences()
    spans = torch.ones(6, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="equal steps, and this batch has timespans"):
        gradients(DFA(time="kernel"), stack("CoRNN"), Batch(batch.x, batch.y, None, spans))


def test_time_spans_need_a_time_step() -> None:
    batch = sequences()
    spans = torch.ones(6, 3, dtype=torch.float64)
    for rule in (DFA(), DFA(time="local"), DFA(time="windows", window=2)):
        with pytest.raises(ValueError, match="LSTMCell has no time step"):
            gradients(rule, stack("LSTM"), Batch(batch.x, batch.y, None, spans))


def test_sparsity_that_leaves_outputs_unheard_is_refused() -> None:
    with pytest.raises(ValueError, match=r"too few for every one of 10 columns; it can be at most 0\.7"):
        FeedbackSpec(sparsity=0.9).matrix("layer0", 4, 10)
    assert FeedbackSpec(sparsity=0.7).matrix("layer0", 4, 10).shape == (4, 10)


def test_groups_must_divide_the_channels_that_they_join() -> None:
    nodes = (conv(6, "first", ""), conv(4, "second", ""))
    model = random(ModelSpec(2, 3, nodes, pool="mean", image=(8, 6)))
    with pytest.raises(ValueError, match="groups=4 must divide the channels that the feedback first joins, 4 and 6"):
        gradients(DFA(plan="whole", boundary="bp", source="module", groups=4), model, images())


def test_module_over_a_resolution_that_does_not_fit_is_refused() -> None:
    nodes = (conv(4, "first", ""), conv(4, "second", "", stride=2))
    model = random(ModelSpec(2, 3, nodes, pool="mean", image=(7, 6)))
    batch = Batch(torch.randn(42, 5, 2, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"of \(4, 3\) pixels to a layer of \(7, 6\): cut the modules"):
        gradients(DFA(plan="whole", boundary="bp", source="module"), model, batch)


def test_error_of_a_coarser_image_is_shared_out_as_average_pooling_does() -> None:
    feedback, like = Feedback(FeedbackSpec()), torch.zeros(2, 5, 8, 6, dtype=torch.float64)
    error = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    carried = feedback.carry("layer0", error, like)
    fine = torch.zeros(2, 5, 8, 6, dtype=torch.float64, requires_grad=True)
    at_once = feedback.carry("layer0", error, torch.zeros(2, 5, 4, 3, dtype=torch.float64))
    (wanted,) = torch.autograd.grad(torch.nn.functional.avg_pool2d(fine, 2), fine, at_once)
    torch.testing.assert_close(carried, wanted)


def test_error_does_not_go_from_an_image_to_features() -> None:
    with pytest.raises(ValueError, match="from an image to features: cut the module"):
        Feedback(FeedbackSpec()).carry("layer0", torch.zeros(1, 2, 3, 3), torch.zeros(1, 4))


def test_feedback_of_another_model_is_refused() -> None:
    rule = DFA()
    rule.restore({"layer0.0": torch.zeros(5, 3)})
    with pytest.raises(ValueError, match=r"the feedback layer0.0 is \(5, 3\), and the model needs \(4, 3\)"):
        gradients(rule, stack("GRU"), sequences("last"))
