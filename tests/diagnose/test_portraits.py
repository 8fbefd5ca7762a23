"""Portraits: the numbers are those of the trajectory, and the pictures show them in the ink of the page."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CELLS
from pendula.diagnose import pictures
from pendula.diagnose.gradients import gradient_flow
from pendula.diagnose.portraits import MOMENTS, UNITS, WINDOW, portraits
from pendula.diagnose.spectrum import spectrum
from pendula.nets.layers import LAYERS
from pendula.tasks.base import Batch
from tests import tolerance

I, N = 2, 6


def layer(network: str, units: int = N, **options: Any) -> pendula.Recurrent:
    return LAYERS[network](I, units, dtype=torch.float64, **options)


def batch(steps: int = 30, size: int = 3, lengths: Tensor | None = None) -> Batch:
    return Batch(torch.randn(steps, size, I).double(), torch.zeros(size), lengths)


def loss(output: Tensor, batch: Batch) -> Tensor:
    return output[-1].square().mean()


def states(network: pendula.Recurrent, x: Tensor) -> list[Any]:
    """The state after every step, by the layer's own step."""
    state, seen = None, []
    with torch.no_grad():
        for step in x:
            _, state = network.step(step, state)
            seen.append(state)
    return seen


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN"])
def test_the_phase_portrait_is_position_and_velocity_of_the_units_that_move_most(network: str) -> None:
    oscillators, given = layer(network), batch()
    (portrait,) = portraits(oscillators, given)
    seen = states(oscillators, given.x)
    y, z = (torch.stack([state[k][0, 0] for state in seen]) for k in (0, 1))
    most = (y.amax(0) - y.amin(0)).argsort(descending=True)[:4].tolist()
    assert [label for label, _, _ in portrait.curves] == [f"unit {k}" for k in most]
    for k, (_, across, up) in zip(most, portrait.curves, strict=True):
        assert_close(torch.tensor(across, dtype=torch.float64), y[:, k], **tolerance.ROUNDING)
        assert_close(torch.tensor(up, dtype=torch.float64), z[:, k], **tolerance.ROUNDING)


def test_without_velocities_it_is_the_two_directions_that_vary_most() -> None:
    elman, given = layer("Elman"), batch()
    (portrait,) = portraits(elman, given)
    ((_, across, up),) = portrait.curves
    h = torch.stack([state.h[0, 0] for state in states(elman, given.x)])
    variances = torch.linalg.eigvalsh(torch.cov(h.T)).flip(0)
    seen = torch.tensor([across, up], dtype=torch.float64)
    assert_close(torch.cov(seen), torch.diag(variances[:2]), rtol=1e-6, atol=1e-9)
    assert f"{float(variances[0] / variances.sum()):.0%}" in portrait.axes[0]


@pytest.mark.parametrize("network", CELLS)
def test_there_is_a_portrait_of_every_network(network: str) -> None:
    (portrait,) = portraits(layer(network), batch(steps=12))
    assert portrait.network == network
    assert len(portrait.activity) == len(portrait.units) <= UNITS
    assert all(len(row) == 12 and all(map(math.isfinite, row)) for row in (*portrait.activity, *portrait.energy))
    assert portrait.curves


def test_the_energy_of_cornn_is_that_of_the_sheet_and_below_its_bound() -> None:
    cornn, given = layer("CoRNN", dt=0.1, gamma=2.0, epsilon=1.5), batch(steps=80)
    (portrait,) = portraits(cornn, given)
    state = states(cornn, given.x)[40]
    expected = 2.0 * state.y[0].square().sum(-1) + (1 - 0.15) * state.z[0].square().sum(-1)
    assert_close(
        torch.tensor([row[40] for row in portrait.energy], dtype=torch.float64), expected, **tolerance.ROUNDING
    )
    assert portrait.bound is not None
    assert portrait.bound[-1] == pytest.approx(N * 80 * 0.1 / (2 * 1.5 - 2.0 * 0.1))
    assert all(e <= b for row in portrait.energy for e, b in zip(row, portrait.bound, strict=True))


def test_a_bound_whose_condition_fails_is_not_drawn() -> None:
    with pytest.warns(pendula.StabilityWarning, match="no energy bound"):
        cornn = layer("CoRNN", dt=0.5, gamma=4.0, epsilon=0.5)
    (portrait,) = portraits(cornn, batch())
    assert portrait.bound is None
    assert "bound" not in pictures.energy_picture(portrait, "p").caption


