"""PyTorch's own LSTM and GRU scans (oneDNN and native on a CPU, cuDNN on a GPU) as fused scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


@dataclass(frozen=True)
class TorchScan:
    """``torch.lstm`` or ``torch.gru`` over one layer and one direction; operands are its flat weights."""

    name: str
    function: Callable[..., Any]

    def objection(
        self, x: Tensor, operands: tuple[Any, ...], *, lengths: Tensor | None, tau: Tensor | None
    ) -> str | None:
        if tau is not None:
            return f"{self.name} has no time step, so timespans can't scale it"
        return None

    def __call__(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        operands: tuple[Any, ...],
        *,
        lengths: Tensor | None,
        tau: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        # the flags after the weights: has_biases, num_layers, dropout, train, bidirectional (, batch_first);
        # without train, cuDNN keeps nothing for the backward pass
        has_biases, train = len(operands) == 4, torch.is_grad_enabled()
        if lengths is None:
            hx = tuple(s.unsqueeze(0) for s in state)
            flags: tuple[Any, ...] = (has_biases, 1, 0.0, train, False, False)
            output, *final = self.function(x, hx if len(hx) > 1 else hx[0], list(operands), *flags)
            return output, tuple(s.squeeze(0) for s in final)
        packed = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
        assert packed.sorted_indices is not None
        assert packed.unsorted_indices is not None
        hx = tuple(s[packed.sorted_indices].unsqueeze(0) for s in state)
        weights = list(operands)
        data, *final = self.function(
            packed.data, packed.batch_sizes, hx if len(hx) > 1 else hx[0], weights, has_biases, 1, 0.0, train, False
        )
        run = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        output, _ = pad_packed_sequence(run, total_length=x.shape[0])
        return output, tuple(s.squeeze(0)[packed.unsorted_indices] for s in final)


TORCH_LSTM = TorchScan("torch.lstm", torch.lstm)
TORCH_GRU = TorchScan("torch.gru", torch.gru)
