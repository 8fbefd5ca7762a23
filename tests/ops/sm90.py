"""Compile the kernels for an H100 or H200 on any machine, and count what their machine code has: a JSON line for each.

    TRITON_INTERPRET=0 python -m tests.ops.sm90 CASE ...

The launchers run as on a GPU, up to the launch: what is compiled is what would run. The Triton wheel has the compiler
and the disassembler.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
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


def empty(*shape: int) -> Tensor:
    return torch.empty(shape)


def unicornn(steps: int, batch: int, units: int, inputs: int, memory: int, **options: Any) -> None:
    from pendula.ops.gpu import unicornn as scan

    x, state, V = empty(steps, batch, inputs), empty(batch, units), empty(units, inputs)
    w, h, alpha, b = (empty(units) for _ in range(4))
    tau = empty(steps, batch) if options.get("spans") else None
    lengths = torch.ones(batch, dtype=torch.int64) if options.get("lengths") else None
    given = (x, state, state, w, h, alpha, V, b, tau, lengths)
    outputs, y, z, kept = scan.forward(*given, memory, 64)
    shown = outputs if memory == 0 else empty(0)
    scan.backward(outputs, y, z, *given, shown, y, z, kept, memory, 64, bool(options.get("input", True)))


def cornn(steps: int, batch: int, units: int, inputs: int, products: int, **options: Any) -> None:
    from pendula.ops.gpu import cornn as scan

    x, state, V = empty(steps, batch, inputs), empty(batch, units), empty(units, inputs)
    W, dt, b = empty(units, units), empty(units), empty(units)
    tau = empty(steps, batch) if options.get("spans") else None
    lengths = torch.ones(batch, dtype=torch.int64) if options.get("lengths") else None
    given, implicit = (x, state, state, W, W, V), bool(options.get("implicit"))
    outputs, _, _, tanhs, kept = scan.forward(*given, b, dt, dt, dt, tau, lengths, implicit, True, products)
    scan.backward(
        outputs,
        None,
        None,
        *given,
        dt,
        dt,
        dt,
        tau,
        lengths,
        outputs,
        tanhs,
        kept,
        implicit,
        True,
        bool(options.get("constants")),
        products,
    )


def newton(steps: int, batch: int, units: int, inputs: int, **options: Any) -> None:
    from pendula.ops.gpu import newton as scan

    x, state, V = empty(steps, batch, inputs), empty(batch, units), empty(units, inputs)
    w, h, alpha, b = (empty(units) for _ in range(4))
    tau = empty(steps, batch) if options.get("spans") else None
    lengths = torch.ones(batch, dtype=torch.int64) if options.get("lengths") else None
    scan.forward(x, state, state, w, h, alpha, V, b, tau, lengths)


CASES: dict[str, Any] = {
    "cornn": lambda: cornn(784, 128, 128, 1, 0),
    "cornn-half": lambda: cornn(784, 128, 128, 1, 1),
    "cornn-bfloat16": lambda: cornn(784, 128, 128, 1, 2),
    "cornn-64": lambda: cornn(784, 128, 64, 9, 0),
    "cornn-lengths": lambda: cornn(130, 5, 128, 9, 0, lengths=True),
    "cornn-spans": lambda: cornn(130, 5, 128, 9, 0, spans=True),
    "cornn-irregular": lambda: cornn(130, 5, 100, 9, 0, spans=True, lengths=True, implicit=True, constants=True),
    "cornn-256": lambda: cornn(784, 128, 256, 1, 0),
    "cornn-512-half": lambda: cornn(784, 128, 512, 9, 1),
    "cornn-wide-irregular": lambda: cornn(130, 5, 500, 9, 0, spans=True, lengths=True, implicit=True, constants=True),
    "unicornn": lambda: unicornn(784, 128, 256, 256, 0),
    "unicornn-first-layer": lambda: unicornn(784, 128, 256, 1, 0, input=False),
    "unicornn-checkpoints": lambda: unicornn(1024, 128, 256, 256, 1),
    "unicornn-reversed-long": lambda: unicornn(1088, 8, 32, 32, 2),
    "unicornn-irregular": lambda: unicornn(130, 8, 32, 32, 0, spans=True, lengths=True),
    "unicornn-first-layer-irregular": lambda: unicornn(130, 8, 32, 2, 0, spans=True, lengths=True),
    "newton": lambda: newton(17984, 8, 32, 32),
    "newton-irregular": lambda: newton(130, 8, 32, 2, spans=True, lengths=True),
}


def main(names: list[str]) -> None:
    from triton.runtime import driver

    driver.set_active(H100())
    case = ""

    def compile_only(kernel: Any, programs: int, like: Tensor, *, warps: int, **arguments: Any) -> None:
        options = {"FAST": True, "num_warps": warps, "enable_fp_fusion": True}
        compiled = kernel.warmup(**arguments, **options, grid=(programs,))
        chosen = {name: value for name, value in arguments.items() if name.isupper() and isinstance(value, int)}
        line = {"case": case, "kernel": kernel.__name__, "warps": warps, **chosen, **census(compiled)}
        print(json.dumps(line), flush=True)

    device.launch = compile_only
    for case in names or CASES:
        CASES[case]()


if __name__ == "__main__":
    main(sys.argv[1:])
