"""What section 4 of the spec sheet dfa.md lists as provable: P1, P2, P4, P10, P11 and P12, in whole networks."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.learn.dfa.networks import conv, images, listener, looker, random, reader, sequences, tokens
from tests.learn.dfa.sheet import backpropagated, gradients, half_squared, learned, same, with_feedback
from torch import Tensor
from torch.testing import assert_close

from pendula import Model, ModelSpec, Node
from pendula.learn.dfa import DFA, FeedbackSpec
from pendula.learn.dfa.depth import forward_apart
from pendula.learn.dfa.plan import parameters_of
from pendula.learn.dfa.store import Feedback
from pendula.tasks.base import Batch

NETWORKS = {
    "images": (looker, images),
    "sequences": (listener, sequences),
    "tokens": (reader, tokens),
    "both directions": (lambda: reader("GRU", bidirectional=True), tokens),
    "every step": (lambda: listener("steps"), lambda: sequences("steps")),
}
EACH = pytest.mark.parametrize("name", NETWORKS)


def made(name: str) -> tuple[Model, Batch]:
    network, batch = NETWORKS[name]
    return network(), batch()


@EACH
@pytest.mark.parametrize("source", ["module", "output"])
def test_each_layer_a_module_with_the_boundary_bp_is_backpropagation(name: str, source: str) -> None:
    # P2
    model, batch = made(name)
    found = gradients(DFA(plan="layers", boundary="bp", source=source), copy.deepcopy(model), batch)
    same(found, backpropagated(model, batch))


@EACH
def test_one_module_with_backpropagation_inside_is_backpropagation(name: str) -> None:
    model, batch = made(name)
    found = gradients(DFA(plan="whole", boundary="dfa_between"), copy.deepcopy(model), batch)
    same(found, backpropagated(model, batch))


@EACH
@pytest.mark.parametrize("boundary", ["bp", "lower", "dfa", "dfa_between"])
def test_readout_and_loss_are_those_of_backpropagation(name: str, boundary: str) -> None:
    # P1
    model, batch = made(name)
    plan = "stages" if name == "images" else "layers"
    rule = DFA(plan=plan, boundary=boundary, source="module")
    loss, found = learned(rule, copy.deepcopy(model), batch)
    true = backpropagated(model, batch)
    assert_close(found["readout.weight"], true["readout.weight"], rtol=1e-13, atol=1e-15)
    assert_close(loss, half_squared(model(batch.x)[0], batch).detach(), rtol=1e-13, atol=0.0)


def pooled(plan: object, boundary: str) -> tuple[DFA, dict[str, Tensor], dict[str, Tensor]]:
    """A rule, its gradients and the true ones where a layer without weights stands between two convolutions."""
    nodes = (conv(4, "a", ""), Node("Pool", 4, "p"), conv(4, "b", ""))
    model, batch = random(ModelSpec(2, 3, nodes, pool="mean", image=(8, 6))), images()
    rule = DFA(plan=plan, boundary=boundary, source="module" if boundary != "dfa" else "output")
    return rule, gradients(rule, copy.deepcopy(model), batch), backpropagated(model, batch)


@pytest.mark.parametrize("boundary", ["bp", "lower"])
def test_layer_without_weights_passes_the_error_on_as_it_is(boundary: str) -> None:
    _, found, true = pooled([["a"], ["p", "b"]], boundary)
    same(found, true)


def test_layer_without_weights_has_no_feedback() -> None:
    rule, _, _ = pooled("layers", "dfa")
    assert sorted(rule.tensors()) == ["a", "b"]


def exact_maps(model: Model, names: list[str], x: Tensor) -> dict[str, Tensor]:
    """The transposed downstream Jacobian of each of these layers, for one sample of one step."""
    maps = {}
    for place, name in enumerate(names):
        h = x
        for below in names[: place + 1]:
            h = model.layers[below](h)

        def above(h: Tensor, place: int = place) -> Tensor:
            for layer in names[place + 1 :]:
                h = model.layers[layer](h.view(1, 1, -1))
            return model.readout(h.flatten())

        maps[name] = torch.autograd.functional.jacobian(above, h.detach().flatten()).T
    return maps


def test_transposed_downstream_jacobian_as_feedback_is_backpropagation() -> None:
    # P4
    nodes = tuple(Node("Linear", size, physics={"activation": "tanh"}) for size in (5, 4, 6))
    model = random(ModelSpec(3, 2, nodes))
    batch = Batch(torch.randn(1, 1, 3, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64))
    maps = exact_maps(model, ["layer0", "layer1", "layer2"], batch.x)
    same(gradients(with_feedback(DFA(), maps), model, batch), backpropagated(model, batch))


def reached(total: Tensor) -> tuple[set[int], int]:
    """Identities of the tensors that a backward pass would leave a gradient in, and how many nodes it has."""
    found, seen, waiting = set(), set(), [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [function for function, _ in node.next_functions]
    return found, len(seen)


def terms(rule: DFA, model: Model, batch: Batch) -> list[Tensor]:
    """What the rule hands to `backward`."""
    given: list[Tensor] = []

    def backward(total: Tensor, **words: object) -> None:
        given.append(total)
        total.backward(**words, retain_graph=True)

    rule.prepare(model)
    rule(model, batch, half_squared, backward)
    model.zero_grad()
    return given


@EACH
@pytest.mark.parametrize("boundary", ["dfa", "bp"])
def test_gradient_of_a_layers_term_reaches_that_layer_alone(name: str, boundary: str) -> None:
    # P10: the graph is one layer deep
    model, batch = made(name)
    named = {id(p): n for n, p in model.named_parameters()}
    apart = forward_apart(model, batch, reach=boundary != "dfa")
    for block, names in parameters_of(model).items():
        output = apart.logits if block == "readout" else apart.outputs[block]
        assert {named[tensor] for tensor in reached(output.sum())[0] if tensor in named} == set(names)


@pytest.mark.parametrize("time", ["local", "broadcast", "kernel", "fa", "windows", "trace"])
def test_gradient_flows_into_parameters_only(time: str) -> None:
    # P10: neither into feedback weights nor into detached inputs and states
    network = "UnICORNN" if time == "trace" else "CoRNN"
    model = random(ModelSpec(2, 3, (Node(network, 4, num_layers=2),)))
    rule = DFA(time=time, window=2 if time == "windows" else None)
    parameters = {id(p) for p in model.parameters()}
    for total in terms(rule, model, sequences()):
        assert reached(total)[0] <= parameters


def test_graph_of_the_local_rule_is_as_deep_for_many_steps_as_for_few() -> None:
    model = random(ModelSpec(2, 3, (Node("CoRNN", 4, num_layers=2),)))
    nodes = [max(reached(t)[1] for t in terms(DFA(time="local"), model, sequences(steps=T))) for T in (3, 30)]
    assert nodes[0] == nodes[1]


@pytest.mark.parametrize("pattern", ["random", "structured"])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize(("rows", "columns", "sparsity"), [(6, 4, 0.5), (12, 10, 0.9), (7, 5, 0.4), (5, 9, 0.6)])
def test_rows_of_sparse_feedback(pattern: str, kind: str, rows: int, columns: int, sparsity: float) -> None:
    # P11
    B = FeedbackSpec(kind=kind, sparsity=sparsity, pattern=pattern).matrix("layer0", rows, columns)
    kept = B != 0
    assert kept.sum(1).tolist() == [round((1 - sparsity) * columns)] * rows
    assert bool(kept.any(0).all())
    assert int(kept.sum(0).max()) - int(kept.sum(0).min()) <= 1
    assert int(torch.linalg.matrix_rank(B)) == min(rows, columns)


@pytest.mark.parametrize("pattern", ["random", "structured"])
def test_kernels_of_sparse_feedback(pattern: str) -> None:
    K = FeedbackSpec(sparsity=0.9, pattern=pattern).kernel("layer0", 8, 12, groups=4)
    assert K.shape == (8, 3, 3, 3)
    assert (K != 0).flatten(1).sum(1).tolist() == [round(0.1 * 27)] * 8
    assert bool((K != 0).any(0).any(-1).any(-1).all())


@pytest.mark.parametrize("kind", ["uniform", "normal", "binary"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.75])
def test_energy_of_what_is_fed_back_depends_neither_on_kind_nor_on_sparsity(kind: str, sparsity: float) -> None:
    B = FeedbackSpec(kind=kind, sparsity=sparsity).matrix("layer0", 40_000, 8)
    e = torch.randn(8, dtype=torch.float64)
    assert float((B @ e).square().mean() / e.square().mean()) == pytest.approx(1 / 3, rel=0.02)


def test_scale_multiplies_the_feedback() -> None:
    made = [FeedbackSpec(scale=scale).matrix("layer0", 5, 4) for scale in (1.0, 3.0)]
    assert_close(made[1], 3 * made[0])


@EACH
def test_seed_changes_the_feedback_and_not_the_forward_pass(name: str) -> None:
    # P12
    model, batch = made(name)
    rules = [DFA(seed=seed) for seed in (0, 1)]
    outputs = []
    for rule in rules:
        loss, found = learned(rule, copy.deepcopy(model), batch)
        outputs.append((loss, found["readout.weight"]))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1], outputs[1][1])
    for layer, weights in rules[0].tensors().items():
        assert not torch.equal(weights, rules[1].tensors()[layer])


def test_feedback_is_drawn_from_its_own_generator() -> None:
    model, batch = made("sequences")
    before = torch.get_rng_state()
    gradients(DFA(), model, batch)
    assert torch.equal(before, torch.get_rng_state())


def test_map_does_not_change_when_another_is_drawn_before_it() -> None:
    like, first, later = torch.zeros(1, dtype=torch.float64), Feedback(FeedbackSpec()), Feedback(FeedbackSpec())
    later.matrix("layer0", 6, 4, like)
    assert torch.equal(first.matrix("layer1", 6, 4, like), later.matrix("layer1", 6, 4, like))


def test_feedback_of_a_checkpoint_is_used_again() -> None:
    model, batch = made("sequences")
    rule = DFA(seed=3)
    wanted = gradients(rule, model, batch)
    resumed = DFA(seed=4)
    resumed.restore(rule.tensors())
    same(gradients(resumed, model, batch), wanted, rtol=0.0, atol=0.0)
