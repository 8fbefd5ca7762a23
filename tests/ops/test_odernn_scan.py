"""What the compiled scan of ODERNN has that others have not: tableaux, orders, a drive between two samples."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import ODERNNCell
from pendula.math.schemes import TABLEAUX
from pendula.ops import native, odernn
from pendula.ops.odernn_scan import ODERNN_SCAN
from tests import tolerance
from tests.ops.scan_cases import arguments, case, everything

pytestmark = pytest.mark.skipif(isinstance(native.load(), str), reason=f"{native.load()}")
SCHEMES = [*TABLEAUX, "semi-implicit"]
# Kutta's 3/8 rule, one whose last stage nothing takes, and two stages that don't see one another
OWN = {
    "3/8": {
        "A": [[0, 0, 0, 0], ["1/3", 0, 0, 0], ["-1/3", 1, 0, 0], [1, -1, 1, 0]],
        "b": ["1/8", "3/8", "3/8", "1/8"],
    },
    "five stages": {
        "A": [[0] * 5, [0.5, *[0] * 4], [0, 0.5, 0, 0, 0], [0, 0, 1, 0, 0], [0.2, 0.1, 0.3, 0.4, 0]],
        "b": ["1/6", "1/3", "1/3", "1/6", 0],
    },
    "parallel": {"A": [[0, 0], [0, 0]], "b": ["1/4", "3/4"]},
}


def close(cell: ODERNNCell, given: dict[str, Any]) -> None:
    """Every number of the compiled scan is the reference's."""
    expected, found = everything(cell, given, "reference"), everything(cell, given, "fused")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        error = float((found[name] - value).abs().max())
        assert error <= 1e-12 * max(1.0, float(value.abs().max())), (name, error)


@pytest.mark.parametrize("tableau", SCHEMES)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("input", ["hold", "linear"])
@pytest.mark.usefixtures("scratch_is_nan")
def test_every_scheme_and_order_has_the_numbers_of_the_reference(
    tableau: str, order: int, input: str, instruction_set: str
) -> None:
    physics: dict[str, Any] = {"learnable": ("dt", "gamma")} if order < 5 else {"dt": 0.05}
    cell = ODERNNCell(3, 37, tableau=tableau, order=order, input=input, dtype=torch.float64, **physics)
    close(cell, case(cell, 30, 7, spans=False, lengths=True))


@pytest.mark.parametrize("tableau", OWN)
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.usefixtures("scratch_is_nan")
def test_a_tableau_of_ones_own_has_the_numbers_of_the_reference(tableau: str, order: int) -> None:
    cell = ODERNNCell(3, 37, tableau=OWN[tableau], order=order, dtype=torch.float64, learnable=("dt", "gamma"))
    close(cell, case(cell, 30, 7, spans=True, lengths=False))


@pytest.mark.parametrize(("spans", "lengths"), list(itertools.product((False, True), (False, True))))
@pytest.mark.parametrize("learnable", [("dt", "gamma"), ("dt",), ("gamma",), ()])
@pytest.mark.usefixtures("scratch_is_nan")
def test_steps_and_damping_of_each_unit_get_a_gradient_each(
    learnable: tuple[str, ...], spans: bool, lengths: bool, instruction_set: str
) -> None:
    dt, gamma = torch.linspace(0.1, 0.4, 37), torch.linspace(0.5, 2, 2 * 37).reshape(2, 37)
    cell = ODERNNCell(5, 37, dt=dt, gamma=gamma, learnable=learnable, dtype=torch.float64)
    close(cell, case(cell, 63, 7, spans=spans, lengths=lengths))


