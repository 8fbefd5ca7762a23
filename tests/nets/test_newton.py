"""The scan by Newton's method: the numbers and gradients of stepping, or stepping itself, which it then says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import avg_pool1d
from torch.testing import assert_close

import pendula
from pendula import BackendError, ShapeError
from pendula.cells import CELLS, LSTMCell, UnICORNNCell
from pendula.math.associative import linear_adjoint
from pendula.nets import newton
from pendula.nets.jacobian import step_jacobian
from pendula.nets.newton import PATIENCE, WINDOW, NewtonReport
from pendula.ops import unicornn_newton
from tests import tolerance

# name, alpha, the step h, the largest w: the published networks at the start of their training (unicornn.md 5.1)
SETTINGS = [
    ("EigenWorms 1", 0.0, 1.4e-5, 1.0),
    ("EigenWorms 2", 0.0, 0.017, 1.0),
    ("psMNIST", 30.65, 0.095, 1.0),
    ("noisy CIFAR", 13.0, 0.063, 1.0),
    ("health RR", 9.0, 0.0055, 1.0),
    ("health HR", 10.0, 0.023, 1.0),
    ("IMDB 1", 0.0, 0.0033, 1.0),
]
HARD = (0.0, 0.5, 3.0)
CHAOTIC = (0.0, 0.1, 1.0)


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(unicornn_newton, "_said", set())
    with warnings.catch_warnings():
        # the settings of the study that are to fail
        warnings.simplefilter("ignore", pendula.StabilityWarning)
        yield


def driven(
    alpha: float, h: float, largest: float, steps: int, kind: str = "white", batch: int = 2, units: int = 4
) -> tuple[UnICORNNCell, Tensor]:
    """Independent oscillators with a step h, w up to `largest`, and a drive of variance 1 of their own."""
    cell = UnICORNNCell(units, units, bias=False, dt=2 * h, alpha=alpha)
    with torch.no_grad():
        cell.w.uniform_(0, largest)
        cell.c.zero_()
        cell.V.copy_(torch.eye(units))
    if kind == "white":
        return cell, torch.randn(steps, batch, units)
    smooth = avg_pool1d(torch.randn(1, batch * units, steps + 63), 64, 1)[0].T.reshape(steps, batch, units)
    return cell, smooth / smooth.std()


def off(one: Tensor, other: Tensor) -> float:
    """The largest difference over time, as a share of the largest value of the same unit of the same sequence."""
    one, other = one.double(), other.double()
    return float(((one - other).abs().amax(0) / other.abs().amax(0)).max())


@torch.no_grad()
def compared(cell: UnICORNNCell, x: Tensor, **options: Any) -> tuple[NewtonReport, Tensor, Tensor]:
    """The report, the outputs by Newton's method, and those of stepping."""
    reports: list[NewtonReport] = []
    found, _ = pendula.scan(cell, x, method="newton", report=reports.append, **options)
    (report,) = reports
    return report, found, pendula.scan(cell, x)[0]


@pytest.mark.parametrize("setting", [*SETTINGS, ("hard", *HARD), ("chaotic", *CHAOTIC)], ids=lambda s: s[0])
@pytest.mark.parametrize("kind", ["white", "smooth"])
@pytest.mark.parametrize("steps", [784, 4096, 17984])
def test_it_equals_stepping_or_is_stepping_which_it_says(setting: tuple, kind: str, steps: int) -> None:
    cell, x = driven(*setting[1:], steps, kind)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        report, found, expected = compared(cell, x)
    assert off(found, expected) < 1e-5
    words = [str(w.message) for w in said if not issubclass(w.category, pendula.StabilityWarning)]
    assert words == ([] if report.fallback is None else [f"UnICORNN runs step by step: {report.fallback}"])
    assert torch.equal(found, expected) is (report.fallback is not None)
    if setting in SETTINGS:
        assert report.steps == steps
        # float32 has not the digits for the rest: see the errors of stepping itself over 17984 steps, below
        if steps == 784 or (steps == 4096 and (setting[0], kind) != ("EigenWorms 2", "smooth")):
            assert report.fallback is None


@pytest.mark.parametrize("setting", SETTINGS, ids=[s[0] for s in SETTINGS])
@pytest.mark.parametrize("steps", [4096, 17984])
def test_it_equals_stepping_over_thousands_of_steps(setting: tuple, steps: int) -> None:
    cell, x = driven(*setting[1:], steps)
    report, found, expected = compared(cell, x, tolerance=0.1)
    assert report.fallback is None
    # where float32 itself does not say more, the report says so
    assert off(found, expected) < max(1e-5, 2 * report.difference)
    with torch.no_grad():
        exact, _ = pendula.scan(cell.double(), x.double())
    # and it is no farther from the truth than stepping is
    assert off(found, exact) < 3 * off(expected, exact) + 1e-6


