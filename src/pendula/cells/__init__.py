"""One network per file. The table CELLS is read off the imports: name of the network -> its cell."""

from pendula.cells.antisymmetric import AntisymmetricRNNCell
from pendula.cells.base import Cell, State
from pendula.cells.cornn import CoRNNCell
from pendula.cells.dlinoss import DLinOSSCell
from pendula.cells.elman import ElmanCell, IRNNCell
from pendula.cells.eurnn import EURNNCell, RealEURNNCell
from pendula.cells.fast import FastGRNNCell, FastRNNCell
from pendula.cells.full_capacity import FullCapacityURNNCell
from pendula.cells.gated import GRUCell, LSTMCell
from pendula.cells.lem import LEMCell
from pendula.cells.linoss import LinOSSCell
from pendula.cells.lipschitz import LipschitzRNNCell
from pendula.cells.lmu import LMUCell
from pendula.cells.odernn import ODERNNCell
from pendula.cells.orthogonal import ExpRNNCell, ScoRNNCell
from pendula.cells.qunn import QUNNCell
from pendula.cells.qunn_register import QUNNRegisterCell
from pendula.cells.spectral import SpectralRNNCell
from pendula.cells.unicornn import UnICORNNCell
from pendula.cells.urnn import URNNCell

CELLS: dict[str, type[Cell]] = {
    name.removesuffix("Cell"): value
    for name, value in sorted(globals().items())
    if isinstance(value, type) and issubclass(value, Cell) and value is not Cell
}

__all__ = [
    "CELLS",
    "AntisymmetricRNNCell",
    "Cell",
    "CoRNNCell",
    "DLinOSSCell",
    "EURNNCell",
    "ElmanCell",
    "ExpRNNCell",
    "FastGRNNCell",
    "FastRNNCell",
    "FullCapacityURNNCell",
    "GRUCell",
    "IRNNCell",
    "LEMCell",
    "LMUCell",
    "LSTMCell",
    "LinOSSCell",
    "LipschitzRNNCell",
    "ODERNNCell",
    "QUNNCell",
    "QUNNRegisterCell",
    "RealEURNNCell",
    "ScoRNNCell",
    "SpectralRNNCell",
    "State",
    "URNNCell",
    "UnICORNNCell",
]
