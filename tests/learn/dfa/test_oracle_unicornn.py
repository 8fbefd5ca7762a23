"""Oracle 7 of the spec sheet dfa.md: UnICORNN by forward traces and by reversal (rules O3 and O4)."""

from __future__ import annotations

import pytest
import torch
from tests.learn.dfa.recurrent import CORNN_B, CORNN_V, READOUT, cornn_batch
from tests.learn.dfa.sheet import (
    F,
    Gradients,
    backpropagated,
    degrees,
    gradients,
    learned,
    model_of,
    numbers,
    same,
    with_feedback,
)
from tests.tolerance import decimals
from torch import Tensor
from torch.testing import assert_close

from pendula import Model, Node
from pendula.cells import UnICORNNCell
from pendula.learn.dfa import DFA
from pendula.learn.dfa.trace import Traces
from pendula.tasks.base import Batch

NAMES = ("w", "V", "b", "c")
LAYERS = [
    {"w": F(41, (3,), 0.5) + 0.5, "V": F(42, (3, 2), 0.8), "b": F(43, (3,), 0.1), "c": F(44, (3,), 0.1)},
    {"w": F(51, (3,), 0.5) + 0.5, "V": F(52, (3, 3), 0.8), "b": F(53, (3,), 0.1), "c": F(54, (3,), 0.1)},
]
BATCH = cornn_batch("steps")


def network(depth: int = 1, pool: str = "steps", **physics: object) -> Model:
    node = Node("UnICORNN", 3, num_layers=depth, physics={"dt": 0.4, "alpha": 0.9, **physics})
    weights = {f"layers.layer0.cells.{k}.{n}": v for k in range(depth) for n, v in LAYERS[k].items()}
    return model_of([node], (2, 2), {**weights, READOUT: CORNN_V}, pool)


def of_layer(found: Gradients, k: int) -> list[Tensor]:
    return [found[f"layers.layer0.cells.{k}.{name}"] for name in NAMES]


def rule(time: str, **maps: Tensor) -> DFA:
    return with_feedback(
        DFA(boundary="dfa", source="output", time=time), {n.replace("_", "."): B for n, B in maps.items()}
    )


def angles(found: Gradients, true: Gradients, k: int) -> list[float]:
    return [degrees(a, b) for a, b in zip(of_layer(found, k), of_layer(true, k), strict=True)]


def test_forward_pass_and_loss() -> None:
    model = network()
    _, state = model(BATCH.x)
    assert_close(state["layer0"].y.flatten(), numbers(-0.0351950849, 0.0610757855, -0.0898977295), **decimals(10))
    assert_close(state["layer0"].z.flatten(), numbers(0.0516022309, -0.0275452644, -0.0096501275), **decimals(10))
    loss, _ = learned(rule("trace"), model, BATCH)
    assert_close(loss, numbers(0.7450500887016945), rtol=1e-14, atol=0.0)
    deep, _ = learned(rule("trace"), network(2), BATCH)
    assert_close(deep, numbers(0.6628823059958302), rtol=1e-14, atol=0.0)


def test_traces_with_the_transposed_readout_are_backpropagation_through_time() -> None:
    found, true = gradients(rule("trace", layer0=CORNN_V.T), network(), BATCH), backpropagated(network(), BATCH)
    same(found, true, rtol=0.0, atol=4e-16)
    wanted = [
        numbers(0.0094067647, -0.0138603456, -0.0037460498),
        numbers([[0.0097599153, 0.0314891739], [0.1009916632, 0.1024186007], [-0.034679895, -0.0245853896]]),
        numbers(-0.2562801534, -0.6608479983, 0.1675515763),
        numbers(-0.020545078, 0.0745133516, 0.0290548563),
    ]
    for got, value in zip(of_layer(found, 0), wanted, strict=True):
        assert_close(got, value, **decimals(10))


def test_states_are_rebuilt_backwards() -> None:
    cell = network().layers["layer0"].cells[0]
    drives = cell.drive(BATCH.x)
    state = cell.initial_state(1)
    for d in drives:
        state = cell.step(state, d)
    for d in drives.flip(0):
        state = cell.unstep(state, d)
    assert float(torch.stack(tuple(state)).detach().abs().max()) < 1e-16


