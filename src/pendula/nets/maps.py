"""Nodes that carry no state: one function of each image, or of each step of a sequence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from pendula import _check
from pendula.nets.map import ACTIVATIONS, Map, Shape


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

    >>> import torch
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

    >>> import torch
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

    >>> import torch
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

    >>> import torch
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
