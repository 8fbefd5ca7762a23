"""Conditions C1 to C10 as certificates of ODERNN, AntisymmetricRNN and LSTM, and where they must say no."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import AntisymmetricRNNCell, LSTMCell, ODERNNCell
from pendula.diagnose import certify
from pendula.math.oscillator import uniform_bound
from pendula.tasks.base import Batch
from tests import tolerance
from tests.contracts.certificates import bounds_hold, breaks, declines, keeps

SCHEMES = ("euler", "heun", "midpoint", "ssp33", "kutta3", "rk4", "semi-implicit")


def cell(tableau: str = "euler", order: int = 1, size: float = 0.1, kind: Any = ODERNNCell, **physics: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pendula.StabilityWarning)
        made = kind(2, 5, tableau=tableau, order=order, dtype=torch.float64, **physics)
    with torch.no_grad():
        made.W.mul_(size)
        made.b.normal_()
    return made


def damped(tableau: str = "euler", size: float = 0.1, dt: float = 0.1, **physics: Any) -> Any:
    """t = 1, with a linear part that contracts more than the weights expand."""
    return cell(tableau, 1, size, dt=dt, gamma=2.0, **physics)


def pushes(steps: int = 60) -> Tensor:
    return 1e3 * torch.randn(-(-steps // 10), 3, 2).double().repeat_interleave(10, 0)[:steps]


@pytest.mark.parametrize("tableau", SCHEMES)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("input", ["hold", "linear"])
def test_the_state_stays_within_what_its_linear_part_can_be_moved_to(tableau: str, order: int, input: str) -> None:
    gamma = {1: 1.0, 2: [1.0, 1.5], 3: [1.0, 3.0, 3.0]}[order]
    network = cell(tableau, order, size=20.0, dt=0.2, gamma=gamma, input=input)
    found = bounds_hold(network, pushes())
    for name in ("C8: linear part", "C1: linear part", "C8: state"):
        keeps(found, name)


def test_of_order_two_semi_implicit_it_is_the_bound_of_cornn() -> None:
    network = cell("semi-implicit", 2, dt=0.1, gamma=[2.0, 0.7])
    got = keeps(certify(network, pushes()), "C8: state")
    y_max, z_max = uniform_bound(0.1, 2.0, 0.7, "explicit")
    assert min(abs(got.bound - y_max), abs(got.bound - z_max)) < 1e-12


@pytest.mark.parametrize("tableau", ["euler", "heun", "rk4"])
def test_a_force_that_never_changes_comes_close_to_the_bound_of_the_state(tableau: str) -> None:
    network = damped(tableau, size=0.0)
    with torch.no_grad():
        network.U.fill_(1.0)
    got = keeps(certify(network, 1e3 * torch.ones(300, 1, 2).double()), "C8: state")
    assert got.bound == pytest.approx(0.5)
    assert got.used > 0.999


@pytest.mark.parametrize("gamma", [[1.0, 0.0], [0.0, 1.0]])
def test_a_linear_part_that_does_not_decay_is_seen(gamma: list[float]) -> None:
    found = certify(cell("semi-implicit", 2, dt=0.1, gamma=gamma), pushes(20))
    breaks(found, "C8: linear part")
    declines(found, "C8: state", "the linear part does not forget")


def test_a_linear_part_that_grows_only_linearly_is_unstable_too() -> None:
    found = certify(cell("semi-implicit", 2, dt=0.1, gamma=[0.0, 0.0]), pushes(20))
    assert "defective" in breaks(found, "C1: linear part").condition


@pytest.mark.parametrize(("tableau", "edge"), [("euler", 2.0), ("heun", 2.0), ("rk4", 2.7852935634052813)])
@pytest.mark.parametrize("share", [0.999, 1.001])
def test_the_linear_part_is_stable_up_to_the_limit_of_the_scheme(tableau: str, edge: float, share: float) -> None:
    found = certify(cell(tableau, 1, dt=share * edge, gamma=1.0), pushes(20))
    (keeps if share < 1 else breaks)(found, "C1: linear part")


def test_a_time_span_can_lead_out_of_the_stable_range_and_padding_can_not() -> None:
    spans = torch.ones(20, 3).double()
    spans[11:, 1] = 30.0
    network, x = damped("rk4"), pushes(20)
    breaks(certify(network, Batch(x, torch.zeros(3), None, spans)), "C1: linear part")
    declines(certify(network, Batch(x, torch.zeros(3), None, spans)), "C8: state")
    keeps(certify(network, Batch(x, torch.zeros(3), torch.tensor([20, 11, 20]), spans)), "C1: linear part")


# --- contraction


def test_eulers_conditions_hold_together_where_damping_outweighs_the_weights() -> None:
    found = bounds_hold(damped(), torch.randn(40, 3, 2).double())
    for name in ("C1: frozen spectrum", "C2: Euler contracts", "C3: Euler step", "C4: two states"):
        assert keeps(found, name).measured < 1


def test_eulers_conditions_fail_where_the_weights_outweigh_the_damping() -> None:
    found = certify(damped(size=30.0), 0.1 * torch.randn(40, 3, 2).double())
    for name in ("C2: Euler contracts", "C3: Euler step", "C4: two states"):
        declines(found, name, "its condition fails")
    declines(found, "C1: frozen spectrum", "above 1")


def test_a_step_that_is_too_long_fails_them_too() -> None:
    found = certify(damped(dt=1.2), torch.randn(40, 3, 2).double())
    declines(found, "C2: Euler contracts", "its condition fails")
    declines(found, "C3: Euler step", "of 2 m / L^2")


@pytest.mark.parametrize("tableau", ["heun", "ssp33"])
def test_schemes_that_mix_euler_steps_contract_where_euler_does(tableau: str) -> None:
    found = bounds_hold(damped(tableau), torch.randn(40, 3, 2).double())
    assert keeps(found, "C5: SSP scheme").measured < 1
    declines(found, "C2: Euler contracts", "a scheme of")
    declines(
        certify(damped(tableau, size=30.0), 0.1 * torch.randn(40, 3, 2).double()), "C5: SSP scheme", "condition fails"
    )


@pytest.mark.parametrize("tableau", ["midpoint", "kutta3", "rk4", "semi-implicit"])
def test_other_schemes_have_no_such_guarantee(tableau: str) -> None:
    declines(certify(damped(tableau), torch.randn(20, 3, 2).double()), "C5: SSP scheme", "it is about SSP schemes")


def test_a_linear_input_was_not_worked_out() -> None:
    found = certify(damped(input="linear"), torch.randn(20, 3, 2).double())
    for name in ("C1: frozen spectrum", "C2: Euler contracts", "C5: SSP scheme"):
        declines(found, name, "'linear'")


class Stretched(ODERNNCell):
    """A step that is not the one that the field and the scheme give."""

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        return self.State(1.5 * super().step(state, drive, tau=tau)[0])


def test_a_step_that_is_not_that_of_its_scheme_is_seen() -> None:
    found = certify(damped(kind=Stretched), torch.randn(40, 3, 2).double())
    for name in ("C2: Euler contracts", "C3: Euler step", "C8: state"):
        breaks(found, name)


def antisymmetric(share: float) -> Any:
    network = damped(antisymmetric=True, size=3.0)
    sigma = float(torch.linalg.matrix_norm(network.W.detach()[0], 2))
    made = damped(dt=share * 4 / (4 + sigma**2), antisymmetric=True)
    with torch.no_grad():
        made.W.copy_(network.W)
    return made


def test_antisymmetric_and_damped_contracts_up_to_its_step_and_not_beyond() -> None:
    torch.manual_seed(3)
    x = torch.randn(20, 2, 2).double()
    assert keeps(certify(antisymmetric(0.9), x), "C6: antisymmetric and damped").measured < 1
    torch.manual_seed(3)
    declines(certify(antisymmetric(1.1), x), "C6: antisymmetric and damped", "fails")


def test_weights_that_have_lost_their_antisymmetry_are_no_longer_c6s() -> None:
    declines(certify(damped(), torch.randn(20, 2, 2).double()), "C6: antisymmetric and damped", "not antisymmetric")


def test_antisymmetric_rnn_contracts_up_to_its_step_and_not_beyond() -> None:
    def network(share: float) -> AntisymmetricRNNCell:
        made = AntisymmetricRNNCell(2, 6, gamma=0.5, init_std=2.0, dtype=torch.float64)
        with torch.no_grad():
            made.upper.copy_(torch.linspace(-1, 1, 15))
            made.dt.fill_(share * float(made.contractive_dt()))
        return made

    x = torch.randn(20, 2, 2).double()
    assert keeps(certify(network(0.9), x), "C6: linear part").measured < 1
    got = declines(certify(network(1.1), x), "C6: linear part", "the step is too long")
    assert got.measured > 1
    spans = torch.ones(20, 2).double()
    spans[3, 1] = 1.3
    declines(certify(network(0.9), Batch(x, torch.zeros(2), None, spans)), "C6: linear part", "too long")


def test_o11_an_antisymmetric_matrix_that_is_harmless_alone_is_not_at_the_states_visited() -> None:
    # C7: slopes of tanh that differ from unit to unit
    network = AntisymmetricRNNCell(2, 2, dt=0.1, gamma=0.05, dtype=torch.float64)
    with torch.no_grad():
        network.upper.fill_(0.9)
        network.V.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
        network.b.zero_()
    x = torch.ones(40, 1, 2).double()
    found = certify(network, x)
    keeps(found, "C6: linear part")
    assert declines(found, "C2: visited states", "at a state visited").measured > 1
    keeps(certify(network, 0 * x), "C2: visited states")


# --- LSTM


def lstm(size: float, forget: float) -> LSTMCell:
    made = LSTMCell(2, 5, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
        made.rnn.bias_ih_l0[5:10] = forget
    return made


def test_c10_an_lstm_of_small_weights_contracts() -> None:
    got = keeps(bounds_hold(lstm(0.02, -1.0), torch.randn(40, 3, 2).double()), "C10: contraction")
    assert 0 < got.measured <= got.bound < 1


@pytest.mark.parametrize(("size", "forget"), [(1.0, 0.0), (0.02, 6.0)])
def test_c10_says_nothing_of_an_lstm_of_large_weights_or_a_long_memory(size: float, forget: float) -> None:
    declines(certify(lstm(size, forget), torch.randn(20, 3, 2).double()), "C10: contraction", "at least 1")


class Doubled(LSTMCell):
    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        return self.State(*(2 * s for s in super().step(state, drive, tau=tau)))


def test_c10_another_step_breaks_it() -> None:
    network = lstm(0.02, -1.0)
    network.__class__ = Doubled
    breaks(certify(network, torch.randn(20, 3, 2).double()), "C10: contraction")


def test_c1_the_radius_is_that_of_the_stability_function() -> None:
    # R(z) = 1 + z + z^2/2 + z^3/6 + z^4/24 at z = -h gamma
    got = keeps(certify(cell("rk4", 1, dt=2.0, gamma=1.0), pushes(20)), "C1: linear part").measured
    expected = sum((-2.0) ** k / math.factorial(k) for k in range(5))
    assert_close(torch.tensor(got), torch.tensor(abs(expected)), **tolerance.ROUNDING)
