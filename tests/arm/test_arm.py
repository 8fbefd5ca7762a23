"""NEON: every compiled scan has the numbers of this machine's, in both types, all layouts, one thread and several."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from pendula.ops import native
from tests.arm.recorded import recorded
from tests.ops.scan_cases import NETWORKS, SIZES, case, everything, made

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
ABSENT = [
    f"{tool} (Debian's {package})"
    for tool, package in ((COMPILER, "g++-aarch64-linux-gnu"), (EMULATOR, "qemu-user-static"))
    if not shutil.which(tool)
]
pytestmark = [
    pytest.mark.skipif(isinstance(native.load(), str), reason=f"{native.load()}"),
    pytest.mark.skipif(bool(ABSENT), reason=f"no ARM processor, nor one to emulate: {' and '.join(ABSENT)}"),
]
SOURCES = Path(__file__).parents[2] / "native"
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
"""Of the largest number of an array, or of 1: instruction sets differ in the last digits."""


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scans and `replay.cpp` for a 64-bit ARM processor."""
    folder = tmp_path_factory.mktemp("arm")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-psabi", "-Werror", "-fno-math-errno", "-fno-trapping-math"]
    files = [
        *(SOURCES / f"{name}.cpp" for name in ("scans", "cornn", "unicornn", "lem", "odernn")),
        Path(__file__).with_name("replay.cpp"),
    ]
    compile = [COMPILER, *flags, f"-I{SOURCES}", "-DPENDULA_ISA=baseline", "-c"]
    running = [subprocess.Popen([*compile, str(f), "-o", str(folder / f"{f.stem}.o")]) for f in files]
    assert [process.wait() for process in running] == [0] * len(files)
    program = folder / "replay"
    objects = [str(folder / f"{f.stem}.o") for f in files]
    subprocess.run([COMPILER, "-static", *objects, "-o", str(program), "-pthread"], check=True, capture_output=True)
    return program


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_scan_has_the_same_numbers_on_arm(dtype: torch.dtype, replay: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with recorded(tmp_path / "calls") as names:
        try:
            for network, (steps, batch, units, inputs), spans in itertools.product(NETWORKS, SIZES, (False, True)):
                # the replay starts threads for the smallest work
                torch.set_num_threads(3 if spans else 1)
                cell = made(network, inputs, units, dtype)
                everything(cell, case(cell, steps, batch, spans=spans, lengths=spans), "fused")
        finally:
            torch.set_num_threads(before)
    done = subprocess.run([EMULATOR, str(replay), str(tmp_path / "calls")], capture_output=True, text=True, check=True)
    sets, *lines = done.stdout.splitlines()
    assert sets == "sets baseline"
    assert [line.split()[0] for line in lines] == names
    wrong = [line for line in lines if not float(line.split()[2]) <= TOLERANCE[dtype]]
    assert not wrong, wrong
    # another processor has other last digits: the numbers are its own
    assert any(float(line.split()[2]) > 0 for line in lines)
