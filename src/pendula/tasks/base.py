"""A task: data, loss, metric. It knows tensors, no model."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pendula._check import DataError, did_you_mean, one_of, positive_int
from pendula.tasks.chance import generator_for

PARTS = ("train", "validation", "test")
TARGETS = ("classes", "binary", "values", "bits")


@dataclass(frozen=True)
class Batch:
    """Some sequences, padded.

    x (T, B, I), or token ids (T, B), int64; y (B,) class indices or (B, C) values, with a leading T where there is a
    target at every step; lengths (B,) or None when all are T long; timespans (T, B) or None; share: what this batch
    weighs in the mean loss of the step when several processes work on one batch (1 when alone).
    """

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None
    timespans: Tensor | None = None
    share: float = 1.0

    def to(self, device: Any, dtype: torch.dtype | None = None) -> Batch:
        def moved(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device, dtype if dtype and t.is_floating_point() else t.dtype)

        x, y = moved(self.x), moved(self.y)
        assert x is not None
        assert y is not None
        return Batch(x, y, moved(self.lengths), moved(self.timespans), self.share)


@dataclass(frozen=True)
class Sequences:
    """A part of a stored data set, flat: sequence i is ``flat[offsets[i]:offsets[i + 1]]``.

    flat (S, I) float32, or (S,) whole numbers, which are token ids, 0 for padding; offsets (N + 1,) int64; y (N,) int64
    or (N, C) float32, or (S,) / (S, C) for targets at every step; timespans (S,) float32 or None; names: what each
    sequence is called, for predictions; reads_padding: batches do not tell their lengths, so that a model runs on
    through the padding (one target per sequence only); what it says then depends on the longest sequence of a batch.
    """

    flat: Tensor
    offsets: Tensor
    y: Tensor
    timespans: Tensor | None = None
    names: tuple[str, ...] | None = None
    reads_padding: bool = False

    @classmethod
    def stacked(cls, x: Tensor, y: Tensor) -> Sequences:
        """From (N, T, I), or tokens (N, T), of equal lengths."""
        count, steps = x.shape[:2]
        flat = x.reshape(count * steps, *x.shape[2:])
        return cls(flat.to(torch.float32) if x.dim() == 3 else flat, torch.arange(count + 1) * steps, y)

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def take(self, index: Tensor) -> Sequences:
        """Some of the sequences, in the order of `index`."""
        rows = torch.cat([torch.arange(int(self.offsets[i]), int(self.offsets[i + 1])) for i in index])
        lengths = self.lengths[index]
        offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
        per_step = self.y.shape[0] == self.flat.shape[0] and self.y.shape[0] != len(self)
        spans = None if self.timespans is None else self.timespans[rows]
        names = None if self.names is None else tuple(self.names[i] for i in index.tolist())
        y = self.y[rows if per_step else index]
        return Sequences(self.flat[rows], offsets, y, spans, names, self.reads_padding)

    def batch(self, index: Tensor, *, per_step: bool) -> Batch:
        """Time-major, padded with zeros to the longest."""
        lengths = self.lengths[index]
        steps = int(lengths.max())
        t = torch.arange(steps).unsqueeze(1)
        valid = t < lengths
        rows = torch.where(valid, self.offsets[index] + t, 0)
        padded = not bool(valid.all())

        def over_time(values: Tensor) -> Tensor:
            taken = values[rows]
            if padded:
                taken[~valid] = 0
            return taken

        y = over_time(self.y) if per_step else self.y[index]
        spans = None
        if self.timespans is not None:
            spans = self.timespans[rows].masked_fill(~valid, 1)
        x = over_time(self.flat)
        return Batch(x if x.dim() == 3 else x.long(), y, lengths if padded and not self.reads_padding else None, spans)


class Task(ABC):
    """Data, loss and metric of one problem.

    Attributes:
        input_size: I, features per step; 1 for tokens.
        output_size: C, numbers per prediction; 1 for two classes told apart by log-odds ("binary").
        target: "classes", "binary", "values" or "bits" (C coins of their own, each with its log-odds).
        per_step: whether there is a target at every step.
        labels: names of the classes, or None.
        provenance: where the data comes from and whether it is exact, in a sentence.
        irregular: whether the sequences come with timespans.
        vocabulary: how many tokens there are, padding included, where the inputs are token ids; else None.
        image: (H, W) where the steps are the pixels of an image row by row; else None.
        baseline: the loss without memory (the best constant prediction, say), where it is known.
        notes: what was found while reading (missing values, irregular times), a sentence each.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    input_size: int
    output_size: int
    target: str = "classes"
    per_step: bool = False
    labels: tuple[str, ...] | None = None
    provenance: str = "generated"
    notes: Sequence[str] = ()
    standardise: bool = False
    irregular: bool = False
    vocabulary: int | None = None
    image: tuple[int, int] | None = None
    baseline: float | None = None

    @abstractmethod
    def size(self, part: str) -> int:
        """How many sequences a part has (for generated data, how many an epoch draws)."""

    @abstractmethod
    def rows(self, part: str, index: Tensor, seed: int, epoch: int) -> Batch:
        """The sequences with these numbers; generated ones depend on seed and epoch, stored ones do not."""

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and scale (I,) of the training inputs; scale 1 where a feature is constant."""
        raise DataError(f"{self.name} has no statistics: its inputs are generated on a fixed scale")

    def digest(self) -> str:
        """A digest of the data, to refuse going on with other data: of a first batch where it is generated."""
        batch = self.rows("train", torch.arange(min(8, self.size("train"))), 0, 0)
        return _digest(batch.x, batch.y)

    def steps(self, part: str, batch_size: int) -> int:
        return -(-self.size(part) // batch_size)

    def order(self, part: str, seed: int = 0, epoch: int = 0) -> Tensor:
        """The numbers of all sequences of a part as they are read: seed and epoch shuffle the training part."""
        if part == "train":
            return torch.randperm(self.size(part), generator=generator_for(seed, epoch))
        return torch.arange(self.size(part))

    def batches(
        self,
        part: str,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on: a pure function of the arguments, so a run can be resumed.

        The training part is shuffled by seed and epoch. With several processes, each takes every `world`-th row
        of each batch, and the shares make the mean over processes the mean over the whole batch.
        """
        one_of("part", part, PARTS)
        positive_int("batch_size", batch_size)
        order = self.order(part, seed, epoch)
        for number in range(start, self.steps(part, batch_size)):
            index = order[number * batch_size : (number + 1) * batch_size]
            if world == 1:
                yield self.rows(part, index, seed, epoch)
                continue
            mine, total = index[rank::world], self.targets(part, index)
            # a process without a row must still take part in the reduction: it gets a row that weighs nothing
            share = self.targets(part, mine) * world / total if len(mine) else 0.0
            yield replace(self.rows(part, mine if len(mine) else index[:1], seed, epoch), share=share)

    def targets(self, part: str, index: Tensor) -> int:
        """How many targets these sequences have: what a mean loss is taken over."""
        return len(index)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean over the targets: cross-entropy (nats; of bits summed over the C of a target), or squared error."""
        return self.measures(output, batch)["loss"] / self.count(batch)

    def count(self, batch: Batch) -> int:
        if not self.per_step:
            return batch.x.shape[1]
        return int(batch.lengths.sum()) if batch.lengths is not None else batch.x.shape[0] * batch.x.shape[1]

    def measures(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sums over the targets: "loss", and "accuracy" where there are classes."""
        y = batch.y
        output = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
        if self.per_step and batch.lengths is not None:
            valid = torch.arange(batch.x.shape[0], device=output.device).unsqueeze(1) < batch.lengths
            output, y = output[valid], y[valid]
        elif self.per_step:
            output, y = output.flatten(0, 1), y.flatten(0, 1)
        if self.target == "values":
            return {"loss": (output - y.reshape(output.shape)).square().mean(-1).sum()}
        if self.target == "bits":
            bits = y.reshape(output.shape).to(output.dtype)
            return {"loss": functional.binary_cross_entropy_with_logits(output, bits, reduction="sum")}
        if self.target == "binary":
            logit = output.squeeze(-1)
            loss = functional.binary_cross_entropy_with_logits(logit, y.to(logit.dtype), reduction="sum")
            return {"loss": loss, "accuracy": ((logit > 0) == (y > 0)).sum()}
        loss = functional.cross_entropy(output, y, reduction="sum")
        return {"loss": loss, "accuracy": (output.argmax(-1) == y).sum()}

    @property
    def selects(self) -> tuple[str, bool]:
        """The validation metric that picks the best epoch, and whether more is better."""
        return ("loss", False) if self.target in ("values", "bits") else ("accuracy", True)


