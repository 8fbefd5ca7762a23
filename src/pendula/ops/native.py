"""The compiled scans (folder native/): found, loaded on first use, and called with raw pointers of checked tensors."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pendula._check import one_of
from pendula.ops.direct import transformed
from pendula.ops.gpu.product import BFLOAT16

FILE = "_scans" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

LARGE_PAGE = 1 << 21
"""Bytes of the large pages that systems have."""

_PLAIN = (int, bool, type(None))
_POINTER, _COUNT, _FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class CoRNNForward(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("steps", "batch", "units", "inputs")),
        *((name, _FLAG) for name in ("implicit", "threads")),
        *((name, _POINTER) for name in ("x", "y0", "z0", "W", "W_z", "V", "b", "dt", "gamma", "epsilon")),
        *((name, _POINTER) for name in ("tau", "lengths", "y", "s", "kept", "y_last", "z_last", "scratch")),
        ("every", _COUNT),
        *((name, _FLAG) for name in ("packed", "narrow")),
    ]


class CoRNNBackward(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("steps", "batch", "units", "inputs", "every")),
        *((name, _FLAG) for name in ("implicit", "threads")),
        *((name, _POINTER) for name in ("x", "W", "W_z", "V", "dt", "gamma", "epsilon", "tau", "lengths")),
        *((name, _POINTER) for name in ("y0", "z0", "y", "s", "kept", "by_y", "by_state_y", "by_state_z", "by_x")),
        *((name, _POINTER) for name in ("by_W", "by_W_z", "by_V", "by_b", "by_dt", "by_gamma", "by_epsilon")),
        *((name, _POINTER) for name in ("by_tau", "scratch")),
        ("narrow", _FLAG),
    ]


class UnICORNNForward(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("steps", "batch", "units", "inputs", "every")),
        ("threads", _FLAG),
        *((name, _POINTER) for name in ("x", "w", "h", "alpha", "V", "b", "tau", "lengths")),
        *((name, _POINTER) for name in ("y", "z", "outputs", "s", "kept", "scratch")),
        ("narrow", _FLAG),
    ]


class UnICORNNBackward(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("steps", "batch", "units", "inputs", "every")),
        ("threads", _FLAG),
        *((name, _POINTER) for name in ("x", "w", "h", "alpha", "V", "b", "tau", "lengths")),
        *((name, _POINTER) for name in ("y0", "outputs", "s", "kept", "by_outputs", "y", "z", "by_y", "by_z")),
        *((name, _POINTER) for name in ("by_x", "by_V", "by_w", "by_h", "by_alpha", "by_b", "by_tau", "scratch")),
        ("narrow", _FLAG),
    ]


class LEMForward(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("steps", "batch", "units", "inputs", "every")),
        ("threads", _FLAG),
        *((name, _POINTER) for name in ("x", "y0", "z0", "W", "W_y", "V", "b", "dt", "tau", "lengths")),
        *((name, _POINTER) for name in ("y", "gates", "kept", "y_last", "z_last", "scratch")),
        ("narrow", _FLAG),
    ]


class LEMBackward(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("steps", "batch", "units", "inputs", "every")),
        *((name, _FLAG) for name in ("threads", "narrow")),
        *((name, _POINTER) for name in ("x", "W", "W_y", "V", "dt", "tau", "lengths", "y0", "z0", "y", "gates")),
        *((name, _POINTER) for name in ("kept", "by_y", "by_state_y", "by_state_z", "by_x", "by_W", "by_W_y", "by_V")),
        *((name, _POINTER) for name in ("by_b", "by_dt", "by_tau", "scratch")),
    ]


class ODERNNForward(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("steps", "batch", "units", "inputs", "order", "stages", "every")),
        *((name, _FLAG) for name in ("semi_implicit", "linear", "threads")),
        *((name, _POINTER) for name in ("x", "Z0", "W", "U", "b", "dt", "gamma", "tableau", "tau", "lengths")),
        *((name, _POINTER) for name in ("y", "s", "kept", "Z_last", "scratch")),
    ]


class ODERNNBackward(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("steps", "batch", "units", "inputs", "order", "stages", "every")),
        *((name, _FLAG) for name in ("semi_implicit", "linear", "threads")),
        *((name, _POINTER) for name in ("x", "Z0", "W", "U", "dt", "gamma", "tableau", "tau", "lengths")),
        *((name, _POINTER) for name in ("s", "kept", "by_y", "by_Z", "by_x", "by_W", "by_U", "by_b")),
        *((name, _POINTER) for name in ("by_dt", "by_gamma", "by_tau", "scratch")),
    ]


ENTRIES: dict[str, tuple[list[Any], Any]] = {
    "pendula_instruction_sets": ([], ctypes.c_char_p),
    "pendula_use_instruction_set": ([ctypes.c_char_p], ctypes.c_int),
    "pendula_narrows": ([], ctypes.c_int),
    "pendula_start_threads_for": ([_COUNT], None),
    "pendula_stay_off_openmp": ([ctypes.c_int], None),
    "pendula_sizeof": ([ctypes.c_char_p], _COUNT),
    "pendula_in_large_pages": ([_POINTER, _COUNT], None),
    "pendula_cornn_forward_scratch": ([_COUNT] * 4, _COUNT),
    "pendula_cornn_backward_scratch": ([ctypes.POINTER(CoRNNBackward), _COUNT], _COUNT),
    "pendula_cornn_forward_run": ([ctypes.POINTER(CoRNNForward), _COUNT], None),
    "pendula_cornn_backward_run": ([ctypes.POINTER(CoRNNBackward), _COUNT], None),
    "pendula_unicornn_forward_scratch": ([ctypes.POINTER(UnICORNNForward), _COUNT], _COUNT),
    "pendula_unicornn_backward_scratch": ([ctypes.POINTER(UnICORNNBackward), _COUNT], _COUNT),
    "pendula_unicornn_forward_run": ([ctypes.POINTER(UnICORNNForward), _COUNT], None),
    "pendula_unicornn_backward_run": ([ctypes.POINTER(UnICORNNBackward), _COUNT], None),
    "pendula_lem_forward_scratch": ([_COUNT] * 4, _COUNT),
    "pendula_lem_backward_scratch": ([ctypes.POINTER(LEMBackward), _COUNT], _COUNT),
    "pendula_lem_forward_run": ([ctypes.POINTER(LEMForward), _COUNT], None),
    "pendula_lem_backward_run": ([ctypes.POINTER(LEMBackward), _COUNT], None),
    "pendula_odernn_forward_scratch": ([ctypes.POINTER(ODERNNForward), _COUNT], _COUNT),
    "pendula_odernn_backward_scratch": ([ctypes.POINTER(ODERNNBackward), _COUNT], _COUNT),
    "pendula_odernn_forward_run": ([ctypes.POINTER(ODERNNForward), _COUNT], None),
    "pendula_odernn_backward_run": ([ctypes.POINTER(ODERNNBackward), _COUNT], None),
}

_PROCESS = os.getpid()
"""Another one has been forked from it, and OpenMP would wait there for threads that are here."""


@functools.cache
def load() -> ctypes.CDLL | str:
    """The library, or a sentence that says why there is none."""
    # an editable install keeps the library beside its metadata, not beside the sources
    places = [Path(__file__).parents[1], *map(Path, getattr(sys.modules.get("pendula"), "__path__", ()))]
    found = next((place / FILE for place in places if (place / FILE).is_file()), None)
    if found is None and sys.platform == "win32":
        return "there are no compiled scans for Windows"
    if found is None:
        return "the compiled scans are not part of this installation: install pendula where there is a C++ compiler"
    try:
        library = ctypes.CDLL(str(found))
        for name, (arguments, result) in ENTRIES.items():
            entry = getattr(library, name)
            entry.argtypes, entry.restype = arguments, result
    except (OSError, AttributeError) as error:
        return f"the compiled scans can't be loaded ({error}): install pendula again"
    for name, (arguments, _) in ENTRIES.items():
        if name.endswith("_run"):
            structure, ours = name.removesuffix("_run"), ctypes.sizeof(arguments[0]._type_)
            if library.pendula_sizeof(structure.encode()) != ours:
                return f"the compiled scans are of another version ({structure} differs): install pendula again"
    if os.getpid() != _PROCESS:
        library.pendula_stay_off_openmp(True)
    return library


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def missing() -> str:
    """Why there is no library; empty when there is one. `torch.compile` takes the answer for a constant."""
    loaded = load()
    return loaded if isinstance(loaded, str) else ""


def library() -> ctypes.CDLL:
    loaded = load()
    if isinstance(loaded, str):
        raise RuntimeError(loaded)
    return loaded


def instruction_sets() -> list[str]:
    """Those that are compiled in and that this processor has, best first; the first is used."""
    names: bytes = library().pendula_instruction_sets()
    return names.decode().split()


def use_instruction_set(name: str) -> None:
    """Use another one from now on, to compare."""
    one_of("instruction set", name, instruction_sets())
    library().pendula_use_instruction_set(name.encode())


def start_threads_for(operations: int) -> None:
    """From now on start a thread for so many operations, and not for fewer: 2 million, some 20 us, unless told."""
    library().pendula_start_threads_for(operations)


def stay_off_openmp(stay: bool = True) -> None:
    """From now on start threads for each call, though PyTorch's were there (on Linux), to compare."""
    library().pendula_stay_off_openmp(stay)