def test_the_energy_of_free_oscillators_does_not_change() -> None:
    free = layer("UnICORNN", alpha=0.7)
    cell = free.cell(0)
    with torch.no_grad():
        for name in ("w", "V", "b"):
            cell.get_parameter(name).zero_()
        # one push at the first step, then nothing
        cell.get_parameter("V").fill_(1.0)
    given = batch(steps=200)
    given.x[1:] = 0
    (portrait,) = portraits(free, given)
    for row in portrait.energy:
        assert row[0] > 0
        assert row == pytest.approx([row[0]] * 200, rel=1e-9)


def test_a_long_trajectory_is_thinned_without_losing_its_extremes() -> None:
    steps = 2 * MOMENTS + 7
    gru, given = layer("GRU", units=70), batch(steps=steps, size=1)
    (portrait,) = portraits(gru, given)
    h = torch.stack([state.h[0, 0] for state in states(gru, given.x)])
    assert len(portrait.activity[0]) == math.ceil(steps / portrait.stride) <= MOMENTS
    assert portrait.units[0] == 0
    assert portrait.units[-1] == 69
    for unit, row in zip(portrait.units, portrait.activity, strict=True):
        assert max(map(abs, row)) == pytest.approx(float(h[:, unit].abs().max()))
    assert portrait.window == min(WINDOW, steps)


def test_the_longest_sequence_is_shown_and_others_end() -> None:
    (portrait,) = portraits(layer("CoRNN"), batch(steps=40, lengths=torch.tensor([3, 25, 9])))
    assert portrait.steps == 25
    assert [sum(map(math.isfinite, row)) for row in portrait.energy] == [3, 25, 9]
    data = portrait.to_dict()
    assert data["energy"][0][3:] == [None] * 22


def test_each_direction_and_layer_has_its_portrait() -> None:
    found = portraits(layer("LEM", num_layers=2, bidirectional=True), batch())
    assert [p.name for p in found] == ["layer.0", "layer.0 backwards", "layer.1", "layer.1 backwards"]


def test_looking_changes_nothing() -> None:
    network, given = layer("CoRNN", dropout=0.5, num_layers=2), batch()
    before = [p.clone() for p in network.parameters()]
    random = torch.get_rng_state()
    portraits(network, given)
    assert network.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


def drawn(network: str, **options: Any) -> list[pictures.Picture]:
    module, given = layer(network, **options), batch()
    made = [pictures.gradient_picture(gradient_flow(module, given, loss, compare="LSTM"))]
    made += pictures.of_layer(portraits(module, given)[0], "portrait0")
    return made + pictures.of_spectrum(spectrum(module, given, exponents=3, sequences=2)[0], "spectrum0")


@pytest.mark.parametrize("network", ["CoRNN", "ODERNN"])
def test_pictures_have_the_ink_of_the_page_and_ids_of_their_own(network: str) -> None:
    made = drawn(network)
    assert len(made) == 7
    text = "".join(picture.svg for picture in made)
    assert pictures.INK not in text
    assert "currentColor" in text
    # nothing that acts on the page around, or comes from elsewhere
    assert not re.search(r"<style|<script|<metadata|<\?xml|<!DOCTYPE", text)
    assert not re.search(r"(href|src)=\"(?!#|data:)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert {a or b for a, b in targets} <= set(ids)
    for picture in made:
        assert picture.svg.startswith('<svg role="img" aria-label="')
        assert len(picture.caption) > 20
        assert len(picture.alternative) > 20


def test_the_same_numbers_make_the_same_picture() -> None:
    (portrait,) = portraits(layer("CoRNN"), batch())
    assert pictures.energy_picture(portrait, "a") == pictures.energy_picture(portrait, "a")


def test_what_is_not_finite_is_left_out_of_the_pictures() -> None:
    cornn = layer("CoRNN")
    with torch.no_grad():
        cornn.cell(0).get_parameter("b").fill_(math.nan)
    (portrait,) = portraits(cornn, batch())
    assert portrait.curves == ()
    assert [p.name for p in pictures.of_layer(portrait, "p")] == ["p-energy", "p-activity"]


def test_an_eigenvalue_outside_the_region_is_counted() -> None:
    (found,) = spectrum(layer("Elman"), batch(), exponents=1, sequences=1)
    first, *others = found.linearisations
    beyond = replace(first, inside=(False, *first.inside[1:]), points=((1.5, 0.0), *first.points[1:]))
    picture = pictures.eigenvalue_picture(replace(found, linearisations=(beyond, *others)), "e")
    assert picture is not None
    assert f"1 of {N} outside at rest" in picture.caption
    assert "at rest, outside" in picture.svg