class StoredTask(Task):
    """A task on data that is in memory."""

    def __init__(self, parts: dict[str, Sequences]) -> None:
        self.parts = parts
        self.input_size = parts["train"].flat[:1].numel()
        self.irregular = any(sequences.timespans is not None for sequences in parts.values())

    def size(self, part: str) -> int:
        return len(self.part(part))

    def part(self, part: str) -> Sequences:
        if part not in self.parts:
            raise DataError(
                f"{self.name} has no {part} part{did_you_mean(part, self.parts)}: it has {', '.join(self.parts)}"
            )
        return self.parts[part]

    def rows(self, part: str, index: Tensor, seed: int, epoch: int) -> Batch:
        return self.part(part).batch(index, per_step=self.per_step)

    def targets(self, part: str, index: Tensor) -> int:
        return int(self.part(part).lengths[index].sum()) if self.per_step else len(index)

    def digest(self) -> str:
        kept = [t for s in self.parts.values() for t in (s.flat, s.offsets, s.y, s.timespans) if t is not None]
        return _digest(*kept)

    def statistics(self) -> tuple[Tensor, Tensor]:
        flat = self.part("train").flat.to(torch.float64)
        scale = flat.std(0, correction=0)
        return flat.mean(0).float(), torch.where(scale > 0, scale, 1).float()


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
