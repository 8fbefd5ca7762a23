"""Recurrent networks derived from differential equations, as drop-in PyTorch layers."""

from pendula._check import BackendError, DataError, ShapeError, StabilityWarning
from pendula.cells import CELLS, Cell
from pendula.learn.rule import BPTT, LearningRule
from pendula.nets import LAYERS, Model, ModelSpec, Node, Recurrent, load, save, scan
from pendula.nets.convert import model_from_authors

CoRNN = LAYERS["CoRNN"]
UnICORNN = LAYERS["UnICORNN"]
LSTM = LAYERS["LSTM"]
GRU = LAYERS["GRU"]

__version__ = "0.1.0"
__all__ = [
    "BPTT",
    "CELLS",
    "GRU",
    "LAYERS",
    "LSTM",
    "BackendError",
    "Cell",
    "CoRNN",
    "DataError",
    "LearningRule",
    "Model",
    "ModelSpec",
    "Node",
    "Recurrent",
    "ShapeError",
    "StabilityWarning",
    "UnICORNN",
    "load",
    "model_from_authors",
    "save",
    "scan",
]
