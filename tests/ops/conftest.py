"""What the tests of the scans share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pendula.ops import native
from tests.ops.on_triton import DEVICE, kernels


@pytest.fixture
def on_triton() -> Iterator[None]:
    with kernels():
        yield


@pytest.fixture
def scratch_is_nan() -> Iterator[None]:
    """New memory holds NaN, so that a number which is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    try:
        assert bool(torch.empty(3, device=DEVICE).isnan().all())
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(native.instruction_sets()[0])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # not when this file is read: `--library` has not been heeded then
    if "instruction_set" in metafunc.fixturenames:
        found = [] if native.missing() else native.instruction_sets()
        metafunc.parametrize("instruction_set", found, indirect=True)
