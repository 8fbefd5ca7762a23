"""What is timed in PyTorch: this library, and everything it is compared with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pendula.bench.cases import COMPILED, EAGER, GRU, LSTM, TORCHRECURRENT, Case
from pendula.cells.base import Cell, State
from pendula.nets.layers import LAYERS
from pendula.nets.recurrent import Recurrent

OURS = "pendula"
CHUNK = 16
"""Steps that torch.compile is given at once: it unrolls them."""


class Absent(Exception):
    """A contestant that can't take part; the message says why."""


@dataclass(frozen=True)
class Contestant:
    """A name, calls that are timed, and numbers that are compared.

    `forward` runs the inference, `training` the forward and backward pass. `numbers` gives the outputs and the gradient
    of every parameter under the name that the layer has for it; None for another network, which has other numbers.
    `about` is what else there is to know once `numbers` has run.
    """

    name: str
    forward: Callable[[], Any]
    training: Callable[[], Any] | None = None
    numbers: Callable[[], dict[str, Tensor]] | None = None
    threads: int | None = None
    about: dict[str, Any] = field(default_factory=dict)


def place(case: Case) -> torch.device:
    """Where the numbers of a case are."""
    return torch.device(case.device)


@dataclass(frozen=True)
class Problem:
    """The numbers that all contestants of a case are given: weights, input (T, B, I), gradient of the outputs."""

    case: Case
    weights: dict[str, Tensor]
    x: Tensor
    by_outputs: Tensor

    @classmethod
    def draw(cls, case: Case, dtype: torch.dtype = torch.float32) -> Problem:
        """The same for the same case, whatever was drawn before, and on whatever device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            weights = build(case, dtype=dtype).state_dict()
            x = torch.randn(case.steps, case.batch, case.inputs, dtype=dtype)
            by_outputs = torch.randn(case.steps, case.batch, case.units, dtype=dtype)
        there = place(case)
        return cls(case, {name: w.to(there) for name, w in weights.items()}, x.to(there), by_outputs.to(there))

    def exactly(self, dtype: torch.dtype) -> Problem:
        """The same numbers in this type, and no product in less."""
        weights = {name: w.to(dtype) for name, w in self.weights.items()}
        return Problem(replace(self.case, autocast=None), weights, self.x.to(dtype), self.by_outputs.to(dtype))

    def layer(self, backend: str, **physics: Any) -> Recurrent:
        made = build(self.case, dtype=self.x.dtype, device=self.x.device, backend=backend, **physics)
        made.load_state_dict(self.weights)
        return made

    def narrowed(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """The call with products in the type that the case says."""
        if self.case.autocast is None:
            return call
        within = torch.autocast(self.x.device.type, dtype=getattr(torch, self.case.autocast))
        # the types that torch ships say nothing of what is decorated
        wrapped: Callable[[], Any] = within(call)
        return wrapped


def build(case: Case, **given: Any) -> Recurrent:
    """The layer of a case."""
    return LAYERS[case.network](case.inputs, case.units, num_layers=case.layers, **{**case.physics, **given})


def ours(problem: Problem, *, name: str = OURS, threads: int | None = None, **physics: Any) -> Contestant:
    """This library's compiled scan. Errors: `BackendError` where there is none."""
    return of_module(name, problem.layer("fused", **physics), problem, same=True, threads=threads)


def lean_name(case: Case) -> str:
    return ", ".join([OURS, *(f"{name}={value}" for name, value in case.lean.items())])


def lean_physics(case: Case) -> dict[str, Any]:
    """The case's physics that keep less; none where the network has no such arguments in this version."""
    known = LAYERS[case.network].cell_type.physics()
    return dict(case.lean) if all(name in known for name in case.lean) else {}


def tape(case: Case) -> dict[str, str]:
    """Physics that leave the backward pass to PyTorch's own autograd."""
    return {"memory": "tape"} if "memory" in LAYERS[case.network].cell_type.physics() else {}


def eager(problem: Problem) -> Contestant:
    """The same cell stepped in a Python loop, with PyTorch's own autograd."""
    return of_module(EAGER, problem.layer("reference", **tape(problem.case)), problem, same=True)


def lstm(problem: Problem) -> Contestant:
    """PyTorch's LSTM of the same width and depth."""
    case = problem.case
    return of_module(LSTM, nn.LSTM(case.inputs, case.units, num_layers=case.layers), problem)


def gru(problem: Problem) -> Contestant:
    """PyTorch's GRU of the same width and depth."""
    case = problem.case
    return of_module(GRU, nn.GRU(case.inputs, case.units, num_layers=case.layers), problem)


