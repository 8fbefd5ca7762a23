"""Tokens become vectors: the table that stands before the layers of a model for text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import embedding

from pendula import _check


class Embedding(nn.Embedding):
    """A row of numbers per token; token 0 is padding: its row is zero and gets no gradient.

    Args:
        vocabulary: V, how many tokens there are, padding included.
        size: E, numbers per token.
        dropout: probability that a column is dropped, one mask per sequence held over all times.
        token_dropout: probability that a token's whole row is dropped, one mask per batch, so that a token is dropped
            wherever it stands (what UnICORNN's script for IMDB does; spec sheet ``unicornn.md`` 1).

    Shapes: tokens (T, B), int64; vectors (T, B, E). What is kept is scaled by 1 / (1 - p).

    >>> Embedding(5, 3)(torch.tensor([[1, 0]]))[0, 1].tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(
        self, vocabulary: int, size: int, *, dropout: float = 0.0, token_dropout: float = 0.0, **place: Any
    ) -> None:
        super().__init__(vocabulary, size, padding_idx=0, **place)
        self.dropout = _check.probability("dropout", dropout)
        self.token_dropout = _check.probability("token_dropout", token_dropout)

    def forward(self, input: Tensor) -> Tensor:
        """The vectors of the tokens. Errors: ShapeError, TypeError or ValueError for what are no tokens."""
        self._check_tokens(input)
        x = embedding(input, self.weight, padding_idx=0)
        if self.training and self.token_dropout:
            x = x * drop(self.weight.new_ones(self.num_embeddings), self.token_dropout)[input].unsqueeze(-1)
        if self.training and self.dropout:
            x = x * drop(torch.ones_like(x[0]), self.dropout)
        return x

    def _check_tokens(self, tokens: Any) -> None:
        known = f"token ids from 0 (padding) to {self.num_embeddings - 1}"
        if not isinstance(tokens, Tensor):
            raise TypeError(f"input must be a tensor of {known}, got {type(tokens).__name__}: use torch.as_tensor")
        if tokens.dtype != torch.int64:
            raise TypeError(f"input must be {known}, torch.int64, got {tokens.dtype}: call input.to(torch.int64)")
        if tokens.dim() != 2 or 0 in tokens.shape:
            raise _check.ShapeError(f"input must be {known}, (time, batch), neither zero, got {tuple(tokens.shape)}")
        if tokens.device != self.weight.device:
            raise ValueError(
                f"input is on {tokens.device}, the parameters are on {self.weight.device}: move one of them with .to()"
            )
        # values can't be looked at while a graph of the model is being recorded
        if torch.compiler.is_compiling() or tokens.device.type == "meta":
            return
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.num_embeddings:
            step, sequence = (int(i) for i in ((tokens < 0) | (tokens >= self.num_embeddings)).nonzero()[0])
            raise ValueError(
                f"input must hold {known}, got {int(tokens[step, sequence])} at step {step} of sequence {sequence}: "
                "give what is not in the vocabulary the id of an unknown token, and padding the id 0"
            )
