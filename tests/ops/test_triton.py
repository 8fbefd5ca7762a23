"""The scans in Triton against the reference scan: every output and gradient, odd sizes, scratch full of NaN.

Without a GPU the kernels run in Triton's interpreter: their arithmetic, masks and indices are checked, not what a
compiler makes of them (`test_triton_code.py` looks at that) nor their speed. `make gpu` runs these tests on a GPU.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import pendula
from pendula.cells import CoRNNCell
from pendula.cells.base import Cell
from pendula.ops import cornn, native
from pendula.ops.gpu import device, product
from pendula.ops.gpu.product import HALF, SPLIT, Tiling
from tests import tolerance
from tests.ops.on_triton import DEVICE, NEEDS_KERNELS, everything
from tests.ops.scan_cases import NETWORKS, arguments, case, made

TRITON = {
    "CoRNN": ("coRNN", "coRNN implicit", "coRNN learned"),
    "UnICORNN": ("UnICORNN", "UnICORNN checkpoints", "UnICORNN reversed"),
}
"""Layer -> its entries in the table of networks."""
VARIANTS = [variant for variants in TRITON.values() for variant in variants]
SIZES = [(1, 1, 1, 1), (16, 2, 5, 2), (19, 3, 37, 5)]
"""T, B, N, I: alone; whole chunks, an input that the kernel maps itself; odd, more lanes than a block has."""


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of more than 16 units are streamed, in tiles that are small enough for Triton's interpreter."""
    monkeypatch.setattr(product, "LARGEST", 16)
    monkeypatch.setattr("pendula.ops.gpu.cornn.streamed", lambda *given: Tiling(64, 16, 3, 4))


def both(variant: str, inputs: int, units: int) -> tuple[Cell, Cell]:
    """A cell in float64, and in float32 where the kernels run, with the same weights."""
    exact, narrow = made(variant, inputs, units), made(variant, inputs, units, torch.float32)
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.copy_(parameter.float())
    narrow.load_state_dict(exact.state_dict())
    return exact, narrow.to(DEVICE)


def rounded(given: dict[str, Any]) -> dict[str, Any]:
    """The same case with numbers that float32 has."""
    return {
        "x": given["x"].float(),
        "state": [s.float() for s in given["state"]],
        "timespans": None if given["timespans"] is None else given["timespans"].float(),
        "lengths": given["lengths"],
    }


def errors(exact: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, float]:
    assert exact.keys() == found.keys()
    return {name: float((found[name] - v).norm() / v.norm().clamp(min=1e-6)) for name, v in exact.items()}


def cornn_gradients(products: int | None, size: float, steps: int = 16) -> list[Tensor]:
    """Gradients of a sum of outputs times `size`, by the operator; by the reference in float64 without `products`."""
    torch.manual_seed(7)
    cell = CoRNNCell(3, 37, dt=0.1, gamma=1.5, epsilon=2.0)
    x, weights = torch.randn(steps, 3, 3), torch.randn(steps, 3, 37) * size
    if products is None:
        cell.double()
        outputs, _ = pendula.scan(cell, x.double(), backend="reference")
        return list(torch.autograd.grad((outputs * weights).sum(), [cell.W, cell.W_z, cell.V]))
    cell, x, weights = cell.to(DEVICE), x.to(DEVICE), weights.to(DEVICE)
    W, W_z, V, b, *constants, implicit = cell.operands()
    constants = [c.expand(37) for c in constants]
    state = cell.initial_state(3)
    outputs, *_ = cornn.cornn_scan(x, *state, W, W_z, V, b, *constants, None, None, implicit, True, products)
    return [g.double().cpu() for g in torch.autograd.grad((outputs * weights).sum(), [W, W_z, V])]


