"""Products of bfloat16 numbers on a processor that has them: what autocast asks for, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CoRNNCell, LEMCell, UnICORNNCell
from pendula.cells.base import Cell
from pendula.cells.lem import LEMState
from pendula.ops import native
from tests import tolerance
from tests.ops.scan_cases import SIZES, case, everything
from tests.ops.test_triton import rounded as in_float

NARROWS = not native.missing() and native.narrows()
FEW = 32
"""Inputs up to which UnICORNN rounds nothing: it would not be faster."""
pytestmark = pytest.mark.skipif(not NARROWS, reason="this processor, or this library, has no products of bfloat16")


@contextmanager
def narrow() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def rounded(numbers: Tensor) -> Tensor:
    return numbers.float().bfloat16().to(numbers.dtype)


class Rounded(torch.autograd.Function):
    """A product of rounded operands; backward, the cotangent is rounded where the operand's is made of it, if asked."""

    @staticmethod
    def forward(ctx: Any, operand: Tensor, weight: Tensor, backward: bool = True) -> Tensor:
        ctx.save_for_backward(operand, weight)
        ctx.round = rounded if backward else Tensor.clone
        return rounded(operand) @ rounded(weight).mT

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> Any:
        operand, weight = ctx.saved_tensors
        return ctx.round(by) @ ctx.round(weight), by.mT @ operand, None


product = Rounded.apply


class Driven(Cell):
    """A cell whose drive rounds as the processor does."""

    beyond = math.inf
    """Inputs beyond which the product with the transpose of V is one of rounded operands too."""

    def drive(self, x: Tensor) -> Tensor:
        found = product(x.flatten(0, 1), self.V, x.shape[2] > self.beyond).view(*x.shape[:2], -1)
        return found + super().drive(torch.zeros_like(x))


class RoundedCoRNN(Driven, CoRNNCell):
    def force(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        y, z = state
        return torch.tanh(drive + product(y, self.coupled(self.W)) + product(z, self.coupled(self.W_z)))


class RoundedLEM(Driven, LEMCell):
    beyond = 16

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> LEMState:
        y, z = state
        d_1, d_2, d_z, d_y = drive.chunk(4, -1)
        a_1, a_2, a_z = product(y, self.W).chunk(3, -1)
        dt = self.dt if tau is None else self.dt * tau
        z = torch.lerp(z, torch.tanh(d_z + a_z), dt * torch.sigmoid(d_1 + a_1))
        y = torch.lerp(y, torch.tanh(d_y + product(z, self.W_y)), dt * torch.sigmoid(d_2 + a_2))
        return LEMState(y, z)


class RoundedUnICORNN(Driven, UnICORNNCell):
    beyond = FEW

    def drive(self, x: Tensor) -> Tensor:
        return super().drive(x) if x.shape[2] > FEW else UnICORNNCell.drive(self, x)


DAMPED: dict[str, Any] = {"dt": 0.3, "gamma": 1.5, "epsilon": 2.0}
NETWORKS: dict[str, tuple[type[Cell], type[Cell], dict[str, Any]]] = {
    "coRNN": (CoRNNCell, RoundedCoRNN, DAMPED),
    "coRNN implicit": (CoRNNCell, RoundedCoRNN, DAMPED | {"variant": "implicit"}),
    "LEM": (LEMCell, RoundedLEM, {"dt": 0.7}),
    "UnICORNN": (UnICORNNCell, RoundedUnICORNN, {"dt": 0.6, "alpha": 1.5, "memory": "store"}),
    "UnICORNN reversed": (UnICORNNCell, RoundedUnICORNN, {"dt": 0.6, "alpha": 1.5, "memory": "reverse"}),
}
"""A cell, the same whose products round, physics."""
EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS)
LAYER = pytest.mark.parametrize("layer", ["CoRNN", "LEM", "UnICORNN"])


def made(network: str, inputs: int, units: int, *, exact: bool = False, **more: Any) -> Cell:
    kind: Any = NETWORKS[network][1 if exact else 0]
    physics = NETWORKS[network][2] | more
    if exact and "memory" in physics:
        # its own backward pass knows nothing of rounding
        physics["memory"] = "tape"
    cell: Cell = kind(inputs, units, **physics)
    return cell


