"""Chance that can be repeated: random streams and splits that depend on their numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor


def generator_for(*numbers: int) -> torch.Generator:
    """A random stream that depends on the numbers and on nothing else; zeros at their end do not count.

    Splits, permutations and published results hang on these streams: another seeding is another test part.
    """
    seed = numpy.random.SeedSequence(numbers).generate_state(2, numpy.uint32)
    return torch.Generator().manual_seed(int(seed[0]) << 31 | int(seed[1]) >> 1)


def split(count: int, fractions: Sequence[float], seed: int, groups: Tensor | None = None) -> list[Tensor]:
    """Row numbers of each part, drawn by seed; with groups (count,) no group is in two parts.

    >>> [len(part) for part in split(10, (0.7, 0.3), seed=0)]
    [7, 3]
    """
    names = torch.arange(count) if groups is None else torch.unique(groups)
    order = names[torch.randperm(len(names), generator=generator_for(seed, 7))]
    ends = [round(sum(fractions[: k + 1]) * len(order)) for k in range(len(fractions))]
    parts = [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if groups is None:
        return [part.sort().values for part in parts]
    return [torch.isin(groups, part).nonzero().squeeze(1) for part in parts]
