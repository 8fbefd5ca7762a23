"""Changes of recorded motion that leave its activity the same: the sensor sits otherwise, a person moves faster.

Windows are (T, B, 3 k): k triads of channels of one three-axis sensor each, time-major.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def rotations(axis: Tensor, degrees: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that turn about axes (B, 3), of any length, by angles (B,) in degrees (Rodrigues' formula).

    >>> quarter = rotations(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([90.0]))[0]
    >>> (quarter @ torch.tensor([1.0, 0.0, 0.0])).round(decimals=5).tolist()
    [0.0, 1.0, 0.0]
    """
    unit = axis / axis.norm(dim=1, keepdim=True).clamp_min(torch.finfo(axis.dtype).tiny)
    angle = (degrees * math.pi / 180)[:, None, None]
    identity = torch.eye(3).expand(len(axis), 3, 3)
    cross: Tensor = torch.linalg.cross(unit.unsqueeze(1), identity).mT
    return identity + torch.sin(angle) * cross + (1 - torch.cos(angle)) * (cross @ cross)


def turned(x: Tensor, matrices: Tensor) -> Tensor:
    """Each triad of x turned by the matrix (B, 3, 3) of its window."""
    steps, batch, channels = x.shape
    triads = x.reshape(steps, batch, channels // 3, 3)
    return torch.einsum("bij,tbgj->tbgi", matrices, triads).reshape(x.shape)


def stretched(x: Tensor, most: float, drawn: Tensor) -> Tensor:
    """Each window at a speed of its own, from 1 - most to 1 + most, by cubic interpolation (Catmull and Rom).

    Args:
        x: windows (T, B, I).
        most: in [0, 1).
        drawn: (B, 2) in [0, 1): where in the range of speeds, and where in the window it starts.

    Returns: (T / (1 + most), B, I): as many steps as the fastest speed leaves.
    """
    steps, batch, features = x.shape
    length = int(steps / (1 + most))
    speed = 1 - most + 2 * most * drawn[:, 0]
    start = drawn[:, 1] * (steps - 1 - speed * (length - 1))
    time = start + speed * torch.arange(length).unsqueeze(1)
    before = time.floor().clamp(0, steps - 2)
    u = (time - before).unsqueeze(-1)

    def at(offset: int) -> Tensor:
        place = (before.long() + offset).clamp(0, steps - 1)
        return x.gather(0, place.unsqueeze(-1).expand(length, batch, features))

    a, b, c, d = (at(offset) for offset in (-1, 0, 1, 2))
    return b + u / 2 * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))


def varied(
    x: Tensor, generators: Sequence[torch.Generator], *, stretch: float, yaw: float, rotate: float, gravity: slice
) -> Tensor:
    """Windows at other speeds and in other attitudes, one generator for each.

    Args:
        x: (T, B, 3 k).
        stretch: see `stretched`; 0 leaves all T steps.
        yaw: standard deviation, in degrees, of a turn about the window's mean direction of gravity.
        rotate: standard deviation, in degrees, of a turn about a uniform axis, after it.
        gravity: the triad that holds the whole acceleration.
    """
    uniform = torch.stack([torch.rand(2, generator=generator) for generator in generators])
    normal = torch.stack([torch.randn(5, generator=generator) for generator in generators])
    if stretch:
        x = stretched(x, stretch, uniform)
    upright = rotations(x[..., gravity].mean(0), yaw * normal[:, 4])
    return turned(x, rotations(normal[:, :3], rotate * normal[:, 3]) @ upright)
