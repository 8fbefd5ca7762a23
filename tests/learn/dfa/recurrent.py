"""The recurrent networks of oracles 3, 4 and 5 of the spec sheet dfa.md, and gradients of them by plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from tests.learn.dfa.sheet import F, Gradients, half_squared, model_of, with_feedback
from torch import Tensor

from pendula import Model, Node
from pendula.learn.dfa import DFA
from pendula.tasks.base import Batch

CELL = "layers.layer0.cells.0."
READOUT = "readout.weight"
# names of the sheet -> of the parameters
ELMAN = {"W": f"{CELL}W", "U": f"{CELL}V", "b": f"{CELL}b"}
FAST = {"W": f"{CELL}U", "U": f"{CELL}W", "b": f"{CELL}b"}
CORNN = {"W": f"{CELL}W", "Z": f"{CELL}W_z", "U": f"{CELL}V", "b": f"{CELL}b"}
WEIGHTS = {"W": F(21, (3, 3), 0.6), "U": F(22, (3, 2), 0.7), "b": F(23, (3,), 0.1)}
V, B, B_R = F(24, (2, 3), 0.9), F(27, (3, 2)), F(28, (3, 3), 0.6)
CORNN_WEIGHTS = {"W": F(31, (3, 3), 0.6), "Z": F(32, (3, 3), 0.5), "U": F(33, (3, 2), 0.9), "b": F(34, (3,), 0.1)}
CORNN_V, CORNN_B = F(35, (2, 3), 0.9), F(38, (3, 2))
PHYSICS = {"dt": 0.3, "gamma": 1.5, "epsilon": 0.8}


def elman(pool: str) -> Model:
    weights = {ELMAN[name]: value for name, value in WEIGHTS.items()}
    return model_of([Node("Elman", 3)], (2, 2), {**weights, READOUT: V}, pool)


def leaky(pool: str = "steps", kappa: float = 0.25) -> Model:
    """sigmoid(alpha) = kappa and sigmoid(beta) = 1 - kappa: the leaky network of the sheet."""
    logit = math.log(kappa / (1 - kappa))
    at = torch.tensor(logit, dtype=torch.float64)
    scalars = {f"{CELL}alpha": at, f"{CELL}beta": -at}
    weights = {FAST[name]: value for name, value in WEIGHTS.items()}
    return model_of([Node("FastRNN", 3)], (2, 2), {**weights, **scalars, READOUT: V}, pool)


def cornn(pool: str) -> Model:
    weights = {CORNN[name]: value for name, value in CORNN_WEIGHTS.items()}
    return model_of([Node("CoRNN", 3, physics=PHYSICS)], (2, 2), {**weights, READOUT: CORNN_V}, pool)


def sequence(x: Tensor, y: Tensor, pool: str) -> Batch:
    """One sequence, with a target at every step or at the last."""
    return Batch(x.unsqueeze(1), y.unsqueeze(1) if pool == "steps" else y[-1:])


def elman_batch(pool: str) -> Batch:
    return sequence(F(25, (4, 2)), F(26, (4, 2), 0.5), pool)


def cornn_batch(pool: str) -> Batch:
    return sequence(F(36, (6, 2)), F(37, (6, 2), 0.5), pool)


def along_time(time: str, feedback: Tensor, **words: object) -> DFA:
    """A time rule whose one layer hears of errors through `feedback`."""
    rule = DFA(boundary="dfa", source="output", time=time, **words)
    return with_feedback(rule, {"layer0": feedback})


def by_loop(
    model: Model,
    batch: Batch,
    step: Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, ...]],
) -> Gradients:
    """Autograd of the loss of a network of one layer, whose state goes from step to step by `step(state, drive)`."""
    model.zero_grad()
    cell = model.layers["layer0"].cells[0]
    drives = cell.drive(batch.x)
    state, outputs = cell.initial_state(batch.x.shape[1]), []
    for d in drives:
        state = step(state, d)
        outputs.append(cell.output(state, d))
    logits = model.readout(torch.stack(outputs) if model.spec.pool == "steps" else outputs[-1])
    half_squared(logits, batch).backward()
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    return found
