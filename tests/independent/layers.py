"""From the parameters of a layer to the independent loops: names and shapes only, no mathematics.

A loop takes the cell's tensors by name, its physics, one sequence x (T, I), the state before (one array per tensor of
the state; None: the network's own start) and tau (T,), the factors on the time step. It gives outputs (T, O) and the
final state, flattened as the layer's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.independent import gated, oscillators, quantum, rungekutta, unitary

Array = NDArray[Any]
Numbers = dict[str, Array]
Physics = dict[str, Any]
State = tuple[Array, ...]
Loop = Callable[[Numbers, Physics, Array, State | None, Array], tuple[Array, State]]


def per_unit(p: Numbers, name: str, units: int) -> Array:
    value = np.exp(p[f"log_{name}"]) if f"log_{name}" in p else p[name]
    return np.broadcast_to(value, (units,))


def bias(p: Numbers, name: str, units: int) -> Array:
    return p.get(name, np.zeros(units))


def at_rest(state: State | None, *widths: int) -> State:
    return tuple(np.zeros(w) for w in widths) if state is None else state


def over_time(
    advance: Callable[[Array, State, float], State], x: Array, state: State, tau: Array
) -> tuple[list[State], State]:
    """Step by step, where each step has a length of its own."""
    seen = []
    for x_t, factor in zip(x, tau, strict=True):
        state = advance(x_t[None], state, float(factor))
        seen.append(state)
    return seen, state


def first(seen: list[State]) -> Array:
    return np.array([state[0] for state in seen])


# --- oscillators


def cornn(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    m = len(p["W"])
    dt, gamma, epsilon = (per_unit(p, name, m) for name in ("dt", "gamma", "epsilon"))

    def advance(u: Array, s: State, factor: float) -> State:
        weights = (p["W"], p["W_z"], p["V"], bias(p, "b", m), factor * dt, gamma, epsilon)
        y, z = oscillators.cornn(u, *weights, *s, implicit=k["variant"] == "implicit")
        return y[-1], z[-1]

    seen, final = over_time(advance, x, at_rest(state, m, m), tau)
    return first(seen), final


def unicornn(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    m = len(p["w"])
    dt, alpha = per_unit(p, "dt", m), np.broadcast_to(p["alpha"], (m,))

    def advance(u: Array, s: State, factor: float) -> State:
        y, z = oscillators.unicornn(u, p["w"], p["c"], p["V"], bias(p, "b", m), factor * dt, alpha, *s)
        return y[-1], z[-1]

    seen, final = over_time(advance, x, at_rest(state, m, m), tau)
    return first(seen), final


def linoss(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    n, width = len(p["D"]), len(p["A"])
    dt, G = per_unit(p, "dt", width), p.get("G", np.zeros(width))
    encode = "encoder.weight" in p
    e = np.array([p["encoder.weight"] @ v + bias(p, "encoder.bias", n) for v in x]) if encode else x
    u = np.array([oscillators.layernorm(v, np.ones(n), np.zeros(n)) for v in e])

    def advance(u_n: Array, s: State, factor: float) -> State:
        zy = oscillators.linoss(u_n, p["A"], p["B"], factor * dt, k["discretisation"], *s, G)
        return zy[-1, :, 0], zy[-1, :, 1]

    seen, final = over_time(advance, u, at_rest(state, width, width), tau)
    W, b = p["gate.weight"], bias(p, "gate.bias", 2 * n)
    outputs = []
    for e_n, u_n, (_, y) in zip(e, u, seen, strict=True):
        v = np.array([oscillators.gelu(a) for a in p["C"] @ y + p["D"] * u_n])
        outputs.append(e_n + oscillators.glu(v, W[:n], b[:n], W[n:], b[n:]))
    return np.array(outputs), final


def odernn(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    t, n = p["W"].shape[:2]
    gamma = np.exp(p["log_gamma"]) if "log_gamma" in p else p["gamma"]
    f = rungekutta.elementary(p["W"], p["U"], bias(p, "b", n), np.broadcast_to(gamma.reshape(t, -1), (t, n)))
    dt = per_unit(p, "dt", n)
    assert dt.min() == dt.max()
    Z = np.zeros((t, n)) if state is None else state[0].reshape(t, n)
    outputs = []
    for i in range(len(x)):
        window = x[max(i - 1, 0) : i + 1]
        if k["input"] == "linear" and len(window) == 2:
            old, new = window
            Z = rungekutta.step(
                rungekutta.companion(f), Z, lambda c, a=old, b=new: a + c * (b - a), float(dt[0] * tau[i]), k["tableau"]
            )
        else:
            Z = rungekutta.odernn(x[i : i + 1], f, Z, float(dt[0] * tau[i]), k["tableau"], k["input"])[-1]
        outputs.append(Z[0])
    kept = [p["U"] @ x[-1] + bias(p, "b", n)] if k["input"] == "linear" else []
    return np.array(outputs), (np.concatenate([Z.reshape(-1), *kept]),)


# --- unitary and orthogonal


def complex_of(pairs: Array) -> Array:
    re, im = np.split(pairs, 2, -1)
    return np.asarray(re + 1j * im)


def upper(numbers: Array, n: int) -> Array:
    """Numbers above the diagonal, row by row, as the upper triangle of a matrix."""
    P, rest = np.zeros((n, n)), iter(numbers)
    for i in range(n):
        for j in range(i + 1, n):
            P[i, j] = next(rest)
    return P


def rotation_layers(p: Numbers, k: Physics, n: int) -> tuple[Any, Any, Any]:
    pairs = unitary.fft_pairs(n) if k["pairing"] == "fft" else unitary.tunable_pairs(n, k["capacity"] or 2)
    cuts = np.cumsum([len(layer) for layer in pairs])[:-1]
    theta = np.split(p["W.theta"], cuts)
    phi = np.split(p["W.phi"], cuts) if "W.phi" in p else [np.zeros_like(t) for t in theta]
    return pairs, theta, phi


def unitary_product(p: Numbers, k: Physics) -> Callable[[Array], Array]:
    """h -> W h of the complex networks."""
    if "W.perm" in p:
        return lambda h: unitary.urnn_product(h, p["W.theta"], complex_of(p["W.v"]), [int(i) for i in p["W.perm"]])
    if "W.W" in p:
        W = complex_of(p["W.W"]) if p["W.W"].ndim == 2 else p["W.W"][0] + 1j * p["W.W"][1]
        return lambda h: np.asarray(W @ h)
    pairs, theta, phi = rotation_layers(p, k, len(p["W.omega"]))
    return lambda h: unitary.eurnn_product(h, pairs, theta, phi, p["W.omega"])


def complex_network(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    n, eurnn = len(p["V"]) // 2, "pairing" in k
    V = p["V"][:n] + 1j * p["V"][n:]
    b = bias(p, "b", n)
    if k.get("contracting"):
        b = -np.abs(b)
    if state is not None:
        h = state[0] + 1j * state[1]
    else:
        h = complex_of(p["h_0"]) if "h_0" in p else np.zeros(n, dtype=np.complex128)

    def act(z: complex, b_j: float) -> complex:
        if eurnn:
            return unitary.modrelu_offset(z, b_j, k["eps"])
        return unitary.modrelu_divisor(z, b_j, k["eps"]) if k["eps"] else unitary.modrelu(z, b_j)

    out = unitary.complex_cell(x, unitary_product(p, k), V, b, h, act)
    shown = out.real if eurnn else np.concatenate([out.real, out.imag], 1)
    return shown, (out[-1].real, out[-1].imag)


def orthogonal_matrix(p: Numbers, k: Physics) -> Array:
    """W as it acts on rows, h W."""
    n = len(p["V"])
    if "W.B" in p:
        return np.asarray(p["W.B"] @ unitary.exp_skew(unitary.skew(upper(p["W.A"], n))))
    if "W.D" in p:
        return unitary.cayley(unitary.skew(upper(p["W.A"], n)), p["W.D"])
    pairs, theta, phi = rotation_layers(p, k, n)
    # W h for a column h is h W^T for a row
    return unitary.dense(lambda h: unitary.eurnn_product(h, pairs, theta, phi, None), n).real.T


def orthogonal_network(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    n, W = len(p["V"]), orthogonal_matrix(p, k)
    (h,) = at_rest(state, n)
    if "pairing" not in k:
        out = unitary.orthogonal_cell(x, W, p["V"], bias(p, "b", n), h)
        return out, (out[-1],)
    out = unitary.complex_cell(
        x,
        lambda h: np.asarray(W.T @ h),
        p["V"].astype(np.complex128),
        bias(p, "b", n),
        h.astype(np.complex128),
        lambda z, b: unitary.modrelu_offset(z, b, k["eps"]),
    ).real
    return out, (out[-1],)


def spectral(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    n = len(p["U"])
    if "free_s" in p:
        s = np.maximum(p["free_s"], 0)
    else:
        s = unitary.spectrum(p["p"], k["margin"]) if "p" in p else np.ones(n)
    h = p["h_0"] if state is None else state[0]
    phi = math.tanh if k["activation"] == "tanh" else float
    out = unitary.spectral_cell(x, p["U"], s, p["V"], p["W_in"], bias(p, "b", n), h, phi)
    return out, (out[-1],)


# --- QUNN


def qubit_unitaries(p: Numbers, k: Physics, sites: int) -> list[Array]:
    count = len(p["a"])
    a, b = (np.broadcast_to(p[name], (count, sites)) for name in ("a", "b"))
    J = np.broadcast_to(p["J"], (count, sites - 1))
    if k["flow"] == "exact":
        return [quantum.exact(*one, k["eta"]) for one in zip(a, b, J, strict=True)]
    return [quantum.strang(*one, k["eta"], k["trotter_steps"]) for one in zip(a, b, J, strict=True)]


def encoded(p: Numbers, x: Array, size: int) -> Array:
    if "V" in p:
        return x @ (p["V"][0] + 1j * p["V"][1]).T
    v = np.zeros((len(x), size), dtype=np.complex128)
    v[:, : x.shape[1]] = x
    return v


def shown_amplitudes(psi: Array, k: Physics, qubits: int) -> Array:
    if k["readout"] == "amplitudes":
        return np.concatenate([psi.real, psi.imag], 1)
    return np.array([quantum.expectations(one)[:qubits] for one in psi])


def qunn(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    lags, size = k["lags"], k["size"]
    q = size.bit_length() - 1
    start = np.full(lags * size, size**-0.5) + 0j if state is None else state[0] + 1j * state[1]
    window = start.reshape(lags, size)
    beta = float(p["beta"][0]) if "beta" in p else 0.0
    psi = quantum.lag_form(encoded(p, x, size), qubit_unitaries(p, k, q), quantum.softmax(p["omega"]), beta, window)
    final = np.concatenate([*psi[::-1][:lags], *window[: max(0, lags - len(psi))]])
    return shown_amplitudes(psi, k, q), (final.real, final.imag)


def qunn_register(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    q, m = k["size"].bit_length() - 1, k["memory_qubits"]
    total = 2 ** (q + m)
    start = np.full(total, total**-0.5) + 0j if state is None else state[0] + 1j * state[1]
    v = np.zeros((len(x), total), dtype=np.complex128)
    # data qubits lead: the memory is 0...0 at every 2^m-th amplitude
    v[:, :: 2**m] = encoded(p, x, k["size"])
    beta = float(p["beta"][0]) if "beta" in p else 0.0
    psi = quantum.lag_form(v, qubit_unitaries(p, k, q + m), np.ones(1), beta, start[None])
    return shown_amplitudes(psi, k, q), (psi[-1].real, psi[-1].imag)


# --- gated and plain networks


def lstm(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    W, U = p["rnn.weight_ih_l0"], p["rnn.weight_hh_l0"]
    n = U.shape[1]
    b = [bias(p, f"rnn.bias_{kind}_l0", 4 * n) for kind in ("ih", "hh")]
    h, c = gated.lstm(x, W, U, *b, *at_rest(state, n, n))
    return h, (h[-1], c[-1])


def gru(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    W, U = p["rnn.weight_ih_l0"], p["rnn.weight_hh_l0"]
    n = U.shape[1]
    b = [bias(p, f"rnn.bias_{kind}_l0", 3 * n) for kind in ("ih", "hh")]
    h = gated.gru(x, W, U, *b, *at_rest(state, n))
    return h, (h[-1],)


def lem(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    n = len(p["W_y"])
    dt = per_unit(p, "dt", n)
    assert dt.min() == dt.max()
    # the cell stacks 1, 2, z, y, where its 1 is the gate of z (the sheet's 2) and its y the update of y (the sheet's z)
    W, V = np.split(p["W"], 3), np.split(p["V"], 4)
    b = np.split(bias(p, "b", 4 * n) + bias(p, "c", 4 * n), 4)

    def advance(u: Array, s: State, factor: float) -> State:
        y, z = gated.lem(
            u,
            factor * float(dt[0]),
            (V[1], V[0], V[3], V[2]),
            (W[1], W[0], p["W_y"], W[2]),
            (b[1], b[0], b[3], b[2]),
            *s,
        )
        return y[-1], z[-1]

    seen, final = over_time(advance, x, at_rest(state, n, n), tau)
    return first(seen), final


def lmu(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    n, q = p["W_m"].shape
    memory = gated.legendre_memory(q, k["theta"])
    encoders = (p["e_x"][0], p["e_h"][0], p["e_m"][0])
    h, m = gated.lmu(x, *memory, *encoders, p["W_x"], p["W_h"], p["W_m"], *at_rest(state, n, q), bias(p, "b", n))
    return h, (h[-1], m[-1])


def antisymmetric(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    n = len(p["V"])
    dt = per_unit(p, "dt", n)
    assert dt.min() == dt.max()
    gate = (p["V_z"], bias(p, "b_z", n)) if k["gated"] else None

    def advance(u: Array, s: State, factor: float) -> State:
        weights = (upper(p["upper"], n), p["V"], bias(p, "b", n))
        return (gated.antisymmetric(u, *weights, factor * float(dt[0]), float(p["gamma"]), *s, gate=gate)[-1],)

    seen, final = over_time(advance, x, at_rest(state, n), tau)
    return first(seen), final


def lipschitz(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    n = len(p["B"])
    dt = per_unit(p, "dt", n)
    assert dt.min() == dt.max()

    def advance(u: Array, s: State, factor: float) -> State:
        weights = (p["B"], p["C"], p["E"], bias(p, "e", n))
        return (gated.lipschitz(u, *weights, factor * float(dt[0]), float(p["beta"]), float(p["gamma"]), *s)[-1],)

    seen, final = over_time(advance, x, at_rest(state, n), tau)
    return first(seen), final


def plain(phi: Callable[[float], float]) -> Loop:
    def loop(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
        n = len(p["W"])
        h = gated.elman(x, p["W"], p["V"], bias(p, "b", n), *at_rest(state, n), phi=phi)
        return h, (h[-1],)

    return loop


def low_rank(p: Numbers, name: str) -> Array:
    return p[name] if name in p else np.asarray(p[f"{name}_1"] @ p[f"{name}_2"].T)


def fastrnn(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    W, U = low_rank(p, "W"), low_rank(p, "U")
    phi = {"tanh": math.tanh, "relu": gated.relu}[k["nonlinearity"]]
    scalars = (float(p["alpha"]), float(p["beta"]))
    h = gated.fastrnn(x, W, U, bias(p, "b", len(U)), *scalars, *at_rest(state, len(U)), phi=phi)
    return h, (h[-1],)


def fastgrnn(p: Numbers, k: Physics, x: Array, state: State | None, tau: Array) -> tuple[Array, State]:
    W, U = low_rank(p, "W"), low_rank(p, "U")
    biases, scalars = (bias(p, b, len(U)) for b in ("b_z", "b_h")), (float(p["zeta"]), float(p["nu"]))
    h = gated.fastgrnn(x, W, U, *biases, *scalars, *at_rest(state, len(U)))
    return h, (h[-1],)


LOOPS: dict[str, Loop] = {
    "AntisymmetricRNN": antisymmetric,
    "CoRNN": cornn,
    "DLinOSS": linoss,
    "EURNN": complex_network,
    "Elman": plain(math.tanh),
    "ExpRNN": orthogonal_network,
    "FastGRNN": fastgrnn,
    "FastRNN": fastrnn,
    "FullCapacityURNN": complex_network,
    "GRU": gru,
    "IRNN": plain(gated.relu),
    "LEM": lem,
    "LMU": lmu,
    "LSTM": lstm,
    "LinOSS": linoss,
    "LipschitzRNN": lipschitz,
    "ODERNN": odernn,
    "QUNN": qunn,
    "QUNNRegister": qunn_register,
    "RealEURNN": orthogonal_network,
    "ScoRNN": orthogonal_network,
    "SpectralRNN": spectral,
    "URNN": complex_network,
    "UnICORNN": unicornn,
}
"""Network -> its independent loop; `tests/test_conformance.py` checks that none is missing."""
