"""Networks for images, as lists of nodes: a plain stack of convolutions, VGG, ResNet.

Their nodes are grouped into modules: a stage of one resolution and one width is a module, and its pooling or stride
stands at its start, so that all convolutions of a module see and give images of one size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pendula import _check
from pendula.cells import CELLS
from pendula.nets.spec import INPUT, Node

STAGES = 3


def conv_stack(
    hidden_size: int = 32,
    num_layers: int = 2,
    *,
    bias: bool = True,
    dropout: float = 0.0,
    kernel_size: int | tuple[int, int] = 3,
    norm: str = "batch",
    activation: str = "relu",
) -> tuple[Node, ...]:
    """Two stages of convolutions and a hidden layer: the small network for MNIST. Read out by "flatten".

    Args:
        hidden_size: channels of the first stage; the second has twice, the hidden layer four times as many.
        num_layers: convolutions of each stage.
        bias: whether the layers have one; a convolution in front of a normalisation has none.
        dropout: in front of the read-out.
        kernel_size, norm, activation: of the convolutions, as in `pendula.nets.maps.Conv`.

    >>> [node.name for node in conv_stack(num_layers=1)]
    ['stage0_conv0', 'stage1_pool', 'stage1_conv0', 'head_pool', 'head']
    """
    _sizes(hidden_size, num_layers)
    options = {"kernel_size": kernel_size, "norm": norm, "activation": activation}
    nodes = _stages(2, hidden_size, num_layers, bias, options)
    nodes.append(_pool("head", 2 * hidden_size))
    last: dict[str, Any] = {"bias": bias, "dropout": dropout, "physics": {"activation": activation}}
    nodes.append(Node("Linear", 4 * hidden_size, "head", module="head", **last))
    return tuple(nodes)


def vgg(
    hidden_size: int = 64,
    num_layers: int = 2,
    *,
    bias: bool = True,
    dropout: float = 0.0,
    kernel_size: int | tuple[int, int] = 3,
    norm: str = "batch",
    activation: str = "relu",
) -> tuple[Node, ...]:
    """Three stages of convolutions, each of half the resolution and twice the width of the one before.

    After Simonyan and Zisserman 2015, arXiv 1409.1556 (not read for this; from memory), with three stages, batch
    normalisation and a mean over the pixels for their five stages and hidden layers. Read out by "mean".

    Args:
        hidden_size: channels of the first stage.
        num_layers: convolutions of each stage.
        bias, dropout, kernel_size, norm, activation: as in `conv_stack`.

    >>> [node.hidden_size for node in vgg() if node.network == "Conv"]
    [64, 64, 128, 128, 256, 256]
    """
    _sizes(hidden_size, num_layers)
    options = {"kernel_size": kernel_size, "norm": norm, "activation": activation}
    return tuple(_stages(STAGES, hidden_size, num_layers, bias, options, dropout=dropout))


def resnet(
    hidden_size: int = 16,
    num_layers: int = 2,
    *,
    bias: bool = True,
    dropout: float = 0.0,
    kernel_size: int | tuple[int, int] = 3,
    norm: str = "batch",
    activation: str = "relu",
) -> tuple[Node, ...]:
    """A convolution, then three stages of residual blocks; a stage starts with stride 2, and doubles the width.

    A block is activation(conv(conv(x)) + x); where the size changes, x goes through a convolution of kernel 1. After
    He and others 2016, arXiv 1512.03385 (not read for this; from memory), their networks for CIFAR-10 but for the
    shortcut. Read out by "mean".

    Args:
        hidden_size: channels of the first stage.
        num_layers: blocks of each stage.
        bias, dropout, kernel_size, norm, activation: as in `conv_stack`.

    >>> sum(node.network == "Conv" for node in resnet(num_layers=3))
    21
    """
    _sizes(hidden_size, num_layers)
    bias = bias and norm == "none"
    plain = {"norm": norm, "activation": "none"}
    full = {"norm": norm, "activation": activation, "kernel_size": kernel_size}
    nodes = [Node("Conv", hidden_size, "stem", inputs=(INPUT,), bias=bias, physics=full, module="stage0")]
    for stage in range(STAGES):
        size, module = hidden_size * 2**stage, f"stage{stage}"
        for block in range(num_layers):
            before, name = nodes[-1].name, f"{module}_block{block}"
            changes = stage > 0 and block == 0
            own: dict[str, Any] = {"bias": bias, "module": module}
            shortcut = before
            nodes.append(
                Node("Conv", size, f"{name}_a", (before,), physics={**full, "stride": 2 if changes else 1}, **own)
            )
            nodes.append(Node("Conv", size, f"{name}_b", physics={**plain, "kernel_size": kernel_size}, **own))
            second = nodes[-1].name
            if changes:
                shortcut = f"{name}_shortcut"
                across = {**plain, "kernel_size": 1, "stride": 2}
                nodes.append(Node("Conv", size, shortcut, (before,), physics=across, **own))
            last = stage == STAGES - 1 and block == num_layers - 1
            end: dict[str, Any] = {"physics": {"activation": activation}, "dropout": dropout if last else 0.0}
            nodes.append(Node("Identity", size, name, (second, shortcut), merge="sum", module=module, **end))
    return tuple(nodes)


class ImageNetwork(NamedTuple):
    """A network for images: what makes its nodes, how it is read out, and what to tell of it."""

    build: Callable[..., tuple[Node, ...]]
    pool: str
    summary: str
    source: str

    def nodes(self, hidden_size: int, num_layers: int, physics: Mapping[str, Any], **options: Any) -> tuple[Node, ...]:
        """Its nodes. Errors: ValueError for an unknown or wrong option of its convolutions."""
        name = next(name for name, network in IMAGE_NETWORKS.items() if network is self)
        _check.known_keys(name, physics, list(self.physics()))
        return self.build(hidden_size, num_layers, **options, **physics)

    def physics(self) -> dict[str, Any]:
        """The options of its convolutions and their defaults."""
        arguments = inspect.signature(self.build).parameters.values()
        skipped = ("bias", "dropout")
        return {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY and a.name not in skipped}


IMAGE_NETWORKS = {
    "ConvStack": ImageNetwork(conv_stack, "flatten", "2 stages of convolutions, 1 hidden layer", "plain"),
    "ResNet": ImageNetwork(resnet, "mean", "3 stages of blocks f(conv(conv(x)) + x)", "He et al. 2016"),
    "VGG": ImageNetwork(vgg, "mean", "3 stages of convolutions", "after Simonyan & Zisserman 2015"),
}
"""Name of the network -> how it is made."""


def physics_of(network: str) -> dict[str, Any]:
    """What `physics` may hold, and the defaults, of a recurrent network or one for images."""
    return IMAGE_NETWORKS[network].physics() if network in IMAGE_NETWORKS else CELLS[network].physics()


def _stages(
    count: int, hidden_size: int, num_layers: int, bias: bool, options: dict[str, Any], dropout: float = 0.0
) -> list[Node]:
    """Stages of convolutions; from the second on, a stage starts with a max-pooling of 2."""
    bias = bias and options["norm"] == "none"
    nodes: list[Node] = []
    for stage in range(count):
        size, module = hidden_size * 2**stage, f"stage{stage}"
        if stage:
            nodes.append(_pool(module, size // 2))
        for layer in range(num_layers):
            last = stage == count - 1 and layer == num_layers - 1
            own: dict[str, Any] = {"bias": bias, "dropout": dropout if last else 0.0, "module": module}
            nodes.append(Node("Conv", size, f"{module}_conv{layer}", physics=options, **own))
    return nodes


def _pool(module: str, size: int) -> Node:
    return Node("Pool", size, f"{module}_pool", module=module, physics={"kind": "max"})


def _sizes(hidden_size: int, num_layers: int) -> None:
    _check.positive_int("hidden_size", hidden_size)
    _check.positive_int("num_layers", num_layers)
