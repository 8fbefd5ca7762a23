"""The independent loops give the numbers that the spec sheets print: numpy only, the package is not imported."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from tests.independent import gated, oscillators, quantum, rungekutta, unitary

Array = NDArray[Any]
PRINTED = {"rtol": 1e-12, "atol": 1e-15}
"""15 or 16 printed digits of a short float64 run."""


def det(shape: tuple[int, ...], phase: float, scale: float) -> Array:
    """The sheets' deterministic tensors: scale sin(phase + m), row by row."""
    return (scale * np.sin(phase + np.arange(math.prod(shape)))).reshape(shape)


def detc(shape: tuple[int, ...], re: float, im: float, scale: float) -> Array:
    return det(shape, re, scale) + 1j * det(shape, im, scale)


# --- coRNN

O1 = {
    "u": np.array([[1.0], [-0.5], [0.25]]),
    "W": np.array([[0.5, -0.3], [0.2, 0.4]]),
    "Wz": np.array([[-0.1, 0.6], [0.3, -0.2]]),
    "V": np.array([[1.0], [-0.5]]),
    "b": np.array([0.1, -0.2]),
    "dt": np.full(2, 0.1),
    "gamma": np.full(2, 1.5),
    "epsilon": np.full(2, 0.8),
    "y": np.zeros(2),
    "z": np.zeros(2),
}


@pytest.mark.parametrize(
    ("implicit", "y3", "z3"),
    [
        (
            False,
            [1.699684090651907e-02, -1.774187493923050e-02],
            [5.870934912336176e-02, -7.079465509255536e-02],
        ),
        (
            True,
            [1.591831281548226e-02, -1.659270518370917e-02],
            [5.542475311609284e-02, -6.656692964282314e-02],
        ),
    ],
)
def test_cornn_o1_o2(implicit: bool, y3: list[float], z3: list[float]) -> None:
    y, z = oscillators.cornn(**O1, implicit=implicit)
    assert_allclose(y[2], y3, **PRINTED)
    assert_allclose(z[2], z3, **PRINTED)


@pytest.mark.parametrize(
    ("implicit", "y50", "z50", "sum_y"),
    [
        (
            False,
            [2.921808897674817e-01, 1.120162965266847e-01, -2.897189907257623e-02, -2.997532307708151e-01],
            [8.883279025185600e-02, 7.793305833800752e-02, 1.262883356703756e-01, -1.224735869150844e-02],
            3.167801138253870,
        ),
        (
            True,
            [2.909971885179683e-01, 1.113753609179906e-01, -3.203635975050405e-02, -3.004599842415458e-01],
            [9.240894746407964e-02, 7.237576401636141e-02, 1.138347428868911e-01, -2.405398280377508e-02],
            3.130780446442895,
        ),
    ],
)
def test_cornn_o4(implicit: bool, y50: list[float], z50: list[float], sum_y: float) -> None:
    i, j, k = np.arange(4)[:, None], np.arange(4), np.arange(2)
    total = 0.0
    for beta in (0, 1):
        n = np.arange(1, 51)[:, None]
        y, z = oscillators.cornn(
            np.sin(0.3 * n + beta + 2 * k),
            np.sin(3 * i + 5 * j + 1),
            np.cos(2 * i - 3 * j + 2),
            np.sin(7 * i + k + 0.5),
            np.cos(np.arange(4.0)),
            np.full(4, 0.05),
            np.full(4, 2.0),
            np.full(4, 3.0),
            np.zeros(4),
            np.zeros(4),
            implicit=implicit,
        )
        total += y.sum()
        if beta == 0:
            assert_allclose(y[-1], y50, **PRINTED)
            assert_allclose(z[-1], z50, **PRINTED)
    assert_allclose(total, sum_y, **PRINTED)