def narrows() -> bool:
    """Whether products of bfloat16 numbers are in the instruction set that is used, and in this processor."""
    return bool(library().pendula_narrows())


def rounds(products: int, dtype: torch.dtype) -> bool:
    """Whether a scan rounds operands of products, of those in `pendula.ops.gpu.product`: to bfloat16, where it can."""
    return products == BFLOAT16 and dtype == torch.float32 and narrows()


def objection(name: str, x: Tensor, *more: Tensor) -> str | None:
    """Why the compiled scans can't take these tensors, as a sentence; None when they can."""
    reason: str = missing()
    if reason:
        return reason
    if not torch.compiler.is_compiling() and transformed():
        return f"{name} knows neither torch.func nor forward-mode differentiation"
    for tensor in (x, *more):
        if not tensor.is_cpu:
            return f"{name} runs on the processor, and the tensors are on {tensor.device}"
    # under autocast the input may be narrow; the weights are not
    if any(tensor.dtype not in (torch.float32, torch.float64) for tensor in more):
        return f"{name} computes in float32 or float64, got {more[0].dtype}"
    return None


def check(
    name: str, x: Tensor, labels: Sequence[str], tensors: Sequence[Tensor | None], sizes: Sequence[tuple[int, ...]]
) -> None:
    """Every tensor has the size that goes with it here, the type of x and lies on the processor."""
    kind = x.dtype
    if kind not in (torch.float32, torch.float64) or not x.is_cpu:
        raise ValueError(f"{name} needs x of float32 or float64 on the cpu, got {kind} on {x.device}")
    for label, tensor, size in zip(labels, tensors, sizes, strict=True):
        if tensor is None:
            continue
        dtype = torch.int64 if label == "lengths" else kind
        if tensor.shape != size or tensor.dtype != dtype or not tensor.is_cpu:
            raise ValueError(
                f"{name} needs {label} {size} of {dtype} on the cpu, got {tuple(tensor.shape)} of {tensor.dtype} on "
                f"{tensor.device}"
            )


