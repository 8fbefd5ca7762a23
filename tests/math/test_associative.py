"""The associative scan against the loop it replaces: states, every gradient, second derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from pendula import ShapeError
from pendula.math.associative import linear_recurrence, matvec
from tests import tolerance

STEPS = pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 37, 63, 64, 100])
# which dimensions M has before the units: none, one per batch, time, time and batch of one, both
KINDS = pytest.mark.parametrize("kind", ["constant", "batch", "time", "both"])
B, P = 3, 4


def drawn(steps: int, kind: str = "both", k: int = 2) -> list[Tensor]:
    """M of Frobenius norm 0.9, so that rounding errors do not grow; F and s0."""
    shape = {"constant": (), "batch": (B,), "time": (steps, 1), "both": (steps, B)}[kind]
    M = torch.randn(k, k, *shape, P).double()
    return [0.9 * M / M.norm(dim=(0, 1)), torch.randn(k, steps, B, P).double(), torch.randn(k, B, P).double()]


def loop(M: Tensor, F: Tensor, s: Tensor) -> Tensor:
    """The definition, one step after another."""
    k, steps = F.shape[:2]
    seen = []
    for n in range(steps):
        now = M if M.dim() <= F.dim() else M[:, :, n]
        s = torch.stack([sum(now[i, j] * s[j] for j in range(k)) + F[i, n] for i in range(k)])
        seen.append(s)
    return torch.stack(seen, 1)


@STEPS
@KINDS
def test_all_states_are_those_of_the_loop(steps: int, kind: str) -> None:
    given = drawn(steps, kind)
    assert_close(linear_recurrence(*given), loop(*given), **tolerance.ROUNDING)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_blocks_may_have_any_size(k: int) -> None:
    given = drawn(11, k=k)
    assert_close(linear_recurrence(*given), loop(*given), **tolerance.ROUNDING)


def test_units_may_have_any_dimensions() -> None:
    M, F, s0 = 0.5 * torch.randn(2, 2, 1).double(), torch.randn(2, 9).double(), torch.randn(2).double()
    assert_close(
        linear_recurrence(M[..., 0], F, s0), loop(M, F.unsqueeze(-1), s0.unsqueeze(-1))[..., 0], **tolerance.ROUNDING
    )


@STEPS
@KINDS
def test_gradients_are_those_of_the_loop(steps: int, kind: str) -> None:
    found = []
    given = drawn(steps, kind)
    cotangent = torch.randn(2, steps, B, P).double()
    for function in (linear_recurrence, loop):
        leaves = [g.clone().requires_grad_() for g in given]
        found.append(torch.autograd.grad(function(*leaves), leaves, cotangent))
    assert_close(*found, **tolerance.ROUNDING)


@pytest.mark.parametrize("steps", [1, 2, 5])
@KINDS
def test_first_and_second_derivatives_are_those_of_finite_differences(steps: int, kind: str) -> None:
    given = [g.requires_grad_() for g in drawn(steps, kind)]
    assert gradcheck(linear_recurrence, given)
    assert gradgradcheck(linear_recurrence, given)


def test_second_derivatives_are_those_of_the_loop() -> None:
    found = []
    given = drawn(13)
    for function in (linear_recurrence, loop):
        leaves = [g.clone().requires_grad_() for g in given]
        first = torch.autograd.grad(function(*leaves).pow(3).sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(f.pow(2).sum() for f in first), leaves))
    assert_close(*found, **tolerance.ROUNDING)


@pytest.mark.parametrize("wanted", range(3))
def test_each_argument_may_want_a_gradient_alone(wanted: int) -> None:
    given = drawn(6)
    given[wanted].requires_grad_()
    linear_recurrence(*given).sum().backward()
    assert bool((given[wanted].grad != 0).any())


def test_it_is_batched_by_vmap() -> None:
    M, F, s0 = drawn(5, "constant")
    many = torch.randn(7, *F.shape).double()
    mapped = torch.vmap(linear_recurrence, (None, 0, None))(M, many, s0)
    assert_close(mapped, torch.stack([loop(M, one, s0) for one in many]), **tolerance.ROUNDING)


def test_a_turn_comes_round_after_ten_thousand_steps() -> None:
    angle = 2 * math.pi / 100
    c, s = math.cos(angle), math.sin(angle)
    M = torch.tensor([[[c], [-s]], [[s], [c]]], dtype=torch.float64)
    start = torch.tensor([[1.0], [0.0]]).double()
    states = linear_recurrence(M, torch.zeros(2, 10_000, 1).double(), start)
    assert_close(states[:, -1], start, rtol=0, atol=1e-11)


def test_what_is_kept_for_the_backward_pass_does_not_grow_faster_than_the_sequence() -> None:
    def kept(steps: int) -> int:
        sizes: list[int] = []
        given = [g.requires_grad_() for g in drawn(steps, "constant")]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()), lambda _: None):
            linear_recurrence(*given)
        return sum(sizes)

    assert kept(1024) - kept(512) == 512 * 2 * B * P


def test_a_long_sequence_takes_no_more_calls_than_its_logarithm() -> None:
    def calls(steps: int) -> int:
        with torch.profiler.profile() as profile:
            linear_recurrence(*drawn(steps, "constant"))
        return sum(event.name == "aten::mul" for event in profile.events())

    assert calls(1024) - calls(512) == calls(512) - calls(256) < 20


def test_matvec_is_the_product_of_blocks_and_vectors() -> None:
    M, s = torch.randn(2, 2, P).double(), torch.randn(2, 5, B, P).double()
    assert_close(matvec(M, s), torch.einsum("ijp,jtbp->itbp", M, s), **tolerance.ROUNDING)


@pytest.mark.parametrize(
    ("M", "F", "s0", "said"),
    [
        ((2, 2, P), (2, 5, B, P), (2, P), r"F must be \(k, T, \*units\) and s0 \(k, \*units\), got .*\(2, 4\)"),
        ((2, 2, P), (2, 0, B, P), (2, B, P), r"F must be"),
        ((3, 3, P), (2, 5, B, P), (2, B, P), r"M must be \(k, k, \*units\).*got \(3, 3, 1, 1, 4\)"),
        ((2, 2, P + 1), (2, 5, B, P), (2, B, P), r"M must be \(k, k, \*units\)"),
        ((2, 2, 4, B, P), (2, 5, B, P), (2, B, P), r"M must have 5 times, as F has, got 4"),
        ((2, 2, 1, 5, B, P), (2, 5, B, P), (2, B, P), r"M must be"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(M: Any, F: Any, s0: Any, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        linear_recurrence(torch.zeros(M), torch.zeros(F), torch.zeros(s0))
