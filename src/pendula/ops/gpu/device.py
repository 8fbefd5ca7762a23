"""What the scans on a GPU need before they start: Triton, a GPU of NVIDIA, tensors that fit; and how they start."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pendula.ops.gpu.product import LARGEST, padded_to, products_of, shared_needed

CAPABLE = (8, 0)
"""The oldest compute capability that Triton compiles for."""


@functools.cache
def _missing() -> str:
    if torch.version.hip is not None:
        return "the scans on a GPU are written for NVIDIA, and this PyTorch is built for AMD"
    try:
        import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        return "the scans on a GPU are written in Triton, which is missing: pip install 'pendula[triton]'"
    return ""


@functools.cache
def _too_old(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    if (major, minor) >= CAPABLE:
        return ""
    return f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor}, and Triton needs 8.0"


@functools.cache
def _shared_memory(index: int) -> int:
    # the types that torch ships don't know it
    properties: Any = torch.cuda.get_device_properties(index)
    return int(properties.shared_memory_per_block_optin)


# torch.compile takes the answers for constants
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def missing() -> str:
    """Why no scan of ours runs on a GPU here; empty when they can."""
    return _missing()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def too_old(index: int) -> str:
    """Why this GPU is not one that Triton compiles for; empty when it is."""
    return _too_old(index)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def shared_memory(index: int) -> int:
    """Bytes of shared memory that a program may have."""
    return _shared_memory(index)


def shared_of(like: Tensor) -> int:
    """Bytes of shared memory that a program beside the tensor may have; an H100's in the interpreter."""
    return shared_memory(like.device.index) if like.is_cuda else 227 << 10


def objection(name: str, x: Tensor, *more: Tensor) -> str | None:
    """Why the scan can't take these tensors, the first of which is on a GPU; None when it can."""
    reason: str = missing() or too_old(x.device.index)
    if reason:
        return reason
    for tensor in more:
        if tensor.device != x.device:
            return f"{name} needs all tensors on {x.device}, and one is on {tensor.device}"
        if tensor.dtype != torch.float32:
            return f"{name} computes in float32 on a GPU, got {tensor.dtype}"
    return None


def weights_objection(
    name: str, x: Tensor, units: int, needed_by: Callable[[int, int], int] = shared_needed
) -> str | None:
    """Why the matrices of so many units, two unless it is said, can't stay in shared memory, in the products of now."""
    if units > LARGEST:
        return f"{name} holds the weights of up to {LARGEST} units on a GPU, got {units}"
    needed, there = needed_by(products_of(x), padded_to(units)), shared_memory(x.device.index)
    if needed > there:
        return f"{name} needs {needed >> 10} KiB of shared memory for {units} units, and this GPU has {there >> 10}"
    return None


def check(name: str, x: Tensor, given: Mapping[str, tuple[Tensor | None, tuple[int, ...]]]) -> None:
    """Every tensor has the size that goes with it here, float32, and lies beside x."""
    if x.dtype != torch.float32:
        raise ValueError(f"{name} needs x of float32 on a GPU, got {x.dtype}")
    for label, (tensor, size) in given.items():
        dtype = torch.int64 if label == "lengths" else x.dtype
        if tensor is not None and (tensor.shape != size or tensor.dtype != dtype or tensor.device != x.device):
            raise ValueError(
                f"{name} needs {label} {size} of {dtype} on {x.device}, got {tuple(tensor.shape)} of {tensor.dtype} "
                f"on {tensor.device}"
            )


def options(warps: int) -> dict[str, Any]:
    """How every kernel is compiled, for programs of so many warps."""
    # left to itself the compiler puts numbers aside in memory so that more programs fit beside each other
    return {"num_warps": warps, "enable_fp_fusion": True, "maxnreg": 255}


def launch(kernel: Any, programs: int, like: Tensor, *, warps: int, **arguments: Any) -> None:
    """Start a kernel beside the tensor; a tensor on the processor means Triton's interpreter."""
    place = torch.cuda.device(like.device) if like.is_cuda else contextlib.nullcontext()
    with place:
        # the interpreter knows no machine instructions
        kernel[(programs,)](**arguments, FAST=like.is_cuda, **options(warps))


def full_precision() -> torch.autocast:
    """Within, PyTorch's products keep the type of their operands."""
    return torch.autocast("cuda", enabled=False)


def contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


def drive(x: Tensor, V: Tensor, b: Tensor | None) -> Tensor:
    """V x + b at all times at once."""
    with full_precision():
        return torch.nn.functional.linear(x, V, b)
