"""A wiring as a network of convolutions, no larger than a number of parameters: spec sheet ``nago.md`` 2.3 to 2.5."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pendula._check import at_least_zero, one_of, positive_int, probability
from pendula.nets.spec import INPUT, ModelSpec
from pendula.search.budget import Drawn, largest
from pendula.search.graphs import Graph
from pendula.search.nago import Generator, Wiring, sample
from pendula.search.parts import Part, Size, Width, wide

MERGES = ("weighted", "concat", "attention")
COUNTED = ("all", "convolutions")
STAGES = 3
SMALL = 40
"""Images of fewer pixels a side keep their size in the stem (sheet 2.5)."""
BARE = {"activation": "none"}
ACTIVE = {"activation": "relu", "order": "act-conv-norm"}

# the basic widths: one of each stage, half of the first one, and a single channel
STAGE: tuple[Width, ...] = ((1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0))
HALF: Width = (0, 0, 0, 1, 0)


@dataclass(frozen=True)
class Images:
    """What stands around a wiring: the images, the size, and what the paper keeps fixed.

    Args:
        image: (H, W); at least 4 x 4.
        channels: of the images.
        classes: to tell apart.
        limit: parameters that the network has at most.
        counted: "all" parameters, or the weights of the bottom nodes' "convolutions" only, as the released code counts:
            the whole network is then up to 13 percent larger than the limit.
        merge: of several inputs: "weighted" (a gated sum, the paper's choice), "concat" or "attention".
        widths: units of the three stages, which the channel multiplier multiplies.
        ratios: how the cells are divided among the stages.
        head: channels in front of the read-out; 0: none, the mean of the last cells is read out.
        dropout: in front of the read-out.

    Errors: ValueError naming the argument.
    """

    image: tuple[int, int] = (32, 32)
    channels: int = 3
    classes: int = 10
    limit: int = 4_000_000
    counted: str = "all"
    merge: str = "weighted"
    widths: tuple[int, ...] = (1, 2, 4)
    ratios: tuple[float, ...] = (1.0, 1.0, 1.0)
    head: int = 1280
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("image", "widths", "ratios"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.image) != 2:
            raise ValueError(f"image must be a height and a width, got {self.image!r}")
        for side in self.image:
            if positive_int("image", side) < 2 ** (STAGES - 1):
                raise ValueError(f"image must be at least 4 x 4, as the stages halve it twice, got {self.image}")
        for name in ("channels", "classes", "limit"):
            positive_int(name, getattr(self, name))
        one_of("counted", self.counted, COUNTED)
        one_of("merge", self.merge, MERGES)
        for name in ("widths", "ratios"):
            if len(getattr(self, name)) != STAGES:
                raise ValueError(f"{name} must hold one number for each of {STAGES} stages, got {getattr(self, name)}")
        for units in self.widths:
            positive_int("widths", units)
        for ratio in self.ratios:
            at_least_zero("ratios", ratio)
        positive_int("head", self.head, least=0)
        probability("dropout", self.dropout)

    @property
    def small(self) -> bool:
        """Whether the stem keeps the size of the images."""
        return max(self.image) < SMALL

    def resolution(self, stage: int) -> tuple[int, int]:
        """(H, W) inside the cells of a stage: floor(H f / 2^(stage + 1)), f = 2 for small images and 1/2 for others."""
        shrink = 2**stage if self.small else 2 ** (stage + 2)
        return self.image[0] // shrink, self.image[1] // shrink

    def basic(self, fine: int) -> tuple[int, ...]:
        """Channels of the basic widths when the widest stage has `fine`."""
        stages = [fine * units // max(self.widths) for units in self.widths]
        return (*stages, max(1, stages[0] // 2), 1)


def draw(generator: Generator, seed: int, images: Images) -> Drawn:
    """A network of a generator, the largest that the limit allows: a function of these three alone.

    Errors: ValueError when the limit is too small for the wiring.

    >>> drawn = draw(Generator(3, 2, 0.1, 1, 0.5, 3, 2, 0.1), 0, Images(limit=50_000, head=64))
    >>> drawn.scale, drawn.parameters, len(drawn.spec.nodes)
    (9.75, 49435, 15)
    """
    return network(sample(generator, seed, ratios=images.ratios), images)


def network(wiring: Wiring, images: Images) -> Drawn:
    """A wiring as a network, the largest that the limit allows. Errors: ValueError when the limit is too small."""
    made = parts(wiring, images)
    sizes = Counter(part.size for part in made)
    unit, widest = sum(often * size.base(images.widths) for size, often in sizes.items()), max(images.widths)

    def parameters(fine: int) -> int:
        channels = images.basic(fine)
        read_out = (wide(made[-1].width, channels) + 1) * images.classes
        return sum(often * size.parameters(channels) for size, often in sizes.items()) + read_out

    if images.counted == "convolutions":
        smallest, fine = unit, widest * math.isqrt(images.limit // unit)
    else:
        smallest, fine = parameters(widest), largest(parameters, images.limit, widest)
    if fine < widest:
        raise ValueError(
            f"limit={images.limit} is too small for this wiring of {wiring.operations} operations: one channel per "
            f"unit takes {smallest} parameters; raise the limit, take fewer nodes or a smaller head"
        )
    nodes = tuple(part.node(images.basic(fine)) for part in made)
    spec = ModelSpec(images.channels, images.classes, nodes, pool="mean", image=images.image)
    count = parameters(fine)
    return Drawn(spec, wiring, count, count, fine / widest)


def parts(wiring: Wiring, images: Images) -> tuple[Part, ...]:
    """The nodes of the network in order, but for their channels: stem, cells, mean of the last cells, head."""
    made = _Parts(images)
    stem = made.stem()
    cells: list[Part] = []
    for number, cell in enumerate(wiring.cells):
        module, pixels, width = f"cell{number}", images.resolution(cell.stage), STAGE[cell.stage]
        sources = [cells[source] for source in wiring.top.before(number)] or [stem]
        entry = made.merged(module, sources, module, pixels)
        inner: list[Part] = []
        for node, graph in enumerate(cell.bottoms):
            name = f"{module}_{node}"
            given = made.merged(name, [inner[source] for source in cell.middle.before(node)] or [entry], module)
            bottom: list[Part] = []
            for place in range(graph.size):
                read = [bottom[source] for source in graph.before(place)] or [given]
                bottom.append(made.operation(f"{name}_{place}", read, width, module))
            inner.append(made.mean(f"{name}_out", graph, bottom, module))
        cells.append(made.mean(f"{module}_out", cell.middle, inner, module))
    last = made.last([cells[number] for number in wiring.top.outputs])
    made.head(last)
    return tuple(made.all)


class _Parts:
    """Nodes of a network in the order in which they are added."""

    def __init__(self, images: Images) -> None:
        self.images, self.all = images, list[Part]()

    def add(self, part: Part) -> Part:
        self.all.append(part)
        return part

    def stem(self) -> Part:
        """Two convolutions; for large images two depthwise-separable ones with stride 2."""
        width, half, image = STAGE[0], HALF, self.images.image
        source = Part(INPUT, (), Size(((0, 0, 0, 0, self.images.channels),)), image)
        if self.images.small:
            first = self._stem("stem0", source, width, BARE, kernel=3)
            return self._stem("stem1", first, width, ACTIVE, kernel=3)
        spread = self._stem("stem0", source, source.width, {**BARE, "stride": 2}, kernel=3, depthwise=True, norm=False)
        first = self._stem("stem1", spread, half, BARE)
        spread = self._stem("stem2", first, half, {**ACTIVE, "stride": 2}, kernel=3, depthwise=True, norm=False)
        return self._stem("stem3", spread, width, BARE)

    def _stem(
        self, name: str, source: Part, out: Width, options: Mapping[str, Any], *, kernel: int = 1, **size: Any
    ) -> Part:
        stride = 2 if "stride" in options else 1
        pixels = (-(-source.pixels[0] // stride), -(-source.pixels[1] // stride))
        made = Size((source.width,), out, kernel=kernel, **size)
        return self.add(Part(name, (source.name,), made, pixels, "stem", options=options))

    def merged(self, name: str, sources: Sequence[Part], module: str, pixels: tuple[int, int] | None = None) -> Part:
        """The inputs of a cell or of a node inside, pooled and merged once for all that read them."""
        pixels = pixels or sources[0].pixels
        if len(sources) == 1 and sources[0].pixels == pixels:
            return sources[0]
        size = Size(tuple(source.width for source in sources), merge=self.images.merge)
        pooled = None if all(source.pixels == pixels for source in sources) else pixels
        return self.add(Part(f"{name}_in", _names(sources), size, pixels, module, resolution=pooled))

    def operation(self, name: str, sources: Sequence[Part], out: Width, module: str) -> Part:
        """Merge, ReLU, 3 x 3 convolution, batch normalisation."""
        size = Size(tuple(source.width for source in sources), out, self.images.merge, kernel=3, searched=True)
        return self.add(Part(name, _names(sources), size, sources[0].pixels, module, options=ACTIVE))

    def mean(self, name: str, graph: Graph, nodes: Sequence[Part], module: str) -> Part:
        """The mean of a graph's output nodes."""
        sources = [nodes[number] for number in graph.outputs]
        if len(sources) == 1:
            return sources[0]
        size = Size(tuple(source.width for source in sources), merge="mean")
        return self.add(Part(name, _names(sources), size, sources[0].pixels, module))

    def last(self, cells: Sequence[Part]) -> Part:
        """The mean of the output cells, at the smallest resolution and as wide as the last one."""
        pixels = min(cell.pixels for cell in cells)
        sources = []
        for cell in cells:
            if cell.width != cells[-1].width:
                size = Size((cell.width,), cells[-1].width, norm=False)
                name, pooled = f"{cell.name}_projected", None if cell.pixels == pixels else pixels
                cell = self.add(Part(name, (cell.name,), size, pixels, "head", pooled, options=BARE))
            sources.append(cell)
        if len(sources) == 1:
            return sources[0]
        size = Size(tuple(source.width for source in sources), merge="mean")
        return self.add(Part("cells_out", _names(sources), size, pixels, "head"))

    def head(self, source: Part) -> None:
        """ReLU and, unless it is left out, a 1 x 1 convolution, batch normalisation and ReLU."""
        if self.images.head:
            size = Size((source.width,), (0, 0, 0, 0, self.images.head))
            source = self.add(Part("head_wide", (source.name,), size, source.pixels, "head", options=ACTIVE))
        relu = Part("head_out", (source.name,), Size((source.width,)), source.pixels, "head")
        self.add(replace(relu, dropout=self.images.dropout, options={"activation": "relu"}))


def _names(sources: Sequence[Part]) -> tuple[str, ...]:
    return tuple(source.name for source in sources)
