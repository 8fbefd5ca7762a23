"""Functions of tensors, captured once per shape and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.learn.tape import Tape
from torch import Tensor

from pendula import BackendError
from pendula.learn.graph import WARM_UP, CudaCapture, Graphed


def test_a_replay_reads_its_own_inputs_and_runs_no_python() -> None:
    ran = 0

    def function(a: Tensor, b: Tensor) -> tuple[Tensor, str]:
        nonlocal ran
        ran += 1
        return (a * b).sum() + 1, "said"

    graphed = Graphed(function, Tape())
    for _ in range(WARM_UP + 4):
        a, b = torch.randn(2, 3)
        result, said = graphed(a, b)
        assert torch.equal(result, (a * b).sum() + 1)
        assert said == "said"
    assert ran == WARM_UP + 1


def test_each_shape_has_a_graph_of_its_own() -> None:
    tape = Tape()
    graphed = Graphed(lambda a: a.sum(), tape)
    for _ in range(WARM_UP + 2):
        for size in (2, 5):
            a = torch.randn(size)
            assert torch.equal(graphed(a), a.sum())
    assert (tape.captures, tape.replays) == (2, 4)


def test_capturing_does_nothing_yet() -> None:
    total = torch.zeros(3)
    graphed = Graphed(lambda a: total.add_(a), Tape())
    for _ in range(WARM_UP + 2):
        graphed(torch.ones(3))
    assert total.tolist() == [WARM_UP + 2] * 3


def test_random_numbers_of_a_replay_follow_the_seed() -> None:
    graphed = Graphed(lambda a: a + torch.randn_like(a), Tape())
    for seed in range(WARM_UP + 3):
        torch.manual_seed(seed)
        found = graphed(torch.zeros(4)).clone()
        torch.manual_seed(seed)
        assert torch.equal(found, torch.randn(4))


class FakeGraph:
    """`torch.cuda.graph`: after a failed capture the end of it fails too."""

    def __init__(self, *given: Any, **words: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is not None:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nlines of advice")


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> CudaCapture:
    for name in ("Stream", "graph_pool_handle", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, lambda *given: type("Fake", (), {"replay": lambda self: None})())
    monkeypatch.setattr(torch.cuda, "graph", FakeGraph)
    return CudaCapture(torch.device("cuda"))


def test_what_waits_for_the_gpu_is_refused_with_the_reason(capture: CudaCapture) -> None:
    def waits() -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nlines of advice")

    with pytest.raises(BackendError) as error:
        capture.record(waits)
    assert str(error.value) == (
        "the training step can't be captured in a CUDA graph (CUDA error: operation not permitted when stream is "
        "capturing): leave cuda_graph out"
    )


def test_a_capture_gives_what_the_work_gives(capture: CudaCapture) -> None:
    work: Callable[[], str] = lambda: "given"  # noqa: E731
    assert capture.record(work)[0] == "given"
