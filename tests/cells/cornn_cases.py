"""The networks and inputs that the oracles of the spec sheet cornn.md (section 6) are computed with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pendula.cells import CoRNNCell

VARIANTS = ("explicit", "implicit")
PHYSICS = ("dt", "gamma", "epsilon")


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def filled(cell: CoRNNCell, **weights: Tensor | float) -> CoRNNCell:
    """The cell with the weights given; zero where none is given."""
    with torch.no_grad():
        for name in ("W", "W_z", "V", "b"):
            getattr(cell, name).copy_(torch.as_tensor(weights.get(name, 0.0)))
    return cell


def small(variant: str, **options: Any) -> tuple[CoRNNCell, Tensor]:
    """O1: two neurons, one feature, three steps, one sequence."""
    cell = CoRNNCell(1, 2, dt=0.1, gamma=1.5, epsilon=0.8, variant=variant, dtype=torch.float64, **options)
    filled(
        cell,
        W=double([[0.5, -0.3], [0.2, 0.4]]),
        W_z=double([[-0.1, 0.6], [0.3, -0.2]]),
        V=double([[1.0], [-0.5]]),
        b=double([0.1, -0.2]),
    )
    return cell, double([1.0, -0.5, 0.25]).reshape(3, 1, 1)


def weights(units: int = 4, features: int = 2) -> dict[str, Tensor]:
    """The formulas of O4, indices from 0."""
    i, j = torch.meshgrid(torch.arange(units).double(), torch.arange(units).double(), indexing="ij")
    k = torch.arange(features).double()
    rows = torch.arange(units).double()
    return {
        "W": torch.sin(3 * i + 5 * j + 1),
        "W_z": torch.cos(2 * i - 3 * j + 2),
        "V": torch.sin(7 * rows.unsqueeze(1) + k + 0.5),
        "b": torch.cos(rows),
    }


def waves(steps: int, batch: int, features: int = 2) -> Tensor:
    """The input of O4: u_n[beta, k] = sin(0.3 n + beta + 2 k), n from 1."""
    n = torch.arange(1, steps + 1).double().reshape(-1, 1, 1)
    beta = torch.arange(batch).double().reshape(1, -1, 1)
    k = torch.arange(features).double().reshape(1, 1, -1)
    return torch.sin(0.3 * n + beta + 2 * k)


def larger(variant: str, *, dt: float, gamma: float, epsilon: float, units: int = 4, **options: Any) -> CoRNNCell:
    """A cell with the weights of O4."""
    cell = CoRNNCell(2, units, dt=dt, gamma=gamma, epsilon=epsilon, variant=variant, dtype=torch.float64, **options)
    return filled(cell, **weights(units))


def lone(variant: str, *, dt: float, gamma: float = 4.0, epsilon: float = 0.5) -> CoRNNCell:
    """One neuron without force: y'' = -gamma y - epsilon y'."""
    return filled(CoRNNCell(1, 1, dt=dt, gamma=gamma, epsilon=epsilon, variant=variant, dtype=torch.float64))


def trajectory(cell: CoRNNCell, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Positions and velocities (T, B, N) after each step; `scan` shows the positions only."""
    at = cell.initial_state(x.shape[1]) if state is None else state
    ys, zs = [], []
    for d in cell.drive(x):
        at = cell.step(at, d)
        ys.append(at[0])
        zs.append(at[1])
    return torch.stack(ys), torch.stack(zs)


def jacobian(cell: CoRNNCell, y: Tensor, z: Tensor, drive: Tensor) -> Tensor:
    """The step Jacobian, rows and columns ordered y, z, at a state (N,) for a drive (N,)."""

    def stepped(x: Tensor) -> Tensor:
        new = cell.step(tuple(part.unsqueeze(0) for part in x.chunk(2)), drive.unsqueeze(0))
        return torch.cat(new, -1).squeeze(0)

    return torch.autograd.functional.jacobian(stepped, torch.cat((y, z)))


def det(shape: tuple[int, ...], phase: float, scale: float) -> Tensor:
    """Helper of the spec sheet baselines.md, section 4: scale * sin(phase + m), m counted row by row."""
    count = int(torch.Size(shape).numel())
    return scale * torch.sin(phase + torch.arange(count).double()).reshape(shape)
