"""Oracles 1 and 2 of the spec sheet dfa.md: fully connected networks, one sample, and the linear theory."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.learn.dfa.sheet import (
    F,
    Gradients,
    backpropagated,
    degrees,
    gradients,
    half_squared,
    learned,
    model_of,
    numbers,
    with_feedback,
)
from tests.tolerance import ROUNDING, decimals
from torch import Tensor
from torch.testing import assert_close

from pendula import Model, Node
from pendula.learn.dfa import DFA, FeedbackSpec
from pendula.tasks.base import Batch

# biases start at zero: their gradients are the deltas of the sheet
W1, W2, W3 = "layers.layer0.linear.weight", "layers.layer1.linear.weight", "readout.weight"
DELTA1, DELTA2 = "layers.layer0.linear.bias", "layers.layer1.linear.bias"
B1, B2 = F(5, (4, 2)), F(6, (4, 2))


def network(activation: str = "tanh") -> Model:
    nodes = [Node("Linear", 4, physics={"activation": activation}) for _ in range(2)]
    return model_of(nodes, (3, 2), {W1: F(1, (4, 3), 0.8), W2: F(2, (4, 4), 0.8), W3: F(3, (2, 4), 0.8)})


def sample() -> Batch:
    return Batch(numbers(0.5, -1, 0.25).view(1, 1, 3), numbers(0.3, -0.2).view(1, 2))


def direct(**maps: Tensor) -> DFA:
    """Direct feedback alignment as Nokland has it."""
    return with_feedback(DFA(plan="whole", boundary="dfa", source="output"), maps)


def feedback_alignment() -> DFA:
    return with_feedback(DFA(boundary="fa"), {"layer1": B2, "layer1 backwards": F(7, (4, 4))})


def after_a_step(model: Model, found: Gradients) -> Tensor:
    """The loss after one step of rate 0.1 on the weights."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name in (W1, W2, W3):
                parameter -= 0.1 * found[name]
    return half_squared(moved(sample().x)[0], sample())


def test_the_filler_is_that_of_the_sheet() -> None:
    first = numbers(0.673176787846, 0.773275513467, 0.175826889780, -0.722985217080)
    assert_close(F(1, (4, 3), 0.8).flatten()[:4], first, **decimals(12))


def test_oracle_1_forward_pass() -> None:
    model, batch = network(), sample()
    h1 = model.layers["layer0"](batch.x)
    h2 = model.layers["layer1"](h1)
    assert_close(h1.flatten(), numbers(-0.3737116901, 0.1501631314, 0.1969521718, -0.8141907531), **decimals(10))
    assert_close(h2.flatten(), numbers(0.2041242458, -0.5855744508, -0.1308519873, 0.6602804368), **decimals(10))
    output = model(batch.x)[0]
    assert_close(output, numbers([[0.4161300135, 0.9028372525]]), **decimals(10))
    assert_close(output - batch.y, numbers([[0.116130013547, 1.102837252479]]), **decimals(12))


@pytest.mark.parametrize("rule", [direct(layer0=B1, layer1=B2), DFA(boundary="bp")], ids=["dfa", "bp"])
def test_oracle_1_loss_that_the_rule_reports(rule: DFA) -> None:
    value, _ = learned(rule, network(), sample())
    assert_close(value, numbers(0.6148680927508932), rtol=1e-14, atol=0.0)


def test_oracle_1_backpropagation() -> None:
    found = backpropagated(network(), sample())
    delta2 = numbers(0.857786692999, -0.224022560653, -0.638903210917, 0.492551749601)
    delta1 = numbers(0.289009472226, 0.489790564638, -0.441812161654, -0.390646544378)
    assert_close(found[DELTA2], delta2, **decimals(12))
    assert_close(found[DELTA1], delta1, **decimals(12))


def test_oracle_1_direct_feedback_alignment() -> None:
    found = gradients(direct(layer0=B1, layer1=B2), network(), sample())
    delta2 = numbers(0.518451305874, 0.187859850872, 0.084548962913, -0.573764201680)
    delta1 = numbers(-0.511228230524, 1.053522417962, -0.821504532665, -0.160255151344)
    assert_close(found[DELTA2], delta2, **decimals(12))
    assert_close(found[DELTA1], delta1, **decimals(12))
    assert_close(found[W1][0], numbers(-0.2556141153, 0.5112282305, -0.1278070576), **decimals(10))


