"""What holds in every test: seeded, no denormals, no unexpected warning."""

import pytest
import torch

# denormal gradients of long sequences make a CPU up to 18 times slower (spec sheet cornn.md 3.5)
torch.set_flush_denormal(True)
# the tensors are small: a second thread brings nothing, and waits for a core where others work too
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    # a warning of the package or of PyTorch that no test expects is a failure
    config.addinivalue_line("filterwarnings", "error::UserWarning")
    config.addinivalue_line("filterwarnings", "error::RuntimeWarning")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20240501)
