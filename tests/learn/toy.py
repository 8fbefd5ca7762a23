"""A task small enough to train in a second, and a script that trains on it in a process of its own."""

import sys
from itertools import pairwise
from pathlib import Path

import torch

from pendula import Model, ModelSpec, Node
from pendula.learn.training import Training
from pendula.tasks.base import Sequences, StoredTask


class SignOfSum(StoredTask):
    """Whether the sum of a short sequence is positive; lengths differ."""

    name = "sign-of-sum"
    summary = "toy"

    def __init__(self, per_step: bool = False, count: int = 90) -> None:
        generator = torch.Generator().manual_seed(3)
        lengths = torch.randint(3, 9, (count,), generator=generator)
        offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
        flat = torch.randn(int(offsets[-1]), 2, generator=generator)
        sums = torch.stack([flat[a:b, 0].sum() for a, b in pairwise(offsets)])
        y = (flat[:, 0] > 0).long() if per_step else (sums > 0).long()
        whole = Sequences(flat, offsets, y)
        third = count // 3
        parts = zip(("train", "validation", "test"), torch.arange(count).split(third), strict=False)
        super().__init__({part: whole.take(rows) for part, rows in parts})
        self.output_size, self.labels, self.per_step = 2, ("no", "yes"), per_step


def model(per_step: bool = False, dropout: float = 0.3) -> Model:
    torch.manual_seed(0)
    pool = "steps" if per_step else "last"
    node = Node("CoRNN", 8, num_layers=2, dropout=dropout, physics={"dt": 0.3, "epsilon": 2.0})
    return Model(ModelSpec(2, 2, (node,), pool=pool, labels=("no", "yes")))


def spectral() -> Model:
    """A network with orthogonal bases, penalties and a trained initial state."""
    torch.manual_seed(0)
    physics = {"margin": 0.3, "orthogonality": 0.01, "prior": 0.02, "decay": 0.001, "rate_by_margin": True}
    node = Node("SpectralRNN", 8, num_layers=2, physics=physics)
    return Model(ModelSpec(2, 2, (node,), labels=("no", "yes")))


TRAINING = Training(
    epochs=6,
    batch_size=8,
    learning_rate=0.02,
    schedule="cosine",
    clip_norm=1.0,
    input_noise=0.1,
    save_every=2,
    accelerator="cpu",
)


def main(folder: str, *flags: str) -> None:
    """Train in `folder`; "slow" waits after every batch, to be killed; "sgd" takes plain gradient steps.

    "spectral" trains the network with orthogonal bases.
    """
    import time
    from dataclasses import replace

    from pendula.learn.fit import fit

    torch.set_num_threads(1)
    training, task, net = TRAINING, SignOfSum(), model()
    if "spectral" in flags:
        net, training = spectral(), replace(training, bases_rate=0.5)
    if "sgd" in flags:
        # plain steps on uneven batches (30 rows in batches of 7): the weights are a sum of gradients
        training = Training(
            epochs=2, batch_size=7, learning_rate=0.1, optimiser="sgd", accelerator="cpu", precision="64-true"
        )
        net = spectral().double() if "spectral" in flags else model(dropout=0.0).double()
        # one process has nothing to validate on
        task.parts["validation"] = task.parts["validation"].take(torch.arange(1))
    if "nan" in flags:
        training = replace(training, learning_rate=1e30, clip_norm=None, schedule="constant")
    if "steps" in flags:
        task, net, training = SignOfSum(per_step=True), model(per_step=True), replace(training, window=3)

    def report(at: object, batches: int, loss: float) -> None:
        print("batch", flush=True)
        if "slow" in flags:
            time.sleep(0.05)

    fit(net, task, training, Path(folder), resume="resume" in flags, report=report)


if __name__ == "__main__":
    main(*sys.argv[1:])