@pytest.mark.parametrize("tableau", ["rk4", "midpoint", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.usefixtures("scratch_is_nan")
def test_where_there_was_no_drive_yet_the_first_one_stands_for_it(tableau: str, steps: int) -> None:
    cell = ODERNNCell(3, 5, tableau=tableau, input="linear", dt=0.2, dtype=torch.float64)
    given = case(cell, steps, 4, spans=True, lengths=True)
    given["state"][0][::2, 10:] = float("nan")
    given["state"][0][1, 12] = float("nan")
    close(cell, given)


@pytest.mark.parametrize("inputs", [1, 16, 17, 70])
@pytest.mark.parametrize("input", ["hold", "linear"])
@pytest.mark.usefixtures("scratch_is_nan")
def test_a_network_without_biases_takes_any_number_of_inputs(inputs: int, input: str) -> None:
    cell = ODERNNCell(inputs, 20, bias=False, input=input, dtype=torch.float64)
    close(cell, case(cell, 20, 7, spans=False, lengths=False))


@pytest.mark.usefixtures("scratch_is_nan")
def test_sequences_that_are_too_many_for_the_cache_go_one_group_after_another() -> None:
    cell = ODERNNCell(2, 130, dtype=torch.float64, learnable=("dt", "gamma"))
    close(cell, case(cell, 5, 45, spans=True, lengths=True))


def test_what_ends_only_in_the_state_has_a_gradient() -> None:
    cell = ODERNNCell(3, 5, dtype=torch.float64)
    x, found = torch.randn(9, 4, 3, dtype=torch.float64), []
    for backend in ("reference", "fused"):
        (Z,) = pendula.scan(cell, x, backend=backend)[1]
        found.append(torch.autograd.grad(Z.square().sum(), list(cell.parameters())))
    assert_close(found[1], found[0], **tolerance.ROUNDING)


@pytest.mark.parametrize(
    "physics", [{"tableau": "semi-implicit"}, {"tableau": "ssp33", "order": 3, "input": "linear"}, {"order": 1}]
)
def test_every_kind_compiles_whole_and_once_for_all_lengths(physics: dict[str, Any]) -> None:
    layer = pendula.ODERNN(3, 5, **physics)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def run(x: Tensor) -> Tensor:
        outputs: Tensor = layer(x)[0]
        return outputs

    compiled, counts = torch.compile(run, backend=counter, fullgraph=True, dynamic=True), []
    for steps in (5, 9, 17):
        x = torch.randn(steps, 4, 3)
        parameters = list(layer.parameters())
        found, expected = (torch.autograd.grad(f(x).sum(), parameters) for f in (compiled, run))
        assert_close(found, expected, **tolerance.FLOAT32)
        counts.append(counter.frame_count)
    assert counts == counts[:1] * 3


def test_what_was_kept_is_checked_before_it_is_read() -> None:
    _, (x, Z0, W, U, b, dt, gamma, tau, lengths, *scheme, _) = arguments("ODERNN", spans=True, lengths=True)
    y, Z, s, kept = torch.ops.pendula.odernn_scan(x, Z0, W, U, b, dt, gamma, tau, lengths, *scheme, True)
    given = (y, Z, x, Z0, W, U, dt, gamma, tau, lengths, s, kept, *scheme, True, True)
    for place in (0, 1, 10, 11):
        spoilt = given[place][:-1] if given[place].numel() else given[place].new_zeros(1, 4, 10)
        with pytest.raises((ValueError, RuntimeError), match=r"odernn_scan_backward needs \w+ \(.*got"):
            torch.ops.pendula.odernn_scan_backward(*given[:place], spoilt, *given[place + 1 :])


@pytest.mark.parametrize(("numbers", "semi_implicit"), [(0, False), (1, False), (5, False), (7, False), (6, True)])
def test_a_tableau_of_another_size_is_refused(numbers: int, semi_implicit: bool) -> None:
    _, (*given, _, _, linear, keep) = arguments("ODERNN", spans=False, lengths=False)
    with pytest.raises((ValueError, RuntimeError), match=f"odernn_scan needs a tableau of n .*got {numbers} numbers"):
        torch.ops.pendula.odernn_scan(*given, [0.5] * numbers, semi_implicit, linear, keep)


def test_on_another_device_it_says_so() -> None:
    operands = ODERNNCell(3, 5).operands()
    said = ODERNN_SCAN.objection(torch.zeros(4, 1, 3, device="meta"), operands, lengths=None, tau=None)
    assert said == "pendula::odernn_scan runs on the processor, and the tensors are on meta"


def test_a_state_is_kept_for_each_chunk_but_one_and_two_that_nobody_reads() -> None:
    x = torch.empty(100, 1 << 8, 3)
    assert odernn.chunk_of(1 << 8, 1 << 4, 4) == 16
    assert odernn.kept_of(x, 1 << 4, 4) == 6 + 2
