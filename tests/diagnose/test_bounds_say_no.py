"""Every certificate says no somewhere: for each statement one network whose step, weights or physics make it false."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.testing import assert_close

import pendula
from pendula.cells import CoRNNCell, LinOSSCell, LMUCell, SpectralRNNCell, UnICORNNCell
from pendula.diagnose import Certificate, certify
from pendula.diagnose.certificate import Statement
from pendula.diagnose.trajectory import push
from pendula.nets.jacobian import step_jacobian
from tests import tolerance
from tests.cells.cornn_cases import double, filled
from tests.contracts.certificates import breaks, declines, keeps, named
from tests.diagnose import test_bounds_cornn as cornn
from tests.diagnose import test_bounds_linear as memories
from tests.diagnose import test_bounds_odernn as odernn
from tests.diagnose import test_bounds_unicornn as unicornn
from tests.diagnose import test_bounds_unitary as unitary

Found = list[Certificate]

STATEMENTS = {
    f"{module.name}.{constant}": value
    for module in pkgutil.iter_modules(pendula.diagnose.__path__)
    for constant, value in vars(importlib.import_module(f"pendula.diagnose.{module.name}")).items()
    if isinstance(value, Statement)
}
"""All of the package, under the names of the constants that they are."""


def quiet(steps: int = 60, features: int = 2) -> Tensor:
    """Inputs so small that every slope of a tanh is nearly 1."""
    return 1e-3 * torch.randn(steps, 2, features).double()


# --- coRNN


class Stronger(CoRNNCell):
    """Its weights are ten times what they are said to be; its force is still bounded by 1, so its states are too."""

    def force(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        return torch.tanh(10 * (linear(state[0], self.W) + linear(state[1], self.W_z) + drive))


class Still(CoRNNCell):
    """It never moves, so it never forgets."""

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        return self.State(*(1.0 * s for s in state))


class Pushed(CoRNNCell):
    def force(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        return 1e4 * super().force(state, drive)


def tampered(kind: type[CoRNNCell], x: Tensor, **options: Any) -> Found:
    network = cornn.cell(**options)
    network.__class__ = kind
    return certify(network, x)


def forced(variant: str = "explicit", **physics: Any) -> Found:
    return tampered(cornn.Forced, cornn.pushes(), variant=variant, **physics)


def gently(variant: str, kind: type[CoRNNCell] = CoRNNCell) -> Found:
    """Weak weights on the velocities, which the damping outweighs unless they are ten times as strong."""
    network = filled(cornn.cell(variant, epsilon=0.2), W_z=0.1 * torch.eye(6), V=0.01)
    network.__class__ = kind
    return certify(network, quiet(200))


def stronger(variant: str = "explicit") -> Found:
    return gently(variant, Stronger)


def published_gradient() -> Found:
    own = {"dt": 0.01, "gamma": 1.0, "epsilon": 1.0}
    return tampered(Pushed, torch.randn(100, 2, 2).double(), variant="implicit", size=1e-3, **own)


# --- UnICORNN


class Driven(UnICORNNCell):
    """A force that is not bounded by 1."""

    def force(self, y: Tensor, drive: Tensor) -> Tensor:
        return 5 * super().force(y, drive)


class Sly(UnICORNNCell):
    """Another step under a large drive only, at a moment that nobody looks at by chance."""

    factor = 1.0

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        y, z = super().step(state, drive, tau=tau)
        factor = torch.where(drive.abs() > 100, self.factor, 1.0)
        return self.State(factor * y, factor * z)


class Shrinking(Sly):
    factor = 1e-3


class Growing(Sly):
    factor = 1e3


def sly(kind: type[Sly]) -> Found:
    network = unicornn.weighted(unicornn.cell(kind=kind, dt=0.1, alpha=1.0), w=0.5, V=1.0, b=0.0)
    x = torch.randn(100, 2, 2).double()
    x[40] = 1e3
    found = certify(network, x)
    keeps(found, "volume")
    return found


def flat(kind: type[UnICORNNCell], **physics: Any) -> Found:
    return certify(unicornn.cell(kind=kind, dt=0.4, **physics), unicornn.pushes(30))


# --- others


class Fading(SpectralRNNCell):
    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> Any:
        return self.State(0.5 * super().step(state, drive, tau=tau)[0])


def stiff(**options: Any) -> Found:
    network = memories.Unclamped(4, 6, discretisation="imex", dtype=torch.float64)
    with torch.no_grad():
        network.A.fill_(5.0)
    return certify(network, torch.randn(10, 2, 4).double())


def drifting() -> Found:
    network = LinOSSCell(4, 6, discretisation="imex", dtype=torch.float64)
    with torch.no_grad():
        network.A[2] = -0.1
    return certify(network, torch.randn(10, 2, 4).double())


def memory(scale: float = 1.0, fed: float = 0.0) -> Found:
    network = LMUCell(4, 6, memory=4, theta=10.0, dtype=torch.float64)
    network.A_bar *= scale
    with torch.no_grad():
        network.e_m.fill_(fed)
    return certify(network, torch.randn(9, 2, 4).double())


def stretched(tableau: str = "euler", **options: Any) -> Found:
    return certify(odernn.damped(tableau, kind=odernn.Stretched, **options), torch.randn(40, 3, 2).double())


def antisymmetric_and_stretched() -> Found:
    network = odernn.antisymmetric(0.9)
    network.__class__ = odernn.Stretched
    return certify(network, torch.randn(20, 2, 2).double())


def antisymmetric(share: float) -> Found:
    made = pendula.CELLS["AntisymmetricRNN"](2, 6, gamma=0.5, init_std=2.0, dtype=torch.float64)
    with torch.no_grad():
        made.dt.fill_(share * float(made.contractive_dt()))
    return certify(made, quiet())


def doubled() -> Found:
    network = odernn.lstm(0.02, -1.0)
    network.__class__ = odernn.Doubled
    return certify(network, torch.randn(20, 3, 2).double())


def louder() -> Found:
    return certify(unitary.Louder(3, 8, bias=False), quiet(features=3))


def steeper() -> Found:
    return certify(unitary.Steeper(3, 8, margin=0.1), quiet(features=3))


def skewed() -> Found:
    made = pendula.SpectralRNN(3, 8, margin=0.1)
    with torch.no_grad():
        made.cells[0].U *= 1.2
    return certify(made, torch.randn(20, 2, 3))


def leaking() -> Found:
    return certify(unitary.Leaking(3, 8, lags=1), torch.zeros(20, 2, 3))


BROKEN: dict[str, Callable[[], Found]] = {
    "cornn.STABLE": lambda: certify(cornn.cell(dt=1.5, gamma=4.0, epsilon=0.5), cornn.pushes(20)),
    "cornn.PUBLISHED_ENERGY": lambda: forced("implicit", epsilon=1.0),
    "cornn.ENERGY": forced,
    "cornn.SEPARATION": forced,
    "cornn.POSITION": forced,
    "cornn.VELOCITY": forced,
    "cornn_gradients.ONE_STEP": stronger,
    "cornn_gradients.ELAPSED": stronger,
    "cornn_gradients.PUBLISHED": published_gradient,
    "cornn_gradients.FORGETTING": lambda: tampered(Still, quiet(), size=0.02, gamma=2.0, epsilon=3.0),
    "gated.MEANS": lambda: certify(memories.lem(0.3, 3.0, memories.Loud), 100 * torch.randn(60, 3, 4).double()),
    "gated.CONTRACTS": doubled,
    "gated.CONDITION": lambda: certify(memories.fast(0.1, memories.Flat), torch.randn(30, 3, 4).double()),
    "linear.DISC": stiff,
    "linear.MODULUS": stiff,
    "linear.MEMORY": lambda: memory(2.0),
    "odernn.DECAYS": lambda: certify(odernn.cell("rk4", 2, dt=0.1, gamma=[1.0, 0.0]), odernn.pushes(20)),
    "odernn.STEPS": lambda: certify(odernn.cell("rk4", 1, dt=3.0, gamma=1.0), odernn.pushes(20)),
    "odernn.BOUNDED": stretched,
    "odernn.C2": stretched,
    "odernn.C3": stretched,
    "odernn.C4": stretched,
    "odernn.C5": lambda: stretched("heun"),
    "odernn.C6": antisymmetric_and_stretched,
    "qubits.FLOW": leaking,
    "qubits.WINDOW": leaking,
    "singular.BASES": skewed,
    "singular.BAND": skewed,
    "singular.ONE_STEP": steeper,
    "singular.ABOVE": steeper,
    "singular.BELOW": lambda: certify(Fading(3, 8, margin=0.1, activation="identity"), quiet(features=3)),
    "unicornn.VOLUME": lambda: flat(unicornn.Damped),
    "unicornn.STABLE": lambda: certify(
        unicornn.weighted(unicornn.cell(dt=1.5, alpha=1.0), w=6.0, c=3.0), unicornn.pushes(20)
    ),
    "unicornn.INVARIANT": lambda: flat(unicornn.Flipped),
    "unicornn.ENERGY": lambda: certify(
        unicornn.weighted(unicornn.cell(kind=unicornn.Damped, dt=0.02, alpha=1.0), w=0.5),
        torch.randn(30, 2, 2).double(),
    ),
    "unicornn.STATE": lambda: flat(Driven),
    "unicornn.POSITION": lambda: flat(Driven),
    "unicornn.SEPARATION": lambda: flat(Driven),
    "unicornn.BACK": lambda: certify(unicornn.cell(kind=unicornn.Lost), torch.randn(40, 2, 2).double()),
    "unicornn_gradients.GROWTH": lambda: sly(Growing),
    "unicornn_gradients.ALIVE": lambda: sly(Shrinking),
    "unitary.DEFECT": lambda: certify(unitary.tampered("ScoRNN"), torch.randn(20, 2, 3)),
    "unitary.NORM": louder,
    "unitary.STATE": louder,
    "unitary.CALM": louder,
    "unitary.GAIN": louder,
}
"""Statement -> a network that meets its condition and exceeds its bound."""

DECLINED: dict[str, tuple[Callable[[], Found], str]] = {
    "antisymmetric.LINEAR": (lambda: antisymmetric(1.1), "the step is too long"),
    "antisymmetric.VISITED": (lambda: antisymmetric(1.5), "at a state visited"),
    "bounds.NOTHING": (lambda: certify(pendula.GRU(3, 8), torch.randn(5, 2, 3)), "is known to us"),
    "linear.POWERS": (drifting, "they drift"),
    "linear.FEEDBACK": (lambda: memory(fed=5.0), "can grow"),
    "odernn.FROZEN": (lambda: certify(odernn.damped(size=30.0), quiet()), "above 1"),
    "unicornn.PUBLISHED_STATE": (lambda: flat(UnICORNNCell, alpha=0.5), "not valid for all times"),
    "unicornn_gradients.PUBLISHED_GRADIENT": (lambda: flat(UnICORNNCell), "extreme weights exceed it"),
}
"""Statement -> where it does not apply: its condition is its bound, or it is known to fail."""


def test_there_is_a_case_for_every_statement_of_the_package() -> None:
    assert {*BROKEN, *DECLINED} == set(STATEMENTS)
    assert not {*BROKEN} & {*DECLINED}


@pytest.mark.parametrize("statement", BROKEN)
def test_a_false_statement_is_broken(statement: str) -> None:
    breaks(BROKEN[statement](), STATEMENTS[statement].name)


@pytest.mark.parametrize("statement", DECLINED)
def test_a_statement_whose_condition_fails_does_not_apply(statement: str) -> None:
    case, word = DECLINED[statement]
    declines(case(), STATEMENTS[statement].name, word)


@cornn.BOTH
def test_gradients_that_grow_beyond_elapsed_time_are_seen_though_every_state_is_bounded(variant: str) -> None:
    found = stronger(variant)
    for name in ("energy", "input sensitivity", "position of a neuron", "velocity of a neuron"):
        keeps(found, name)
    got = breaks(found, "gradient by elapsed time")
    assert got.measured > 1.5 * got.bound
    # the same weights with the step that they belong to
    keeps(gently(variant), "gradient by elapsed time")


def test_what_is_followed_is_the_step_of_the_cell() -> None:
    network = filled(cornn.cell(dt=0.4, gamma=4.0, epsilon=1.2), V=0.01)
    network.__class__ = cornn.Flipped
    x = torch.zeros(60, 1, 2).double()
    got = named(certify(network, x), "gradient by elapsed time")
    # a linear network: its exponent is that of its Jacobian, in the norm of the statement
    M = step_jacobian(network, network.initial_state(1), torch.zeros(1, 6).double())[0]
    draws = torch.Generator().manual_seed(0)
    scale = torch.tensor([4.0, 1 - 0.4 * 1.2]).double().sqrt().repeat_interleave(6)
    v = torch.randn(2, 1, 6, generator=draws, dtype=torch.float64).flatten()
    grown = (scale * (torch.linalg.matrix_power(M, got.step) @ v)).norm() / (scale * v).norm()
    assert_close(double(got.measured), grown.log(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN", "LEM", "SpectralRNN", "ODERNN"])
def test_a_pushed_change_is_the_product_with_the_jacobian(network: str) -> None:
    cell = pendula.CELLS[network](3, 5, dtype=torch.float64)
    state = cell.State(*(torch.randn_like(s) for s in cell.initial_state(4)))
    drive = cell.drive(torch.randn(1, 4, 3).double())[0]
    change = tuple(torch.randn_like(s) for s in state)
    M = step_jacobian(cell, state, drive)
    expected = (M @ torch.cat(change, -1).unsqueeze(-1)).squeeze(-1)
    assert_close(torch.cat(push(cell, state, drive, None, change), -1), expected, **tolerance.ROUNDING)
