"""A chain of q qubits under a transverse-field Ising Hamiltonian: its matrix, its flow, its read-out, its Lie algebra.

    H(a, b, J) = sum_j a_j X_j + sum_j b_j Z_j + sum_j J_j Z_j Z_{j+1}

X_j and Z_j are the Pauli matrices of qubit j; qubit 0 is the most significant bit of the index of an amplitude. H is
real and symmetric. Source: spec sheet ``odernn.md`` 6.1 and 6.4, a reconstruction of this library (see `QUNNCell`).

Couplings a (..., q), b (..., q), J (..., q - 1) and states psi (..., 2^q) broadcast over their leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pendula.math.exponential import exponential


def signs(qubits: int, like: Tensor) -> Tensor:
    """(q, 2^q): the eigenvalue s_j = 1 - 2 bit_j(m) of Z_j at the amplitude m."""
    m = torch.arange(2**qubits, device=like.device)
    place = torch.arange(qubits - 1, -1, -1, device=like.device).unsqueeze(-1)
    return (1 - 2 * (m >> place & 1)).to(like)


def diagonal(b: Tensor, J: Tensor) -> Tensor:
    """E (..., 2^q), the part of H made of Z: ``E_m = sum_j b_j s_j + sum_j J_j s_j s_{j+1}``."""
    s = signs(b.shape[-1], b)
    return b @ s + J @ (s[:-1] * s[1:])


def hamiltonian(a: Tensor, b: Tensor, J: Tensor) -> Tensor:
    """H (..., 2^q, 2^q) as a dense real symmetric matrix.

    >>> hamiltonian(torch.tensor([3.0]), torch.tensor([2.0]), torch.empty(0)).tolist()
    [[2.0, 3.0], [3.0, -2.0]]
    """
    H = torch.diag_embed(diagonal(b, J))
    qubits, size = a.shape[-1], H.shape[-1]
    # X_j joins the amplitude m with the one whose bit j is the other
    m = torch.arange(size, device=a.device).unsqueeze(-1)
    partner = m ^ 2 ** torch.arange(qubits - 1, -1, -1, device=a.device)
    shape = (*H.shape[:-1], qubits)
    return H.scatter(-1, partner.expand(shape), a.unsqueeze(-2).expand(shape))


def flow(a: Tensor, b: Tensor, J: Tensor, eta: float) -> Tensor:
    """U = exp(-i eta H), dense complex (..., 2^q, 2^q), unitary up to rounding."""
    return exponential(-1j * eta * hamiltonian(a, b, J))


def gates(a: Tensor, b: Tensor, J: Tensor, eta: float, steps: int) -> tuple[Tensor, Tensor]:
    """What `strang` needs, complex of modulus one: half a phase (..., 2^q) and the turn of each qubit (..., q).

    half = exp(-i eta E / (2 L)),   turn_j = exp(-i eta a_j / L),   L = steps
    """
    half = torch.exp(-0.5j * eta / steps * diagonal(b, J))
    return half, torch.exp(-1j * eta / steps * a)


def strang(psi: Tensor, half: Tensor, turn: Tensor, steps: int) -> Tensor:
    """U_L psi, gate by gate: O(L q 2^q) instead of 4^q operations. Unitary for every L; U_L - U = O(L^-2).

        U_L = [exp(-i eta E / (2 L))  prod_j Rx_j(eta a_j / L)  exp(-i eta E / (2 L))]^L          (sheet 6.1)
        Rx_j(theta) = cos(theta) - i sin(theta) X_j

    Args:
        psi: complex states (..., 2^q).
        half, turn: from `gates`.
        steps: L, at least 1.
    """
    for _ in range(steps):
        psi = half * psi
        for j in range(turn.shape[-1]):
            rotation = turn[..., j : j + 1]
            psi = rotation.real * psi + 1j * rotation.imag * flipped(psi, j)
        psi = half * psi
    return psi


def flipped(psi: Tensor, j: int) -> Tensor:
    """X_j psi: the amplitudes with bit j turned over."""
    return psi.reshape(*psi.shape[:-1], 2**j, 2, -1).flip(-2).reshape(psi.shape)


def expectations(psi: Tensor) -> Tensor:
    """(..., q): ``<Z_j> = sum_m s_j(m) |psi_m|^2``, from -|psi|^2 to |psi|^2; psi need not have norm one."""
    weight = psi.real.square() + psi.imag.square()
    found = []
    for j in range(psi.shape[-1].bit_length() - 1):
        up, down = weight.reshape(*psi.shape[:-1], 2**j, 2, -1).sum((-3, -1)).unbind(-1)
        found.append(up - down)
    return torch.stack(found, -1)


def generators(qubits: int, *, tied: bool = False) -> Tensor:
    """(k, 2^q, 2^q): i X_j, i Z_j and i Z_j Z_{j+1} for every site, in this order, or their three sums when tied."""
    groups = [qubits, qubits, qubits - 1]
    couplings = torch.eye(sum(groups), dtype=torch.float64)
    if tied:
        couplings = torch.stack([rows.sum(0) for rows in torch.split(couplings, groups) if len(rows)])
    a, b, J = torch.split(couplings, groups, -1)
    return 1j * hamiltonian(a, b, J)


def lie_dimension(matrices: Tensor | Sequence[Tensor]) -> int:
    """The real dimension of the Lie algebra that skew-Hermitian matrices span with all their commutators.

    It is 4^q - 1 where products of their flows reach every unitary up to a phase (su(2^q)): sheet 6.1. The cost is
    that of as many products of a commutator with a basis of as many matrices: for a few qubits.

    >>> lie_dimension(generators(2)), lie_dimension(generators(2, tied=True))
    (15, 9)
    """
    given = torch.stack(list(matrices)).to(torch.complex128)
    given = given / torch.linalg.matrix_norm(given, keepdim=True)
    basis = torch.empty(0, 2 * given[0].numel(), dtype=torch.float64, device=given.device)
    fresh = list(given)
    while fresh:
        grown = []
        for matrix in fresh:
            vector = torch.view_as_real(matrix).flatten()
            # twice: a single projection leaves rounding behind that is not orthogonal
            for _ in range(2):
                vector = vector - basis.T @ (basis @ vector)
            # all factors have norm one: what is far below it is rounding
            if (size := vector.norm()) > 1e-9:
                basis = torch.cat((basis, (vector / size).unsqueeze(0)))
                grown.append(torch.view_as_complex(vector.view(*matrix.shape, 2)) / size)
        # brackets of a generator with all found so far are enough (Jacobi's identity)
        fresh = [g @ m - m @ g for m in grown for g in given]
    return len(basis)
