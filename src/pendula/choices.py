"""What a user chooses, as plain data: a task by name, and a network for it."""

from __future__ import annotations

import inspect
import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from pendula._check import known_keys, one_of
from pendula.cells import CELLS
from pendula.nets import ModelSpec, Node
from pendula.nets.images import IMAGE_NETWORKS
from pendula.nets.spec import IMAGE_POOLS
from pendula.tasks import TASKS
from pendula.tasks.base import Task

BESIDE_NODES = ("nodes", "pool", "embedding_size", "embedding_dropout", "token_dropout")
"""Settings of a model that go with a list of nodes."""


@dataclass(frozen=True)
class TaskChoice:
    """What to learn.

    Args:
        name: a name from `pendula list tasks`; "files" for your own data.
        options: arguments of the task, such as permuted, length or path (--task.options.path data.csv).
    """

    name: str = "digits"
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Task:
        """Read or set up the data. Errors: ValueError for unknown names, DataError for missing files."""
        task = TASKS[one_of("task.name", self.name, TASKS)]
        arguments = inspect.signature(task).parameters
        known_keys(f"task {self.name}", self.options, list(arguments))
        for name, argument in arguments.items():
            if argument.default is argument.empty and name not in self.options:
                raise ValueError(f"task {self.name} needs --task.options.{name}")
        return task(**{name: _option(self.name, arguments[name], value) for name, value in self.options.items()})


def _option(task: str, argument: inspect.Parameter, value: Any) -> Any:
    """An option in the type of its argument: a path called 2024 is a word, however the config file read it."""
    kinds = {"str": (str, int, float), "int": (int,), "bool": (bool,), "float": (float, int)}
    fitting = kinds.get(str(argument.annotation))
    if fitting is None:
        return value
    if not isinstance(value, fitting) or (isinstance(value, bool) and argument.annotation != "bool"):
        raise ValueError(f"task.options.{argument.name} of {task} must be a {argument.annotation}, got {value!r}")
    return str(value) if argument.annotation == "str" else value