class TestKernels:
    pytestmark: ClassVar[list[Any]] = [*NEEDS_KERNELS, pytest.mark.usefixtures("on_triton")]

    @pytest.mark.parametrize(("spans", "lengths"), list(itertools.product((False, True), (False, True))))
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.usefixtures("scratch_is_nan")
    def test_numbers_and_gradients_are_those_of_the_reference(
        self, variant: str, size: tuple[int, int, int, int], spans: bool, lengths: bool
    ) -> None:
        steps, batch, units, inputs = size
        exact, narrow = both(variant, inputs, units)
        given = rounded(case(exact, steps, batch, spans=spans, lengths=lengths))
        truth = everything(exact, given, "reference")
        expected, found = (errors(truth, everything(narrow, given, b)) for b in ("reference", "fused"))
        for name, error in found.items():
            assert error <= max(3 * max(expected.values()), 2e-6), (name, error, expected)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_gradients_of_a_final_state_alone_are_those_of_the_reference(self, variant: str) -> None:
        exact, narrow = both(variant, 1, 5)
        x = torch.randn(9, 2, 1)
        found = []
        for cell, backend in ((exact, "reference"), (narrow, "fused")):
            _, final = pendula.scan(cell, x.to(next(cell.parameters())), backend=backend)
            wanted = torch.autograd.grad(final[1].sum(), list(cell.parameters()))
            found.append([w.double().cpu() for w in wanted])
        torch.testing.assert_close(found[1], found[0], **tolerance.FLOAT32)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_runs_repeat_bit_for_bit(self, variant: str) -> None:
        _, narrow = both(variant, 3, 37)
        given = rounded(case(narrow, 9, 3, spans=True, lengths=True))
        first, second = (everything(narrow, given, "fused") for _ in range(2))
        torch.testing.assert_close(first, second, **tolerance.EXACT)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_the_operator_passes_pytorchs_own_check(self, variant: str) -> None:
        operator, given = arguments(variant, spans=True, lengths=True)
        narrowed = [
            v.detach().to(DEVICE, torch.float32 if v.is_floating_point() else v.dtype).requires_grad_(v.requires_grad)
            if isinstance(v, Tensor)
            else v
            for v in given
        ]
        torch.library.opcheck(operator, tuple(narrowed))

    @pytest.mark.parametrize(("products", "smallest", "largest"), [(0, 0, 1e-6), (1, 5e-6, 2e-4), (2, 1e-4, 3e-3)])
    def test_products_have_the_precision_that_is_stated(self, products: int, smallest: float, largest: float) -> None:
        found, exact = cornn_gradients(products, 1.0), cornn_gradients(None, 1.0)
        worst = max(float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True))
        assert smallest <= worst <= largest

    @pytest.mark.parametrize("size", [2.0**-60, 2.0**60])
    @pytest.mark.parametrize("products", [0, 1])
    def test_the_size_of_gradients_is_no_matter_for_float16(self, products: int, size: float) -> None:
        for found, plain in zip(cornn_gradients(products, size), cornn_gradients(products, 1.0), strict=True):
            torch.testing.assert_close(found / size, plain, **tolerance.EXACT)

    @pytest.mark.parametrize(
        ("variant", "size", "spans", "lengths"),
        [
            ("coRNN", (1, 1, 17, 1), False, False),
            ("coRNN implicit", (5, 18, 37, 5), True, True),
            ("coRNN learned", (4, 2, 70, 1), True, False),
            ("coRNN", (4, 3, 64, 2), False, True),
        ],
    )
    @pytest.mark.usefixtures("scratch_is_nan", "streamed")
    def test_streamed_weights_give_numbers_and_gradients_of_the_reference(
        self, variant: str, size: tuple[int, int, int, int], spans: bool, lengths: bool
    ) -> None:
        self.test_numbers_and_gradients_are_those_of_the_reference(variant, size, spans, lengths)

    @pytest.mark.usefixtures("scratch_is_nan")
    def test_more_units_than_are_held_are_streamed(self) -> None:
        self.test_numbers_and_gradients_are_those_of_the_reference("coRNN", (2, 17, 130, 1), False, True)

    @pytest.mark.usefixtures("streamed")
    def test_runs_with_streamed_weights_repeat_bit_for_bit(self) -> None:
        self.test_runs_repeat_bit_for_bit("coRNN")

    @pytest.mark.parametrize(("products", "smallest", "largest"), [(0, 0, 1e-6), (1, 5e-6, 2e-4), (2, 1e-4, 3e-3)])
    @pytest.mark.usefixtures("streamed")
    def test_products_with_streamed_weights_have_the_precision_that_is_stated(
        self, products: int, smallest: float, largest: float
    ) -> None:
        found, exact = cornn_gradients(products, 1.0, 6), cornn_gradients(None, 1.0, 6)
        worst = max(float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True))
        assert smallest <= worst <= largest

    @pytest.mark.parametrize("size", [2.0**-60, 2.0**60])
    @pytest.mark.usefixtures("streamed")
    def test_the_size_of_gradients_is_no_matter_for_streamed_weights(self, size: float) -> None:
        for found, plain in zip(cornn_gradients(0, size, 4), cornn_gradients(0, 1.0, 4), strict=True):
            torch.testing.assert_close(found / size, plain, **tolerance.EXACT)

    @pytest.mark.parametrize("layer", TRITON)
    def test_a_wrong_size_is_refused(self, layer: str) -> None:
        operator, given = arguments(TRITON[layer][0], spans=True, lengths=True)
        given = [v.detach().float() if isinstance(v, Tensor) and v.is_floating_point() else v for v in given]
        given = [v.to(DEVICE) if isinstance(v, Tensor) else v for v in given]
        for place, value in enumerate(given):
            if not isinstance(value, Tensor) or place == 0:
                continue
            for spoilt in (value[:-1], value.double() if value.is_floating_point() else value.int()):
                with pytest.raises((ValueError, RuntimeError), match=r"_scan needs \w+ \(.*got"):
                    operator(*given[:place], spoilt, *given[place + 1 :])