@pytest.mark.parametrize("steps", [1, 2, 3, 63, WINDOW, WINDOW + 1, 2 * WINDOW + 37])
@pytest.mark.parametrize("alpha", [0.0, 10.0])
def test_in_float64_it_equals_stepping_to_rounding(steps: int, alpha: float) -> None:
    cell, x = driven(alpha, 0.1, 2.0, steps)
    report, found, expected = compared(cell.double(), x.double())
    assert report.fallback is None
    assert_close(found, expected, rtol=0.0, atol=1e-12 * max(1.0, float(expected.abs().max())))


# --- how often


def test_what_is_nearly_linear_takes_two_iterations_per_window() -> None:
    report, _, _ = compared(*driven(0.0, 1.4e-5, 1.0, 8 * WINDOW))
    assert report.iterations <= 2 * 8
    assert report.steps == 8 * WINDOW


@pytest.mark.parametrize("setting", SETTINGS, ids=[s[0] for s in SETTINGS])
def test_an_iteration_takes_as_many_steps_as_the_study_counted(setting: tuple) -> None:
    report, _, _ = compared(*driven(*setting[1:], 4096))
    # gpu-kernels.md 2.5: 76 to 89 in the worst chain of its settings, each chain for itself; here all move together
    assert 60 < report.steps_per_iteration <= WINDOW


def test_the_harder_the_drive_the_more_iterations() -> None:
    counts = [compared(*driven(0.0, h, 1.0, 784))[0].iterations for h in (0.001, 0.03, 0.1)]
    assert counts == sorted(set(counts))


# --- stepping instead