def test_cornn_b9() -> None:
    joint = det((3, 8), 0.1, 0.5)
    y, z = oscillators.cornn(
        np.array([[0.3, -0.6]]),
        joint[:, 5:],
        joint[:, 2:5],
        joint[:, :2],
        det((3,), 0.2, 0.1),
        np.full(3, 0.1),
        np.ones(3),
        np.full(3, 2.0),
        det((3,), 0.3, 0.4),
        det((3,), 0.4, 0.4),
    )
    assert_allclose(y[0], [0.127050017526826, 0.414546744438276, 0.32013775824929], **PRINTED)
    assert_allclose(z[0], [0.0884193486229032, 0.291234702713987, 0.218556733786019], **PRINTED)


# --- UnICORNN

U1 = {
    "u": np.array([[1.0], [-0.5], [0.25]]),
    "w": np.array([0.6, -0.4]),
    "c": np.array([0.05, -0.1]),
    "V": np.array([[1.0], [-0.5]]),
    "b": np.array([0.1, -0.2]),
    "dt": np.full(2, 0.2),
    "alpha": np.full(2, 1.5),
}


def test_unicornn_u1() -> None:
    y, z = oscillators.unicornn(**U1, y=np.zeros(2), z=np.zeros(2))
    assert_allclose(y[2], [-2.015499369099080e-02, 1.808169046860850e-02], **PRINTED)
    assert_allclose(z[2], [-7.321294844628951e-02, 8.080714606741388e-02], **PRINTED)


def test_unicornn_u3_and_its_way_back() -> None:
    i, k = np.arange(4.0), np.arange(2)
    n = np.arange(1, 501)[:, None]
    given = {
        "u": np.sin(0.3 * n + 2 * k),
        "w": 0.5 + 0.4 * np.sin(i + 1),
        "c": 0.1 * np.cos(2 * i + 1),
        "V": np.sin(7 * i[:, None] + k + 0.5),
        "b": np.cos(i),
        "dt": np.full(4, 0.3),
        "alpha": np.full(4, 2.0),
    }
    y, z = oscillators.unicornn(**given, y=np.zeros(4), z=np.zeros(4))
    # the sheet's own tolerance for 500 steps
    loose = {"rtol": 1e-11, "atol": 1e-15}
    printed_y = [6.796624491670422e-02, -3.208493204373911e-02, 4.899780850081288e-01, -1.426453331911663e-01]
    printed_z = [6.495271470621604e-01, 2.788983573044294e-01, 1.400222543671821e00, -2.741691472876012e-01]
    assert_allclose(y[-1], printed_y, **loose)
    assert_allclose(z[-1], printed_z, **loose)
    for back in oscillators.unicornn_back(**given, y=y[-1], z=z[-1]):
        assert np.abs(back).max() < 1e-13


def test_unicornn_u8_two_layers() -> None:
    def layer(u: Array, V: Array, b: list[float], w: list[float], c: list[float]) -> Array:
        rest = {"dt": np.full(3, 0.3), "alpha": np.full(3, 2.0), "y": np.zeros(3), "z": np.zeros(3)}
        return oscillators.unicornn(u, np.array(w), np.array(c), V, np.array(b), **rest)[0]

    u = np.sin(0.5 * np.arange(1, 11))[:, None]
    first = layer(u, np.array([[0.4], [-0.3], [0.2]]), [0.05, -0.1, 0], [0.2, 0.5, 0.8], [-0.1, 0, 0.1])
    V2 = np.array([[0.3, -0.2, 0.1], [0.5, 0.4, -0.6], [-0.1, 0.2, 0.3]])
    second = layer(first, V2, [0, 0.1, -0.1], [0.1, 0.9, 0.4], [0.05, -0.05, 0.02])
    assert_allclose(first[-1], [-1.265000990895804e-01, 1.296990602542283e-01, -3.210338327943489e-02], **PRINTED)
    assert_allclose(second[-1], [3.545555802760404e-02, -7.443496253474451e-02, 6.437350037455708e-02], **PRINTED)


# --- LinOSS: no sheet; the schemes against the linear solve that they abbreviate


