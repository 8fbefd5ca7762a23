"""Recurrent networks from a generator: at most ten dimensions, sound at every corner, as large as the limit allows."""

from __future__ import annotations

import hashlib
import json
from itertools import product
from typing import Any

import pytest
import torch

from pendula import Model, ModelSpec
from pendula.math.oscillator import stability_objections
from pendula.search.budget import Drawn, largest
from pendula.search.modules import draw
from pendula.search.recurrent import PHYSICS, RANGES, RecurrentGenerator, Sequences

SEARCHED = {"dt": 0.4, "gamma": 1.0, "epsilon": 2.0}
MIXED = RecurrentGenerator(5, 4, 0.5, 3, 0.6, 0.3, 0.5, SEARCHED)
ONE_LAYER = RecurrentGenerator(1, 2, 0.5, 1, 0.5)
HAR = Sequences(9, 6, 20_000)
DIGEST = "2afcae2e0ac927e6e89129033dd094aa16cf3fa594cd2ddfad81219a00c7d3f7"


def built(spec: ModelSpec) -> Model:
    """The model without its weights."""
    return Model(spec, device="meta")


def drawn(generator: RecurrentGenerator = MIXED, seed: int = 0, sequences: Sequences = HAR) -> Drawn:
    return draw(generator, seed, sequences, built)


@pytest.mark.parametrize(
    ("limit", "inputs", "outputs", "density", "units", "count"),
    [(50_000, 1, 10, 1.0, 155, 49_920), (50_000, 1, 10, 0.25, 304, 49_866), (134_000, 96, 10, 1.0, 233, 133_519)],
)
def test_the_budget_rule_gives_the_units_of_the_twelfth_oracle(
    limit: int, inputs: int, outputs: int, density: float, units: int, count: int
) -> None:
    def parameters(n: int) -> int:
        return round(2 * density * n * n) + n * inputs + n + outputs * n + outputs

    assert largest(parameters, limit, 1) == units
    assert parameters(units) == count


@pytest.mark.parametrize(("limit", "inputs", "units", "count"), [(50_000, 1, 155, 49_920), (134_000, 96, 233, 133_519)])
def test_one_dense_layer_has_the_units_of_the_twelfth_oracle(limit: int, inputs: int, units: int, count: int) -> None:
    found = drawn(ONE_LAYER, sequences=Sequences(inputs, 10, limit))
    assert (found.scale, found.parameters, found.stored) == (units, count, count)


def test_a_sparse_layer_is_as_large_as_its_whole_neighbours_allow() -> None:
    # the rule of the twelfth oracle gives 304 units; with K even, n (K + 1) entries are a little less than n^2 / 4
    found = drawn(RecurrentGenerator(1, 2, 0.5, 1, 0.5, 0.25), sequences=Sequences(1, 10, 50_000))
    assert 304 <= found.scale <= 310
    assert 49_000 < found.parameters <= 50_000 < found.stored


def corners() -> list[RecurrentGenerator]:
    return [RecurrentGenerator(*corner) for corner in product(*RANGES.values())]


@pytest.mark.parametrize("generator", corners(), ids=str)
def test_every_corner_is_connected_within_its_limit_and_counted_exactly(generator: RecurrentGenerator) -> None:
    found = drawn(generator, seed=1, sequences=Sequences(2, 3, 8_000))
    assert all(len(graph.components) == 1 for graph in found.wiring.graphs())
    assert found.parameters <= 8_000
    model = Model(found.spec)
    assert model.parameter_count == found.stored
    # a weight that is drawn evenly is never exactly zero
    zero = sum(int((p == 0).sum()) for name, p in model.named_parameters() if name.endswith((".W", ".W_z")))
    assert found.stored - zero == found.parameters


@pytest.mark.parametrize("networks", [("CoRNN",), ("UnICORNN", "Linear"), ("URNN", "GRU", "Linear"), ("LEM", "LinOSS")])
@pytest.mark.parametrize("merge", ["weighted", "concat", "attention"])
def test_any_cells_and_linear_maps_are_joined(networks: tuple[str, ...], merge: str) -> None:
    sequences = Sequences(4, 3, 12_000, networks=networks, merge=merge, widths=(1, 2, 4))
    found = drawn(RecurrentGenerator(5, 4, 0.5, 3, 0.6), 2, sequences)
    model = Model(found.spec)
    assert model.parameter_count == found.stored == found.parameters <= 12_000
    assert model(torch.randn(7, 2, 4), lengths=[7, 4])[0].shape == (2, 3)


def test_a_recurrent_module_is_on_every_path() -> None:
    sequences = Sequences(4, 3, 12_000, networks=("GRU", "Linear"))
    kinds = set()
    for seed in range(20):
        found = drawn(RecurrentGenerator(3, 2, 0.5, 4, 0.4), seed, sequences)
        nodes = {node.name: node.network for node in found.spec.nodes}
        for layer, cell in enumerate(found.wiring.cells):
            assert {nodes[f"layer{layer}_{node}"] for node in cell.middle.outputs} == {"GRU"}
            kinds |= {nodes[f"layer{layer}_{node}"] for node in range(cell.middle.size)}
    assert kinds == {"GRU", "Linear"}


