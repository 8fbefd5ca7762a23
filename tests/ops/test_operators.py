"""Every operator by PyTorch's own check: its schema, what it says of sizes, its gradients, its tracing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pendula.ops import cornn, lem, linoss, native, odernn, unicornn, unicornn_newton
from pendula.ops.gpu import product
from pendula.ops.gpu.product import BFLOAT16, HALF, SPLIT
from tests.ops.scan_cases import arguments
from tests.ops.test_triton import on_fake_gpu

OPERATORS = {
    "cornn_scan": cornn,
    "lem_scan": lem,
    "linoss_scan": linoss,
    "odernn_scan": odernn,
    "unicornn_newton": unicornn_newton,
    "unicornn_scan": unicornn,
}
"""Operator -> its module. Forward ones are checked beside their kernels; Newton's method is for a GPU alone."""

BACKWARD = ["coRNN", "coRNN implicit", "UnICORNN", "UnICORNN checkpoints", "UnICORNN reversed", "LEM"]
BACKWARD += ["ODERNN", "ODERNN learned", "ODERNN semi-implicit", "ODERNN linear"]
NEEDS_SCANS = pytest.mark.skipif(bool(native.missing()), reason="there are no compiled scans to check")


def test_these_are_all_the_operators() -> None:
    names = {
        schema.name.removeprefix("pendula::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("pendula::")
    }
    backward = {f"{name}_backward" for name in OPERATORS if name != "unicornn_newton"}
    assert names == OPERATORS.keys() | backward


def plain(values: Any) -> list[Any]:
    return [v.detach() if isinstance(v, Tensor) else v for v in values]


def backward_of(network: str, *, spans: bool, lengths: bool) -> tuple[Any, tuple[Any, ...]]:
    """The backward operator of a network and what it is called with, a cotangent on everything."""
    operator, given = arguments(network, spans=spans, lengths=lengths)
    given = plain(given)
    seen = operator(*given)
    by = [torch.randn_like(s) for s in seen[:3]]
    if network.startswith("coRNN"):
        *inputs, implicit, _ = given
        inputs.pop(6)
        y, _, _, s, kept = seen
        return torch.ops.pendula.cornn_scan_backward.default, (*by, *inputs, y, s, kept, implicit, True, True)
    if network == "LEM":
        *inputs, _ = given
        inputs.pop(6)
        y, _, _, gates, kept = seen
        return torch.ops.pendula.lem_scan_backward.default, (*by, *inputs, y, gates, kept, True, True)
    if network.startswith("ODERNN"):
        *inputs, tableau, semi_implicit, linear, _ = given
        inputs.pop(4)
        scheme = (tableau, semi_implicit, linear)
        return torch.ops.pendula.odernn_scan_backward.default, (*by[:2], *inputs, *seen[2:], *scheme, True, True)
    *inputs, memory, every = given
    outputs, y, z, kept = seen
    shown = outputs if memory == unicornn.STORE else outputs.new_empty(0)
    return torch.ops.pendula.unicornn_scan_backward.default, (*by, *inputs, shown, y, z, kept, memory, every, True)


@NEEDS_SCANS
@pytest.mark.parametrize(("spans", "lengths"), list(itertools.product((False, True), (False, True))))
@pytest.mark.parametrize("network", BACKWARD)
def test_a_backward_operator_passes_pytorchs_own_check(network: str, spans: bool, lengths: bool) -> None:
    operator, given = backward_of(network, spans=spans, lengths=lengths)
    torch.library.opcheck(operator, given)


@pytest.mark.parametrize("wants_matrix", [False, True])
def test_linoss_backward_operator_passes_pytorchs_own_check(wants_matrix: bool) -> None:
    force, matrix = torch.randn(7, 3, 5).double(), 0.3 * torch.randn(2, 3, 5).double()
    start = torch.randn(2, 3, 5).double().unbind(0)
    z, y = linoss.linoss_scan(force, matrix, *start)
    given = (torch.randn_like(z), None, force, matrix, *start, z, y, wants_matrix)
    torch.library.opcheck(torch.ops.pendula.linoss_scan_backward.default, given)


@pytest.mark.parametrize(
    ("asked", "products"), [(None, SPLIT), (torch.float16, HALF), (torch.bfloat16, BFLOAT16), (torch.float32, SPLIT)]
)
def test_what_autocast_asks_of_products_is_what_they_have(asked: torch.dtype | None, products: int) -> None:
    (on_gpu,) = on_fake_gpu(FakeTensorMode(), [torch.empty(7, 4, 3)])
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    try:
        # without a GPU the context manager switches nothing on
        torch.set_autocast_enabled("cuda", asked is not None)
        torch.set_autocast_dtype("cuda", asked or torch.float16)
        assert product.products_of(on_gpu) == products
        assert product.products_of(torch.empty(7, 4, 3)) == SPLIT
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
