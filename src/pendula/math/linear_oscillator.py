"""A linear oscillator ``y'' = -A y - G y' + f`` in four discretisations: matrix, eigenvalues, region of stability.

With z = y', a step of length h is

    imex1   z_n = z_{n-1} + h (-A y_{n-1} - G z_n     + f_n),   y_n = y_{n-1} + h z_n
    imex2   z_n = z_{n-1} + h (-A y_{n-1} - G z_{n-1} + f_n),   y_n = y_{n-1} + h z_n
    im      z_n = z_{n-1} + h (-A y_n     - G z_n     + f_n),   y_n = y_{n-1} + h z_n
    ex      z_n = z_{n-1} + h (-A y_{n-1} - G z_{n-1} + f_n),   y_n = y_{n-1} + h z_{n-1}

LinOSS (arXiv 2410.03943) is im and imex1 with G = 0; D-LinOSS (arXiv 2505.12171) has imex1 in the paper, and all four,
under these names, in the authors' code. Regions and moduli follow from determinant and trace of the step.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCHEMES = ("imex1", "imex2", "im", "ex")

# of dt G < 1 in imex2: at 1 the root of 1 - dt G has no slope
NEARLY_ALL = 1 - 1e-4


def step_matrix(scheme: str, A: Tensor, G: Tensor, h: Tensor) -> Tensor:
    """One step of ``y'' = -A y - G y' + f`` as a matrix (2, 3, ...): rows z and y, columns z, y and f."""
    implicit = scheme in ("imex1", "im")
    keep = torch.ones_like(G) if implicit else 1 - h * G
    S = 1 + h * G if implicit else torch.ones_like(h)
    if scheme == "im":
        S = S + h * h * A
    entries = torch.broadcast_tensors(keep / S, -h * A / S, h / S)  # type: ignore[no-untyped-call]
    z, zero, one = torch.stack(entries), torch.zeros_like(entries[0]), torch.ones_like(entries[0])
    moving = torch.stack((one, zero, zero)) if scheme == "ex" else z
    y = torch.stack((zero, one, zero)) + h * moving
    return torch.stack((z, y))


def clamped(scheme: str, A: Tensor, G: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """A and G moved into the region where a step has two conjugate eigenvalues, of modulus at most 1.

    G first, for A's borders depend on it ("im": A >= 0, then G, then A). Inside the region nothing moves.
    """
    if scheme == "im":
        A = torch.relu(A)
        # the scheme damps by itself: a little negative damping is still stable
        G = torch.maximum(G, -h * A)
        return torch.maximum(A, G * G / 4), G
    if scheme == "ex":
        G = torch.minimum(torch.relu(G), 4 / h)
        return torch.clamp(A, G * G / 4, G / h), G
    G = torch.relu(G) if scheme == "imex1" else torch.minimum(torch.relu(G), NEARLY_ALL / h)
    q = torch.sqrt(1 + h * G if scheme == "imex1" else 1 - h * G)
    # (2 + h G -+ 2 sqrt(1 + h G)) / h^2, written without the difference
    return torch.clamp(A, (G / (1 + q)) ** 2, ((1 + q) / h) ** 2), G


def ring(scheme: str, r: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """h^2 A and h G of the step whose eigenvalues are ``r exp(+- i theta)``."""
    c = torch.cos(theta)
    if scheme in ("imex1", "im"):
        return 1 - 2 * c / r + r**-2, r**-2 - 1 if scheme == "imex1" else 2 * (c / r - 1)
    return 1 - 2 * c * r + r**2, 1 - r**2 if scheme == "imex2" else 2 * (1 - c * r)
