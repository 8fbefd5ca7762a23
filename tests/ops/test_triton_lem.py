"""LEM's scan in Triton against the reference scan: every output and gradient, odd sizes, scratch full of NaN.

As in `test_triton.py`: without a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import pendula
from pendula.cells import LEMCell
from pendula.ops import lem, native
from pendula.ops.gpu import device
from pendula.ops.lem_scan import LEM_SCAN
from tests import tolerance
from tests.ops.on_triton import DEVICE, NEEDS_KERNELS, everything
from tests.ops.scan_cases import arguments, case
from tests.ops.test_triton import both, errors, on_fake_gpu, rounded

SIZES = [(1, 1, 1, 1), (7, 18, 37, 5), (3, 2, 48, 1)]
"""T, B, N, I: alone; odd, more sequences than a program has; a width that isn't made wider."""


def gradients(products: int | None, size: float, units: int = 37) -> list[Tensor]:
    """Gradients of a sum of outputs times `size`, by the operator; by the reference in float64 without `products`."""
    torch.manual_seed(7)
    cell = LEMCell(3, units, dt=0.7)
    x, weights = torch.randn(8, 3, 3), torch.randn(8, 3, units) * size
    if products is None:
        cell.double()
        outputs, _ = pendula.scan(cell, x.double(), backend="reference")
        return list(torch.autograd.grad((outputs * weights).sum(), [cell.W, cell.W_y, cell.V]))
    cell, x, weights = cell.to(DEVICE), x.to(DEVICE), weights.to(DEVICE)
    W, W_y, V, b, dt = cell.operands()
    state = cell.initial_state(3)
    outputs, *_ = lem.lem_scan(x, *state, W, W_y, V, b, dt.expand(units), None, None, True, products)
    return [g.double().cpu() for g in torch.autograd.grad((outputs * weights).sum(), [W, W_y, V])]


class TestKernels:
    pytestmark: ClassVar[list[Any]] = [*NEEDS_KERNELS, pytest.mark.usefixtures("on_triton")]

    @pytest.mark.parametrize(("spans", "lengths"), list(itertools.product((False, True), (False, True))))
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.usefixtures("scratch_is_nan")
    def test_numbers_and_gradients_are_those_of_the_reference(
        self, size: tuple[int, int, int, int], spans: bool, lengths: bool
    ) -> None:
        steps, batch, units, inputs = size
        exact, narrow = both("LEM", inputs, units)
        given = rounded(case(exact, steps, batch, spans=spans, lengths=lengths))
        truth = everything(exact, given, "reference")
        expected, found = (errors(truth, everything(narrow, given, b)) for b in ("reference", "fused"))
        for name, error in found.items():
            assert error <= max(3 * max(expected.values()), 2e-6), (name, error, expected)

    @pytest.mark.parametrize("products", [0, 1])
    def test_weights_that_come_anew_at_each_step_change_nothing(self, products: int) -> None:
        # 65 units are the first whose low halves don't all fit
        found, exact = gradients(products, 1.0, 65), gradients(None, 1.0, 65)
        worst = max(float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True))
        assert worst <= (1e-6, 1e-3)[products]

    def test_gradients_of_a_final_state_alone_are_those_of_the_reference(self) -> None:
        exact, narrow = both("LEM", 1, 5)
        x = torch.randn(9, 2, 1)
        found = []
        for cell, backend in ((exact, "reference"), (narrow, "fused")):
            _, final = pendula.scan(cell, x.to(next(cell.parameters())), backend=backend)
            wanted = torch.autograd.grad(final[1].sum(), [cell.W, cell.V])
            found.append([w.double().cpu() for w in wanted])
        torch.testing.assert_close(found[1], found[0], **tolerance.FLOAT32)

    @pytest.mark.parametrize("spans", [False, True])
    def test_steps_may_ask_for_a_gradient_each(self, spans: bool) -> None:
        exact, narrow = both("LEM", 2, 5)
        given = rounded(case(exact, 9, 3, spans=spans, lengths=True))
        found = []
        for cell, backend in ((exact, "reference"), (narrow, "fused")):
            cell.dt = torch.linspace(0.1, 0.9, 5).to(cell.W).requires_grad_()
            everything(cell, given, backend)
            found.append(cell.dt.grad.double().cpu())
        torch.testing.assert_close(found[1], found[0], **tolerance.FLOAT32)

    def test_without_biases_and_gradients_the_numbers_are_the_same(self) -> None:
        cell = LEMCell(3, 5, bias=False).to(DEVICE)
        x = torch.randn(7, 2, 3, device=DEVICE)
        with torch.no_grad():
            found, expected = (pendula.scan(cell, x, backend=backend) for backend in ("fused", "reference"))
        torch.testing.assert_close(found, expected, **tolerance.FLOAT32)

    def test_small_gates_keep_their_digits(self) -> None:
        cell = LEMCell(1, 4).to(DEVICE)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.zero_()
            for logit in (-3.0, -9.0, -18.0, -60.0):
                cell.b[:8], cell.b[8:] = logit, 1.0
                x = torch.zeros(5, 1, 1, device=DEVICE)
                found, expected = (pendula.scan(cell, x, backend=b)[0] for b in ("fused", "reference"))
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-37)

    def test_runs_repeat_bit_for_bit(self) -> None:
        _, narrow = both("LEM", 3, 37)
        given = rounded(case(narrow, 5, 3, spans=True, lengths=True))
        first, second = (everything(narrow, given, "fused") for _ in range(2))
        torch.testing.assert_close(first, second, **tolerance.EXACT)

    def test_the_operator_passes_pytorchs_own_check(self) -> None:
        operator, given = arguments("LEM", spans=True, lengths=True)
        torch.library.opcheck(operator, tuple(narrowed(given)))

    @pytest.mark.parametrize(("products", "smallest", "largest"), [(0, 0, 1e-6), (1, 5e-6, 1e-3), (2, 1e-4, 1e-2)])
    def test_products_have_the_precision_that_is_stated(self, products: int, smallest: float, largest: float) -> None:
        found, exact = gradients(products, 1.0), gradients(None, 1.0)
        worst = max(float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True))
        assert smallest <= worst <= largest

    @pytest.mark.parametrize("size", [2.0**-60, 2.0**60])
    @pytest.mark.parametrize("products", [0, 1])
    def test_the_size_of_gradients_is_no_matter_for_float16(self, products: int, size: float) -> None:
        for found, plain in zip(gradients(products, size), gradients(products, 1.0), strict=True):
            torch.testing.assert_close(found / size, plain, **tolerance.EXACT)

    def test_a_wrong_size_is_refused(self) -> None:
        operator, given = arguments("LEM", spans=True, lengths=True)
        given = narrowed(given)
        for place, value in enumerate(given):
            if not isinstance(value, Tensor) or place == 0:
                continue
            for spoilt in (value[:-1], value.double() if value.is_floating_point() else value.int()):
                with pytest.raises((ValueError, RuntimeError), match=r"_scan needs \w+ \(.*got"):
                    operator(*given[:place], spoilt, *given[place + 1 :])


