"""LEM: B8 and B11 of the spec sheet baselines.md, its bound, and the two places where copies of it go wrong."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.testing import assert_close

import pendula
from pendula import StabilityWarning
from pendula.cells import LEMCell
from pendula.cells.lem import LEMState, lem_author_weights
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import LayerContract

Y_2 = [0.109199134245767, 0.193642898542199, 0.411161580187829]
Z_2 = [0.162272409968815, 0.116380985861064, 0.252981295763775]


class TestLEM(LayerContract):
    network = "LEM"
    physics: ClassVar = {"dt": 0.7}


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def of_the_authors() -> dict[str, Tensor]:
    """B8, in the layout of their scripts."""
    return {
        "cell.inp2hid.weight": det((12, 2), 0.1, 0.5),
        "cell.inp2hid.bias": det((12,), 0.2, 0.1),
        "cell.hid2hid.weight": det((9, 3), 0.3, 0.5),
        "cell.hid2hid.bias": det((9,), 0.4, 0.1),
        "cell.transform_z.weight": det((3, 3), 0.5, 0.5),
        "cell.transform_z.bias": det((3,), 0.6, 0.1),
    }


def b8(dt: float = 0.5) -> tuple[LEMCell, Tensor, LEMState]:
    cell = LEMCell(2, 3, dt=dt, dtype=torch.float64)
    cell.load_state_dict({**cell.state_dict(), **lem_author_weights(of_the_authors())})
    return cell, double([[[0.3, -0.6]], [[0.6, -1.2]]]), LEMState(det((1, 3), 0.7, 0.4), det((1, 3), 0.8, 0.4))


def test_b8_two_steps() -> None:
    cell, x, start = b8()
    _, state = pendula.scan(cell, x, start)
    assert_close(state[0].detach(), double([Y_2]), **tolerance.decimals(15))
    assert_close(state[1].detach(), double([Z_2]), **tolerance.decimals(15))


def variant(cell: LEMCell, x: Tensor, state: LEMState, *, old_memory: bool, gates_swapped: bool) -> LEMState:
    """The update written out by hand, with the mistakes of others if so wished."""
    y, z = state
    W_1, W_2, W_z = cell.W.chunk(3)
    V_1, V_2, V_z, V_y = cell.V.chunk(4)
    b_1, b_2, b_z, b_y = (cell.b + cell.c).chunk(4)
    for u in x:
        dt_1 = cell.dt * torch.sigmoid(linear(y, W_1) + linear(u, V_1) + b_1)
        dt_2 = cell.dt * torch.sigmoid(linear(y, W_2) + linear(u, V_2) + b_2)
        if gates_swapped:
            dt_1, dt_2 = dt_2, dt_1
        new = (1 - dt_1) * z + dt_1 * torch.tanh(linear(y, W_z) + linear(u, V_z) + b_z)
        seen = z if old_memory else new
        y = (1 - dt_2) * y + dt_2 * torch.tanh(linear(seen, cell.W_y) + linear(u, V_y) + b_y)
        z = new
    return LEMState(y, z)


def test_the_update_is_the_papers() -> None:
    cell, x, start = b8()
    by_hand = variant(cell, x, start, old_memory=False, gates_swapped=False)
    _, state = pendula.scan(cell, x, start)
    assert_close(tuple(state), tuple(by_hand), **tolerance.ROUNDING)


@pytest.mark.parametrize(("old_memory", "gates_swapped"), [(True, False), (False, True)])
def test_b8_tells_the_mistakes_of_others(old_memory: bool, gates_swapped: bool) -> None:
    cell, x, start = b8()
    wrong = variant(cell, x, start, old_memory=old_memory, gates_swapped=gates_swapped)
    assert (wrong.y - double([Y_2])).abs().max() > 1e-3


def test_b11_the_count_is_the_published_one() -> None:
    model = pendula.Model(pendula.ModelSpec(1, 10, (pendula.Node("LEM", 128, physics={"dt": 0.31}),)))
    assert model.parameter_count == 68_362


@pytest.mark.parametrize("dt", [0.0242, 0.31, 1.0])
def test_the_states_stay_within_their_bound(dt: float) -> None:
    cell = LEMCell(3, 5, dt=dt, dtype=torch.float64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(30)
        state = cell.initial_state(4)
        for n, drive in enumerate(cell.drive(100 * torch.randn(200, 4, 3).double()), 1):
            state = cell.step(state, drive)
            bound = 1 - (1 - dt) ** n + tolerance.BOUND
            assert max(state[0].abs().max(), state[1].abs().max()) <= bound


def test_the_bound_is_reached_by_open_gates() -> None:
    cell = LEMCell(1, 1, dt=0.25, dtype=torch.float64)
    with torch.no_grad():
        cell.W.zero_()
        cell.b.fill_(40)
        cell.W_y.fill_(40)
        cell.c.zero_()
        _, state = pendula.scan(cell, torch.zeros(10, 1, 1).double())
    expected = double([[1 - 0.75**10]])
    assert_close(tuple(state), (expected, expected), **tolerance.ROUNDING)


def test_the_step_follows_the_vector_field_to_first_order() -> None:
    errors = []
    for dt in (0.02, 0.01, 0.005):
        cell, x, start = b8(dt)
        drive = cell.drive(x)[0]
        with torch.no_grad():
            state, fine = start, start
            for _ in range(round(1 / dt)):
                state = cell.step(state, drive)
            for _ in range(1000):
                # midpoint rule, far below the errors measured
                half = LEMState(*(s + 5e-4 * f for s, f in zip(fine, cell.vector_field(fine, drive), strict=True)))
                fine = LEMState(*(s + 1e-3 * f for s, f in zip(fine, cell.vector_field(half, drive), strict=True)))
        errors.append((state.y - fine.y).norm().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=tolerance.OBSERVED_ORDER)


def test_a_closed_gate_keeps_its_state_for_ever() -> None:
    cell = LEMCell(1, 2, dtype=torch.float64)
    with torch.no_grad():
        cell.W.zero_()
        cell.V.zero_()
        cell.b[:4] = -800
    start = LEMState(double([[0.3, -0.2]]), double([[-0.7, 0.9]]))
    _, state = pendula.scan(cell, torch.randn(100, 1, 1).double(), start)
    assert_close(tuple(state), tuple(start), **tolerance.EXACT)


def test_starting_distribution() -> None:
    cell = LEMCell(7, 256)
    for parameter in cell.parameters():
        assert 0.97 / 16 < parameter.abs().max().item() <= 1 / 16


def test_weights_of_the_authors_are_found_under_any_prefix() -> None:
    bare = {key.removeprefix("cell."): value for key, value in of_the_authors().items()}
    assert_close(lem_author_weights(bare), lem_author_weights(of_the_authors()), **tolerance.EXACT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cell.transform_z.bias", None),
        ("cell.hid2hid.weight", torch.zeros(9, 4)),
        ("cell.inp2hid.weight", torch.zeros(9, 2)),
        ("cell.transform_z.weight", torch.zeros(3, 4)),
        ("cell.transform_z.bias", torch.zeros(4)),
    ],
)
def test_weights_that_do_not_fit_are_refused(key: str, value: Tensor | None) -> None:
    given = {**of_the_authors(), key: value}
    with pytest.raises(ValueError, match=r"not a LEM state dict of the authors: needs .*got cell\.inp2hid\.weight"):
        lem_author_weights({k: v for k, v in given.items() if v is not None})


def test_no_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got nothing$"):
        lem_author_weights({})


def test_a_step_longer_than_the_way_warns() -> None:
    with pytest.warns(StabilityWarning, match=r"LEM: dt <= 1 fails \(1.5\)"):
        LEMCell(2, 3, dt=[0.5, 1.5, 1.0])


@pytest.mark.parametrize("dt", [0, -0.1, float("nan"), "fast"])
def test_an_impossible_step_is_refused(dt: object) -> None:
    with pytest.raises(ValueError, match="dt must be"):
        LEMCell(2, 3, dt=dt)


def test_order() -> None:
    assert LEMCell(2, 3).order() == (2, 2)
