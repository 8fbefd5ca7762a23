"""The nodes of an image network before its channels are known: what counts its parameters without building it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pendula.nets.spec import Node

Width = tuple[int, ...]
"""How often each of a network's basic widths goes into a width."""


@dataclass(frozen=True)
class Size:
    """What the number of parameters of a node depends on.

    Args:
        given: widths of the inputs.
        out: width of a convolution's output; None where there is none, and the node merges only.
        merge: as in `pendula.nets.spec.Node`.
        kernel: height and width of the convolution.
        depthwise: whether each channel is a group of its own.
        norm: whether a batch normalisation follows.
        searched: whether it is a bottom node of the search space, which the channel multiplier of the paper counts.
    """

    given: tuple[Width, ...]
    out: Width | None = None
    merge: str = "mean"
    kernel: int = 1
    depthwise: bool = False
    norm: bool = True
    searched: bool = False

    @property
    def merged(self) -> Width:
        """Width behind the merge: all inputs together, or that of the last one."""
        if self.merge != "concat":
            return self.given[-1]
        return tuple(map(sum, zip(*self.given, strict=True)))

    def parameters(self, channels: Sequence[int]) -> int:
        """Of the node, when the basic widths are so many channels."""
        given = [wide(width, channels) for width in self.given]
        count = 0
        if len(given) > 1 and self.merge in ("weighted", "attention"):
            # a gate, or a projection with bias to the width of the last input
            count += sum(1 if size == given[-1] else (size + 1) * given[-1] for size in given)
            count += self.merge == "attention"
        if self.out is not None:
            inner, out = wide(self.merged, channels), wide(self.out, channels)
            count += self.kernel**2 * (1 if self.depthwise else inner) * out + out + 2 * out * self.norm
        return count

    def base(self, units: Sequence[int]) -> int:
        """Weights of its convolution with one channel per unit (sheet 2.4); nothing outside of the search space."""
        if not self.searched or self.out is None:
            return 0
        return self.kernel**2 * wide(self.merged, units) * wide(self.out, units)


@dataclass(frozen=True)
class Part:
    """A node, but for its channels.

    Args:
        name, inputs, module, resolution, dropout: as in `pendula.nets.spec.Node`.
        size: its widths.
        options: what is not the default of the map.
        pixels: (H, W) that leave it.
    """

    name: str
    inputs: tuple[str, ...]
    size: Size
    pixels: tuple[int, int]
    module: str = ""
    resolution: tuple[int, int] | None = None
    dropout: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> Width:
        """What leaves it."""
        return self.size.merged if self.size.out is None else self.size.out

    def node(self, channels: Sequence[int]) -> Node:
        """The node, when the basic widths are so many channels."""
        options = dict(self.options)
        if self.size.out is not None:
            options |= {"kernel_size": self.size.kernel, "norm": "batch" if self.size.norm else "none"}
        if self.size.depthwise:
            options["groups"] = wide(self.size.merged, channels)
        return Node(
            "Identity" if self.size.out is None else "Conv",
            wide(self.width, channels),
            name=self.name,
            inputs=self.inputs,
            merge=self.size.merge,
            dropout=self.dropout,
            physics=options,
            module=self.module,
            resolution=self.resolution,
        )


def wide(width: Width, channels: Sequence[int]) -> int:
    """Channels of a width."""
    return sum(often * size for often, size in zip(width, channels, strict=False))
