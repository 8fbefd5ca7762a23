"""Coupled oscillators: the step that is proved to be stable, and coRNNs whose oscillators see a graph only."""

from __future__ import annotations

import json
import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula import CoRNN, Model, ModelSpec, Node
from pendula.cells import CELLS
from pendula.math.oscillator import stability_objections
from pendula.search.coupling import (
    MARGIN,
    cornn_step,
    coupling,
    edges_of,
    largest_step,
    neighbours,
    safe_step,
    zeros,
)
from pendula.search.graphs import Graph, laplacian, watts_strogatz
from tests import tolerance

ALPHA, KAPPA = 1.0, 0.5
RING = watts_strogatz(8, 4, 0.5, seed=3)
EDGES = "0-1 1-2 3-4"


def matrix_of(graph: Graph) -> Tensor:
    return torch.tensor(laplacian(graph), dtype=torch.float64)


def filler(size: int) -> Tensor:
    k = torch.arange(size, dtype=torch.float64)
    return torch.sin(1 + 0.7 * k + 0.13 * k**2)


def steps(graph: Graph, dt: float, count: int) -> list[tuple[Tensor, Tensor]]:
    """y'' = -(alpha + kappa Lap) y by symplectic Euler, velocity first."""
    M = ALPHA * torch.eye(graph.size, dtype=torch.float64) + KAPPA * matrix_of(graph)
    y, z = filler(graph.size), torch.zeros(graph.size, dtype=torch.float64)
    seen = [(y, z)]
    for _ in range(count):
        z = z - dt * M @ y
        y = y + dt * z
        seen.append((y, z))
    return seen


def exact_step(graph: Graph) -> float:
    return largest_step(ALPHA, coupled=KAPPA * float(torch.linalg.eigvalsh(matrix_of(graph)).max()))


def test_the_laplacian_has_the_eigenvalues_of_the_eleventh_oracle() -> None:
    expected = [
        0.0,
        1.7576622576,
        2.1193443631,
        4.0994219684,
        4.7537143668,
        5.5846451403,
        6.5383294873,
        7.1468824165,
    ]
    found = torch.linalg.eigvalsh(matrix_of(RING))
    assert_close(found, torch.tensor(expected, dtype=torch.float64), **tolerance.decimals(10))


def test_the_largest_step_is_that_of_the_eleventh_oracle() -> None:
    assert exact_step(RING) == pytest.approx(0.9352084999, rel=1e-9)
    assert 2 / exact_step(RING) == pytest.approx(2.1385605459, rel=1e-9)


def test_below_the_largest_step_oscillators_stay_bounded_as_the_eleventh_oracle_says() -> None:
    largest = max(float(y.abs().max()) for y, _ in steps(RING, 0.9 * exact_step(RING), 2000))
    assert largest == pytest.approx(2.2696, abs=5e-5)


def test_above_the_largest_step_oscillators_run_away_as_the_eleventh_oracle_says() -> None:
    grown = [float(y.abs().max()) > 1e6 for y, _ in steps(RING, 1.05 * exact_step(RING), 30)]
    assert grown.index(True) == 25


def test_the_modified_energy_is_kept_as_the_eleventh_oracle_says() -> None:
    dt, M = 0.5, ALPHA * torch.eye(8, dtype=torch.float64) + KAPPA * matrix_of(RING)
    energies = [float(0.5 * z @ z + 0.5 * y @ M @ y - dt / 2 * z @ M @ y) for y, z in steps(RING, dt, 1000)]
    assert energies[0] == pytest.approx(6.1006868627, abs=5e-11)
    assert max(abs(energy - energies[0]) for energy in energies) < 1e-13


@pytest.mark.parametrize("strength", [0.0, 0.5, 20.0])
def test_a_safe_step_is_below_the_largest_one_of_every_graph(strength: float) -> None:
    for size, least, probability, seed in product((3, 8, 20), (2, 4), (0.0, 0.5, 0.9), range(3)):
        graph = watts_strogatz(size, least, probability, seed=seed)
        top = float(torch.linalg.eigvalsh(matrix_of(graph)).max())
        assert top <= 2 * max(graph.degrees) + 1e-9
        assert safe_step(graph, ALPHA, strength) <= MARGIN * largest_step(ALPHA, coupled=strength * top) + 1e-12


@pytest.mark.parametrize("variant", ["explicit", "implicit"])
def test_the_step_of_a_generated_cornn_raises_no_objection(variant: str) -> None:
    for dt, gamma, epsilon in product((0.01, 0.2, 1.0, 50.0), (0.1, 1.0, 10.0, 1000.0), (0.1, 1.0, 10.0, 300.0)):
        step = cornn_step(dt, gamma, epsilon, variant)
        assert step <= dt
        numbers = (torch.tensor(v, dtype=torch.float64) for v in (step, gamma, epsilon))
        assert stability_objections(*numbers, variant) == []


def test_a_step_that_is_stable_is_left_alone() -> None:
    assert cornn_step(0.2, 0.5, 3.0) == 0.2


@pytest.mark.parametrize(("stiffness", "damping"), [(0.5, 0.0), (2.0, 0.7)])
def test_the_largest_step_is_the_edge_of_the_published_inequality(stiffness: float, damping: float) -> None:
    dt = largest_step(stiffness, damping)
    assert stiffness * dt**2 + 2 * damping * dt == pytest.approx(4.0, rel=1e-12)


