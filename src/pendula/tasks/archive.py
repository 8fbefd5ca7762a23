"""The sets of the UCR and UEA archives by name, and EigenWorms as the authors of UnICORNN and LEM split it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from pendula._check import DataError, finite_number, one_of, positive_int
from pendula.tasks.archive_files import FOLDER, arrays_of, exactness, find_pair, read_published, verify_set
from pendula.tasks.base import PARTS, Sequences, StoredTask
from pendula.tasks.chance import generator_for, split
from pendula.tasks.samples import filled, means
from pendula.tasks.store import fetch, find, folders
from pendula.tasks.table import Table, read_npz

SPLITS = ("official", "pooled")
SHARES = (0.7, 0.15, 0.15)


class Archive(StoredTask):
    """A classification set of the UCR (Dau et al. 2019) or UEA archive (Bagnall et al. 2018), by its published name.

    Read is ``ucr_uea/<set>.npz``, or the published pair ``<set>_TRAIN.ts``, ``<set>_TEST.ts`` (or .arff) in ``ucr_uea``
    or ``ucr_uea/<set>`` below the data folder. Series end where they end; missing values take the last known value of
    their series.

    Args:
        set: the published name, such as "JapaneseVowels".
        path: your own copy instead: a folder with the pair, or an npz file of the same form.
        split: "official" keeps the published training and test part and holds out some of training for validation;
            "pooled" puts both together and draws 70 / 15 / 15 %, as Log-NCDE and LinOSS do, but not with their seeds:
            each draw is another one than theirs.
        validation: share of the published training part that is held out, some of each class where classes are large
            enough, above 0, at most 0.5; unused for "pooled".
        split_seed: draws what is held out, or the three parts.
        standardise: whether a model on this task scales its inputs.

    Errors: DataError when the set is missing (it says how to get it), damaged, or not what is known of it.
    """

    name: ClassVar[str] = "ucr_uea"
    summary: ClassVar[str] = "any set of the UCR and UEA archives, by its name"

    def __init__(
        self,
        set: str | None = None,
        path: str | None = None,
        split: str = "official",
        validation: float = 0.15,
        split_seed: int = 0,
        standardise: bool = True,
    ) -> None:
        if set is None and path is None:
            raise ValueError("set must be the name of a set, such as 'JapaneseVowels', or path must say where one is")
        self.set, self.path, self.split = set, path, one_of("split", split, SPLITS)
        self.validation = finite_number("validation", validation)
        if not 0 < self.validation <= 0.5:
            raise ValueError(f"validation must be above 0 and at most 0.5, got {validation!r}")
        self.split_seed = positive_int("split_seed", split_seed, least=0)
        self.standardise = standardise
        arrays, self.provenance = _own(Path(path), set) if path is not None else read_set(str(set))
        y, trained = _labels(arrays), len(arrays["y_train"])
        if self.split == "pooled":
            drawn = _pooled(len(y), self.split_seed)
            how = f"train and test pooled and split 70 / 15 / 15 % by split_seed {split_seed}, not the authors' draw"
        else:
            kept, held = hold_out(y[:trained], self.validation, self.split_seed)
            drawn = [kept, held, torch.arange(trained, len(y))]
            how = f"train and test as published; {len(held)} of {trained} training series drawn for validation"
        self._deal(arrays, y, drawn, how)

    def _deal(self, arrays: dict[str, NDArray[Any]], y: Tensor, drawn: list[Tensor], how: str) -> None:
        """Make the three parts from the rows drawn for each."""
        if not all(len(rows) for rows in drawn):
            sizes = ", ".join(str(len(rows)) for rows in drawn)
            raise DataError(f"{len(y)} series are too few: train, validation and test would have {sizes}")
        whole, holes = _sequences(arrays, y, drawn[0])
        self.labels = tuple(str(name) for name in arrays["classes"])
        self.output_size = len(self.labels)
        super().__init__({part: whole.take(rows) for part, rows in zip(PARTS, drawn, strict=True)})
        present = {int(k) for k in self.parts["train"].y}
        absent = [f"no training series is of class {name!r}" for k, name in enumerate(self.labels) if k not in present]
        self.notes = (how, *holes, *absent)


class EigenWorms(Archive):
    """Worms of five strains by their movement: 259 series of 17 984 steps and 6 channels, pooled and split anew.

    The recipe of the LEM repository (spec sheets ``cornn.md`` 5.6, ``unicornn.md`` 5.2): scikit-learn's
    train_test_split takes 30 % of the pooled set, then halves it, both with the same random_state: 181 / 39 / 39.
    UnICORNN gives no seed for its own split of these sizes. Inputs are not normalised in either.

    Args:
        path: your own copy: a folder with ``EigenWorms_TRAIN.ts`` and ``_TEST.ts`` (or .arff), or an npz file.
        split_seed: the random_state of both splits, 1234 in the repository.
        standardise: whether a model on this task scales its inputs.
    """

    name: ClassVar[str] = "eigenworms"
    summary: ClassVar[str] = "worms of five strains by their movement, 17 984 steps of 6 channels"

    def __init__(self, path: str | None = None, split_seed: int = 1234, standardise: bool = False) -> None:
        self.path, self.standardise = path, standardise
        self.split_seed = positive_int("split_seed", split_seed, least=0)
        arrays, self.provenance = _own(Path(path), "EigenWorms") if path is not None else read_set("EigenWorms")
        y = _labels(arrays)
        how = (
            f"train and test pooled, then split by scikit-learn with random_state {split_seed}, as in LEM's repository"
        )
        self._deal(arrays, y, halved(len(y), self.split_seed), how)


def hold_out(y: Tensor, share: float, seed: int) -> list[Tensor]:
    """Row numbers kept and held out, a share of each class as near as whole series allow.

    >>> [len(rows) for rows in hold_out(torch.tensor([0] * 20 + [1] * 10), 0.2, seed=0)]
    [24, 6]
    """
    place = torch.empty(len(y), dtype=torch.float64)
    order = torch.randperm(len(y), generator=generator_for(seed, 13))
    for name in torch.unique(y):
        rows = order[y[order] == name]
        # the k-th row of n stands for the shares around (k + 1/2) / n: the smallest places are spread over the classes
        place[rows] = (torch.arange(len(rows), dtype=torch.float64) + 0.5) / len(rows)
    # equal places fall in the drawn order
    ranked = order[torch.argsort(place[order], stable=True)]
    count = max(1, round(share * len(y)))
    return [ranked[count:].sort().values, ranked[:count].sort().values]


def halved(count: int, seed: int) -> list[Tensor]:
    """Row numbers of train, validation and test: 30 % taken by scikit-learn's train_test_split, then halved."""
    try:
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise DataError(f"this split is scikit-learn's ({error}): pip install 'pendula[train]'") from error
    train, rest = train_test_split(numpy.arange(count), test_size=0.3, random_state=seed)
    return [torch.from_numpy(rows) for rows in (train, *train_test_split(rest, test_size=0.5, random_state=seed))]


