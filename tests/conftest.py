"""What holds in every test: seeded, no denormals, no unexpected warning. `--library` chooses the compiled scans."""

import os
from collections.abc import Callable
from pathlib import Path

# torch imports triton where there is one, and triton reads this once: kernels run in its interpreter
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch

import pendula
from pendula.cells import CELLS
from pendula.nets.scan import _said
from pendula.ops import native

# denormal gradients of long sequences make a CPU up to 18 times slower (spec sheet cornn.md 3.5)
torch.set_flush_denormal(True)
# the tensors are small: a second thread brings nothing, and waits for a core where others work too
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "compiled scans to test: those in this folder, or 'none' for an installation that has no others"
    parser.addoption("--library", default="installed", help=words)


def pytest_report_header() -> str:
    reason = native.missing()
    return f"compiled scans: {reason or native.library()._name + ', ' + ' '.join(native.instruction_sets())}"


def pytest_configure(config: pytest.Config) -> None:
    library = config.getoption("--library")
    if library == "none":
        native.FILE = "hidden from the tests"
    elif library != "installed":
        pendula.__path__.insert(0, library)
        if native.missing() or Path(native.library()._name).parent != Path(library):
            raise pytest.UsageError(f"--library {library}: {native.missing() or 'another one was loaded'}")
    if native.missing():
        # said in the head of the report; tests/test_native.py has the warning itself
        _said.update((name, native.missing()) for name in CELLS)
    else:
        # tests of threads are small too
        native.start_threads_for(1)
    # a warning of the package or of PyTorch that no test expects is a failure
    config.addinivalue_line("filterwarnings", "error::UserWarning")
    config.addinivalue_line("filterwarnings", "error::RuntimeWarning")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20240501)


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """The path of a file below PENDULA_DATA; skips the test, saying what is left out, where it is not there."""

    def at(name: str) -> Path:
        folder = os.environ.get("PENDULA_DATA")
        path = Path(folder or "") / name
        if not folder or not path.is_file():
            pytest.skip(f"{name} is not below PENDULA_DATA: what is claimed of the real data is left out")
        return path

    return at
