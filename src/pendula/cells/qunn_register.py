"""QUNN in register form: data qubits and memory qubits in one chain. A reconstruction."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from pendula._check import positive_int
from pendula.cells.qunn import QubitCell, QUNNState
from pendula.math.unitary import complex_of


class QUNNRegisterCell(QubitCell):
    """q qubits that take the data in a chain with m qubits that remember, under one Hamiltonian. Reconstructed.

        psi_k = modReLU_beta(U(theta) psi_{k-1} + v(x_k) |0...0>),   U(theta) = exp(-i eta H)

    The input enters where all memory qubits are 0; data qubits come first in the chain. What is the paper's and what
    is not is said at `QUNNCell`: all of this form is the library's (spec sheet ``odernn.md`` 6.3; order of the chain
    and modReLU are not even the sheet's). Its Hamiltonian has 3 (q + m) - 1 parameters, tied 3. Without input, and
    with beta = 0 or bias=False, |psi_k| is constant; for beta <= 0 no two states move apart.

    Args:
        input_size: I, features of the input.
        hidden_size: N, data amplitudes; rounded up to 2^q with q >= 1 qubits.
        bias: whether the modReLU has its bias beta, one number; without it the step is linear.
        memory_qubits: m, at least 1: there are 2^m times as many amplitudes.
        eta, flow, trotter_steps, tied, encoding: as of `QUNNCell`.
        readout: "amplitudes" (of the register, 2 2^(q+m) numbers) or "expectations" (<Z_j> of the q data qubits).

    Shapes: drive (B, 2 2^q); state re, im (B, 2^(q+m)), which starts uniform with norm one. Parameters a, b (1, q+m),
    J (1, q+m-1) (tied: (1, 1) each), beta (1,), V (2, 2^q, I).

    Errors: those of `QUNNCell`; `tau` is refused too.

    >>> cell = QUNNRegisterCell(3, 8, memory_qubits=1, encoding="amplitude", readout="expectations")
    >>> sum(p.numel() for p in cell.parameters()), cell.output_size
    (12, 3)
    """

    equation: ClassVar[str] = "psi_k = modReLU(exp(-i eta H) psi_{k-1} + v(x_k) |0...0>)"
    source: ClassVar[str] = "a reconstruction after the abstract of Niu, Horesh and Chuang 2019, arXiv 1904.12933"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        memory_qubits: int = 2,
        eta: float = 1.0,
        flow: str = "exact",
        trotter_steps: int = 4,
        tied: bool = False,
        encoding: str = "linear",
        readout: str = "amplitudes",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            bias,
            hamiltonians=1,
            spare=positive_int("memory_qubits", memory_qubits),
            eta=eta,
            flow=flow,
            trotter_steps=trotter_steps,
            tied=tied,
            encoding=encoding,
            readout=readout,
            device=device,
            dtype=dtype,
        )
        self.memory_qubits = memory_qubits
        self.reset_parameters()

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> QUNNState:
        self.refuse(tau)
        psi = torch.complex(*state)
        v = complex_of(drive).unsqueeze(-1)
        inserted = pad(v, (0, 2**self.memory_qubits - 1)).flatten(1)
        psi = self.activate(self.evolve(psi.unsqueeze(1)).squeeze(1) + inserted)
        return QUNNState(psi.real, psi.imag)

    def order(self) -> tuple[int, int]:
        """Of the recurrence in psi, which is one-step in the register, whatever is read out."""
        return (1, 1)