@dataclass(frozen=True)
class ModelChoice:
    """Which network: layers with a linear read-out, one for images, or any graph.

    Args:
        network: a name from `pendula list networks`.
        hidden_size: units per layer; for images channels of the first stage.
        num_layers: layers stacked on one another; for images convolutions, or blocks, of each stage.
        bidirectional: read the sequence in both directions.
        dropout: probability between layers, one mask per sequence; for images in front of the read-out.
        residual: from the second layer on, a layer's input is added to its output.
        dropout_last: whether the dropout also acts behind the last layer; null: as the network's authors do.
        bias: whether the cells have biases.
        pool: what is read out: last or mean over time (one prediction per sequence), steps (one per step), auto; of
            images mean over the pixels, or flatten.
        embedding_size: numbers per token, for tasks with text; others have no use for it.
        embedding_dropout: probability that one of these numbers is dropped, one mask per sequence.
        token_dropout: probability that a token is dropped wherever it stands in a batch.
        physics: arguments of the cell, such as dt or gamma (--model.physics.dt 0.1); of the convolutions for images.
        nodes: all layers of a graph, each a table as of `pendula.Node` (network, hidden_size, name, inputs, ...), as
            `pendula search report` writes them; of the other settings only pool and those of tokens go with it.
    """

    network: str = "CoRNN"
    hidden_size: int = 64
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    residual: bool = False
    dropout_last: bool | None = None
    bias: bool = True
    pool: str = "auto"
    embedding_size: int = 100
    embedding_dropout: float = 0.0
    token_dropout: float = 0.0
    physics: dict[str, Any] = field(default_factory=dict)
    nodes: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.nodes is None:
            return
        if not isinstance(self.nodes, (list, tuple)) or not self.nodes:
            raise ValueError(f"model.nodes must be a list of tables, at least one, got {self.nodes!r}")
        try:
            # as a file has it: a run that goes on compares its settings with those
            object.__setattr__(self, "nodes", json.loads(json.dumps(self.nodes)))
        except TypeError as error:
            raise ValueError(f"model.nodes holds numbers, words, lists and tables only: {error}") from error
        for f in fields(self):
            usual = f.default_factory() if f.default_factory is not MISSING else f.default
            if f.name not in BESIDE_NODES and getattr(self, f.name) != usual:
                raise ValueError(f"model.nodes says what each layer is: leave model.{f.name} out")

    @property
    def title(self) -> str:
        """What a person calls it: the name of the network, or how many layers a graph has."""
        return self.network if self.nodes is None else f"a graph of {len(self.nodes)} nodes"

    def spec(self, task: Task) -> ModelSpec:
        """The model for a task. Errors: ValueError for settings that do not go with it, or with one another."""
        if self.nodes is not None:
            return self._of_nodes(task)
        if self.network in IMAGE_NETWORKS:
            return self._of_images(task)
        one_of("model.network", self.network, (*CELLS, *IMAGE_NETWORKS))
        own = {f.name: getattr(self, f.name) for f in fields(Node) if f.name in asdict(self)}
        return self._of_sequences(task, (Node(**own),))

    def _of_sequences(self, task: Task, nodes: tuple[Node, ...]) -> ModelSpec:
        wanted = "steps" if task.per_step else "last"
        pool = wanted if self.pool == "auto" else one_of("model.pool", self.pool, ("auto", "last", "mean", "steps"))
        if (pool == "steps") != task.per_step:
            kind = "a target at every step" if task.per_step else "one target per sequence"
            raise ValueError(f"model.pool={pool!r} does not fit task {task.name}, which has {kind}: use auto")
        timeless = [node.network for node in nodes if not node.is_map and not CELLS[node.network].has_time_step]
        if task.irregular and timeless:
            raise ValueError(
                f"{timeless[0]} has no time step, and {task.name} is sampled at irregular times: take a network with "
                "one, such as CoRNN, or drop the column of times to learn from the order alone"
            )
        return ModelSpec(
            task.input_size if task.vocabulary is None else self.embedding_size,
            task.output_size,
            nodes,
            pool=pool,
            standardise=task.standardise,
            labels=task.labels,
            vocabulary=task.vocabulary,
            embedding_dropout=self.embedding_dropout,
            token_dropout=self.token_dropout,
        )

    def _of_nodes(self, task: Task) -> ModelSpec:
        nodes = []
        for number, table in enumerate(self.nodes or ()):
            where = f"model.nodes, number {number}"
            if not isinstance(table, dict):
                raise ValueError(f"{where} must be a table, got {table!r}")
            known_keys(where, table, [f.name for f in fields(Node)])
            for name in ("network", "hidden_size"):
                if name not in table:
                    raise ValueError(f"{where} needs {name}")
            nodes.append(Node(**table))
        if not all(node.is_map for node in nodes):
            return self._of_sequences(task, tuple(nodes))
        _need_images("a graph of nodes without a recurrent one", task)
        return ModelSpec(
            task.input_size,
            task.output_size,
            tuple(nodes),
            pool="mean" if self.pool == "auto" else one_of("model.pool", self.pool, ("auto", *IMAGE_POOLS)),
            standardise=task.standardise,
            labels=task.labels,
            image=task.image,
        )

    def _of_images(self, task: Task) -> ModelSpec:
        network = IMAGE_NETWORKS[self.network]
        _need_images(self.network, task)
        for name in ("bidirectional", "residual", "dropout_last"):
            if getattr(self, name) != getattr(ModelChoice, name):
                raise ValueError(f"model.{name} is for recurrent networks, and {self.network} is none: leave it out")
        return ModelSpec(
            task.input_size,
            task.output_size,
            network.nodes(self.hidden_size, self.num_layers, self.physics, bias=self.bias, dropout=self.dropout),
            pool=network.pool if self.pool == "auto" else one_of("model.pool", self.pool, ("auto", *IMAGE_POOLS)),
            standardise=task.standardise,
            labels=task.labels,
            image=task.image,
        )


def _need_images(what: str, task: Task) -> None:
    if task.image is None:
        known = ", ".join(name for name, kind in TASKS.items() if kind.image)
        raise ValueError(f"{what} reads images, and {task.name} has none, or permuted ones: take {known}")