@pytest.mark.parametrize("A", [0.0, 0.7, 3.0])
def test_linoss_is_the_scheme_it_abbreviates(A: float) -> None:
    z, y, dt, Bu, G = 0.3, -0.4, 0.5, 0.8, 0.9
    M, F = oscillators.linoss_matrix(A, dt, "im")
    new_z, new_y = np.linalg.solve([[1, dt * A], [-dt, 1]], [z + dt * Bu, y])
    assert_allclose(M @ [z, y] + F * Bu, [new_z, new_y], **PRINTED)
    M, F = oscillators.linoss_matrix(A, dt, "imex")
    new_z = z + dt * (-A * y + Bu)
    assert_allclose(M @ [z, y] + F * Bu, [new_z, y + dt * new_z], **PRINTED)
    M, F = oscillators.linoss_matrix(A, dt, "imex1", G)
    new_z = (z + dt * (-A * y + Bu)) / (1 + dt * G)
    assert_allclose(M @ [z, y] + F * Bu, [new_z, y + dt * new_z], **PRINTED)


# --- n-t-ODERNN


@pytest.mark.parametrize(
    ("tableau", "z"),
    [
        ("euler", [1, -0.4]),
        ("heun", [0.98, -0.396]),
        ("kutta3", [0.980133333333333, -0.39336]),
        ("rk4", [0.980199333333333, -0.393386533333333]),
    ],
)
def test_odernn_o1_one_step(tableau: str, z: list[float]) -> None:
    def F(Z: Array, x: Array) -> Array:
        return np.array([Z[1], -4 * Z[0] - 0.2 * Z[1]])

    got = rungekutta.step(F, np.array([1.0, 0.0]), lambda c: np.zeros(1), 0.1, tableau)
    assert_allclose(got, z, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("tableau", "error"),
    [
        ("euler", 8.3625e-3),
        ("heun", 2.2875e-5),
        ("midpoint", 2.7146e-5),
        ("kutta3", 7.1241e-8),
        ("ssp33", 4.7898e-8),
        ("rk4", 1.7543e-10),
    ],
)
def test_odernn_o2_order_three(tableau: str, error: float) -> None:
    def f(Z: Array, x: Array) -> Array:
        return -np.tanh(Z[0]) - 0.5 * Z[1] - 0.8 * Z[2] + math.sin(x)

    Z, h = np.array([0.5, -0.2, 0.1]), 2 / 160
    for k in range(160):
        Z = rungekutta.step(rungekutta.companion(f), Z, lambda c, k=k: (k + c) * h, h, tableau)
    reference = np.array([0.371957063371108, 0.267537705408206, 0.512941126871283])
    assert_allclose(np.abs(Z - reference).max(), error, rtol=5e-5)


@pytest.mark.parametrize(
    ("tableau", "z0", "z1"),
    [
        ("euler", [1.16759561330385, 1.50040906851601], [1.06044083724454, 0.947959030041751]),
        ("heun", [1.3162718072379, 1.58207143859016], [0.933075852684829, 0.84557321242802]),
        ("kutta3", [1.30117022023572, 1.5702747306196], [0.930243131824022, 0.848100637602349]),
        ("ssp33", [1.30033935593135, 1.56989419954818], [0.931054414098939, 0.849166122412353]),
        ("rk4", [1.3005037443405, 1.57055886452586], [0.931629156540581, 0.849159525212862]),
        ("semi-implicit", [1.48325618288746, 1.70133510927493], [0.979475370378545, 0.908075494466174]),
    ],
)
def test_odernn_o4_cell(tableau: str, z0: list[float], z1: list[float]) -> None:
    W = np.array([det((2, 2), 0.1, 0.8), det((2, 2), 0.2, 0.8)])
    f = rungekutta.elementary(W, det((2, 1), 0.3, 0.5), det((2,), 0.4, 0.2), np.array([[0.5] * 2, [0.2] * 2]))
    Z = rungekutta.odernn(det((3, 1), 0.5, 1), f, np.array([det((2,), 0.6, 0.5), det((2,), 0.7, 0.5)]), 0.5, tableau)
    assert_allclose(Z[-1], [z0, z1], rtol=1e-13)


