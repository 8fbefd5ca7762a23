"""Where a network stands among the n-t-ODERNN: how nonlinear one step is, and how far its output remembers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pendula.cells import Cell
from pendula.nets.recurrent import Recurrent


class Order(NamedTuple):
    """n nested nonlinearities in a step, a memory of t outputs, and both in words."""

    n: int
    t: int
    why: str


def explain_order(network: Cell | Recurrent) -> Order:
    """n and t of a cell, or of one layer's cell, as its author has declared them, and what they mean.

    The rule is section 2.5 of the spec sheet ``odernn.md``: this library's reading of arXiv 1904.12933, whose own
    could not be read. `memory_range` measures t.

    Errors: ValueError for a network whose `order()` is None.

    >>> from pendula.cells import LSTMCell
    >>> print(explain_order(LSTMCell(3, 8)).why)
    LSTM is a 2-2-ODERNN. n = 2: on the way from state and input to the new state up to 2 nonlinearities stand inside \
one another, as the stages of a Runge-Kutta step do. t = 2: the next output follows from the inputs and the last 2 \
outputs, as with a differential equation of order 2.
    """
    cell = network.cells[0] if isinstance(network, Recurrent) else network
    if not isinstance(cell, Cell):
        raise ValueError(f"explain_order needs a cell or a layer, got {type(network).__name__}")
    name = type(cell).__name__.removesuffix("Cell")
    declared = cell.order()
    if declared is None:
        raise ValueError(
            f"nobody has worked out n and t of {name}: give {type(cell).__name__} a method order() that returns them, "
            "by section 2.5 of odernn.md (memory_range(cell) measures t)"
        )
    n, t = declared
    nested = (
        "no nonlinearity stands inside another, as in an Euler step"
        if n == 1
        else f"up to {n} nonlinearities stand inside one another, as the stages of a Runge-Kutta step do"
    )
    past = "output" if t == 1 else f"{t} outputs"
    why = (
        f"{name} is a {n}-{t}-ODERNN. n = {n}: on the way from state and input to the new state {nested}. t = {t}: the "
        f"next output follows from the inputs and the last {past}, as with a differential equation of order {t}."
    )
    return Order(n, t, why)


def memory_range(cell: Cell, *, most: int = 16, tolerance: float = 1e-9) -> int:
    """Measure t, the observability index: the fewest last outputs from which, with the inputs, the next one follows.

    From a random state and random inputs the outputs y_1 .. y_{t+1} are differentiated in that state; y_{t+1} is
    a function of the others where its derivative is a combination of theirs (sheet 2.5). This speaks of generic points
    and needs float64 and few units: the derivatives of long memories are nearly dependent.

    Args:
        cell: in float64, with generic weights, such as those it starts from.
        most: the largest t that is looked for.
        tolerance: what counts as dependent: the share of a derivative that is left over.

    Errors: ValueError for a cell in another type, or with a memory longer than `most`.

    >>> from pendula.cells import CoRNNCell
    >>> memory_range(CoRNNCell(2, 3, dtype=torch.float64))
    2
    """
    like = next(cell.parameters())
    if like.dtype != torch.float64:
        raise ValueError(f"memory_range needs a cell in float64, got {like.dtype}: call cell.double()")
    widths = [s.shape[-1] for s in cell.initial_state(1)]
    flat = torch.randn(1, sum(widths), dtype=like.dtype, device=like.device, requires_grad=True)
    inputs = torch.randn(most + 1, 1, cell.input_size, dtype=like.dtype, device=like.device)
    state = cell.State(*torch.split(flat, widths, -1))
    past: list[Tensor] = []
    with torch.enable_grad(), cell.keeping():
        for t, drive in enumerate(cell.drive(inputs).detach()):
            state = cell.step(state, drive)
            output = cell.output(state, drive)[0]
            slopes = torch.stack([torch.autograd.grad(y, flat, retain_graph=True)[0][0] for y in output])
            if past and _depends(slopes, torch.cat(past), tolerance):
                return t
            past.append(slopes)
    raise ValueError(f"the next output of {type(cell).__name__} does not follow from {most} outputs: raise most")


def _depends(rows: Tensor, on: Tensor, tolerance: float) -> bool:
    """Whether every row is a combination of the rows of `on`, up to a share of its own size."""
    # rows of very different sizes would hide the small ones
    on = torch.nn.functional.normalize(on, dim=-1, eps=1e-300)
    _, values, basis = torch.linalg.svd(on, full_matrices=False)
    basis = basis[values > tolerance * values[0]]
    left = rows - rows @ basis.mT @ basis
    return bool((left.norm(dim=-1) <= tolerance * rows.norm(dim=-1).clamp_min(1e-300)).all())
