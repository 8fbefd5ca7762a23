"""coRNN's certificates: cornn.md 4.2 to 4.7, the numbers of its oracles, and the cases in which they must say no."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CoRNNCell
from pendula.diagnose import Certificate, certify
from pendula.math.oscillator import critical_step, growth_rate, uniform_bound
from pendula.tasks.base import Batch
from tests import tolerance
from tests.cells.cornn_cases import double, filled, larger, waves, weights
from tests.contracts.certificates import bounds_hold, breaks, declines, keeps, named

BOTH = pytest.mark.parametrize("variant", ["explicit", "implicit"])
GRADIENT = "parameter gradient (published)"
NO_CHAOS = "forgetting (no chaos)"


def cell(variant: str = "explicit", units: int = 6, size: float = 1.0, **physics: Any) -> CoRNNCell:
    """A cell whose weights are `size` times normal numbers; what its constructor warns of is expected."""
    physics = {"dt": 0.1, "gamma": 1.0, "epsilon": 2.0, **physics}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pendula.StabilityWarning)
        made = CoRNNCell(2, units, variant=variant, dtype=torch.float64, **physics)
    with torch.no_grad():
        for name in ("W", "W_z", "V", "b"):
            weight = getattr(made, name)
            weight.copy_(size * torch.randn_like(weight))
    return made


def pushes(steps: int = 100, size: int = 3) -> Tensor:
    """Inputs so large that every force is 1 or -1, and stays so for a while."""
    return 1e3 * torch.randn(-(-steps // 10), size, 2).double().repeat_interleave(10, 0)[:steps]


# name, dt, gamma, epsilon: sheet 4.5
PUBLISHED = [
    ("adding", 0.06, 66.0, 15.0),
    ("sMNIST", 0.042, 2.7, 4.7),
    ("psMNIST", 0.076, 0.4, 8.0),
    ("CIFAR", 0.034, 1.3, 12.7),
    ("HAR-2", 0.1, 0.2, 6.4),
    ("IMDB", 0.054, 4.9, 4.8),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=[row[0] for row in PUBLISHED])
@BOTH
@pytest.mark.parametrize("size", [0.1, 3.0, 100.0])
def test_published_settings_keep_their_bounds_under_strong_forces(row: tuple, variant: str, size: float) -> None:
    _, dt, gamma, epsilon = row
    found = bounds_hold(cell(variant, size=size, dt=dt, gamma=gamma, epsilon=epsilon), pushes())
    rows = ("linear stability", "energy", "input sensitivity", "position of a neuron", "velocity of a neuron")
    for name in (*rows, "step Jacobian", "gradient by elapsed time"):
        keeps(found, name)


@BOTH
def test_bounds_hold_with_one_constant_per_neuron_and_unequal_steps(variant: str) -> None:
    physics = {name: low + high * torch.rand(6).double() for name, low, high in (("dt", 0.02, 0.1), ("gamma", 0.5, 3))}
    network = cell(variant, size=3.0, epsilon=2 + 2 * torch.rand(6).double(), **physics)
    for _ in range(4):
        spans = 0.1 + 1.5 * torch.rand(60, 3).double()
        # a long step after a short one and back: the weight of the energy changes at every step
        spans[::2] /= 10
        found = bounds_hold(network, Batch(pushes(60), torch.zeros(3), torch.tensor([60, 2, 31]), spans))
        for name in ("energy", "input sensitivity", "step Jacobian", "gradient by elapsed time"):
            keeps(found, name)
        declines(found, "position of a neuron", "differ")
        declines(found, NO_CHAOS, "equal steps")


@BOTH
def test_equal_time_spans_are_another_time_step(variant: str) -> None:
    network, x = cell(variant), pushes()
    longer = cell(variant, dt=0.2)
    longer.load_state_dict({**network.state_dict(), "dt": longer.dt})
    spans = torch.full(x.shape[:2], 2.0).double()
    for one, other in zip(certify(network, Batch(x, torch.zeros(3), None, spans)), certify(longer, x), strict=True):
        if one.name not in (GRADIENT, NO_CHAOS):
            assert (one.holds, one.step) == (other.holds, other.step)
            assert_close([one.bound, one.measured], [other.bound, other.measured], **tolerance.ROUNDING)


def test_learned_constants_are_those_of_now() -> None:
    learned = ("dt", "gamma", "epsilon")
    network = cell(learnable=learned)
    with torch.no_grad():
        network.log_dt.fill_(math.log(0.05))
        network.log_gamma.fill_(math.log(3.0))
        network.log_epsilon.fill_(math.log(4.0))
    got = keeps(certify(network, pushes()), "position of a neuron")
    assert_close(got.bound, uniform_bound(0.05, 3.0, 4.0, "explicit")[0], **tolerance.ROUNDING)


@BOTH
@pytest.mark.parametrize("share", [0.999, 1.001])
def test_linear_stability_changes_at_the_critical_step(variant: str, share: float) -> None:
    found = certify(cell(variant, dt=share * critical_step(4.0, 0.5, variant), gamma=4.0, epsilon=0.5), pushes(20))
    (keeps if share < 1 else breaks)(found, "linear stability")


@BOTH
def test_an_unstable_step_has_no_uniform_bound(variant: str) -> None:
    found = certify(cell(variant, dt=1.5, gamma=4.0, epsilon=0.5), pushes(20))
    breaks(found, "linear stability")
    for name in ("position of a neuron", "velocity of a neuron"):
        declines(found, name, "the sum is infinite")


@BOTH
def test_too_little_damping_has_no_energy_bound(variant: str) -> None:
    found = certify(cell(variant, dt=0.5, gamma=3.0, epsilon=0.7), pushes(20))
    for name in ("energy", "input sensitivity", "step Jacobian", "gradient by elapsed time"):
        declines(found, name, "2 epsilon >")


def test_too_much_damping_has_no_energy_bound_where_it_is_explicit() -> None:
    physics = {"dt": 0.3, "gamma": 1.0, "epsilon": 4.0}
    for name in ("energy", "input sensitivity", "step Jacobian", "gradient by elapsed time"):
        declines(certify(cell("explicit", **physics), pushes(20)), name, "epsilon dt < 1 fails, it is 1.2")
        keeps(certify(cell("implicit", **physics), pushes(20)), name)


def test_one_long_time_span_is_enough_to_lose_a_bound() -> None:
    spans = torch.ones(20, 3).double()
    spans[7, 1] = 6.0
    network, x = cell(epsilon=2.0), pushes(20)
    declines(certify(network, Batch(x, torch.zeros(3), None, spans)), "energy", "it is 1.2")
    # in the padding it is none
    keeps(certify(network, Batch(x, torch.zeros(3), torch.tensor([20, 7, 20]), spans)), "energy")


class Forced(CoRNNCell):
    """A force that is not bounded by 1: another network."""

    def force(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        return 5 * super().force(state, drive)


def test_states_of_another_network_break_the_bounds() -> None:
    network = cell()
    network.__class__ = Forced
    found = certify(network, pushes())
    for name in ("energy", "input sensitivity", "position of a neuron"):
        breaks(found, name)


class Flipped(CoRNNCell):
    """Position before velocity: forward Euler, which adds energy."""

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        y, z = state
        return self.State(y + self.dt * z, super().step(state, drive, tau=tau).z)


def test_another_step_breaks_the_bound_of_its_jacobian() -> None:
    network = filled(cell(dt=0.4, gamma=4.0, epsilon=1.2), V=0.01)
    network.__class__ = Flipped
    breaks(certify(network, pushes(30)), "step Jacobian")


# --- numbers of the sheet


def test_o6_the_published_energy_bound_is_used_by_the_printed_share() -> None:
    network = larger("implicit", dt=1e-3, gamma=1.0, epsilon=1.0)
    got = keeps(certify(network, waves(1000, 1)), "energy (published)")
    assert_close(double(got.used), double(0.09277269740376014), **tolerance.PRINTED_16)


@pytest.mark.parametrize(
    ("variant", "physics", "word"),
    [
        ("explicit", {}, "implicit variant"),
        ("implicit", {"gamma": 2.0}, "gamma = epsilon = 1"),
        ("implicit", {"dt": 1.2, "gamma": 1.0, "epsilon": 1.0}, "at most 1"),
    ],
)
def test_the_published_energy_bound_is_for_its_own_case_only(variant: str, physics: dict, word: str) -> None:
    declines(certify(cell(variant, **{"epsilon": 1.0, **physics}), pushes(10)), "energy (published)", word)


def test_o7_opposite_inputs_separate_by_the_printed_share() -> None:
    network = larger("explicit", dt=0.05, gamma=2.0, epsilon=3.0)
    got = keeps(certify(network, waves(200, 1)), "input sensitivity")
    assert_close(double(got.used), double(0.134473111), **tolerance.decimals(9))


@BOTH
def test_o9_one_step_may_stretch_by_what_lambda_says(variant: str) -> None:
    network = larger(variant, dt=0.05, gamma=2.0, epsilon=3.0)
    w = weights()
    rate = growth_rate(w["W"], w["W_z"], 0.05, 2.0, 3.0, variant)
    found = certify(network, waves(200, 1))
    assert_close(double(keeps(found, "step Jacobian").bound), double(1 + 0.05 * rate), **tolerance.ROUNDING)
    elapsed = keeps(found, "gradient by elapsed time")
    assert_close(double(elapsed.bound), elapsed.step * double(0.05 * rate).log1p(), **tolerance.ROUNDING)


def test_o13_the_uniform_bound_is_one_over_gamma_where_it_is_damped_strongly() -> None:
    _, dt, gamma, epsilon = PUBLISHED[2]
    found = certify(cell(dt=dt, gamma=gamma, epsilon=epsilon), pushes(30))
    bounds = double([keeps(found, f"{name} of a neuron").bound for name in ("position", "velocity")])
    assert_close(bounds, double([2.5, 0.245556]), **tolerance.decimals(6))


def test_a_force_that_never_changes_comes_close_to_the_uniform_bound() -> None:
    network = filled(cell(gamma=2.0, epsilon=4.0), V=1.0)
    got = keeps(certify(network, 1e3 * torch.ones(400, 1, 2).double()), "position of a neuron")
    assert 0.999 < got.used <= 1


def test_a_memory_of_a_million_steps_is_not_added_up() -> None:
    declines(certify(cell(gamma=1e-5, epsilon=5.0), pushes(10)), "position of a neuron", "the sum was not taken")


# --- gradients: the corrected bound, and the published one


def family(steps: int, r: float) -> list[Certificate]:
    """The one-neuron family of sheet 4.7, whose published bound is 3, for N dt = 1."""
    dt = 1 / steps
    network = CoRNNCell(1, 1, dt=dt, gamma=1.0, epsilon=1.0, variant="implicit", dtype=torch.float64)
    return certify(filled(network, W_z=dt ** (r - 1) * (1 + dt)), torch.zeros(steps, 1, 1).double())


@pytest.mark.parametrize(("steps", "expected"), [(10, 0.1935), (100, 0.1620), (1000, 0.1589)])
def test_the_published_gradient_bound_holds_in_the_family_for_r_one(steps: int, expected: float) -> None:
    got = keeps(family(steps, 1.0), GRADIENT)
    assert got.bound == 3.0
    assert_close(double(got.measured), double(expected), **tolerance.PRINTED_4)


@pytest.mark.parametrize(("steps", "r", "expected"), [(100, 0.5, 8.375), (1000, 0.5, 4.523e8), (1000, 0.75, 0.808)])
def test_the_published_gradient_bound_is_no_pass_for_r_below_one(steps: int, r: float, expected: float) -> None:
    got = declines(family(steps, r), GRADIENT, f"r = {r} only, and for r < 1 the bound is wrong")
    assert (got.bound, got.margin) == (3.0, None)
    assert_close(double(got.measured), double(expected), **tolerance.PRINTED_3)


@pytest.mark.parametrize("r", [0.5, 0.75, 1.0])
def test_the_corrected_gradient_bound_holds_in_the_family(r: float) -> None:
    found = family(200, r)
    keeps(found, "step Jacobian")
    keeps(found, "gradient by elapsed time")


def test_the_published_gradient_bound_is_for_its_own_case_only() -> None:
    x = torch.randn(100, 2, 2).double()
    own = {"dt": 0.01, "gamma": 1.0, "epsilon": 1.0}
    declines(certify(cell("explicit", size=0.1, **own), x), GRADIENT, "implicit variant")
    declines(certify(cell("implicit", size=0.1, **own), x[:50]), GRADIENT, "N dt = 1, and here it is 0.5")
    declines(certify(cell("implicit", size=9.0, **own), x), GRADIENT, "assumption (8) fails for every r")
    found = certify(cell("implicit", size=0.0, **own), x)
    keeps(found, GRADIENT)


# --- chaos


def chaotic(variant: str) -> tuple[CoRNNCell, Tensor]:
    """The counter-example of sheet 4.4, kicked by its first input and left alone."""
    units, draws = 50, numpy.random.default_rng(0)
    draws.standard_normal((units, units))
    w_z = double(20 * draws.standard_normal((units, units)) / math.sqrt(units))
    network = CoRNNCell(1, units, dt=0.02, gamma=1.0, epsilon=2.0, variant=variant, dtype=torch.float64)
    x = torch.zeros(4000, 1, 1).double()
    x[:50] = 1.0
    return filled(network, W_z=w_z, V=torch.linspace(-2, 2, units).double().unsqueeze(1)), x


@BOTH
def test_the_chaotic_network_is_bounded_and_not_called_calm(variant: str) -> None:
    found = bounds_hold(*chaotic(variant))
    assert keeps(found, "position of a neuron").measured < 1
    for name in ("energy", "input sensitivity", "gradient by elapsed time"):
        keeps(found, name)
    got = declines(found, NO_CHAOS, "nothing excludes chaos")
    # +0.42 and +0.37 over 110 000 steps
    assert got.measured == pytest.approx(0.4, abs=2 * tolerance.LYAPUNOV)


@BOTH
def test_weak_weights_forget_and_it_is_measured(variant: str) -> None:
    network = cell(variant, size=0.02, gamma=2.0, epsilon=3.0)
    got = keeps(certify(network, torch.randn(200, 3, 2).double()), NO_CHAOS)
    assert got.measured <= got.bound < 0


def test_what_forgets_by_its_weights_does_not_after_they_have_grown() -> None:
    network, x = cell(size=0.02, gamma=2.0, epsilon=3.0), torch.randn(50, 1, 2).double()
    with torch.no_grad():
        network.W_z *= 500
    declines(certify(network, x), NO_CHAOS, "q < 1 fails")


def test_a_layer_that_reads_a_layer_has_certificates_of_its_own() -> None:
    found = bounds_hold(
        pendula.CoRNN(2, 6, num_layers=2, dt=[0.05, 0.1], gamma=2.0, epsilon=3.0), torch.randn(30, 2, 2)
    )
    first, second = ([c for c in found if c.where == place] for place in ("layer.0", "layer.1"))
    assert [c.name for c in first] == [c.name for c in second]
    assert named(first, "linear stability").measured < named(second, "linear stability").measured
