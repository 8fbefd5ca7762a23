"""The operators on their kernels in Triton: on a GPU as they are, without one in Triton's interpreter."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch

import pendula
from pendula.cells.base import Cell
from pendula.ops import cornn, native, unicornn
from tests.contracts.layer import weigh

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if ON_GPU else "cpu"

NEEDS_TRITON = pytest.mark.skipif(not INSTALLED, reason="the package triton is not installed")
NEEDS_KERNELS = [
    NEEDS_TRITON,
    pytest.mark.skipif(
        not (ON_GPU or INTERPRETED),
        reason="without a GPU, TRITON_INTERPRET=1 must stand in the environment before torch is imported",
    ),
]


SWITCHED_OFF = ExitStack()


@functools.cache
def registered() -> list[Any]:
    """The operators; their kernels are registered for tensors on the processor too, and switched off."""
    from pendula.ops.gpu import cornn as gpu_cornn
    from pendula.ops.gpu import unicornn as gpu_unicornn

    pairs: list[tuple[Any, Any]] = [
        (cornn.cornn_scan, gpu_cornn.forward),
        (cornn.cornn_scan_backward, gpu_cornn.backward),
        (unicornn.unicornn_scan, gpu_unicornn.forward),
        (unicornn.unicornn_scan_backward, gpu_unicornn.backward),
    ]
    for operator, function in pairs:
        operator.register_kernel("cpu")(function)
        SWITCHED_OFF.enter_context(operator.set_kernel_enabled("cpu", False))
    return [operator for operator, _ in pairs]


@contextmanager
def kernels() -> Iterator[None]:
    """Within, tensors on the processor go to the kernels, through the operators, in Triton's interpreter."""
    if ON_GPU:
        yield
        return
    with ExitStack() as stack:
        for operator in registered():
            stack.enter_context(operator.set_kernel_enabled("cpu", True))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(native, "objection", lambda *given: None)
        yield


def everything(cell: Cell, given: dict[str, Any], backend: str) -> dict[str, torch.Tensor]:
    """Outputs, final states and every gradient, with another cotangent on every number."""
    cell.zero_grad()
    like = next(cell.parameters())
    leaves = {
        "x": given["x"].detach().to(like).requires_grad_(),
        **{f"state{i}": s.detach().to(like).requires_grad_() for i, s in enumerate(given["state"])},
    }
    if given["timespans"] is not None:
        leaves["timespans"] = given["timespans"].detach().to(like).requires_grad_()
    state = cell.State(leaves["state0"], leaves["state1"])
    outputs, final = pendula.scan(
        cell, leaves["x"], state, lengths=given["lengths"], timespans=leaves.get("timespans"), backend=backend
    )
    weigh(outputs.cpu(), *(f.cpu() for f in final)).backward()
    found = {"outputs": outputs.detach(), **{f"final{i}": f.detach() for i, f in enumerate(final)}}
    found |= {f"by {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    found |= {f"by {name}": p.grad for name, p in cell.named_parameters() if p.grad is not None}
    return {name: tensor.double().cpu() for name, tensor in found.items()}
