"""Padding, time spans, dropout, residual connections and pooling under the rules, against backpropagation by parts."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.learn.dfa.networks import half_squared_of_valid, listener, padded, random, sequences
from tests.learn.dfa.sheet import backpropagated, gradients, learned, same, with_feedback
from torch import Tensor
from torch.testing import assert_close

from pendula import Model, ModelSpec, Node
from pendula.learn.dfa import DFA
from pendula.tasks.base import Batch

POOLS = pytest.mark.parametrize("pool", ["last", "mean", "steps"])
RULES = [
    DFA(),
    DFA(boundary="bp", plan="whole", source="module"),
    DFA(boundary="lower", source="module"),
    DFA(boundary="dfa_between"),
    *(DFA(time=time) for time in ("local", "broadcast", "discounted", "fa")),
    DFA(time="windows", window=4),
]
IDS = [f"{rule.boundary}-{rule.time}" for rule in RULES]


def stack(network: str, pool: str, **words: object) -> Model:
    return random(ModelSpec(2, 3, (Node(network, 4, num_layers=2, **words),), pool=pool))


def sums(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


@POOLS
@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_padded_batch_gives_the_gradients_of_its_sequences(rule: DFA, pool: str) -> None:
    model = listener(pool)
    together, alone = padded(pool)
    value, found = learned(rule, model, together, half_squared_of_valid)
    parts = [learned(rule, model, batch, half_squared_of_valid) for batch in alone]
    assert_close(value, torch.stack([part[0] for part in parts]).sum(), rtol=1e-12, atol=0.0)
    same(found, sums([part[1] for part in parts]), rtol=1e-10, atol=1e-13)


def test_padded_batch_gives_the_gradients_of_its_sequences_with_a_map_for_each_lag() -> None:
    model, rule = stack("GRU", "last"), DFA(time="lags")
    together, alone = padded("last")
    found = gradients(rule, model, together, half_squared_of_valid)
    same(found, sums([gradients(rule, model, batch, half_squared_of_valid) for batch in alone]), atol=1e-14)


@POOLS
@pytest.mark.parametrize("network", ["CoRNN", "FastRNN"])
def test_padded_batch_gives_the_gradients_of_its_sequences_by_the_kernel(network: str, pool: str) -> None:
    model, rule = stack(network, pool), DFA(time="kernel")
    together, alone = padded(pool)
    found = gradients(rule, model, together, half_squared_of_valid)
    same(found, sums([gradients(rule, model, batch, half_squared_of_valid) for batch in alone]), atol=1e-14)


def cut(model: Model, batch: Batch, maps: dict[str, Tensor], *, past: bool) -> dict[str, Tensor]:
    """Autograd of a stack whose layers are cut from one another (and, without `past`, from their own states before).

    Each layer hears B e at the steps that the read-out looks at; one sequence after another, step by step.
    """
    model.zero_grad()
    layer, steps = model.layers["layer0"], len(batch.x)
    logits = model(batch.x, lengths=batch.lengths, timespans=batch.timespans)[0].detach().requires_grad_()
    (error,) = torch.autograd.grad(half_squared_of_valid(logits, batch), logits)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(batch.x.shape[1]):
        length = steps if batch.lengths is None else int(batch.lengths[b])
        x = batch.x[:length, [b]]
        for k, cell in enumerate(layer.cells):
            state, outputs = cell.initial_state(1), []
            for t, d in enumerate(cell.drive(x.detach())):
                if not past:
                    state = type(state)(*(s.detach() for s in state))
                tau = None if batch.timespans is None else batch.timespans[t, b].view(1, 1)
                state = cell.step(state, d, tau=tau)
                outputs.append(cell.output(state, d))
            out = torch.stack(outputs)
            out = x.detach() + out if layer.residual and k else out
            B = maps[f"layer0.{k}"]
            if model.spec.pool == "steps":
                total = total + (out[:, 0] * (error[:length, b] @ B.T)).sum()
            else:
                seen = out[-1, 0] if model.spec.pool == "last" else out[:, 0].mean(0)
                total = total + (seen * (B @ error[b])).sum()
            x = out
    total.backward()
    names = [name for name, _ in model.named_parameters() if not name.startswith("readout")]
    found = {name: model.get_parameter(name).grad.clone() for name in names}
    model.zero_grad()
    return found


@POOLS
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("time", "network"),
    [("local", "CoRNN"), ("local", "UnICORNN"), ("bptt", "CoRNN"), ("bptt", "UnICORNN"), ("trace", "UnICORNN")],
)
def test_time_spans_lengths_and_residual_stacks(time: str, network: str, residual: bool, pool: str) -> None:
    model = stack(network, pool, residual=residual)
    together, _ = padded(pool, spans=True)
    maps = {f"layer0.{k}": torch.randn(4, 3, dtype=torch.float64) for k in range(2)}
    found = gradients(with_feedback(DFA(time=time), maps), model, together, half_squared_of_valid)
    clean = Batch(together.x.nan_to_num(), together.y, together.lengths, together.timespans.nan_to_num(1.0))
    wanted = cut(model, clean, maps, past=time != "local")
    same({name: found[name] for name in wanted}, wanted, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("window", [1, 2, 4, 5])
@POOLS
def test_windows_are_backpropagation_through_truncated_graphs(window: int, pool: str) -> None:
    # R9: exact inside a window; the error of a last step arrives at the end of each
    model, batch = random(ModelSpec(2, 3, (Node("LSTM", 4),), pool=pool)), sequences(pool, steps=9)
    B = torch.randn(4, 3, dtype=torch.float64)
    rule = with_feedback(DFA(time="windows", window=window), {"layer0": B})
    found = gradients(rule, model, batch)
    output = model(batch.x)[0].detach()
    error, cell = (output - batch.y) @ B.T, model.layers["layer0"].cells[0]
    state, total = cell.initial_state(3), torch.zeros((), dtype=torch.float64)
    for t, d in enumerate(cell.drive(batch.x)):
        if t % window == 0:
            state = type(state)(*(s.detach() for s in state))
        state = cell.step(state, d)
        if pool == "steps":
            total = total + (state.h * error[t]).sum()
        elif pool == "mean":
            total = total + (state.h * error).sum() / 9
        elif t == 8 or (t + 1) % window == 0:
            total = total + (state.h * error).sum()
    model.zero_grad()
    total.backward()
    for name, parameter in model.layers.named_parameters():
        assert_close(found[f"layers.{name}"], parameter.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("network", ["CoRNN", "GRU", "UnICORNN"])
@POOLS
def test_dropout_has_the_same_mask_in_both_passes(network: str, pool: str) -> None:
    # with one window and the true map, the gradient is that of backpropagation only if the masks agree
    node = Node(network, 4, dropout=0.5, dropout_last=True)
    model, batch = random(ModelSpec(2, 3, (node,), pool=pool)), sequences(pool, steps=7)
    rule = with_feedback(DFA(time="windows", window=7), {"layer0": model.readout.weight.detach().T})
    torch.manual_seed(5)
    loss, found = learned(rule, model, batch)
    torch.manual_seed(5)
    true_loss, true = learned(DFA(boundary="bp"), model, batch)
    assert_close(loss, true_loss, rtol=1e-13, atol=0.0)
    same(found, true, rtol=1e-11, atol=1e-14)
    torch.manual_seed(6)
    assert not torch.equal(loss, learned(rule, model, batch)[0])


@pytest.mark.parametrize("time", ["local", "trace"])
def test_dropout_mask_is_held_over_stretches_and_multiplies_the_error(time: str) -> None:
    node = Node("UnICORNN", 4, num_layers=2, dropout=0.5)
    model, batch = random(ModelSpec(2, 3, (node,), pool="mean")), sequences(steps=150)
    torch.manual_seed(5)
    masks = [model.layers["layer0"].mask(k, torch.empty(3, 4, dtype=torch.float64)) for k in range(2)]
    torch.manual_seed(5)
    rule = DFA(time=time)
    loss, found = learned(rule, model, batch)
    x, outputs = batch.x, []
    for k, cell in enumerate(model.layers["layer0"].cells):
        state, seen = cell.initial_state(3), []
        for d in cell.drive(x):
            if time == "local":
                state = type(state)(*(s.detach() for s in state))
            state = cell.step(state, d)
            seen.append(state.y * masks[k])
        outputs.append(torch.stack(seen).mean(0))
        x = torch.stack(seen).detach()
    logits = model.readout(outputs[1].detach())
    error = (logits - batch.y).detach()
    assert_close(loss, 0.5 * error.square().sum(), rtol=1e-12, atol=0.0)
    maps = rule.tensors()
    model.zero_grad()
    sum((outputs[k] * (error @ maps[f"layer0.{k}"].T)).sum() for k in range(2)).backward()
    for name, parameter in model.layers.named_parameters():
        assert_close(found[f"layers.{name}"], parameter.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_share_of_a_batch_multiplies_its_gradients_and_not_its_loss(rule: DFA) -> None:
    model, batch = listener("last"), sequences()
    part = Batch(batch.x, batch.y, share=0.25)
    loss, found = learned(rule, copy.deepcopy(model), batch)
    shared, quarter = learned(rule, copy.deepcopy(model), part)
    assert torch.equal(loss, shared)
    same(quarter, {name: 0.25 * gradient for name, gradient in found.items()})


def test_penalties_of_cells_are_differentiated_too() -> None:
    node = Node("SpectralRNN", 4, physics={"margin": 0.3, "prior": 0.5, "orthogonality": 0.1})
    model, batch = random(ModelSpec(2, 3, (node,))), sequences("last")
    with torch.no_grad():
        model.layers["layer0"].cells[0].p.normal_()
    for rule in (DFA(boundary="bp"), DFA(time="windows", window=6)):
        with_feedback(rule, {"layer0": model.readout.weight.detach().T})
        found, true = gradients(rule, model, batch), backpropagated(model, batch)
        assert_close(found["layers.layer0.cells.0.p"], true["layers.layer0.cells.0.p"], rtol=1e-11, atol=1e-14)
