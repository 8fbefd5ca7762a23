"""QUNN: the hidden state is the amplitude vector of a few qubits, moved by Hamiltonians. A reconstruction."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from pendula._check import finite_number, one_of, positive_int
from pendula.cells.base import Cell, once_per_scan
from pendula.math import qubits
from pendula.math.unitary import complex_of, modrelu

FLOWS = ("exact", "trotter")
ENCODINGS = ("linear", "amplitude")
READOUTS = ("amplitudes", "expectations")


class QUNNState(NamedTuple):
    """Real and imaginary parts of the amplitudes: (B, t 2^q), newest lag first, or (B, 2^(q+m)) of a register."""

    re: Tensor
    im: Tensor


class QubitCell(Cell):
    """What both forms of QUNN share: Hamiltonians on a chain of qubits, their flow, the input and the read-out."""

    State: ClassVar[type[Any]] = QUNNState
    has_time_step: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        *,
        hamiltonians: int,
        spare: int,
        eta: float,
        flow: str,
        trotter_steps: int,
        tied: bool,
        encoding: str,
        readout: str,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.eta = finite_number("eta", eta)
        if self.eta <= 0:
            raise ValueError(f"eta must be positive, got {eta!r}")
        self.flow = one_of("flow", flow, FLOWS)
        self.trotter_steps = positive_int("trotter_steps", trotter_steps)
        self.tied = tied
        self.encoding = one_of("encoding", encoding, ENCODINGS)
        self.readout = one_of("readout", readout, READOUTS)
        # q data qubits hold N amplitudes; a lone amplitude needs one too
        self.qubits = max(1, (hidden_size - 1).bit_length())
        self.chain = self.qubits + spare
        size = 2**self.qubits
        if encoding == "amplitude" and input_size > size:
            raise ValueError(
                f"encoding='amplitude' puts {input_size} features into {size} amplitudes (hidden_size {hidden_size}): "
                f"take hidden_size at least {input_size}, or encoding='linear'"
            )
        place = {"device": device, "dtype": dtype}
        sites, bonds = (1, min(1, self.chain - 1)) if tied else (self.chain, self.chain - 1)
        self.a = nn.Parameter(torch.empty(hamiltonians, sites, **place))
        self.b = nn.Parameter(torch.empty(hamiltonians, sites, **place))
        self.J = nn.Parameter(torch.empty(hamiltonians, bonds, **place))
        self.beta = nn.Parameter(torch.empty(1, **place)) if bias else None
        self.V = nn.Parameter(torch.empty(2, size, input_size, **place)) if encoding == "linear" else None

    def reset_parameters(self) -> None:
        with torch.no_grad():
            for coupling in (self.a, self.b, self.J):
                coupling.uniform_(-math.pi / (4 * self.eta), math.pi / (4 * self.eta))
            if self.beta is not None:
                self.beta.zero_()
            if self.V is not None:
                # as the input map of a uRNN (sheet urnn.md 2)
                bound = math.sqrt(6 / (self.input_size + 2 * self.V.shape[1]))
                self.V.uniform_(-bound, bound)

    @property
    def output_size(self) -> int:
        return 2 * 2**self.chain if self.readout == "amplitudes" else self.qubits

    def couplings(self) -> tuple[Tensor, Tensor, Tensor]:
        """a and b (t, q), J (t, q - 1), spread over the sites where they are tied."""
        count, q = self.a.shape[0], self.chain
        return self.a.expand(count, q), self.b.expand(count, q), self.J.expand(count, q - 1)

    @once_per_scan
    def U(self) -> Tensor:
        return qubits.flow(*self.couplings(), self.eta)

    @once_per_scan
    def gates(self) -> Tensor:
        """(t, 2^q + q): half a phase of each amplitude, then the turn of each qubit."""
        return torch.cat(qubits.gates(*self.couplings(), self.eta, self.trotter_steps), -1)

    def evolve(self, psi: Tensor) -> Tensor:
        """U(theta_s) psi_s for every Hamiltonian s: (B, t, 2^q)."""
        if self.flow == "exact":
            return torch.einsum("tij,btj->bti", self.U, psi)
        half, turn = self.gates.tensor_split((2**self.chain,), -1)
        return qubits.strang(psi, half, turn, self.trotter_steps)

    def drive(self, x: Tensor) -> Tensor:
        """[Re v, Im v] of the encoded input: (T, B, 2 2^q)."""
        if self.V is None:
            return pad(x, (0, 2 * 2**self.qubits - self.input_size))
        return linear(x, self.V.flatten(0, 1))

    def activate(self, psi: Tensor) -> Tensor:
        return psi if self.beta is None else modrelu(psi, self.beta)

    def initial_state(self, batch: int) -> QUNNState:
        """Uniform amplitudes of norm one, at every lag."""
        size = 2**self.chain
        re = self.a.new_full((batch, self.a.shape[0] * size), size**-0.5)
        return QUNNState(re, torch.zeros_like(re))

    def output(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        # the newest lag, or the register
        re, im = (part[:, : 2**self.chain] for part in state)
        if self.readout == "amplitudes":
            return torch.cat((re, im), -1)
        return qubits.expectations(torch.complex(re, im))[:, : self.qubits]

    def refuse(self, tau: Tensor | None) -> None:
        if tau is not None:
            raise ValueError(
                f"{type(self).__name__} has no time step, so tau (timespans) can't scale it: "
                "each sequence would need unitaries of its own"
            )


class QUNNCell(QubitCell):
    """Amplitudes of q qubits; each past state within t steps comes back through a unitary of its own. Reconstructed.

        psi_k = modReLU_beta(sum_s w_s U(theta_s) psi_{k-s} + v(x_k)),   s = 1 .. t,   w = softmax(omega)
        U(theta) = exp(-i eta H),   H = sum_j a_j X_j + sum_j b_j Z_j + sum_j J_j Z_j Z_{j+1},   theta = (a, b, J)

    What is the paper's: QUNN is named and claimed in Niu, Horesh and Chuang 2019 (arXiv 1904.12933), whose abstract
    could be read and whose equations could not. It relates networks to integration methods of ODEs: degree of
    nonlinearity n to the stages of a Runge-Kutta recursion, range of memory t to the order of the derivative; LSTM and
    URNN lie at different orders; the relation gives sufficient conditions for stability; and QUNN needs training
    parameters linear in the range of memory only, not polynomial in the length of the data.

    What is this library's: everything else, every equation above included (spec sheet ``odernn.md`` 6.2). With
    N = 2^q amplitudes the recurrence has t (3q - 1) + t + 1 parameters: linear in t, logarithmic in N; tied, 4t + 1,
    and no longer universal (the flows no longer generate every unitary: `pendula.math.qubits.lie_dimension`). For
    beta <= 0 a step never moves two windows of states apart in the norm ``max_s |psi_{k-s}|``. With beta = 0 (or
    bias=False), lags=1 and no input |psi_k| is constant. With more lags amplitudes that meet out of step shrink.

    Args:
        input_size: I, features of the input.
        hidden_size: N, amplitudes; rounded up to 2^q with q >= 1 qubits, so that states have 2^q of them.
        bias: whether the modReLU has its bias beta, one number; without it the step is linear.
        lags: t, range of memory in steps; at one the weight omega is idle.
        eta: how long each Hamiltonian acts, positive. No time step: states don't converge as it gets small.
        flow: "exact" (a dense matrix exponential, once per scan: up to some 10 qubits), or "trotter" (the Strang
            product of `trotter_steps` layers of gates, as unitary, O(L q 2^q) per step).
        trotter_steps: L.
        tied: one a, b and J for all sites.
        encoding: v(x): "linear" (V x with a complex V) or "amplitude" (x itself, padded with zeros; no parameters).
        readout: "amplitudes" (Re psi and Im psi, 2 2^q numbers) or "expectations" (<Z_j>, q numbers).

    Shapes: drive (B, 2 2^q); state re, im (B, t 2^q), newest first; it starts uniform with norm one at every lag.
    Parameters a, b (t, q), J (t, q - 1) (tied: (t, 1) each), omega (t,), beta (1,), V (2, 2^q, I), real part first.

    Errors: ValueError for an eta that is not positive, or more features than amplitudes with encoding="amplitude".
    `tau` is refused: a step of another length would need unitaries of its own for each sequence.

    >>> cell = QUNNCell(3, 8, lags=2)
    >>> state = cell.step(cell.initial_state(batch=5), cell.drive(torch.zeros(1, 5, 3))[0])
    >>> state.re.shape, cell.output_size
    (torch.Size([5, 16]), 16)
    """

    equation: ClassVar[str] = "psi_k = modReLU(sum_s w_s exp(-i eta H_s) psi_{k-s} + v(x_k))"
    source: ClassVar[str] = "a reconstruction after the abstract of Niu, Horesh and Chuang 2019, arXiv 1904.12933"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        lags: int = 2,
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
            hamiltonians=positive_int("lags", lags),
            spare=0,
            eta=eta,
            flow=flow,
            trotter_steps=trotter_steps,
            tied=tied,
            encoding=encoding,
            readout=readout,
            device=device,
            dtype=dtype,
        )
        self.lags = lags
        self.omega = nn.Parameter(torch.empty(lags, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.omega)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> QUNNState:
        self.refuse(tau)
        window = torch.complex(*state).view(len(drive), self.lags, -1)
        w = torch.softmax(self.omega, 0).unsqueeze(-1)
        v = complex_of(drive)
        psi = self.activate((w * self.evolve(window)).sum(1) + v)
        window = torch.cat((psi.unsqueeze(1), window[:, :-1]), 1).flatten(1)
        return QUNNState(window.real, window.imag)

    def order(self) -> tuple[int, int]:
        """Of the recurrence in psi (sheet 6.2), whatever is read out."""
        return (1, self.lags)
