"""Runge-Kutta schemes: their table, order conditions, convergence (O2) and stability limits (O3, O3b) of odernn.md."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula.math.schemes import TABLEAUX, Tableau, semi_implicit_step, tableau_of
from tests import tolerance

SCHEMES = pytest.mark.parametrize("name", list(TABLEAUX))


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "n", "p", "ssp", "c"),
    [
        ("euler", 1, 1, 1, [0]),
        ("heun", 2, 2, 1, [0, 1]),
        ("midpoint", 2, 2, 0, [0, 0.5]),
        ("ssp33", 3, 3, 1, [0, 1, 0.5]),
        ("kutta3", 3, 3, 0, [0, 0.5, 1]),
        ("rk4", 4, 4, 0, [0, 0.5, 0.5, 1]),
    ],
)
def test_the_table_of_the_sheet(name: str, n: int, p: int, ssp: float, c: list[float]) -> None:
    scheme = TABLEAUX[name]
    assert (scheme.stages, scheme.depth, scheme.order, scheme.ssp, list(scheme.c)) == (n, n, p, ssp, c)
    # not one order more than claimed, where the conditions reach
    assert Tableau(scheme.A, scheme.b).order == p


@SCHEMES
def test_with_as_many_stages_as_orders_the_stability_function_is_the_exponential_cut_off(name: str) -> None:
    scheme = TABLEAUX[name]
    expected = [1 / math.factorial(j) for j in range(scheme.stages + 1)]
    assert scheme.polynomial == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("data", "order", "depth"),
    [
        ({"A": [[0, 0], ["2/3", 0]], "b": ["1/4", "3/4"]}, 2, 2),
        # the 3/8 rule
        ({"A": [[0] * 4, ["1/3", 0, 0, 0], ["-1/3", 1, 0, 0], [1, -1, 1, 0]], "b": ["1/8", "3/8", "3/8", "1/8"]}, 4, 4),
        # ten digits of a third are not enough for order 3, but 13 are
        ({"A": [[0] * 3, [0.5, 0, 0], [-1, 2, 0]], "b": [0.1666666666667, 0.6666666666666, 0.1666666666667]}, 3, 3),
        # a second stage that reads nothing of the first: one nonlinearity inside another never occurs
        ({"A": [[0, 0], [0, 0]], "b": [0.5, 0.5]}, 1, 1),
        # a stage that reaches no result
        ({"A": [[0, 0], [1, 0]], "b": [1, 0]}, 1, 1),
    ],
)
def test_plain_data_is_a_tableau(data: dict[str, Any], order: int, depth: int) -> None:
    scheme = tableau_of(data)
    assert (scheme.order, scheme.depth) == (order, depth)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"A": [[0]], "b": [0.9]}, "order 1 needs sum b = 1, got 0.9"),
        ({"A": [[0, 0], [1, 0]], "b": [0.5, 0.5], "order": 3}, r"order 3 needs sum b c\^2 = 1/3, got 0.5"),
        ({"A": [[0, 0], [0.4, 0]], "b": [0, 1], "order": 2}, "order 2 needs sum b c = 1/2, got 0.4"),
        ({"A": [[0]], "b": [1], "order": 5}, "order of a tableau can be checked up to 4, got 5"),
        ({"A": [[0]], "b": [1], "order": 0}, "order must be a whole number, at least 1, got 0"),
        ({"A": [[1]], "b": [1]}, "zero on and above its diagonal: only explicit schemes"),
        ({"A": [[0, 1], [0, 0]], "b": [0.5, 0.5]}, "zero on and above its diagonal"),
        ({"A": [[0], [1, 0]], "b": [0.5, 0.5]}, r"n rows of n numbers in A .*rows of \[1, 2\] and 2 in b"),
        ({"A": [], "b": []}, "n rows of n numbers"),
        ({"A": [[0]], "b": [float("nan")]}, "A must be rows of numbers"),
        ({"A": [[0]], "b": [float("inf")]}, "A must be rows of numbers"),
        ({"A": 0, "b": [1]}, "A must be rows of numbers"),
        ({"A": [["a"]], "b": [1]}, "A must be rows of numbers"),
        ({"A": [["1/0"]], "b": [1]}, "A must be rows of numbers"),
        ({"A": [[0]]}, "a tableau needs 'b'"),
        ({"A": [[0]], "b": [1], "c": [0]}, "a tableau has no 'c'"),
        ("rk", "tableau must be one of euler, heun, midpoint, ssp33, kutta3, rk4, got 'rk'"),
        (None, "tableau must be one of .* or data such as"),
    ],
)
def test_what_is_no_tableau_is_refused(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tableau_of(data)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        Tableau(((math.inf,),), (1.0,))


O2 = {
    "euler": 8.3625e-3,
    "heun": 2.2875e-5,
    "midpoint": 2.7146e-5,
    "kutta3": 7.1241e-8,
    "ssp33": 4.7898e-8,
    "rk4": 1.7543e-10,
}


def third_order(name: str, steps: int) -> Tensor:
    """y''' = -tanh y - 0.5 y' - 0.8 y'' + sin s from (0.5, -0.2, 0.1), s from 0 to 2."""
    Z, h = double([0.5, -0.2, 0.1]), 2 / steps
    for k in range(steps):

        def F(Z: Tensor, c: float, start: float = k * h) -> Tensor:
            y, y1, y2 = Z
            return torch.stack((y1, y2, -torch.tanh(y) - 0.5 * y1 - 0.8 * y2 + math.sin(start + c * h)))

        Z = TABLEAUX[name].step(F, Z, h)
    return Z


@pytest.mark.parametrize("name", O2)
def test_o2_nonlinear_problem_with_a_force_at_the_stage_times(name: str) -> None:
    exact = double([0.371957063371108, 0.267537705408206, 0.512941126871283])
    error = (third_order(name, 160) - exact).abs().max().item()
    # printed to 5 digits; the reference to 15, which is 5e-16 of an error of 2e-10
    assert error == pytest.approx(O2[name], rel=5e-5)


@SCHEMES
def test_o2_the_error_falls_with_the_order(name: str) -> None:
    exact = third_order("rk4", 640)
    errors = [(third_order(name, steps) - exact).abs().max().item() for steps in (40, 80)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(TABLEAUX[name].order, abs=0.06)


@pytest.mark.parametrize(
    ("name", "real", "imaginary", "at_i", "thousand"),
    [
        ("euler", 2, 0, 2, 144.77277243256),
        ("heun", 2, 0, 1.25, 1.0125782933279),
        ("midpoint", 2, 0, 1.25, 1.0125782933279),
        ("ssp33", 2.5127453266183286, 1.7320508075688772, 0.944444444444444, 0.9958558159058),
        ("kutta3", 2.5127453266183286, 1.7320508075688772, 0.944444444444444, 0.9958558159058),
        ("rk4", 2.7852935634052813, 2.8284271247461903, 0.987847222222222, 0.9999930642602),
    ],
)
def test_o3_stability_limits(name: str, real: float, imaginary: float, at_i: float, thousand: float) -> None:
    scheme = TABLEAUX[name]
    assert scheme.limit(-1) == pytest.approx(real, rel=1e-14)
    assert scheme.limit(1j) == pytest.approx(imaginary, rel=1e-14, abs=0)
    R = scheme.R(torch.tensor([1j, 0.1j], dtype=torch.complex128)).abs()
    assert R[0].item() ** 2 == pytest.approx(at_i, rel=1e-14)
    # 14 digits are printed
    assert R[1].item() ** 1000 == pytest.approx(thousand, rel=1e-12)


@SCHEMES
def test_a_growing_direction_has_no_stable_step(name: str) -> None:
    assert TABLEAUX[name].limit(1 + 1j) == 0


@SCHEMES
@pytest.mark.parametrize("angle", [1.6, 2.0, 2.5, 3.0])
def test_at_the_limit_the_stability_function_leaves_the_unit_disc(name: str, angle: float) -> None:
    scheme, ray = TABLEAUX[name], complex(math.cos(angle), math.sin(angle))
    edge = scheme.limit(ray)
    r = edge * double([*torch.linspace(0, 1, 101), 1 + 1e-6])
    gain = scheme.R(r * torch.tensor(ray, dtype=torch.complex128)).abs()
    assert (gain[:-1] <= 1 + 1e-12).all()
    assert gain[-1] > 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("euler", 1),
        ("heun", 2),
        ("midpoint", 2),
        ("kutta3", 2.5127453266183286),
        ("ssp33", 2.5127453266183286),
        ("rk4", 2.622542491830481),
    ],
)
def test_o3b_largest_step_of_a_companion_block(name: str, expected: float) -> None:
    J = double([[0, 1, 0], [0, 0, 1], [-1, -2, -2]])
    # eigenvalues of a 3 x 3 matrix: some units of 1e-15
    assert TABLEAUX[name].max_step(J) == pytest.approx(expected, rel=1e-14)


def test_a_field_that_stands_still_takes_any_step() -> None:
    assert TABLEAUX["rk4"].max_step(torch.zeros(2, 2)) == math.inf


def test_o9_the_order_of_the_updates_makes_euler_conserve() -> None:
    # y'' = -4 y, h = 0.1
    J, h = double([[0, 1], [-4, 0]]), 0.1
    explicit = TABLEAUX["euler"].transition(J, h)
    columns = torch.eye(2).double()
    implicit = semi_implicit_step(lambda z: -4 * z[0], columns, h)
    radii = [torch.linalg.eigvals(M).abs().max().item() for M in (explicit, implicit)]
    assert radii == pytest.approx([1.019803902718557, 1], rel=1e-14)
    assert torch.linalg.det(implicit).item() == pytest.approx(1, rel=1e-15)


@SCHEMES
def test_the_transition_is_what_a_step_of_a_linear_field_does(name: str) -> None:
    J, Z, h = torch.randn(4, 3, 3).double(), torch.randn(4, 3, 1).double(), 0.3
    scheme = TABLEAUX[name]
    assert_close(scheme.transition(J, h) @ Z, scheme.step(lambda Z, c: J @ Z, Z, h), **tolerance.ROUNDING)


def test_the_ssp_coefficient_of_two_euler_steps_of_one_half_is_two() -> None:
    assert Tableau(((0, 0), (0.5, 0)), (0.5, 0.5)).ssp == 2


def test_the_ssp_coefficient_of_a_chain_with_a_short_first_step() -> None:
    # Z1 = Z + h/4 F, Z+ = Z1 + 3h/4 F(Z1): two Euler steps, the longer of which allows h up to 4/3
    assert Tableau(((0, 0), (0.25, 0)), (0.25, 0.75)).ssp == pytest.approx(4 / 3, abs=1e-9)
