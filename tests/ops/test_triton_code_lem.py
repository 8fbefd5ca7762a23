"""The machine code of LEM's and LinOSS's kernels, compiled for an H100 on any machine, as in `test_triton_code.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pendula.ops.gpu.product import shared_needed_of_four
from tests.ops.on_triton import NEEDS_TRITON
from tests.ops.sm90_lem import CASES
from tests.ops.test_triton_code import SHARED

LIMITS = {
    # case: instructions and barriers of a step, forward and backward
    "lem": ((1050, 28), (1320, 42)),
    "lem-half": ((640, 22), (820, 42)),
    "lem-irregular": ((1380, 30), (1780, 46)),
    "linoss": ((27, 0), (46, 0)),
    "linoss-irregular": ((37, 0), (54, 0)),
}
CARRIED = 38
"""Instructions of a step from chunk to chunk."""

SPILLED = {("lem-irregular", "forward"): 64, ("lem-irregular", "backward"): 12}
"""Numbers of a lane that go through memory at each step: a width that 16 does not divide takes an address for each."""
ASIDE = 32
"""Bytes that each thread may put aside before the loop over time, and fetch behind it, once."""


def violations(line: dict[str, Any]) -> list[str]:
    """What the machine code of one kernel has too much of."""
    case, kernel = line["case"], line["kernel"]
    instructions, barriers = (CARRIED, 0) if kernel == "carry" else LIMITS[case][kernel == "backward"]
    steps, within = line.get("U", 1), SPILLED.get((case, kernel), 0)
    bounds = {
        "spilled in the loop": within,
        "spilled": ASIDE + 8 * within if case.startswith("lem") else 0,
        "shared": min(SHARED, shared_needed_of_four(line["PRODUCTS"], line["M"])) if "PRODUCTS" in line else 0,
        "loop": instructions * steps,
        "barriers": barriers * steps,
        # a division in full would stand between one step and the next
        "divisions": 0,
    }
    return [
        f"{case}, {kernel}: {line[name]} {name}, at most {most}" for name, most in bounds.items() if line[name] > most
    ]


@NEEDS_TRITON
@pytest.mark.parametrize("network", ["lem", "linoss"])
def test_no_step_has_more_instructions_barriers_or_memory_than_stated(network: str) -> None:
    cases = [case for case in CASES if case.split("-")[0] == network]
    command = [sys.executable, "-m", "tests.ops.sm90_lem", *cases]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    kernels = ("forward", "backward") if network == "lem" else ("forward", "carry", "backward")
    assert {(line["case"], line["kernel"]) for line in lines} == {(c, k) for c in cases for k in kernels}
    assert all(line["loop"] for line in lines)
    assert [words for line in lines for words in violations(line)] == []
