"""Errors, gradients and orders of a row."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from tests.conformance.row import B, Case, I, Layer, N, Row, T
from tests.independent.layers import LOOPS


def measure(case: Case, *, thorough: bool = True) -> Row:
    """Seeded by the name of the case, so that a row does not depend on the rows before it.

    Gradients are compared entry by entry, or, if not `thorough`, along random directions.
    """
    torch.manual_seed(sum(str(case).encode()))
    layer = case.layer()
    timed = layer.cell_type.has_time_step
    error = max(deviation(case, layer, backend, spans=False) for backend in ("auto", "reference"))
    span_error = max(deviation(case, layer, b, spans=True) for b in ("auto", "reference")) if timed else None
    return Row(
        case,
        error,
        span_error,
        gradients_agree(case, thorough),
        None if case.expected is None else observed_order(case, layer),
        tuple(check(layer) for check in case.invariants),
        tuple(check(layer) for check in case.recorded),
    )


def arrays(layer: Layer) -> dict[str, Any]:
    return {name: tensor.detach().numpy() for name, tensor in layer.cells[0].state_dict().items()}


def any_state(layer: Layer, batch: int) -> Any:
    """A state that is not at rest; None where the network has a start of its own to be compared."""
    cell = layer.cells[0]
    start = cell.initial_state(batch)
    if any(bool((s != 0).any()) for s in start):
        return None
    return type(start)(*(0.5 * torch.randn(1, *s.shape, dtype=torch.float64) for s in start))


def deviation(case: Case, layer: Layer, backend: str, *, spans: bool) -> float:
    """The largest error of outputs and final states, relative to the largest number among them."""
    layer.backend = backend
    x = torch.randn(T, B, I, dtype=torch.float64)
    tau = 0.5 + torch.rand(T, B, dtype=torch.float64) if spans else None
    state = any_state(layer, B)
    with torch.no_grad():
        outputs, final = layer(x, state, timespans=tau)
    # states of a chain of qubits have 2^q amplitudes
    physics = {**layer.cell_type.physics(), **case.physics, "size": 2 ** max(1, (N - 1).bit_length())}
    worst = largest = 0.0
    for b in range(B):
        start = None if state is None else tuple(s[0, b].numpy() for s in state)
        factors = np.ones(T) if tau is None else tau[:, b].numpy()
        out, end = LOOPS[case.network](arrays(layer), physics, x[:, b].numpy(), start, factors)
        pairs = [(outputs[:, b], out), *zip((s[0, b] for s in final), end, strict=True)]
        for ours, theirs in pairs:
            if tuple(ours.shape) != theirs.shape:
                return math.inf
            worst = max(worst, float(np.abs(ours.numpy() - theirs).max()))
            largest = max(largest, float(np.abs(theirs).max()))
    return worst / largest


def gradients_agree(case: Case, thorough: bool) -> bool:
    """Central differences against the gradients of outputs and final states by every parameter, input and state."""
    layer, steps, batch = case.layer(), 3, 2
    x = torch.randn(steps, batch, I, dtype=torch.float64, requires_grad=True)
    state = any_state(layer, batch)
    names = [name for name, _ in layer.named_parameters()]
    hx = [] if state is None else [s.requires_grad_() for s in state]

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given = None if state is None else type(state)(*rest[: len(hx)])
        weights = dict(zip(names, rest[len(hx) :], strict=True))
        outputs, final = functional_call(layer, weights, (x, given))
        return (outputs, *final)

    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    given = (x, *hx, *weights)
    return bool(torch.autograd.gradcheck(run, given, raise_exception=False, fast_mode=not thorough))


def observed_order(case: Case, layer: Layer) -> float:
    """log2 of the ratio of two successive differences of the final state, where the time step is halved twice."""
    span, state, x = 4, any_state(layer, 1), torch.randn(1, 1, I, dtype=torch.float64)
    first = 128 if case.expected == 1 else 8 if case.expected in (2, 3) else 4
    finals = []
    for cuts in (first, 2 * first, 4 * first):
        spans = torch.full((span * cuts, 1), 1 / cuts, dtype=torch.float64)
        with torch.no_grad():
            _, final = layer(x.expand(span * cuts, 1, I), state, timespans=spans)
        finals.append(torch.cat([s.flatten() for s in final]))
    coarse, fine = (float((a - b).norm()) for a, b in pairwise(finals))
    return math.log2(coarse / fine)
