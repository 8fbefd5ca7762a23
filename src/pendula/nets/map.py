"""What nodes that carry no state have in common."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pendula import _check

Shape = tuple[int, ...]
"""Of one sample: (C, H, W) of an image, (F,) of features (of a step, in a sequence)."""


def _unchanged(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": _unchanged, "relu": torch.relu, "tanh": torch.tanh}


class Map(nn.Module, ABC):
    """A function without state: images (B, C, H, W), sequences (T, B, F) or features (B, F) in and out.

    Arguments of the constructor after `dropout` are its options, what `physics` is to a cell: keyword-only, with
    defaults; a `Node` has `check_physics` look at them. The dropout acts behind the map, with one mask per image or
    sequence, held over all pixels or times.
    """

    # options that are whole numbers, and those that are words, with the words
    counts: ClassVar[tuple[str, ...]] = ()
    choices: ClassVar[Mapping[str, Collection[str]]] = {}
    images_only: ClassVar[bool] = False
    # whether an image is given to the constructor as C * H * W features
    flattens: ClassVar[bool] = False
    has_bias: ClassVar[bool] = False
    keeps_size: ClassVar[bool] = False

    def __init__(self, input_size: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        if self.keeps_size and input_size != hidden_size:
            kept = f"{type(self).__name__} keeps the size it reads, {input_size}"
            raise _check.ShapeError(f"{kept}: hidden_size must be that, got {hidden_size}")
        self.input_size = _check.positive_int("input_size", input_size)
        self.hidden_size = _check.positive_int("hidden_size", hidden_size)
        self.dropout = _check.probability("dropout", dropout)

    @classmethod
    def physics(cls) -> dict[str, Any]:
        """The options and their defaults."""
        skipped = ("device", "dtype")
        arguments = inspect.signature(cls).parameters.values()
        return {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY and a.name not in skipped}

    @classmethod
    def check_physics(cls, given: Mapping[str, Any]) -> None:
        """Errors: ValueError for an unknown option, or a value that no sizes could make right."""
        _check.known_keys(cls.__name__, given, list(cls.physics()))
        for name, value in given.items():
            if name in cls.counts:
                _check.positive_int(name, value)
            if name in cls.choices:
                _check.one_of(name, value, cls.choices[name])

    @abstractmethod
    def shape(self, shape: Shape) -> Shape:
        """What comes out for what goes in. Errors: ShapeError where nothing would be left."""

    @property
    def product(self) -> nn.Conv2d | nn.Linear | None:
        """The part that is linear in x, with weights; None where there is none."""
        return None

    def before(self, x: Tensor) -> Tensor:
        """What happens to the input in front of the product."""
        return x

    def behind(self, y: Tensor) -> Tensor:
        """What happens behind the product."""
        return y

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.dropped(self.behind(x if self.product is None else self.product(x)))

    def dropped(self, y: Tensor) -> Tensor:
        """The output with dropout, while training."""
        if not (self.training and self.dropout):
            return y
        like = y[0] if y.dim() == 3 else y[:, :, :1, :1] if y.dim() == 4 else y
        return y * functional.dropout(torch.ones_like(like), self.dropout)