def test_odernn_o8_memory_is_order() -> None:
    h, y = 0.25, [0.3, -0.2, 0.5]
    for k in range(18):
        y.append(math.tanh(0.9 * y[k + 2] - 0.5 * y[k + 1] + 0.3 * y[k]) + 0.1)

    def f(Z: Array, x: Array) -> Array:
        y0, y1 = Z[0], Z[0] + h * Z[1]
        y2 = Z[0] + 2 * h * Z[1] + h * h * Z[2]
        g = np.tanh(0.9 * y2 - 0.5 * y1 + 0.3 * y0) + 0.1
        return np.asarray((g - y0 + 3 * y1 - 3 * y2) / h**3)

    Z = np.array([[y[0]], [(y[1] - y[0]) / h], [(y[2] - 2 * y[1] + y[0]) / h**2]])
    out = rungekutta.odernn(np.zeros((20, 1)), f, Z, h, "euler")
    assert_allclose(out[:, 0, 0], y[1:], rtol=0, atol=1e-14)
    assert_allclose(out[19, 0, 0], 0.321465016828846, rtol=1e-13)


# --- unitary

THETA = det((3, 8), 0.1, 3)
AXES = np.array([detc((8,), 0.2, 0.3, 1), detc((8,), 0.4, 0.5, 1)])
PERM = [(5 * j + 3) % 8 for j in range(8)]


def urnn(h: Array) -> Array:
    return unitary.urnn_product(h, THETA, AXES, PERM)


def test_urnn_u1_u2() -> None:
    W = unitary.dense(urnn, 8)
    assert np.abs(W.conj().T @ W - np.eye(8)).max() < 1e-14
    # the sheet prints 0.120951206414009 for the real part: one digit is wrong, as U2 and the determinant show
    assert_allclose(np.trace(W), 0.120951406414009 - 1.0427116130979832j, rtol=1e-13)
    assert_allclose(np.linalg.det(W), 0.929085361714819 - 0.369865368272352j, rtol=1e-13)
    # the sheet prints -0.215765617494597: five digits are wrong, by 3.5e-11
    assert_allclose(W[0, 0], -0.215765617459926 + 0.169768650665670j, rtol=1e-13)
    assert_allclose(W[1, 2], -0.156184380353368 + 0.337852979431702j, rtol=1e-13)
    Wh = urnn(detc((8,), 0.6, 0.7, 0.5))
    assert_allclose(Wh[0], -0.750359960881578 + 0.386704315537024j, rtol=1e-13)
    assert_allclose(Wh[7], -0.366027929650945 - 0.561816589215051j, rtol=1e-13)
    assert_allclose(np.linalg.norm(Wh), 1.45813723949534, rtol=1e-14)


def test_urnn_u4_modrelu() -> None:
    z, b = [3 + 4j, -0.3 + 0.4j, 0, 0.001], [-1, -0.6, 0.2, 0.5]
    exact = [unitary.modrelu(complex(v), c) for v, c in zip(z, b, strict=True)]
    assert_allclose(exact, [2.4 + 3.2j, 0, 0, 0.501], rtol=1e-14)
    code = [unitary.modrelu_divisor(complex(v), c, 1e-5) for v, c in zip(z, b, strict=True)]
    assert_allclose(code, [2.3999952000096 + 3.1999936000128j, 0, 0, 0.496039603960396], rtol=1e-13)


def test_urnn_u7_cell() -> None:
    V, b = detc((8, 2), 0.8, 0.9, 0.3), det((8,), 1.1, 0.05)
    h = unitary.complex_cell(det((5, 2), 1.2, 1), urnn, V, b, detc((8,), 0.6, 0.7, 0.5), unitary.modrelu)
    norms = [2.01668725713712, 2.33330468481537, 2.53497201877455, 3.48549727638019, 3.60434046650691]
    assert_allclose(np.linalg.norm(h, axis=1), norms, rtol=1e-13)
    assert_allclose(h[4, 0], -0.326249301388219 - 0.796848564174789j, rtol=1e-13)
    assert_allclose(h[4, 7], -0.691728925764907 - 0.357250347925599j, rtol=1e-13)
    o = det((3, 16), 1.3, 0.3) @ np.concatenate([h[4].real, h[4].imag]) + det((3,), 1.4, 0.1)
    assert_allclose(o, [-0.19270505227099, 0.0956418667640612, 0.21188397791513], rtol=1e-12)


