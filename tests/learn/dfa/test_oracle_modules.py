"""Oracle 6 of the spec sheet dfa.md: which layers form a module, and how errors pass between modules."""

from __future__ import annotations

import pytest
import torch
from tests.learn.dfa.sheet import F, backpropagated, degrees, gradients, learned, model_of, numbers, same, with_feedback
from tests.tolerance import decimals
from torch import Tensor
from torch.testing import assert_close

from pendula import Model, Node
from pendula.learn.dfa import DFA
from pendula.tasks.base import Batch

MAPS = {f"layer{k}": F(110 + k, (5, 5), 0.7) for k in range(3)} | {"layer1 from above": F(121, (5, 5), 0.7)}
PAIRS = [["layer0", "layer1"], ["layer2", "layer3"]]
TRUE = (0.0672038061, -0.0552036515, 0.0652292223, -0.0768372947, -0.0272534314)


def network() -> Model:
    nodes = [Node("Linear", 5, physics={"activation": "tanh"}) for _ in range(4)]
    weights = {f"layers.layer{k}.linear.weight": F(90 + k, (5, 5 if k else 3), 0.7) for k in range(4)}
    return model_of(nodes, (3, 2), {**weights, "readout.weight": F(99, (2, 5), 0.7)})


def sample() -> Batch:
    return Batch(F(100, (3,)).view(1, 1, 3), F(101, (2,)).view(1, 2))


def deltas(found: dict[str, Tensor]) -> list[Tensor]:
    """Biases start at zero: their gradients are the deltas of the sheet."""
    return [found[f"layers.layer{k}.linear.bias"] for k in range(4)]


def by(**words: object) -> list[Tensor]:
    return deltas(gradients(with_feedback(DFA(source="module", **words), MAPS), network(), sample()))


def angles(found: list[Tensor]) -> list[float]:
    true = deltas(backpropagated(network(), sample()))
    return [degrees(a, b) for a, b in zip(found, true, strict=True)]


def test_loss_and_backpropagated_error() -> None:
    loss, _ = learned(DFA(), network(), sample())
    assert_close(loss, numbers(0.2611597726677727), rtol=1e-12, atol=0.0)
    assert_close(deltas(backpropagated(network(), sample()))[0], numbers(*TRUE), **decimals(10))


@pytest.mark.parametrize(
    ("boundary", "to_true", "first"),
    [
        (
            "bp",
            (50.864768, 0, 35.920404, 0),
            (-0.0268513615, -0.185564626, -0.0368784861, -0.3270454864, -0.0671255151),
        ),
        (
            "lower",
            (82.726059, 74.560465, 35.920404, 0),
            (0.1037094167, -0.2295431614, -0.164239634, 0.0244962165, 0.0638502626),
        ),
        (
            "dfa",
            (74.18075, 73.843821, 35.920404, 0),
            (-0.3292058053, -0.0139248759, 0.0921104788, -0.4195103022, -0.1405563697),
        ),
    ],
)
def test_two_modules_of_two_layers(boundary: str, to_true: tuple[float, ...], first: tuple[float, ...]) -> None:
    found = by(plan=PAIRS, boundary=boundary)
    assert_close(found[0], numbers(*first), **decimals(10))
    # near zero, a cosine that rounds to 1 is 1e-8 radians
    assert angles(found) == pytest.approx(to_true, abs=2e-6)


@pytest.mark.parametrize("boundary", ["bp", "lower"])
def test_each_layer_a_module_is_backpropagation(boundary: str) -> None:
    rule = with_feedback(DFA(plan="layers", boundary=boundary, source="module"), MAPS)
    same(gradients(rule, network(), sample()), backpropagated(network(), sample()), rtol=0.0, atol=1e-16)


def test_all_layers_in_one_module() -> None:
    # 1e-6 degrees for the cosine of the top layer, which rounds to 1
    found = by(plan="whole", boundary="dfa")
    assert angles(found) == pytest.approx((105.460342, 94.175065, 35.920404, 0), abs=2e-6)


def test_modules_named_by_the_nodes_are_those_of_the_plan() -> None:
    model = network()
    nodes = [Node("Linear", 5, physics={"activation": "tanh"}, module="lower" if k < 2 else "upper") for k in range(4)]
    staged = model_of(nodes, (3, 2), dict(model.named_parameters()))
    by_name = with_feedback(DFA(plan="stages", boundary="bp", source="module"), MAPS)
    by_list = with_feedback(DFA(plan=PAIRS, boundary="bp", source="module"), MAPS)
    same(gradients(by_name, staged, sample()), gradients(by_list, model, sample()), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("plan", ["layers", "whole", "stages", PAIRS])
@pytest.mark.parametrize("boundary", ["bp", "lower", "dfa", "dfa_between"])
@pytest.mark.parametrize("source", ["module", "output"])
def test_readout_has_its_true_gradient_in_every_mode(plan: object, boundary: str, source: str) -> None:
    # P1
    found = gradients(DFA(plan=plan, boundary=boundary, source=source), network(), sample())
    true = backpropagated(network(), sample())
    for name in ("readout.weight", "readout.bias"):
        assert_close(found[name], true[name], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("source", ["module", "output"])
@pytest.mark.parametrize("plan", [PAIRS, [["layer0"], ["layer1", "layer2"], ["layer3"]], "whole"])
def test_top_layer_of_each_module_is_exact_under_the_boundary_bp(plan: object, source: str) -> None:
    # P3
    found = deltas(gradients(DFA(plan=plan, boundary="bp", source=source), network(), sample()))
    true = deltas(backpropagated(network(), sample()))
    modules = [["layer0", "layer1", "layer2", "layer3"]] if plan == "whole" else plan
    for module in modules:
        k = int(module[-1].removeprefix("layer"))
        assert_close(found[k], true[k], rtol=1e-12, atol=1e-15)


def test_backpropagation_inside_modules_starts_from_a_fixed_map_of_the_networks_error() -> None:
    # "dfa_between": autograd of <output of the module, stop(C e)>
    model, batch = network(), sample()
    C = F(122, (5, 2), 0.7)
    rule = with_feedback(DFA(plan=PAIRS, boundary="dfa_between"), {"layer1": C})
    found, true = gradients(rule, model, batch), backpropagated(model, batch)
    error = (model(batch.x)[0] - batch.y).detach()
    model.zero_grad()
    (model.layers["layer1"](model.layers["layer0"](batch.x)) * (error @ C.T)).sum().backward()
    for name, parameter in model.named_parameters():
        wanted = parameter.grad if parameter.grad is not None else true[name]
        assert_close(found[name], wanted, rtol=1e-12, atol=1e-15)


def test_weight_gradients_of_one_sample_have_the_angles_of_their_deltas() -> None:
    # P5: both are delta h^T
    found = gradients(DFA(), network(), sample())
    true = backpropagated(network(), sample())
    for k in range(4):
        weight, bias = f"layers.layer{k}.linear.weight", f"layers.layer{k}.linear.bias"
        assert int(torch.linalg.matrix_rank(found[weight])) == 1
        of_weights, of_deltas = (degrees(found[name], true[name]) for name in (weight, bias))
        assert of_weights == pytest.approx(of_deltas, abs=1e-9)
