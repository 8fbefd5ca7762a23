"""Certificates of linear oscillators and memories, LEM and FastRNN, and the cases in which they must say no."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import DLinOSSCell, FastRNNCell, LEMCell, LinOSSCell, LMUCell
from pendula.diagnose import certify
from pendula.math.linear_oscillator import step_matrix
from pendula.tasks.base import Batch
from tests import tolerance
from tests.contracts.certificates import bounds_hold, breaks, declines, keeps

ROWS = ("eigenvalues", "bounded powers", "modulus by scheme")
OSCILLATORS = [(LinOSSCell, "im"), (LinOSSCell, "imex"), *((DLinOSSCell, s) for s in ("imex1", "imex2", "im", "ex"))]


def batch(steps: int = 20, long: float = 1.0) -> Batch:
    spans = 0.01 + long * torch.rand(steps, 3).double()
    return Batch(torch.randn(steps, 3, 4).double(), torch.zeros(3), torch.tensor([steps, 2, 11]), spans)


@pytest.mark.parametrize(("kind", "scheme"), OSCILLATORS)
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_oscillators_stay_in_the_disc_wherever_training_takes_them(kind: Any, scheme: str, size: float) -> None:
    network = kind(4, 6, discretisation=scheme, dtype=torch.float64)
    with torch.no_grad():
        network.A.copy_(size * torch.rand(6) + 0.1)
        network.log_dt.normal_()
        if network.G is not None:
            network.G.copy_(size * torch.randn(6))
    for given in (batch(), batch(long=5.0)):
        found = bounds_hold(network, given)
        keeps(found, "eigenvalues")
        keeps(found, "modulus by scheme")


def test_without_damping_the_modulus_is_one() -> None:
    network = LinOSSCell(4, 6, discretisation="imex", A_max=0.5, dtype=torch.float64)
    got = keeps(certify(network, batch()), "bounded powers")
    assert_close(torch.tensor(got.measured), torch.tensor(1.0), **tolerance.ROUNDING)


def test_an_oscillator_whose_stiffness_has_become_negative_drifts() -> None:
    network = LinOSSCell(4, 6, discretisation="imex", dtype=torch.float64)
    with torch.no_grad():
        network.A[2] = -0.1
    found = certify(network, batch())
    keeps(found, "eigenvalues")
    declines(found, "bounded powers", "1 of 6 oscillators have a defective eigenvalue")


class Unclamped(LinOSSCell):
    """The step of the authors' code, which takes any stiffness."""

    def matrix(self, h: Tensor) -> Tensor:
        return step_matrix(self.scheme, self.A, torch.zeros_like(self.A), h)


def test_an_oscillator_that_is_too_stiff_for_its_step_leaves_the_disc() -> None:
    network = Unclamped(4, 6, discretisation="imex", dtype=torch.float64)
    with torch.no_grad():
        network.A.fill_(5.0)
    found = certify(network, torch.randn(10, 2, 4).double())
    for name in ROWS:
        (declines if name == "bounded powers" else breaks)(found, name)


def test_a_longer_time_span_can_lead_out_of_the_disc_and_padding_can_not() -> None:
    network = Unclamped(4, 6, discretisation="imex", dtype=torch.float64)
    with torch.no_grad():
        network.A.fill_(3.0)
    given = Batch(torch.randn(10, 2, 4).double(), torch.zeros(2), torch.tensor([10, 6]), torch.ones(10, 2).double())
    given.timespans[8, 1] = 2.0
    keeps(certify(network, given), "eigenvalues")
    breaks(certify(network, Batch(given.x, given.y, None, given.timespans)), "eigenvalues")


# --- LMU


@pytest.mark.parametrize(("memory", "theta", "radius"), [(4, 10.0, 0.725219660738945), (64, 128.0, None)])
def test_b7_the_memory_alone_is_stable(memory: int, theta: float, radius: float | None) -> None:
    got = keeps(
        certify(LMUCell(4, 6, memory=memory, theta=theta, dtype=torch.float64), torch.randn(9, 2, 4).double()), "memory"
    )
    if radius is not None:
        assert_close(torch.tensor(got.measured), torch.tensor(radius), **tolerance.PRINTED_16)


