"""Certificates of every network: nothing is broken, whatever the depth, direction, lengths and time spans."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.diagnose import BrokenBound, Watch, bounds, certify
from pendula.diagnose.bounds import NothingKnown
from pendula.diagnose.forward import Place, outputs_of
from pendula.diagnose.trajectory import walk
from pendula.tasks.base import Batch
from tests import tolerance
from tests.contracts.certificates import bounds_hold, breaks

NETWORKS = pytest.mark.parametrize("network", list(pendula.LAYERS))
WITHOUT = {"Elman", "FastGRNN", "GRU", "IRNN", "LipschitzRNN"}
"""Networks of which the sheets prove nothing."""


def batch_for(network: str, *, steps: int = 24, size: int = 3, features: int = 3) -> Batch:
    """Padded sequences with NaN in the padding and, where the network can, irregular time spans up to its own dt."""
    x = 3 * torch.randn(steps, size, features)
    lengths = torch.randint(2, steps, (size,))
    lengths[0] = steps
    x[torch.arange(steps).unsqueeze(1) >= lengths] = torch.nan
    spans = 0.2 + 0.8 * torch.rand(steps, size) if pendula.CELLS[network].has_time_step else None
    return Batch(x, torch.zeros(size), lengths, spans)


@NETWORKS
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["one", "stack"])
def test_nothing_is_broken(network: str, options: dict[str, Any]) -> None:
    found = bounds_hold(pendula.LAYERS[network](3, 8, **options), batch_for(network))
    places = {c.where for c in found}
    assert places == ({"layer"} if not options else {f"layer.{i}{way}" for i in (0, 1) for way in ("", " backwards")})
    json.dumps([c.to_dict() for c in found], allow_nan=False)


@NETWORKS
def test_a_network_without_a_statement_says_so(network: str) -> None:
    found = certify(pendula.LAYERS[network](3, 8), torch.randn(5, 2, 3))
    assert ([c.name for c in found] == ["no bound"]) is (network in WITHOUT)
    assert any(c.holds for c in found) is (network not in WITHOUT and network != "LSTM")


@NETWORKS
def test_the_walk_gives_the_outputs_of_the_layer(network: str) -> None:
    layer = pendula.LAYERS[network](3, 8, num_layers=2, bidirectional=True).double().eval()
    given = batch_for(network)
    given = Batch(
        given.x.double(), given.y, given.lengths, None if given.timespans is None else given.timespans.double()
    )

    def shown(place: Place, cell: Any, x: Tensor, lengths: Any, tau: Any, backend: str) -> Tensor:
        return walk(cell, x, lengths, tau, NothingKnown(cell, place.name, torch.float64))

    with torch.no_grad():
        expected, _ = layer(given.x, lengths=given.lengths, timespans=given.timespans)
        assert_close(outputs_of(layer, given, shown), expected, **tolerance.ROUNDING)


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN", "URNN", "ODERNN", "SpectralRNN", "LEM"])
def test_groups_of_sequences_and_short_stretches_say_the_same(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, given = pendula.LAYERS[network](3, 8), batch_for(network, size=4)
    whole = certify(layer, given)
    monkeypatch.setattr(bounds, "HELD", 1)
    monkeypatch.setattr("pendula.diagnose.trajectory.LONGEST", 7)
    apart = certify(layer, given)
    # what is looked at for Jacobians, and what is drawn, goes by group
    states = {
        "energy",
        "input sensitivity",
        "position of a neuron",
        "velocity of a neuron",
        "state",
        "position",
        "C8: state",
    }
    assert [c.name for c in apart] == [c.name for c in whole]
    for one, other in zip(whole, apart, strict=True):
        assert (one.applies, one.holds) == (other.applies, other.holds)
        if one.name in states and one.applies:
            assert_close([one.bound, one.measured], [other.bound, other.measured], **tolerance.ROUNDING)


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN", "LEM", "URNN", "SpectralRNN"])
def test_padding_does_not_count(network: str) -> None:
    layer = pendula.LAYERS[network](3, 8)
    x = torch.randn(9, 1, 3)
    padded = torch.cat((x, 1e6 * torch.randn(21, 1, 3)))
    alone = certify(layer, x)
    among = certify(layer, Batch(padded, torch.zeros(1), torch.tensor([9])))
    looked_at = {"energy", "input sensitivity", "state", "position", "gradient by elapsed time", "gradient from above"}
    rows = [(a, b) for a, b in zip(alone, among, strict=True) if a.name in looked_at]
    assert rows
    for a, b in rows:
        assert_close([a.bound, a.measured, a.step], [b.bound, b.measured, b.step], **tolerance.ROUNDING)


def test_the_first_sequences_can_be_chosen() -> None:
    layer, x = pendula.LEM(3, 8), torch.cat((torch.randn(9, 2, 3), 1e3 * torch.ones(9, 1, 3)), 1)
    few, first = certify(layer, x, sequences=2), certify(layer, x[:, :2])
    assert few == first
    assert few != certify(layer, x)


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN", "URNN", "ODERNN", "SpectralRNN"])
def test_nothing_is_changed_and_nothing_is_drawn(network: str) -> None:
    node = pendula.Node(network, 8, num_layers=2, dropout=0.5)
    model = pendula.Model(pendula.ModelSpec(3, 2, (node,))).train()
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    certify(model, torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(1)))
    assert_close(model.state_dict(), before, **tolerance.EXACT)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_a_model_of_several_nodes_with_tokens_has_a_place_for_each() -> None:
    nodes = (
        pendula.Node("CoRNN", 6, name="low"),
        pendula.Node("URNN", 4, name="side", inputs=("input",)),
        pendula.Node("LEM", 5, name="top", inputs=("low", "side")),
    )
    model = pendula.Model(pendula.ModelSpec(7, 2, nodes, vocabulary=20))
    found = bounds_hold(model, Batch(torch.randint(1, 20, (11, 3)), torch.zeros(3), torch.tensor([11, 4, 7])))
    assert list(dict.fromkeys(c.where for c in found)) == ["low", "side", "top"]


def test_a_lone_cell_with_lengths_and_time_spans_is_one_place() -> None:
    cell = pendula.CELLS["CoRNN"](3, 8)
    found = bounds_hold(cell, batch_for("CoRNN"))
    assert {c.where for c in found} == {"cell"}


@pytest.mark.parametrize(
    ("network", "batch", "error", "said"),
    [
        (torch.nn.Linear(3, 2), torch.zeros(4, 2, 3), ValueError, "network must be a pendula.Model"),
        (pendula.CoRNN(3, 8), torch.zeros(4, 2, 5), pendula.ShapeError, r"input must be \(time, batch, 3\)"),
        (pendula.CoRNN(3, 8), torch.zeros(4), pendula.ShapeError, "must be"),
        (
            pendula.CELLS["GRU"](3, 8),
            Batch(torch.zeros(4, 2, 3), torch.zeros(2), None, torch.ones(4, 2)),
            ValueError,
            "step",
        ),
        (pendula.GRU(3, 8), Batch(torch.zeros(4, 2, 3), torch.zeros(2), None, torch.ones(4, 2)), ValueError, "step"),
    ],
)
def test_what_the_network_refuses_is_refused(network: Any, batch: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        certify(network, batch)


def test_weights_that_are_not_finite_are_refused() -> None:
    layer = pendula.CoRNN(3, 8)
    with torch.no_grad():
        layer.cells[0].W[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"cells\.0\.W is not finite"):
        certify(layer, torch.zeros(4, 2, 3))


def unstable() -> Any:
    layer = pendula.CoRNN(3, 8, dt=0.1, epsilon=1.0, gamma=1.0, learnable=("dt",))
    with torch.no_grad():
        layer.cells[0].log_dt.fill_(1.5)
    return layer


def test_a_watch_looks_at_every_so_many_steps_only() -> None:
    watch = Watch(every=3)
    layer, x = unstable(), torch.randn(5, 2, 3)
    found = [watch(layer, x, step) for step in range(1, 8)]
    assert [bool(f) for f in found] == [False, False, True, False, False, True, False]
    assert watch.looks == 2
    assert {step for step, _ in watch.broken} == {3, 6}
    data = json.loads(json.dumps(watch.to_dict(), allow_nan=False))
    assert (data["looks"], {row["after"] for row in data["broken"]}) == (2, {3, 6})


def test_a_watch_sees_a_time_step_that_training_has_made_unstable() -> None:
    watch = Watch(every=1)
    watch(unstable(), torch.randn(5, 2, 3), 1)
    assert "linear stability" in {c.name for _, c in watch.broken}
    breaks([c for _, c in watch.broken], "linear stability")


def test_a_watch_can_stop_the_training() -> None:
    with pytest.raises(BrokenBound, match=r"after optimiser step 4: layer, linear stability: broken; measured"):
        Watch(every=2, stop=True)(unstable(), torch.randn(5, 2, 3), 4)


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 1.5}, {"sequences": 0}])
def test_a_watch_refuses_numbers_that_are_no_counts(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        Watch(**options)


def test_training_ends_with_the_same_weights_under_a_watch() -> None:
    def trained(watch: Watch | None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        layer = pendula.CoRNN(3, 8, num_layers=2, dropout=0.5)
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.01)
        for step in range(1, 5):
            x = torch.randn(10, 2, 3)
            optimiser.zero_grad()
            layer(x)[0].square().sum().backward()
            optimiser.step()
            if watch is not None:
                watch(layer, x, step)
        return layer.state_dict()

    assert_close(trained(Watch(every=2)), trained(None), **tolerance.EXACT)


LONG = """
import resource, torch, pendula
from pendula.diagnose import certify
torch.set_num_threads(1)
model = pendula.Model(pendula.ModelSpec(6, 5, (pendula.Node("{network}", 16, num_layers=2),)))
found = certify(model, torch.randn(17984, 4, 6))
print([c.sentence for c in found if c.holds is False], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN"])
def test_eigenworms_length_fits_into_two_gigabytes(network: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LONG.format(network=network)], capture_output=True, text=True, check=True
    )
    said, megabytes = done.stdout.rsplit(maxsplit=1)
    assert said == "[]"
    assert int(megabytes) < 2048
