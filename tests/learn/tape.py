"""A CUDA graph without a GPU: operators are recorded while capturing, and done again on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pendula.learn.graph import WAITS

REFUSED = {*WAITS, "aten::lift_fresh"}
"""What makes the processor wait for a GPU, or makes a tensor of numbers of Python's: neither can be captured."""


class Tape(TorchDispatchMode):
    """A `pendula.learn.graph.Capture`. Numbers of Python's are frozen in it, tensors keep their place in memory, random
    numbers follow the generator, and new tensors hold NaN until the first replay: all as in a CUDA graph."""

    def __init__(self, memory: int = 1 << 40) -> None:
        super().__init__()
        self.memory, self.captures, self.replays = memory, 0, 0
        self.refused = set(REFUSED)

    def free_memory(self) -> int:
        return self.memory

    def warm_up(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        self.captures += 1
        self.done: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.written: list[tuple[Tensor, Tensor]] = []
        self.known: set[int] = set()
        self.fresh: list[Tensor] = []
        state = torch.get_rng_state()
        with self:
            result = work()
        with torch.no_grad():
            for tensor, before in reversed(self.written):
                tensor.copy_(before)
            for tensor in self.fresh:
                if tensor.is_floating_point():
                    tensor.fill_(torch.nan)
        torch.set_rng_state(state)
        done = self.done

        @torch.no_grad()
        def replay() -> None:
            self.replays += 1
            for function, args, words, given in done:
                again = function(*args, **words)
                for old, new in zip(_tensors(given), _tensors(again), strict=True):
                    if _place(old) != _place(new):
                        old.copy_(new)

        return result, replay

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        words = kwargs or {}
        if function._schema.name in self.refused:
            raise RuntimeError(f"{function._schema.name}: operation not permitted when stream is capturing")
        self.known.update(map(_place, _tensors((args, words))))
        for argument, value in zip(function._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.written += [(tensor, tensor.clone()) for tensor in _tensors(value)]
        result = function(*args, **words)
        for tensor in _tensors(result):
            if _place(tensor) not in self.known:
                self.known.add(_place(tensor))
                self.fresh.append(tensor)
        self.done.append((function, args, words, result))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
