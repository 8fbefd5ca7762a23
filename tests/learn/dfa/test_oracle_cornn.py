"""Oracle 5 of the spec sheet dfa.md: coRNN by the kernel of its oscillators and by traces (rules O1 and O2)."""

from __future__ import annotations

import pytest
import torch
from tests.learn.dfa.recurrent import (
    CORNN,
    CORNN_B,
    CORNN_V,
    CORNN_WEIGHTS,
    PHYSICS,
    along_time,
    by_loop,
    cornn,
    cornn_batch,
)
from tests.learn.dfa.sheet import Gradients, backpropagated, degrees, gradients, learned, numbers, same
from tests.tolerance import decimals
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CoRNNCell, FastRNNCell
from pendula.math.oscillator import transition

DT, GAMMA, EPSILON = PHYSICS.values()


def by(time: str, feedback: Tensor, pool: str) -> Gradients:
    """Gradients by the sheet's names."""
    model, batch = cornn(pool), cornn_batch(pool)
    found = backpropagated(model, batch) if time == "bp" else gradients(along_time(time, feedback), model, batch)
    return {short: found[long] for short, long in CORNN.items()}


def by_trace(feedback: Tensor, pool: str) -> Gradients:
    """Rule O2: a trace per pair of a unit and what it sees, forwards in time."""
    model, batch = cornn(pool), cornn_batch(pool)
    y = z = torch.zeros(3, dtype=torch.float64)
    ty = tz = total = torch.zeros(3, 9, dtype=torch.float64)
    W, Z, U, b = CORNN_WEIGHTS.values()
    for t, x in enumerate(batch.x[:, 0]):
        force = torch.tanh(W @ y + Z @ z + U @ x + b)
        seen = torch.cat((y, z, x, torch.ones(1, dtype=torch.float64)))
        z = z + DT * (force - GAMMA * y - EPSILON * z)
        y = y + DT * z
        tz = (1 - DT * EPSILON) * tz - DT * GAMMA * ty + DT * (1 - force**2).unsqueeze(1) * seen
        ty = ty + DT * tz
        if pool == "steps" or t == 5:
            target = batch.y[t, 0] if pool == "steps" else batch.y[0]
            total = total + (feedback @ (model.readout.weight.detach() @ y - target)).unsqueeze(1) * ty
    return dict(zip(CORNN, (total[:, :3], total[:, 3:6], total[:, 6:8], total[:, 8]), strict=True))


@pytest.mark.parametrize(("pool", "loss"), [("steps", 0.7212388518965662), ("last", 0.08356229901545338)])
def test_forward_pass_and_loss(pool: str, loss: float) -> None:
    model, batch = cornn(pool), cornn_batch(pool)
    output, state = model(batch.x)
    assert_close(state["layer0"].y.flatten(), numbers(-0.0336981976, -0.0578213807, -0.1813258138), **decimals(10))
    assert_close(state["layer0"].z.flatten(), numbers(-0.0345421574, -0.1790142551, 0.0381696878), **decimals(10))
    e = output.view(-1, 2)[-1] - batch.y.view(-1, 2)[-1]
    assert_close(e, numbers(-0.0406881141, 0.4067789024), **decimals(10))
    assert_close(CORNN_B @ e, numbers(0.3559911191, -0.2017026062, 0.31880539), **decimals(10))
    assert_close(learned(along_time("kernel", CORNN_B), model, batch)[0], numbers(loss), rtol=1e-14, atol=0.0)


def test_impulse_response_of_the_sheet() -> None:
    cell = CoRNNCell(2, 3, dtype=torch.float64, **PHYSICS)
    g = DT**2 * cell.response(40)[:, 0]
    wanted = numbers(0.09, 0.14625, 0.16925625, 0.16389140625, 0.1376887852, 0.0991868071)
    assert_close(g[:6], wanted, **decimals(10))
    assert int((g < 0).nonzero()[0]) == 8
    assert int(g.argmin()) == 11
    assert float(g.min()) == pytest.approx(-0.0530190865, abs=5e-11)


def test_eigenvalues_of_one_unforced_step() -> None:
    dt, gamma, epsilon = (torch.tensor(v, dtype=torch.float64) for v in (DT, GAMMA, EPSILON))
    values = torch.linalg.eigvals(transition(dt, gamma, epsilon, "explicit")[0])
    assert_close(values.real, numbers(0.8125, 0.8125), **decimals(10))
    assert_close(values.imag.abs(), numbers(0.3159806165, 0.3159806165), **decimals(10))
    assert_close(values.abs(), numbers(0.76**0.5, 0.76**0.5), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("variant", ["explicit", "implicit"])
@pytest.mark.parametrize("lags", [1, 2, 5, 64])
def test_response_of_cornn_is_the_power_of_its_step(variant: str, lags: int) -> None:
    physics = {"dt": [0.1, 0.2, 0.05], "gamma": [0.5, 1.0, 2.0], "epsilon": [1.0, 2.0, 3.0]}
    physics = {name: torch.tensor(v, dtype=torch.float64) for name, v in physics.items()}
    cell = CoRNNCell(2, 3, variant=variant, dtype=torch.float64, **physics)
    power, force = transition(*physics.values(), variant)
    state, wanted = force, []
    for _ in range(lags):
        wanted.append(state[:, 0] / force[:, 0])
        state = (power @ state.unsqueeze(-1)).squeeze(-1)
    assert_close(cell.response(lags), torch.stack(wanted), rtol=1e-12, atol=1e-15)


def test_response_of_a_leaky_network_is_the_power_of_its_leak() -> None:
    cell = FastRNNCell(2, 3, beta=0.7, dtype=torch.float64)
    leak = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64))
    assert_close(cell.response(5), torch.stack([leak**k for k in range(5)]).unsqueeze(1).expand(5, 3))


