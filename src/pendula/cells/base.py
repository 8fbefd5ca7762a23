"""A cell: one step of one network, and nothing else."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import attrgetter
from typing import Any, ClassVar, overload

import torch
from torch import Tensor, nn

from pendula._check import StabilityWarning, known_keys, per_unit, positive_int
from pendula.math.orthogonal import orthogonality_defect
from pendula.math.unitary import complex_of
from pendula.ops.fused import FusedScan

State = tuple[Tensor, ...]
"""A NamedTuple of tensors (B, units), one per quantity that the network carries through time."""


class Positive:
    """A positive constant of a cell, one number or one per unit: a buffer, or exp(parameter) when it is learned."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, cell: None, owner: type) -> Positive: ...
    @overload
    def __get__(self, cell: Cell, owner: type) -> Tensor: ...
    def __get__(self, cell: Cell | None, owner: type) -> Positive | Tensor:
        if cell is None:
            return self
        learned = cell._parameters.get(f"log_{self.name}")
        if learned is not None:
            return learned.exp()
        fixed = cell._buffers.get(self.name)
        if fixed is None:
            raise AttributeError(self.name)
        return fixed

    def store(self, cell: Cell, value: object, *, learned: bool, like: Tensor) -> Tensor:
        """Check the value, keep it in the type and on the device of `like`, give it back in float64."""
        values = per_unit(self.name, value, cell.hidden_size)
        if learned:
            cell.register_parameter(f"log_{self.name}", nn.Parameter(values.log().to(like)))
        else:
            cell.register_buffer(self.name, values.to(like))
        return values


class once_per_scan:
    """A tensor that a cell makes from its parameters, such as exp(A): made once per scan, not once per step.

    Outside a scan it is made anew each time it is read.
    """

    def __init__(self, make: Callable[[Any], Tensor]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, cell: None, owner: type) -> once_per_scan: ...
    @overload
    def __get__(self, cell: Cell, owner: type) -> Tensor: ...
    def __get__(self, cell: Cell | None, owner: type) -> once_per_scan | Tensor:
        if cell is None:
            return self
        kept = {} if cell._kept is None else cell._kept
        if self.name not in kept:
            # under autocast a product of the parameters would be narrow, and an orthogonal matrix no longer orthogonal
            with torch.autocast(next(cell.parameters()).device.type, enabled=False):
                kept[self.name] = self.make(cell)
        return kept[self.name]


