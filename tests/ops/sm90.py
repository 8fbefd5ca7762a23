"""Compile the kernels for an H100 or H200 on any machine, and count what their machine code has: a JSON line for each.

    TRITON_INTERPRET=0 python -m tests.ops.sm90 CASE ...
    TRITON_INTERPRET=0 python -m tests.ops.sm90 --every NETWORK ...

With `--every` it is all options of a network's kernels in all combinations, and what needs memory for want of registers
is an error. The launchers run as on a GPU, up to the launch: what is compiled is what would run. The Triton wheel has
the compiler and the disassembler.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pendula.ops.gpu import device


class H100:
    """As much of Triton's driver as compiling needs."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def tool(name: str, *arguments: str) -> str:
    import triton.backends.nvidia

    place = Path(triton.backends.nvidia.__file__).parent / "bin" / name
    return subprocess.run([str(place), *arguments], capture_output=True, text=True, check=True).stdout


def operation(instruction: str) -> str:
    return re.sub(r"^@!?U?P\w+\s+", "", instruction).split()[0]


def loops(code: str) -> list[list[str]]:
    """Instructions between each backward branch and its target, the longest first."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    found = []
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L\w+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            instructions.append(instruction[1])
            branch = re.search(r"BRA.*`\((\.L\w+)\)", instruction[1])
            # the last instruction of a kernel is a branch to itself
            if branch and labels.get(branch[1], len(instructions)) < len(instructions) - 1:
                found.append(instructions[labels[branch[1]] :])
    return sorted(found, key=len, reverse=True)


def census(compiled: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        usage, code = tool("cuobjdump", "-res-usage", str(binary)), tool("nvdisasm", "-c", str(binary))
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    found = [(loop, Counter(operation(instruction).split(".")[0] for instruction in loop)) for loop in loops(code)]
    body, counts = found[0] if found else ([], Counter())
    # the innermost loop with products: all of a step, or a tile of streamed weights
    tile, of_tile = min((f for f in found if f[1]["HMMA"]), key=lambda f: len(f[0]), default=([], Counter()))
    return {
        "registers": used["REG"],
        "spilled": used["STACK"] + used["LOCAL"],
        "shared": compiled.metadata.shared,
        "loop": len(body),
        "barriers": counts["BAR"],
        "products": counts["HMMA"] + counts["HGMMA"],
        "tile": len(tile),
        "barriers of a tile": of_tile["BAR"],
        # those that the kernel asks for itself, still there once the compiler has moved its loads ahead
        "asked": len(re.findall(r"^\s*(?:gpu|ttg)\.barrier", compiled.asm["ttgir"], re.MULTILINE)),
        "spilled in the loop": counts["LDL"] + counts["STL"],
        "divisions": sum("CALL" in instruction for instruction in body),
    }


def count(cases: Mapping[str, Callable[[], None]]) -> Iterator[dict[str, Any]]:
    """What the machine code of each kernel has that a case would launch."""
    from triton.runtime import driver

    driver.set_active(H100())
    found: list[dict[str, Any]] = []

    def compile_only(kernel: Any, programs: int, like: Tensor, *, warps: int, **arguments: Any) -> None:
        compiled = kernel.warmup(**arguments, FAST=True, **device.options(warps), grid=(programs,))
        chosen = {name: value for name, value in arguments.items() if name.isupper() and isinstance(value, int)}
        found.append({"kernel": kernel.__name__, "warps": warps, **chosen, **census(compiled)})

    device.launch = compile_only
    for case, run in cases.items():
        run()
        yield from ({"case": case, **line} for line in found)
        found.clear()


def main(arguments: list[str]) -> int:
    from tests.ops.sm90_cases import CASES, NETWORKS, combinations, some

    if arguments[:1] in (["--every"], ["--some"]):
        choose = combinations if arguments[0] == "--every" else some
        cases = {name: run for network in arguments[1:] or NETWORKS for name, run in choose(network).items()}
    else:
        cases = {name: CASES[name] for name in arguments or CASES}
    spilled = 0
    for line in count(cases):
        spilled += line["spilled"]
        print(json.dumps(line), flush=True)
    return int(arguments[:1] == ["--every"] and spilled > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
