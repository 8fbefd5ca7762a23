"""UnICORNN's certificates: unicornn.md 4.1 to 4.6, its oracles, and the cases in which they must say no."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import UnICORNNCell
from pendula.diagnose import certify
from pendula.tasks.base import Batch
from tests.contracts.certificates import bounds_hold, breaks, declines, keeps

ALWAYS = ("volume", "gradient from below")
IN_Q = ("invariant", "state", "position", "input sensitivity", "gradient from above")


def cell(units: int = 6, kind: type[UnICORNNCell] = UnICORNNCell, **physics: Any) -> UnICORNNCell:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pendula.StabilityWarning)
        return kind(2, units, dtype=torch.float64, **physics)


def weighted(network: UnICORNNCell, **weights: Any) -> UnICORNNCell:
    with torch.no_grad():
        for name, value in weights.items():
            parameter = getattr(network, name)
            parameter.copy_(torch.as_tensor(value, dtype=torch.float64).expand_as(parameter))
    return network


def pushes(steps: int = 150, size: int = 3) -> Tensor:
    return 1e3 * torch.randn(-(-steps // 10), size, 2).double().repeat_interleave(10, 0)[:steps]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 10.0])
@pytest.mark.parametrize("size", [0.5, 5.0])
def test_u15_bounds_hold_for_weights_of_any_sign_and_strong_inputs(alpha: float, size: float) -> None:
    network = cell(dt=0.4, alpha=alpha)
    weighted(network, w=size * torch.randn(6), c=2 * torch.randn(6))
    found = bounds_hold(network, pushes())
    for name in (*ALWAYS, *IN_Q):
        keeps(found, name)


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_bounds_hold_with_unequal_steps_and_one_constant_per_neuron(alpha: float) -> None:
    network = cell(dt=0.1 + 0.4 * torch.rand(6).double(), alpha=alpha * torch.rand(6).double())
    weighted(network, w=3 * torch.randn(6))
    for _ in range(4):
        spans = 0.05 + 1.5 * torch.rand(80, 3).double()
        spans[::2] /= 10
        found = bounds_hold(network, Batch(pushes(80), torch.zeros(3), torch.tensor([80, 2, 31]), spans))
        for name in (*ALWAYS, *IN_Q):
            keeps(found, name)


def test_equal_time_spans_are_another_time_step() -> None:
    network, longer, x = cell(dt=0.2), cell(dt=0.4), pushes()
    longer.load_state_dict({**network.state_dict(), "dt": longer.dt})
    found = certify(network, Batch(x, torch.zeros(3), None, torch.full(x.shape[:2], 2.0).double()))
    for one, other in zip(found, certify(longer, x), strict=True):
        if one.name in (*ALWAYS, "state", "position", "input sensitivity", "gradient from above"):
            assert_close([one.bound, one.measured], [other.bound, other.measured], rtol=1e-9, atol=1e-12)


def test_u3_the_state_uses_the_printed_share_of_its_bound() -> None:
    i = torch.arange(4).double()
    k = torch.arange(2).double()
    network = cell(4, dt=0.3, alpha=2.0)
    V = torch.sin(7 * i.unsqueeze(1) + k + 0.5)
    weighted(network, V=V, b=i.cos(), w=0.5 + 0.4 * torch.sin(i + 1), c=0.1 * torch.cos(2 * i + 1))
    n, beta = torch.arange(1, 501).double().reshape(-1, 1, 1), torch.arange(2).double().reshape(1, -1, 1)
    got = keeps(certify(network, torch.sin(0.3 * n + beta + 2 * k)), "state")
    assert_close(torch.tensor(got.used), torch.tensor(0.9549802588921298), rtol=1e-11, atol=0.0)


def test_u7_pushed_outwards_the_bounds_are_nearly_reached() -> None:
    network = weighted(cell(1, dt=0.2, alpha=0.0), w=-1.0, c=0.0, V=0.0, b=0.1)
    found = bounds_hold(network, torch.zeros(2000, 1, 2).double())
    # at the end |y| = 19569.9 of 20010 and |z| = 197.8 of 200; on the way no nearer
    assert keeps(found, "position").used == pytest.approx(19569.92241738299 / 20010, rel=1e-3)
    assert keeps(found, "state").used == pytest.approx(197.7849044200292 / 200, rel=1e-3)
    declines(found, "linear stability", "thrown out")
    declines(found, "the way back", "backwards")
    declines(found, "state (published)", "divides by alpha")
    declines(found, "energy under a frozen input", "thrown out")


def test_the_published_bound_of_the_state_is_exceeded_by_resonance_and_the_corrected_one_is_not() -> None:
    # sheet 4.3: for alpha = 0.1 and steps of 0.01 the first violation comes at t = 13.6
    network = weighted(cell(1, dt=0.01, alpha=0.1), w=0.0, c=40.0, b=0.0, V=torch.tensor([[1.0, 0.0]]))
    t = 0.01 * torch.arange(3000).double()
    x = 50 * torch.sin(math.sqrt(0.1) * t).sign().reshape(-1, 1, 1).expand(-1, 1, 2)
    found = bounds_hold(network, x)
    published = declines(found, "state (published)", "not valid for all times")
    assert published.measured > published.bound
    assert 0.5 < keeps(found, "position").used <= 1


def test_the_published_gradient_bound_is_never_a_pass() -> None:
    declines(certify(cell(), pushes(10)), "parameter gradient (published)", "extreme weights exceed it")


class Flipped(UnICORNNCell):
    """Position before velocity: forward Euler, no longer symplectic."""

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        y, z = state
        return self.State(y + self.h * z, z - self.h * self.force(y, drive))


class Damped(UnICORNNCell):
    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        y, z = super().step(state, drive, tau=tau)
        return self.State(y, 0.999 * z)


class Coupled(UnICORNNCell):
    """Neurons that see one another, with a Jacobian of determinant 1 for all of them together."""

    def force(self, y: Tensor, drive: Tensor) -> Tensor:
        return super().force(y, drive) + 0.1 * y.roll(1, -1)


@pytest.mark.parametrize("kind", [Flipped, Damped, Coupled])
def test_another_step_does_not_keep_the_volume_of_each_neuron(kind: type[UnICORNNCell]) -> None:
    found = certify(cell(kind=kind, dt=0.4), pushes(30))
    breaks(found, "volume")
    for name in ("gradient from above", "gradient from below"):
        declines(found, name, "is broken")


@pytest.mark.parametrize("kind", [Flipped, Damped])
def test_another_step_does_not_keep_the_invariant(kind: type[UnICORNNCell]) -> None:
    breaks(certify(cell(kind=kind, dt=0.4), pushes(30)), "invariant")


def test_an_energy_that_drifts_is_seen() -> None:
    found = certify(weighted(cell(kind=Damped, dt=0.02, alpha=1.0), w=0.5), torch.randn(30, 2, 2).double())
    breaks(found, "energy under a frozen input")


def test_u6_the_energy_swings_half_as_much_with_half_the_step() -> None:
    network = weighted(cell(1, dt=0.4, alpha=1.0), w=0.7, c=0.0, V=0.0, b=0.4)
    got = keeps(certify(network, torch.zeros(30, 1, 2).double()), "energy under a frozen input")
    # printed: 6.60e-3 with dt = 0.4, 3.08e-3 with 0.2
    assert got.measured == pytest.approx(3.080922630905286e-03 / 6.603924261655972e-03, rel=0.1)


class Lost(UnICORNNCell):
    def unstep(self, state: tuple[Tensor, ...], drive: Tensor, **given: Any) -> Any:
        y, z = super().unstep(state, drive, **given)
        return self.State(y + 1e-3, z)


def test_a_way_back_that_misses_the_start_is_seen() -> None:
    x = torch.randn(40, 2, 2).double()
    keeps(certify(cell(), x), "the way back")
    breaks(certify(cell(kind=Lost), x), "the way back")


def test_a_step_that_is_too_long_for_a_stiffness_is_unstable() -> None:
    network = weighted(cell(dt=1.5, alpha=1.0), w=6.0, c=3.0)
    breaks(certify(network, pushes(20)), "linear stability")


def test_where_q_is_no_norm_its_bounds_do_not_apply_and_the_others_do() -> None:
    network = weighted(cell(dt=1.5, alpha=4.0), c=3.0)
    found = certify(network, pushes(20))
    for name in IN_Q:
        declines(found, name, "alpha h^2 < 4 fails")
    for name in ALWAYS:
        keeps(found, name)


def test_a_long_time_span_is_seen_as_a_long_step_unless_it_is_padding() -> None:
    spans = torch.ones(20, 2).double()
    spans[9, 1] = 30.0
    network, x = cell(dt=0.4, alpha=1.0), pushes(20, 2)
    declines(certify(network, Batch(x, torch.zeros(2), None, spans)), "state", "alpha h^2 < 4 fails")
    keeps(certify(network, Batch(x, torch.zeros(2), torch.tensor([20, 9]), spans)), "state")


def test_without_stiffness_and_weight_the_norm_of_the_gradient_is_none() -> None:
    declines(certify(weighted(cell(alpha=0.0), w=0.0), pushes(20)), "gradient from above", "alpha = 0 and w = 0")


def test_the_probes_take_the_steps_of_the_batch() -> None:
    # alpha h^2 is 12 for a time span of 1, and 1 for those given
    network, x = weighted(cell(dt=2.0, alpha=3.0), c=20.0), pushes(20)
    spans = torch.full(x.shape[:2], 0.3).double()
    found = bounds_hold(network, Batch(x, torch.zeros(3), None, spans))
    keeps(found, "invariant")
    declines(certify(network, x), "invariant", "alpha h^2 < 4 fails")


def test_the_way_back_of_an_unstable_step_is_not_judged() -> None:
    found = certify(weighted(cell(dt=1.5, alpha=1.0), w=6.0, c=3.0), pushes(20))
    declines(found, "the way back", "'linear stability' is broken")