def gradients(cell: UnICORNNCell, x: Tensor, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and last state, and every gradient, with a cotangent on each of them."""
    x = x.detach().requires_grad_()
    start = cell.State(*(torch.linspace(-1, 1, x.shape[1]).to(x).unsqueeze(1).repeat(1, 5) + k for k in (0.5, -0.3)))
    start = cell.State(*(s.requires_grad_() for s in start))
    spans = options.get("timespans")
    spans = [] if spans is None else [spans.requires_grad_()]
    outputs, last = pendula.scan(cell, x, start, **options)
    seen = [outputs, *last]
    by = [torch.cos(torch.arange(s.numel()).to(s)).view_as(s) for s in seen]
    found = torch.autograd.grad(seen, [x, *start, *spans, *cell.parameters()], by)
    return [s.detach() for s in seen], list(found)


def test_a_drive_that_is_too_hard_is_stepped_and_said_once() -> None:
    cell, x = driven(*HARD, 500, units=5)
    reports: list[NewtonReport] = []
    words = "UnICORNN runs step by step: Newton's method accepted fewer than 16 steps"
    with pytest.warns(UserWarning, match=words) as said:
        found = gradients(cell, x, method="newton", report=reports.append)
    # at the line that asks for the scan
    assert [w.filename for w in said] == [__file__]
    assert_close(found, gradients(cell, x), **tolerance.EXACT)
    (report,) = reports
    assert "the drive too strong" in str(report.fallback)
    assert report.iterations >= PATIENCE
    assert report.steps_per_iteration < 16
    assert report.difference is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pendula.scan(cell, x, method="newton")


def test_a_trajectory_that_rounding_decides_is_stepped_and_said() -> None:
    cell, x = driven(*CHAOTIC, 6000)
    with pytest.warns(UserWarning, match="UnICORNN runs step by step: rounding grows along the trajectory"):
        report, found, expected = compared(cell, x)
    assert torch.equal(found, expected)
    assert report.difference > 5e-3
    assert report.steps == 6000
    # with more digits it is decided
    with torch.no_grad():
        assert compared(cell.double(), x.double(), tolerance=1.0)[0].fallback is None


def test_no_difference_at_all_is_what_stepping_alone_has() -> None:
    with pytest.warns(UserWarning, match="may differ by more than tolerance=0 of its size"):
        report, found, expected = compared(*driven(1.0, 0.1, 1.0, 50), tolerance=0)
    assert torch.equal(found, expected)
    assert 0 < report.difference < 1e-5


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_input_that_is_no_number_gives_what_stepping_gives(bad: float) -> None:
    cell, x = driven(1.0, 0.1, 1.0, 100)
    x[40, 1, 2] = bad
    with pytest.warns(UserWarning, match="step by step"):
        _, found, expected = compared(cell, x)
    assert torch.equal(found.nan_to_num(9), expected.nan_to_num(9))


def test_a_wrong_solution_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = newton._windows

    def tampered(*given: Any) -> Any:
        S, progress = real(*given)
        S[0, 300] += 0.1
        return S, progress

    monkeypatch.setattr(newton, "_windows", tampered)
    with pytest.warns(UserWarning, match="step by step"):
        _, found, expected = compared(*driven(1.0, 0.1, 1.0, 600))
    assert torch.equal(found, expected)


# --- gradients

SIZES = pytest.mark.parametrize(("steps", "batch", "features"), [(1, 1, 1), (2, 3, 5), (63, 1, 37), (300, 2, 3)])


def learned(features: int, bias: bool = True, **physics: Any) -> UnICORNNCell:
    cell = UnICORNNCell(features, 5, bias, dtype=torch.float64, **{"dt": 0.1, "alpha": 2.0, **physics})
    with torch.no_grad():
        cell.w.normal_()
        cell.V.normal_(std=features**-0.5)
    return cell


@SIZES
@pytest.mark.parametrize("memory", ["store", "checkpoint", "reverse", "tape"])
def test_every_gradient_is_that_of_stepping(steps: int, batch: int, features: int, memory: str) -> None:
    cell, x = learned(features, memory=memory), torch.randn(steps, batch, features).double()
    assert_close(gradients(cell, x, method="newton"), gradients(cell, x), rtol=1e-10, atol=1e-10)


@SIZES
def test_gradients_with_padding_and_time_spans_are_those_of_stepping(steps: int, batch: int, features: int) -> None:
    cell = learned(features, bias=False, dt=0.02 + 0.1 * torch.rand(5).double(), alpha=torch.rand(5).double())
    x, lengths = torch.randn(steps, batch, features).double(), torch.randint(1, steps + 1, (batch,))
    x[torch.arange(steps).unsqueeze(1) >= lengths] = torch.nan
    spans = 0.2 + torch.rand(steps, batch).double()
    options = {"lengths": lengths, "timespans": spans}
    assert_close(gradients(cell, x, method="newton", **options), gradients(cell, x, **options), rtol=1e-10, atol=1e-10)


def test_gradients_in_float32_over_thousands_of_steps_are_those_of_stepping() -> None:
    cell, x = driven(30.65, 0.095, 1.0, 4096, units=5)
    for found, expected in zip(*(gradients(cell, x, **o)[1] for o in ({"method": "newton"}, {})), strict=True):
        assert float((found - expected).abs().max() / expected.abs().max()) < 2e-4


def test_second_derivatives_are_refused() -> None:
    cell, x = learned(2), torch.randn(5, 2, 2).double().requires_grad_()
    outputs, _ = pendula.scan(cell, x, method="newton")
    with pytest.raises(RuntimeError, match="can't be differentiated twice"):
        torch.autograd.grad(outputs.square().sum(), x, create_graph=True)


def test_the_adjoint_of_a_recurrence_is_its_loop_backwards() -> None:
    M, g = 0.5 * torch.randn(2, 2, 7, 3).double(), torch.randn(2, 7, 3).double()
    by, seen = torch.zeros(2, 3).double(), []
    for n in reversed(range(7)):
        by = g[:, n] + (0 if n == 6 else torch.einsum("ijp,ip->jp", M[:, :, n + 1], by))
        seen.append(by)
    assert_close(linear_adjoint(M, g), torch.stack(seen[::-1], 1), **tolerance.ROUNDING)


# --- under torch.compile


# PyTorch looks whether what crosses from graph to graph is a leaf
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_model_runs_it_between_its_graphs() -> None:
    torch._dynamo.reset()
    cell, x = learned(3), torch.randn(40, 2, 3).double()
    reports: list[NewtonReport] = []

    def model(x: Tensor) -> Tensor:
        outputs, _ = pendula.scan(cell, 2 * x, method="newton", report=reports.append)
        return outputs.square().mean()

    graphs = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=graphs, dynamic=True)
    for steps in (40, 30):
        found, expected = (torch.autograd.grad(f(x[:steps]), list(cell.parameters())) for f in (compiled, model))
        assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert graphs.frame_count > 0
    assert [r.steps for r in reports] == [40, 40, 30, 30]


def test_one_graph_of_all_is_refused_with_the_reason() -> None:
    torch._dynamo.reset()
    cell, x = learned(3), torch.randn(40, 2, 3).double()
    compiled = torch.compile(lambda x: pendula.scan(cell, x, method="newton")[0], backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="iterates as often as the numbers need, which no graph"):
        compiled(x)


# --- arguments


def test_blocks_are_the_jacobian_of_a_step() -> None:
    cell = learned(3, dt=torch.rand(5).double() + 0.1)
    state, drive = cell.State(*torch.randn(2, 4, 5).double()), torch.randn(4, 5).double()
    tau = torch.rand(4, 1).double()
    J = newton.unicornn_blocks(cell, state, drive, tau)
    expected = step_jacobian(cell, state, drive, tau=tau).detach()
    dense = torch.cat([torch.cat([torch.diag_embed(J[i, j]) for j in (0, 1)], -1) for i in (0, 1)], -2)
    assert_close(dense, expected, **tolerance.ROUNDING)


def test_what_stands_in_the_padding_has_no_influence() -> None:
    cell, x = learned(3), torch.randn(300, 3, 3).double()
    lengths = [300, 7, 120]
    x[torch.arange(300).unsqueeze(1) >= torch.tensor(lengths)] = 1e30
    outputs, last = pendula.scan(cell, x, lengths=torch.tensor(lengths), method="newton")
    for b, length in enumerate(lengths):
        alone, end = pendula.scan(cell, x[:length, b : b + 1], method="newton")
        assert_close(outputs[:length, b : b + 1], alone, rtol=0.0, atol=1e-12)
        assert_close([s[b : b + 1] for s in last], list(end), rtol=0.0, atol=1e-12)
        assert not outputs[length:, b].any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_without_gradients(mode: Any) -> None:
    cell, x = learned(3), torch.randn(40, 2, 3).double()
    with mode():
        found, last = pendula.scan(cell, x, method="newton")
    assert not found.requires_grad
    assert_close((found, last), tuple(pendula.scan(cell, x)), rtol=0.0, atol=1e-12)


def test_under_autocast_the_states_stay_as_wide_as_they_are() -> None:
    cell, x = driven(1.0, 0.1, 1.0, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found, last = pendula.scan(cell, x, method="newton")
        expected, _ = pendula.scan(cell, x, backend="reference")
    assert {found.dtype, *(s.dtype for s in last)} == {torch.float32}
    assert off(found, expected) < 1e-5


def test_no_random_number_is_drawn() -> None:
    cell, x = learned(3), torch.randn(10, 2, 3).double()
    before = torch.get_rng_state()
    pendula.scan(cell, x, method="newton")
    assert torch.equal(before, torch.get_rng_state())


class Coupled(UnICORNNCell):
    def force(self, y: Tensor, drive: Tensor) -> Tensor:
        return super().force(y, drive) + 0.1 * y.roll(1, -1)


@pytest.mark.parametrize("network", sorted(CELLS))
def test_a_cell_runs_or_the_error_says_who_does(network: str) -> None:
    cell, x = CELLS[network](2, 4), torch.randn(5, 1, 2)
    if network == "UnICORNN":
        pendula.scan(cell, x, method="newton")
        return
    with pytest.raises(ValueError, match=f"UnICORNN has them, {network} does not|{network} is linear and runs at all"):
        pendula.scan(cell, x, method="newton")


def test_a_network_derived_from_it_is_another_network() -> None:
    with pytest.raises(ValueError, match="UnICORNN has them, Coupled does not"):
        pendula.scan(Coupled(2, 4), torch.randn(5, 1, 2), method="newton")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"method": "parallel"}, ValueError, "method must be one of sequential, newton, got 'parallel'"),
        ({"method": "newton", "tolerance": -1.0}, ValueError, "tolerance must be a finite number, at least 0"),
        ({"tolerance": 1e-5}, ValueError, "tolerance and report belong to method='newton', got method='sequential'"),
        ({"report": print}, ValueError, "tolerance and report belong to method='newton'"),
        ({"method": "newton", "backend": "fused"}, BackendError, "unicornn_newton is written for a GPU: use"),
        ({"method": "newton", "lengths": torch.tensor([6, 1, 1])}, ValueError, "lengths must be from 1 to 5"),
        ({"method": "newton", "x": torch.zeros(5, 3, 4)}, ShapeError, r"input must be \(time, batch, 2\)"),
    ],
)
def test_a_bad_call_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        pendula.scan(UnICORNNCell(2, 4), **{"x": torch.zeros(5, 3, 2), **options})


def test_the_method_of_a_cell_that_steps_is_its_default() -> None:
    cell, x = LSTMCell(2, 4), torch.randn(5, 3, 2)
    assert_close(pendula.scan(cell, x, method="sequential"), pendula.scan(cell, x), **tolerance.EXACT)