def test_eurnn_b3() -> None:
    given = {
        "pairs": unitary.tunable_pairs(4, 2),
        "theta": [[0.3, -0.7], [1.1]],
        "phi": [[0.5, 0.2], [-0.4]],
        "omega": [0.1, 0.2, -0.3, 0.4],
    }
    got = unitary.eurnn_product(np.array([0.1, -0.2, 0.3, 0.4], dtype=np.complex128), **given)
    printed = [
        0.143837048888821 + 0.0429101026611736j,
        -0.483215722004864 - 0.0125436924867035j,
        0.040455243237627 - 0.164700130164732j,
        0.0744914637721064 + 0.0974838985990687j,
    ]
    assert_allclose(got, printed, **PRINTED)
    W = unitary.dense(lambda h: unitary.eurnn_product(h, **given), 4)
    assert np.abs(W.conj().T @ W - np.eye(4)).max() < 1e-15


def test_exprnn_b1() -> None:
    W = unitary.exp_skew(unitary.skew(det((4, 4), 0.2, 1)))
    row = [0.330510808853639, 0.76007127417987, 0.558548203959027, -0.0328354572322092]
    assert_allclose(W[0], row, rtol=1e-13)
    h = unitary.orthogonal_cell(
        np.array([[0.7]]), W, det((1, 4), 0.4, 0.5).T, det((4,), 0.5, 0.05), det((4,), 0.3, 0.5)
    )
    printed = [-0.40934279719731, 0.72889426596425, 0.38669872207132, -0.0414282782710302]
    assert_allclose(h[0], printed, **PRINTED)


def test_scornn_b2() -> None:
    W = unitary.cayley(unitary.skew(det((4, 4), 0.2, 1)), np.array([1, 1, 1, -1.0]))
    row = [-0.204071327059904, -0.716239678599549, -0.666295072989374, 0.0375032262840099]
    assert_allclose(W[0], row, rtol=1e-13)
    assert_allclose(np.linalg.det(W), -1, rtol=1e-14)


def polar(M: Array) -> Array:
    U, _, Vh = np.linalg.svd(M)
    return np.asarray(U @ Vh)


def test_spectral_f1_f2_f11() -> None:
    U = polar(2 * np.eye(4) + det((4, 4), 0.1, 1))
    V = polar(2 * np.eye(4) + det((4, 4), 0.7, 1))
    s = unitary.spectrum(np.array([-1, 0, 0.5, 3]), 0.3)
    assert_allclose(s, [0.861364852821997, 1, 1.07347559872111, 1.27154447609346], rtol=1e-14)
    row = [0.832757870599495, -0.0189849774407834, -0.103296721260988, 0.314398186785627]
    assert_allclose((U * s @ V.T)[0], row, rtol=1e-12)
    h = unitary.spectral_cell(
        det((6, 2), 1.3, 1), U, s, V, det((4, 2), 1.1, 0.3), det((4,), 1.2, 0.1), np.zeros(4), math.tanh
    )
    printed = [-0.260358700139883, 0.474816298900543, 0.738775991286953, -0.748525054966896]
    assert_allclose(h[-1], printed, rtol=1e-12)


# --- QUNN

QUBITS = (det((3,), 0.3, 1), det((3,), 1.3, 0.7), det((2,), 2.3, 0.9))


