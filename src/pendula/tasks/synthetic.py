"""Problems that are drawn, not stored: adding and copying."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from pendula._check import positive_int
from pendula.tasks.base import PARTS, Batch, Task
from pendula.tasks.chance import generator_for


class GeneratedTask(Task):
    """A task whose training sequences are drawn afresh in every epoch; validation and test are drawn once.

    Row i of a part depends on (seed, epoch, i) alone, whatever the batch it stands in.
    """

    def __init__(self, epoch_size: int, validation_size: int, test_size: int) -> None:
        sizes = (epoch_size, validation_size, test_size)
        names = ("epoch_size", "validation_size", "test_size")
        self.sizes = {p: positive_int(n, s) for p, n, s in zip(PARTS, names, sizes, strict=True)}

    def size(self, part: str) -> int:
        return self.sizes[part]

    @abstractmethod
    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One sequence (T, I) and its target."""

    def rows(self, part: str, index: Tensor, seed: int, epoch: int) -> Batch:
        stream = (seed, epoch, 0) if part == "train" else (0, 0, PARTS.index(part))
        drawn = [self.draw(generator_for(*stream, int(i))) for i in index]
        y = torch.stack([y for _, y in drawn], 1 if self.per_step else 0)
        return Batch(torch.stack([x for x, _ in drawn], 1), y)

    def targets(self, part: str, index: Tensor) -> int:
        return len(index)


class Adding(GeneratedTask):
    """Add two marked numbers of a long sequence.

    Channel 0 is U[0, 1); channel 1 is zero but for two ones, one at a uniform place in the first half, one in the
    second. The target is the sum of the two marked values. Predicting 1 gives a mean squared error of 1/6 (spec sheet
    ``cornn.md`` 5.2, read in the authors' code). Each epoch draws afresh; validation and test are drawn once.

    Args:
        length: T, at least 2.
        epoch_size: sequences per epoch.
        validation_size, test_size: sequences of the fixed parts.
    """

    name: ClassVar[str] = "adding"
    summary: ClassVar[str] = "add two marked numbers of a long sequence (generated)"
    target = "values"

    def __init__(
        self, length: int = 100, epoch_size: int = 5000, validation_size: int = 1000, test_size: int = 1000
    ) -> None:
        super().__init__(epoch_size, validation_size, test_size)
        self.length = positive_int("length", length, least=2)
        self.input_size, self.output_size = 2, 1
        self.baseline = 1 / 6

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        half = self.length // 2
        x = torch.zeros(self.length, 2)
        x[:, 0] = torch.rand(self.length, generator=generator)
        first = int(torch.randint(half, (1,), generator=generator))
        second = int(torch.randint(half, self.length, (1,), generator=generator))
        x[[first, second], 1] = 1
        return x, x[[first, second], 0].sum(0, keepdim=True)


class Copying(GeneratedTask):
    """Recall ten symbols after a delay.

    Input of length T + 20: 10 symbols drawn from 8, T - 1 blanks, a delimiter, 10 blanks; target: T + 10 blanks, then
    the 10 symbols. Symbols are 1 to 8, blank is 0, the delimiter 9; targets use the classes 0 to 8. Cross-entropy
    averaged over all steps; without memory it is 10 ln 8 / (T + 20) (spec sheet ``urnn.md`` 7.1). Other code places the
    delimiter one step later (sheet ``baselines.md`` 1.1).

    Args:
        delay: T.
        epoch_size, validation_size, test_size: as for `Adding`.
    """

    name: ClassVar[str] = "copying"
    summary: ClassVar[str] = "recall ten symbols after a delay (generated)"
    per_step = True

    def __init__(
        self, delay: int = 100, epoch_size: int = 5000, validation_size: int = 1000, test_size: int = 1000
    ) -> None:
        super().__init__(epoch_size, validation_size, test_size)
        self.delay = positive_int("delay", delay)
        self.input_size, self.output_size = 10, 9
        self.labels = ("blank", *(f"symbol {k}" for k in range(1, 9)))
        self.baseline = 10 * math.log(8) / (delay + 20)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        symbols = torch.randint(1, 9, (10,), generator=generator)
        steps = self.delay + 20
        tokens, target = torch.zeros(2, steps, dtype=torch.int64)
        tokens[:10] = symbols
        tokens[self.delay + 9] = 9
        target[-10:] = symbols
        return torch.nn.functional.one_hot(tokens, 10).float(), target

    def targets(self, part: str, index: Tensor) -> int:
        return len(index) * (self.delay + 20)
