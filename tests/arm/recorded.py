"""Calls of the compiled scans with all numbers before and after, in a file for `replay.cpp` on another processor."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pendula.ops import native


@contextmanager
def recorded(path: Path) -> Iterator[list[str]]:
    """Within, every call of a compiled scan is noted down; at the end the file is written. Yields the calls' names."""
    names: list[str] = []
    notes: list[bytes] = []
    call = native.call

    def noting(name: str, arguments: ctypes.Structure, dtype: torch.dtype) -> None:
        # a pointer says by itself which field of the structure it is
        arrays = {field: a for field, a in vars(arguments)["tensors"].items() if isinstance(a, Tensor)}
        arrays.pop("scratch", None)
        plain = type(arguments).from_buffer_copy(arguments)
        before = {field: _bytes(a) for field, a in arrays.items()}
        call(name, arguments, dtype)
        notes.append(_word(name.encode()) + _number(dtype.itemsize) + _word(bytes(plain)) + _number(len(arrays)))
        for field, array in arrays.items():
            offset: Any = getattr(type(arguments), field).offset
            width = array.itemsize if array.is_floating_point() else 0
            notes.append(_number(offset) + _number(width) + _word(before[field]) + _word(_bytes(array)))
        names.append(name)

    native.call = noting
    try:
        yield names
    finally:
        native.call = call
    path.write_bytes(_number(len(names)) + b"".join(notes))


def _bytes(array: Tensor) -> bytes:
    return array.detach().numpy().tobytes()


def _number(value: int) -> bytes:
    return struct.pack("<q", value)


def _word(text: bytes) -> bytes:
    return _number(len(text)) + text