def test_response_is_what_an_impulse_does_to_the_output() -> None:
    # by the cell's own step, from rest, with no influence of units on one another
    for cell in (CoRNNCell(3, 3, bias=False, dtype=torch.float64, **PHYSICS), FastRNNCell(3, 3, dtype=torch.float64)):
        with torch.no_grad():
            for parameter in cell.parameters():
                if parameter.dim() == 2:
                    parameter.zero_()
        drive = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        state, seen = cell.step(cell.initial_state(1), drive), []
        for _ in range(6):
            (by_drive,) = torch.autograd.grad(cell.output(state, drive).sum(), drive, retain_graph=True)
            seen.append(by_drive[0])
            state = cell.step(state, torch.zeros_like(drive))
        assert_close(torch.stack(seen) / seen[0], cell.response(6).detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("network", sorted(set(pendula.cells.CELLS) - {"CoRNN", "FastRNN"}))
def test_other_cells_say_that_nobody_has_worked_out_their_response(network: str) -> None:
    assert pendula.cells.CELLS[network](2, 3).response(5) is None


TRUE = [
    [-0.0059644336, 0.0043968889, -0.0125023035],
    [-0.0115773979, 0.0082162205, -0.0223314783],
    [0.009127442, -0.0068109059, 0.0181124927],
]
TRANSPOSED = [
    [-0.0074073374, 0.0054750055, -0.0142332526],
    [-0.0108667651, 0.0076996136, -0.0213858185],
    [0.0100952953, -0.0075698256, 0.019309132],
]
RANDOM = [
    [-0.0123502697, 0.0091284884, -0.0237311327],
    [0.0065417441, -0.0046351331, 0.0128741674],
    [-0.0122304516, 0.0091708447, -0.023393016],
]


@pytest.mark.parametrize(
    ("time", "feedback", "rows"),
    [("bp", CORNN_B, TRUE), ("kernel", CORNN_V.T, TRANSPOSED), ("kernel", CORNN_B, RANDOM)],
)
def test_gradient_of_the_recurrent_weights(time: str, feedback: Tensor, rows: list[list[float]]) -> None:
    assert_close(by(time, feedback, "last")["W"], numbers(rows), **decimals(10))


def test_other_gradients_by_the_kernel() -> None:
    found = by("kernel", CORNN_B, "last")
    rows = [[-0.0027819956, 0.0093190198], [-0.000374985, 0.0023621197], [-0.0025147037, 0.0255722076]]
    assert_close(found["U"], numbers(rows), **decimals(10))
    assert_close(found["b"], numbers(0.1978964494, -0.1075250449, 0.1997969935), **decimals(10))
    assert_close(found["Z"][0], numbers(1.6851176288e-04, -9.9618047061e-04, -2.4986637702e-02), **decimals(12))


@pytest.mark.parametrize("pool", ["last", "steps"])
def test_kernel_in_two_passes_is_the_trace(pool: str) -> None:
    for feedback in (CORNN_B, CORNN_V.T):
        same(by("kernel", feedback, pool), by_trace(feedback, pool), atol=1e-16)


@pytest.mark.parametrize("pool", ["last", "steps"])
def test_kernel_with_the_transposed_readout_is_autograd_with_only_the_force_detached(pool: str) -> None:
    model, batch = cornn(pool), cornn_batch(pool)
    cell = model.layers["layer0"].cells[0]

    def step(state: tuple[Tensor, ...], drive: Tensor) -> tuple[Tensor, ...]:
        y, z = state
        force = cell.force((y.detach(), z.detach()), drive)
        z = z + DT * (force - GAMMA * y - EPSILON * z)
        return y + DT * z, z

    same(gradients(along_time("kernel", CORNN_V.T), model, batch), by_loop(model, batch, step), atol=1e-15)


def test_broadcast_is_the_constant_kernel() -> None:
    found = by("broadcast", CORNN_B, "last")["W"]
    assert_close(found[0], numbers(-0.0073957845, 0.0052999719, -0.0160004871), **decimals(10))
    assert degrees(found, by("kernel", CORNN_B, "last")["W"]) == pytest.approx(3.536726, abs=5.1e-7)


@pytest.mark.parametrize(
    ("feedback", "angles"),
    [(CORNN_V.T, (4.2121, 7.0937, 6.0359, 5.0437)), (CORNN_B, (111.4897, 115.0043, 125.6231, 112.7272))],
)
def test_angles_with_a_target_at_every_step(feedback: Tensor, angles: tuple[float, ...]) -> None:
    found, true = by("kernel", feedback, "steps"), by("bp", feedback, "steps")
    for name, angle in zip(CORNN, angles, strict=True):
        assert degrees(found[name], true[name]) == pytest.approx(angle, abs=5.1e-5)
