"""The machine code of the kernels in Triton, compiled for an H100 on any machine: what it needs, and what a step costs.

Nothing is put aside in memory for want of registers, shared memory fits, and no step has more instructions or barriers
than stated here: each number is what was counted, and some slack for other versions of Triton.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pendula.ops.gpu.product import HALF, SPLIT, shared_needed, shared_needed_of_four, streamed
from tests.ops.on_triton import NEEDS_TRITON
from tests.ops.sm90_cases import CASES, NETWORKS, some

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
    "lem": ((1050, 28), (1260, 42)),
    "lem-half": ((640, 22), (820, 42)),
    "lem-irregular": ((1110, 28), (1340, 50)),
    "linoss": ((27, 0), (46, 0)),
    "linoss-irregular": ((37, 0), (54, 0)),
    "newton": ((760, 2), (850, 0)),
    "newton-irregular": ((790, 2), (880, 0)),
    "unicornn": ((24, 0), (48, 0)),
    "unicornn-first-layer": ((24, 0), (48, 0)),
    "unicornn-checkpoints": ((24, 0), (48, 0)),
    "unicornn-reversed-long": ((24, 0), (46, 0)),
    "unicornn-irregular": ((54, 0), (84, 0)),
    "unicornn-first-layer-irregular": ((60, 0), (96, 0)),
}

CARRIED = 38
"""Instructions of a step from chunk to chunk of LinOSS."""

TILE = {SPLIT: (140, 2), HALF: (110, 2)}
"""Instructions and barriers of a tile of streamed weights: 24 or 8 products of each warp."""

ASKED = {"forward": 2, "backward": 3}
"""Barriers between what a step hands over and who reads it, where weights are streamed."""

KERNELS = {"newton": ("solve", "judge"), "linoss": ("forward", "carry", "backward")}
"""Network -> its kernels, if they are not forward and backward."""


def shared_of(line: dict[str, Any]) -> int:
    """Bytes of shared memory that the sentences about smaller GPUs count on."""
    if "STAGES" in line:
        return streamed(line["PRODUCTS"], SHARED).shared_needed(line["PRODUCTS"])
    if "PRODUCTS" not in line:
        return 0
    needed = shared_needed_of_four if line["case"].startswith("lem") else shared_needed
    return min(SHARED, needed(line["PRODUCTS"], line["M"]))


def needless(line: dict[str, Any]) -> list[str]:
    """What no kernel has, whatever its options."""
    # a division in full would stand between one step and the next
    bounds = {"spilled": 0, "spilled in the loop": 0, "divisions": 0, "shared": shared_of(line)}
    return exceeded(line, bounds)


def too_much(line: dict[str, Any]) -> list[str]:
    """What a step of a case has too much of."""
    instructions, barriers = LIMITS[line["case"]][line["kernel"] in ("backward", "judge")]
    if line["kernel"] == "carry":
        instructions, barriers = CARRIED, 0
    steps, more = line.get("U", 1), {}
    if "STAGES" in line:
        more = dict(zip(("tile", "barriers of a tile"), TILE[line["PRODUCTS"]], strict=True))
    return exceeded(line, {"loop": instructions * steps, "barriers": barriers * steps, **more})


def exceeded(line: dict[str, Any], bounds: dict[str, int]) -> list[str]:
    words = f"{line['case']}, {line['kernel']}"
    return [f"{words}: {line[name]} {name}, at most {most}" for name, most in bounds.items() if line[name] > most]


def compiled(*arguments: str) -> list[dict[str, Any]]:
    """What `sm90` counts, in a process whose Triton compiles."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "tests.ops.sm90", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_case_has_its_limits() -> None:
    assert LIMITS.keys() == CASES.keys()


@pytest.mark.parametrize("network", NETWORKS)
def test_any_two_options_meet_with_all_their_values(network: str) -> None:
    _, options = NETWORKS[network]
    names = set(some(network))
    for (one, ones), (other, others) in itertools.combinations(options.items(), 2):
        for a, b in itertools.product(ones, others):
            assert any({f"{one}={a:d}", f"{other}={b:d}"} <= set(name.split("-")) for name in names)


@NEEDS_TRITON
@pytest.mark.parametrize("network", NETWORKS)
def test_no_step_has_more_instructions_barriers_or_memory_than_stated(network: str) -> None:
    cases = [case for case in CASES if case.split("-")[0] == network]
    lines = compiled(*cases)
    kernels = KERNELS.get(network, ("forward", "backward"))
    assert {(line["case"], line["kernel"]) for line in lines} == set(itertools.product(cases, kernels))
    assert all(line["loop"] for line in lines)
    assert [words for line in lines for words in (*needless(line), *too_much(line))] == []
    streams = [line for line in lines if "STAGES" in line]
    assert [line["asked"] for line in streams] == [ASKED[line["kernel"]] for line in streams]


@NEEDS_TRITON
@pytest.mark.parametrize("network", NETWORKS)
def test_no_options_together_put_numbers_aside_for_want_of_registers(network: str) -> None:
    lines = compiled("--some", network)
    assert {line["case"] for line in lines} == set(some(network))
    assert [words for line in lines for words in needless(line)] == []