def test_oracle_1_feedback_alignment() -> None:
    found = gradients(feedback_alignment(), network(), sample())
    delta2 = numbers(0.518451305874, 0.187859850872, 0.084548962913, -0.573764201680)
    assert_close(found[DELTA2], delta2, **decimals(12))
    delta1 = numbers(0.8590955, 0.1418714046, 0.8008573311, -0.0018968665)
    assert_close(found[DELTA1], delta1, **decimals(10))
    assert degrees(found[W1], backpropagated(network(), sample())[W1]) == pytest.approx(92.088005793, abs=1e-9)


@pytest.mark.parametrize(
    "rule",
    [direct(layer0=B1, layer1=B2), feedback_alignment(), DFA(boundary="bp"), DFA(boundary="lower")],
    ids=["dfa", "fa", "bp", "lower"],
)
def test_oracle_1_readout_has_its_true_gradient_in_all_modes(rule: DFA) -> None:
    rows = [
        [0.0237049514, -0.0680027689, -0.0151958431, 0.0766783761],
        [0.2251158224, -0.6457933185, -0.1443084461, 0.7281818628],
    ]
    assert_close(gradients(rule, network(), sample())[W3], numbers(rows), **decimals(10))


def test_oracle_1_angles_and_inner_products_with_backpropagation() -> None:
    found, true = gradients(direct(layer0=B1, layer1=B2), network(), sample()), backpropagated(network(), sample())
    assert degrees(found[W1], true[W1]) == pytest.approx(47.689934442, abs=1e-9)
    assert degrees(found[W2], true[W2]) == pytest.approx(86.054227986, abs=1e-9)
    assert float((found[W1] * true[W1]).sum()) == pytest.approx(1.0418747762567, abs=1e-12)
    assert float((found[W2] * true[W2]).sum()) == pytest.approx(0.0570252525916, abs=1e-12)


def test_oracle_1_one_step_of_gradient_descent() -> None:
    found, true = gradients(direct(layer0=B1, layer1=B2), network(), sample()), backpropagated(network(), sample())
    assert_close(after_a_step(network(), found), numbers(0.4168725878527832), rtol=1e-14, atol=0.0)
    assert_close(after_a_step(network(), true), numbers(0.3397627101173666), rtol=1e-14, atol=0.0)


def test_oracle_1_binary_feedback() -> None:
    signs = {"layer0": B1.sign() / 3**0.5, "layer1": B2.sign() / 3**0.5}
    found = gradients(direct(**signs), network(), sample())
    delta1 = numbers(-0.605482109525, 0.687901769011, -0.676471687833, -0.192033925226)
    assert_close(found[DELTA1], delta1, **decimals(12))


def test_binary_weights_are_signs_with_the_energy_of_uniform_ones() -> None:
    # a / sqrt(3), where a = 1 / sqrt(m) bounds the uniform ones
    B = FeedbackSpec(kind="binary").matrix("layer0", 50, 2)
    assert_close(B.abs(), torch.full_like(B, (2 * 3) ** -0.5), **ROUNDING)
    assert 30 < int((B > 0).sum()) < 70


def test_oracle_2a_exact_feedback_of_a_linear_network_is_backpropagation() -> None:
    model, batch = network("none"), sample()
    weights = dict(model.named_parameters())
    exact = (weights[W3] @ weights[W2]).detach().T
    rule = direct(layer0=exact, layer1=weights[W3].detach().T)
    assert_close(model(batch.x)[0] - batch.y, numbers([[0.3277575026, 1.6517877806]]), **decimals(10))
    found = gradients(rule, model, batch)
    delta1 = numbers(0.1251669597, 1.0973459831, -0.7124449544, -2.3075639963)
    assert_close(found[DELTA1], delta1, **decimals(10))
    assert_close(found[DELTA1], backpropagated(model, batch)[DELTA1], rtol=0.0, atol=1e-15)