def test_oscillators_without_stiffness_have_no_largest_step() -> None:
    with pytest.raises(ValueError, match="stiffness must be positive"):
        largest_step(0.0)


def test_a_density_is_met_with_an_even_number_of_neighbours() -> None:
    for units, density in product(range(1, 200, 7), (0.1, 0.25, 0.5, 0.99, 1.0)):
        least = neighbours(units, density)
        if least is None:
            assert density == 1 or units - 1 <= max(2, density * units)
        else:
            assert least % 2 == 0
            assert least == 2 or units * (least + 1) <= density * units**2


def test_all_see_all_at_density_one() -> None:
    assert coupling(50, 1.0, 0.5, seed=0) is None


def dense(units: int = 5) -> CoRNN:
    torch.manual_seed(0)
    return CoRNN(3, units, coupling=EDGES, dtype=torch.float64)


def allowed(units: int = 5) -> Tensor:
    seen = torch.eye(units, dtype=torch.bool)
    for low, high in ((0, 1), (1, 2), (3, 4)):
        seen[low, high] = seen[high, low] = True
    return seen


def test_an_oscillator_sees_its_neighbours_and_itself_only() -> None:
    cell = dense().cell(0)
    y = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    z = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    drive = torch.zeros(1, 5, dtype=torch.float64)
    for given in (y, z):
        change = torch.stack([torch.autograd.grad(cell.force((y, z), drive)[0, n], given)[0][0] for n in range(5)])
        assert_close(change != 0, allowed(), **tolerance.EXACT)


@pytest.mark.parametrize("variant", ["explicit", "implicit"])
def test_the_fused_scan_of_a_coupled_layer_equals_the_reference(variant: str) -> None:
    x = torch.randn(37, 3, 3, dtype=torch.float64)
    found = []
    for backend in ("auto", "reference"):
        torch.manual_seed(1)
        layer = CoRNN(3, 5, 2, coupling=EDGES, variant=variant, backend=backend, dtype=torch.float64)
        y, final = layer(x)
        y.square().sum().backward()
        found.append([y, *final, *(p.grad for p in layer.parameters())])
    for fused, reference in zip(*found, strict=True):
        assert_close(fused, reference, **tolerance.ROUNDING)


def test_what_is_not_coupled_stays_zero_in_training() -> None:
    layer = dense()
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        layer(torch.randn(9, 4, 3, dtype=torch.float64))[0].square().sum().backward()
        optimiser.step()
    for weight in (layer.cell(0).W, layer.cell(0).W_z):
        assert_close(weight != 0, allowed(), **tolerance.EXACT)


def test_a_complete_coupling_is_no_coupling() -> None:
    whole = edges_of(Graph(4, tuple((i, j) for i in range(4) for j in range(i + 1, 4))))
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    found = []
    for given in (None, whole):
        torch.manual_seed(2)
        found.append(CoRNN(3, 4, coupling=given, dtype=torch.float64)(x)[0])
    assert_close(*found, **tolerance.EXACT)


def test_the_weights_of_few_neighbours_start_larger() -> None:
    torch.manual_seed(0)
    alone = CELLS["CoRNN"](3, 100, coupling="0-1", init="separate")
    assert float(alone.W.detach().diagonal().abs().max()) == pytest.approx(1.0, abs=0.1)


def test_the_zeros_are_counted() -> None:
    cell = dense().cell(0)
    assert int((cell.W == 0).sum()) == zeros(5, 3) == 25 - 5 - 6
    assert zeros(5, None) == 0


def test_a_coupled_model_survives_json_and_keeps_its_mask_out_of_the_weights() -> None:
    spec = ModelSpec(3, 2, (Node("CoRNN", 5, physics={"coupling": EDGES}),))
    model = Model(ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))))
    assert model.spec == spec
    assert not [name for name in model.state_dict() if "mask" in name]
    assert_close(model.layers["layer0"].cell(0).mask.bool(), allowed(), **tolerance.EXACT)


def test_a_spec_without_a_coupling_says_nothing_of_it() -> None:
    data = ModelSpec(3, 2, (Node("CoRNN", 5),)).to_dict()
    assert "coupling" not in data["nodes"][0]["physics"]


@pytest.mark.parametrize("given", ["0-5", "0", "0-1-2", "0-0", "a-b", "0--1", "-1-2"])
def test_an_edge_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(
        ValueError, match=f"coupling must be edges between two of the oscillators 0 to 4, got '{given}'"
    ):
        CoRNN(3, 5, coupling=given)


@pytest.mark.parametrize("given", [3, ["0-1"], True])
def test_a_coupling_that_is_no_text_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="coupling must be the edges of a graph, such as '0-1 1-2'"):
        CELLS["CoRNN"](3, 5, coupling=given)


def test_margin_times_two_over_omega_bounds_the_sheets_rule() -> None:
    degree = max(RING.degrees)
    assert safe_step(RING, ALPHA, KAPPA) == pytest.approx(0.9 * 2 / math.sqrt(ALPHA + 2 * KAPPA * degree), rel=1e-12)
