"""What is timed on a GPU: one layer of each network that has a scan there, and what the project wants of it."""

from __future__ import annotations

from pendula.bench.cases import BACKWARD, CPU, EAGER, FORWARD, GPU, GRU, LSTM, NEWTON, SWEEP, TRAINING, Case
from pendula.bench.cases import CASES as CPU_CASES

TORCH = (EAGER, LSTM, GRU)
KERNELS = (LSTM, GRU)
"""Step by step from Python, thousands of steps take seconds: compared with, but not timed."""


def _case(
    name: str,
    network: str,
    steps: int,
    batch: int,
    inputs: int,
    units: int,
    *,
    rivals: tuple[str, ...] = TORCH,
    compiles: bool = False,
    half: bool = False,
    physics: dict[str, float] | None = None,
    at_most: tuple[float, float] | None = None,
    lstm: float | None = None,
) -> Case:
    """`at_most`: microseconds per step, forward and backward; `lstm`: how many times faster than PyTorch's."""
    return Case(
        name, network, steps, batch, inputs, units, rivals=rivals, compiles=compiles, device=GPU,
        autocast="float16" if half else None, physics=physics or {},
        targets={} if at_most is None else dict(zip((FORWARD, BACKWARD), at_most, strict=True)),
        goals={} if lstm is None else {FORWARD: {LSTM: lstm}, TRAINING: {LSTM: lstm}},
    )  # fmt: skip


_ALL = (
    _case("unicornn-psmnist", "UnICORNN", 784, 128, 256, 256, compiles=True, at_most=(65 / 784, 110 / 784)),
    _case("unicornn-psmnist-first", "UnICORNN", 784, 128, 1, 256),
    # the physics of the published network's second layer
    _case(
        "unicornn-worms", "UnICORNN", 17984, 8, 32, 32, rivals=(*KERNELS, NEWTON),
        physics={"dt": 0.034, "alpha": 0.0}, at_most=(750 / 17984, 650 / 17984),
    ),
    _case("cornn-64", "CoRNN", 784, 128, 9, 64),
    _case("cornn-128", "CoRNN", 784, 128, 1, 128, compiles=True, at_most=(0.35, 0.35), lstm=2),
    _case("cornn-128-half", "CoRNN", 784, 128, 1, 128, half=True),
    _case("cornn-256", "CoRNN", 784, 128, 1, 256, compiles=True, at_most=(0.6, 0.6)),
    _case("cornn-256-half", "CoRNN", 784, 128, 1, 256, half=True, at_most=(0.6, 0.6)),
    _case("cornn-512", "CoRNN", 784, 128, 1, 512),
    _case("cornn-512-half", "CoRNN", 784, 128, 1, 512, half=True),
    _case("lem-128", "LEM", 784, 128, 1, 128),
    _case("lem-128-half", "LEM", 784, 128, 1, 128, half=True),
    # the whole block: the scan is a part of it
    _case("linoss-64", "LinOSS", 17984, 32, 64, 64, rivals=KERNELS),
)  # fmt: skip

GPU_CASES: dict[str, Case] = {case.name: case for case in _ALL}

CASES_ON: dict[str, dict[str, Case]] = {CPU: CPU_CASES, GPU: GPU_CASES}
"""Device -> its cases."""
NAMES_ON: dict[str, tuple[str, ...]] = {CPU: (*CPU_CASES, SWEEP), GPU: tuple(GPU_CASES)}
"""Device -> what `--case` may name."""


def least_bytes(case: Case) -> int:
    """What a forward pass has to read and write, however it is done: input and outputs, in float32."""
    return 4 * case.steps * case.batch * (case.inputs + case.units)
