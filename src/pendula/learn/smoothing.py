"""Label smoothing: a share of each target is spread over all classes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from pendula.tasks.base import Batch, Task


def smoothed(task: Task, share: float) -> Callable[[Tensor, Batch], Tensor]:
    """The loss of a task whose targets give `share` of their weight to all classes alike (Szegedy et al. 2016).

        (1 - share) loss(target) + share mean_k loss(k)

    Cross-entropy is linear in the target, so this is the cross-entropy of the smoothed targets.

    Args:
        task: one class per sequence, "classes" or "binary".
        share: in [0, 1).
    """

    def loss(output: Tensor, batch: Batch) -> Tensor:
        plain = task.loss(output, batch)
        if task.target == "binary":
            everywhere = (functional.softplus(output) - output / 2).mean()
        else:
            everywhere = -functional.log_softmax(output, -1).mean()
        return (1 - share) * plain + share * everywhere

    return loss
