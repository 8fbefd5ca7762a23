"""benchmarks/gpu.py without a GPU: its contestants run, and those with the same equations give the same outputs."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pendula.ops import native


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", Path(__file__).parents[1] / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(bool(native.missing()), reason="there are no compiled scans that stand in for those of a GPU")
@pytest.mark.parametrize(
    ("name", "steps", "rivals"),
    [
        ("cornn-256", 35, {"reference", "torch.compile"}),
        ("unicornn-psmnist", 35, {"reference", "torch.compile"}),
        ("unicornn-worms", 1001, {"newton"}),
    ],
)
def test_contestants_with_the_same_equations_give_the_same_outputs(
    gpu: ModuleType, name: str, steps: int, rivals: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # what is compiled is PyTorch's affair
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    case = replace(gpu.CASES[name], steps=steps, batch=2, units=8, inputs=1)
    x, outputs = torch.randn(steps, 2, 1), {}
    layers = gpu.contestants(case, "cpu")
    for contestant, layer in layers.items():
        forward, both = gpu.calls(case, layer, x)
        outputs[contestant] = forward()
        both()
        assert all(p.grad is not None for p in layer.parameters())
    differences = gpu.differing(case, outputs)
    assert differences.keys() == rivals
    assert max(differences.values()) < 1e-4
    assert outputs.keys() == {"fused", "torch.nn.LSTM", *rivals}
    if "newton" in rivals:
        assert layers["newton"].report.fallback is None


def test_without_a_gpu_it_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 1
    assert "There is no GPU that torch can use" in capsys.readouterr().err