def test_qunn_o12() -> None:
    _, b, J = QUBITS
    printed_E = [
        1.61522595864559,
        2.12001217990398,
        -0.487088470862068,
        -0.550186748519367,
        -1.07602488285658,
        -0.571238661598182,
        -0.493800548528041,
        -0.55689882618534,
    ]
    assert_allclose(quantum.energies(b, J), printed_E, rtol=1e-13)
    spectrum = [
        -2.4920966764451,
        -1.55609308621892,
        -1.00293250287082,
        -0.436144070582949,
        -0.057391293063601,
        1.04172589818235,
        1.47636658404277,
        3.02656514695628,
    ]
    assert_allclose(np.linalg.eigvalsh(quantum.hamiltonian(*QUBITS)), spectrum, rtol=1e-12)
    psi = np.arange(1, 9) / math.sqrt(204)
    exact = quantum.exact(*QUBITS, 0.5) @ psi
    assert_allclose(exact[0], -0.117183645124272 - 0.155958948519054j, rtol=1e-13)
    assert_allclose(exact[7], 0.466931837174707 - 0.251066589309405j, rtol=1e-13)
    split = quantum.strang(*QUBITS, 0.5, 1) @ psi
    assert_allclose(split[0], -0.117779895328567 - 0.156644658548966j, rtol=1e-13)
    assert_allclose(split[7], 0.468380758418753 - 0.251101190013453j, rtol=1e-13)
    errors = [
        np.linalg.norm(quantum.strang(*QUBITS, 0.5, L) - quantum.exact(*QUBITS, 0.5), 2) for L in (1, 2, 4, 8, 16)
    ]
    assert_allclose(errors, [7.198793e-2, 1.716207e-2, 4.240346e-3, 1.056982e-3, 2.640519e-4], rtol=5e-7)


def test_qunn_o14() -> None:
    U = [
        quantum.exact(det((2,), a, 1), det((2,), b, 1), det((1,), J, 1), 0.5)
        for a, b, J in [(0.1, 0.3, 0.5), (0.2, 0.4, 0.6)]
    ]
    w = quantum.softmax(np.array([0, math.log(3)]))
    assert_allclose(w, [0.25, 0.75], rtol=1e-15)
    psi = quantum.lag_form(det((6, 4), 0.7, 0.2).astype(complex), U, w, -0.05, np.zeros((2, 4), dtype=complex))
    printed = [
        0.119558766974459 - 0.000548840127601829j,
        0.0447645508094793 + 0.0225915000652124j,
        -0.00861332204398476 - 0.00330066768879211j,
        -0.120257665810546 - 0.0194471163800582j,
    ]
    assert_allclose(psi[-1], printed, rtol=1e-12)
    assert_allclose(np.linalg.norm(psi[-1]), 0.178140453339031, rtol=1e-13)


# --- gated and the rest

X2 = np.array([[0.3, -0.6]])
H3 = det((3,), 0.4, 0.5)


def test_lstm_o6() -> None:
    h, c = gated.lstm(
        det((4, 2), 0.5, 1),
        det((12, 2), 0.1, 0.5),
        det((12, 3), 0.2, 0.5),
        det((12,), 0.3, 0.5),
        det((12,), 0.4, 0.5),
        det((3,), 0.6, 0.3),
        det((3,), 0.7, 0.3),
    )
    assert_allclose(h[0], [0.150421046066259, 0.282010732788345, 0.0391986231108319], **PRINTED)
    assert_allclose(h[3], [0.157705921210368, 0.253003507171827, 0.0811528424166648], **PRINTED)
    assert_allclose(c[3], [0.319326815117068, 0.67073864967998, 0.438758916489843], **PRINTED)


def test_gru_o7() -> None:
    h = gated.gru(
        det((4, 2), 0.5, 1),
        det((9, 2), 1.1, 0.5),
        det((9, 3), 1.2, 0.5),
        det((9,), 1.3, 0.5),
        det((9,), 1.4, 0.5),
        det((3,), 0.6, 0.3),
    )
    assert_allclose(h[3], [0.768765308039917, 0.387192807476781, -0.0393531361529417], **PRINTED)


