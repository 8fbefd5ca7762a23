"""Time rules in every network: one batched step of the cell, from states that carry no gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.learn.dfa.recurrent import along_time, by_loop
from tests.learn.dfa.sheet import backpropagated, gradients, same
from torch import Tensor

from pendula import Model, ModelSpec, Node
from pendula.cells import CELLS
from pendula.learn.dfa import DFA
from pendula.learn.dfa.time import STRETCH
from pendula.tasks.base import Batch

# beside the defaults, physics that change how a step is made
VARIANTS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in sorted(CELLS)] + [
    ("ODERNN", {"input": "linear"}),
    ("CoRNN", {"variant": "implicit", "learnable": ["dt", "gamma", "epsilon"]}),
    ("LinOSS", {"discretisation": "im", "oscillators": 3}),
    ("FastRNN", {"rank_w": 1, "rank_u": 2, "nonlinearity": "relu"}),
    ("LSTM", {"chrono": 5.0}),
    ("LMU", {"memory": 3, "theta": 4.0}),
]
EACH = pytest.mark.parametrize(("network", "physics"), VARIANTS, ids=[f"{n}-{'-'.join(p)}" for n, p in VARIANTS])
STEPS, SIZE = 7, 3


def make(name: str, physics: dict[str, Any], pool: str) -> Model:
    model = Model(ModelSpec(2, 3, (Node(name, 4, physics=physics),), pool=pool), dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            # away from the start, at which some networks have zeros that hide a term; orthogonal ones stay nearly so
            parameter += 1e-3 * torch.randn_like(parameter)
    return model


def batch_of(pool: str, steps: int = STEPS) -> Batch:
    x = torch.randn(steps, SIZE, 2, dtype=torch.float64)
    y = torch.randn(*([steps] if pool == "steps" else []), SIZE, 3, dtype=torch.float64)
    return Batch(x, y)


def transposed(model: Model) -> Tensor:
    return model.readout.weight.detach().T


def detached_past(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Autograd of the network whose every step starts from a state that carries no gradient."""
    cell = model.layers["layer0"].cells[0]
    return by_loop(model, batch, lambda state, d: cell.step(type(state)(*(s.detach() for s in state)), d))


@EACH
@pytest.mark.parametrize("pool", ["steps", "last"])
def test_local_rule_is_autograd_without_the_past(network: str, physics: dict[str, Any], pool: str) -> None:
    model, batch = make(network, physics, pool), batch_of(pool)
    found = gradients(along_time("local", transposed(model)), model, batch)
    same(found, detached_past(model, batch), rtol=1e-10, atol=1e-13)


@EACH
def test_window_as_long_as_the_sequence_is_backpropagation(network: str, physics: dict[str, Any]) -> None:
    for pool in ("steps", "last", "mean"):
        model, batch = make(network, physics, pool), batch_of(pool)
        found = gradients(along_time("windows", transposed(model), window=STEPS), model, batch)
        true = backpropagated(model, batch)
        for name in [n for n in true if n.endswith("h_0")]:
            # a trained initial state lies before the first window, and has no error
            assert not found.pop(name).any()
            del true[name]
        same(found, true, rtol=1e-10, atol=1e-13)


@EACH
@pytest.mark.parametrize("time", ["bptt", "broadcast", "discounted", "fa"])
def test_every_cell_learns_by(network: str, physics: dict[str, Any], time: str) -> None:
    model, batch = make(network, physics, "last"), batch_of("last")
    found = gradients(DFA(time=time), model, batch)
    assert all(torch.isfinite(g).all() for g in found.values())
    still = {name for name, g in found.items() if not g.any()}
    assert still <= {name for name, g in backpropagated(model, batch).items() if not g.any()} | {
        name for name in found if name.endswith("h_0")
    }


@pytest.mark.parametrize("time", ["local", "broadcast", "kernel"])
@pytest.mark.parametrize("pool", ["steps", "last", "mean"])
def test_stretches_do_not_show(time: str, pool: str) -> None:
    # longer than two stretches; against one step of the cell for all times at once
    steps = 2 * STRETCH + 3
    model, batch = make("CoRNN", {"dt": 0.1}, pool), batch_of(pool, steps)
    cell, B = model.layers["layer0"].cells[0], torch.randn(4, 3, dtype=torch.float64)
    found = gradients(along_time(time, B), model, batch)
    outputs, logits = model.layers["layer0"](batch.x)[0], model(batch.x)[0]
    error = (logits - batch.y).detach()
    if pool != "steps":
        share = torch.zeros(steps, 1, 1, dtype=torch.float64)
        share[-1 if pool == "last" else slice(None)] = 1 if pool == "last" else 1 / steps
        error = share * error
    response = {"local": [1.0] + [0.0] * (steps - 1), "broadcast": [1.0] * steps}.get(time, cell.response(steps)[:, 0])
    response = torch.as_tensor(response, dtype=torch.float64)
    heard = torch.stack([(response[: steps - t].view(-1, 1, 1) * error[t:]).sum(0) for t in range(steps)]) @ B.T
    state, total = cell.initial_state(SIZE), 0.0
    for d, wanted in zip(cell.drive(batch.x), heard, strict=True):
        state = cell.step(type(state)(*(s.detach() for s in state)), d)
        total = total + (cell.output(state, d) * wanted).sum()
    assert outputs.shape[0] == steps
    model.zero_grad()
    total.backward()
    wanted = {name: p.grad for name, p in cell.named_parameters()}
    got = {name: found[f"layers.layer0.cells.0.{name}"] for name in wanted}
    same(got, wanted, rtol=1e-10, atol=1e-12)
