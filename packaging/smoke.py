"""Tries the pendula that is installed, far from its sources: `python -I packaging/smoke.py compiled` or `pure`."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import torch

import pendula
from pendula.cells import CELLS
from pendula.ops import native


def everything(layer: pendula.Recurrent, backend: str) -> list[torch.Tensor]:
    """Outputs, states and gradients at odd sizes, with padding."""
    layer.zero_grad()
    layer.backend = backend
    x = torch.sin(torch.arange(37 * 5 * 3, dtype=torch.float64)).reshape(37, 5, 3).requires_grad_()
    outputs, state = layer(x, lengths=[37, 1, 20, 36, 2])
    weights = torch.cos(torch.arange(outputs.numel(), dtype=torch.float64)).reshape(outputs.shape)
    (outputs * weights).sum().backward()
    assert x.grad is not None
    return [outputs.detach(), *(s.detach() for s in state), x.grad, *(p.grad for p in layer.parameters())]


def compiled(layer: pendula.Recurrent) -> str:
    expected = everything(layer, "reference")
    worst = 0.0
    for name in native.instruction_sets():
        native.use_instruction_set(name)
        for got, wanted in zip(everything(layer, "fused"), expected, strict=True):
            worst = max(worst, float((got - wanted).abs().max()) / max(1.0, float(wanted.abs().max())))
    assert worst < 1e-12, worst
    return f"fused as reference to {worst:.0e} with {', '.join(native.instruction_sets())}"


def pure(layer: pendula.Recurrent) -> str:
    try:
        everything(layer, "fused")
    except pendula.BackendError as error:
        said = str(error)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for _ in range(2):
            got = everything(layer, "auto")
    assert len(given) == 1, [str(w.message) for w in given]
    for ours, wanted in zip(got, everything(layer, "reference"), strict=True):
        assert torch.equal(ours, wanted)
    return said


def main(kind: str) -> None:
    where = Path(pendula.__file__).parent
    assert Path(sys.prefix) in where.parents, f"{where} is not of this environment"
    assert bool(native.missing()) == (kind == "pure"), native.missing() or "this installation has the compiled scans"
    print(f"pendula {pendula.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    for name, cell in CELLS.items():
        if cell.fused is not None and cell.fused.name.startswith("pendula::"):
            layer = pendula.LAYERS[name](3, 37, 2, bidirectional=True, dtype=torch.float64)
            print(f"{name}: {(pure if kind == 'pure' else compiled)(layer)}")
    command = [str(Path(sys.executable).parent / "pendula"), "list", "backends"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (native.missing() or native.instruction_sets()[0]) in shown, shown


if __name__ == "__main__":
    main(sys.argv[1])
