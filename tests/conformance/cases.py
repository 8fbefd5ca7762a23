"""The rows of the conformance page: every network, in each of its main variants."""

from __future__ import annotations

from typing import Any

import torch

from tests.conformance.invariants import (
    count,
    energy_of_cornn,
    gain_of_antisymmetric,
    kernel_of_unicornn,
    margin,
    memory_is_stable,
    moduli,
    norm_is_kept,
    of_operator,
    round_trip,
    states_of_lem,
    volume_is_kept,
    volume_of_cornn,
)
from tests.conformance.row import Case, Check

CORNN = {"dt": 0.1, "gamma": 1.5, "epsilon": 2.0}
ANTISYMMETRIC = {"dt": 0.3, "gamma": 0.1}
# where steps of half and of one and a half times the length need no clamp in any of the schemes
RING = {"r_min": 0.8, "r_max": 0.82, "theta_min": 0.3, "theta_max": 0.6}
GAMMAS = {1: [[0.3]], 2: [[1.0, 0.2]], 3: [[1.0, 3.0, 3.0]]}
ORDERS = {"euler": 1, "heun": 2, "midpoint": 2, "ssp33": 3, "kutta3": 3, "rk4": 4, "semi-implicit": 1}


def keeps_norm(network: str, **physics: Any) -> Check:
    case = Case(network, "", "", physics, kept=("W.W", "U", "V"))
    return norm_is_kept(lambda: case.layer(bias=False))


def odernn(tableau: str, t: int, **more: Any) -> Case:
    words = f"{tableau}, t = {t}" + "".join(f", {k} {v}" for k, v in more.items())
    physics = {"tableau": tableau, "order": t, "gamma": GAMMAS[t], "dt": 0.2, **more}
    return Case("ODERNN", words, "odernn.md 2", physics, expected=ORDERS[tableau])