class Cell(nn.Module, ABC):
    """One step of one network.

    A network is a subclass in a file of its own, with a NamedTuple `State`, `drive`, `step` and `output`. Arguments
    of the constructor after `bias` are its physics: keyword-only, with defaults.

    Shapes: input (T, B, I); drive (T, B, D); every tensor of a state (B, units); output (B, O).
    """

    State: ClassVar[type[Any]]
    equation: ClassVar[str]
    source: ClassVar[str]
    has_time_step: ClassVar[bool] = True
    fused: ClassVar[FusedScan | None] = None
    # whether a layer's dropout acts behind its last cell too, unless the user says otherwise
    dropout_last: ClassVar[bool] = False
    # whether the cell drops out within itself, by its `dropout`, which a layer sets and then drops nothing behind it
    drops_inside: ClassVar[bool] = False
    dropout: float = 0.0
    # whether units see only themselves: step and output are elementwise, the drive is V x + b
    diagonal: ClassVar[bool] = False

    # whether there is anything to keep during a scan, or to watch
    _keeps: ClassVar[bool]
    _kept: dict[str, Tensor] | None
    _strayed: bool = False

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self._kept = None
        self.input_size = positive_int("input_size", input_size)
        self.hidden_size = positive_int("hidden_size", hidden_size)

    @property
    def output_size(self) -> int:
        return self.hidden_size

    @property
    def like(self) -> Tensor:
        """A parameter, for its type and its device."""
        for parameter in self._parameters.values():
            if parameter is not None:
                return parameter
        return next(self.parameters())

    @classmethod
    def physics(cls) -> dict[str, Any]:
        """The keyword-only arguments of the constructor and their defaults."""
        skipped = ("device", "dtype")
        arguments = inspect.signature(cls).parameters.values()
        return {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY and a.name not in skipped}

    @classmethod
    def check_physics(cls, given: dict[str, Any]) -> None:
        known_keys(cls.__name__.removesuffix("Cell"), given, list(cls.physics()))

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """The state before the first step: zeros unless the network says otherwise."""
        like = self.like
        state: tuple[Tensor, ...] = self.State(*(like.new_zeros(batch, self.hidden_size) for _ in self.State._fields))
        return state

    @abstractmethod
    def drive(self, x: Tensor) -> Tensor:
        """What depends on the input only, for all times at once: (T, B, I) -> (T, B, D)."""

    @abstractmethod
    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> tuple[Tensor, ...]:
        """One step. `drive` is (B, D); `tau` (B, 1) scales the time step."""

    def output(self, state: tuple[Tensor, ...], drive: Tensor) -> Tensor:
        """What the layer shows after a step: (B, O), the first tensor of the state unless the network says otherwise.

        `drive` is that of the step, for networks whose output also depends on the input directly.
        """
        return state[0]

    def order(self) -> tuple[int, int] | None:
        """(n, t): nested nonlinearities per step and range of memory, by section 2.5 of the spec sheet ``odernn.md``.

        None where nobody has worked it out.
        """
        return None

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        members = (member for parent in cls.__mro__ for member in vars(parent).values())
        cls._keeps = cls.manifold is not Cell.manifold or any(isinstance(m, once_per_scan) for m in members)

    def keeping(self) -> AbstractContextManager[None]:
        """Within, what is marked `once_per_scan` is made once. The parameters must not change meanwhile."""
        return self._keep() if self._keeps else nullcontext()

    @contextmanager
    def _keep(self) -> Iterator[None]:
        if self._kept is not None:
            yield
            return
        self._kept = {}
        self._watch_manifold()
        try:
            yield
        finally:
            self._kept = None

    def operands(self) -> tuple[Any, ...]:
        """What the fused scan needs besides input and state: tensors, and plain values such as a variant's name."""
        return ()

    def response(self, lags: int) -> Tensor | None:
        """What an impulse at a unit's force does to its output k = 0, ..., lags - 1 steps later, relative to k = 0.

        (lags, N), where the units' influence on one another is left out and steps are equal; None where nobody has
        worked it out, or where it depends on the state.
        """
        return None

    def manifold(self) -> dict[str, str]:
        """Parameters that `pendula.make_optimiser` keeps on their manifold: name -> "orthogonal" or "unitary".

        An orthogonal one is (N, K) with K <= N; a unitary one is real, (N, 2K) as [Re | Im]. Dots lead into modules.
        """
        return {}

    def _watch_manifold(self) -> None:
        """Say once, in training, that a parameter has left its manifold: some other optimiser has moved it."""
        if self._strayed or not self.training or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        for name, kind in self.manifold().items():
            stored: Tensor = attrgetter(name)(self).detach()
            # far above what products in half of float32's digits (TF32) can look like
            allowed = max(1e-2, 4 * torch.finfo(stored.dtype).eps)
            M = stored.to(torch.promote_types(stored.dtype, torch.float32))
            with torch.autocast(M.device.type, enabled=False):
                defect = float(orthogonality_defect(complex_of(M) if kind == "unitary" else M))
            if defect > allowed:
                self._strayed = True
                warnings.warn(
                    f"{type(self).__name__}: {name} is no longer {kind} (defect {defect:.2g}): train with "
                    "pendula.make_optimiser(model, ...), which keeps it so; other optimisers move it off",
                    StabilityWarning,
                    stacklevel=2,
                )
                return

    def rates(self) -> dict[str, float]:
        """Factors of the learning rate of single parameters, for `pendula.make_optimiser`: name -> factor."""
        return {}

    def penalty(self) -> Tensor | None:
        """What training adds to the loss of the task, for the network's own weights; None: nothing."""
        return None

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


def uniform_(tensor: Tensor, fan_in: int) -> None:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)) in place: the default of ``torch.nn.Linear``."""
    with torch.no_grad():
        tensor.uniform_(-(fan_in**-0.5), fan_in**-0.5)
