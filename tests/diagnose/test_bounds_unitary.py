"""Certificates of unitary, orthogonal and nearly orthogonal recurrences, and the cases in which they must say no."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import QUNNCell, SpectralRNNCell, URNNCell
from pendula.diagnose import certify
from tests import tolerance
from tests.contracts.certificates import bounds_hold, breaks, declines, keeps

UNITARY = ("URNN", "FullCapacityURNN", "EURNN", "RealEURNN", "ExpRNN", "ScoRNN")
OPERATOR = ("W is unitary", "norm of W h", "state", "step Jacobian")
NO_BIAS = {"URNN", "FullCapacityURNN", "EURNN"}


def layer(network: str, shift: float | None = None, **options: Any) -> Any:
    made = pendula.LAYERS[network](3, 8, **options)
    if shift is not None:
        with torch.no_grad():
            made.cells[0].b.fill_(shift)
    return made


@pytest.mark.parametrize("network", UNITARY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.1, None])
def test_unitary_recurrences_keep_what_is_proven(network: str, dtype: torch.dtype, shift: float | None) -> None:
    found = bounds_hold(layer(network, shift, dtype=dtype), 3 * torch.randn(40, 3, 3))
    for name in OPERATOR:
        keeps(found, name)


@pytest.mark.parametrize("network", UNITARY)
def test_without_a_bias_above_zero_no_step_stretches(network: str) -> None:
    found = certify(layer(network, -0.05), torch.randn(40, 3, 3))
    assert keeps(found, "no step stretches").measured < 1 + 1e-5


@pytest.mark.parametrize("network", sorted(NO_BIAS))
def test_with_a_bias_above_zero_a_step_stretches_and_the_argument_does_not_apply(network: str) -> None:
    got = declines(certify(layer(network, 0.1), torch.randn(40, 3, 3)), "no step stretches", "b <= 0 fails")
    assert got.measured > 1 + 1e-4


@pytest.mark.parametrize("network", ["ExpRNN", "ScoRNN"])
def test_over_real_units_a_bias_above_zero_changes_no_slope(network: str) -> None:
    keeps(certify(layer(network, 0.1), torch.randn(40, 3, 3)), "no step stretches")


def test_a_real_modrelu_with_an_offset_stretches_where_the_bias_is_above_zero() -> None:
    declines(certify(layer("RealEURNN", 0.5), 0.1 * torch.randn(40, 3, 3)), "no step stretches", "b <= 0 fails")


def test_contracting_takes_the_bias_below_zero() -> None:
    keeps(certify(layer("URNN", 0.1, contracting=True), torch.randn(40, 3, 3)), "no step stretches")


def tampered(network: str) -> Any:
    made = layer(network)
    with torch.no_grad():
        if network == "FullCapacityURNN":
            made.cells[0].W.W *= 1.001
        elif network == "ExpRNN":
            made.cells[0].W.B[0, 1] = 1e-3
        else:
            made.cells[0].W.D[2] = 0.999
    return made


@pytest.mark.parametrize("network", ["FullCapacityURNN", "ExpRNN", "ScoRNN"])
def test_a_matrix_that_was_moved_off_its_manifold_is_seen(network: str) -> None:
    found = certify(tampered(network), torch.randn(20, 2, 3))
    breaks(found, "W is unitary")
    for name in (*OPERATOR[1:], "no step stretches"):
        declines(found, name, "W is not unitary, its defect is")


class Louder(URNNCell):
    def recur(self, h: Tensor) -> Tensor:
        return 1.01 * super().recur(h)


def test_a_recurrence_that_is_not_its_operator_is_seen() -> None:
    found = certify(Louder(3, 8, bias=False), 1e-3 * torch.randn(60, 2, 3))
    for name in ("norm of W h", "state", "step Jacobian"):
        breaks(found, name)


def test_a_unitary_matrix_that_plain_gradient_steps_have_moved_is_seen() -> None:
    made = layer("FullCapacityURNN")
    optimiser = torch.optim.SGD(made.parameters(), lr=0.1)
    made(torch.randn(10, 4, 3))[0].square().sum().backward()
    optimiser.step()
    breaks(certify(made, torch.randn(10, 2, 3)), "W is unitary")


def test_the_optimiser_of_the_package_keeps_it_unitary() -> None:
    made = layer("FullCapacityURNN")
    optimiser = pendula.make_optimiser(made, "sgd", lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        made(torch.randn(10, 4, 3))[0].square().mean().backward()
        optimiser.step()
    keeps(bounds_hold(made, torch.randn(10, 2, 3)), "W is unitary")


# --- qubits


@pytest.mark.parametrize("network", ["QUNN", "QUNNRegister"])
@pytest.mark.parametrize("flow", ["exact", "trotter"])
@pytest.mark.parametrize("beta", [-0.05, 0.0])
def test_qubits_keep_their_window(network: str, flow: str, beta: float) -> None:
    made = pendula.LAYERS[network](3, 8, flow=flow)
    with torch.no_grad():
        made.cells[0].beta.fill_(beta)
    found = bounds_hold(made, torch.randn(40, 3, 3))
    keeps(found, "U is unitary")
    keeps(found, "window of states")


def test_one_lag_without_input_uses_all_of_its_window() -> None:
    made = pendula.QUNN(3, 8, lags=1, bias=False, dtype=torch.float64)
    got = keeps(certify(made, torch.zeros(50, 1, 3).double()), "window of states")
    assert_close(torch.tensor(got.used), torch.tensor(1.0), **tolerance.ROUNDING)


def test_qubits_with_a_bias_above_zero_have_no_window() -> None:
    made = pendula.QUNN(3, 8)
    with torch.no_grad():
        made.cells[0].beta.fill_(0.1)
    declines(certify(made, torch.randn(20, 2, 3)), "window of states", "beta <= 0 fails")


class Leaking(QUNNCell):
    def evolve(self, psi: Tensor) -> Tensor:
        return 1.02 * super().evolve(psi)


def test_a_flow_that_is_not_unitary_is_seen() -> None:
    found = certify(Leaking(3, 8, lags=1), torch.zeros(20, 2, 3))
    breaks(found, "U is unitary")
    breaks(found, "window of states")


# --- singular values


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_singular_values_stay_within_the_margin(margin: float, activation: str) -> None:
    made = pendula.SpectralRNN(3, 8, margin=margin, activation=activation)
    with torch.no_grad():
        if margin:
            made.cells[0].p.copy_(3 * torch.randn(8))
    found = bounds_hold(made, torch.randn(60, 3, 3))
    for name in ("bases are orthogonal", "singular values", "step Jacobian", "gradient from above"):
        keeps(found, name)
    if activation == "identity" and margin < 1:
        keeps(found, "gradient from below")
    else:
        declines(found, "gradient from below")


def test_without_a_margin_nothing_is_bounded() -> None:
    found = certify(pendula.SpectralRNN(3, 8, margin="free"), torch.randn(20, 2, 3))
    keeps(found, "bases are orthogonal")
    for name in ("singular values", "step Jacobian", "gradient from above", "gradient from below"):
        declines(found, name, "margin='free'")


def test_bases_that_are_no_longer_orthogonal_are_seen_and_so_are_their_singular_values() -> None:
    made = pendula.SpectralRNN(3, 8, margin=0.1)
    with torch.no_grad():
        made.cells[0].U *= 1.2
    found = certify(made, torch.randn(20, 2, 3))
    breaks(found, "bases are orthogonal")
    breaks(found, "singular values")
    for name in ("step Jacobian", "gradient from above"):
        declines(found, name, "'singular values' is broken")


class Steeper(SpectralRNNCell):
    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        return self.State(2 * super().step(state, drive, tau=tau)[0])


def test_a_step_that_is_steeper_than_its_activation_is_seen() -> None:
    breaks(certify(Steeper(3, 8, margin=0.1), 1e-3 * torch.randn(20, 2, 3)), "step Jacobian")


def test_a_linear_network_at_its_edge_uses_all_of_the_band() -> None:
    made = pendula.SpectralRNN(3, 8, margin=0.2, activation="identity", init="identity", dtype=torch.float64)
    with torch.no_grad():
        made.cells[0].p.fill_(60.0)
    found = certify(made, torch.randn(50, 2, 3).double())
    above = keeps(found, "gradient from above")
    assert_close(torch.tensor(above.measured), torch.tensor(above.bound), rtol=1e-9, atol=0.0)