CASES: tuple[Case, ...] = (
    Case(
        "CoRNN",
        "explicit",
        "cornn.md 1.2",
        CORNN,
        expected=1,
        invariants=(volume_of_cornn, energy_of_cornn),
        recorded=(
            count(134_154, "sMNIST, 256 units", "cornn.md 5.1", 1, 10, "CoRNN", 256),
            count(46_474, "noisy CIFAR-10, 128 units", "cornn.md 5.1", 96, 10, "CoRNN", 128),
        ),
    ),
    Case(
        "CoRNN",
        "implicit",
        "cornn.md 1.2",
        {**CORNN, "variant": "implicit"},
        expected=1,
        invariants=(volume_of_cornn, energy_of_cornn),
    ),
    Case(
        "CoRNN",
        "explicit, one dt, gamma, epsilon per unit, learned",
        "cornn.md 2",
        {
            "dt": torch.tensor([0.1, 0.2, 0.05, 0.15]),
            "gamma": torch.tensor([1.0, 2.0, 0.5, 0.1]),
            "epsilon": torch.tensor([2.0, 1.0, 3.0, 1.5]),
            "learnable": [["dt", "gamma", "epsilon"]],
        },
        kept=("log_dt", "log_gamma", "log_epsilon"),
        expected=1,
        invariants=(volume_of_cornn,),
    ),
    Case("CoRNN", "explicit, no bias", "cornn.md 1.2", CORNN, bias=False),
    Case(
        "UnICORNN",
        "symplectic Euler",
        "unicornn.md 1.2",
        {"dt": 0.3, "alpha": 1.5},
        expected=1,
        invariants=(volume_is_kept, round_trip),
        recorded=(
            kernel_of_unicornn,
            count(136_202, "psMNIST, 3 x 256 units", "unicornn.md 5.1", 1, 10, "UnICORNN", 256, num_layers=3),
            count(1_573, "EigenWorms, 2 x 32 units", "unicornn.md 5.1", 6, 5, "UnICORNN", 32, num_layers=2),
        ),
    ),
    Case("UnICORNN", "alpha = 0", "unicornn.md 1.2", {"dt": 0.3, "alpha": 0.0}, expected=1, invariants=(round_trip,)),
    Case(
        "LinOSS",
        "im",
        "the paper's scheme",
        {"discretisation": "im"},
        kept=("A",),
        expected=1,
        invariants=(moduli(lambda A, G, h: (1 + h * h * A) ** -0.5),),
    ),
    Case(
        "LinOSS",
        "imex",
        "the paper's scheme",
        {"discretisation": "imex"},
        kept=("A",),
        expected=1,
        invariants=(moduli(lambda A, G, h: torch.ones_like(A)),),
    ),
    *(
        Case(
            "DLinOSS",
            scheme,
            "the paper's scheme" if scheme == "imex1" else "the authors' other schemes",
            {"discretisation": scheme, **RING},
            kept=("A", "G", "log_dt"),
            expected=1,
            invariants=(moduli(formula),),
        )
        for scheme, formula in (
            ("imex1", lambda A, G, h: (1 + h * G) ** -0.5),
            ("imex2", lambda A, G, h: (1 - h * G) ** 0.5),
            ("im", lambda A, G, h: (1 + h * G + h * h * A) ** -0.5),
            ("ex", lambda A, G, h: (1 - h * G + h * h * A) ** 0.5),
        )
    ),
    odernn("euler", 1),
    odernn("heun", 1),
    odernn("rk4", 1),
    odernn("euler", 2),
    odernn("heun", 2),
    odernn("midpoint", 2),
    odernn("ssp33", 2),
    odernn("kutta3", 2),
    odernn("rk4", 2),
    odernn("semi-implicit", 2),
    odernn("heun", 3),
    odernn("rk4", 3),
    odernn("semi-implicit", 3),
    odernn("kutta3", 2, input="linear"),
    odernn("rk4", 3, input="linear"),
    Case(
        "URNN",
        "fast",
        "urnn.md 1",
        invariants=(of_operator, keeps_norm("URNN")),
        recorded=(
            count(6_153, "copying, 128 units", "urnn.md (4)", 10, 9, "URNN", 128),
            count(16_394, "MNIST, 512 units", "noted in stwisdom/urnn, urnn.md 1.1", 1, 10, "URNN", 512),
        ),
    ),
    Case("URNN", "dense", "urnn.md 3", {"product": "dense"}, invariants=(keeps_norm("URNN", product="dense"),)),
    Case("URNN", "eps = 1e-5, as in the authors' code", "urnn.md 1", {"eps": 1e-5}),
    Case("URNN", "contracting", "urnn.md 5, P4", {"contracting": True}),
    Case(
        "FullCapacityURNN",
        "gaussian start",
        "baselines.md 1.4",
        kept=("W.W",),
        invariants=(of_operator, keeps_norm("FullCapacityURNN")),
    ),
    Case(
        "EURNN",
        "tunable, L = 4",
        "baselines.md 1.3",
        {"capacity": 4},
        invariants=(of_operator, keeps_norm("EURNN", capacity=4)),
    ),
    Case(
        "EURNN",
        "fft",
        "baselines.md 1.3",
        {"pairing": "fft"},
        invariants=(of_operator, keeps_norm("EURNN", pairing="fft")),
    ),
    Case(
        "RealEURNN",
        "tunable, L = 2",
        "baselines.md 1.3",
        invariants=(of_operator, keeps_norm("RealEURNN")),
        recorded=(count(13_321, "psMNIST, 1024 units", "baselines.md B11", 1, 10, "RealEURNN", 1024),),
    ),
    Case(
        "RealEURNN",
        "fft",
        "baselines.md 1.3",
        {"pairing": "fft"},
        invariants=(of_operator, keeps_norm("RealEURNN", pairing="fft")),
    ),
    Case(
        "ExpRNN",
        "exponential",
        "baselines.md 1.1",
        invariants=(of_operator, keeps_norm("ExpRNN")),
        recorded=(count(16_415, "MNIST, 170 units", "baselines.md 1.1", 1, 10, "ExpRNN", 170),),
    ),
    Case(
        "ScoRNN",
        "scaled Cayley",
        "baselines.md 1.2",
        invariants=(of_operator, keeps_norm("ScoRNN")),
    ),
    Case("SpectralRNN", "margin 0.3", "spectral.md 1", {"margin": 0.3}, kept=("U", "V"), invariants=(margin,)),
    Case(
        "SpectralRNN",
        "margin 0, no activation",
        "spectral.md 1",
        {"margin": 0.0, "activation": "identity"},
        kept=("U", "V"),
        invariants=(margin, keeps_norm("SpectralRNN", margin=0.0, activation="identity")),
    ),
    Case("SpectralRNN", "no margin", "spectral.md 1", {"margin": "free"}, kept=("U", "V")),
    *(
        Case(
            "QUNN",
            f"lag form, t = {lags}",
            "odernn.md 6.2",
            {"lags": lags},
            invariants=(keeps_norm("QUNN", lags=1),) if lags == 1 else (),
        )
        for lags in (1, 3)
    ),
    Case(
        "QUNN",
        "Strang product of 2 layers",
        "odernn.md 6.1",
        {"flow": "trotter", "trotter_steps": 2},
        invariants=(keeps_norm("QUNN", lags=1, flow="trotter", trotter_steps=2),),
    ),
    Case(
        "QUNN",
        "tied, amplitudes in, expectations out",
        "odernn.md 6.2, 6.4",
        {"tied": True, "encoding": "amplitude", "readout": "expectations"},
    ),
    Case(
        "QUNNRegister",
        "1 memory qubit",
        "odernn.md 6.3",
        {"memory_qubits": 1},
        invariants=(keeps_norm("QUNNRegister", memory_qubits=1),),
    ),
    Case(
        "LSTM",
        "PyTorch's",
        "odernn.md 3.3",
        recorded=(count(68_362, "MNIST, 128 units, two biases", "baselines.md B11", 1, 10, "LSTM", 128),),
    ),
    Case("GRU", "PyTorch's", "odernn.md 3.4"),
    Case(
        "LEM",
        "dt = 0.5",
        "baselines.md 1.8",
        {"dt": 0.5},
        expected=1,
        invariants=(states_of_lem,),
        recorded=(count(68_362, "psMNIST, 128 units", "baselines.md B11", 1, 10, "LEM", 128, physics={"dt": 0.31}),),
    ),
    Case(
        "LMU",
        "q = 6, theta = 20",
        "baselines.md 1.7",
        {"memory": 6, "theta": 20.0},
        invariants=(memory_is_stable,),
        recorded=(
            count(
                102_027,
                "psMNIST, 212 units, q = 256",
                "read in the authors' code, baselines.md 1.7",
                1,
                10,
                "LMU",
                212,
                bias=False,
                physics={"memory": 256, "theta": 784.0},
            ),
        ),
    ),
    Case(
        "AntisymmetricRNN",
        "plain",
        "baselines.md 1.5",
        ANTISYMMETRIC,
        expected=1,
        invariants=(gain_of_antisymmetric,),
        recorded=(count(9_674, "MNIST, 128 units", "baselines.md B11", 1, 10, "AntisymmetricRNN", 128),),
    ),
    Case("AntisymmetricRNN", "gated", "baselines.md 1.5", {**ANTISYMMETRIC, "gated": True}, expected=1),
    Case("LipschitzRNN", "beta = 0.75", "baselines.md 1.5", {"dt": 0.2, "gamma": 0.5}, expected=1),
    Case("Elman", "tanh", "urnn.md 6"),
    Case("IRNN", "relu", "urnn.md 6"),
    Case("FastRNN", "full matrices", "baselines.md 1.6"),
    Case("FastRNN", "rank 1 and 2, relu", "baselines.md 1.6", {"rank_w": 1, "rank_u": 2, "nonlinearity": "relu"}),
    Case("FastGRNN", "full matrices", "baselines.md 1.6"),
    Case("FastGRNN", "rank 1 and 2", "baselines.md 1.6", {"rank_w": 1, "rank_u": 2}),
)
