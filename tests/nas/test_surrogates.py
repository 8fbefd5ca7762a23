"""The comparison of surrogates of docs/nago.md (benchmarks/surrogates.py): no network is predicted from itself."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

pytest.importorskip("optuna", reason="a search runs on Optuna")
pytest.importorskip("botorch", reason="the Gaussian processes are BoTorch's")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("surrogates", ROOT / "benchmarks" / "surrogates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_each_generator_is_predicted_once_and_from_others_only(benchmark: ModuleType) -> None:
    known = [([number / 30], [float(number)] * (1 + number % 3)) for number in range(30)]
    told = []

    def exact(rest: list[tuple[list[float], list[float]]], points: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        assert not {point for (point,), _ in rest} & set(points[:, 0].tolist())
        assert len(rest) + len(points) == 30
        told.extend(points[:, 0].tolist())
        # the value, and one more
        return 30 * points[:, 0] + 1, torch.full((len(points),), 4.0, dtype=torch.float64)

    found = benchmark.held_out(exact, known, 0)
    assert sorted(told) == [point for (point,), _ in known]
    assert found["rmse"] == pytest.approx(1.0)
    assert found["nll"] == pytest.approx(0.5 * math.log(2 * math.pi * 4) + 1 / 8)


@pytest.mark.parametrize("surrogate", ["gp", "bnn"])
def test_surrogates_predict_what_networks_have(benchmark: ModuleType, surrogate: str) -> None:
    chance = torch.Generator().manual_seed(0)
    places = torch.rand(30, 1, generator=chance, dtype=torch.float64)
    values = 0.8 + 0.1 * places + 0.01 * torch.randn(30, 2, generator=chance, dtype=torch.float64)
    known = list(zip(places.tolist(), values.tolist(), strict=True))
    points = torch.tensor([[0.2], [0.8]], dtype=torch.float64)
    mu, variance = benchmark.SURROGATES[surrogate](known, points, 0)
    assert mu.tolist() == pytest.approx([0.82, 0.88], abs=0.01)
    assert variance.sqrt().tolist() == pytest.approx([0.01, 0.01], rel=0.5)


def test_what_is_kept_can_be_worked_out_again(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = json.loads((ROOT / "results" / "search" / "surrogates.json").read_text())
    out = tmp_path / "again.json"
    out.write_text(json.dumps(kept))
    monkeypatch.setattr(benchmark, "SURROGATES", {"constant": benchmark.constant})
    monkeypatch.setattr(sys, "argv", ["surrogates.py", "--out", str(out)])
    benchmark.main()
    for problem, found in json.loads(out.read_text())["problems"].items():
        before = kept["problems"][problem]
        assert found["generators"] == before["generators"]
        for again, told in zip(found["surrogates"]["constant"], before["surrogates"]["constant"], strict=True):
            assert again == pytest.approx(told, rel=1e-9)
