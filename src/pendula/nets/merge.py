"""How several inputs of a node become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pendula import _check
from pendula.nets.map import Shape
from pendula.nets.spec import Node


def merged_shape(node: Node, given: Sequence[Shape]) -> Shape:
    """The shape of a node's merged input. Errors: ShapeError for inputs that do not go together.

    Images are first pooled to the node's `resolution`, or to the smallest height and width among them.
    """
    if len({len(shape) for shape in given}) > 1:
        raise _check.ShapeError(f"node {node.name!r} reads images and features {list(given)}: put a Linear between")
    sizes = [shape[0] for shape in given]
    if node.merge in ("sum", "mean") and len(set(sizes)) > 1:
        what = {"sum": "adds", "mean": "averages"}[node.merge]
        hint = "merge='concat', or 'weighted', which projects"
        raise _check.ShapeError(f"node {node.name!r} {what} inputs of different sizes {sizes}: {hint}")
    size = sum(sizes) if node.merge == "concat" else sizes[-1]
    smallest = tuple(min(axis) for axis in zip(*(shape[1:] for shape in given), strict=True))
    wanted = node.resolution or smallest
    if len(wanted) != len(smallest):
        raise _check.ShapeError(f"node {node.name!r} has resolution {wanted}, and reads features, which have no pixels")
    if any(w > s for w, s in zip(wanted, smallest, strict=True)):
        raise _check.ShapeError(
            f"node {node.name!r} has resolution {wanted}, and an input of only {smallest}: pooling makes smaller only"
        )
    return size, *wanted


def pooled_to(shape: Shape, sources: Sequence[Tensor]) -> list[Tensor]:
    """Images of the height and width of `shape`, by averages; anything else as it is."""
    if len(shape) == 1:
        return list(sources)
    _, height, width = shape
    return [x if x.shape[2:] == shape[1:] else adaptive_avg_pool2d(x, (height, width)) for x in sources]


def combined(sources: Sequence[Tensor], how: str) -> Tensor:
    """The inputs side by side ("concat"), added ("sum") or averaged ("mean")."""
    if how == "concat":
        return torch.cat(list(sources), 1 if sources[0].dim() == 4 else -1)
    stacked = torch.stack(list(sources))
    return stacked.sum(0) if how == "sum" else stacked.mean(0)


class Weighted(nn.Module):
    """sum_i M_i(x_i), where M_i(x) = sigmoid(w_i) x; w_i starts at 1.

    Inputs become as wide as the last one: where the size differs, M_i is a 1 x 1 projection with bias. Spec sheet
    ``nago.md`` 2.5.

    Args:
        shapes: of the inputs.

    >>> merge = Weighted([(1, 2, 2), (1, 2, 2)])
    >>> round(merge([torch.ones(1, 1, 2, 2)] * 2).max().item(), 4)
    1.4621
    """

    def __init__(self, shapes: Sequence[Shape], *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        size = shapes[-1][0]
        kinds = {str(i): shape for i, shape in enumerate(shapes) if shape[0] != size}
        self.projections = nn.ModuleDict({i: _projection(shape, size, place) for i, shape in kinds.items()})
        self.gates = nn.Parameter(torch.ones(len(shapes) - len(kinds), **place))

    def mapped(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """M_i(x_i) of each input."""
        gates = iter(torch.sigmoid(self.gates))
        return [
            self.projections[str(i)](x) if str(i) in self.projections else next(gates) * x
            for i, x in enumerate(sources)
        ]

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        first, *others = self.mapped(sources)
        for other in others:
            first = first + other
        return first


class Attention(Weighted):
    """sigmoid(w) s + s * mask, s = sum_{i >= 1} M_i(x_i), mask = M_0(x_0) scaled to 0 ... 1; w started at 1.

    Spec sheet ``nago.md`` 2.5; M_i as in `Weighted`. The released code scales the mask over a whole batch, which makes
    a prediction depend on its neighbours: here over one image, or one step of a sequence.
    """

    def __init__(self, shapes: Sequence[Shape], *, device: Any = None, dtype: Any = None) -> None:
        super().__init__(shapes, device=device, dtype=dtype)
        self.share = nn.Parameter(torch.ones((), device=device, dtype=dtype))

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        first, *others = self.mapped(sources)
        axes = (1, 2, 3) if first.dim() == 4 else (-1,)
        low, high = first.amin(axes, keepdim=True), first.amax(axes, keepdim=True)
        mask = (first - low) / torch.where(high > low, high - low, 1)
        total = others[0]
        for other in others[1:]:
            total = total + other
        return torch.sigmoid(self.share) * total + total * mask


LEARNED: dict[str, type[Weighted]] = {"weighted": Weighted, "attention": Attention}
"""Merges that have parameters."""


def _projection(shape: Shape, size: int, place: dict[str, Any]) -> nn.Module:
    if len(shape) == 1:
        return nn.Linear(shape[0], size, **place)
    made = nn.Conv2d(shape[0], size, 1, **place)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made
