"""ODERNN: theorems 3.1 to 3.5 and section 2.4 of the spec sheet odernn.md, with the oracles O6, O7, O8."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pendula.cells import ODERNNCell
from pendula.cells.odernn import ODERNNState
from pendula.math.schemes import FIRST_THEN_SECOND, TABLEAUX, Tableau, partitioned_step, semi_implicit_step
from tests import tolerance
from tests.cells.sheet import det


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


# --- 2.4: memory of t steps and an equation of order t are the same


def differences(t: int) -> Tensor:
    """M with nabla^j y_k = sum_i M_ji y_{k-i}."""
    return double([[(-1) ** i * math.comb(j, i) for i in range(t)] for j in range(t)])


@pytest.mark.parametrize("t", [2, 3, 4])
def test_o8_backward_differences_are_their_own_inverse(t: int) -> None:
    M = differences(t)
    assert_close(M @ M, torch.eye(t).double(), **tolerance.EXACT)


def test_o8_a_recurrence_of_three_steps_is_euler_of_a_third_order_equation() -> None:
    def g(y: Tensor) -> Tensor:
        """y_{k+3} from (y_k, y_{k+1}, y_{k+2})."""
        return torch.tanh(0.9 * y[2] - 0.5 * y[1] + 0.3 * y[0]) + 0.1

    h, t = 0.25, 3
    direct = [*double([0.3, -0.2, 0.5])]
    while len(direct) < 21:
        direct.append(g(torch.stack(direct[-3:])))

    def f(z: Tensor) -> Tensor:
        y = torch.stack([sum(math.comb(i, j) * h**j * z[j] for j in range(i + 1)) for i in range(t)])
        return h**-t * (g(y) + sum((-1) ** (t - i) * math.comb(t, i) * y[i] for i in range(t)))

    y0, y1, y2 = direct[:3]
    Z = torch.stack((y0, (y1 - y0) / h, (y2 - 2 * y1 + y0) / h**2))
    found = [Z[0]]
    for _ in range(20):
        Z = TABLEAUX["euler"].step(lambda Z, c: torch.cat((Z[1:], f(Z).reshape(1))), Z, h)
        found.append(Z[0])
    # the sheet: a maximal difference of 4e-16
    assert_close(torch.stack(found), torch.stack(direct), rtol=0, atol=2e-15)
    assert found[20].item() == pytest.approx(0.321465016828846, abs=2e-15)


@pytest.mark.parametrize("t", [2, 3])
def test_with_euler_the_state_is_forward_differences_of_the_output(t: int) -> None:
    cell = ODERNNCell(1, 2, tableau="euler", order=t, dtype=torch.float64)
    zs = trajectory(cell, 8)
    y = zs[:, 0]
    for j in range(1, t):
        y = y[1:] - y[:-1]
        assert_close(zs[:-j, j], y / float(cell.dt) ** j, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [2, 3])
def test_with_semi_implicit_euler_the_state_is_backward_differences_of_the_output(t: int) -> None:
    cell = ODERNNCell(1, 2, tableau="semi-implicit", order=t, dtype=torch.float64)
    zs = trajectory(cell, 8)
    y = zs[:, 0]
    for j in range(1, t):
        y = y[1:] - y[:-1]
        assert_close(zs[j:, j], y / float(cell.dt) ** j, rtol=1e-10, atol=1e-10)


def trajectory(cell: ODERNNCell, steps: int) -> Tensor:
    """(steps, t, N) from a random state, after each step."""
    state, zs = ODERNNState(torch.randn(1, cell.t * cell.hidden_size).double()), []
    with torch.no_grad():
        for drive in torch.randn(steps, 1, cell.hidden_size).double():
            state = cell.step(state, drive)
            zs.append(state.Z.reshape(cell.t, -1))
    return torch.stack(zs)


def test_an_explicit_step_of_order_t_is_the_eliminated_recurrence() -> None:
    # y_{k+2} = 2 y_{k+1} - y_k + h^2 f(y_k, (y_{k+1} - y_k)/h)
    cell = ODERNNCell(1, 3, tableau="euler", order=2, dtype=torch.float64)
    h, drive = cell.dt, torch.randn(1, 3).double()
    y = [torch.randn(3).double(), torch.randn(3).double()]
    state = ODERNNState(torch.cat((y[0], (y[1] - y[0]) / h)).unsqueeze(0))
    with torch.no_grad():
        for _ in range(6):
            z = torch.stack((y[-2], (y[-1] - y[-2]) / h)).unsqueeze(0)
            y.append(2 * y[-1] - y[-2] + h**2 * cell.highest(z, drive)[0])
            state = cell.step(state, drive)
    assert_close(state.Z[0, :3], y[6], rtol=1e-11, atol=1e-12)


# --- 3.1, 3.2


@pytest.mark.parametrize("h", [0.1, 1.0])
def test_31_any_map_is_an_euler_step_of_some_field(h: float) -> None:
    G, x = nn.GRUCell(2, 3, dtype=torch.float64), torch.randn(1, 2).double()
    y = torch.randn(1, 3).double()
    step = TABLEAUX["euler"].step(lambda y, c: (G(x, y) - y) / h, y, h)
    assert_close(step, G(x, y), **tolerance.ROUNDING)


def jacobian(f: Callable[[Tensor], Tensor], Z: Tensor) -> Tensor:
    found: Tensor = torch.autograd.functional.jacobian(f, Z)
    return found


@pytest.mark.parametrize("tableau", list(TABLEAUX))
def test_32_the_jacobian_of_a_step_is_composed_of_those_of_its_stages(tableau: str) -> None:
    cell = ODERNNCell(1, 2, tableau=tableau, order=2, dtype=torch.float64)
    scheme, h, drive = cell.scheme, cell.dt, torch.randn(1, 2).double()
    assert scheme is not None
    Z = torch.randn(4).double()

    def F(Z: Tensor) -> Tensor:
        return cell.field(Z.reshape(1, 2, 2), drive).flatten()

    eye, K, dK = torch.eye(4).double(), [], []
    for row in scheme.A:
        before = zip(row, K, dK, strict=False)
        stage, inner = Z, eye
        for a, k, d in before:
            stage, inner = stage + h * a * k, inner + h * a * d
        K.append(F(stage))
        dK.append(jacobian(F, stage) @ inner)
    M = eye + h * sum(b * d for b, d in zip(scheme.b, dK, strict=True))
    measured = jacobian(lambda Z: cell.step(ODERNNState(Z.unsqueeze(0)), drive).Z[0], Z)
    assert_close(measured, M.detach(), **tolerance.ROUNDING)


@pytest.mark.parametrize("tableau", list(TABLEAUX))
def test_32_of_a_linear_field_it_is_the_exponential_series_cut_off(tableau: str) -> None:
    scheme, J, h = TABLEAUX[tableau], torch.randn(3, 3).double(), 0.2
    series = sum(torch.matrix_power(h * J, j) / math.factorial(j) for j in range(scheme.stages + 1))
    measured = jacobian(lambda Z: scheme.step(lambda Z, c: J @ Z, Z, h), torch.randn(3).double())
    assert_close(measured, series, **tolerance.ROUNDING)
    assert_close(scheme.transition(J, h), series, **tolerance.ROUNDING)


# --- 3.3: LSTM is 2-2

X, H0, C0 = det((4, 2), 0.5, 1), det((3,), 0.6, 0.3), det((3,), 0.7, 0.3)


def weights(phase: float, rows: int) -> dict[str, Tensor]:
    shapes = {"weight_ih_l0": (rows, 2), "weight_hh_l0": (rows, 3), "bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}
    return {name: det(shape, phase + 0.1 * k, 0.5) for k, (name, shape) in enumerate(shapes.items(), 1)}


def torchs(rnn: nn.RNNBase, values: dict[str, Tensor]) -> nn.RNNBase:
    rnn.load_state_dict(values)
    return rnn


def gates(w: dict[str, Tensor], x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a = w["weight_ih_l0"] @ x + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
    i, f, g, o = a.chunk(4)
    return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)


def lstm_field(w: dict[str, Tensor], x: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(3.1) of the sheet: c' and h'."""

    def F(c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates(w, x, h)
        return (f - 1) * c + i * g, -h + o * torch.tanh(c)

    return F


def run_lstm(one: Callable[[dict[str, Tensor], Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> list[Any]:
    w, c, h = weights(0.0, 12), C0, H0
    states = []
    for x in X:
        c, h = one(w, x, c, h)
        states.append((c, h))
    return states


def by_partitioned_pair(w: dict[str, Tensor], x: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    return partitioned_step(FIRST_THEN_SECOND, lstm_field(w, x), c, h, 1.0)


def by_switched_field(w: dict[str, Tensor], x: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The midpoint-like tableau c = (0, 1/2), b = (1/2, 1/2) on a field that acts on c first, then on h."""
    switched = Tableau(((0, 0), (1 / 2, 0)), (1 / 2, 1 / 2), order=1)

    def F(Z: Tensor, stage: float) -> Tensor:
        dc, dh = lstm_field(w, x)(*Z.unbind(0))
        zero = torch.zeros_like(dc)
        return torch.stack((2 * dc, zero) if stage < 0.5 else (zero, 2 * dh))

    c, h = switched.step(F, torch.stack((c, h)), 1.0).unbind(0)
    return c, h


@pytest.mark.parametrize("one", [by_partitioned_pair, by_switched_field])
def test_33_o6_the_lstm_is_a_member_with_two_stages(one: Any) -> None:
    states = run_lstm(one)
    lstm = torchs(nn.LSTM(2, 3, dtype=torch.float64), weights(0.0, 12))
    outputs, (h, c) = lstm(X, (H0.unsqueeze(0), C0.unsqueeze(0)))
    assert_close(torch.stack([h for _, h in states]), outputs.detach(), rtol=0, atol=1e-15)
    assert_close(torch.stack(states[-1]), torch.cat((c, h)).detach(), rtol=0, atol=1e-15)
    h1 = [0.150421046066259, 0.282010732788345, 0.0391986231108319]
    h4 = [0.157705921210368, 0.253003507171827, 0.0811528424166648]
    c4 = [0.319326815117068, 0.67073864967998, 0.438758916489843]
    assert_close(states[0][1], double(h1), **tolerance.PRINTED_16)
    assert_close(torch.stack(states[-1]), double([c4, h4]), **tolerance.PRINTED_16)


def test_33_without_its_cell_state_the_lstm_is_a_recurrence_of_two_steps() -> None:
    w = weights(0.0, 12)
    h = [H0, *(h for _, h in run_lstm(by_partitioned_pair))]
    for k in range(1, len(X)):
        *_, o_before = gates(w, X[k - 1], h[k - 1])
        i, f, g, o = gates(w, X[k], h[k])
        eliminated = o * torch.tanh(f * torch.atanh(h[k] / o_before) + i * g)
        assert_close(eliminated, h[k + 1], rtol=0, atol=1e-15)


def test_33_the_pair_is_semi_implicit_euler() -> None:
    # order t = 2: velocity first is the second of the pair, position second
    h, z = 0.3, torch.randn(2, 3).double()

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z[0]) - 0.4 * z[1]

    velocity, position = partitioned_step(FIRST_THEN_SECOND, lambda v, y: (f(torch.stack((y, v))), v), z[1], z[0], h)
    assert_close(semi_implicit_step(f, z, h), torch.stack((position, velocity)), **tolerance.ROUNDING)


# --- 3.4: GRU is 2-1


def test_34_o7_the_gru_is_a_member_with_two_stages_and_no_further_memory() -> None:
    w = weights(1.0, 9)
    gru = torchs(nn.GRU(2, 3, dtype=torch.float64), w)
    outputs, _ = gru(X, H0.unsqueeze(0))

    def field(x: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def F(q: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            r, z, n = (w["weight_ih_l0"] @ x + w["bias_ih_l0"]).chunk(3)
            r_h, z_h, n_h = (w["weight_hh_l0"] @ h + w["bias_hh_l0"]).chunk(3)
            r, z = torch.sigmoid(r + r_h), torch.sigmoid(z + z_h)
            return r * n_h - q, (1 - z) * (torch.tanh(n + q) - h)

        return F

    found = []
    for q in (torch.zeros(3).double(), 100 * torch.randn(3).double()):
        h, hs = H0, []
        for x in X:
            q, h = partitioned_step(FIRST_THEN_SECOND, field(x), q, h, 1.0)
            hs.append(h)
        found.append(torch.stack(hs))
    # from 100 instead of 0 it differs by the rounding of 100: the first q is forgotten at once
    assert_close(found[0], found[1], rtol=0, atol=1e-13)
    assert_close(found[0], outputs.detach(), rtol=0, atol=1e-15)
    h4 = [0.768765308039917, 0.387192807476781, -0.0393531361529417]
    assert_close(found[0][-1], double(h4), **tolerance.PRINTED_16)


# --- 3.5: the unitary network is 1-1

DEFECTS: dict[str, Callable[[Tensor], Tensor]] = {
    "euler": lambda y: 1 + y**2,
    "heun": lambda y: 1 + y**4 / 4,
    "kutta3": lambda y: 1 - y**4 / 12 + y**6 / 36,
    "rk4": lambda y: 1 - y**6 / 72 + y**8 / 576,
}


def skew_hermitian(n: int) -> Tensor:
    A = torch.randn(n, n, dtype=torch.complex128)
    return (A - A.mH) / 2


@pytest.mark.parametrize("tableau", DEFECTS)
def test_35_runge_kutta_of_a_unitary_flow_is_not_unitary_by_the_defects_of_the_sheet(tableau: str) -> None:
    scheme, A = TABLEAUX[tableau], skew_hermitian(5)
    y = torch.linalg.eigvals(A).imag
    squared = torch.linalg.svdvals(scheme.transition(A, 1.0)).square()
    assert_close(squared.sort().values, DEFECTS[tableau](y).sort().values, **tolerance.ROUNDING)
    y = torch.linspace(0, 4, 401).double()
    gain = scheme.R(1j * y).abs().square()
    assert_close(gain, DEFECTS[tableau](y), **tolerance.ROUNDING)
    edge = {"euler": 0.0, "heun": 0.0, "kutta3": math.sqrt(3), "rk4": math.sqrt(8)}[tableau]
    inside = (gain <= 1 + 1e-14)[1:]
    assert_close(inside, (y <= edge)[1:], **tolerance.EXACT)


def test_35_exponential_and_cayley_keep_the_norm() -> None:
    A, eye = skew_hermitian(5), torch.eye(5, dtype=torch.complex128)
    for U in (torch.linalg.matrix_exp(A), torch.linalg.solve(eye - A / 2, eye + A / 2)):
        assert_close(U.mH @ U, eye, rtol=0, atol=1e-13)


def test_35_a_unitary_step_is_flow_then_kick_then_modrelu() -> None:
    # the approximation by n stages tends to the exact flow as 1/(n+1)! of |A|
    A, h = 0.3 * skew_hermitian(4), torch.randn(4, dtype=torch.complex128)
    exact = torch.linalg.matrix_exp(A) @ h
    errors = [(TABLEAUX[k].step(lambda h, c: A @ h, h, 1.0) - exact).norm() for k in ("euler", "heun", "kutta3", "rk4")]
    size = float(torch.linalg.matrix_norm(A, 2))
    for n, error in enumerate(errors, 1):
        assert error <= math.exp(size) * size ** (n + 1) / math.factorial(n + 1) * h.norm()
