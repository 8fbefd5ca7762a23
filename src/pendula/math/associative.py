"""Linear recurrences over all times at once: the composition of affine maps is associative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pendula._check import ShapeError


def linear_recurrence(M: Tensor, F: Tensor, s0: Tensor) -> Tensor:
    """All states of a linear recurrence with a small matrix per unit, in 2 log2(T) rounds instead of T steps.

        s_n = M_n s_{n-1} + F_n,   n = 1 .. T

    Two steps are one step with ``M_{2n} M_{2n-1}`` and ``M_{2n} F_{2n-1} + F_{2n}``: the recurrence of half the
    length gives the even states, one product more gives the odd ones (cyclic reduction, Blelloch 1990). The work is
    O(T). Backward, the cotangents obey the same recurrence, transposed and run from the end; what is kept is M and the
    states. It can be differentiated again.

    Args:
        M: k x k blocks, (k, k, *units), the same at all times, or (k, k, T, *units).
        F: (k, T, *units).
        s0: the state before the first step, (k, *units).

    Shapes: the units of M may have fewer dimensions than those of F, or size 1; the states are (k, T, *units).

    Errors: ShapeError where the shapes don't fit.

    >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).reshape(2, 2, 1)
    >>> linear_recurrence(turn, torch.zeros(2, 5, 1), torch.tensor([[1.0], [0.0]]))[0].flatten()
    tensor([ 0., -1.,  0.,  1.,  0.])
    """
    k, steps, *units = F.shape
    if steps < 1 or s0.shape != (k, *units):
        raise ShapeError(f"F must be (k, T, *units) and s0 (k, *units), got {tuple(F.shape)} and {tuple(s0.shape)}")
    if M.dim() <= F.dim():
        M = _spread(M, F.dim() - 1).unsqueeze(2)
    ahead = zip(M.shape[3:], units, strict=False)
    if M.shape[:2] != (k, k) or M.dim() != F.dim() + 1 or any(have not in (1, need) for have, need in ahead):
        raise ShapeError(f"M must be (k, k, *units) or (k, k, T, *units) for F {tuple(F.shape)}, got {tuple(M.shape)}")
    if M.shape[2] not in (1, steps):
        raise ShapeError(f"M must have {steps} times, as F has, got {M.shape[2]}")
    states: Tensor = _LinearRecurrence.apply(M, F, s0)  # type: ignore[no-untyped-call]
    return states


def linear_adjoint(M: Tensor, g: Tensor) -> Tensor:
    """Cotangents of all F of `linear_recurrence` from those of its states: ``l_n = g_n + M_{n+1}^T l_{n+1}``.

    That of s0 is ``M_1^T l_1``. Shapes: M (k, k, T or 1, *units), g and what is returned (k, T, *units).

    >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).reshape(2, 2, 1, 1)
    >>> linear_adjoint(turn, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).unsqueeze(-1))[1].flatten()
    tensor([ 0., -1.,  0.])
    """
    transposed = M.transpose(0, 1)
    # it starts from zero, so which block stands at the end doesn't matter
    back = transposed if M.shape[2] == 1 else transposed.flip(2).roll(1, 2)
    return linear_recurrence(back, g.flip(1), torch.zeros_like(g[:, 0])).flip(1)


def matvec(M: Tensor, s: Tensor) -> Tensor:
    """Blocks (k, k, *units) times vectors (k, *units); the units of M may have fewer dimensions.

    >>> matvec(torch.tensor([[1.0, 2.0], [0.0, 1.0]]).unsqueeze(-1), torch.ones(2, 3)).tolist()
    [[3.0, 3.0, 3.0], [1.0, 1.0, 1.0]]
    """
    M = _spread(M, s.dim())
    total = M[:, 0] * s[0]
    for j in range(1, len(s)):
        total = total + M[:, j] * s[j]
    return total


def _spread(M: Tensor, dims: int) -> Tensor:
    """Dimensions of size 1 put before the units of M, up to `dims` - 1 of them."""
    missing = dims + 1 - M.dim()
    return M.reshape(*M.shape[:2], *[1] * missing, *M.shape[2:]) if missing > 0 else M


def _matmul(M: Tensor, N: Tensor) -> Tensor:
    total = M[:, 0].unsqueeze(1) * N[0]
    for j in range(1, len(N)):
        total = total + M[:, j].unsqueeze(1) * N[j]
    return total


def _reduced(M: Tensor, F: Tensor, s0: Tensor) -> Tensor:
    """The states, by cyclic reduction. M has a time axis of size 1 or T."""
    steps = F.shape[1]
    constant = M.shape[2] == 1
    first = M if constant else M[:, :, 0::2]
    if steps == 1:
        return matvec(M, s0.unsqueeze(1)) + F
    second = M if constant else M[:, :, 1::2]
    pairs = steps // 2
    paired = first if constant else first[:, :, :pairs]
    after_two = _reduced(_matmul(second, paired), matvec(second, F[:, 0 : 2 * pairs : 2]) + F[:, 1::2], s0)
    before = torch.cat((s0.unsqueeze(1), after_two[:, : steps - pairs - 1]), 1)
    after_one = matvec(first, before) + F[:, 0::2]
    states = torch.stack((after_one[:, :pairs], after_two), 2).flatten(1, 2)
    return states if steps == 2 * pairs else torch.cat((states, after_one[:, pairs:]), 1)


class _LinearRecurrence(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(M: Tensor, F: Tensor, s0: Tensor) -> Tensor:
        return _reduced(M, F, s0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        M, _, s0 = inputs
        ctx.save_for_backward(M, s0, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        M, s0, states = ctx.saved_tensors
        (g,) = grads
        l = linear_adjoint(M, g)
        by_M = None
        if ctx.needs_input_grad[0]:
            before = torch.cat((s0.unsqueeze(1), states[:, :-1]), 1)
            rows = (torch.stack([(row * column).sum_to_size(M.shape[2:]) for column in before]) for row in l)
            by_M = torch.stack(list(rows))
        return by_M, l, matvec(M.transpose(0, 1)[:, :, 0], l[:, 0])
