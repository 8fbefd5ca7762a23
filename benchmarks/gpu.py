"""The fused scans on a GPU beside PyTorch's own: equality first, then times, ratios, and the share of memory's speed.

    python benchmarks/gpu.py [CASE ...] [--seconds 420]

`make gpu` runs the tests before it. A case whose gradients are not those of the reference scan is not timed, nor is a
rival of the same equations that gives other outputs. Times are the GPU's own, between events, the median of at least 20
rounds in which every contestant has its turn. One JSON file in results/bench/ keeps everything that was measured; the
table is printed last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pendula
from pendula.bench.contestants import Chunked
from pendula.circumstances import circumstances
from pendula.nets.newton import NewtonReport

RESULTS = Path(__file__).parents[1] / "results" / "bench"
ROUNDS = 20


@dataclass(frozen=True)
class Case:
    """A layer and its sizes; `targets` are microseconds per step, forward and backward, that issue 8 asks for.

    `compiled`: with the eager loop under torch.compile too, if two minutes are left, which compiling may take.
    """

    layer_name: str
    steps: int
    batch: int
    units: int
    inputs: int
    autocast: torch.dtype | None = None
    targets: tuple[float, float] | None = None
    compiled: bool = False
    physics: dict[str, float] = field(default_factory=dict)

    def layer(self, backend: str, **more: Any) -> Any:
        return getattr(pendula, self.layer_name)(self.inputs, self.units, backend=backend, **self.physics, **more)


CASES = {
    "unicornn-psmnist": Case("UnICORNN", 784, 128, 256, 256, targets=(65 / 784, 110 / 784), compiled=True),
    "unicornn-psmnist-first": Case("UnICORNN", 784, 128, 256, 1),
    # the physics of the published network's second layer
    "unicornn-worms": Case(
        "UnICORNN", 17984, 8, 32, 32, targets=(750 / 17984, 650 / 17984), physics={"dt": 0.034, "alpha": 0.0}
    ),
    "cornn-128": Case("CoRNN", 784, 128, 128, 1, targets=(0.35, 0.35), compiled=True),
    "cornn-128-half": Case("CoRNN", 784, 128, 128, 1, autocast=torch.float16),
    "cornn-64": Case("CoRNN", 784, 128, 64, 9),
    "cornn-256": Case("CoRNN", 784, 128, 256, 1, targets=(0.6, 0.6), compiled=True),
    "cornn-256-half": Case("CoRNN", 784, 128, 256, 1, autocast=torch.float16, targets=(0.6, 0.6)),
    "cornn-512": Case("CoRNN", 784, 128, 512, 1),
    "cornn-512-half": Case("CoRNN", 784, 128, 512, 1, autocast=torch.float16),
    "lem-128": Case("LEM", 784, 128, 128, 1),
    "lem-128-half": Case("LEM", 784, 128, 128, 1, autocast=torch.float16),
    # the whole block: the scan is a part of it
    "linoss-64": Case("LinOSS", 17984, 32, 64, 64),
}


def spent(call: Callable[[], Any]) -> float:
    """Seconds of the GPU."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3


def bandwidth() -> float:
    """Bytes per second of a copy of 1 GiB, both directions counted."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.numel() * 4 / statistics.median(spent(lambda: target.copy_(source)) for _ in range(ROUNDS))


def gradients(layer: nn.Module, x: Tensor, weights: Tensor) -> list[Tensor]:
    outputs, _ = layer(x)
    return list(torch.autograd.grad((outputs * weights).sum(), [x, *layer.parameters()]))


def disagreement(case: Case) -> float:
    """The largest relative error of a gradient against the reference scan in float64, over 64 steps."""
    exact = case.layer("reference", dtype=torch.float64, device="cuda")
    fused = case.layer("fused", device="cuda")
    fused.load_state_dict(exact.state_dict())
    exact.load_state_dict({name: value.double() for name, value in fused.state_dict().items()})
    x = torch.randn(64, min(case.batch, 16), case.inputs, device="cuda", requires_grad=True)
    weights = torch.randn(64, x.shape[1], case.units, device="cuda")
    truth = gradients(exact, x.detach().double().requires_grad_(), weights.double())
    with torch.autocast("cuda", dtype=case.autocast, enabled=case.autocast is not None):
        found = gradients(fused, x, weights)
    return max(float((f.double() - t).norm() / t.norm().clamp(min=1e-12)) for f, t in zip(found, truth, strict=True))


class Newton(nn.Module):
    """A layer of one cell by Newton's method; the last report is kept."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.cell = layer.cell(0)
        self.report: NewtonReport | None = None

    def forward(self, x: Tensor) -> Any:
        # what rivals over thousands of steps may differ by, too: see `measured`
        return pendula.scan(self.cell, x, method="newton", tolerance=5e-3, report=self.keep)

    def keep(self, report: NewtonReport) -> None:
        self.report = report


def contestants(case: Case, device: str = "cuda", compiles: bool = True) -> dict[str, nn.Module]:
    """Layers of the same sizes, ours with the same weights; step by step only where that ends within seconds."""

    def ours(backend: str, **physics: Any) -> Any:
        layer = case.layer(backend, **physics)
        layer.load_state_dict(weights)
        return layer

    weights = case.layer("auto").state_dict()
    found: dict[str, nn.Module] = {
        "fused": ours("fused"),
        "torch.nn.LSTM": nn.LSTM(case.inputs, case.units),
    }
    if case.steps <= 1000:
        found["reference"] = ours("reference")
    if case.compiled and compiles:
        # what PyTorch differentiates is what PyTorch compiles
        found["torch.compile"] = Chunked(
            ours("reference", **({"memory": "tape"} if case.layer_name == "UnICORNN" else {}))
        )
    if case.layer_name == "UnICORNN" and case.steps > 1000:
        found["newton"] = Newton(ours("auto"))
    return {name: layer.to(device) for name, layer in found.items()}


