"""A space small enough to search in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

BASE = """
[task]
name = "adding"
options = { length = 6, epoch_size = 32, validation_size = 16, test_size = 16 }

[model]
hidden_size = 4

[train]
epochs = EPOCHS
accelerator = "cpu"
"""
RATE = '"train.learning_rate" = { low = 1e-4, high = 1e-1, log = true }'
WriteSpace = Callable[..., Path]
