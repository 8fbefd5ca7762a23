"""The spectral-margin RNN: an Elman network whose recurrent matrix keeps its singular values near 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pendula._check import ShapeError, finite_number, one_of
from pendula.cells.base import Cell, once_per_scan
from pendula.math.orthogonal import margin_inverse, margin_map, orthogonality_penalty


def identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "identity": identity}
STARTS = ("orthogonal", "identity", "glorot")
FREE = "free"


class SpectralRNNState(NamedTuple):
    """Hidden state h (B, N)."""

    h: Tensor


class SpectralRNNCell(Cell):
    """An Elman network with a factorised recurrent matrix.

        h_t = phi(W h_{t-1} + W_in x_t + b),   W = U diag(s) V^T,   U^T U = V^T V = I
        s = 2 m (sigmoid(p) - 1/2) + 1,   between 1 - m and 1 + m

    Vorontsov, Trabelsi, Kadoury and Pal, ICML 2017, arXiv 1702.00071 (spec sheet ``spectral.md``, equations 1 and 2).
    A step multiplies distances and gradients by at most 1 + m. U and V stay orthogonal only under
    `pendula.make_optimiser` (`pendula train` uses it), which moves them by Cayley transforms; a layer that is trained
    otherwise says so. Penalties act through `penalty`, which training adds to the loss. The paper also decays the
    read-out, which is no part of the cell.

    Args:
        input_size: I, features of the input.
        hidden_size: N, number of units.
        bias: whether there is a bias b.
        margin: m, from 0 to 1; at 0 the singular values are 1, W is orthogonal and there is no p. Or "free": no
            margin, s = relu of a free parameter, a plain Elman network.
        activation: phi, "tanh" or "identity" (the paper's choice for the copy task).
        init: W at the start: "orthogonal", "identity", or "glorot" (normal; with margin="free" only, as its singular
            values don't keep within a margin).
        orthogonality: weight of the penalty |W^T W - I|_F^2, at least 0.
        prior: weight of the penalty sum (s - 1)^2 (a Gaussian prior around 1), at least 0.
        decay: weight of the sum of squares of W, as a whole, and W_in, at least 0.
        rate_by_margin: whether the learning rate of p is divided by 2 m, as in the paper: under Adam and RMSProp s
            then moves equally fast whatever the margin (spec sheet 2.3).

    Shapes: drive (B, N); state h (B, N); output h. The initial state h_0 is trained; there is no time step.

    Errors: ValueError for a margin that is neither in [0, 1] nor "free", a negative weight, or "glorot" in a margin.

    >>> cell = SpectralRNNCell(3, 8, margin=0.2)
    >>> singular_values = torch.linalg.svdvals(cell.W)
    >>> bool((singular_values - 1).abs().max() < 0.2)
    True
    """

    State: ClassVar[type[Any]] = SpectralRNNState
    equation: ClassVar[str] = "h_t = phi(U diag(s) V^T h_{t-1} + W_in x_t + b),  |s - 1| < m"
    source: ClassVar[str] = "Vorontsov et al. 2017, arXiv 1702.00071"
    has_time_step: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        margin: Any = 0.3,
        activation: str = "tanh",
        init: str = "orthogonal",
        orthogonality: float = 0.0,
        prior: float = 0.0,
        decay: float = 0.0,
        rate_by_margin: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.margin = _margin(margin)
        self.activation = one_of("activation", activation, ACTIVATIONS)
        self.init = one_of("init", init, STARTS)
        if self.init == "glorot" and self.margin != FREE:
            raise ValueError(f"init='glorot' does not keep margin={margin}: take margin='free', or init='orthogonal'")
        for name, weight in (("orthogonality", orthogonality), ("prior", prior), ("decay", decay)):
            if finite_number(name, weight) < 0:
                raise ValueError(f"{name} must be at least 0, got {weight}")
        self.orthogonality, self.prior, self.decay = float(orthogonality), float(prior), float(decay)
        self.rate_by_margin = bool(rate_by_margin)
        place = {"device": device, "dtype": dtype}
        N = self.hidden_size
        self.U = nn.Parameter(torch.empty(N, N, **place))
        self.V = nn.Parameter(torch.empty(N, N, **place))
        # at margin 0 nothing is left to learn; without a margin the singular values themselves are
        self.p = nn.Parameter(torch.empty(N, **place)) if self.margin not in (0, FREE) else None
        self.free_s = nn.Parameter(torch.empty(N, **place)) if self.margin == FREE else None
        self.W_in = nn.Parameter(torch.empty(N, self.input_size, **place))
        self.b = nn.Parameter(torch.empty(N, **place)) if bias else None
        self.h_0 = nn.Parameter(torch.empty(N, **place))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        N = self.hidden_size
        W = torch.randn(N, N, dtype=torch.float64, device=self.U.device)
        if self.init == "glorot":
            self.factorise_(W * N**-0.5)
        else:
            U, _, Vh = torch.linalg.svd(W)
            self._store(U, torch.ones_like(U[0]), U if self.init == "identity" else Vh.mT)
        with torch.no_grad():
            self.W_in.uniform_(-0.01, 0.01)
            self.h_0.zero_()
            if self.b is not None:
                self.b.zero_()

    def factorise_(self, W: Tensor) -> None:
        """Take over a recurrent matrix (N, N). Errors: ValueError when its singular values don't keep the margin."""
        if W.shape != self.U.shape:
            raise ShapeError(f"W must be (N, N) = {tuple(self.U.shape)}, got {tuple(W.shape)}")
        U, s, Vh = torch.linalg.svd(W.detach().to(self.U.device, torch.float64))
        self._store(U, s, Vh.mT)

    def _store(self, U: Tensor, s: Tensor, V: Tensor) -> None:
        if self.margin == 0 and s.device.type != "meta" and bool(((s - 1).abs() > 1e-6).any()):
            raise ValueError(
                f"margin=0 needs an orthogonal W, got singular values {float(s.min()):.6g} to {float(s.max()):.6g}: "
                "take a wider margin"
            )
        p = None if self.p is None else margin_inverse(s, self.margin)
        with torch.no_grad():
            self.U.copy_(U)
            self.V.copy_(V)
            if self.p is not None and p is not None:
                self.p.copy_(p)
            if self.free_s is not None:
                self.free_s.copy_(s)

    @property
    def s(self) -> Tensor:
        """The singular values of W (N), in the order of the columns of U and V."""
        if self.free_s is not None:
            return torch.relu(self.free_s)
        return torch.ones_like(self.h_0) if self.p is None else margin_map(self.p, self.margin)

    @once_per_scan
    def W(self) -> Tensor:
        """The recurrent matrix (N, N), put together once per scan."""
        return (self.U * self.s) @ self.V.mT

    def initial_state(self, batch: int) -> SpectralRNNState:
        return SpectralRNNState(self.h_0.expand(batch, -1))

    def drive(self, x: Tensor) -> Tensor:
        return linear(x, self.W_in, self.b)

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> SpectralRNNState:
        if tau is not None:
            raise ValueError(f"{type(self).__name__} has no time step, so tau (timespans) can't scale it")
        (h,) = state
        return SpectralRNNState(ACTIVATIONS[self.activation](drive + linear(h, self.W)))

    def order(self) -> tuple[int, int]:
        return (1, 1)

    def manifold(self) -> dict[str, str]:
        return {"U": "orthogonal", "V": "orthogonal"}

    def rates(self) -> dict[str, float]:
        return {"p": 1 / (2 * self.margin)} if self.rate_by_margin and self.p is not None else {}

    def penalty(self) -> Tensor | None:
        total = None
        if self.orthogonality:
            total = self.orthogonality * orthogonality_penalty(self.W)
        if self.prior:
            total = _plus(total, self.prior * (self.s - 1).square().sum())
        if self.decay:
            total = _plus(total, self.decay * (self.W.square().sum() + self.W_in.square().sum()))
        return total

    def spectrum(self) -> dict[str, float]:
        """Least, mean and largest singular value of W, and their standard deviation, for a record of a training."""
        s = self.s.detach()
        return {
            "min": float(s.min()),
            "mean": float(s.mean()),
            "max": float(s.max()),
            "std": float(s.std(correction=0)),
        }


def _margin(value: Any) -> Any:
    if isinstance(value, str) and value == FREE:
        return FREE
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"margin must be a number from 0 to 1, or 'free' (no margin), got {value!r}")
    return float(value)


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b
