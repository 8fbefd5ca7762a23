"""What the physics and the weights of each network say about its gradients: what to change, why, and who says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from torch import Tensor

from pendula.diagnose.verdict import FADED, LOST, LayerGradients
from pendula.math import oscillator, stability

Found = Iterator[tuple[str, str, str]]
Rule = Callable[[Any, LayerGradients], Found]

_CHECKED = "{}, derived and checked there"


def left_of(g: LayerGradients) -> str:
    """What was measured, in words."""
    return f"{g.remains:.2g} of the gradient is left after {g.lags[-1]} steps"


def _kept(g: LayerGradients) -> float:
    """What a step must keep so that `FADED` of a gradient is left at the longest lag."""
    return float(FADED ** (1 / g.lags[-1]))


def _cornn(cell: Any, g: LayerGradients) -> Found:
    physics = {name: getattr(cell, name).double() for name in ("dt", "gamma", "epsilon")}
    steps = g.lags[-1]

    def radius(**changed: Tensor) -> float:
        return float(oscillator.spectral_radius(**{**physics, **changed}, variant=cell.variant).max())

    rho = radius()
    if g.verdict == "vanishing" and rho**steps < FADED:
        because = (
            f"{left_of(g)}, and an oscillator forgets as fast without any weights: the spectral radius of its step is "
            f"{rho:.4g}, a memory of {-1 / math.log(rho):.3g} steps, and {rho:.4g}^{steps} = {rho**steps:.2g}"
        )
        ways = []
        for name, most in (("gamma", 1e-4), ("dt", 1e-4), ("epsilon", 1e-4), ("epsilon", 1e4)):
            for factor in numpy.geomspace(1, most, 400):
                new = {name: physics[name] * factor}
                stable = not oscillator.stability_objections(**{**physics, **new}, variant=cell.variant)
                if stable and radius(**new) >= _kept(g):
                    alike = bool((new[name] == new[name].flatten()[0]).all())
                    bound = "at most" if factor < 1 else "at least"
                    size = f"{float(new[name].flatten()[0]):.3g}" if alike else f"{factor:.3g} times what they are"
                    ways.append(f"{name} {bound} {size}")
                    break
        if ways:
            yield (
                f"take {', or '.join(ways)} (each with the others as they are)",
                because,
                _CHECKED.format("cornn.md 4.5"),
            )
        if g.remains < LOST:
            yield (
                "or expect a plateau, until training has made the recurrent weights large",
                f"{left_of(g)}; the adding problem of the authors' script (T=100) starts at 2e-14 too: its loss stayed "
                "near that of a constant for about 1000 batches and then fell, while the norm of W grew from 5 to 129",
                "cornn.md 4.8, measured there on the authors' code",
            )
    elif g.verdict == "vanishing":
        yield (
            "look at the recurrent weights, not at dt, gamma and epsilon: smaller ones, or less saturated forces",
            f"{left_of(g)}, while an oscillator without weights would keep {rho**steps:.2g}",
            _CHECKED.format("cornn.md 4.5"),
        )
    single = all(value.numel() == 1 for value in physics.values())
    if single and not oscillator.stability_objections(**physics, variant=cell.variant):
        dt, gamma, epsilon = (float(value) for value in physics.values())
        if g.verdict in ("exploding", "not finite"):
            rate = oscillator.growth_rate(cell.W.double(), cell.W_z.double(), dt, gamma, epsilon, cell.variant)
            yield (
                "take a smaller dt or smaller recurrent weights",
                f"gradients may grow by exp({rate:.3g} t) in the elapsed time t = {steps * dt:.3g}, the spectral norms "
                f"of W and W_z being {float(torch.linalg.matrix_norm(cell.W, 2)):.3g} and "
                f"{float(torch.linalg.matrix_norm(cell.W_z, 2)):.3g}",
                _CHECKED.format("cornn.md 4.7"),
            )
        most, _ = oscillator.uniform_bound(dt, gamma, epsilon, cell.variant)
        if most < 0.1:
            yield (
                f"let what reads this layer have a gain of order {1 / most:.0f}",
                f"no input can move y beyond {most:.3g} with this gamma",
                _CHECKED.format("cornn.md 4.5"),
            )


def _unicornn(cell: Any, g: LayerGradients) -> Found:
    if g.verdict not in ("exploding", "not finite"):
        return
    stiffness = cell.alpha + cell.w
    if float(stiffness.min()) < 0:
        yield (
            f"take alpha at least {-float(cell.w.min()):.3g}",
            f"alpha + w falls to {float(stiffness.min()):.3g}, and near rest such an oscillator runs away",
            _CHECKED.format("unicornn.md 4.2"),
        )
    edge = float((cell.h**2 * stiffness).max())
    if edge >= 4:
        yield (
            "take a smaller dt",
            f"h^2 (alpha + w) reaches {edge:.3g}, and from 4 on a step grows",
            _CHECKED.format("unicornn.md 4.2"),
        )


def _gated(cell: Any, g: LayerGradients) -> Found:
    biases = [b for name, b in cell.rnn.named_parameters() if name.startswith("bias")]
    if g.verdict != "vanishing" or cell.chrono is not None or not biases:
        return
    size = cell.hidden_size
    gate = float(torch.sigmoid(sum(biases)[cell.remembering * size :][:size]).mean())
    yield (
        f"take chrono={max(2, g.lags[-1])}, which starts the gates with memories of all lengths up to that",
        f"{left_of(g)}: without input the gate that remembers stands at {gate:.2g}, and {gate:.2g}^{g.lags[-1]} is "
        f"{gate ** g.lags[-1]:.1g}",
        "baselines.md 1.10, recalled from Tallec and Ollivier 2018",
    )


def _lem(cell: Any, g: LayerGradients) -> Found:
    left = float((1 - cell.dt / 2).abs().max()) ** g.lags[-1]
    if g.verdict == "vanishing" and left < FADED:
        yield (
            f"take dt at most {2 * (1 - _kept(g)):.2g}",
            f"{left_of(g)}: with gates half open a state keeps 1 - dt/2 per step, {left:.1g} over all",
            "derived here; the authors ran adding with dt = 0.0242 (baselines.md 1.8, read in their code)",
        )


def _antisymmetric(cell: Any, g: LayerGradients) -> Found:
    steps, sigma = g.lags[-1], float(torch.linalg.matrix_norm(cell.S.double(), 2))
    gamma, dt = float(cell.gamma), float(cell.dt.max())
    left = abs(1 - dt * gamma) ** steps
    if g.verdict == "vanishing" and left < FADED:
        words = f"{left_of(g)}: the diffusion alone leaves (1 - dt gamma)^{steps} = {left:.1g}"
        yield f"take gamma at most {(1 - _kept(g)) / dt:.2g}", words, _CHECKED.format("odernn.md C6")
    gain = stability.antisymmetric_gain(sigma, gamma, dt) ** steps
    if g.verdict in ("exploding", "not finite") and gain > 1:
        yield (
            f"take dt at most {float(cell.contractive_dt()):.2g}" if gamma else "take a gamma above 0, or a smaller dt",
            f"Euler steps of {dt:g} with |S| = {sigma:.3g} and gamma = {gamma:g} can grow by {gain:.2g} over all",
            _CHECKED.format("odernn.md C6"),
        )


def _odernn(cell: Any, g: LayerGradients) -> Found:
    gamma = cell.gamma.double().T if cell.gamma.dim() == 2 else cell.gamma.double()
    rho = float(stability.linear_part_steps(cell.scheme, gamma, cell.dt.double()).value.max())
    left = rho ** g.lags[-1]
    if g.verdict == "vanishing" and left < FADED:
        words = f"{left_of(g)}, and the linear part alone keeps {rho:.4g} per step, {left:.1g} over all"
        yield "take a smaller dt, or gammas that damp less", words, _CHECKED.format("odernn.md C8")
    if g.verdict in ("exploding", "not finite") and rho > 1:
        words = f"the linear part alone grows by {rho:.4g} per step"
        yield "take a smaller dt, or another tableau", words, _CHECKED.format("odernn.md C8")


def _linoss(cell: Any, g: LayerGradients) -> Found:
    moduli = torch.linalg.eigvals(cell.steady[:, :2].permute(2, 0, 1).double()).abs().amax(-1)
    left = float(moduli.max()) ** g.lags[-1]
    if g.verdict != "vanishing" or left >= FADED:
        return
    because = f"{left_of(g)}: the slowest oscillator keeps {float(moduli.max()):.4g} per step, {left:.1g} over all"
    if g.network == "LinOSS":
        yield (
            "take discretisation='imex', which conserves, or a smaller A_max",
            because,
            "arXiv 2410.03943, see LinOSSCell",
        )
    else:
        yield f"start with r_min at least {_kept(g):.4g}", because, "arXiv 2505.12171, see DLinOSSCell"


def _lmu(cell: Any, g: LayerGradients) -> Found:
    if g.verdict == "vanishing" and cell.theta < g.lags[-1]:
        because = f"{left_of(g)}, and the memory is a window of theta = {cell.theta:g} steps"
        yield (
            f"take theta={g.lags[-1]}",
            because,
            "baselines.md 1.7: psMNIST ran with theta = its length, read in the code",
        )


def _spectral(cell: Any, g: LayerGradients) -> Found:
    low, high = float(cell.s.min()), float(cell.s.max())
    steps = g.lags[-1]
    if g.verdict == "vanishing" and low**steps < FADED:
        because = f"{left_of(g)}, and the smallest singular value of W, {low:.4g}, allows down to {low**steps:.1g}"
        yield f"take margin at most {1 - _kept(g):.2g}", because, "spectral.md 5, S3"
    if g.verdict in ("exploding", "not finite") and high > 1:
        because = f"the largest singular value of W, {high:.4g}, allows a growth by {high**steps:.1g}"
        yield "take a smaller margin", because, "spectral.md 5, S3"


def _fast(cell: Any, g: LayerGradients) -> Found:
    keep = float(torch.sigmoid(cell.beta))
    if g.verdict == "vanishing" and keep ** g.lags[-1] < FADED:
        because = f"{left_of(g)}: the residual connection keeps {keep:.4g} per step, {keep ** g.lags[-1]:.1g} over all"
        start = math.log(_kept(g) / (1 - _kept(g)))
        yield (
            f"start beta at {start:.2g} and alpha at {-start:.2g}",
            because,
            "baselines.md 1.6: alpha = O(1/T), beta = 1 - alpha",
        )


def _qunn(cell: Any, g: LayerGradients) -> Found:
    if g.verdict == "vanishing" and cell.lags > 1:
        because = f"{left_of(g)}: amplitudes of {cell.lags} lags that meet out of step shrink"
        yield "take lags=1, where each step is unitary", because, "odernn.md 6.2, proved there for its reconstruction"


def _unitary(cell: Any, g: LayerGradients) -> Found:
    b = cell.shift
    if g.verdict in ("exploding", "not finite") and float(b.max()) > 0:
        because = f"modReLU's bias reaches {float(b.max()):.2g}: above 0 it can stretch a gradient without bound"
        yield "keep it at most 0 (URNN: contracting=True)", because, "urnn.md 5, P4, derived and checked there"
    if g.verdict == "vanishing" and float(b.min()) < 0:
        because = f"{left_of(g)}, and modReLU's bias falls to {float(b.min()):.2g}: a unit of a smaller modulus is dead"
        yield "start with bias_range=0, or larger inputs", because, "urnn.md 5, P4, derived and checked there"


RULES: dict[str, Rule] = {
    "AntisymmetricRNN": _antisymmetric,
    "CoRNN": _cornn,
    "DLinOSS": _linoss,
    "EURNN": _unitary,
    "ExpRNN": _unitary,
    "FastRNN": _fast,
    "FullCapacityURNN": _unitary,
    "GRU": _gated,
    "LEM": _lem,
    "LMU": _lmu,
    "LSTM": _gated,
    "LinOSS": _linoss,
    "ODERNN": _odernn,
    "QUNN": _qunn,
    "RealEURNN": _unitary,
    "ScoRNN": _unitary,
    "SpectralRNN": _spectral,
    "URNN": _unitary,
    "UnICORNN": _unicornn,
}
"""Network -> what its physics and weights explain; what they do not explain they leave unsaid."""
