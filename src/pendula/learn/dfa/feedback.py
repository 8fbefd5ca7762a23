"""Fixed random maps that carry an error to a layer: dense, binary or sparse matrices, and dilated grouped convolutions.

Spec sheet ``dfa.md`` 3.3 and 3.5. The paper (Han et al. 2020, arXiv 2006.12830) says dilated convolution, grouped
convolution and sparse matrix; every number here is a reconstruction.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from pendula._check import finite_number, one_of, positive_int

KINDS = ("uniform", "normal", "binary")
PATTERNS = ("random", "structured")
# above this, the rank of a matrix costs more than it tells
CHECKED_RANK = 1024


@dataclass(frozen=True)
class FeedbackSpec:
    """How feedback weights are drawn, by a generator of their own: the network's weights don't depend on it.

    A row has k non-zero weights, spread so that every column is used equally often. Dense weights are uniform within
    a = scale / sqrt(k), or have the same variance a^2 / 3 ("normal", and "binary": +-a / sqrt(3)).

    Args:
        kind: "uniform", "normal" or "binary".
        sparsity: share of zeros in each row, in [0, 1); at least one weight of a row stays.
        pattern: where the others are. "structured": row i has columns (i k + j) mod m, j < k; "random": the same
            pattern with rows and columns shuffled.
        scale: factor of all weights; it only rescales a layer's rate of learning.
        seed: draws them.

    >>> FeedbackSpec(sparsity=0.5, pattern="structured").matrix("layer0", 4, 4).ne(0).int().tolist()
    [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]
    """

    kind: str = "uniform"
    sparsity: float = 0.0
    pattern: str = "random"
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        one_of("pattern", self.pattern, PATTERNS)
        if not 0 <= finite_number("sparsity", self.sparsity) < 1:
            raise ValueError(f"sparsity is the share of feedback weights left out, in [0, 1), got {self.sparsity}")
        if finite_number("scale", self.scale) <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        positive_int("seed", self.seed, least=0)

    def matrix(self, name: str, rows: int, columns: int) -> Tensor:
        """The weights (rows, columns) of the map with this name, float64.

        Errors: ValueError where so few weights can't carry every column, or the rank is not full.
        """
        return self._drawn(name, rows, 1, columns)[:, 0]

    def kernel(self, name: str, outputs: int, inputs: int, groups: int, size: int = 3) -> Tensor:
        """The weights (outputs, inputs / groups, size, size) of a convolution, float64.

        A row holds all that one output channel sees, and every input channel is used, at some tap. Errors: as `matrix`.
        """
        if inputs % groups or outputs % groups:
            raise ValueError(
                f"groups={groups} must divide the channels that the feedback {name} joins, {inputs} and {outputs}"
            )
        drawn = self._drawn(name, outputs, size**2, inputs // groups)
        return drawn.transpose(1, 2).reshape(outputs, inputs // groups, size, size).contiguous()

    def _drawn(self, name: str, rows: int, taps: int, columns: int) -> Tensor:
        draws = torch.Generator().manual_seed(_seed_of(self.seed, name))
        shape = (rows, taps * columns)
        kept = max(1, round((1 - self.sparsity) * taps * columns))
        bound = self.scale / kept**0.5
        if self.kind == "uniform":
            B = (2 * torch.rand(shape, generator=draws, dtype=torch.float64) - 1) * bound
        elif self.kind == "normal":
            B = torch.randn(shape, generator=draws, dtype=torch.float64) * (bound / 3**0.5)
        else:
            B = (2 * torch.randint(2, shape, generator=draws, dtype=torch.float64) - 1) * (bound / 3**0.5)
        if kept < taps * columns:
            B = B * self._pattern(name, rows, taps, columns, kept, draws).view(shape)
            # signs alone may cancel: that is what "binary" costs
            full = min(shape)
            if self.kind != "binary" and full <= CHECKED_RANK and int(torch.linalg.matrix_rank(B)) < full:
                raise ValueError(f"the feedback {name} lost rank with sparsity={self.sparsity}: take another seed")
        drawn: Tensor = B.view(rows, taps, columns)
        return drawn

    def _pattern(self, name: str, rows: int, taps: int, columns: int, kept: int, draws: torch.Generator) -> Tensor:
        """1 where a weight stays, (rows, taps, columns)."""
        if rows * kept < columns:
            most = 1 - -(-columns // rows) / (taps * columns)
            raise ValueError(
                f"sparsity={self.sparsity} leaves {kept} of {taps * columns} weights to each of the {rows} rows of the "
                f"feedback {name}: too few for every one of {columns} columns; it can be at most {most:.3g}"
            )
        places = (torch.arange(rows).unsqueeze(1) * kept + torch.arange(kept)) % (taps * columns)
        pattern = torch.zeros(rows, taps * columns, dtype=torch.float64).scatter_(1, places, 1.0)
        pattern = pattern.view(rows, taps, columns)
        if self.pattern == "random":
            for axis, size in enumerate((rows, taps, columns)):
                pattern = pattern.index_select(axis, torch.randperm(size, generator=draws))
        return pattern


def _seed_of(seed: int, name: str) -> int:
    """A map does not change when another one is added before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "little")
