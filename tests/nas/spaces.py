"""Spaces small enough to search in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

BASE = """
[task]
name = "adding"
options = { length = 6, epoch_size = 32, validation_size = 16, test_size = 16 }

[train]
epochs = EPOCHS
accelerator = "cpu"

[search]
kind = "recurrent"
limit = LIMIT
"""
NARROW = """
[search.generator]
top_nodes = { low = 1, high = 2 }
middle_nodes = { low = 1, high = 2 }
"""
# four points in all
DISCRETE = """
[search.generator]
top_nodes = { low = 1, high = 2 }
top_neighbours = 2
top_rewiring = 0.5
middle_nodes = { low = 1, high = 2 }
middle_probability = 0.5
density = 1.0
coupling_rewiring = 0.5
physics = { dt = 0.1, gamma = 1.0, epsilon = 1.0 }
"""
WriteSpace = Callable[..., Path]
