"""What a user chooses, as plain data: a task by name, and a network for it."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pendula._check import known_keys, one_of
from pendula.cells import CELLS
from pendula.nets import ModelSpec, Node
from pendula.nets.images import IMAGE_NETWORKS
from pendula.nets.spec import IMAGE_POOLS
from pendula.tasks import TASKS
from pendula.tasks.base import Task


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
    """Which network: layers of one kind and a linear read-out, or one for images.

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

    def spec(self, task: Task) -> ModelSpec:
        """The model for a task. Errors: ValueError for settings that do not go with it, or with one another."""
        if self.network in IMAGE_NETWORKS:
            return self._of_images(task)
        one_of("model.network", self.network, (*CELLS, *IMAGE_NETWORKS))
        own = {f.name: getattr(self, f.name) for f in fields(Node) if f.name in asdict(self)}
        wanted = "steps" if task.per_step else "last"
        pool = wanted if self.pool == "auto" else one_of("model.pool", self.pool, ("auto", "last", "mean", "steps"))
        if (pool == "steps") != task.per_step:
            kind = "a target at every step" if task.per_step else "one target per sequence"
            raise ValueError(f"model.pool={pool!r} does not fit task {task.name}, which has {kind}: use auto")
        if task.irregular and not CELLS[self.network].has_time_step:
            raise ValueError(
                f"{self.network} has no time step, and {task.name} is sampled at irregular times: take a network with "
                "one, such as CoRNN, or drop the column of times to learn from the order alone"
            )
        return ModelSpec(
            task.input_size if task.vocabulary is None else self.embedding_size,
            task.output_size,
            (Node(**own),),
            pool=pool,
            standardise=task.standardise,
            labels=task.labels,
            vocabulary=task.vocabulary,
            embedding_dropout=self.embedding_dropout,
            token_dropout=self.token_dropout,
        )

    def _of_images(self, task: Task) -> ModelSpec:
        network = IMAGE_NETWORKS[self.network]
        if task.image is None:
            known = ", ".join(name for name, kind in TASKS.items() if kind.image)
            raise ValueError(f"{self.network} reads images, and {task.name} has none, or permuted ones: take {known}")
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
