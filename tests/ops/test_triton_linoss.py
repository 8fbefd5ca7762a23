"""LinOSS's scan: the operator against the associative scan, its kernels in Triton against the reference scan.

As in `test_triton.py`: without a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import pendula
from pendula.cells import DLinOSSCell, LinOSSCell
from pendula.cells.linoss import OscillatorBlock
from pendula.math.associative import linear_recurrence
from pendula.math.linear_oscillator import step_matrix
from pendula.ops import linoss
from pendula.ops.gpu import device
from tests import tolerance
from tests.ops.on_triton import DEVICE, NEEDS_KERNELS, everything, kernels
from tests.ops.test_triton import errors, on_fake_gpu, rounded

NETWORKS: dict[str, tuple[type[OscillatorBlock], str]] = {
    "LinOSS im": (LinOSSCell, "im"),
    "D-LinOSS": (DLinOSSCell, "imex1"),
}
SIZES = [(1, 1, 1, False), (32, 2, 3, False), (37, 3, 37, True)]
"""T, B, P, lengths: alone; whole chunks; a last chunk that is short, and more lanes than a block has."""


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells take the operator wherever their tensors are, unless steps differ in length."""
    monkeypatch.setattr(linoss, "objection", lambda force, matrix, state, tau: None if tau is None else "so it is")


@pytest.fixture
def on_triton(chosen: None) -> Iterator[None]:
    with kernels():
        yield


def both(network: str, oscillators: int) -> tuple[OscillatorBlock, OscillatorBlock]:
    """A cell in float64, and in float32 where the kernels run, with the same weights."""
    kind, discretisation = NETWORKS[network]
    build: Any = kind
    given = {"dt": 0.7, "discretisation": discretisation, "oscillators": oscillators}
    exact, narrow = (build(2, 4, dtype=dtype, **given) for dtype in (torch.float64, torch.float32))
    narrow.load_state_dict(exact.state_dict())
    exact.load_state_dict({name: value.double() for name, value in narrow.state_dict().items()})
    return exact, narrow.to(DEVICE)


def case(steps: int, batch: int, oscillators: int, *, spans: bool = False, lengths: bool = False) -> dict[str, Any]:
    return {
        "x": torch.randn(steps, batch, 2).double(),
        "state": [torch.randn(batch, oscillators).double() for _ in range(2)],
        "timespans": torch.rand(steps, batch).double() + 0.5 if spans else None,
        "lengths": torch.randint(1, steps + 1, (batch,)) if lengths else None,
    }


def operands(steps: int, batch: int, units: int) -> list[Tensor]:
    """Force, as part of a wider drive, matrix and initial state, all asking for a gradient."""
    A, G, h = torch.rand(3, units).double()
    wide = torch.randn(steps, batch, 2 * units + 3).double()
    given = [step_matrix("imex1", A, 0.1 * G, h), *torch.randn(2, batch, units).double()]
    return [wide[..., 3 : 3 + units].requires_grad_(), *(g.requires_grad_() for g in given)]


def narrowed(given: list[Tensor]) -> list[Tensor]:
    return [g.detach().to(DEVICE, torch.float32).requires_grad_() for g in given]


def by_associative_scan(force: Tensor, matrix: Tensor, z0: Tensor, y0: Tensor) -> tuple[Tensor, ...]:
    forces = matrix[:, 2, None, None] * force
    return linear_recurrence(matrix[:, :2], forces, torch.stack((z0, y0))).unbind(0)


def gradients(seen: tuple[Tensor, ...], given: list[Tensor]) -> list[Tensor]:
    """With another cotangent on every number."""
    weights = [torch.cos(torch.arange(s.numel()).reshape(s.shape) + i) for i, s in enumerate(seen)]
    total = torch.stack([(s * w.to(s)).sum() for s, w in zip(seen, weights, strict=True)]).sum()
    return list(torch.autograd.grad(total, given))


@pytest.mark.parametrize("steps", [1, 2, 3, 16, 37, 70])
def test_three_phases_are_the_associative_scan(steps: int) -> None:
    given = operands(steps, 3, 5)
    expected, found = by_associative_scan(*given), linoss.linoss_scan(*given)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(gradients(found, given), gradients(expected, given), rtol=1e-11, atol=1e-11)


def test_the_operator_passes_pytorchs_own_check() -> None:
    torch.library.opcheck(torch.ops.pendula.linoss_scan.default, tuple(operands(7, 3, 5)))


@pytest.mark.usefixtures("chosen")
def test_a_layer_with_the_operator_compiles_whole() -> None:
    layer, x = pendula.DLinOSS(3, 4), torch.randn(19, 2, 3)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: layer(x)[0], backend="aot_eager", fullgraph=True, dynamic=True)
    weights = list(layer.parameters())
    found, expected = (torch.autograd.grad(outputs.sum(), weights) for outputs in (compiled(x), layer(x)[0]))
    torch.testing.assert_close(found, expected, **tolerance.FLOAT32)


def test_a_layer_on_the_processor_takes_the_associative_scan() -> None:
    _, cell = both("LinOSS im", 3)
    words = f"pendula::linoss_scan runs on a GPU, and the tensors are on {torch.device('cpu')}"
    assert linoss.objection(torch.zeros(2, 1, 3), cell.A, (), None) == words