def calls(case: Case, layer: nn.Module, x: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A forward pass without gradients, and a forward pass with its backward pass."""
    cotangent = torch.randn(case.steps, case.batch, case.units, device=x.device)

    def within() -> torch.autocast:
        return torch.autocast(x.device.type, dtype=case.autocast, enabled=case.autocast is not None)

    def forward() -> Tensor:
        with torch.no_grad(), within():
            outputs: Tensor = layer(x)[0]
            return outputs

    def both() -> None:
        layer.zero_grad(set_to_none=True)
        with within():
            outputs, _ = layer(x)
        outputs.backward(cotangent.to(outputs.dtype))

    return forward, both


def differing(case: Case, outputs: dict[str, Tensor]) -> dict[str, float]:
    """How far the outputs of each rival with the same equations are from ours, as a share of theirs."""
    ours = outputs["fused"].double()
    rivals = {name: other.double() for name, other in outputs.items() if name not in ("fused", "torch.nn.LSTM")}
    return {name: float((ours - other).norm() / other.norm()) for name, other in rivals.items()}


def measured(case: Case, deadline: float, row: dict[str, Any]) -> dict[str, Any]:
    """Microseconds per step of every contestant, forward and forward with backward; `row` takes what they differ by."""
    turns: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    outputs: dict[str, Tensor] = {}
    x = torch.randn(case.steps, case.batch, case.inputs, device="cuda")
    for name, layer in contestants(case, compiles=time.monotonic() < deadline - 120).items():
        turns[name] = calls(case, layer, x)
        # compiles, and fills caches
        outputs[name] = turns[name][0]()
        turns[name][1]()
        if isinstance(layer, Newton) and layer.report is not None:
            row["newton"] = vars(layer.report)
    row["differences"] = differing(case, outputs)
    # over thousands of steps rounding decides more digits than these
    for name in [n for n, d in row["differences"].items() if not d <= max(row["allowed"], 5e-3 * (case.steps > 1000))]:
        del turns[name]
    outputs.clear()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for turn in range(ROUNDS):
        for name, (forward, both) in turns.items():
            # step by step takes a thousand times as long, and three rounds show it
            if time.monotonic() < deadline and (name != "reference" or turn < 3):
                seen[name].append((spent(forward), spent(both)))
    return {
        name: {
            "forward_us_per_step": 1e6 * statistics.median(f for f, _ in pairs) / case.steps,
            "both_us_per_step": 1e6 * statistics.median(b for _, b in pairs) / case.steps,
            "rounds": len(pairs),
        }
        for name, pairs in seen.items()
        if pairs
    }


def least_bytes(case: Case) -> int:
    """What a forward pass has to read and write at each step: its input and its output in float32."""
    return 4 * case.batch * (case.inputs + case.units)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all when none is named")
    parser.add_argument("--seconds", type=float, default=420.0, help="no round begins later than that")
    asked = parser.parse_args()
    if unknown := [name for name in asked.cases if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if not torch.cuda.is_available():
        print("There is no GPU that torch can use, so there is nothing to measure.", file=sys.stderr)
        return 1
    deadline = time.monotonic() + asked.seconds
    speed = bandwidth()
    kept: dict[str, Any] = {"circumstances": circumstances(), "copy_bytes_per_second": speed, "cases": {}}
    heads = f"{'us/step':>9}{'with bwd':>10}{'LSTM/ours':>11}{'compiled':>10}{'of memory':>11}{'error':>10}"
    table = [f"{'case':24}{heads}  target"]
    for name in asked.cases or CASES:
        case = CASES[name]
        torch.manual_seed(0)
        error, allowed = disagreement(case), 1e-4 if case.autocast is None else 1e-2
        row: dict[str, Any] = {"error": error, "allowed": allowed, **{k: str(v) for k, v in vars(case).items()}}
        kept["cases"][name] = row
        if not error <= allowed:
            table.append(f"{name:24}not timed: its gradients differ from the reference's by {error:.1e}")
            continue
        row["times"] = times = measured(case, deadline, row)
        if "fused" not in times:
            table.append(f"{name:24}not timed: the {asked.seconds:.0f} seconds were over")
            continue
        ours = times["fused"]
        share = least_bytes(case) / (ours["forward_us_per_step"] * 1e-6) / speed
        ratio, compiled = (
            f"{times[rival]['both_us_per_step'] / ours['both_us_per_step']:.2f}" if rival in times else "-"
            for rival in ("torch.nn.LSTM", "torch.compile")
        )
        target = "" if case.targets is None else f"forward {case.targets[0]:.3f}, backward {case.targets[1]:.3f}"
        table.append(
            f"{name:24}{ours['forward_us_per_step']:9.3f}{ours['both_us_per_step']:10.3f}{ratio:>11}{compiled:>10}"
            f"{share:11.1%}{error:10.1e}  {target}"
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"gpu-{time.strftime('%Y-%m-%d-%H%M%S', time.gmtime())}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"copy: {speed / 1e12:.2f} TB/s; {path}", *table, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
