"""The same equations in JAX: `lax.scan`, jitted, and its jitted gradient."""

from __future__ import annotations

import importlib
from typing import Any

import numpy
import torch
from torch import Tensor

from pendula.bench.cases import JAX
from pendula.bench.contestants import Absent, Contestant, Problem
from pendula.bench.steps import STATE, STEPS


def modules() -> tuple[Any, Any]:
    """jax and jax.numpy. Errors: `Absent` where they are not installed."""
    try:
        return importlib.import_module("jax"), importlib.import_module("jax.numpy")
    except ImportError as error:
        raise Absent("jax is not installed: pip install 'pendula[bench]'") from error


def cornn(jax: Any, jnp: Any, p: dict[str, Any], x: Any) -> Any:
    """Outputs (T, B, N) of the explicit coRNN."""

    def step(state: Any, d: Any) -> Any:
        y, z = state
        s = jnp.tanh(d + y @ p["W"].T + z @ p["W_z"].T)
        z = z + p["dt"] * (s - p["gamma"] * y - p["epsilon"] * z)
        y = y + p["dt"] * z
        return (y, z), y

    return _scan(jax, jnp, step, x @ p["V"].T + p["b"])


def unicornn(jax: Any, jnp: Any, p: dict[str, Any], x: Any) -> Any:
    """Outputs (T, B, N) of a UnICORNN layer."""
    h = p["dt"] * jax.nn.sigmoid(p["c"])

    def step(state: Any, d: Any) -> Any:
        y, z = state
        z = z - h * (jnp.tanh(p["w"] * y + d) + p["alpha"] * y)
        y = y + h * z
        return (y, z), y

    return _scan(jax, jnp, step, x @ p["V"].T + p["b"])


def _scan(jax: Any, jnp: Any, step: Any, drive: Any) -> Any:
    zero = jnp.zeros(drive.shape[1:], drive.dtype)
    return jax.lax.scan(step, (zero, zero), drive)[1]


LAYERS = {"CoRNN": (cornn, ("W", "W_z", "V", "b")), "UnICORNN": (unicornn, ("w", "c", "V", "b"))}


def scanned(problem: Problem) -> Contestant:
    """JAX on the numbers of a problem. Errors: `Absent` without JAX."""
    jax, jnp = modules()
    case = problem.case
    layer, trained = LAYERS[case.network]
    learned: list[dict[str, Any]] = [{} for _ in range(case.layers)]
    fixed: list[dict[str, Any]] = [{} for _ in range(case.layers)]
    for key, value in problem.weights.items():
        _, number, name = key.split(".")
        (learned if name in trained else fixed)[int(number)][name] = jnp.asarray(value.numpy())

    @jax.jit  # type: ignore[untyped-decorator]
    def run(learned: Any, x: Any) -> Any:
        for own, constants in zip(learned, fixed, strict=True):
            x = layer(jax, jnp, {**own, **constants}, x)
        return x

    @jax.jit  # type: ignore[untyped-decorator]
    def pull(learned: Any, x: Any, by_outputs: Any) -> Any:
        return jax.vjp(lambda given: run(given, x), learned)[1](by_outputs)[0]

    x, by_outputs = jnp.asarray(problem.x.numpy()), jnp.asarray(problem.by_outputs.numpy())

    def forward() -> Any:
        return jax.block_until_ready(run(learned, x))

    def training() -> Any:
        return jax.block_until_ready(pull(learned, x, by_outputs))

    def numbers() -> dict[str, Tensor]:
        gradients = {f"cells.{n}.{name}": g for n, own in enumerate(training()) for name, g in own.items()}
        found = {"the outputs": forward(), **{f"the gradient of {k}": gradients[k] for k in sorted(gradients)}}
        return {name: torch.from_numpy(numpy.array(value)) for name, value in found.items()}

    return Contestant(JAX, forward, training, numbers)


def stepped(problem: Problem) -> Contestant:
    """One jitted step, as a stream would call it: a state goes in, a state comes out."""
    jax, jnp = modules()
    case = problem.case
    p = {key.rpartition(".")[2]: jnp.asarray(value.numpy()) for key, value in problem.weights.items()}
    zero = jnp.zeros((case.batch, case.units))
    x = jnp.asarray(problem.x[0].numpy())
    state = (zero, zero)

    @jax.jit  # type: ignore[untyped-decorator]
    def step(y: Any, z: Any, x: Any) -> Any:
        s = jnp.tanh(x @ p["V"].T + p["b"] + y @ p["W"].T + z @ p["W_z"].T)
        z = z + p["dt"] * (s - p["gamma"] * y - p["epsilon"] * z)
        return y + p["dt"] * z, z

    def forward() -> Any:
        nonlocal state
        state = jax.block_until_ready(step(*state, x))

    def numbers() -> dict[str, Tensor]:
        nonlocal state
        state = (zero, zero)
        for _ in range(STEPS):
            forward()
        return {word: torch.from_numpy(numpy.array(s)) for word, s in zip(STATE, state, strict=True)}

    return Contestant(JAX, forward, numbers=numbers)