def step_of(cell: Cell, x: Tensor, state: tuple[Tensor, ...], backend: str, **more: Any) -> list[Tensor]:
    """One step, and the gradients of input, state and all parameters."""
    own = [s.clone().requires_grad_() for s in (x, *state)]
    outputs, last = pendula.scan(cell, own[0], cell.State(*own[1:]), backend=backend, **more)
    total = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()
    total = total + last[1].square().sum()
    return [outputs, *last, *torch.autograd.grad(total, [*own, *cell.parameters()])]


@EVERY_NETWORK
@pytest.mark.parametrize("size", [*SIZES, (20, 7, 130, 37)])
def test_a_step_is_that_of_rounded_operands_and_whole_sums(network: str, size: tuple[int, ...]) -> None:
    _, batch, units, inputs = size
    torch.manual_seed(0)
    cell = made(network, inputs, units)
    exact = made(network, inputs, units, exact=True, dtype=torch.float64)
    exact.load_state_dict({name: value.double() for name, value in cell.state_dict().items()})
    x, state = torch.randn(1, batch, inputs), tuple(torch.randn(2, batch, units))
    expected = step_of(exact, x.double(), tuple(s.double() for s in state), "reference")
    with narrow():
        found = step_of(cell, x, state, "fused")
    for one, other in zip(found, expected, strict=True):
        # of what is rounded on the way, a few may be rounded to the other side
        off = float((one.detach().double() - other.detach()).norm())
        assert off <= 2e-5 * float(other.detach().norm()) + 1e-6 * other.numel() ** 0.5


@EVERY_NETWORK
@pytest.mark.parametrize("size", [*SIZES, (20, 7, 130, 37)])
@pytest.mark.parametrize(("spans", "lengths"), [(False, False), (True, True)])
@pytest.mark.usefixtures("scratch_is_nan")
def test_over_time_it_differs_by_what_rounding_can_do(
    network: str, size: tuple[int, ...], spans: bool, lengths: bool
) -> None:
    cell = made(network, size[3], size[2], **({"dt": 0.1} if "coRNN" in network else {}))
    torch.manual_seed(0)
    given = in_float(case(cell, *size[:2], spans=spans, lengths=lengths))
    whole = everything(cell, given, "fused")
    with narrow():
        found = everything(cell, given, "fused")
    assert torch.equal(found["outputs"], whole["outputs"]) == ("UnICORNN" in network and size[3] <= FEW)
    for name, expected in whole.items():
        assert float((found[name] - expected).norm()) <= 0.02 * float(expected.norm()) + 1e-6, name


@LAYER
def test_numbers_do_not_depend_on_threads_and_batch(layer: str) -> None:
    net, x = pendula.LAYERS[layer](35, 130, backend="fused"), torch.randn(20, 7, 35)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with narrow(), torch.no_grad():
                found += [net(x)[0], torch.cat([net(x[:, i : i + 1])[0] for i in range(7)], 1)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found[1:])


@pytest.mark.parametrize("network", ["UnICORNN", "UnICORNN reversed"])
def test_gradients_are_the_same_where_threads_share_units(network: str) -> None:
    cell = made(network, 70, 200)
    given = in_float(case(cell, 150, 2, spans=False, lengths=True))
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with narrow():
                found.append(everything(cell, given, "fused"))
    finally:
        torch.set_num_threads(1)
    assert_close(found[1], found[0], **tolerance.EXACT)


@pytest.mark.parametrize("asked", ["nothing", "float16", "float64", "another instruction set"])
@EVERY_NETWORK
def test_nothing_else_rounds(network: str, asked: str) -> None:
    dtype = torch.float64 if asked == "float64" else torch.float32
    cell = made(network, 35, 37, dtype=dtype)
    x, usual = torch.randn(9, 4, 35, dtype=dtype), native.instruction_sets()[0]
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


@LAYER
def test_what_is_not_a_number_stays_so(layer: str) -> None:
    net, x = pendula.LAYERS[layer](37, 5, backend="fused"), torch.randn(4, 3, 37)
    # every bit of it is set: to round it as a number is would make a zero
    x.view(torch.int32)[0, 0, 3] = x.view(torch.int32)[0, 1, 36] = 0x7FFFFFFF
    with narrow(), torch.no_grad():
        found = net(x)[0]
    assert bool(found[:, :2].isnan().all())
    assert not bool(found[:, 2].isnan().any())


@LAYER
def test_a_narrow_scan_is_in_a_whole_graph(layer: str) -> None:
    net, x = pendula.LAYERS[layer](35, 37), torch.randn(9, 4, 35)

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs: Tensor = net(x)[0]
            return outputs

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    assert_close(compiled(x), run(x), **tolerance.EXACT)
