"""The full-capacity uRNN: any unitary matrix, over complex units."""

from __future__ import annotations

from typing import Any, ClassVar

from pendula._check import positive_int
from pendula.cells.complex_units import UnitaryCell
from pendula.cells.operators import DenseUnitary


class FullCapacityURNNCell(UnitaryCell):
    """The uRNN with any unitary matrix instead of a product of seven factors.

        h_t = modReLU_b(W h_{t-1} + V x_t),   W in U(N)

    Wisdom et al., arXiv 1611.00035 (spec sheet ``baselines.md`` 1.4). W stays unitary only under the geodesic step,
    which `pendula.make_optimiser` takes; other optimisers leave the manifold. Published counts give W the N^2
    dimensions of U(N); it is stored as 2 N^2 numbers.

    Args:
        input_size: I, features of the input.
        hidden_size: N, complex units.
        bias: whether modReLU has a bias b; without it modReLU is the identity and the network linear.
        init: start of W: "gaussian", the polar factor of a complex Gaussian, or "structured", a matrix of the uRNN.
        eps, bias_range, contracting: as for the uRNN.

    Parameters: V (2N, I), h_0 (2N,) and W.W (N, 2N) as [Re | Im]; b (N,).

    Shapes: drive (B, 2N); state re, im (B, N); output [Re h | Im h] (B, 2N).

    Errors: ValueError for an unknown init, a negative eps or bias_range.

    >>> bool(FullCapacityURNNCell(3, 8).W.defect() < 1e-5)
    True
    """

    source: ClassVar[str] = "Wisdom et al. 2016, arXiv 1611.00035"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        init: str = "gaussian",
        eps: float = 0.0,
        bias_range: float = 0.01,
        contracting: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        W = DenseUnitary(positive_int("hidden_size", hidden_size), init, device=device, dtype=dtype)
        super().__init__(input_size, hidden_size, bias, W, eps=eps, bias_range=bias_range, contracting=contracting)

    def manifold(self) -> dict[str, str]:
        return {"W.W": "unitary"}
