"""The layer of each network, made from its cell."""

from __future__ import annotations

import inspect

from pendula.cells import CELLS, Cell
from pendula.nets.recurrent import Recurrent


def layer(cell: type[Cell]) -> type[Recurrent]:
    """The layer of a cell: a `Recurrent` that names the cell's physics in its signature and documentation."""
    name = cell.__name__.removesuffix("Cell")
    physics = cell.physics()
    face = list(inspect.signature(Recurrent.__init__).parameters.values())
    own = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d) for n, d in physics.items()]
    signature = inspect.Signature([p for p in face[1:] if p.kind is not p.VAR_KEYWORD] + own)
    # the cell's example would run in a module that has no cells
    first = (inspect.getdoc(cell) or "").partition("\n\n>>> ")[0]
    text = f"{first}\n\nThis is the layer, called as `torch.nn.LSTM` is; the cell is `{cell.__name__}`.\n\n"
    text += (inspect.getdoc(Recurrent) or "").split("\n\n", 1)[1]
    text += f"\n\n>>> import torch, pendula\n>>> outputs, state = pendula.{name}(3, 8)(torch.zeros(5, 2, 3))\n"
    text += ">>> outputs.shape\ntorch.Size([5, 2, 8])\n"
    names = {"cell_type": cell, "__doc__": text, "__module__": "pendula", "__signature__": signature}
    return type(name, (Recurrent,), names)


LAYERS: dict[str, type[Recurrent]] = {name: layer(cell) for name, cell in CELLS.items()}
"""Name of the network -> its layer."""
