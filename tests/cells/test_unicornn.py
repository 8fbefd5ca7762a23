"""UnICORNN: the oracles U1 to U15 of the spec sheet unicornn.md (section 6), refusals and warnings."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula import (
    BackendError,
    Model,
    ModelSpec,
    Node,
    ShapeError,
    StabilityWarning,
    UnICORNN,
    model_from_authors,
    scan,
)
from pendula.cells import UnICORNNCell
from pendula.cells.unicornn import UnICORNNState
from tests.contracts.layer import LayerContract

U3 = {"rtol": 1e-11, "atol": 0.0}
"""Sheet: use rtol 1e-11 (a long-double run differs by 9e-15 absolute)."""
PRINTED = {"rtol": 1e-12, "atol": 1e-17}


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def made(inputs: int, units: int, *, dt: Any, alpha: Any, **weights: Any) -> UnICORNNCell:
    """A cell with the weights given; zero where none is given."""
    cell = UnICORNNCell(inputs, units, dt=dt, alpha=alpha, dtype=torch.float64)
    with torch.no_grad():
        for name in ("V", "b", "w", "c"):
            getattr(cell, name).copy_(double(weights.get(name, 0.0)))
    return cell


def small() -> tuple[UnICORNNCell, Tensor]:
    """U1: two neurons, one feature, three steps, one sequence."""
    cell = made(1, 2, dt=0.2, alpha=1.5, V=[[1.0], [-0.5]], b=[0.1, -0.2], w=[0.6, -0.4], c=[0.05, -0.1])
    return cell, double([1.0, -0.5, 0.25]).reshape(3, 1, 1)


def large() -> tuple[UnICORNNCell, Tensor]:
    """U3: formulas with indices from 0, inputs from n = 1."""
    i, k = torch.arange(4).double(), torch.arange(2).double()
    cell = made(
        2,
        4,
        dt=0.3,
        alpha=2.0,
        V=torch.sin(7 * i.unsqueeze(1) + k + 0.5),
        b=torch.cos(i),
        w=0.5 + 0.4 * torch.sin(i + 1),
        c=0.1 * torch.cos(2 * i + 1),
    )
    n = torch.arange(1, 501).double().reshape(-1, 1, 1)
    beta = torch.arange(2).double().reshape(1, -1, 1)
    return cell, torch.sin(0.3 * n + beta + 2 * k)


def q(state: tuple[Tensor, ...], h: Tensor | float, alpha: Tensor | float) -> Tensor:
    """The invariant of the unforced step: z^2 + alpha y^2 - alpha h y z (sheet 4.3)."""
    y, z = state
    return z**2 + alpha * y**2 - alpha * h * y * z


def run(cell: UnICORNNCell, x: Tensor, state: Any = None) -> list[UnICORNNState]:
    state = cell.initial_state(x.shape[1]) if state is None else state
    states = []
    for drive in cell.drive(x):
        state = cell.step(state, drive)
        states.append(state)
    return states


def test_u1_forward() -> None:
    cell, x = small()
    states = run(cell, x)
    assert_close(cell.h, double([1.024994792968421e-01, 9.500416250421201e-02]), **PRINTED)
    y = [[-8.410157399004104e-03, 5.454897178803334e-03], [-1.265070459745958e-02, 1.040467523211831e-02]]
    y.append([-2.015499369099080e-02, 1.808169046860850e-02])
    z = [[-8.205073290809599e-02, 5.741745450954838e-02], [-4.137140234805194e-02, 5.210064404383893e-02]]
    z.append([-7.321294844628951e-02, 8.080714606741388e-02])
    assert_close(torch.cat([s.y for s in states]), double(y), **PRINTED)
    assert_close(torch.cat([s.z for s in states]), double(z), **PRINTED)


def test_u2_gradients() -> None:
    cell, x = small()
    x.requires_grad_()
    drive = cell.drive(x)
    drive.retain_grad()
    start = UnICORNNState(*(torch.zeros(1, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)))
    cell.dt.requires_grad_()
    cell.alpha.requires_grad_()
    state, loss = start, torch.zeros(())
    for d in drive:
        state = cell.step(state, d)
        loss = loss + 0.5 * (state.y**2).sum()
    loss.backward()
    assert_close(loss.detach(), double(5.509777725459137e-04), **PRINTED)
    expected: dict[str, tuple[Tensor, list[float]]] = {
        "dX": (
            drive,
            [
                *(3.479641154199712e-04, -4.564671584569633e-04, 4.703974138915280e-04),
                *(-4.176779398179591e-04, 1.887436580797926e-04, -1.467220888731058e-04),
            ],
        ),
        "dw": (cell.w, [-6.343856553923604e-06, -3.804985899664040e-06]),
        "dc": (cell.c, [6.066561934707654e-04, 4.835165411045373e-04]),
        "ddt": (cell.dt, [1.082718357419664e-02]),
        "dalpha": (cell.alpha, [-1.130191206645005e-05]),
        "dV": (cell.V, [1.599513229941553e-04, -2.843087107662602e-04]),
        "db": (cell.b, [1.007105187391292e-03, -1.020867187148028e-03]),
        "dU": (x, [5.761976946484528e-04, 6.792363838005076e-04, 2.621047025163455e-04]),
        "dy_0": (start.y, [-3.801306277215158e-02, 3.239814559320724e-02]),
        "dz_0": (start.z, [-9.450937261806427e-03, 7.569571854394519e-03]),
    }
    for name, (tensor, numbers) in expected.items():
        assert tensor.grad is not None, name
        assert_close(tensor.grad.flatten(), double(numbers), **PRINTED, msg=lambda text, name=name: f"{name}: {text}")


def test_u3_forward_and_gradients() -> None:
    cell, x = large()
    cell.dt.requires_grad_()
    cell.alpha.requires_grad_()
    outputs, final = scan(cell, x)
    y = [[6.796624491670422e-02, -3.208493204373911e-02, 4.899780850081288e-01, -1.426453331911663e-01]]
    y.append([5.220178308756120e-01, -3.974316537074526e-02, 9.606005337894190e-01, -1.941778498193737e-01])
    assert_close(final.y, double(y), **U3)
    z = [6.495271470621604e-01, 2.788983573044294e-01, 1.400222543671821e00, -2.741691472876012e-01]
    assert_close(final.z[0], double(z), **U3)
    assert_close(outputs.sum(), double(63.41519283797439), **U3)
    final.y.sum().backward()
    w = [4.152622197098949, -2.046973605152759, 3.414461204091261, -8.324553845069433]
    c = [2.057773775488466e01, -1.124793406416847e01, 1.605586018955117e01, -3.098217341740975e01]
    b = [-1.515820314664625, 1.013093018487343e-01, -4.941679609150665e-01, -1.576823078379841]
    physics = [(cell.dt, -3.651504006206301e01), (cell.alpha, -4.536451734018681)]
    for tensor, expected in [(cell.w, w), (cell.c, c), (cell.b, b), *physics]:
        assert_close(tensor.grad, double(expected), **U3)


def test_u3_the_steps_can_be_undone() -> None:
    cell, x = large()
    with torch.no_grad():
        state = run(cell, x)[-1]
        for drive in cell.drive(x).flip(0):
            state = cell.unstep(state, drive)
    # sheet: 1.4e-15 and 1.8e-15; the order of the sums differs here
    assert state.y.abs().max() < 1e-14
    assert state.z.abs().max() < 1e-14


def test_u3_the_bound_on_the_state_is_nearly_reached() -> None:
    cell, x = large()
    with torch.no_grad():
        h = cell.h
        ratios = [(q(s, h, 2.0).sqrt() / (n * h)).max() for n, s in enumerate(run(cell, x), 1)]
    assert_close(torch.stack(ratios).max(), double(0.9549802588921298), **U3)


def test_u4_linear_limit_has_the_closed_form_and_the_invariant() -> None:
    cell = made(1, 1, dt=0.3, alpha=2.0)
    start = UnICORNNState(torch.ones(1, 1).double(), torch.zeros(1, 1).double())
    with torch.no_grad():
        states = run(cell, torch.zeros(1000, 1, 1).double(), start)
    y, z = (torch.stack([s[k] for s in states]).flatten() for k in (0, 1))
    assert_close(y[[0, 9, 999]], double([0.955, -0.6172205997677942, 0.55161297698162]), rtol=1e-12, atol=1e-13)
    assert_close(z[9], double(-1.2091175009852984), rtol=1e-12, atol=0)
    theta = 0.2125318091054341
    n = torch.arange(1, 1001).double()
    assert_close(y, torch.cos((n + 0.5) * theta) / math.cos(theta / 2), rtol=0, atol=1e-11)
    assert (q((y, z), 0.15, 2.0) - 2).abs().max() < 1e-13
    plain = 0.5 * z**2 + y**2
    assert_close(torch.stack((plain.min(), plain.max())), double([0.9041, 1.1187]), rtol=0, atol=5e-5)


def jacobian(cell: UnICORNNCell, state: UnICORNNState, drive: Tensor) -> Tensor:
    """(2, 2) of one oscillator."""

    def step(point: Tensor) -> Tensor:
        new = cell.step(UnICORNNState(point[:1].reshape(1, 1), point[1:].reshape(1, 1)), drive)
        return torch.cat((new.y.flatten(), new.z.flatten()))

    found = torch.autograd.functional.jacobian(step, torch.cat((state.y.flatten(), state.z.flatten())))
    assert isinstance(found, Tensor)
    return found


def test_u5_jacobian_of_fifty_steps() -> None:
    cell = made(1, 1, dt=0.5, alpha=1.2, w=[0.7], c=[0.3], V=[[1.0]])
    state, drive = UnICORNNState(double([[0.2]]), double([[-0.1]])), double([[0.4]])
    product = torch.eye(2).double()
    for _ in range(50):
        product = jacobian(cell, state, drive) @ product
        state = cell.step(state, drive)
    expected = [[0.7150961103861418, 0.49561175260242313], [-0.8173177286998904, 0.8319549210311936]]
    assert_close(cell.h.detach(), double([0.2872212584058295]), **PRINTED)
    assert_close(product, double(expected), rtol=1e-12, atol=0)
    assert_close(torch.linalg.det(product), double(1.0), rtol=1e-13, atol=0)
    assert_close(torch.linalg.svdvals(product), double([1.185674594904372, 0.8434017261545977]), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("dt", "excursion"),
    [
        (0.4, 6.603924261655972e-03),
        (0.2, 3.080922630905286e-03),
        (0.1, 1.489947565193342e-03),
        (0.05, 7.329739733421131e-04),
    ],
)
def test_u6_the_hamiltonian_stays_near_its_start(dt: float, excursion: float) -> None:
    cell = made(1, 1, dt=dt, alpha=1.0, w=[0.7])
    with torch.no_grad():
        state, drive, y, z = cell.initial_state(1), double([[0.4]]), [0.0], [0.0]
        for _ in range(round(400 / dt)):
            state = cell.step(state, drive)
            y.append(state.y.item())
            z.append(state.z.item())
    positions, velocities = double(y), double(z)
    well = torch.log(torch.cosh(0.7 * positions + 0.4)) / 0.7
    energy = 0.5 * velocities**2 + 0.5 * positions**2 + well
    assert energy[0].item() == pytest.approx(0.11136212198261763, rel=1e-12)
    assert (energy - energy[0]).abs().max().item() == pytest.approx(excursion, rel=1e-9)
    # no growth with time: the first half has seen nearly all of it
    half = len(energy) // 2
    assert (energy[:half] - energy[0]).abs().max() > 0.95 * excursion


def test_u7_a_hyperbolic_oscillator_runs_away_within_its_bound() -> None:
    cell = made(1, 1, dt=0.2, alpha=0.0, w=[-1.0], V=[[1.0]])
    x = torch.full((2000, 1, 1), 0.1, dtype=torch.float64)
    with torch.no_grad():
        state = run(cell, x)[-1]
    assert_close(state.y, double([[-19569.92241738299]]), rtol=1e-11, atol=0)
    assert_close(state.z, double([[-197.7849044200292]]), rtol=1e-11, atol=0)
    assert abs(state.y.item()) <= 0.1**2 * 2000 * 2001 / 2
    with torch.no_grad():
        for drive in cell.drive(x).flip(0):
            state = cell.unstep(state, drive)
    # sheet: 7e-12 in float64
    assert max(state.y.abs().max(), state.z.abs().max()) < 1e-10


def authors_network() -> dict[str, Tensor]:
    """U8's two layers and read-out, under the names of the authors' scripts."""
    numbers = {
        "DIs.0.fc.weight": [[0.4], [-0.3], [0.2]],
        "DIs.0.fc.bias": [0.05, -0.1, 0],
        "RNNs.0.weight_hh": [0.2, 0.5, 0.8],
        "RNNs.0.c_": [-0.1, 0, 0.1],
        "DIs.1.fc.weight": [[0.3, -0.2, 0.1], [0.5, 0.4, -0.6], [-0.1, 0.2, 0.3]],
        "DIs.1.fc.bias": [0, 0.1, -0.1],
        "RNNs.1.weight_hh": [0.1, 0.9, 0.4],
        "RNNs.1.c_": [0.05, -0.05, 0.02],
        "classifier.weight": [[1, -1, 0.5], [0.2, 0.3, -0.4]],
        "classifier.bias": [0.01, -0.02],
    }
    return {name: double(value) for name, value in numbers.items()}


def test_u8_two_layer_network_from_the_authors_names() -> None:
    model = model_from_authors(authors_network(), "UnICORNN", dt=0.3, alpha=2.0)
    with torch.no_grad():
        logits, state = model(torch.sin(0.5 * torch.arange(1, 11).double()).reshape(10, 1, 1))
    y = [[-1.265000990895804e-01, 1.296990602542283e-01, -3.210338327943489e-02]]
    y.append([3.545555802760404e-02, -7.443496253474451e-02, 6.437350037455708e-02])
    assert_close(state["layer0"].y.squeeze(1), double(y), **PRINTED)
    assert_close(logits, double([[1.520772707496271e-01, -6.098877730472538e-02]]), **PRINTED)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d.pop("RNNs.1.weight_hh"), "not a UnICORNN state dict of the authors .*RNNs.1.weight_hh"),
        (lambda d: d.update({"RNNs.0.c_": torch.zeros(2).double()}), "layer 0 has sizes 3, 3, 3, 2"),
        (lambda d: d.clear(), "got nothing"),
        (lambda d: d.pop("classifier.bias"), "no classifier.weight and classifier.bias, it has DIs.0"),
        (lambda d: d.update({"embedding.weight": torch.zeros(5, 1)}), "word embeddings .*take them out"),
    ],
)
def test_other_names_and_sizes_than_the_authors_are_refused(spoil: Any, said: str) -> None:
    saved = authors_network()
    spoil(saved)
    with pytest.raises(ValueError, match=said):
        model_from_authors(saved, "UnICORNN", dt=0.3, alpha=2.0)


def test_constants_that_the_authors_did_not_save_must_be_given() -> None:
    with pytest.raises(ValueError, match="the authors' files don't hold alpha: give what the script was run with"):
        model_from_authors(authors_network(), "UnICORNN", dt=0.3)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(1, [-0.12, -0.07, -0.01]), (2, [0.0364, 0.0084, 1e-4]), (3, [-4.368e-03, -4.62e-04, -1e-6])],
)
def test_u9_the_gradient_grows_with_the_lag_and_shrinks_with_the_layers(layers: int, expected: list[float]) -> None:
    layer = UnICORNN(1, 1, layers, dt=0.2, alpha=0.0).double()
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.fill_(1.0 if name.endswith("V") else 0.0)
    x = torch.zeros(12, 1, 1).double().requires_grad_()
    layer(x)[0][-1].sum().backward()
    assert x.grad is not None
    # dt is kept in float32 until .double()
    assert_close(x.grad[[0, 5, 11]].flatten(), double(expected), rtol=1e-6, atol=0)


def test_u10_lag_law() -> None:
    cell = made(1, 1, dt=0.02, alpha=1.0, w=[0.5], V=[[1.0]])
    x = torch.full((40, 1, 1), 0.3, dtype=torch.float64).requires_grad_()
    scan(cell, x)[0][-1].sum().backward()
    assert x.grad is not None
    expected = [-0.003519910691574435, -0.0019043275472070433, -9.209950971959328e-05]
    assert_close(x.grad[[0, 19, 39]].flatten(), double(expected), rtol=1e-12, atol=0)


def test_u11_the_share_of_the_step_is_a_sigmoid() -> None:
    cell = made(1, 2, dt=1.0, alpha=1.0, c=[0.1, -0.1])
    assert_close(cell.h.detach(), double([0.52497918747894, 0.47502081252106]), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("fan_in", "bound"), [(1, 0.303821810), (2, 0.214834462), (6, 0.124034735), (96, 0.031008684), (256, 0.018988863)]
)
def test_u12_starting_distributions(fan_in: int, bound: float) -> None:
    cell = UnICORNNCell(fan_in, 4096)
    top, square = cell.V.abs().max().item(), cell.V.square().mean().item()
    assert 0.99 * bound < top <= bound * (1 + 1e-6)
    # the mean of 4096 or more squares of a uniform number: five standard errors are 7 %
    assert square == pytest.approx(bound**2 / 3, rel=0.07)
    assert 0 <= cell.w.min() < 0.01 < 0.99 < cell.w.max() < 1
    assert -0.1 <= cell.c.min() < -0.099 < 0.099 < cell.c.max() <= 0.1
    assert cell.b is not None
    assert not cell.b.any()


@pytest.mark.parametrize(
    ("inputs", "units", "layers", "outputs", "count"),
    [
        (1, 256, 3, 10, 136_202),
        (1, 128, 3, 10, 35_338),
        (96, 128, 3, 10, 47_498),
        (6, 32, 2, 5, 1_573),
        (2, 128, 3, 1, 34_305),
        (100, 128, 2, 1, 30_081),
    ],
)
def test_u13_parameter_counts(inputs: int, units: int, layers: int, outputs: int, count: int) -> None:
    physics = {"dt": 0.01, "alpha": 1.0}
    spec = ModelSpec(inputs, outputs, (Node("UnICORNN", units, num_layers=layers, physics=physics),))
    assert Model(spec).parameter_count == count


def test_u14_dropout_is_locked_over_time_and_acts_behind_the_last_layer_too() -> None:
    layer, x = UnICORNN(2, 50, 2, dropout=0.3, dtype=torch.float64), torch.randn(7, 3, 2, dtype=torch.float64)
    plain = UnICORNN(2, 50, 2, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    torch.manual_seed(1)
    outputs, final = layer(x)
    # the state of the last layer is its last output before the dropout
    ratio = outputs[-1] / final.y[1]
    assert_close(ratio, torch.where(ratio > 0.5, 1 / 0.7, 0.0).double())
    assert_close(outputs == 0, (ratio == 0).expand_as(outputs))
    assert_close(layer.eval()(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 4.0])
def test_u15_bounds_hold_for_any_weights_and_inputs(alpha: float) -> None:
    cell = made(3, 5, dt=0.4, alpha=alpha, V=torch.randn(5, 3), w=5 * torch.randn(5), c=torch.randn(5))
    x = 100 * torch.randn(200, 4, 3).double()
    with torch.no_grad():
        h = cell.h
        for n, state in enumerate(run(cell, x), 1):
            slack = 1 + 1e-12
            if alpha:
                root = q(state, h, alpha).sqrt()
                assert (root <= n * h * slack).all()
                assert (state.y.abs() <= slack * root / (alpha * (1 - alpha * h**2 / 4)).sqrt()).all()
            else:
                assert (state.z.abs() <= n * h * slack).all()
                assert (state.y.abs() <= h**2 * n * (n + 1) / 2 * slack).all()


def test_u15_every_step_has_determinant_one() -> None:
    cell = made(1, 1, dt=0.9, alpha=0.8, w=[-7.0], c=[1.0], V=[[3.0]])
    state = cell.initial_state(1)
    for drive in cell.drive(10 * torch.randn(20, 1, 1).double()):
        assert torch.linalg.det(jacobian(cell, state, drive)).item() == pytest.approx(1, abs=1e-12)
        state = cell.step(state, drive)


def moved(state: UnICORNNState, field: UnICORNNState, by: float) -> UnICORNNState:
    return UnICORNNState(*(s + by * d for s, d in zip(state, field, strict=True)))


def test_the_step_follows_the_vector_field_to_first_order() -> None:
    errors = []
    for dt in (0.02, 0.01, 0.005):
        cell = made(1, 3, dt=dt, alpha=1.3, w=[0.3, -0.6, 2.0], c=[0.2, -0.4, 0.0])
        drive = double([[0.5, -0.2, 0.1]])
        state = UnICORNNState(double([[0.3, -0.1, 0.2]]), double([[0.1, 0.4, -0.2]]))
        with torch.no_grad():
            fine = UnICORNNState(*state)
            for _ in range(round(1 / dt)):
                state = cell.step(state, drive)
            for _ in range(10_000):
                # midpoint rule, far below the errors measured
                half = moved(fine, cell.vector_field(fine, drive), 0.5e-4)
                fine = moved(fine, cell.vector_field(half, drive), 1e-4)
        errors.append((state.y - fine.y).norm().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=0.05)


def test_a_list_gives_each_layer_its_step() -> None:
    layer = UnICORNN(6, 4, 2, dt=[2.81e-5, 0.0343], alpha=0.0, dtype=torch.float64)
    assert [cell.dt.item() for cell in layer.cells] == [2.81e-5, 0.0343]


@pytest.mark.parametrize(
    ("physics", "error", "said"),
    [
        ({"alpha": -0.1}, ValueError, "alpha must be at least 0 and finite, got -0.1"),
        ({"alpha": float("nan")}, ValueError, "alpha must be at least 0 and finite"),
        ({"dt": 0}, ValueError, "dt must be positive and finite, got 0"),
        ({"alpha": [1.0, 2.0, 3.0]}, ShapeError, "alpha must be one number or one per unit"),
    ],
)
def test_impossible_physics_is_refused(physics: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        UnICORNNCell(2, 4, **physics)


def test_an_unstable_step_warns() -> None:
    with pytest.warns(StabilityWarning, match=r"dt sqrt\(alpha \+ 1\) < 2 fails"):
        UnICORNNCell(2, 4, dt=1.0, alpha=4.0)


class TestUnICORNN(LayerContract):
    network = "UnICORNN"
    physics: ClassVar = {"dt": 0.6, "alpha": 1.5}


class TestUnICORNNCheckpoints(LayerContract):
    network = "UnICORNN"
    physics: ClassVar = {"dt": 0.6, "alpha": 1.5, "memory": "checkpoint", "checkpoint_every": 2}


class TestUnICORNNReverse(LayerContract):
    network = "UnICORNN"
    physics: ClassVar = {"dt": 0.6, "alpha": 1.5, "memory": "reverse"}


class TestUnICORNNTape(LayerContract):
    network = "UnICORNN"
    physics: ClassVar = {"dt": 0.6, "alpha": 1.5, "memory": "tape"}
    # the tape is what the compiled scan does without
    backends: ClassVar = ("reference",)
    test_the_fused_scan_gives_the_gradients_of_the_reference = None


def test_the_compiled_scan_declines_the_tape() -> None:
    with pytest.raises(BackendError, match="memory='tape' keeps everything on PyTorch's tape"):
        UnICORNN(2, 3, memory="tape", backend="fused")(torch.zeros(4, 1, 2))
