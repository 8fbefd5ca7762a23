"""Recurrent networks drawn from a generator: layers and modules as a spec, as large as a limit allows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pendula._check import known_keys
from pendula.nets.spec import INPUT, ModelSpec, Node
from pendula.search.budget import Drawn, largest
from pendula.search.coupling import cornn_step, coupling, edges_of, neighbours, zeros
from pendula.search.graphs import Graph, derived_seed, erdos_renyi, watts_strogatz
from pendula.search.nago import Cell, Wiring, stages
from pendula.search.recurrent import COUPLED, LINEAR, STAGES, RecurrentGenerator, Sequences

LEAST_UNITS = 2
"""One unit alone is less than some cells can be made of."""


Graphs = Mapping[tuple[int, int], Graph]
"""(layer, module) -> how its oscillators are coupled; those that are not in it see all others."""


class Built(Protocol):
    """A model, as far as a generator looks at it: `pendula.Model(spec, device="meta")` holds no weights."""

    shapes: dict[str, tuple[int, ...]]

    @property
    def parameter_count(self) -> int: ...


@dataclass(frozen=True)
class Plan:
    """What is drawn before the size is known.

    Args:
        top: graph of the layers.
        thirds: the stage of each layer.
        middles: the graph of modules of each layer.
        networks: of each module of each layer.
    """

    top: Graph
    thirds: tuple[int, ...]
    middles: tuple[Graph, ...]
    networks: tuple[tuple[str, ...], ...]

    def wiring(self, graphs: Graphs) -> Wiring:
        """All three levels; a module that has no graph of its own is one node."""
        cells = []
        for layer, middle in enumerate(self.middles):
            bottoms = tuple(graphs.get((layer, node), Graph(1, ())) for node in range(middle.size))
            cells.append(Cell(self.thirds[layer], middle, bottoms))
        return Wiring(self.top, tuple(cells))


def draw(generator: RecurrentGenerator, seed: int, sequences: Sequences, build: Callable[[ModelSpec], Built]) -> Drawn:
    """A network of a generator, the largest that the limit allows: a function of the first three alone.

    Args:
        generator: the hyper-parameters.
        seed: every graph has a seed of its own that is derived from it.
        sequences: the task and the size.
        build: a model of a spec; it is asked for numbers of parameters and widths only.

    Errors: ValueError when the limit is too small, or numbers don't go with a cell.
    """
    known = {name for network in sequences.networks for name in Node(network, LEAST_UNITS).physics}
    known_keys(" and ".join(sequences.networks), {**sequences.physics, **generator.physics}, sorted(known))
    plan = drawn_plan(generator, seed, sequences.networks)
    write = _Writing(generator, sequences, plan, build)

    def parameters(widest: int) -> int:
        return build(write.spec(widest, {})).parameter_count - write.zeros(widest, {})

    least = LEAST_UNITS * max(sequences.widths)
    widest = largest(parameters, sequences.limit, least)
    while widest >= least:
        graphs = write.couplings(widest, seed)
        spec = write.spec(widest, graphs)
        stored = build(spec).parameter_count
        count = stored - write.zeros(widest, graphs)
        # repairs may have added some edges
        if count <= sequences.limit:
            return Drawn(spec, plan.wiring(graphs), count, stored, widest / max(sequences.widths))
        widest -= 1
    modules = sum(middle.size for middle in plan.middles)
    raise ValueError(
        f"limit={sequences.limit} is too small for these {modules} modules: {LEAST_UNITS} units in the smallest take "
        f"{parameters(least)} parameters; raise the limit, or take fewer modules"
    )


def drawn_plan(generator: RecurrentGenerator, seed: int, networks: Sequence[str]) -> Plan:
    """The graphs of layers and modules, and the network of each module."""
    g = generator
    top = watts_strogatz(g.top_nodes, g.top_neighbours, g.top_rewiring, seed=derived_seed(seed, "layers"))
    recurrent = [network for network in networks if network != LINEAR]
    middles, drawn = [], []
    for layer in range(g.top_nodes):
        middle = erdos_renyi(g.middle_nodes, g.middle_probability, seed=derived_seed(seed, "layer", layer))
        chance = random.Random(derived_seed(seed, "networks", layer))
        drawn.append(
            tuple(chance.choice(recurrent if node in middle.outputs else networks) for node in range(middle.size))
        )
        middles.append(middle)
    return Plan(top, stages(g.top_nodes, (1 / STAGES,) * STAGES), tuple(middles), tuple(drawn))


class _Writing:
    """Specs of one plan at any size."""

    def __init__(
        self, generator: RecurrentGenerator, sequences: Sequences, plan: Plan, build: Callable[[ModelSpec], Built]
    ) -> None:
        self.generator, self.sequences, self.plan, self.build = generator, sequences, plan, build
        self.nodes: list[Node] = []
        self.width: dict[str, int] = {}
        self.shown: dict[tuple[str, int], int] = {}

    def units(self, layer: int, widest: int) -> int:
        """Of each module of a layer, when those of the widest layers have so many."""
        widths = self.sequences.widths
        return widest * widths[self.plan.thirds[layer]] // max(widths)

    def modules(self, network: str, widest: int) -> list[tuple[tuple[int, int], int]]:
        """(layer, module) and the units of all modules that are of a network."""
        return [
            ((layer, node), self.units(layer, widest))
            for layer, names in enumerate(self.plan.networks)
            for node, name in enumerate(names)
            if name == network
        ]

    def couplings(self, widest: int, seed: int) -> Graphs:
        """The graph of each module whose oscillators don't all see all."""
        g = self.generator
        found = {
            place: coupling(size, g.density, g.coupling_rewiring, seed=derived_seed(seed, "coupling", *place))
            for place, size in self.modules(COUPLED, widest)
        }
        return {place: graph for place, graph in found.items() if graph is not None}

    def zeros(self, widest: int, graphs: Graphs) -> int:
        """Weights that the couplings keep at zero; where a graph isn't drawn yet, those that it has unrepaired."""
        count = 0
        for place, size in self.modules(COUPLED, widest):
            least = neighbours(size, self.generator.density)
            edges = None if least is None else size * least // 2
            count += 2 * zeros(size, len(graphs[place].edges) if place in graphs else edges)
        return count

    def spec(self, widest: int, graphs: Graphs) -> ModelSpec:
        """The network with so many units in the modules of the widest layers."""
        sequences, plan = self.sequences, self.plan
        self.nodes, self.width = [], {INPUT: sequences.input_size}
        layers: list[str] = []
        for layer, middle in enumerate(plan.middles):
            module = f"layer{layer}"
            entry = self.merged(module, [layers[source] for source in plan.top.before(layer)] or [INPUT], module)
            inner: list[str] = []
            for node in range(middle.size):
                read = [inner[source] for source in middle.before(node)] or [entry]
                inner.append(self.module(layer, node, read, widest, graphs))
            layers.append(self.mean(f"{module}_out", [inner[node] for node in middle.outputs], module))
        self.mean("layers_out", [layers[layer] for layer in plan.top.outputs], "out")
        return ModelSpec(
            sequences.input_size,
            sequences.output_size,
            tuple(self.nodes),
            pool=sequences.pool,
            standardise=sequences.standardise,
            labels=sequences.labels,
        )

    def module(self, layer: int, node: int, read: Sequence[str], widest: int, graphs: Graphs) -> str:
        network, stage = self.plan.networks[layer][node], self.plan.thirds[layer]
        size, physics = self.units(layer, widest), self.physics(network, stage)
        if (layer, node) in graphs:
            physics["coupling"] = edges_of(graphs[layer, node])
        if (network, size) not in self.shown:
            probe = Node(network, size, name="probe", physics={k: v for k, v in physics.items() if k != "coupling"})
            self.shown[network, size] = self.build(ModelSpec(1, 1, (probe,))).shapes["probe"][0]
        name, merge = f"layer{layer}_{node}", self.sequences.merge
        made = Node(network, size, name=name, inputs=tuple(read), merge=merge, physics=physics, module=f"layer{layer}")
        return self.add(made, self.shown[network, size])

    def physics(self, network: str, stage: int) -> dict[str, Any]:
        """What the cell has of the physics, with a time step that suits the stage and is proved to be stable."""
        known = Node(network, LEAST_UNITS).physics
        given = {**self.sequences.physics, **self.generator.physics}
        physics = {name: value for name, value in given.items() if name in known}
        if self.sequences.times == "halving" and "dt" in known:
            physics["dt"] = physics.get("dt", known["dt"]) / 2**stage
        if network == COUPLED:
            now = {**known, **physics}
            physics["dt"] = cornn_step(now["dt"], now["gamma"], now["epsilon"], now["variant"])
        return physics

    def merged(self, name: str, sources: Sequence[str], module: str) -> str:
        """What enters a layer: its inputs, merged once for all modules that read them."""
        if len(sources) == 1:
            return sources[0]
        widths = [self.width[source] for source in sources]
        width = sum(widths) if self.sequences.merge == "concat" else widths[-1]
        inputs = tuple(sources)
        return self.add(
            Node("Identity", width, name=f"{name}_in", inputs=inputs, merge=self.sequences.merge, module=module), width
        )

    def mean(self, name: str, sources: Sequence[str], module: str) -> str:
        """The mean of the outputs of a graph, projected to the width of the last one where they differ."""
        if len(sources) == 1:
            return sources[0]
        width, inputs = self.width[sources[-1]], []
        for source in sources:
            if self.width[source] != width:
                made = Node(LINEAR, width, name=f"{source}_projected", inputs=(source,), module=module)
                source = self.add(made, width)
            inputs.append(source)
        return self.add(Node("Identity", width, name=name, inputs=tuple(inputs), merge="mean", module=module), width)

    def add(self, node: Node, width: int) -> str:
        self.nodes.append(node)
        self.width[node.name] = width
        return node.name
