"""Models with everything that a forward pass can hold, and batches for them."""

from __future__ import annotations

import torch
from torch import Tensor

from pendula import Model, ModelSpec, Node
from pendula.tasks.base import Batch


def random(spec: ModelSpec) -> Model:
    return Model(spec, dtype=torch.float64)


def conv(size: int, name: str, module: str, **physics: object) -> Node:
    inputs = physics.pop("inputs", ())
    merge = physics.pop("merge", "concat")
    words = {"inputs": inputs, "merge": merge, "module": module, "physics": {"activation": "tanh", **physics}}
    return Node("Conv", size, name, **words)


def looker() -> Model:
    """Convolutions with batch normalisation, groups, a stride, max-pooling, a residual sum and learned merges."""
    nodes = (
        conv(4, "stem", "low"),
        conv(4, "left", "low", groups=2),
        Node("Identity", 4, "sum", inputs=("stem", "left"), merge="sum", physics={"activation": "relu"}, module="low"),
        conv(6, "down", "middle", stride=2, norm="none"),
        conv(6, "mixed", "middle", inputs=("down", "sum"), merge="weighted", order="act-conv-norm"),
        conv(6, "small", "middle", pool=2, inputs=("down", "mixed"), merge="attention"),
        Node("Linear", 5, "head", physics={"activation": "tanh"}, module="high"),
    )
    return random(ModelSpec(2, 3, nodes, pool="flatten", image=(8, 6)))


def listener(pool: str = "mean", **words: object) -> Model:
    """Maps before, between and behind recurrent layers, two of them stacked with a residual connection."""
    nodes = (
        Node("Linear", 4, "before", physics={"activation": "tanh"}),
        Node("UnICORNN", 4, "deep", num_layers=3, residual=True, **words),
        Node("GRU", 4, "beside", inputs=("before",)),
        Node("Linear", 5, "behind", inputs=("deep", "beside"), physics={"activation": "tanh"}),
    )
    return random(ModelSpec(2, 3, nodes, pool=pool))


def reader(network: str = "LSTM", pool: str = "last", **words: object) -> Model:
    """A stack on an embedding of tokens."""
    return random(ModelSpec(4, 3, (Node(network, 5, num_layers=2, **words),), pool=pool, vocabulary=11))


def images(size: int = 5) -> Batch:
    return Batch(torch.randn(48, size, 2, dtype=torch.float64), torch.randn(size, 3, dtype=torch.float64))


def sequences(pool: str = "mean", steps: int = 6, size: int = 3) -> Batch:
    x = torch.randn(steps, size, 2, dtype=torch.float64)
    return Batch(x, torch.randn(*([steps] if pool == "steps" else []), size, 3, dtype=torch.float64))


def tokens(steps: int = 6, size: int = 3) -> Batch:
    return Batch(torch.randint(1, 11, (steps, size)), torch.randn(size, 3, dtype=torch.float64))


LENGTHS = [6, 1, 4]


def padded(pool: str, spans: bool = False, junk: float = float("nan")) -> tuple[Batch, list[Batch]]:
    """Sequences of LENGTHS steps with junk behind their ends, together and one by one."""
    whole, per_step = sequences(pool), pool == "steps"
    x, y, lengths = whole.x, whole.y, torch.tensor(LENGTHS)
    tau = 0.5 + torch.rand(6, 3, dtype=torch.float64) if spans else None

    def alone(b: int, n: int) -> Batch:
        target = y[:n, [b]] if per_step else y[[b]]
        return Batch(x[:n, [b]].clone(), target.clone(), None, None if tau is None else tau[:n, [b]].clone())

    parts = [alone(b, n) for b, n in enumerate(LENGTHS)]
    gaps = torch.arange(6).unsqueeze(1) >= lengths
    x[gaps] = junk
    if tau is not None:
        tau[gaps] = junk
    return Batch(x, y, lengths, tau), parts


def half_squared_of_valid(output: Tensor, batch: Batch) -> Tensor:
    """The sum over what is no padding, as the tasks' losses have it."""
    wrong = 0.5 * (output - batch.y).square().sum(-1)
    if output.dim() == 3 and batch.lengths is not None:
        wrong = wrong[torch.arange(len(wrong)).unsqueeze(1) < batch.lengths]
    return wrong.sum()