@pytest.mark.parametrize("time", ["trace", "bptt"])
def test_random_feedback(time: str) -> None:
    found, true = gradients(rule(time, layer0=CORNN_B), network(), BATCH), backpropagated(network(), BATCH)
    assert_close(of_layer(found, 0)[0], numbers(0.0093961171, 0.0099125366, 0.0143230173), **decimals(10))
    assert angles(found, true, 0) == pytest.approx((107.5894, 134.9224, 125.1908, 130.7075), abs=5.1e-5)


def two_layers(time: str) -> DFA:
    # the top layer hears through the transposed read-out, the lower one through B
    return rule(time, layer0_0=CORNN_B, layer0_1=CORNN_V.T)


RULES = {
    "trace": two_layers("trace"),
    "bptt": two_layers("bptt"),
    "between": with_feedback(DFA(boundary="dfa_between"), {"layer0.0": CORNN_B}),
}


@pytest.mark.parametrize("name", RULES)
def test_two_layers(name: str) -> None:
    found, true = gradients(RULES[name], network(2), BATCH), backpropagated(network(2), BATCH)
    for got, value in zip(of_layer(found, 1), of_layer(true, 1), strict=True):
        assert_close(got, value, rtol=0.0, atol=4e-16)
    V = of_layer(found, 0)[1]
    rows = [[0.0071371149, 0.0225743827], [-0.0692424847, -0.0702904326], [0.107224753, 0.0780813716]]
    assert_close(V, numbers(rows), **decimals(10))
    rows = [[0.0029960488, 0.0029683679], [-0.0184098639, -0.0125198365], [-0.0170803938, -0.0101226332]]
    assert_close(of_layer(true, 0)[1], numbers(rows), **decimals(10))
    assert angles(found, true, 0) == pytest.approx((85.3355, 94.3163, 91.7339, 98.9272), abs=5.1e-5)


@pytest.mark.parametrize("memory", ["store", "reverse", "checkpoint", "tape"])
@pytest.mark.parametrize("pool", ["steps", "last", "mean"])
def test_reversal_gives_what_the_traces_give(memory: str, pool: str) -> None:
    # O4 = O3
    batch = cornn_batch(pool)
    traced = gradients(two_layers("trace"), network(2, pool), batch)
    reversed_ = gradients(two_layers("bptt"), network(2, pool, memory=memory), batch)
    same(reversed_, traced, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("units", "inputs", "batch", "numbers_kept"), [(128, 1, 120, 122_880), (256, 10, 32, 212_992)])
def test_oracle_12_numbers_that_traces_keep(units: int, inputs: int, batch: int, numbers_kept: int) -> None:
    cell = UnICORNNCell(inputs, units)
    traces = Traces(cell, batch)
    assert traces.trace.numel() == numbers_kept == 2 * batch * (3 * units + units * inputs)
    before = [cell.initial_state(batch) for _ in range(3)]
    x = torch.zeros(3, batch, inputs)
    traces.follow(before, x, None, torch.ones(3, batch, units))
    assert traces.trace.numel() == numbers_kept
    assert traces.gradient.numel() == units * (inputs + 3)


def padded() -> tuple[Batch, list[Batch]]:
    """Sequences of 6, 3 and 1 steps with uneven time spans, together and one by one."""
    x, spans = F(61, (6, 3, 2)), 1 + 0.5 * F(62, (6, 3))
    y, lengths = F(63, (3, 2)), torch.tensor([6, 3, 1])
    alone = [Batch(x[:n, [b]], y[[b]], None, spans[:n, [b]]) for b, n in enumerate(lengths.tolist())]
    for b, n in enumerate(lengths.tolist()):
        x[n:, b], spans[n:, b] = float("nan"), float("nan")
    return Batch(x, y, lengths, spans), alone


def test_traces_are_exact_with_time_spans_and_lengths() -> None:
    together, _ = padded()
    model = network(2, "last")
    rule_ = two_layers("trace")
    same(gradients(rule_, model, together), gradients(two_layers("bptt"), model, together), atol=1e-15)


def test_traces_of_a_padded_batch_are_those_of_its_sequences() -> None:
    together, alone = padded()
    model = network(2, "last")
    parts = [gradients(two_layers("trace"), model, batch) for batch in alone]
    wanted = {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
    same(gradients(two_layers("trace"), model, together), wanted, atol=1e-15)
