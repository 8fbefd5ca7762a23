"""Peak memory of whole training steps, as the operating system counts it: what a rule saves beside backpropagation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "dfa.py"
STEPS = 4096


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dfa_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("network", "rule"), [("CoRNN", "kernel"), ("LSTM", "local")])
def test_the_rules_of_har2_need_at_most_a_fifth_of_backpropagation(
    benchmark: ModuleType, network: str, rule: str
) -> None:
    # beside the compiled scans where there are some, which keep least: plain autograd needs more
    whole, own = (benchmark.peak(network, name, STEPS) for name in ("bptt", rule))
    # what backpropagation keeps at the least, the states: the measure sees it
    assert whole > 2 * 4 * STEPS * benchmark.BATCH * 64
    assert 0 < own <= whole / 5
