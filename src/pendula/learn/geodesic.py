"""Geodesic steps for orthogonal and unitary parameters, beside any optimiser for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pendula._check import finite_number, one_of
from pendula.cells import Cell
from pendula.math.orthogonal import geodesic_step, newton_schulz, orthogonality_defect
from pendula.math.unitary import complex_of, pairs_of

OPTIMISERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


class Geodesic(Optimizer):
    """Steepest descent along the manifold of orthogonal (unitary) matrices, and another optimiser for the rest.

        A = G M^T - M G^T,   M <- (I + lr/2 A)^{-1} (I - lr/2 A) M

    Vorontsov et al. 2017, arXiv 1702.00071, equation 9 in the form of spec sheet ``spectral.md`` 2.1; for unitary
    matrices Wisdom et al. 2016, arXiv 1611.00035. The step is taken in float64 (float32 on mps, which has no other)
    and ends with a Newton-Schulz step, which takes the rounding away: the defect does not grow with the steps.

    To the outside it is one optimiser: `param_groups` and `state` are those of `rest` and its own together, so that
    schedules, `state_dict` and `load_state_dict` see all of them.

    Args:
        params: parameters (N, K), K <= N, or groups of them. A group with ``unitary=True`` holds complex matrices
            as real ones (N, 2K), [Re | Im].
        lr: step size.
        rest: optimiser of the other parameters, if there are any; it steps first.
        rms: None; or the decay rate, in [0, 1), of a mean of squares that divides the gradient number by number
            ("natGradRMS", spec sheet ``baselines.md`` 1.4). Re and Im count as two numbers (a reading of the sheet).
            Such a step stays on the manifold, and need not be one of descent.
        eps: added to the root of that mean.

    Errors: ValueError for a parameter that is not orthogonal.

    >>> M = nn.Parameter(torch.eye(3))
    >>> optimiser = Geodesic([M], lr=0.1)
    >>> M[0, 1].backward()
    >>> optimiser.step()
    >>> bool(M[0, 1] < 0), bool(orthogonality_defect(M) < 1e-6)
    (True, True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        rest: Optimizer | None = None,
        rms: float | None = None,
        eps: float = 1e-8,
    ) -> None:
        for name, value, below in (("lr", lr, float("inf")), ("rms", rms or 0.0, 1.0), ("eps", eps, float("inf"))):
            if not 0 <= value < below:
                raise ValueError(f"{name} must be at least 0 and below {below:g}, got {value!r}")
        self.rest: Optimizer | None = None
        super().__init__(params, {"lr": lr, "geodesic": True, "unitary": False, "rms": rms, "eps": eps})
        if rest is not None:
            self.rest = rest
            self.param_groups = [*rest.param_groups, *self.param_groups]
            self.state = rest.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """A group for this optimiser, or, unless it has ``geodesic=True``, for the one of the rest, if there is one."""
        if self.rest is not None and not param_group.get("geodesic"):
            self.rest.add_param_group(param_group)
            self.param_groups.append(self.rest.param_groups[-1])
            return
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for parameter in group["params"]:
            defect = float(orthogonality_defect(_matrix(parameter.detach(), group)))
            if not defect < 1e-2:
                self.param_groups.pop()
                kind = "unitary, (N, 2K) as [Re | Im]" if group["unitary"] else "orthogonal"
                raise ValueError(
                    f"a parameter {tuple(parameter.shape)} must be {kind}, its defect is {defect:.2g}: start from "
                    "pendula.math.orthogonal.polar of it"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.rest is not None:
            self.rest.step()
        for group in self.param_groups:
            if group.get("geodesic"):
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if group["rms"] is not None:
            state = self.state[parameter]
            if "square" not in state:
                state["square"] = torch.zeros_like(parameter)
            square = state["square"]
            square.mul_(group["rms"]).addcmul_(gradient, gradient, value=1 - group["rms"])
            gradient = gradient / (square.sqrt() + group["eps"])
        M = geodesic_step(_matrix(parameter, group), _matrix(gradient, group), float(group["lr"]))
        M = newton_schulz(M)
        parameter.copy_(pairs_of(M) if group["unitary"] else M)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rest": self.rest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # load_state_dict puts new groups and a new state in place, and copies come through here too
        super().__setstate__(state)
        if self.rest is not None:
            others = [group for group in self.param_groups if not group.get("geodesic")]
            self.rest.__setstate__({"state": self.state, "param_groups": others})


def _matrix(stored: Tensor, group: dict[str, Any]) -> Tensor:
    wide = stored.to(torch.float32 if stored.device.type == "mps" else torch.float64)
    return complex_of(wide) if group["unitary"] else wide


def make_optimiser(
    model: nn.Module,
    optimiser: str = "adam",
    *,
    lr: float,
    bases_lr_scale: float = 0.1,
    rms: float | None = None,
    **options: Any,
) -> Optimizer:
    """An optimiser for a model that keeps its orthogonal and unitary parameters so (`Cell.manifold`).

    A model that has none gets PyTorch's optimiser itself. Each group whose learning rate is not `lr` carries the
    factor as ``lr_scale``, for schedules that set the rate anew.

    Args:
        model: any module; the cells in it say which parameters are orthogonal, and which learn at another rate.
        optimiser: adam, adamw, rmsprop or sgd, for the parameters that are free.
        lr: learning rate of the free parameters.
        bases_lr_scale: step size of the geodesic steps, as a share of lr.
        rms: see `Geodesic`.
        options: for PyTorch's optimiser. Weight decay acts on the free parameters only.

    >>> from pendula.cells import SpectralRNNCell
    >>> optimiser = make_optimiser(SpectralRNNCell(3, 8), "rmsprop", lr=0.01)
    >>> [(len(group["params"]), group["lr"]) for group in optimiser.param_groups]
    [(4, 0.01), (2, 0.001)]
    """
    make = OPTIMISERS[one_of("optimiser", optimiser, OPTIMISERS)]
    if finite_number("bases_lr_scale", bases_lr_scale) <= 0:
        raise ValueError(f"bases_lr_scale must be positive, got {bases_lr_scale}")
    kinds: dict[Tensor, str] = {}
    rates: dict[Tensor, float] = {}
    for cell in model.modules():
        if isinstance(cell, Cell):
            kinds |= {cell.get_parameter(name): kind for name, kind in cell.manifold().items()}
            rates |= {cell.get_parameter(name): rate for name, rate in cell.rates().items()}
    if not kinds and not rates:
        return make(model.parameters(), lr=lr, **options)
    free: dict[float, list[Tensor]] = {}
    bases: dict[tuple[bool, float], list[Tensor]] = {}
    for parameter in model.parameters():
        rate = rates.get(parameter, 1.0)
        if parameter in kinds:
            key = (kinds[parameter] == "unitary", bases_lr_scale * rate)
            bases.setdefault(key, []).append(parameter)
        else:
            free.setdefault(rate, []).append(parameter)
    groups = [{"params": some, "lr": lr * rate, "lr_scale": rate} for rate, some in free.items()]
    rest = make(groups, lr=lr, **options) if groups else None
    if not bases:
        assert rest is not None
        return rest
    curved = [{"params": m, "lr": lr * rate, "lr_scale": rate, "unitary": u} for (u, rate), m in bases.items()]
    return Geodesic(curved, lr * bases_lr_scale, rest=rest, rms=rms)
