"""The feedback weights that a training has drawn: buffers of the rule, saved where a run is resumed from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, linear

from pendula.learn.dfa.feedback import FeedbackSpec


class Feedback:
    """Maps from errors to the shapes of layers, each drawn when it is first used, from its name and the seed alone.

    `weights` holds them by name; a test, or a run that is resumed, may put its own there.
    """

    def __init__(self, spec: FeedbackSpec, groups: int = 1) -> None:
        self.spec, self.groups = spec, groups
        self.weights: dict[str, Tensor] = {}

    def matrix(self, name: str, rows: int, columns: int, like: Tensor) -> Tensor:
        if name not in self.weights:
            self.weights[name] = self.spec.matrix(name, rows, columns).to(like)
        return self.placed(name, like, (rows, columns))

    def placed(self, name: str, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        held = self.weights[name]
        if tuple(held.shape) != shape:
            raise ValueError(f"the feedback {name} is {tuple(held.shape)}, and the model needs {shape}")
        if held.device != like.device or held.dtype != like.dtype:
            self.weights[name] = held.to(like)
        return self.weights[name]

    def carry(self, name: str, error: Tensor, like: Tensor, distance: int = 1) -> Tensor:
        """An error in the shape of a layer's output `like`.

        Features (..., m) become (..., n); features become images through a dense matrix; images become images by a
        3 x 3 convolution with `distance` as dilation, at the resolution of the error: where the layer's is a
        multiple of it, each error is shared out evenly, as average pooling does backwards.

        Errors: ValueError where the resolutions don't fit.
        """
        if error.dim() == 4:
            if like.dim() != 4:
                raise ValueError(f"the feedback {name} would carry an error from an image to features: cut the module")
            return self._images(name, error, like, distance)
        if like.dim() == 4:
            flat = linear(error, self.matrix(name, like[0].numel(), error.shape[-1], like))
            return flat.view(like.shape)
        return linear(error, self.matrix(name, like.shape[-1], error.shape[-1], like))

    def _images(self, name: str, error: Tensor, like: Tensor, distance: int) -> Tensor:
        if name not in self.weights:
            drawn = self.spec.kernel(name, like.shape[1], error.shape[1], self.groups)
            self.weights[name] = drawn.to(like)
        shape = (like.shape[1], error.shape[1] // self.groups, 3, 3)
        kernel = self.placed(name, like, shape)
        carried = conv2d(error, kernel, padding=distance, dilation=distance, groups=self.groups)
        ratio = like.shape[2] // max(carried.shape[2], 1), like.shape[3] // max(carried.shape[3], 1)
        if ratio == (1, 1) and carried.shape == like.shape:
            return carried
        if (carried.shape[2] * ratio[0], carried.shape[3] * ratio[1]) != tuple(like.shape[2:]):
            raise ValueError(
                f"the feedback {name} can't carry an error of {tuple(error.shape[2:])} pixels to a layer of "
                f"{tuple(like.shape[2:])}: cut the modules where the resolution changes (plan stages)"
            )
        shared: Tensor = interpolate(carried, scale_factor=ratio, mode="nearest") / (ratio[0] * ratio[1])
        return shared

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.weights)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.weights = {name: torch.as_tensor(value) for name, value in tensors.items()}