def test_a_backward_pass_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = Model(drawn().spec, dtype=torch.float64)
    model(torch.randn(12, 4, 9, dtype=torch.float64))[0].square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert still == []


def test_widths_differ_by_thirds_of_the_layers() -> None:
    found = drawn(RecurrentGenerator(6, 2, 0.5, 1, 0.5), 0, Sequences(9, 6, 20_000, widths=(1, 2, 4)))
    sizes = {node.name: node.hidden_size for node in found.spec.nodes if node.network == "CoRNN"}
    widest = sizes["layer5_0"]
    assert found.scale == widest / 4
    assert list(sizes.values()) == [widest // 4] * 2 + [widest // 2] * 2 + [widest] * 2


def test_time_steps_halve_by_thirds_of_the_layers() -> None:
    generator = RecurrentGenerator(6, 2, 0.5, 1, 0.5, physics={"dt": 0.2})
    found = drawn(generator, 0, Sequences(9, 6, 20_000, times="halving"))
    assert [n.physics["dt"] for n in found.spec.nodes if n.network == "CoRNN"] == [0.2] * 2 + [0.1] * 2 + [0.05] * 2


def test_no_generated_cornn_raises_a_stability_objection() -> None:
    ends = PHYSICS["CoRNN"]
    for dt, gamma, epsilon in product(*ends.values()):
        physics = {"dt": dt, "gamma": gamma, "epsilon": epsilon}
        node = drawn(RecurrentGenerator(1, 2, 0.5, 1, 0.5, physics=physics)).spec.nodes[0]
        numbers = (torch.tensor(node.physics[name], dtype=torch.float64) for name in ends)
        assert stability_objections(*numbers, node.physics["variant"]) == []


def test_every_search_has_at_most_ten_dimensions() -> None:
    assert [len(RANGES) + len(ranges) for ranges in PHYSICS.values()] == [10, 9]
    with pytest.raises(ValueError, match="at most 3 numbers, so that there are 10 dimensions"):
        RecurrentGenerator(3, 2, 0.5, 1, 0.5, physics={"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0})


def test_a_network_survives_json() -> None:
    spec = drawn().spec
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_the_seed_and_the_numbers_say_the_network() -> None:
    found = drawn(seed=4)
    assert found == drawn(seed=4)
    told = [[node.name, node.network, node.hidden_size, node.inputs, node.merge] for node in found.spec.nodes]
    told.append([found.wiring.digest()])
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest() == DIGEST


def test_a_generator_survives_plain_data() -> None:
    assert RecurrentGenerator.from_dict(json.loads(json.dumps(MIXED.to_dict()))) == MIXED


def test_the_couplings_of_the_spec_are_those_of_the_wiring() -> None:
    found = drawn()
    for layer, cell in enumerate(found.wiring.cells):
        for node, graph in enumerate(cell.bottoms):
            told = next(n for n in found.spec.nodes if n.name == f"layer{layer}_{node}").physics["coupling"]
            assert told.split() == [f"{low}-{high}" for low, high in graph.edges]


@pytest.mark.parametrize("name", RANGES)
def test_numbers_outside_of_the_ranges_are_refused(name: str) -> None:
    low, high = RANGES[name]
    step = 1 if isinstance(low, int) else 0.05
    for value in (low - step, high + step):
        with pytest.raises(ValueError, match=name):
            RecurrentGenerator(**{**MIXED.to_dict(), name: value})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: RecurrentGenerator(3, 3, 0.5, 1, 0.5),
            "top_neighbours must be even, half of them on each side, got 3",
        ),
        (lambda: RecurrentGenerator(3, 2, 0.5, 1, 0.5, physics={"dt": float("nan")}), r"physics\.dt must be a finite"),
        (lambda: Sequences(9, 6, 100, networks=("Linear",)), "networks must hold a recurrent one, got Linear"),
        (lambda: Sequences(9, 6, 100, networks=()), "networks must hold a recurrent one, got none"),
        (lambda: Sequences(9, 6, 100, networks=("CoRNN", "Conv")), "networks: a map must be one of Linear, got 'Conv'"),
        (lambda: Sequences(9, 6, 100, networks=("CoRN",)), "network must be one of .*, got 'CoRN'"),
        (lambda: Sequences(9, 6, 100, merge="sum"), "merge must be one of weighted, concat, attention"),
        (lambda: Sequences(9, 6, 100, widths=(1, 2)), "widths must hold one number for each third"),
        (lambda: Sequences(9, 6, 100, times="double"), "times must be one of same, halving"),
        (lambda: Sequences(9, 6, 100, pool="max"), "pool must be one of last, mean, steps"),
        (lambda: drawn(sequences=Sequences(9, 6, 100)), "limit=100 is too small for these 15 modules: 2 units in the"),
        (
            lambda: drawn(RecurrentGenerator(1, 2, 0.5, 1, 0.5, physics={"gama": 1.0})),
            r"CoRNN has no 'gama'.*did you mean 'gamma'",
        ),
        (lambda: RecurrentGenerator.from_dict({"top_nodes": 3}), "a recurrent generator needs top_neighbours"),
    ],
)
def test_what_has_no_meaning_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