def read_set(name: str) -> tuple[dict[str, NDArray[Any]], str]:
    """The arrays of a set below the data folders and their provenance. Errors: DataError if missing or damaged."""
    found = find(f"{FOLDER}/{name}.npz")
    if found is None:
        for folder in folders():
            pair = find_pair(folder / FOLDER, name) or find_pair(folder / FOLDER / name, name)
            if pair:
                return _checked(arrays_of(*map(read_published, pair)), name, pair[0])
    path = found or fetch(f"{FOLDER}/{name}.npz")
    return _checked(read_npz(path), name, path)


def _checked(arrays: dict[str, NDArray[Any]], name: str, path: Path) -> tuple[dict[str, NDArray[Any]], str]:
    wrong = verify_set(arrays, name)
    if wrong:
        raise DataError(f"{path} is damaged or another set: {wrong}; delete it, then `pendula data get {name}`")
    return arrays, exactness(arrays, name)


def _own(path: Path, name: str | None) -> tuple[dict[str, NDArray[Any]], str]:
    path = path.expanduser()
    if path.is_dir():
        pair = find_pair(path, name or "*")
        if pair is None:
            raise DataError(f"{path} has no pair {name or '*'}_TRAIN.ts and _TEST.ts (or .arff)")
        arrays = arrays_of(*map(read_published, pair))
    elif path.suffix == ".npz" and path.is_file():
        arrays = read_npz(path)
    else:
        raise DataError(f"{path} is not there or of another kind: needed is a folder with the pair, or an npz file")
    # what is known of a set is not asked of a user's own copy
    wrong = verify_set(arrays, "")
    if wrong:
        raise DataError(f"{path} cannot be read as a set: {wrong}")
    return arrays, f"your own data: {path}"


def _labels(arrays: dict[str, NDArray[Any]]) -> Tensor:
    return torch.from_numpy(numpy.concatenate([arrays["y_train"], arrays["y_test"]]).astype(numpy.int64))


def _pooled(count: int, seed: int) -> list[Tensor]:
    return split(count, SHARES, seed)


def _sequences(arrays: dict[str, NDArray[Any]], y: Tensor, train: Tensor) -> tuple[Sequences, tuple[str, ...]]:
    """All series, first those of the published training part, and what was missing, in a sentence."""
    values, lengths = [], []
    for part in ("train", "test"):
        x = arrays[f"X_{part}"]
        own = arrays.get(f"length_{part}", numpy.full(len(x), x.shape[1])).astype(numpy.int64)
        values.append(x[numpy.arange(x.shape[1]) < own[:, None]])
        lengths.append(own)
    flat, counts = numpy.concatenate(values), numpy.concatenate(lengths)
    offsets = numpy.concatenate(([0], numpy.cumsum(counts)))
    holes: tuple[str, ...] = ()
    if numpy.isnan(flat).any():
        channels = tuple(str(k) for k in range(flat.shape[1]))
        table = Table(flat.astype(numpy.float64), offsets, channels, tuple(str(k) for k in range(len(y))))
        rows = numpy.isin(numpy.repeat(numpy.arange(len(y)), counts), train.numpy())
        filled_values, holes = filled(table, "forward", means(table, table.values[rows], "the set"), "the set")
        flat = filled_values.astype(numpy.float32)
    return Sequences(torch.from_numpy(flat).float(), torch.from_numpy(offsets), y), holes
