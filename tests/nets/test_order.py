"""n and t of networks: as declared, as measured, and in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import pendula
from pendula.cells import Cell, CoRNNCell, GRUCell, LSTMCell, ODERNNCell, UnICORNNCell
from pendula.nets.order import explain_order, memory_range

I, N = 2, 3


def odernn(**physics: Any) -> Callable[[], Cell]:
    return lambda: ODERNNCell(I, N, dtype=torch.float64, **physics)


CELLS: dict[str, tuple[Callable[[], Cell], tuple[int, int]]] = {
    # sheet 2.5
    "CoRNN": (lambda: CoRNNCell(I, N, dtype=torch.float64), (1, 2)),
    "implicit CoRNN": (lambda: CoRNNCell(I, N, variant="implicit", dtype=torch.float64), (1, 2)),
    "UnICORNN": (lambda: UnICORNNCell(I, N, dtype=torch.float64), (1, 2)),
    "LSTM": (lambda: LSTMCell(I, N, dtype=torch.float64), (2, 2)),
    "GRU": (lambda: GRUCell(I, N, dtype=torch.float64), (2, 1)),
    "euler 1": (odernn(tableau="euler", order=1), (1, 1)),
    "euler 3": (odernn(tableau="euler", order=3, dt=0.5, gamma=[1.0, 2.0, 1.5]), (1, 3)),
    "semi-implicit": (odernn(tableau="semi-implicit", order=2), (1, 2)),
    "midpoint": (odernn(tableau="midpoint", order=1), (2, 1)),
    "heun": (odernn(tableau="heun", order=2), (2, 2)),
    "ssp33": (odernn(tableau="ssp33", order=3, dt=0.5), (3, 3)),
    "rk4": (odernn(tableau="rk4", order=2, dt=0.5), (4, 2)),
    "rk4, linear input": (odernn(tableau="rk4", order=2, dt=0.5, input="linear"), (4, 2)),
    "order 4": (odernn(tableau="kutta3", order=4, dt=0.5), (3, 4)),
    "one nonlinearity in two stages": (odernn(tableau={"A": [[0, 0], [0, 0]], "b": [0.5, 0.5]}, order=1), (1, 1)),
}

NONLINEAR = {"sigmoid", "tanh"}
# products, sums and what moves numbers about; an operation in neither set would be a network to think about anew
# fmt: off
OTHERS = {
    "add", "sub", "mul", "div", "sum", "lerp", "mm", "addmm", "where",
    "isnan", "t", "transpose", "view", "_unsafe_view", "squeeze", "unsqueeze", "cat", "stack",
    "slice", "select", "split", "unsafe_split", "unbind", "getitem", "clone", "alias",
}
# fmt: on


def nested(cell: Cell) -> int:
    """Measured n: the longest chain of elementwise nonlinearities from state and input to the new state.

    Products are no link of a chain, as the sheet counts gates; what comes from weights alone has no chain.
    """
    x, start = torch.randn(1, 1, I).double(), cell.initial_state(1)
    cell = cell.requires_grad_(False)

    def step(x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return tuple(cell.step(cell.State(*state), cell.drive(x)[0]))

    graph = make_fx(step)(x, *(torch.randn_like(s) for s in start)).graph
    depth: dict[Any, int | None] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            depth[node] = 0
        elif node.op == "output":
            return max(depth[n] or 0 for n in node.all_input_nodes)
        elif node.op == "get_attr":
            depth[node] = None
        else:
            reached = [d for n in node.all_input_nodes if (d := depth[n]) is not None]
            name = getattr(node.target, "overloadpacket", node.target).__name__
            # sigmoid_ is sigmoid in place
            name = name.removesuffix("_")
            assert name in NONLINEAR | OTHERS
            depth[node] = max(reached) + (name in NONLINEAR) if reached else None
    raise AssertionError("a graph has an output")


@pytest.mark.parametrize("case", CELLS)
def test_the_declared_order_is_that_of_the_sheet(case: str) -> None:
    make, order = CELLS[case]
    assert make().order() == order


@pytest.mark.parametrize("case", CELLS)
def test_the_declared_memory_is_the_measured_one(case: str) -> None:
    make, (_, t) = CELLS[case]
    assert [memory_range(make()) for _ in range(5)] == [t] * 5


@pytest.mark.parametrize("case", CELLS)
def test_the_declared_nonlinearity_is_the_measured_one(case: str) -> None:
    make, (n, _) = CELLS[case]
    assert nested(make()) == n


def test_a_layer_is_explained_by_its_cell() -> None:
    order = explain_order(pendula.ODERNN(I, N, 2, tableau="rk4", order=3))
    assert order[:2] == (4, 3)
    assert order.why.startswith("ODERNN is a 4-3-ODERNN. n = 4: ")
    assert "up to 4 nonlinearities stand inside one another" in order.why
    assert "the last 3 outputs, as with a differential equation of order 3" in order.why


def test_words_for_one() -> None:
    why = explain_order(ODERNNCell(I, N, tableau="euler", order=1)).why
    assert "no nonlinearity stands inside another, as in an Euler step" in why
    assert "the last output, as with a differential equation of order 1" in why


class UnknownCell(CoRNNCell):
    def order(self) -> Any:
        return None


def test_a_network_that_nobody_has_worked_out_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n and t of Unknown: give UnknownCell a method order\(\)"):
        explain_order(UnknownCell(I, N))


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="explain_order needs a cell or a layer, got Linear"):
        explain_order(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_memory_is_measured_in_double_precision() -> None:
    with pytest.raises(ValueError, match=r"needs a cell in float64, got torch.float32: call cell.double\(\)"):
        memory_range(CoRNNCell(I, N))


def test_a_memory_that_is_longer_than_looked_for_is_said() -> None:
    with pytest.raises(ValueError, match="does not follow from 1 outputs: raise most"):
        memory_range(CoRNNCell(I, N, dtype=torch.float64), most=1)