def torchrecurrent(problem: Problem) -> Contestant:
    """The layer of the torchrecurrent package, with the same weights.

    Errors: `Absent` where it is not installed, or can't be set to the case.
    """
    case = problem.case
    try:
        package = importlib.import_module("torchrecurrent")
    except ImportError as error:
        raise Absent("torchrecurrent is not installed: pip install 'pendula[bench]'") from error
    names = {"weight_ih": "V", "bias_ih": "b"}
    if case.network == "CoRNN":
        kind, names = package.coRNN, {**names, "weight_hh": "W", "weight_ch": "W_z"}
        switches = {"recurrent_bias": False, "cell_bias": False}
    else:
        kind, names = package.UnICORNN, {**names, "weight_hh": "w", "weight_ch": "c"}
        switches = {"recurrent_bias": False}
    physics = {**LAYERS[case.network].cell_type.physics(), **case.physics}
    constants = {name: physics[name] for name in ("dt", "gamma", "epsilon", "alpha") if name in physics}
    first, *_ = constants.values()
    if isinstance(first, list) and len(set(first)) > 1:
        # its layers share one time step; each is given its own afterwards
        constants["dt"] = first[0]
    module = kind(case.inputs, case.units, num_layers=case.layers, **switches, **constants)
    with torch.no_grad():
        for layer, cell in enumerate(module.cells):
            if isinstance(first, list):
                cell.dt = first[layer]
            for theirs, name in names.items():
                getattr(cell, theirs).copy_(problem.weights[f"cells.{layer}.{name}"].view_as(getattr(cell, theirs)))

    def rename(parameter: str) -> str:
        place, _, last = parameter.rpartition(".")
        return f"{place}.{names[last]}"

    return of_module(TORCHRECURRENT, module, problem, same=True, rename=rename)


def compiled(problem: Problem) -> Contestant:
    """The eager loop under torch.compile, in chunks of 16 steps; what is left over runs step by step.

    Its numbers raise `Absent` where it can't be compiled.
    """
    made = of_module(COMPILED, Chunked(problem.layer("reference", **tape(problem.case))), problem, same=True)

    def numbers() -> dict[str, Tensor]:
        assert made.numbers is not None
        try:
            return made.numbers()
        except RuntimeError as error:
            # what PyTorch's compilers raise are kinds of it
            raise Absent(f"torch.compile failed: {' '.join(str(error).split())[:200]}") from error

    return replace(made, numbers=numbers)


class Chunked(nn.Module):
    """The cells of a layer, 16 compiled steps at a time."""

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        self.cells = layer.cells
        self.compiled = torch.compile(_steps, dynamic=False)

    def forward(self, x: Tensor) -> tuple[Tensor, State]:
        for cell in self.cells:
            assert isinstance(cell, Cell)
            with cell.keeping():
                state = cell.initial_state(x.shape[1])
                parts = []
                for drive in torch.split(cell.drive(x), CHUNK):
                    outputs, state = (self.compiled if len(drive) == CHUNK else _steps)(cell, state, drive)
                    parts.append(outputs)
            x = torch.cat(parts)
        return x, state


def _steps(cell: Cell, state: State, drive: Tensor) -> tuple[Tensor, State]:
    outputs = []
    for d in drive.unbind(0):
        state = cell.step(state, d)
        outputs.append(state[0])
    return torch.stack(outputs), state


def of_module(
    name: str,
    module: nn.Module,
    problem: Problem,
    *,
    same: bool = False,
    rename: Callable[[str], str] = str,
    threads: int | None = None,
) -> Contestant:
    """A contestant from a module that gives outputs and a state; `same` says that its equations are the case's."""
    named = dict(module.to(problem.x.device).named_parameters())
    run = problem.narrowed(lambda: module(problem.x)[0])

    def forward() -> Tensor:
        with torch.inference_mode():
            outputs: Tensor = run()
            return outputs

    def training() -> tuple[Tensor, ...]:
        outputs = run()
        return torch.autograd.grad(outputs, list(named.values()), problem.by_outputs.to(outputs.dtype))

    def numbers() -> dict[str, Tensor]:
        gradients = dict(zip(map(rename, named), training(), strict=True))
        return {"the outputs": forward(), **{f"the gradient of {key}": gradients[key] for key in sorted(gradients)}}

    return Contestant(name, forward, training, numbers if same else None, threads)


def everything(problem: Problem, backend: str, physics: Mapping[str, Any]) -> dict[str, Tensor]:
    """Outputs, final states and every gradient (input and initial states too), a random gradient on every output."""
    case = problem.case
    layer = problem.layer(backend, **physics)
    generator = torch.Generator().manual_seed(1)

    def drawn(like: Tensor) -> Tensor:
        # the same numbers in every type and on every device
        return torch.randn(like.shape, generator=generator).to(like)

    x = problem.x.clone().requires_grad_()
    state = [(0.3 * drawn(zero)).requires_grad_() for zero in layer.start(case.batch)]
    named = {"the input": x, **{f"initial state {i}": s for i, s in enumerate(state)}, **dict(layer.named_parameters())}
    outputs, final = problem.narrowed(lambda: layer(x, layer.cell_type.State(*state)))()
    by_results = problem.by_outputs.to(outputs.dtype), *map(drawn, final)
    found = torch.autograd.grad((outputs, *final), list(named.values()), by_results)
    return {
        "the outputs": outputs.detach(),
        **{f"final state {i}": s.detach() for i, s in enumerate(final)},
        **{f"the gradient of {key}": g for key, g in zip(named, found, strict=True)},
    }
