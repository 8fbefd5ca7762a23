"""Nodes that carry no state: one function of each image, or of each step of a sequence."""

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


class Conv(Map):
    """Convolution, batch normalisation, activation, and, if asked for, max-pooling behind them.

    Args:
        input_size, hidden_size: channels in and out.
        kernel_size: odd, or a pair (height, width) of odd numbers; the image is padded with zeros to keep its size.
        stride: every so many pixels; of H there remain ceil(H / stride).
        groups: channels are cut into so many groups that do not see one another; divides both sizes.
        dilation: distance between the taps of the kernel.
        norm: "batch" or "none". A bias has no effect in front of a normalisation.
        activation: "relu", "tanh" or "none".
        order: "conv-norm-act", or "act-conv-norm", the activation in front.
        pool: size and stride of the max-pooling; 1 is none.

    Weights start from Kaiming's normal distribution for the fan out (spec sheet ``nago.md`` 2.5), biases at zero.

    >>> Conv(1, 8, kernel_size=(1, 3), pool=2)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 8, 14, 14])
    """

    counts = ("stride", "groups", "dilation", "pool")
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "norm": ("batch", "none"),
        "activation": ACTIVATIONS,
        "order": ("conv-norm-act", "act-conv-norm"),
    }
    images_only = True
    has_bias = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dropout: float = 0.0,
        *,
        kernel_size: int | tuple[int, int] = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        norm: str = "batch",
        activation: str = "relu",
        order: str = "conv-norm-act",
        pool: int = 1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, dropout)
        if input_size % groups or hidden_size % groups:
            raise _check.ShapeError(f"groups={groups} must divide both {input_size} and {hidden_size} channels")
        self.activation, self.order, self.pool = ACTIVATIONS[activation], order, pool
        kernel, place = _pair(kernel_size), {"device": device, "dtype": dtype}
        padding = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
        self.conv = nn.Conv2d(input_size, hidden_size, kernel, stride, padding, dilation, groups, bias, **place)
        self.norm = nn.BatchNorm2d(hidden_size, **place) if norm == "batch" else None
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    @classmethod
    def check_physics(cls, given: Mapping[str, Any]) -> None:
        super().check_physics(given)
        sizes = given.get("kernel_size", 3)
        if isinstance(sizes, (tuple, list)) and len(sizes) != 2:
            raise ValueError(f"kernel_size must be a whole number or a pair of them, got {sizes!r}")
        for size in _pair(sizes):
            if _check.positive_int("kernel_size", size) % 2 == 0:
                raise ValueError(f"kernel_size must be odd, so that a kernel has a middle, got {sizes!r}")

    def shape(self, shape: Shape) -> Shape:
        stride = self.conv.stride[0]
        height, width = (-(-size // stride) for size in shape[1:])
        if min(height, width) < self.pool:
            raise _check.ShapeError(f"pool={self.pool} leaves nothing of {height} x {width} pixels: pool less")
        return self.hidden_size, height // self.pool, width // self.pool

    @property
    def product(self) -> nn.Conv2d:
        return self.conv

    def before(self, x: Tensor) -> Tensor:
        return self.activation(x) if self.order == "act-conv-norm" else x

    def behind(self, y: Tensor) -> Tensor:
        if self.norm is not None:
            y = self.norm(y)
        if self.order == "conv-norm-act":
            y = self.activation(y)
        return functional.max_pool2d(y, self.pool) if self.pool > 1 else y


class Linear(Map):
    """y = f(W x + b) of all numbers of an image, of features, or of each step of a sequence.

    Args:
        input_size: features in; C * H * W of an image.
        hidden_size: features out.
        activation: f: "none", "relu" or "tanh".

    Shapes: (B, C, H, W) or (B, F) to (B, N); (T, B, F) to (T, B, N).

    >>> Linear(12, 5)(torch.zeros(4, 3, 2, 2)).shape, Linear(12, 5)(torch.zeros(9, 4, 12)).shape
    (torch.Size([4, 5]), torch.Size([9, 4, 5]))
    """

    choices: ClassVar[Mapping[str, Collection[str]]] = {"activation": ACTIVATIONS}
    flattens = True
    has_bias = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dropout: float = 0.0,
        *,
        activation: str = "none",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, dropout)
        self.activation = ACTIVATIONS[activation]
        self.linear = nn.Linear(input_size, hidden_size, bias=bias, device=device, dtype=dtype)

    def shape(self, shape: Shape) -> Shape:
        return (self.hidden_size,)

    @property
    def product(self) -> nn.Linear:
        return self.linear

    def before(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.dim() == 4 else x

    def behind(self, y: Tensor) -> Tensor:
        return self.activation(y)


class Identity(Map):
    """What goes in comes out, through an activation if asked for: a place to merge.

    Args:
        input_size, hidden_size: channels or features, the same.
        activation: "none", "relu" or "tanh".

    >>> Identity(3, 3, activation="relu")(torch.tensor([[-1.0, 0.0, 2.0]]))
    tensor([[0., 0., 2.]])
    """

    choices: ClassVar[Mapping[str, Collection[str]]] = {"activation": ACTIVATIONS}
    keeps_size = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dropout: float = 0.0,
        *,
        activation: str = "none",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, dropout)
        self.activation = ACTIVATIONS[activation]

    def shape(self, shape: Shape) -> Shape:
        return shape

    def behind(self, y: Tensor) -> Tensor:
        return self.activation(y)


class Pool(Map):
    """The mean or the largest of the pixels under a window.

    Args:
        input_size, hidden_size: channels, the same.
        kind: "mean" or "max".
        kernel_size: of the window. An odd one stands around each pixel and sees only those that there are; an even one
            stands between them, without padding.
        stride: every so many pixels.

    >>> Pool(8, 8)(torch.zeros(5, 8, 28, 28)).shape, Pool(8, 8, kernel_size=3, stride=1)(torch.zeros(5, 8, 7, 7)).shape
    (torch.Size([5, 8, 14, 14]), torch.Size([5, 8, 7, 7]))
    """

    counts = ("kernel_size", "stride")
    choices: ClassVar[Mapping[str, Collection[str]]] = {"kind": ("mean", "max")}
    images_only = True
    keeps_size = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dropout: float = 0.0,
        *,
        kind: str = "mean",
        kernel_size: int = 2,
        stride: int = 2,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, dropout)
        self.kind, self.kernel_size, self.stride = kind, kernel_size, stride
        self.padding = kernel_size // 2 if kernel_size % 2 else 0

    def shape(self, shape: Shape) -> Shape:
        over = [size + 2 * self.padding - self.kernel_size for size in shape[1:]]
        if min(over) < 0:
            pixels = f"{shape[1]} x {shape[2]} pixels"
            raise _check.ShapeError(f"a window of {self.kernel_size} is larger than {pixels}: pool less")
        return self.hidden_size, *(size // self.stride + 1 for size in over)

    def behind(self, y: Tensor) -> Tensor:
        if self.kind == "max":
            return functional.max_pool2d(y, self.kernel_size, self.stride, self.padding)
        return functional.avg_pool2d(y, self.kernel_size, self.stride, self.padding, count_include_pad=False)


MAPS: dict[str, type[Map]] = {kind.__name__: kind for kind in (Conv, Identity, Linear, Pool)}
"""Name of the map -> its class."""


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size[0], size[1]) if isinstance(size, (tuple, list)) else (size, size)
