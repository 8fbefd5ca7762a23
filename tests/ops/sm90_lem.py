"""The cases of `sm90.py` for LEM and LinOSS: TRITON_INTERPRET=0 python -m tests.ops.sm90_lem CASE ..."""

from __future__ import annotations

import sys
from typing import Any

import torch

from tests.ops import sm90
from tests.ops.sm90 import empty


def lem(steps: int, batch: int, units: int, inputs: int, products: int, **options: Any) -> None:
    from pendula.ops.gpu import lem as scan

    x, state, V = empty(steps, batch, inputs), empty(batch, units), empty(4 * units, inputs)
    W, W_y, b, dt = empty(3 * units, units), empty(units, units), empty(4 * units), empty(units)
    tau = empty(steps, batch) if options.get("spans") else None
    lengths = torch.ones(batch, dtype=torch.int64) if options.get("lengths") else None
    given = (x, state, state, W, W_y, V)
    outputs, _, _, gates, kept = scan.forward(*given, b, dt, tau, lengths, True, products)
    wants_dt = bool(options.get("constants"))
    scan.backward(outputs, None, None, *given, dt, tau, lengths, outputs, gates, kept, True, wants_dt, products)


def linoss(steps: int, batch: int, units: int, **options: Any) -> None:
    from pendula.ops.gpu import linoss as scan

    # as it lies in a drive
    force = empty(steps, batch, 5 * units)[..., 2 * units : 3 * units]
    state, matrix = empty(batch, units), empty(2, 3, units)
    z, y = scan.forward(force, matrix, state, state)
    scan.backward(z if options.get("z") else None, y, force, matrix, state, state, z, y, True)


CASES: dict[str, Any] = {
    "lem": lambda: lem(784, 128, 128, 1, 0),
    "lem-half": lambda: lem(784, 128, 128, 1, 1),
    "lem-irregular": lambda: lem(130, 5, 100, 9, 0, spans=True, lengths=True, constants=True),
    "linoss": lambda: linoss(17984, 32, 64),
    "linoss-irregular": lambda: linoss(785, 5, 37, z=True),
}

if __name__ == "__main__":
    sm90.CASES.update(CASES)
    sm90.main(sys.argv[1:] or list(CASES))
