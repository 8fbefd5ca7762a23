"""Cells over time: scan, layers, models and their files."""

from pendula.nets.checkpoint import load, save
from pendula.nets.layers import LAYERS
from pendula.nets.model import Model
from pendula.nets.recurrent import Recurrent
from pendula.nets.scan import scan
from pendula.nets.spec import ModelSpec, Node

__all__ = ["LAYERS", "Model", "ModelSpec", "Node", "Recurrent", "load", "save", "scan"]
