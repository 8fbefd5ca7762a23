"""One network per file. The table CELLS is read off the imports: name of the network -> its cell."""

from pendula.cells.base import Cell, State
from pendula.cells.cornn import CoRNNCell
from pendula.cells.gated import GRUCell, LSTMCell
from pendula.cells.unicornn import UnICORNNCell

CELLS: dict[str, type[Cell]] = {
    name.removesuffix("Cell"): value
    for name, value in sorted(globals().items())
    if isinstance(value, type) and issubclass(value, Cell) and value is not Cell
}

__all__ = ["CELLS", "Cell", "CoRNNCell", "GRUCell", "LSTMCell", "State", "UnICORNNCell"]
