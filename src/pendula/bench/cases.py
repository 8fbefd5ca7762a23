"""What is timed on a processor: networks, sizes, passes, and the ratios that the project set itself as goals.

What is timed on a GPU: `gpu_cases.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

CPU, GPU = "cpu", "cuda"
FORWARD, TRAINING, STEP, BACKWARD = "forward", "forward + backward", "one step", "backward"
EAGER, LSTM, GRU, JAX = "eager PyTorch", "torch.nn.LSTM", "torch.nn.GRU", "JAX, jitted"
COMPILED, TORCHRECURRENT, NEWTON = "torch.compile", "torchrecurrent", "Newton's method"
RIVALS = (EAGER, LSTM, GRU, TORCHRECURRENT, JAX)
FLOOR, THREADS, MEMORY = "floor", "threads", "memory"


@dataclass(frozen=True)
class Case:
    """One network at one size.

    Args:
        name: what `--case` calls it.
        network: name of the layer; on a processor "CoRNN" or "UnICORNN".
        steps, batch, inputs, units, layers: T, B, I, N and the number of layers.
        threads: of PyTorch, and of JAX.
        passes: FORWARD (inference), TRAINING (forward and backward, a gradient on every output), or STEP alone (one
            streaming step from Python).
        rivals: what it is compared with.
        compiles: whether torch.compile is tried when it is asked for: it takes many seconds.
        memory: whether peak memory is measured too.
        physics: arguments of the cell.
        lean: physics that keep less for the backward pass; timed and measured beside the plain ones.
        goals: pass -> rival -> how many times faster; THREADS stands for two threads against one, FLOOR for the
            fraction of the floor, and the pass MEMORY for the fraction of eager's peak memory.
        device: CPU, or GPU for one of NVIDIA.
        autocast: "float16" or "bfloat16" for products under autocast; as float32 when None.
        targets: FORWARD, BACKWARD -> microseconds per step that the project wants on an H200.
    """

    name: str
    network: str
    steps: int
    batch: int
    inputs: int
    units: int
    layers: int = 1
    threads: int = 1
    passes: tuple[str, ...] = (FORWARD, TRAINING)
    rivals: tuple[str, ...] = RIVALS
    compiles: bool = False
    memory: bool = False
    physics: Mapping[str, Any] = field(default_factory=dict)
    lean: Mapping[str, Any] = field(default_factory=dict)
    goals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    device: str = CPU
    autocast: str | None = None
    targets: Mapping[str, float] = field(default_factory=dict)

    def title(self) -> str:
        """Network and sizes in one line."""
        layers = f" {self.layers} layers" if self.layers > 1 else ""
        sizes = f"T={self.steps} B={self.batch} d={self.inputs} N={self.units}"
        where = "GPU" if self.device == GPU else f"{self.threads} thread{'s' * (self.threads > 1)}"
        products = "" if self.autocast is None else f", products in {self.autocast}"
        return f"{self.name}: {self.network}{layers} {sizes}, {where}{products}"

    def goal(self, where: str, rival: str) -> float | None:
        return self.goals.get(where, {}).get(rival)

    def quick(self) -> Case:
        """The same at tiny sizes, without goals, to see that everything runs."""
        most = {"steps": 18, "batch": 3, "inputs": 2, "units": 8}
        return replace(
            self, **{name: min(getattr(self, name), size) for name, size in most.items()}, goals={}, targets={}
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Case:
        given: dict[str, Any] = dict(data)
        return cls(**given | {name: tuple(given[name]) for name in ("passes", "rivals")})


def work(case: Case, direction: str) -> tuple[float, float]:
    """Operations and bytes (float32) that no implementation can do without.

    Operations are those of the matrix products: forward, and with TRAINING also the adjoints of the state and of a
    layer's input (not of the first) and the gradients of the weights. Bytes: a layer's input and output once; with
    TRAINING both once more, the gradient of the output, and that of the input (not of the first layer); the weights
    once. What tanh costs is not in it.
    """
    rows = case.steps * case.batch
    recurrent = 2 * case.units if case.network == "CoRNN" else 0
    operations = numbers = 0
    for layer in range(case.layers):
        width = case.units if layer else case.inputs
        weights = case.units * (recurrent + width)
        operations += 2 * rows * weights
        numbers += rows * (width + case.units) + weights
        if direction == TRAINING:
            inner = recurrent + (width if layer else 0)
            operations += 2 * rows * (weights + case.units * inner)
            numbers += rows * (width + 2 * case.units + (width if layer else 0))
    return float(operations), 4.0 * numbers


def _both(forward: dict[str, float], training: dict[str, float], **more: dict[str, float]) -> dict[str, Any]:
    return {FORWARD: forward, TRAINING: training, **more}


_CHECKPOINTS = {"memory": "checkpoint"}
_HAR = {EAGER: 4, LSTM: 2.5, JAX: 1.6, THREADS: 1.7}

_ALL = (
    Case(
        "cornn-har", "CoRNN", 128, 64, 9, 64,
        physics={"dt": 0.1, "gamma": 0.2, "epsilon": 6.4}, compiles=True, goals=_both(_HAR, _HAR),
    ),
    Case(
        "cornn-adding", "CoRNN", 500, 50, 2, 128, compiles=True,
        goals=_both({EAGER: 3, LSTM: 2.5, JAX: 1.5, THREADS: 1.7}, {EAGER: 3, LSTM: 3.5, JAX: 1.8, THREADS: 1.7}),
    ),
    Case(
        "cornn-smnist", "CoRNN", 784, 120, 1, 256, threads=2, memory=True,
        physics={"dt": 0.042, "gamma": 2.7, "epsilon": 4.7},
        goals=_both(
            {EAGER: 2.3, LSTM: 2.5, JAX: 1.9, THREADS: 1.7},
            {EAGER: 1.8, LSTM: 2.8, JAX: 1.4, THREADS: 1.7},
            memory={EAGER: 0.4},
        ),
    ),
    Case(
        "cornn-wide", "CoRNN", 256, 64, 1, 1024, rivals=(EAGER, LSTM, JAX),
        goals=_both({EAGER: 1.2, FLOOR: 0.75, THREADS: 1.7}, {EAGER: 1.25, THREADS: 1.7}),
    ),
    Case(
        "cornn-single", "CoRNN", 784, 1, 1, 256, passes=(FORWARD,), compiles=True,
        goals={FORWARD: {EAGER: 9, LSTM: 3.5, JAX: 1.8}},
    ),
    Case("cornn-stream", "CoRNN", 1, 1, 1, 128, passes=(STEP,), goals={STEP: {EAGER: 3}}),
    Case(
        "unicornn-3", "UnICORNN", 784, 128, 1, 256, layers=3, rivals=(EAGER, LSTM, JAX), memory=True, lean=_CHECKPOINTS,
        physics={"dt": 0.19, "alpha": 30.65},
        goals=_both({EAGER: 2.5, THREADS: 1.7}, {EAGER: 2.3, THREADS: 1.7}, memory={EAGER: 0.35}),
    ),
    Case(
        "unicornn-long", "UnICORNN", 17984, 8, 6, 32, layers=2, rivals=(EAGER, LSTM, TORCHRECURRENT, JAX),
        physics={"dt": [2.81e-5, 0.0343], "alpha": 0.0},
        goals=_both({EAGER: 35, JAX: 3.5}, {EAGER: 60, JAX: 4}),
    ),
)  # fmt: skip

CASES: dict[str, Case] = {case.name: case for case in _ALL}

SWEEP = "sweep"
"""Name of the set of cases that the picture is drawn from."""


def sweep() -> list[Case]:
    """coRNN against T at N=64 and against N at T=128, each with B=16."""
    alike: dict[str, Any] = {"passes": (TRAINING,), "rivals": (EAGER, LSTM, JAX)}
    sizes = [(steps, 64) for steps in (32, 64, 128, 256, 512, 1024)]
    sizes += [(128, units) for units in (16, 32, 128, 256, 512)]
    return [Case(f"T={steps} N={units}", "CoRNN", steps, 16, 8, units, **alike) for steps, units in sizes]