def on_fake_gpu(mode: FakeTensorMode, values: Any) -> list[Any]:
    """Tensors without numbers that claim to be on a GPU."""
    return [FakeTensor(mode, v.detach().to("meta"), "cuda:0") if isinstance(v, Tensor) else v for v in values]


@pytest.mark.skipif(bool(native.missing()), reason="there are no compiled scans to compare with")
@pytest.mark.parametrize("variant", VARIANTS)
def test_sizes_and_places_on_a_gpu_are_known_without_one(variant: str) -> None:
    operator, given = arguments(variant, spans=True, lengths=True)
    expected = operator(*given)
    mode = FakeTensorMode(shape_env=ShapeEnv())
    values = on_fake_gpu(mode, given)
    with mode, torch.no_grad():
        found = operator(*values)
    assert {t.device for t in found} == {torch.device("cuda:0")}
    # how many states the processor keeps is its own affair
    assert [t.shape for t in found[:3]] == [t.shape for t in expected[:3]]


@pytest.mark.parametrize("layer", TRITON)
def test_what_a_gpu_needs_is_said(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "too_old", lambda index: "")
    scan = NETWORKS[TRITON[layer][0]][0].fused
    assert scan is not None
    single, double = (made(TRITON[layer][0], 3, 5, dtype).operands() for dtype in (torch.float32, torch.float64))
    mode = FakeTensorMode()
    (x,) = on_fake_gpu(mode, [torch.empty(7, 4, 3)])

    def said(operands: Any) -> str | None:
        return scan.objection(x, tuple(operands), lengths=None, tau=None)

    monkeypatch.setattr(device, "missing", lambda: "")
    monkeypatch.setattr(device, "shared_memory", lambda index: 227 << 10)
    assert said(on_fake_gpu(mode, single)) is None
    assert said(on_fake_gpu(mode, double)) == f"{scan.name} computes in float32 on a GPU, got torch.float64"
    assert said(single) == f"{scan.name} needs all tensors on cuda:0, and one is on cpu"
    monkeypatch.setattr(device, "missing", lambda: "the scans on a GPU are written in Triton")
    assert said(on_fake_gpu(mode, single)) == "the scans on a GPU are written in Triton"


def test_a_gpu_that_is_too_small_for_the_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "shared_memory", lambda index: 99 << 10)
    (x,) = on_fake_gpu(FakeTensorMode(), [torch.empty(7, 4, 3)])
    assert device.weights_objection("the scan", x, 64) is None
    words = "the scan needs 144 KiB of shared memory for 100 units, and this GPU has 99"
    assert device.weights_objection("the scan", x, 100) == words
    words = "the scan holds the weights of up to 128 units on a GPU, got 129"
    assert device.weights_objection("the scan", x, 129) == words


@pytest.mark.parametrize(
    ("units", "reason"), [(128, None), (129, None), (512, None), (513, "up to 512 units on a GPU")]
)
def test_which_widths_of_cornn_run_on_a_gpu_is_said(
    units: int, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "missing", lambda: "")
    monkeypatch.setattr(device, "too_old", lambda index: "")
    mode, cell = FakeTensorMode(), CoRNNCell(3, units)
    (x,), operands = on_fake_gpu(mode, [torch.empty(7, 4, 3)]), on_fake_gpu(mode, cell.operands())
    assert cell.fused is not None
    said = cell.fused.objection(x, tuple(operands), lengths=None, tau=None)
    assert said == (None if reason is None else f"pendula::cornn_scan takes {reason}, got {units}")


@pytest.mark.parametrize("products", [SPLIT, HALF])
@pytest.mark.parametrize("there", [99 << 10, 227 << 10])
def test_tiles_of_streamed_weights_fit_every_gpu(products: int, there: int) -> None:
    assert product.streamed(products, there).shared_needed(products) <= there


def test_a_gpu_that_is_too_small_for_the_weights_streams_them() -> None:
    assert product.held(SPLIT, 100, 227 << 10)
    assert not product.held(SPLIT, 100, 99 << 10)
    assert product.held(HALF, 100, 99 << 10)
    assert not product.held(HALF, 129, 227 << 10)


def test_the_kernels_are_imported_by_nothing_but_a_tensor_on_a_gpu() -> None:
    words = "import sys, pendula; pendula.UnICORNN(2, 3)(__import__('torch').zeros(4, 1, 2)); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout.split()
    assert "pendula.ops.gpu.device" in modules
    assert not [name for name in modules if name.startswith("pendula.ops.gpu.") and name.endswith("_kernels")]
