"""Operators called without PyTorch's dispatcher, where nobody but autograd listens.

Through the dispatcher a call takes some 10 us more, and with gradients 200: as long as a small network itself takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

PLAIN = (Tensor, nn.Parameter)


def transformed() -> bool:
    """Whether a function transform of `torch.func` is at work, or forward-mode differentiation."""
    at_work = torch._C._functorch.peek_interpreter_stack() is not None
    return at_work or forward_ad._current_level >= 0


def listened() -> bool:
    """Whether somebody follows the operators: a tracer, a mode such as that of fake tensors, a function transform."""
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return traced or torch._C._len_torch_dispatch_stack() > 0 or transformed()


def followed(*tensors: Tensor | None) -> bool:
    """Whether autograd may ask for the gradient of one of them."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


class Direct:
    """An operator, which is called as a plain function where that gives the same.

    Args:
        operator: of `torch.library.custom_op`.
        function: what it computes on the processor.
        backward, setup: what its `register_autograd` was given; None where it has no gradients.
    """

    def __init__(
        self,
        operator: Callable[..., Any],
        function: Callable[..., Any],
        backward: Callable[..., Any] | None = None,
        setup: Callable[..., None] | None = None,
    ) -> None:
        self.operator, self.function = operator, function
        self.differentiable = None if backward is None or setup is None else _differentiable(function, backward, setup)

    def __call__(self, *given: Any) -> Any:
        tensors = [a for a in given if isinstance(a, Tensor)]
        if listened() or not all(type(a) in PLAIN and a.is_cpu for a in tensors):
            return self.operator(*given)
        if not torch.is_grad_enabled() or not any(a.requires_grad for a in tensors):
            return self.function(*given)
        return self.operator(*given) if self.differentiable is None else self.differentiable(*given)


def _differentiable(
    function: Callable[..., Any], backward: Callable[..., Any], setup: Callable[..., None]
) -> Callable[..., Any]:
    def forward(ctx: Any, *given: Any) -> Any:
        found = function(*given)
        setup(ctx, given, found)
        return found

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    made: Any = type(function.__name__, (torch.autograd.Function,), members)
    apply: Callable[..., Any] = made.apply
    return apply
