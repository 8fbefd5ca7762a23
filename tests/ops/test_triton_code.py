"""The machine code of the kernels in Triton, compiled for an H100 on any machine: what it needs, and what a step costs.

No step spills registers to memory, shared memory fits, and no step has more instructions or barriers than stated here:
each number is what was counted, and some slack for other versions of Triton.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pendula.ops.gpu.product import HALF, SPLIT, shared_needed, streamed
from tests.ops.on_triton import NEEDS_TRITON
from tests.ops.sm90 import CASES

SHARED = 227 * 1024
"""Bytes of shared memory that a block of an H100 may have."""

LIMITS = {
    # case: instructions and barriers of a step, forward and backward; of an iteration of Newton's method and its judge;
    # where weights are streamed, of a step that had one tile
    "cornn": ((500, 8), (540, 12)),
    "cornn-half": ((340, 8), (400, 12)),
    "cornn-bfloat16": ((340, 8), (350, 8)),
    "cornn-64": ((440, 10), (490, 11)),
    "cornn-lengths": ((560, 10), (580, 12)),
    "cornn-spans": ((560, 10), (690, 16)),
    "cornn-irregular": ((610, 10), (740, 16)),
    "cornn-256": ((980, 38), (1010, 29)),
    "cornn-512-half": ((780, 38), (830, 29)),
    "cornn-wide-irregular": ((1100, 40), (1150, 33)),
    "newton": ((760, 2), (850, 0)),
    "newton-irregular": ((790, 2), (880, 0)),
    "unicornn": ((24, 0), (48, 0)),
    "unicornn-first-layer": ((24, 0), (48, 0)),
    "unicornn-checkpoints": ((24, 0), (48, 0)),
    "unicornn-reversed-long": ((24, 0), (46, 0)),
    "unicornn-irregular": ((54, 0), (84, 0)),
    "unicornn-first-layer-irregular": ((60, 0), (96, 0)),
}

TILE = {SPLIT: (140, 2), HALF: (110, 2)}
"""Instructions and barriers of a tile of streamed weights: 24 or 8 products of each warp."""

ASKED = {"forward": 2, "backward": 3}
"""Barriers between what a step hands over and who reads it, where weights are streamed."""

KERNELS = {"newton": ("solve", "judge")}
"""Network -> its kernels, if they are not called forward and backward."""

ASIDE = {("cornn-spans", "forward"): 16, ("cornn-irregular", "forward"): 16}
"""Bytes that each thread may put aside before the loop over time, and fetch behind it, once."""


def violations(line: dict[str, Any]) -> list[str]:
    """What the machine code of one kernel has too much of."""
    case, kernel = line["case"], line["kernel"]
    instructions, barriers = LIMITS[case][kernel in ("backward", "judge")]
    steps = line.get("U", 1)
    shared, more = 0, {}
    if "STAGES" in line:
        shared = streamed(line["PRODUCTS"], SHARED).shared_needed(line["PRODUCTS"])
        more = dict(zip(("tile", "barriers of a tile"), TILE[line["PRODUCTS"]], strict=True))
    elif "PRODUCTS" in line:
        shared = shared_needed(line["PRODUCTS"], line["M"])
    bounds = {
        "spilled in the loop": 0,
        "spilled": ASIDE.get((case, kernel), 0),
        # for coRNN this is what the sentence about smaller GPUs counts on
        "shared": min(SHARED, shared),
        "loop": instructions * steps,
        "barriers": barriers * steps,
        # a division in full would stand between one step and the next
        "divisions": 0,
        **more,
    }
    return [
        f"{case}, {kernel}: {line[name]} {name}, at most {most}" for name, most in bounds.items() if line[name] > most
    ]


def test_every_case_has_its_limits() -> None:
    assert LIMITS.keys() == CASES.keys()


@NEEDS_TRITON
@pytest.mark.parametrize("network", ["cornn", "unicornn", "newton"])
def test_no_step_has_more_instructions_barriers_or_memory_than_stated(network: str) -> None:
    cases = [case for case in CASES if case.split("-")[0] == network]
    command = [sys.executable, "-m", "tests.ops.sm90", *cases]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(line["case"], line["kernel"]) for line in lines} == {
        (c, k) for c in cases for k in KERNELS.get(network, ("forward", "backward"))
    }
    assert all(line["loop"] for line in lines)
    assert [words for line in lines for words in violations(line)] == []
    streams = [line for line in lines if "STAGES" in line]
    assert [line["asked"] for line in streams] == [ASKED[line["kernel"]] for line in streams]
