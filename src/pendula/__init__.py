"""Recurrent networks derived from differential equations, as drop-in PyTorch layers."""

from pendula import diagnose
from pendula._check import BackendError, DataError, ShapeError, StabilityWarning
from pendula.cells import CELLS, Cell
from pendula.learn.geodesic import Geodesic, make_optimiser
from pendula.learn.rule import BPTT, LearningRule
from pendula.nets import LAYERS, Model, ModelSpec, Node, Recurrent, load, save, scan
from pendula.nets.convert import model_from_authors
from pendula.nets.jacobian import step_gains, step_jacobian
from pendula.nets.order import explain_order
from pendula.nets.reservoir import Reservoir

CoRNN = LAYERS["CoRNN"]
UnICORNN = LAYERS["UnICORNN"]

ODERNN = LAYERS["ODERNN"]

QUNN = LAYERS["QUNN"]
QUNNRegister = LAYERS["QUNNRegister"]

URNN = LAYERS["URNN"]
FullCapacityURNN = LAYERS["FullCapacityURNN"]
EURNN = LAYERS["EURNN"]
RealEURNN = LAYERS["RealEURNN"]

ExpRNN = LAYERS["ExpRNN"]
ScoRNN = LAYERS["ScoRNN"]
SpectralRNN = LAYERS["SpectralRNN"]

LinOSS = LAYERS["LinOSS"]
DLinOSS = LAYERS["DLinOSS"]

LEM = LAYERS["LEM"]
AntisymmetricRNN = LAYERS["AntisymmetricRNN"]
LipschitzRNN = LAYERS["LipschitzRNN"]
LMU = LAYERS["LMU"]

Elman = LAYERS["Elman"]
IRNN = LAYERS["IRNN"]
FastRNN = LAYERS["FastRNN"]
FastGRNN = LAYERS["FastGRNN"]
LSTM = LAYERS["LSTM"]
GRU = LAYERS["GRU"]

__version__ = "0.1.0"
__all__ = [
    "BPTT",
    "CELLS",
    "EURNN",
    "GRU",
    "IRNN",
    "LAYERS",
    "LEM",
    "LMU",
    "LSTM",
    "ODERNN",
    "QUNN",
    "URNN",
    "AntisymmetricRNN",
    "BackendError",
    "Cell",
    "CoRNN",
    "DLinOSS",
    "DataError",
    "Elman",
    "ExpRNN",
    "FastGRNN",
    "FastRNN",
    "FullCapacityURNN",
    "Geodesic",
    "LearningRule",
    "LinOSS",
    "LipschitzRNN",
    "Model",
    "ModelSpec",
    "Node",
    "QUNNRegister",
    "RealEURNN",
    "Recurrent",
    "Reservoir",
    "ScoRNN",
    "ShapeError",
    "SpectralRNN",
    "StabilityWarning",
    "UnICORNN",
    "diagnose",
    "explain_order",
    "load",
    "make_optimiser",
    "model_from_authors",
    "save",
    "scan",
    "step_gains",
    "step_jacobian",
]