def clamp(value: int, least: int, most: int) -> int:
    """A number between two others, or the symbol of one, in a trace for sizes that aren't known."""
    if isinstance(value, int):
        return max(least, min(most, value))
    symbol: int = torch.sym_max(least, torch.sym_min(most, value))
    return symbol


def contiguous(*tensors: Any) -> list[Any]:
    """The tensors as C reads them; None stays None."""
    return [a if a is None or a.is_contiguous() else a.contiguous() for a in tensors]


def fresh(like: Tensor, *shape: int) -> Tensor:
    """A tensor that is about to be written whole; a large one in large pages where the system has them."""
    made = like.new_empty(shape)
    size = made.nbytes
    if size >= LARGE_PAGE:
        library().pendula_in_large_pages(made.data_ptr(), size)
    return made


def call(name: str, arguments: ctypes.Structure, dtype: torch.dtype) -> None:
    getattr(library(), name)(ctypes.byref(arguments), dtype.itemsize)


def structure(kind: type[ctypes.Structure], **values: Any) -> ctypes.Structure:
    """A structure of numbers and pointers, which keeps its tensors alive; they must be contiguous, and of its types."""
    # `isinstance` takes longer: it asks what else a tensor might be
    made = kind(**{name: a if type(a) in _PLAIN else a.data_ptr() for name, a in values.items()})
    made.tensors = values
    return made
