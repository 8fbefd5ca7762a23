"""Newton's method in Triton against stepping: numbers, every gradient, iterations, and what is not taken.

As in `test_triton.py`: without a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

import pendula
from pendula.cells import UnICORNNCell
from pendula.nets import newton
from pendula.nets.newton import NewtonReport
from pendula.ops import unicornn_newton as operators
from pendula.ops.gpu import device
from pendula.ops.unicornn_newton import SLOW, TOLERANCE, unicornn_newton
from tests import tolerance
from tests.contracts.layer import weigh
from tests.nets.test_newton import HARD, SETTINGS, driven, off
from tests.ops.on_triton import DEVICE, NEEDS_KERNELS, everything, kernels
from tests.ops.scan_cases import case
from tests.ops.test_triton import both, errors, on_fake_gpu, rounded


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(operators, "_said", set())
    with warnings.catch_warnings():
        # the settings of the study that are to fail
        warnings.simplefilter("ignore", pendula.StabilityWarning)
        # numpy's, in Triton's interpreter: what a window makes of a first guess may be anything
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 32 steps: Triton's interpreter scans the lanes one after another."""
    from pendula.ops.gpu import newton as on_gpu

    monkeypatch.setattr(on_gpu, "LANES", 8)
    monkeypatch.setattr(on_gpu, "EACH", 4)


def solved(cell: UnICORNNCell, x: Tensor, **options: Any) -> tuple[NewtonReport, Tensor]:
    reports: list[NewtonReport] = []
    with torch.no_grad():
        found, _ = pendula.scan(cell, x, method="newton", report=reports.append, **options)
    (report,) = reports
    return report, found


def given_of(steps: int, batch: int, units: int, inputs: int, **options: bool) -> tuple[Any, Any, dict[str, Any]]:
    exact, narrow = both("UnICORNN", inputs, units)
    return exact, narrow, rounded(case(exact, steps, batch, **{"spans": False, "lengths": False, **options}))


STEPPED = "UnICORNN runs step by step"


def driving(steps: int) -> Tensor:
    return torch.randn(steps, 1, 1, generator=torch.Generator().manual_seed(steps)).to(DEVICE)