def narrowed(given: Iterable[Any]) -> list[Any]:
    """The arguments where the kernels run, in float32."""
    return [
        v.detach().to(DEVICE, torch.float32 if v.is_floating_point() else v.dtype).requires_grad_(v.requires_grad)
        if isinstance(v, Tensor)
        else v
        for v in given
    ]


@pytest.mark.skipif(bool(native.missing()), reason="there are no compiled scans to compare with")
def test_sizes_and_places_on_a_gpu_are_known_without_one() -> None:
    operator, given = arguments("LEM", spans=True, lengths=True)
    expected = operator(*given)
    mode = FakeTensorMode(shape_env=ShapeEnv())
    values = on_fake_gpu(mode, given)
    with mode, torch.no_grad():
        found = operator(*values)
    assert {t.device for t in found} == {torch.device("cuda:0")}
    # how many states the processor keeps is its own affair
    assert [t.shape for t in found[:4]] == [t.shape for t in expected[:4]]


def test_what_a_gpu_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "too_old", lambda index: "")
    monkeypatch.setattr(device, "missing", lambda: "")
    mode = FakeTensorMode()
    (x,) = on_fake_gpu(mode, [torch.empty(7, 4, 3)])

    def said(units: int, kib: int = 227, dtype: torch.dtype = torch.float32, bias: bool = True) -> str | None:
        monkeypatch.setattr(device, "shared_memory", lambda index: kib << 10)
        operands = on_fake_gpu(mode, LEMCell(3, units, bias, dtype=dtype).operands())
        return LEM_SCAN.objection(x, tuple(operands), lengths=None, tau=None)

    name = "pendula::lem_scan"
    assert said(128) is None
    assert said(5, bias=False) is None
    assert said(5, dtype=torch.float64) == f"{name} computes in float32 on a GPU, got torch.float64"
    assert said(129) == f"{name} holds the weights of up to 128 units on a GPU, got 129"
    assert said(100, 99) == f"{name} needs 208 KiB of shared memory for 100 units, and this GPU has 99"
    assert said(64, 99) is None
    monkeypatch.setattr(device, "products_of", lambda x: 1)
    assert said(100, 163) is None
