"""LMU: B7 of the spec sheet baselines.md, what the memory holds, and the published count."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import LMUCell
from pendula.cells.lmu import LMUState, legendre, sliding_window
from tests import tolerance
from tests.contracts.layer import B, I, LayerContract, N

CONDITION = 1e-7
"""Absolute error of the largest eigenvalue of the memory of order 256: its condition number is 2.2e7, and the matrix is
known to some 1e-15. The exact one is a root of a polynomial with whole coefficients, solved in 150 digits."""


class TestLMU(LayerContract):
    network = "LMU"
    physics: ClassVar = {"memory": 4, "theta": 5.0}


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def radius(matrix: Tensor) -> float:
    return torch.linalg.eigvals(matrix).abs().max().item()


def memory_alone(q: int, theta: float) -> LMUCell:
    """A cell whose memory sees the input and nothing else."""
    cell = LMUCell(1, 1, memory=q, theta=theta, init="psmnist", dtype=torch.float64)
    return cell.requires_grad_(False)


def test_b7_the_matrices_of_the_delay() -> None:
    # for very long windows the step is 1 + A / theta + ..., which shows A and B
    A_bar, B_bar = sliding_window(4, 1e9)
    A = [[-1, -1, -1, -1], [3, -3, -3, -3], [-5, 5, -5, -5], [7, -7, 7, -7]]
    assert_close(1e9 * (A_bar - torch.eye(4).double()), double(A), rtol=0, atol=1e-6)
    assert_close(1e9 * B_bar.flatten(), double([1.0, -3, 5, -7]), rtol=0, atol=1e-6)


def test_b7_zero_order_hold() -> None:
    A_bar, B_bar = sliding_window(4, 10)
    row = [0.894224525037847, -0.0836586927316288, -0.0795761510967512, -0.039790353994765]
    column = [0.105775474962153, -0.250976078194886, 0.397880755483756, -0.278532477963355]
    assert_close(A_bar[0], double(row), **tolerance.decimals(15))
    assert_close(B_bar.flatten(), double(column), **tolerance.decimals(15))
    assert radius(A_bar) == pytest.approx(0.725219660738945, rel=1e-12)


def test_b7_five_steps() -> None:
    cell = memory_alone(4, 10.0)
    _, state = pendula.scan(cell, torch.sin(torch.arange(1, 6).double()).reshape(5, 1, 1))
    expected = [[0.0195388146330997, 0.279172581485004, -0.894565471006181, 0.308347202818493]]
    assert_close(state[1], double(expected), **tolerance.decimals(15))


def test_b7_the_memory_of_psmnist_is_stable_but_not_normal() -> None:
    A_bar, _ = sliding_window(256, 784)
    # the sheet prints 0.97587881787, of which eight digits are right: see CONDITION
    assert radius(A_bar) == pytest.approx(0.9758788204945379, abs=CONDITION)
    assert torch.linalg.matrix_norm(A_bar, 2).item() == pytest.approx(1.69604267, rel=3e-9)


def test_the_eigenvalues_are_those_of_the_pade_approximant() -> None:
    # theta A has the poles of the [q-1/q] approximant of exp(-s): for q = 2 the roots of s^2 + 4 s + 6
    A_bar, _ = sliding_window(2, 1.0)
    expected = torch.exp(torch.tensor([-2 + 1j * math.sqrt(2), -2 - 1j * math.sqrt(2)], dtype=torch.complex128))
    found = torch.linalg.eigvals(A_bar)
    assert_close(found[found.imag.argsort(descending=True)], expected, **tolerance.ROUNDING)


@pytest.mark.parametrize("q", [1, 2, 6, 31, 64])
@pytest.mark.parametrize("theta", [0.5, 7.0, 300.0])
def test_every_memory_is_stable(q: int, theta: float) -> None:
    assert radius(sliding_window(q, theta)[0]) < 1


def test_single_precision_leaves_the_memory_of_psmnist_stable() -> None:
    A_bar, _ = sliding_window(256, 784)
    circle = torch.exp(1j * torch.linspace(0, math.pi, 33).double())
    # what must be added to A_bar to bring an eigenvalue to the unit circle, and what rounding adds
    distance = torch.linalg.svdvals(circle.reshape(-1, 1, 1) * torch.eye(256) - A_bar)[:, -1].min().item()
    rounding = torch.linalg.matrix_norm(A_bar.float().double() - A_bar, 2).item()
    assert distance == pytest.approx(1.8e-3, rel=0.05)
    assert rounding < 1e-4 * distance


def test_an_input_leaves_the_memory_after_the_window() -> None:
    A_bar, B_bar = sliding_window(32, 128)
    held = torch.linalg.matrix_power(A_bar, 64) @ B_bar
    gone = torch.linalg.matrix_power(A_bar, 256) @ B_bar
    assert held.abs().max() > 1e-2
    assert gone.abs().max() < 1e-3 * held.abs().max()


def test_the_window_is_decoded_with_legendre_polynomials() -> None:
    def u(t: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * t / 150) + 0.3 * torch.cos(t / 40)

    cell = memory_alone(12, 200.0)
    _, state = pendula.scan(cell, u(torch.arange(600).double()).reshape(-1, 1, 1))
    r = torch.linspace(0.1, 1, 10).double()
    # sample n is held from time n - 1 to n, so it stands for the middle; half a step off, the error is 7e-3 at least
    assert (cell.window(state[1], r)[0] - u(599 - 200 * r + 0.5)).abs().max() < 5e-4


def test_a_constant_is_remembered_as_a_constant() -> None:
    # the resting state of theta m' = A m + B u is m = (u, 0, 0, ...): P_0 alone
    A_bar, B_bar = sliding_window(9, 30)
    rest = torch.zeros(9, 1).double()
    rest[0] = 1
    assert_close(A_bar @ rest + B_bar, rest, **tolerance.ROUNDING)


def test_legendre_polynomials_are_orthogonal() -> None:
    x = (2 * (torch.arange(20_000).double() + 0.5) / 20_000) - 1
    p = legendre(6, x)
    gram = p @ p.T * (2 / 20_000)
    # the midpoint rule errs by some 1e-7 here
    assert_close(gram, torch.diag(2 / (2 * torch.arange(6).double() + 1)), rtol=0, atol=1e-6)
    assert_close(legendre(5, double([0.3]))[4], double([(35 * 0.3**4 - 30 * 0.3**2 + 3) / 8]), **tolerance.ROUNDING)
    assert legendre(1, x).shape == (1, 20_000)


def test_the_update_by_hand() -> None:
    cell = LMUCell(2, 3, memory=5, theta=4.0, dtype=torch.float64).requires_grad_(False)
    cell.e_m.normal_()
    cell.b.normal_()
    x, h, m = torch.randn(1, 2).double(), torch.randn(1, 3).double(), torch.randn(1, 5).double()
    u = cell.e_x @ x[0] + cell.e_h @ h[0] + cell.e_m @ m[0]
    new = cell.A_bar @ m[0] + cell.B_bar @ u
    expected = torch.tanh(cell.W_x @ x[0] + cell.W_h @ h[0] + cell.W_m @ new + cell.b)
    state = cell.step(LMUState(h, m), cell.drive(x.unsqueeze(0))[0])
    assert_close((state.h[0], state.m[0]), (expected, new), **tolerance.ROUNDING)


def test_under_autocast_the_memory_keeps_full_precision() -> None:
    cell = LMUCell(1, 4, memory=32, theta=128.0, init="psmnist")
    x = torch.sin(torch.arange(512) / 9.0).bfloat16().float().reshape(-1, 1, 1)
    _, expected = pendula.scan(cell, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = pendula.scan(cell, x)
    assert_close(state[1], expected[1], **tolerance.FLOAT32)


def test_the_count_of_trained_parameters_is_the_published_one() -> None:
    physics = {"memory": 256, "theta": 784, "init": "psmnist"}
    spec = pendula.ModelSpec(1, 10, (pendula.Node("LMU", 212, bias=False, physics=physics),))
    assert pendula.Model(spec).parameter_count == 102_027


def test_starting_values_of_psmnist() -> None:
    cell = LMUCell(3, 64, memory=256, theta=784.0, init="psmnist")
    assert_close(cell.e_x.detach(), torch.ones(1, 3), **tolerance.EXACT)
    assert not any(bool(p.any()) for p in (cell.e_h, cell.e_m, cell.W_x, cell.W_h, cell.b))
    assert cell.W_m.std().item() == pytest.approx((2 / 320) ** 0.5, rel=0.05)


def test_starting_values_of_the_library() -> None:
    cell = LMUCell(300, 400, memory=200, theta=784.0)
    for encoder, bound in ((cell.e_x, 0.1), (cell.e_h, (3 / 400) ** 0.5)):
        assert 0.95 * bound < encoder.abs().max().item() <= bound
    assert not any(bool(p.any()) for p in (cell.e_m, cell.b))
    for kernel in (cell.W_x, cell.W_h, cell.W_m):
        assert kernel.std().item() == pytest.approx((2 / sum(kernel.shape)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("q", "units", "expected"), [(256, 212, (1, 3)), (4, 4, (1, 2)), (5, 4, (1, 3)), (1, 9, (1, 2))]
)
def test_order(q: int, units: int, expected: tuple[int, int]) -> None:
    assert LMUCell(1, units, memory=q).order() == expected


@pytest.mark.parametrize(
    ("physics", "said"),
    [
        ({"memory": 0}, "memory must be a whole number, at least 1, got 0"),
        ({"memory": 2.5}, "memory must be a whole number"),
        ({"theta": 0.0}, "theta must be positive, the length of the window in steps, got 0.0"),
        ({"theta": float("inf")}, "theta must be a finite number, got inf"),
        ({"init": "psminst"}, "init must be one of library, psmnist, got 'psminst'.*'psmnist'"),
    ],
)
def test_impossible_physics_is_refused(physics: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LMUCell(2, 3, **physics)


def test_there_is_no_time_step() -> None:
    cell = LMUCell(I, N)
    with pytest.raises(ValueError, match="no time step"):
        cell.step(cell.initial_state(B), torch.zeros(B, N + 1), tau=torch.ones(B, 1))


def test_one_unit_and_one_polynomial_are_enough() -> None:
    assert pendula.LMU(1, 1, memory=1, theta=2)(torch.randn(4, 2, 1))[0].shape == (4, 2, 1)


def test_memories_of_different_sizes_are_refused_in_one_layer() -> None:
    said = r"memory=\[4, 8\] gives the layers different widths of m in the state \(4 to 8 units\).*take separate layers"
    with pytest.raises(ValueError, match=said):
        pendula.LMU(2, 3, 2, memory=[4, 8], theta=9.0)
    assert pendula.LMU(2, 3, 2, memory=[4, 4], theta=[5, 50])(torch.zeros(5, 1, 2))[1].m.shape == (2, 1, 4)


def test_a_list_gives_each_layer_its_window() -> None:
    layer = pendula.LMU(2, 3, 2, memory=4, theta=[5, 50])
    assert [cell.theta for cell in layer.cells] == [5, 50]
