"""uRNN: a unitary recurrence of seven cheap factors, over complex units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from pendula._check import one_of, positive_int
from pendula.cells.base import once_per_scan
from pendula.cells.complex_units import UnitaryCell
from pendula.cells.operators import StructuredUnitary
from pendula.math.unitary import complex_of, pairs_of


class URNNCell(UnitaryCell):
    """Unitary evolution: seven cheap factors make a matrix that neither shrinks nor stretches the complex state.

        h_t = modReLU_b(W h_{t-1} + V x_t),   W = D_3 R_2 F^{-1} D_2 Pi R_1 F D_1

    Arjovsky, Shah and Bengio, ICML 2016, arXiv 1511.06464, equations as in spec sheet ``urnn.md`` 1. There is no input
    bias. With b <= 0 no step stretches a gradient; with b > 0 one can, without bound (sheet P4, derived there).

    Args:
        input_size: I, features of the input.
        hidden_size: N, complex units.
        bias: whether modReLU has a bias b; without it modReLU is the identity and the network linear.
        product: "fast", O(N log N) per step, or "dense": W as a matrix, made once per scan.
        eps: added to the modulus that modReLU divides by: 0 as in the paper, 1e-5 as in the authors' code.
        bias_range: r of the start b ~ U(-r, r): 0.01 as in the authors' code; 0 starts modReLU as the identity.
        contracting: take -|b| for b, so that no step stretches a gradient.

    Parameters: V (2N, I), h_0 (2N,) and W.v (2, 2N) as [Re | Im]; b (N,); W.theta (3, N); buffer W.perm (N,).

    Shapes: drive (B, 2N); state re, im (B, N); output [Re h | Im h] (B, 2N).

    Errors: ValueError for an unknown product, a negative eps or bias_range.

    >>> cell = URNNCell(3, 8)
    >>> state = cell.step(cell.initial_state(batch=2), cell.drive(torch.zeros(1, 2, 3))[0])
    >>> state.re.shape
    torch.Size([2, 8])
    """

    source: ClassVar[str] = "Arjovsky, Shah and Bengio 2016, arXiv 1511.06464"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        product: str = "fast",
        eps: float = 0.0,
        bias_range: float = 0.01,
        contracting: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        W = StructuredUnitary(positive_int("hidden_size", hidden_size), device=device, dtype=dtype)
        super().__init__(input_size, hidden_size, bias, W, eps=eps, bias_range=bias_range, contracting=contracting)
        self.product = one_of("product", product, ("fast", "dense"))

    @once_per_scan
    def matrix(self) -> Tensor:
        """W as a matrix."""
        return self.W.dense()

    def recur(self, h: Tensor) -> Tensor:
        return super().recur(h) if self.product == "fast" else h @ self.matrix.mT


AUTHOR_KEYS = ("V", "hidden_bias", "reflection", "theta", "h_0", "index_permute")


def urnn_author_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a `URNNCell` from those of the authors' code (amarshah/complex_RNN), tensors or arrays.

    Names and layouts as in their models.py: V (d, 2n), reflection (2, 2n) and h_0 (1, 2n) as [Re | Im], hidden_bias
    (n,), theta (3, n), index_permute (n,). Their files hold a list, in the order V, U, hidden_bias, reflection,
    out_bias, theta, h_0, and no permutation: ``numpy.random.RandomState(1234).permutation(n)``, as they seed it. U
    (2n, C) and out_bias (C,) are of the read-out, on [Re h | Im h], and are left alone. Their modReLU has eps = 1e-5.

    They reflect along conj(v) (spec sheet ``urnn.md``, conjugation subtlety), so the axes come out conjugated.

    Errors: ValueError when a name is missing or a size does not fit.
    """
    missing = [key for key in AUTHOR_KEYS if key not in state]
    if missing:
        raise ValueError(
            f"not the weights of a uRNN: {', '.join(missing)} missing, got {', '.join(state) or 'nothing'}"
        )
    V, b, reflection, theta, h_0, perm = (torch.as_tensor(state[key]) for key in AUTHOR_KEYS)
    n = b.numel()
    sizes = {"V": (V.shape[0], 2 * n), "reflection": (2, 2 * n), "theta": (3, n), "index_permute": (n,)}
    wrong = [k for k, size in sizes.items() if tuple(torch.as_tensor(state[k]).shape) != size]
    if wrong or h_0.numel() != 2 * n:
        got = ", ".join(f"{key} {tuple(torch.as_tensor(state[key]).shape)}" for key in AUTHOR_KEYS)
        raise ValueError(f"sizes of a uRNN of {n} units don't fit one another: got {got}")
    return {
        "V": V.T.clone(),
        "b": b.clone(),
        "h_0": h_0.flatten().clone(),
        "W.theta": theta.clone(),
        "W.v": pairs_of(complex_of(reflection).conj()),
        "W.perm": perm.to(torch.int64),
    }
