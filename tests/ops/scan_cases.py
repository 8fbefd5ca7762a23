"""Networks with a compiled scan, and what is compared of them: every output, final state and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pendula
from pendula.cells import CoRNNCell, LEMCell, ODERNNCell, UnICORNNCell
from pendula.cells.base import Cell
from tests.contracts.layer import weigh

SIZES = [(1, 1, 1, 1), (2, 3, 37, 5), (63, 37, 3, 1), (63, 7, 64, 9), (70, 5, 130, 2), (19, 8, 33, 70)]
"""T, B, N, I: odd ones, whole panels and beyond, more than one chunk, inputs that make panels too."""
NETWORKS: dict[str, tuple[type[Cell], dict[str, Any]]] = {
    "coRNN": (CoRNNCell, {"dt": 0.1, "gamma": 1.5, "epsilon": 2.0}),
    "coRNN implicit": (CoRNNCell, {"dt": 0.1, "gamma": 1.5, "epsilon": 2.0, "variant": "implicit"}),
    "coRNN learned": (
        CoRNNCell,
        {"dt": 0.1, "gamma": 1.5, "epsilon": 2.0, "learnable": ("dt", "gamma", "epsilon")},
    ),
    "UnICORNN": (UnICORNNCell, {"dt": 0.6, "alpha": 1.5}),
    "UnICORNN checkpoints": (UnICORNNCell, {"dt": 0.6, "alpha": 1.5, "memory": "checkpoint", "checkpoint_every": 7}),
    "UnICORNN reversed": (UnICORNNCell, {"dt": 0.6, "alpha": 1.5, "memory": "reverse"}),
    "LEM": (LEMCell, {"dt": 0.7}),
    "ODERNN": (ODERNNCell, {"dt": 0.5}),
    "ODERNN learned": (ODERNNCell, {"tableau": "ssp33", "order": 3, "dt": 0.4, "learnable": ("dt", "gamma")}),
    "ODERNN semi-implicit": (ODERNNCell, {"tableau": "semi-implicit", "dt": 0.4, "learnable": ("dt", "gamma")}),
    "ODERNN linear": (ODERNNCell, {"tableau": "heun", "order": 1, "dt": 0.4, "gamma": 1.0, "input": "linear"}),
}
EVERY_NETWORK = pytest.mark.parametrize("network", sorted(NETWORKS))
ONE_OF_EACH = pytest.mark.parametrize("network", ["coRNN", "UnICORNN", "LEM", "ODERNN"])


def made(network: str, inputs: int, units: int, dtype: torch.dtype = torch.float64) -> Cell:
    kind, physics = NETWORKS[network]
    build: Any = kind
    return build(inputs, units, dtype=dtype, **physics)


def case(cell: Cell, steps: int, batch: int, *, spans: bool, lengths: bool) -> dict[str, Any]:
    x = torch.randn(steps, batch, cell.input_size, dtype=torch.float64)
    widths = [s.shape[1] for s in cell.initial_state(1)]
    state = [0.3 * torch.randn(batch, width, dtype=torch.float64) for width in widths]
    return {
        "x": x,
        "state": state,
        "timespans": torch.rand(steps, batch, dtype=torch.float64) + 0.5 if spans else None,
        "lengths": torch.randint(1, steps + 1, (batch,)) if lengths else None,
    }


def everything(cell: Cell, given: dict[str, Any], backend: str) -> dict[str, Any]:
    """Outputs, final states and every gradient, with another cotangent on every number."""
    cell.zero_grad()
    like = next(cell.parameters())
    leaves = {
        "x": given["x"].detach().clone().to(like).requires_grad_(),
        **{f"state{i}": s.detach().clone().to(like).requires_grad_() for i, s in enumerate(given["state"])},
    }
    if given["timespans"] is not None:
        leaves["timespans"] = given["timespans"].clone().to(like).requires_grad_()
    state = cell.State(*(leaf for name, leaf in leaves.items() if name.startswith("state")))
    outputs, final = pendula.scan(
        cell, leaves["x"], state, lengths=given["lengths"], timespans=leaves.get("timespans"), backend=backend
    )
    weigh(outputs, *final).backward()
    found = {"outputs": outputs.detach(), **{f"final{i}": f.detach() for i, f in enumerate(final)}}
    found |= {f"by {name}": leaf.grad for name, leaf in leaves.items()}
    return found | {f"by {name}": p.grad for name, p in cell.named_parameters()}


def arguments(network: str, *, spans: bool, lengths: bool) -> tuple[Any, tuple[Any, ...]]:
    """The operator of a network and what it is called with."""
    cell = made(network, 3, 5)
    given = case(cell, 7, 4, spans=spans, lengths=lengths)
    x = given["x"].requires_grad_()
    tail = (given["timespans"], given["lengths"])
    if isinstance(cell, CoRNNCell):
        W, W_z, V, b, dt, gamma, epsilon, implicit = cell.operands()
        constants = [c.detach().expand(5).clone().requires_grad_() for c in (dt, gamma, epsilon)]
        return torch.ops.pendula.cornn_scan.default, (
            x,
            *given["state"],
            W,
            W_z,
            V,
            b,
            *constants,
            *tail,
            implicit,
            True,
        )
    if isinstance(cell, LEMCell):
        W, W_y, V, b, dt = cell.operands()
        b, dt = b.detach().requires_grad_(), dt.expand(5).clone().requires_grad_()
        return torch.ops.pendula.lem_scan.default, (x, *given["state"], W, W_y, V, b, dt, *tail, True)
    if isinstance(cell, ODERNNCell):
        W, U, b, dt, gamma, *scheme = cell.operands()
        dt, gamma = (c.detach().clone().requires_grad_() for c in (dt.expand(5), gamma.unsqueeze(1).expand(-1, 5)))
        return torch.ops.pendula.odernn_scan.default, (x, *given["state"], W, U, b, dt, gamma, *tail, *scheme, True)
    assert isinstance(cell, UnICORNNCell)
    w, h, alpha, V, b, _, every = cell.operands()
    h = h.detach().requires_grad_()
    mode = {"store": 0, "checkpoint": 1, "reverse": 2}[cell.memory]
    return torch.ops.pendula.unicornn_scan.default, (
        x,
        *given["state"],
        w,
        h,
        alpha.expand(5).clone(),
        V,
        b,
        *tail,
        mode,
        every,
    )
