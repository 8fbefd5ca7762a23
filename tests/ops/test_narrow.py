"""Products of bfloat16 numbers on a processor that has them: what autocast asks for, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CoRNNCell
from pendula.ops import native
from tests import tolerance
from tests.ops.test_scans import SIZES, case
from tests.ops.test_triton import rounded as in_float

NARROWS = not native.missing() and native.narrows()
pytestmark = pytest.mark.skipif(not NARROWS, reason="this processor, or this library, has no products of bfloat16")


@contextmanager
def narrow() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def rounded(numbers: Tensor) -> Tensor:
    return numbers.float().bfloat16().to(numbers.dtype)


class Rounded(torch.autograd.Function):
    """A product of rounded operands; backward, the cotangent is rounded where the state's is made of it."""

    @staticmethod
    def forward(ctx: Any, operand: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(operand, weight)
        return rounded(operand) @ rounded(weight).mT

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> Any:
        operand, weight = ctx.saved_tensors
        return rounded(by) @ rounded(weight), by.mT @ operand


class RoundedCell(CoRNNCell):
    """coRNN whose products round as the processor does."""

    def force(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        y, z = state
        product = Rounded.apply
        return torch.tanh(drive + product(y, self.coupled(self.W)) + product(z, self.coupled(self.W_z)))

    def drive(self, x: Tensor) -> Tensor:
        found = Rounded.apply(x.flatten(0, 1), self.V).view(*x.shape[:2], -1)
        return found if self.b is None else found + self.b


def step_of(cell: CoRNNCell, x: Tensor, state: tuple[Tensor, ...], backend: str, **more: Any) -> list[Tensor]:
    """One step, and the gradients of the state and of all parameters."""
    own = [s.clone().requires_grad_() for s in state]
    outputs, last = pendula.scan(cell, x, cell.State(*own), backend=backend, **more)
    total = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()
    total = total + last.z.square().sum()
    return [outputs, *last, *torch.autograd.grad(total, [*own, *cell.parameters()])]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", ["explicit", "implicit"])
def test_a_step_is_that_of_rounded_operands_and_whole_sums(size: tuple[int, ...], variant: str) -> None:
    _, batch, units, inputs = size
    torch.manual_seed(0)
    physics: dict[str, Any] = {"dt": 0.3, "gamma": 1.5, "epsilon": 2.0, "variant": variant}
    cell = CoRNNCell(inputs, units, **physics)
    exact = RoundedCell(inputs, units, **physics, dtype=torch.float64)
    exact.load_state_dict({name: value.double() for name, value in cell.state_dict().items()})
    x, state = torch.randn(1, batch, inputs), tuple(torch.randn(2, batch, units))
    expected = step_of(exact, x.double(), tuple(s.double() for s in state), "reference")
    with narrow():
        found = step_of(cell, x, state, "fused")
    for one, other in zip(found, expected, strict=True):
        # of what is rounded backward, a few may be rounded to the other side
        off = float((one.detach().double() - other.detach()).norm())
        assert off <= 2e-5 * float(other.detach().norm()) + 1e-6 * other.numel() ** 0.5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("spans", "lengths"), [(False, False), (True, True)])
def test_over_time_it_differs_by_what_rounding_can_do(size: tuple[int, ...], spans: bool, lengths: bool) -> None:
    cell = CoRNNCell(size[3], size[2], dt=0.1, gamma=1.5, epsilon=2.0)
    torch.manual_seed(0)
    given = in_float(case(cell, *size[:2], spans=spans, lengths=lengths))
    given["state"] = cell.State(*given["state"])
    with torch.no_grad():
        whole = pendula.scan(cell, **given, backend="fused")[0]
        with narrow():
            found = pendula.scan(cell, **given, backend="fused")[0]
    assert 0 < float((found - whole).norm()) <= 0.02 * float(whole.norm())


def test_numbers_do_not_depend_on_threads_and_batch() -> None:
    layer, x = pendula.CoRNN(5, 130, backend="fused"), torch.randn(20, 7, 5)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with narrow(), torch.no_grad():
                found += [layer(x)[0], torch.cat([layer(x[:, i : i + 1])[0] for i in range(7)], 1)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found[1:])


@pytest.mark.parametrize("asked", ["nothing", "float16", "float64", "another instruction set"])
def test_nothing_else_rounds(asked: str) -> None:
    cell = CoRNNCell(5, 37, dtype=torch.float64 if asked == "float64" else torch.float32)
    x, usual = torch.randn(9, 4, 5, dtype=cell.W.dtype), native.instruction_sets()[0]
    try:
        if asked == "another instruction set":
            native.use_instruction_set("avx2")
        with torch.no_grad():
            whole = pendula.scan(cell, x, backend="fused")[0]
            kind = torch.float16 if asked == "float16" else torch.bfloat16
            with torch.autocast("cpu", dtype=kind, enabled=asked != "nothing"):
                found = pendula.scan(cell, x, backend="fused")[0]
    finally:
        native.use_instruction_set(usual)
    assert_close(found, whole, **tolerance.EXACT)


def test_a_narrow_scan_is_in_a_whole_graph() -> None:
    layer, x = pendula.CoRNN(3, 37), torch.randn(9, 4, 3)

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs: Tensor = layer(x)[0]
            return outputs

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    assert_close(compiled(x), run(x), **tolerance.EXACT)