class Model(nn.Module):
    """A scan by Newton's method and something behind it; windows solve it until it is hardened."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = {"method": "newton", **options}
        self.cell = UnICORNNCell(1, 1, dt=1.0, alpha=0.0)
        self.readout = nn.Linear(1, 2)
        with torch.no_grad():
            self.cell.c.fill_(-4.0)
            self.cell.V.fill_(1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs, last = pendula.scan(self.cell, x, **self.options)
        return outputs, last.z, self.readout(outputs[-1])

    def harden(self) -> None:
        """Other numbers in the same tensors."""
        with torch.no_grad():
            self.cell.c.zero_()
            self.cell.w.fill_(3.0)


def results(model: Any, steps: int) -> list[Tensor]:
    """Outputs, last velocities, read-out, and the gradients of the input and of every parameter."""
    x = driving(steps).requires_grad_()
    seen = model(x)
    return [
        *(s.detach() for s in seen),
        *torch.autograd.grad(weigh(*(s.cpu() for s in seen)), [x, *model.parameters()]),
    ]


class TestKernels:
    pytestmark: ClassVar[list[Any]] = [*NEEDS_KERNELS, pytest.mark.usefixtures("on_triton")]

    @pytest.mark.parametrize(("setting", "kind"), [(SETTINGS[1], "smooth"), (SETTINGS[2], "white")])
    def test_it_equals_stepping_in_the_published_settings(self, setting: tuple, kind: str) -> None:
        cell, x = driven(*setting[1:], 784, kind, batch=1, units=1)
        report, found = solved(cell.to(DEVICE), x.to(DEVICE))
        assert report.fallback is None
        assert report.steps == 784
        # gpu-kernels.md 2.5 counted 76 to 110 in these
        assert 60 < report.steps_per_iteration < 150
        with torch.no_grad():
            expected, _ = pendula.scan(cell.cpu(), x, backend="reference")
        assert off(found.cpu(), expected) < 1e-5

    def test_short_steps_that_add_up_lose_no_digits(self) -> None:
        cell, x = driven(*SETTINGS[0][1:], 3000, batch=1, units=1)
        report, found = solved(cell.to(DEVICE), x.to(DEVICE))
        assert report.fallback is None
        with torch.no_grad():
            exact, _ = pendula.scan(cell.cpu().double(), x.double(), backend="reference")
        assert off(found.cpu(), exact) < 2e-6

    def test_stepping_loses_no_digit_of_short_steps_either(self) -> None:
        cell, x = driven(*SETTINGS[0][1:], 600, batch=2, units=8)
        with torch.no_grad():
            found, _ = pendula.scan(cell.to(DEVICE), x.to(DEVICE), backend="fused")
            exact, _ = pendula.scan(cell.cpu().double(), x.double(), backend="reference")
        assert off(found.cpu(), exact) < 3e-6

    @pytest.mark.parametrize(
        ("size", "spans", "lengths"),
        [((1, 1, 1, 1), False, False), ((37, 2, 2, 5), True, True), ((33, 1, 3, 2), False, False)],
    )
    @pytest.mark.usefixtures("scratch_is_nan", "short_windows")
    def test_numbers_and_gradients_are_those_of_the_reference(
        self, size: tuple[int, int, int, int], spans: bool, lengths: bool
    ) -> None:
        exact, narrow, given = given_of(*size, spans=spans, lengths=lengths)
        reports: list[NewtonReport] = []
        truth = everything(exact, given, "reference")
        expected = errors(truth, everything(narrow, given, "reference"))
        found = errors(truth, everything(narrow, given, "fused", method="newton", report=reports.append))
        assert [r.fallback for r in reports] == [None]
        for name, error in found.items():
            assert error <= max(3 * max(expected.values()), 2e-6), (name, error, expected)

    @pytest.mark.usefixtures("short_windows")
    def test_runs_repeat_bit_for_bit(self) -> None:
        _, narrow, given = given_of(33, 1, 2, 3, spans=True)
        first, second = (everything(narrow, given, "fused", method="newton") for _ in range(2))
        assert_close(first, second, **tolerance.EXACT)

    @pytest.mark.usefixtures("short_windows")
    def test_a_sequence_is_solved_as_it_is_alone(self) -> None:
        cell, x = driven(10.0, 0.1, 1.0, 70, batch=2, units=1)
        cell, x, lengths = cell.to(DEVICE), x.to(DEVICE), torch.tensor([70, 33], device=DEVICE)
        x[33:, 1] = torch.nan
        _, found = solved(cell, x, lengths=lengths)
        _, alone = solved(cell, x[:33, 1:])
        assert torch.equal(found[:33, 1:], alone)
        assert not found[33:, 1].any()

    def test_a_drive_that_is_too_hard_is_stepped_and_said(self) -> None:
        cell, x = driven(*HARD, 300, batch=1, units=1)
        cell, x = cell.to(DEVICE), x.to(DEVICE)
        with pytest.warns(
            UserWarning, match="UnICORNN runs step by step: Newton's method accepted fewer than 16 steps"
        ):
            report, found = solved(cell, x)
        assert torch.equal(found, pendula.scan(cell, x)[0])
        assert "the drive too strong" in str(report.fallback)
        assert report.steps_per_iteration < SLOW
        assert report.difference is None

    @pytest.mark.usefixtures("short_windows")
    def test_what_rounding_decides_is_stepped_and_said(self) -> None:
        cell, x = driven(1.0, 0.1, 1.0, 60, batch=1, units=1)
        cell, x = cell.to(DEVICE), x.to(DEVICE)
        report, _ = solved(cell, x)
        assert report.fallback is None
        assert report.difference is not None
        with pytest.warns(UserWarning, match="UnICORNN runs step by step: rounding grows along the trajectory"):
            strict, found = solved(cell, x, tolerance=report.difference / 2)
        assert torch.equal(found, pendula.scan(cell, x)[0])
        assert strict.difference == report.difference

    @pytest.mark.usefixtures("short_windows")
    def test_an_input_that_is_no_number_gives_what_stepping_gives(self) -> None:
        cell, x = driven(1.0, 0.1, 1.0, 60, batch=1, units=1)
        x[40] = torch.nan
        cell, x = cell.to(DEVICE), x.to(DEVICE)
        with pytest.warns(UserWarning, match="step by step"):
            _, found = solved(cell, x)
        assert torch.equal(found.nan_to_num(9), pendula.scan(cell, x)[0].nan_to_num(9))

    @pytest.mark.parametrize("name", ["ys", "zs"])
    @pytest.mark.parametrize("spoilt", [0.1, torch.nan])
    @pytest.mark.usefixtures("short_windows")
    def test_a_wrong_solution_is_not_taken(self, name: str, spoilt: float, monkeypatch: pytest.MonkeyPatch) -> None:
        real = device.launch

        def tampered(kernel: Any, *given: Any, **arguments: Any) -> None:
            real(kernel, *given, **arguments)
            if kernel.__name__ == "solve":
                arguments[name][0, 0, 30] += spoilt

        monkeypatch.setattr(device, "launch", tampered)
        cell, x = driven(1.0, 0.1, 1.0, 60, batch=1, units=1)
        with pytest.warns(UserWarning, match="step by step: rounding grows"):
            report, found = solved(cell.to(DEVICE), x.to(DEVICE))
        assert report.difference is not None
        assert report.difference > 0.01
        monkeypatch.undo()
        with kernels():
            assert torch.equal(found, pendula.scan(cell, x.to(DEVICE))[0])

    def arguments(self) -> tuple[Any, ...]:
        _, cell, given = given_of(5, 2, 2, 3, spans=True, lengths=True)
        x, state = given["x"].to(DEVICE), [s.to(DEVICE) for s in given["state"]]
        spans, lengths = given["timespans"].to(DEVICE), given["lengths"].to(DEVICE)
        w, h, alpha, V, b = newton._operands(cell)
        found = (x, *state, w, h, alpha.expand(2), V, b, spans, lengths, TOLERANCE)
        return tuple(
            v.detach().requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() else v for v in found
        )

    @pytest.mark.usefixtures("short_windows")
    def test_the_operator_passes_pytorchs_own_check(self) -> None:
        torch.library.opcheck(unicornn_newton, self.arguments())

    @pytest.mark.usefixtures("short_windows")
    def test_it_compiles_whole(self) -> None:
        def summed(*given: Any) -> Tensor:
            return unicornn_newton(*given)[0].sum()

        given = self.arguments()
        whole = torch.compile(summed, fullgraph=True, backend="aot_eager")
        differentiable = [v for v in given if isinstance(v, Tensor) and v.requires_grad]
        for found, expected in zip(
            *(torch.autograd.grad(f(*given), differentiable) for f in (whole, summed)), strict=True
        ):
            assert_close(found, expected, **tolerance.FLOAT32)

    @pytest.mark.usefixtures("short_windows")
    def test_a_model_is_one_graph_for_all_lengths_solved_or_stepped(self) -> None:
        torch._dynamo.reset()
        model = Model().to(DEVICE)
        backend = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
        for steps in (7, 33):
            assert_close(results(compiled, steps), results(model, steps), **tolerance.FLOAT32)
        model.harden()
        with pytest.warns(UserWarning, match=f"{STEPPED}: Newton's method accepted fewer than 16 steps") as said:
            found = results(compiled, 60)
        assert [w.filename for w in said if STEPPED in str(w.message)] == [__file__]
        # once
        results(compiled, 60)
        assert sum("unicornn_newton" in graph.code for graph in backend.graphs) == 1
        model.options = {}
        assert_close(found, results(model, 60), **tolerance.FLOAT32)

    @pytest.mark.usefixtures("short_windows")
    def test_a_compiled_model_steps_where_rounding_decides(self) -> None:
        torch._dynamo.reset()
        model = Model(tolerance=0.0).to(DEVICE)
        compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
        with pytest.warns(UserWarning, match=f"{STEPPED}: rounding grows along the trajectory, .* tolerance=0 of"):
            found = results(compiled, 33)
        model.options = {}
        assert_close(found, results(model, 33), **tolerance.FLOAT32)

    # PyTorch looks whether what crosses from graph to graph is a leaf
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    @pytest.mark.usefixtures("short_windows")
    def test_a_report_is_given_between_graphs_and_refused_in_one(self) -> None:
        torch._dynamo.reset()
        reports: list[NewtonReport] = []
        model = Model(report=reports.append).to(DEVICE)
        found = results(torch.compile(model, dynamic=True, backend="eager"), 33)
        assert_close(found, results(model, 33), **tolerance.FLOAT32)
        assert [r.steps for r in reports] == [33, 33]
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported, match="report is called on the host: leave report out"):
            torch.compile(model, fullgraph=True, backend="eager")(driving(33))

    def test_a_wrong_size_is_refused(self) -> None:
        given = [v.detach() if isinstance(v, Tensor) else v for v in self.arguments()]
        for place, value in enumerate(given):
            if not isinstance(value, Tensor) or place == 0:
                continue
            for spoilt in (value[:-1], value.double() if value.is_floating_point() else value.int()):
                with pytest.raises((ValueError, RuntimeError), match=r"_newton needs \w+ \(.*got"):
                    unicornn_newton(*given[:place], spoilt, *given[place + 1 :])


def test_sizes_and_places_on_a_gpu_are_known_without_one() -> None:
    mode = FakeTensorMode()
    cell = UnICORNNCell(4, 5)
    values = on_fake_gpu(mode, [torch.empty(7, 2, 4), *cell.initial_state(2), *newton._operands(cell)])
    with mode, torch.no_grad():
        *result, how = unicornn_newton(*values, None, None, TOLERANCE)
    assert {t.device for t in result} == {torch.device("cuda:0")}
    assert [tuple(t.shape) for t in result] == [(7, 2, 5), (2, 5), (2, 5)]
    assert (how.device, how.shape, how.dtype) == (torch.device("cpu"), (3,), torch.float64)


def test_no_cuda_graph_is_to_hold_where_the_host_waits() -> None:
    assert torch.Tag.cudagraph_unsafe in torch.ops.pendula.unicornn_newton.default.tags


def test_what_a_gpu_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "too_old", lambda index: "")
    monkeypatch.setattr(device, "missing", lambda: "")
    mode = FakeTensorMode()
    (x,) = on_fake_gpu(mode, [torch.empty(7, 2, 4)])
    said = []
    for dtype in (torch.float32, torch.float64):
        cell = UnICORNNCell(4, 5, dtype=dtype)
        operands = tuple(on_fake_gpu(mode, newton._operands(cell)))
        said.append(newton.KERNELS[UnICORNNCell].objection(x, operands))
    assert said == [None, "pendula::unicornn_newton computes in float32 on a GPU, got torch.float64"]
    assert newton.one_call_objection(UnICORNNCell(4, 5), torch.empty(7, 2, 4)) == (
        "pendula::unicornn_newton is written for a GPU"
    )
