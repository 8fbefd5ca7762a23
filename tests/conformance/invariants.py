"""What must hold whatever the weights are, and numbers from elsewhere: each a function of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pendula
from pendula import Model, ModelSpec, Node
from tests.conformance.row import B, Check, Finding, I, Layer, N, T


def of_operator(layer: Layer) -> Finding:
    return Finding("W*W = 1", float(layer.cells[0].W.defect().detach()), 1e-13)


def norm_is_kept(case_layer: Callable[[], Layer]) -> Check:
    """Without bias, without input: |h| after 1000 steps."""

    def check(_: Layer) -> Finding:
        layer = case_layer()
        start = layer.cells[0].initial_state(1)
        state = type(start)(*(torch.randn(1, *s.shape, dtype=torch.float64) for s in start))
        with torch.no_grad():
            _, final = layer(torch.zeros(1000, 1, I, dtype=torch.float64), state)
        before, after = (torch.stack([s.flatten() for s in one]).norm() for one in (state, final))
        return Finding("norm kept over 1000 steps", abs(float(after / before) - 1), 1e-12)

    return check


def step_jacobian(layer: Layer) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """d state / d state of one step (all of the state side by side), at a random state and drive."""
    cell = layer.cells[0]
    drive = cell.drive(torch.randn(1, 1, I, dtype=torch.float64))[0].detach()
    state = tuple(0.5 * torch.randn(1, s.shape[1], dtype=torch.float64) for s in cell.initial_state(1))
    widths = [s.shape[1] for s in state]

    def step(flat: Tensor) -> Tensor:
        return torch.cat(tuple(cell.step(cell.State(*flat.split(widths, 1)), drive)), 1)

    jacobian = torch.autograd.functional.jacobian(step, torch.cat(state, 1))[0, :, 0]
    return jacobian.detach(), state, drive


def volume_is_kept(layer: Layer) -> Finding:
    return Finding("det J = 1", abs(float(torch.linalg.det(step_jacobian(layer)[0])) - 1), 1e-13)


def round_trip(layer: Layer) -> Finding:
    cell = layer.cells[0]
    state = start = tuple(0.5 * torch.randn(B, N, dtype=torch.float64) for _ in cell.State._fields)
    drives = cell.drive(torch.randn(T, B, I, dtype=torch.float64))
    with torch.no_grad():
        for drive in drives:
            state = cell.step(state, drive)
        for drive in drives.flip(0):
            state = cell.unstep(state, drive)
    worst = max(float((a - b).abs().max()) for a, b in zip(state, start, strict=True))
    return Finding(f"there and back, {T} steps", worst, 1e-11)


def volume_of_cornn(layer: Layer) -> Finding:
    """cornn.md 3.4: det J = det(kappa I + eta D W_z)."""
    cell = layer.cells[0]
    J, (y, z), drive = step_jacobian(layer)
    with torch.no_grad():
        s = torch.tanh(drive + y @ cell.W.T + z @ cell.W_z.T)[0]
        dt, epsilon = (torch.as_tensor(v).expand(N) for v in (cell.dt, cell.epsilon))
        damped = cell.variant == "implicit"
        kappa = 1 / (1 + epsilon * dt) if damped else 1 - epsilon * dt
        eta = dt / (1 + epsilon * dt) if damped else dt
        formula = torch.linalg.det(torch.diag(kappa) + (eta * (1 - s**2)).unsqueeze(1) * cell.W_z)
    return Finding("det J = det(κ + η D W_z)", abs(float(torch.linalg.det(J) / formula) - 1), 1e-12)


def energy_of_cornn(layer: Layer) -> Finding:
    """cornn.md 4.3, from rest, under any input: the largest ratio of its two sides."""
    cell = layer.cells[0]
    x = 10 * torch.randn(T, B, I, dtype=torch.float64)
    state, worst = cell.initial_state(B), 0.0
    dt, gamma, epsilon = (float(torch.as_tensor(v).flatten()[0]) for v in (cell.dt, cell.gamma, cell.epsilon))
    weight = 1.0 if cell.variant == "implicit" else 1 - epsilon * dt
    with torch.no_grad():
        for n, drive in enumerate(cell.drive(x), 1):
            state = cell.step(state, drive)
            left = gamma * state.y.square().sum(1) + weight * state.z.square().sum(1)
            worst = max(worst, float(left.max()) * (2 * epsilon - gamma * dt) / (N * n * dt))
    return Finding("energy / its bound", worst, 1.0)


def moduli(formula: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Check:
    """Eigenvalues of a step of linear oscillators, by A, G and h."""

    def check(layer: Layer) -> Finding:
        cell = layer.cells[0]
        J = step_jacobian(layer)[0]
        width = len(cell.A)
        with torch.no_grad():
            G = torch.zeros_like(cell.A) if cell.G is None else cell.G
            expected = formula(cell.A, G, cell.dt)
        worst = 0.0
        for i in range(width):
            block = J[[i, width + i]][:, [i, width + i]]
            worst = max(worst, float((torch.linalg.eigvals(block).abs() - expected[i]).abs().max()))
        # of a pair that is nearly one point some digits are lost
        return Finding("eigenvalue moduli by their formula", worst, 1e-10)

    return check


def margin(layer: Layer) -> Finding:
    cell = layer.cells[0]
    farthest = (torch.linalg.svdvals(cell.W.detach()) - 1).abs().max()
    return Finding("singular values within the margin", float(farthest), cell.margin + 1e-12)


def gain_of_antisymmetric(layer: Layer) -> Finding:
    """odernn.md C6: |1 + h (S - γ)| = sqrt((1 - hγ)^2 + h^2 |S|^2)."""
    cell = layer.cells[0]
    with torch.no_grad():
        h, g, S = cell.dt, cell.gamma, cell.S
        got = torch.linalg.matrix_norm(torch.eye(N, dtype=torch.float64) + h * cell.M, 2)
        expected = torch.sqrt((1 - h * g) ** 2 + h**2 * torch.linalg.matrix_norm(S, 2) ** 2)
    return Finding("gain of a linear step", abs(float(got / expected) - 1), 1e-12)


def memory_is_stable(layer: Layer) -> Finding:
    return Finding("spectral radius of the memory", float(torch.linalg.eigvals(layer.cells[0].A_bar).abs().max()), 1.0)


def states_of_lem(layer: Layer) -> Finding:
    """From rest |y|, |z| <= 1 - (1 - dt)^n: the largest ratio."""
    cell = layer.cells[0]
    state, worst = cell.initial_state(B), 0.0
    with torch.no_grad():
        for n, drive in enumerate(cell.drive(10 * torch.randn(T, B, I, dtype=torch.float64)), 1):
            state = cell.step(state, drive)
            worst = max(worst, max(float(s.abs().max()) for s in state) / (1 - (1 - float(cell.dt)) ** n))
    return Finding("states / their bound", worst, 1 + 1e-12)


# --- numbers from elsewhere


def count(
    number: int, what: str, source: str, inputs: int, outputs: int, network: str, units: int, **node: Any
) -> Check:
    """How many parameters a network of the literature has, read-out included."""

    def check(_: Layer) -> Finding:
        model = Model(ModelSpec(inputs, outputs, (Node(network, units, **node),)), device="meta")
        name = f"{number:,}".replace(",", " ") + f" parameters ({what})"
        return Finding(name, abs(model.parameter_count - number), 0, source)

    return check


def kernel_of_unicornn(_: Layer) -> Finding:
    """unicornn.md U1: what the authors' kernel gave for float32 inputs."""
    layer = pendula.UnICORNN(1, 2, dt=0.2, alpha=1.5)
    with torch.no_grad():
        for name, value in {"V": [[1.0], [-0.5]], "b": [0.1, -0.2], "w": [0.6, -0.4], "c": [0.05, -0.1]}.items():
            getattr(layer.cells[0], name).copy_(torch.tensor(value))
        outputs, _ = layer(torch.tensor([1.0, -0.5, 0.25]).reshape(3, 1, 1))
    theirs = torch.tensor([-0.02015499211847782, 0.01808168925344944], dtype=torch.float64)
    worst = float((outputs[2, 0].double() - theirs).abs().max())
    return Finding(
        "y_3 of the authors' kernel in float32", worst, 5e-9, "recorded from the authors' code, unicornn.md U1"
    )
