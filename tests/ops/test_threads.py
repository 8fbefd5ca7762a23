"""The compiled scans on several threads: the same numbers, whoever the threads are and however they share the work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close

import pendula
from pendula.ops import native
from tests import tolerance
from tests.ops.scan_cases import EVERY_NETWORK, ONE_OF_EACH, case, everything, made

pytestmark = pytest.mark.skipif(isinstance(native.load(), str), reason=f"{native.load()}")


@ONE_OF_EACH
def test_for_little_work_no_thread_is_started(network: str) -> None:
    cell = made(network, 5, 37, torch.float32)
    given = case(cell, 40, 11, spans=False, lengths=False)
    alone = everything(cell, given, "fused")
    try:
        torch.set_num_threads(3)
        shared = everything(cell, given, "fused")
        native.start_threads_for(1 << 40)
        found = everything(cell, given, "fused")
    finally:
        native.start_threads_for(1)
        torch.set_num_threads(1)
    assert_close(found, alone, **tolerance.EXACT)
    # the gradients of the weights are sums over threads
    assert any(not torch.equal(shared[name], alone[name]) for name in alone)


@EVERY_NETWORK
def test_threads_change_nothing_beyond_rounding_and_runs_repeat_bit_for_bit(network: str) -> None:
    cell = made(network, 5, 37, torch.float32)
    given = case(cell, 40, 11, spans=False, lengths=True)
    found = {}
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found[threads] = everything(cell, given, "fused")
            again = everything(cell, given, "fused")
            assert_close(again, found[threads], **tolerance.EXACT)
    finally:
        torch.set_num_threads(1)
    for threads in (2, 3):
        # a sequence's own numbers don't depend on how the batch is shared out; sums over the batch do, by rounding
        for name in ("outputs", *(name for name in found[1] if name.startswith("final"))):
            assert_close(found[threads][name], found[1][name], **tolerance.EXACT)
        assert_close(found[threads], found[1], **tolerance.FLOAT32)


@pytest.fixture(params=["of PyTorch", "of a call"])
def three_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.set_num_threads(3)
    native.stay_off_openmp(request.param == "of a call")
    yield
    native.stay_off_openmp(False)
    torch.set_num_threads(1)


@ONE_OF_EACH
def test_threads_share_the_units_of_few_sequences(network: str, three_threads: None) -> None:
    cell = made(network, 3, 200, torch.float32)
    x = torch.randn(20, 2, 3)
    shared, _ = pendula.scan(cell, x, backend="fused")
    torch.set_num_threads(1)
    alone, _ = pendula.scan(cell, x, backend="fused")
    assert_close(shared, alone, **tolerance.EXACT)


@pytest.mark.parametrize("network", ["coRNN", "coRNN implicit", "coRNN learned"])
@pytest.mark.parametrize("inputs", [3, 40])
@pytest.mark.usefixtures("scratch_is_nan")
def test_gradients_of_few_sequences_are_the_same_bits_from_a_team(
    network: str, inputs: int, three_threads: None
) -> None:
    cell = made(network, inputs, 200, torch.float32)
    # more than one chunk of steps
    given = case(cell, 700, 2, spans=False, lengths=True)
    shared = everything(cell, given, "fused")
    torch.set_num_threads(1)
    assert_close(shared, everything(cell, given, "fused"), **tolerance.EXACT)


@ONE_OF_EACH
def test_calls_at_the_same_time_have_threads_of_their_own(network: str, three_threads: None) -> None:
    cell = made(network, 3, 37, torch.float32)
    inputs = [torch.randn(50, 9, 3) for _ in range(8)]
    expected = [pendula.scan(cell, x, backend="fused")[0] for x in inputs]
    with ThreadPoolExecutor(4) as callers, torch.no_grad():
        for _ in range(5):
            found = list(callers.map(lambda x: pendula.scan(cell, x, backend="fused")[0], inputs))
            assert_close(found, expected, **tolerance.EXACT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_too(three_threads: None) -> None:
    cell = made("coRNN", 3, 37, torch.float32)
    x = torch.randn(50, 9, 3)
    expected, _ = pendula.scan(cell, x, backend="fused")
    child = os.fork()
    if not child:
        try:
            found, _ = pendula.scan(cell, x, backend="fused")
            os._exit(0 if torch.equal(found, expected) else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child waits for a thread that it has not")
        time.sleep(0.01)
    assert ended[1] == 0


@EVERY_NETWORK
@pytest.mark.parametrize(("spans", "lengths"), [(False, False), (True, True)])
@pytest.mark.parametrize("units", [8, 200])
@pytest.mark.parametrize("inputs", [3, 20, 70])
@pytest.mark.usefixtures("scratch_is_nan")
def test_fewer_sequences_than_threads_give_the_numbers_of_the_reference(
    network: str, inputs: int, units: int, spans: bool, lengths: bool, three_threads: None
) -> None:
    cell = made(network, inputs, units)
    given = case(cell, 150, 2, spans=spans, lengths=lengths)
    reference = everything(cell, given, "reference")
    found, again = (everything(cell, given, "fused") for _ in range(2))
    assert_close(again, found, **tolerance.EXACT)
    for name, expected in reference.items():
        error = float((found[name] - expected).abs().max())
        assert error <= 1e-12 * max(1.0, float(expected.abs().max())), (name, error)
