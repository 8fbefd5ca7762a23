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
from pendula.ops import cornn, direct, lem, linoss, native, unicornn, unicornn_newton
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
    from pendula.ops.gpu import lem as gpu_lem
    from pendula.ops.gpu import linoss as gpu_linoss
    from pendula.ops.gpu import newton as gpu_newton
    from pendula.ops.gpu import unicornn as gpu_unicornn

    pairs: list[tuple[Any, Any]] = [
        (cornn.cornn_scan, gpu_cornn.forward),
        (cornn.cornn_scan_backward, gpu_cornn.backward),
        (lem.lem_scan, gpu_lem.forward),
        (lem.lem_scan_backward, gpu_lem.backward),
        (linoss.linoss_scan, gpu_linoss.forward),
        (linoss.linoss_scan_backward, gpu_linoss.backward),
        (unicornn.unicornn_scan, gpu_unicornn.forward),
        (unicornn.unicornn_scan_backward, gpu_unicornn.backward),
        (unicornn_newton.unicornn_newton, gpu_newton.forward),
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
        # tensors that stand in for a GPU's: through the operators, which keep what they keep there
        patch.setattr(direct, "listened", lambda: True)
        for module in (cornn, lem):
            patch.setattr(module, "kept_of", lambda x, units: x.shape[0])
        patch.setattr(native, "objection", lambda *given: None)
        patch.setattr(unicornn_newton.UnICORNNNewton, "objection", lambda *given: None)
        yield


def everything(cell: Cell, given: dict[str, Any], backend: str, **options: Any) -> dict[str, torch.Tensor]:
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
        cell,
        leaves["x"],
        state,
        lengths=given["lengths"],
        timespans=leaves.get("timespans"),
        backend=backend,
        **options,
    )
    weigh(outputs.cpu(), *(f.cpu() for f in final)).backward()
    found = {"outputs": outputs.detach(), **{f"final{i}": f.detach() for i, f in enumerate(final)}}
    found |= {f"by {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    found |= {f"by {name}": p.grad for name, p in cell.named_parameters() if p.grad is not None}
    return {name: tensor.double().cpu() for name, tensor in found.items()}