def test_lem_b8() -> None:
    inp, inp_b = det((12, 2), 0.1, 0.5), det((12,), 0.2, 0.1)
    hid, hid_b = det((9, 3), 0.3, 0.5), det((9,), 0.4, 0.1)
    # the input blocks are Dbar, D, W_z (of the y update), W_y (of the z update), in the symbols of sheet 1.8
    W = (inp[0:3], inp[3:6], inp[6:9], inp[9:12])
    V = (hid[0:3], hid[3:6], det((3, 3), 0.5, 0.5), hid[6:9])
    b = (
        inp_b[0:3] + hid_b[0:3],
        inp_b[3:6] + hid_b[3:6],
        inp_b[6:9] + det((3,), 0.6, 0.1),
        inp_b[9:12] + hid_b[6:9],
    )
    y, z = gated.lem(np.array([[0.3, -0.6], [0.6, -1.2]]), 0.5, W, V, b, det((3,), 0.7, 0.4), det((3,), 0.8, 0.4))
    assert_allclose(y[1], [0.109199134245767, 0.193642898542199, 0.411161580187829], **PRINTED)
    assert_allclose(z[1], [0.162272409968815, 0.116380985861064, 0.252981295763775], **PRINTED)


def test_lmu_b7() -> None:
    Abar, Bbar = gated.legendre_memory(4, 10.0)
    row = [0.894224525037847, -0.0836586927316288, -0.0795761510967512, -0.039790353994765]
    assert_allclose(Abar[0], row, rtol=1e-12)
    printed_B = [0.105775474962153, -0.250976078194886, 0.397880755483756, -0.278532477963355]
    assert_allclose(Bbar, printed_B, rtol=1e-12)
    assert_allclose(np.abs(np.linalg.eigvals(Abar)).max(), 0.725219660738945, rtol=1e-12)
    none = {"e_h": np.zeros(1), "e_m": np.zeros(4), "W_x": np.zeros((1, 1)), "W_h": np.zeros((1, 1))}
    _, m = gated.lmu(
        np.sin(np.arange(1.0, 6))[:, None],
        Abar,
        Bbar,
        e_x=np.ones(1),
        W_m=np.zeros((1, 4)),
        h=np.zeros(1),
        m=np.zeros(4),
        **none,
    )
    printed = [0.0195388146330997, 0.279172581485004, -0.894565471006181, 0.308347202818493]
    assert_allclose(m[4], printed, rtol=1e-12)


def test_antisymmetric_b5() -> None:
    given = (X2, det((3, 3), 0.1, 0.7), det((3, 2), 0.2, 0.5), det((3,), 0.3, 0.1), 0.1, 0.01, H3)
    plain = gated.antisymmetric(*given)
    assert_allclose(plain[0], [0.225476621356681, 0.465731086169101, 0.393795170512279], **PRINTED)
    both = gated.antisymmetric(*given, gate=(det((3, 2), 0.6, 0.5), det((3,), 0.7, 0.1)))
    assert_allclose(both[0], [0.213036600759264, 0.480591163552175, 0.372733577995291], **PRINTED)


def test_lipschitz_b5b() -> None:
    h = gated.lipschitz(
        X2,
        det((3, 3), 0.1, 0.3),
        det((3, 3), 0.2, 0.3),
        det((3, 2), 0.5, 0.5),
        det((3,), 0.6, 0.1),
        0.03,
        0.75,
        0.001,
        H3,
    )
    assert_allclose(h[0], [0.182610070470908, 0.507732941356919, 0.335874956890159], **PRINTED)


def test_fast_b6() -> None:
    W, U, one = det((2, 3), 0.1, 0.5).T, det((3, 3), 0.2, 0.5).T, np.ones(3)
    plain = gated.fastrnn(X2, W, U, one, -3.0, 3.0, H3)
    assert_allclose(plain[0], [0.22146267202902, 0.511233779895264, 0.36397461166474], **PRINTED)
    both = gated.fastgrnn(X2, W, U, one, one, 1.0, -4.0, H3)
    assert_allclose(both[0], [0.305651182437469, 0.539094853633712, 0.414473509649922], **PRINTED)