def test_a_matrix_of_another_size_is_refused() -> None:
    force, matrix, z0, y0 = operands(7, 3, 5)
    for given in ((force, matrix[:, :2], z0, y0), (force, matrix, z0[:-1], y0), (force, matrix, z0, y0[:, :-1])):
        with pytest.raises((ValueError, RuntimeError), match=r"linoss_scan needs \w+ \(.*got"):
            linoss.linoss_scan(*given)


class TestKernels:
    pytestmark: ClassVar[list[Any]] = [*NEEDS_KERNELS, pytest.mark.usefixtures("on_triton")]

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("network", NETWORKS)
    @pytest.mark.usefixtures("scratch_is_nan")
    def test_numbers_and_gradients_are_those_of_the_reference(
        self, network: str, size: tuple[int, int, int, bool]
    ) -> None:
        steps, batch, oscillators, lengths = size
        exact, narrow = both(network, oscillators)
        given = rounded(case(steps, batch, oscillators, lengths=lengths))
        truth = everything(exact, given, "reference")
        expected, found = (errors(truth, everything(narrow, given, b)) for b in ("reference", "fused"))
        for name, error in found.items():
            assert error <= max(3 * max(expected.values()), 2e-6), (name, error, expected)

    def test_steps_of_different_lengths_go_another_way(self) -> None:
        exact, narrow = both("D-LinOSS", 3)
        given = rounded(case(5, 2, 3, spans=True))
        truth, found = everything(exact, given, "reference"), everything(narrow, given, "fused")
        assert max(errors(truth, found).values()) < 1e-5

    @pytest.mark.usefixtures("scratch_is_nan")
    def test_many_chunks_lose_no_digits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pendula.ops.gpu import linoss as on_gpu

        # chunks of 8 steps, and 2 of them, or of the states between chunks, on their way
        monkeypatch.setattr(on_gpu, "SHORTEST", 2)
        given = operands(43, 1, 2)
        narrow = narrowed(given)
        expected, found = by_associative_scan(*given), linoss.linoss_scan(*narrow)
        for f, e in zip((*found, *gradients(found, narrow)), (*expected, *gradients(expected, given)), strict=True):
            assert float((f.double().cpu() - e).detach().norm() / e.detach().norm()) < 5e-6

    @pytest.mark.parametrize("output", [0, 1])
    def test_a_gradient_of_one_state_alone_is_that_of_the_associative_scan(self, output: int) -> None:
        given = operands(17, 2, 3)
        narrow = narrowed(given)
        expected = torch.autograd.grad(by_associative_scan(*given)[output].square().sum(), given[:1])
        found = torch.autograd.grad(linoss.linoss_scan(*narrow)[output].square().sum(), narrow[:1])
        torch.testing.assert_close(found[0].double().cpu(), expected[0], **tolerance.FLOAT32)

    def test_runs_repeat_bit_for_bit(self) -> None:
        given = narrowed(operands(17, 2, 3))
        first, second = (gradients(linoss.linoss_scan(*given), given) for _ in range(2))
        torch.testing.assert_close(first, second, **tolerance.EXACT)

    def test_the_operator_passes_pytorchs_own_check(self) -> None:
        torch.library.opcheck(torch.ops.pendula.linoss_scan.default, tuple(narrowed(operands(3, 2, 2))))

    def test_a_wrong_size_or_type_is_refused(self) -> None:
        given = narrowed(operands(7, 3, 5))
        for place in (1, 2, 3):
            for spoilt in (given[place][:-1], given[place].double()):
                with pytest.raises((ValueError, RuntimeError), match=r"linoss_scan needs \w+ \(.*got"):
                    linoss.linoss_scan(*given[:place], spoilt, *given[place + 1 :])

    @pytest.mark.parametrize("steps", [1, 15, 16, 17, 784, 17984])
    @pytest.mark.parametrize("chains", [1, 2048, 1 << 20])
    def test_chunks_are_powers_of_two_and_no_more_than_their_steps(self, steps: int, chains: int) -> None:
        from pendula.ops.gpu.linoss import SHORTEST, chunk_of

        every = chunk_of(steps, chains)
        assert every >= SHORTEST
        assert every.bit_count() == 1
        assert -(-steps // every) <= every


def test_sizes_and_places_on_a_gpu_are_known_without_one() -> None:
    given, mode = operands(7, 3, 5), FakeTensorMode()
    values = on_fake_gpu(mode, given)
    with mode, torch.no_grad():
        found = linoss.linoss_scan(*values)
    assert [(f.device, f.shape) for f in found] == [(torch.device("cuda:0"), (7, 3, 5))] * 2


def test_what_a_gpu_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "too_old", lambda index: "")
    monkeypatch.setattr(device, "missing", lambda: "")
    single, double = (on_fake_gpu(FakeTensorMode(), t) for t in (narrowed(operands(7, 3, 5)), operands(7, 3, 5)))

    def said(given: list[Tensor], tau: Tensor | None = None) -> str | None:
        force, matrix, *state = given
        return linoss.objection(force, matrix, tuple(state), tau)

    name = "pendula::linoss_scan"
    assert said(single) is None
    assert said(double) == f"{name} computes in float32 on a GPU, got torch.float64"
    assert said(single, torch.ones(7, 3)) == f"{name} takes steps of one length, and timespans scale them"
    monkeypatch.setattr(device, "missing", lambda: "the scans on a GPU are written in Triton")
    assert said(single) == "the scans on a GPU are written in Triton"
