"""The layer of each network, made from its cell."""

from __future__ import annotations

import inspect

from pendula.cells import CELLS, Cell
from pendula.nets.recurrent import Recurrent


def layer(cell: type[Cell]) -> type[Recurrent]:
    """The layer of a cell: a `Recurrent` that names the cell's physics in its signature and documentation."""
    _check_class(cell)
    name = cell.__name__.removesuffix("Cell")
    physics = cell.physics()
    face = list(inspect.signature(Recurrent.__init__).parameters.values())
    own = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d) for n, d in physics.items()]
    signature = inspect.Signature([p for p in face[1:] if p.kind is not p.VAR_KEYWORD] + own)
    # the cell's example would run in a module that has no cells
    first = (inspect.getdoc(cell) or "").partition("\n\n>>> ")[0]
    text = f"{first}\n\nThis is the layer, called as `torch.nn.LSTM` is; the cell is `{cell.__name__}`.\n\n"
    text += (inspect.getdoc(Recurrent) or "").split("\n\n", 1)[1]
    text += f"\n\n>>> import torch, pendula\n>>> layer = pendula.{name}(3, 8)\n"
    # some networks show more numbers than they have units
    text += ">>> outputs, state = layer(torch.zeros(5, 2, 3))\n>>> outputs.shape == (5, 2, layer.output_size)\nTrue\n"
    names = {"cell_type": cell, "__doc__": text, "__module__": "pendula", "__signature__": signature}
    return type(name, (Recurrent,), names)


def _check_class(cell: type[Cell]) -> None:
    """What the layer, specs and lists will ask of the class. Errors: TypeError saying what is missing."""
    page = "see docs/add-a-network.md"
    missing = [name for name in ("State", "equation", "source") if not hasattr(cell, name)]
    if missing:
        raise TypeError(f"{cell.__name__} needs the class attributes {', '.join(missing)}: {page}")
    arguments = list(inspect.signature(cell).parameters.values())
    open_ones = [a.name for a in arguments if a.kind is not a.KEYWORD_ONLY]
    if open_ones != ["input_size", "hidden_size", "bias"] or {"device", "dtype"} - {a.name for a in arguments}:
        raise TypeError(
            f"the constructor of {cell.__name__} must take (input_size, hidden_size, bias=True, *, its physics, "
            f"device=None, dtype=None), got ({', '.join(a.name for a in arguments)}): {page}"
        )


LAYERS: dict[str, type[Recurrent]] = {name: layer(cell) for name, cell in CELLS.items()}
"""Name of the network -> its layer."""