def test_a_memory_that_training_has_made_feed_itself_is_unstable() -> None:
    network = LMUCell(4, 6, memory=4, theta=10.0, dtype=torch.float64)
    with torch.no_grad():
        network.e_m.fill_(5.0)
    found = certify(network, torch.randn(9, 2, 4).double())
    assert declines(found, "memory with feedback", "can grow").measured > 1
    keeps(found, "memory")


def test_a_memory_that_was_tampered_with_is_seen() -> None:
    network = LMUCell(4, 6, memory=4, theta=10.0, dtype=torch.float64)
    network.A_bar *= 2
    breaks(certify(network, torch.randn(9, 2, 4).double()), "memory")


# --- LEM


def lem(dt: Any, size: float = 3.0, kind: type[LEMCell] = LEMCell) -> LEMCell:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pendula.StabilityWarning)
        made = kind(4, 6, dt=dt, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("dt", [0.01, 0.3, 1.0])
def test_states_of_lem_stay_below_their_bound(dt: float) -> None:
    keeps(bounds_hold(lem(dt), 100 * torch.randn(60, 3, 4).double()), "state")
    keeps(bounds_hold(lem(dt), batch(60, 0.9)), "state")


def test_a_goal_that_never_changes_uses_nearly_all_of_it() -> None:
    network = lem(0.1, 0.0)
    with torch.no_grad():
        network.b.fill_(40.0)
    assert keeps(certify(network, torch.zeros(30, 1, 4).double()), "state").used == pytest.approx(1.0, abs=1e-9)


def test_a_step_of_lem_that_passes_its_goal_has_no_bound() -> None:
    declines(certify(lem(1.5), torch.randn(9, 2, 4).double()), "state", "dt <= 1 fails, it is up to 1.5")
    # dt 0.3 and spans up to 5
    declines(certify(lem(0.3), batch(40, 5.0)), "state", "dt <= 1 fails")


class Loud(LEMCell):
    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        y, z = super().step(state, drive, tau=tau)
        return self.State(1.2 * y, z)


def test_states_of_another_lem_break_the_bound() -> None:
    breaks(certify(lem(0.3, 3.0, Loud), 100 * torch.randn(60, 3, 4).double()), "state")


# --- FastRNN


def fast(size: float, kind: type[FastRNNCell] = FastRNNCell, **options: Any) -> FastRNNCell:
    made = kind(4, 6, dtype=torch.float64, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("U"):
                parameter.copy_(size * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("options", [{}, {"rank_u": 2}, {"nonlinearity": "relu"}])
def test_a_step_of_fastrnn_is_well_conditioned(options: dict[str, Any]) -> None:
    keeps(bounds_hold(fast(0.5, **options), torch.randn(30, 3, 4).double()), "condition of a step")


def test_large_weights_of_fastrnn_have_no_such_bound() -> None:
    declines(certify(fast(30.0), torch.randn(30, 3, 4).double()), "condition of a step", "r < 1 fails")


class Flat(FastRNNCell):
    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        (h,) = super().step(state, drive, tau=tau)
        return self.State(torch.cat((0.1 * h[..., :1], h[..., 1:]), -1))


def test_another_step_of_fastrnn_breaks_it() -> None:
    breaks(certify(fast(0.1, Flat), torch.randn(30, 3, 4).double()), "condition of a step")


def test_the_bound_of_fastrnn_is_that_of_its_scalars() -> None:
    network = fast(0.5)
    with torch.no_grad():
        norm = float(torch.linalg.matrix_norm(network.U, 2))
    r = norm * (1 + math.exp(-3)) / (1 + math.exp(3))
    got = keeps(certify(network, torch.randn(30, 3, 4).double()), "condition of a step")
    assert_close(torch.tensor(got.bound), torch.tensor((1 + r) / (1 - r)), **tolerance.ROUNDING)
