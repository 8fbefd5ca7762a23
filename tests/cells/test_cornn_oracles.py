"""The oracles O1 to O16 of the spec sheet cornn.md, section 6, and B9 of baselines.md: numbers typed from them."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CoRNNCell
from pendula.cells.cornn import author_weights
from pendula.math.oscillator import critical_step, energy, energy_bound, growth_rate, spectral_radius, uniform_bound
from tests import tolerance
from tests.cells.cornn_cases import (
    PHYSICS,
    VARIANTS,
    det,
    double,
    filled,
    jacobian,
    larger,
    lone,
    small,
    trajectory,
    waves,
    weights,
)

# O1, O2: y and z after steps 1, 2, 3
FORWARD = {
    "explicit": (
        [
            [8.004990217606298e-03, -6.043677771171634e-03],
            [1.112590599418289e-02, -1.066240942997497e-02],
            [1.699684090651907e-02, -1.774187493923050e-02],
        ],
        [
            [8.004990217606298e-02, -6.043677771171634e-02],
            [3.120915776576592e-02, -4.618731658803332e-02],
            [5.870934912336176e-02, -7.079465509255536e-02],
        ],
    ),
    "implicit": (
        [
            [7.412027979265091e-03, -5.595997936270031e-03],
            [1.037583750387298e-02, -9.936012219426858e-03],
            [1.591831281548226e-02, -1.659270518370917e-02],
        ],
        [
            [7.412027979265090e-02, -5.595997936270031e-02],
            [2.963809524607884e-02, -4.340014283156826e-02],
            [5.542475311609284e-02, -6.656692964282314e-02],
        ],
    ),
}

# O3: L = 1/2 sum |y_n|^2 and its gradients
GRADIENTS = {
    "explicit": {
        "loss": [4.708726977951779e-04],
        "W": [4.552389562155436e-06, -3.782992684290851e-06, -5.240947918951650e-06, 4.322372289873178e-06],
        "W_z": [3.328224215716696e-05, -2.858761587013787e-05, -3.947697339677798e-05, 3.345982617176065e-05],
        "V": [1.230828089588738e-04, -2.746249097195942e-04],
        "b": [7.719980265592869e-04, -1.041044591765747e-03],
        "U": [4.875854245892167e-04, 5.712318469783755e-04, 2.337030508745682e-04],
        "y_0": [3.430894514894614e-02, -3.311807135530286e-02],
        "z_0": [6.573052158234801e-03, -6.264889858761180e-03],
        "gamma": [-9.836577963446603e-06],
        "epsilon": [-7.403720759686301e-05],
        "dt": [1.763919144058744e-02],
    },
    "implicit": {
        "loss": [4.106731213022799e-04],
        "W": [3.675674749490194e-06, -3.053675211396981e-06, -4.223865398019747e-06, 3.482935027989752e-06],
        "W_z": [2.693518201381752e-05, -2.312158040700347e-05, -3.187478643255868e-05, 2.700474659914982e-05],
        "V": [1.071600891243255e-04, -2.400559085306690e-04],
        "b": [6.721606382423846e-04, -9.061200517112560e-04],
        "U": [4.253217631162246e-04, 4.974779266293488e-04, 2.024209743524392e-04],
        "y_0": [3.212295705524817e-02, -3.096656399566401e-02],
        "z_0": [6.241345512312412e-03, -5.962380651034110e-03],
        "gamma": [-7.929502879844051e-06],
        "epsilon": [-1.276808147070519e-04],
        "dt": [1.491834154848277e-02],
    },
}

# O4: the larger deterministic case
LARGER = {
    "explicit": {
        "y_50": [
            [2.921808897674817e-01, 1.120162965266847e-01, -2.897189907257623e-02, -2.997532307708151e-01],
            [2.856059456049579e-01, 1.020009403815430e-01, -1.405631347898310e-02, -2.944819639476534e-01],
        ],
        "z_50, first": [8.883279025185600e-02, 7.793305833800752e-02, 1.262883356703756e-01, -1.224735869150844e-02],
        "sum of y": [3.167801138253870],
        "sum of z^2": [5.038572781568058],
        "|dW|, |dW_z|, |dV|": [2.501508048899310e-01, 1.717070815361648e-01, 3.086179465075914e-01],
        "b": [3.672275587875934e-01, 5.929888755302664e-01, 5.832859114830677e-01, 3.942608914535601e-01],
        "gamma": [-2.665504425128682e-02],
        "epsilon": [-6.786398136972617e-03],
        "dt": [4.271812814999831],
        "U_1, first": [4.966273486710326e-03, 1.294967332698202e-03],
    },
    "implicit": {
        "y_50": [
            [2.909971885179683e-01, 1.113753609179906e-01, -3.203635975050405e-02, -3.004599842415458e-01],
            [2.854197542609355e-01, 1.016821217808909e-01, -1.774992625439413e-02, -2.965578382865183e-01],
        ],
        "z_50, first": [9.240894746407964e-02, 7.237576401636141e-02, 1.138347428868911e-01, -2.405398280377508e-02],
        "sum of y": [3.130780446442895],
        "sum of z^2": [4.658723312356703],
        "|dW|, |dW_z|, |dV|": [2.411862541069359e-01, 1.753718241208482e-01, 3.089337562375066e-01],
        "b": [3.759050013925849e-01, 5.935787875384564e-01, 5.851169772540773e-01, 3.941590479449398e-01],
        "gamma": [-2.709609999758267e-02],
        "epsilon": [-9.716974313872365e-03],
        "dt": [3.625864645079061],
        "U_1, first": [5.142770533811260e-03, 1.335194424013032e-03],
    },
}

# 4.5: name, dt, gamma, epsilon, eps dt, gamma dt^2 + 2 eps dt, rho, memory as printed, Y_max, Z_max; explicit
PUBLISHED = [
    ("adding, script default", 0.06, 66.0, 15.0, 0.900, 2.038, 0.724344, "3.1", 0.015152, 0.120000),
    ("adding T=5000", 0.016, 94.5, 9.5, 0.152, 0.328, 0.920869, "12.1", 0.014521, 0.137849),
    ("sMNIST m=256", 0.042, 2.7, 4.7, 0.197, 0.400, 0.972774, "36.2", 0.370370, 0.351743),
    ("sMNIST m=128", 0.053, 1.7, 4.0, 0.212, 0.429, 0.975114, "39.7", 0.588235, 0.420130),
    ("psMNIST m=256", 0.076, 0.4, 8.0, 0.608, 1.218, 0.996191, "262", 2.500000, 0.245556),
    # the sheet prints 0.682 for gamma dt^2 + 2 eps dt: it is 0.681496, rounded twice
    ("psMNIST m=128", 0.083, 0.13, 4.1, 0.340, 0.681, 0.997355, "378", 7.692308, 0.475260),
    ("noisy CIFAR-10", 0.034, 1.3, 12.7, 0.432, 0.865, 0.996504, "286", 0.769231, 0.153542),
    ("HAR-2", 0.1, 0.2, 6.4, 0.640, 1.282, 0.996869, "319", 5.000000, 0.308034),
    ("IMDB", 0.054, 4.9, 4.8, 0.259, 0.533, 0.929668, "13.7", 0.204082, 0.322158),
]
SETTINGS = pytest.mark.parametrize("row", PUBLISHED, ids=[row[0] for row in PUBLISHED])
BOTH = pytest.mark.parametrize("variant", VARIANTS)


def physical_gradient(cell: CoRNNCell, name: str) -> Tensor:
    """dL/d name from the gradient of its logarithm, which is what is trained."""
    logarithm = cell.get_parameter(f"log_{name}")
    assert logarithm.grad is not None
    return logarithm.grad / logarithm.detach().exp()


@BOTH
def test_o1_o2_three_steps_give_the_printed_states(variant: str) -> None:
    cell, u = small(variant)
    y, z = trajectory(cell, u)
    expected_y, expected_z = FORWARD[variant]
    assert_close(torch.stack((y, z)).squeeze(2), double([expected_y, expected_z]), **tolerance.ORACLE)


@BOTH
def test_o1_o2_the_scan_gives_the_printed_positions_and_last_state(variant: str) -> None:
    cell, u = small(variant)
    outputs, state = pendula.scan(cell, u)
    expected_y, expected_z = FORWARD[variant]
    got = torch.cat((outputs.squeeze(1), state.y, state.z))
    assert_close(got, double([*expected_y, expected_y[-1], expected_z[-1]]), **tolerance.ORACLE)


@pytest.fixture(scope="module", params=VARIANTS)
def small_gradients(request: pytest.FixtureRequest) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """What the sheet prints for O3 and what autograd gives."""
    cell, u = small(request.param, learnable=PHYSICS)
    u.requires_grad_()
    y_0, z_0 = (torch.zeros(1, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    outputs, _ = pendula.scan(cell, u, cell.State(y_0, z_0))
    loss = outputs.square().sum() / 2
    loss.backward()
    got = {"loss": loss.detach(), "U": u.grad, "y_0": y_0.grad, "z_0": z_0.grad}
    got |= {name: cell.get_parameter(name).grad for name in ("W", "W_z", "V", "b")}
    got |= {name: physical_gradient(cell, name) for name in PHYSICS}
    return GRADIENTS[request.param], got


@pytest.mark.parametrize("name", list(GRADIENTS["explicit"]))
def test_o3_gradients_are_the_printed_ones(small_gradients: tuple, name: str) -> None:
    expected, got = small_gradients
    assert_close(got[name].reshape(-1), double(expected[name]), **tolerance.ORACLE)


def test_o4_formulas_give_the_printed_spot_values() -> None:
    got = torch.cat((weights()["W"][0], waves(1, 2)[0, 1]))
    expected = [0.8414709848078965, -0.2794154981989259, -0.9999902065507035, -0.2879033166650653]
    assert_close(got, double([*expected, 0.9635581854171930, -0.1577456941432482]), **tolerance.ORACLE)


@pytest.fixture(scope="module", params=VARIANTS)
def larger_run(request: pytest.FixtureRequest) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """What the sheet prints for O4 and what the cell and autograd give."""
    cell = larger(request.param, dt=0.05, gamma=2.0, epsilon=3.0, learnable=PHYSICS)
    u = waves(50, 2).requires_grad_()
    y, z = trajectory(cell, u)
    y[-1].sum().backward()
    norms = torch.stack([torch.linalg.matrix_norm(cell.get_parameter(name).grad) for name in ("W", "W_z", "V")])
    got = {
        "y_50": y[-1].detach(),
        "z_50, first": z[-1, 0].detach(),
        "sum of y": y.detach().sum(),
        "sum of z^2": z.detach().square().sum(),
        "|dW|, |dW_z|, |dV|": norms,
        "b": cell.b.grad,
        "U_1, first": u.grad[0, 0],
    }
    got |= {name: physical_gradient(cell, name) for name in PHYSICS}
    return LARGER[request.param], got


@pytest.mark.parametrize("name", list(LARGER["explicit"]))
def test_o4_fifty_steps_give_the_printed_numbers(larger_run: tuple, name: str) -> None:
    expected, got = larger_run
    assert_close(got[name].reshape(-1), double(expected[name]).reshape(-1), **tolerance.ORACLE)


# O5: variant, y at steps, z at step 10, energy at steps
DECAY = {
    "explicit": (
        {1: 0.96, 2: 0.8836, 10: -0.3131165127999442, 200: -0.004860432929820092},
        -1.435574249419724,
        {10: 2.349997556669144, 200: 1.369610429124175e-04},
    ),
    "implicit": (
        {1: 0.9619047619047619, 2: 0.8889795918367347, 10: -0.2819536577014773, 200: 1.4568025015832009e-04},
        -1.4480446831179075,
        {10: 2.414824864671008, 200: 2.315347027907516e-04},
    ),
}


def decay(variant: str, dt: float, steps: int) -> tuple[CoRNNCell, Tensor, Tensor]:
    """The free oscillator from y = 1, z = 0."""
    cell = lone(variant, dt=dt)
    start = cell.State(double([[1.0]]), double([[0.0]]))
    with torch.no_grad():
        y, z = trajectory(cell, torch.zeros(steps, 1, 1, dtype=torch.float64), start)
    return cell, y[:, 0], z[:, 0]


@BOTH
def test_o5_free_decay_is_the_printed_one(variant: str) -> None:
    _, y, z = decay(variant, 0.1, 200)
    positions, velocity, _ = DECAY[variant]
    got = torch.cat((y[[n - 1 for n in positions], 0], z[9]))
    assert_close(got, double([*positions.values(), velocity]), **tolerance.PRINTED_16)


@BOTH
def test_o5_energy_is_the_printed_one_and_never_grows(variant: str) -> None:
    cell, y, z = decay(variant, 0.1, 200)
    energies = energy(y, z, cell.dt, cell.gamma, cell.epsilon, variant)
    assert (energies.diff() <= 0).all()
    printed = DECAY[variant][2]
    assert_close(energies[[n - 1 for n in printed]], double(list(printed.values())), **tolerance.PRINTED_16)


def test_o6_energy_stays_below_the_papers_bound_by_the_printed_ratio() -> None:
    cell = larger("implicit", dt=1e-3, gamma=1.0, epsilon=1.0)
    with torch.no_grad():
        y, z = trajectory(cell, waves(1000, 1))
    energies = (y.square() + z.square()).sum(-1)[:, 0]
    ratio = energies / (4 * 1e-3 * torch.arange(1, 1001).double())
    got = torch.stack((energies[-1], ratio.max()))
    assert_close(got, double([0.3685514834297292, 0.09277269740376014]), **tolerance.PRINTED_16)


def test_o7_two_inputs_separate_by_the_printed_part_of_the_bound() -> None:
    cell = larger("explicit", dt=0.05, gamma=2.0, epsilon=3.0)
    with torch.no_grad():
        (y, z), (other_y, other_z) = (trajectory(cell, sign * waves(200, 1)) for sign in (1, -1))
    physics = cell.dt, cell.gamma, cell.epsilon
    separation = energy(y - other_y, z - other_z, *physics, "explicit")[:, 0]
    elapsed = 0.05 * torch.arange(1, 201).double()
    ratio = (separation / (4 * energy_bound(4, elapsed, *physics))).max()
    assert_close(ratio, double(0.134473111), **tolerance.decimals(9))


FORCED = double([0.3, -0.7])
"""The argument of tanh at which O8 takes the Jacobian; at rest it is the drive."""


@BOTH
def test_o8_determinant_of_the_step_jacobian_is_the_printed_one(variant: str) -> None:
    cell, _ = small(variant)
    matrix = jacobian(cell, torch.zeros(2).double(), torch.zeros(2).double(), FORCED)
    expected = {"explicit": 0.8253721336396335, "implicit": 0.8378124491822703}[variant]
    assert_close(torch.linalg.det(matrix), double(expected), **tolerance.PRINTED_16)


@BOTH
def test_o8_determinant_is_that_of_the_velocity_block_alone(variant: str) -> None:
    cell, _ = small(variant)
    matrix = jacobian(cell, torch.zeros(2).double(), torch.zeros(2).double(), FORCED)
    kappa, eta = (1 - 0.8 * 0.1, 0.1) if variant == "explicit" else (1 / 1.08, 0.1 / 1.08)
    block = kappa * torch.eye(2).double() + eta * (1 - FORCED.tanh() ** 2).diag() @ cell.W_z.detach()
    assert_close(torch.linalg.det(matrix), torch.linalg.det(block), **tolerance.ROUNDING)


def test_o8_rows_of_the_explicit_jacobian_are_the_printed_ones() -> None:
    cell, _ = small("explicit")
    matrix = jacobian(cell, torch.zeros(2).double(), torch.zeros(2).double(), FORCED)
    first = [0.989575684809133, -0.002745410885480, 0.091084863038173, 0.005490821770960]
    third = [-0.104243151908669, -0.027454108854799, 0.910848630381734, 0.054908217709598]
    assert_close(matrix[[0, 2]], double([first, third]), **tolerance.JACOBIAN)


# O9: Lambda, log of the energy norm of dx_200/dx_0, log of the absolute determinant
GROWTH = {
    "explicit": (4.270711343, -5.237041025, -116.5054894),
    "implicit": (3.835707797, -5.367870818, -100.2744555),
}


@pytest.fixture(scope="module", params=VARIANTS)
def growth(request: pytest.FixtureRequest) -> tuple[str, CoRNNCell, Tensor, float]:
    """O9: the product of 200 step Jacobians in the coordinates of the energy norm, and the sum of log determinants."""
    variant = request.param
    cell = larger(variant, dt=0.05, gamma=2.0, epsilon=3.0)
    omega = 1 - 3.0 * 0.05 if variant == "explicit" else 1.0
    scale = double([2.0] * 4 + [omega] * 4).sqrt()
    product = torch.eye(8).double()
    logarithm = 0.0
    state = cell.initial_state(1)
    for drive in cell.drive(waves(200, 1)).detach():
        step = jacobian(cell, state.y[0], state.z[0], drive[0])
        product = step @ product
        logarithm += float(torch.linalg.slogdet(step).logabsdet)
        state = cell.State(*(part.detach() for part in cell.step(state, drive)))
    return variant, cell, scale.unsqueeze(1) * product / scale, logarithm


def test_o9_spectral_norms_are_the_printed_ones() -> None:
    got = torch.stack([torch.linalg.matrix_norm(weights()[name], 2) for name in ("W", "W_z")])
    assert_close(got, double([2.570770, 2.582268]), **tolerance.decimals(6))


@BOTH
def test_o9_growth_rate_is_the_printed_one(variant: str) -> None:
    w = weights()
    got = growth_rate(w["W"], w["W_z"], 0.05, 2.0, 3.0, variant)
    assert_close(double(got), double(GROWTH[variant][0]), **tolerance.decimals(9))


def test_o9_gradient_over_200_steps_has_the_printed_size(growth: tuple) -> None:
    variant, _, product, _ = growth
    got = torch.linalg.matrix_norm(product, 2).log()
    assert_close(got, double(GROWTH[variant][1]), **tolerance.decimals(9))


def test_o9_gradient_over_200_steps_is_below_the_bound(growth: tuple) -> None:
    variant, cell, product, _ = growth
    rate = growth_rate(cell.W.detach(), cell.W_z.detach(), 0.05, 2.0, 3.0, variant)
    assert float(torch.linalg.matrix_norm(product, 2).log()) <= 200 * math.log1p(0.05 * rate)


def test_o9_bound_of_the_explicit_variant_is_the_printed_one() -> None:
    w = weights()
    rate = growth_rate(w["W"], w["W_z"], 0.05, 2.0, 3.0, "explicit")
    assert_close(double(200 * math.log1p(0.05 * rate)), double(38.7076), **tolerance.decimals(4))


def test_o9_volume_shrinks_as_printed(growth: tuple) -> None:
    variant, _, _, logarithm = growth
    assert_close(double(logarithm), double(GROWTH[variant][2]), **tolerance.DETERMINANT)


def test_o10_explicit_is_implicit_with_a_longer_velocity_step() -> None:
    dt, gamma, epsilon = 0.07, 1.3, 2.1
    explicit = larger("explicit", dt=dt, gamma=gamma, epsilon=epsilon, units=3)
    longer = larger("implicit", dt=dt / (1 - epsilon * dt), gamma=gamma, epsilon=epsilon, units=3)
    with torch.no_grad():
        x = waves(20, 1)
        y, z = trajectory(explicit, x)
        at, states = longer.initial_state(1), []
        for drive in longer.drive(x):
            velocity = longer.step(at, drive).z
            at = longer.State(at.y + dt * velocity, velocity)
            states.append(torch.stack(at))
    assert_close(torch.stack((y, z), 1), torch.stack(states), **tolerance.VARIANT_IDENTITY)


EXACT_AT_ONE = -0.22309799547645895
ERRORS = {
    "explicit": [-8.792091e-03, -4.390866e-03, -2.194150e-03, -1.096756e-03],
    "implicit": [-5.631013e-03, -2.808837e-03, -1.402758e-03, -7.009650e-04],
}


def test_o11_exact_solution_is_the_printed_one() -> None:
    # y'' = -4 y - y'/2 from rest at 1: damped cosine of frequency sqrt(4 - 1/16)
    omega = math.sqrt(4 - 1 / 16)
    value = math.exp(-0.25) * (math.cos(omega) + 0.25 / omega * math.sin(omega))
    assert_close(double(value), double(EXACT_AT_ONE), **tolerance.PRINTED_16)


@BOTH
def test_o11_errors_fall_as_printed(variant: str) -> None:
    errors = [float(decay(variant, 1 / n, n)[1][-1]) - EXACT_AT_ONE for n in (100, 200, 400, 800)]
    assert_close(double(errors), double(ERRORS[variant]), **tolerance.PRINTED_7)


@BOTH
def test_o11_order_is_one(variant: str) -> None:
    coarse, fine = (abs(float(decay(variant, 1 / n, n)[1][-1]) - EXACT_AT_ONE) for n in (400, 800))
    assert math.log2(coarse / fine) == pytest.approx(1.0, abs=tolerance.OBSERVED_ORDER)


@pytest.mark.parametrize(
    ("gamma", "epsilon", "variant", "expected"),
    [
        (4.0, 0.5, "explicit", 0.8827822185373186),
        (4.0, 0.5, "implicit", 1.1327822185373186),
        (66.0, 15.0, "explicit", 0.10777794526509063),
    ],
)
def test_o12_critical_step_is_the_printed_one(gamma: float, epsilon: float, variant: str, expected: float) -> None:
    assert_close(double(critical_step(gamma, epsilon, variant)), double(expected), **tolerance.PRINTED_16)


@BOTH
def test_o12_spectral_radius_crosses_one_at_the_critical_step(variant: str) -> None:
    edge = critical_step(4.0, 0.5, variant)
    gamma, epsilon = double(4.0), double(0.5)
    got = torch.stack([spectral_radius(double(edge * k), gamma, epsilon, variant) for k in (0.999, 1.0, 1.001)])
    expected = {"explicit": [0.98351615, 1.0, 1.01580481], "implicit": [0.98337147, 1.0, 1.01568996]}[variant]
    assert_close(got, double(expected), **tolerance.decimals(8))


@SETTINGS
def test_o13_uniform_bound_is_the_printed_one(row: tuple) -> None:
    _, dt, gamma, epsilon, *_, y_max, z_max = row
    got = double(uniform_bound(dt, gamma, epsilon, "explicit"))
    assert_close(got, double([y_max, z_max]), **tolerance.decimals(6))


@SETTINGS
def test_o13_spectral_radius_is_the_printed_one(row: tuple) -> None:
    radius = spectral_radius(*double(row[1:4]), "explicit")
    assert_close(radius, double(row[6]), **tolerance.decimals(6))


@SETTINGS
def test_o13_memory_in_steps_is_the_printed_one(row: tuple) -> None:
    memory = -1 / math.log(float(spectral_radius(*double(row[1:4]), "explicit")))
    assert format(memory, ".1f" if "." in row[7] else ".0f") == row[7]


@SETTINGS
def test_o13_stability_numbers_are_the_printed_ones(row: tuple) -> None:
    _, dt, gamma, epsilon, damped, edge, *_ = row
    got = double([epsilon * dt, gamma * dt**2 + 2 * epsilon * dt])
    assert_close(got, double([damped, edge]), **tolerance.decimals(3))


@SETTINGS
@BOTH
def test_o13_no_network_leaves_the_uniform_bound(row: tuple, variant: str) -> None:
    _, dt, gamma, epsilon, *_ = row
    y_max, z_max = uniform_bound(dt, gamma, epsilon, variant)
    for size in (0.1, 3.0, 100.0):
        cell = CoRNNCell(2, 6, dt=dt, gamma=gamma, epsilon=epsilon, variant=variant, dtype=torch.float64)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.copy_(size * torch.randn_like(parameter))
            y, z = trajectory(cell, size * torch.randn(150, 4, 2).double())
        assert y.abs().max() <= y_max * (1 + tolerance.BOUND)
        assert z.abs().max() <= z_max * (1 + tolerance.BOUND)


@pytest.mark.parametrize("dt", [0.1, 0.2])
@BOTH
def test_o13_a_worst_force_attains_the_uniform_bound(variant: str, dt: float) -> None:
    cell = lone(variant, dt=dt)
    free = filled(lone(variant, dt=dt), V=1.0)
    # the response to one impulse, read backwards, has the signs of the worst force
    with torch.no_grad():
        impulse = torch.zeros(2000, 1, 1).double()
        impulse[0] = 1e3
        response, _ = trajectory(free, impulse)
        y, _ = trajectory(filled(cell, V=1.0), 1e3 * response.flip(0).sign())
    assert_close(y[-1, 0, 0].abs(), double(uniform_bound(dt, 4.0, 0.5, variant)[0]), **tolerance.ROUNDING)


def bias_gradient(steps: int, r: float) -> float:
    """|dE/db| of the one-neuron family of sheet 4.7, whose published bound is 3."""
    dt = 1 / steps
    cell = CoRNNCell(1, 1, dt=dt, gamma=1.0, epsilon=1.0, variant="implicit", dtype=torch.float64)
    filled(cell, W_z=dt ** (r - 1) * (1 + dt))
    outputs, _ = pendula.scan(cell, torch.zeros(steps, 1, 1).double())
    ((outputs - 1).square().sum() / (2 * steps)).backward()
    return abs(float(cell.b.grad))


@pytest.mark.parametrize(
    ("steps", "expected", "printed"),
    [
        (10, 0.330, tolerance.PRINTED_3),
        (100, 8.375, tolerance.PRINTED_4),
        (1000, 4.523e8, tolerance.PRINTED_4),
    ],
)
def test_o14_published_gradient_bound_fails_for_r_one_half(steps: int, expected: float, printed: dict) -> None:
    assert_close(double(bias_gradient(steps, 0.5)), double(expected), **printed)


@pytest.mark.parametrize(
    ("steps", "r", "expected", "printed"),
    [
        (10, 0.75, 0.232, tolerance.PRINTED_3),
        (100, 0.75, 0.301, tolerance.PRINTED_3),
        (1000, 0.75, 0.808, tolerance.PRINTED_3),
        (10, 1.0, 0.1935, tolerance.PRINTED_4),
        (100, 1.0, 0.1620, tolerance.PRINTED_4),
        (1000, 1.0, 0.1589, tolerance.PRINTED_4),
    ],
)
def test_o14_gradient_of_the_family_is_the_printed_one(steps: int, r: float, expected: float, printed: dict) -> None:
    assert_close(double(bias_gradient(steps, r)), double(expected), **printed)


def authors_weights(layout: str, inputs: int, units: int, outputs: int) -> dict[str, Tensor]:
    """A state dict as one of the authors' three scripts would save it."""

    def linear(name: str, rows: int, columns: int, bias: bool) -> dict[str, Tensor]:
        made = {f"{name}.weight": torch.randn(rows, columns).double()}
        return made | ({f"{name}.bias": torch.randn(rows).double()} if bias else {})

    readout = linear("readout", outputs, units, True)
    if layout == "concat":
        return linear("cell.i2h", units, inputs + 2 * units, True) | readout
    if layout == "separate":
        inner = linear("cell.h2h1", units, units, False) | linear("cell.h2h2", units, units, False)
    else:
        inner = linear("cell.h2h", units, 2 * units, False)
    return linear("cell.i2h", units, inputs, True) | inner | readout


def authors_run(
    weights: dict[str, Tensor], x: Tensor, dt: float, gamma: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The authors' arithmetic in each of their layouts, as sheet 1.3 describes it: (positions, prediction)."""
    units = weights["cell.i2h.weight"].shape[0]
    y, z = (torch.zeros(x.shape[1], units).double() for _ in range(2))
    positions = []
    for u in x:
        if "cell.h2h1.weight" in weights:
            force = u @ weights["cell.i2h.weight"].T + weights["cell.i2h.bias"]
            force = force + y @ weights["cell.h2h1.weight"].T + z @ weights["cell.h2h2.weight"].T
        elif "cell.h2h.weight" in weights:
            force = u @ weights["cell.i2h.weight"].T + weights["cell.i2h.bias"]
            force = force + torch.cat((z, y), 1) @ weights["cell.h2h.weight"].T
        else:
            force = torch.cat((u, z, y), 1) @ weights["cell.i2h.weight"].T + weights["cell.i2h.bias"]
        z = z + dt * (torch.tanh(force) - gamma * y - epsilon * z)
        y = y + dt * z
        positions.append(y)
    return torch.stack(positions), y @ weights["readout.weight"].T + weights["readout.bias"]


LAYOUTS = pytest.mark.parametrize("layout", ["concat", "separate", "split"])


@LAYOUTS
def test_o15_cell_runs_like_the_authors_in_each_layout(layout: str) -> None:
    saved = authors_weights(layout, 3, 5, 2)
    x = torch.randn(20, 4, 3).double()
    cell = filled(CoRNNCell(3, 5, dt=0.05, gamma=2.0, epsilon=3.0, dtype=torch.float64), **author_weights(saved))
    outputs, _ = pendula.scan(cell, x)
    assert_close(outputs.detach(), authors_run(saved, x, 0.05, 2.0, 3.0)[0], **tolerance.LAYOUT)


@LAYOUTS
def test_o15_model_predicts_like_the_authors_in_each_layout(layout: str) -> None:
    saved = authors_weights(layout, 3, 5, 2)
    x = torch.randn(20, 4, 3).double()
    model = pendula.model_from_authors(saved, dt=0.05, gamma=2.0, epsilon=3.0)
    assert_close(model(x)[0].detach(), authors_run(saved, x, 0.05, 2.0, 3.0)[1], **tolerance.LAYOUT)


def test_o15_layouts_of_one_network_convert_to_the_same_weights() -> None:
    one = authors_weights("concat", 3, 5, 2)
    v, w_z, w = one["cell.i2h.weight"].split((3, 5, 5), 1)
    shared = {name: one[name] for name in ("cell.i2h.bias", "readout.weight", "readout.bias")}
    split = {"cell.i2h.weight": v, "cell.h2h.weight": torch.cat((w_z, w), 1), **shared}
    separate = {"cell.i2h.weight": v, "cell.h2h1.weight": w, "cell.h2h2.weight": w_z, **shared}
    assert_close(author_weights(split), author_weights(one), **tolerance.EXACT)
    assert_close(author_weights(separate), author_weights(one), **tolerance.EXACT)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: d.pop("cell.i2h.weight"), "needs i2h.weight"),
        (lambda d: d.pop("cell.i2h.bias"), "needs i2h.weight and i2h.bias"),
        (lambda d: d.update({"cell.i2h.weight": torch.zeros(5, 4)}), "not a coRNN state dict"),
        (lambda d: d.pop("readout.weight"), "readout.weight"),
    ],
)
def test_o15_a_foreign_state_dict_is_refused(damage, said: str) -> None:
    saved = authors_weights("concat", 3, 5, 2)
    damage(saved)
    with pytest.raises(ValueError, match=said):
        pendula.model_from_authors(saved, dt=0.05, gamma=2.0, epsilon=3.0)


# 5.1: task, inputs, units, outputs, core, total
COUNTS = [
    ("adding", 2, 128, 1, 33_152, 33_281),
    ("MNIST m=256", 1, 256, 10, 131_584, 134_154),
    ("MNIST m=128", 1, 128, 10, 33_024, 34_314),
    ("noise-padded CIFAR-10", 96, 128, 10, 45_184, 46_474),
    ("HAR-2", 9, 64, 1, 8_832, 8_897),
    ("HAR-2 tiny", 9, 20, 1, 1_000, 1_021),
    ("IMDB", 100, 128, 1, 45_696, 45_825),
    ("EigenWorms", 6, 32, 5, 2_272, 2_437),
]


@pytest.mark.parametrize("row", COUNTS, ids=[row[0] for row in COUNTS])
def test_o15_parameter_counts_are_the_published_ones(row: tuple) -> None:
    _, inputs, units, outputs, core, total = row
    spec = pendula.ModelSpec(inputs, outputs, (pendula.Node("CoRNN", units),))
    model = pendula.Model(spec)
    assert (sum(p.numel() for p in model.layers.parameters()), model.parameter_count) == (core, total)


def first_to_largest_gradient(dt: float, gamma: float, epsilon: float) -> float:
    """Sheet 4.8 at the authors' start: gradient of a random read-out of y_T at the first input over the largest."""
    cell = CoRNNCell(1, 256, dt=dt, gamma=gamma, epsilon=epsilon, init="concat", dtype=torch.float64)
    cell.requires_grad_(False)
    x = torch.rand(784, 1, 1).double().requires_grad_()
    _, state = pendula.scan(cell, x)
    (state.y @ torch.randn(256).double()).sum().backward()
    sizes = x.grad[:, 0, 0].abs()
    return float(sizes[0] / sizes.max())


def test_o16_permuted_mnist_starts_with_living_gradients() -> None:
    assert first_to_largest_gradient(0.076, 0.4, 8.0) > 0.1


def test_o16_sequential_mnist_starts_with_vanished_gradients() -> None:
    assert first_to_largest_gradient(0.042, 2.7, 4.7) < 1e-6


def test_b9_one_step_of_the_concatenated_layout_is_the_printed_one() -> None:
    saved = {"i2h.weight": det((3, 8), 0.1, 0.5), "i2h.bias": det((3,), 0.2, 0.1)}
    cell = filled(CoRNNCell(2, 3, dt=0.1, gamma=1.0, epsilon=2.0, dtype=torch.float64), **author_weights(saved))
    start = cell.State(det((3,), 0.3, 0.4).unsqueeze(0), det((3,), 0.4, 0.4).unsqueeze(0))
    _, state = pendula.scan(cell, double([[[0.3, -0.6]]]), start)
    y = [0.127050017526826, 0.414546744438276, 0.32013775824929]
    z = [0.0884193486229032, 0.291234702713987, 0.218556733786019]
    assert_close(torch.cat(state).detach(), double([y, z]), rtol=0.0, atol=tolerance.decimals(15)["atol"])


@pytest.mark.parametrize(("variant", "expected"), [("explicit", 0.42), ("implicit", 0.37)])
def test_counter_example_of_4_4_is_chaotic(variant: str, expected: float) -> None:
    # 12 000 of the sheet's 110 000 steps: enough for the sign and the first digit
    draws = numpy.random.default_rng(0)
    units, dt, steps, every = 50, 0.02, 12_000, 20
    draws.standard_normal((units, units))  # W, which the sheet draws and then sets to zero
    w_z = double(20 * draws.standard_normal((units, units)) / math.sqrt(units))
    y, z = (double(0.1 * draws.standard_normal(units)) for _ in range(2))
    cell = CoRNNCell(1, units, dt=dt, gamma=1.0, epsilon=2.0, variant=variant, dtype=torch.float64)
    filled(cell, W_z=w_z)
    gap, grown, largest = 1e-8, 0.0, 0.0
    state = cell.State(torch.stack((y, y + gap)), torch.stack((z, z)))
    drive = torch.zeros(2, units).double()
    with torch.no_grad():
        for n in range(steps):
            state = cell.step(state, drive)
            if n % every == every - 1:
                apart = torch.cat([part[1] - part[0] for part in state])
                size = float(apart.norm())
                # the first tenth turns the difference into the direction that grows fastest
                grown += math.log(size / gap) if n >= steps // 10 else 0.0
                largest = max(largest, float(state.y.abs().max()))
                back = (gap / size * apart).chunk(2)
                state = cell.State(*(torch.stack((part[0], part[0] + b)) for part, b in zip(state, back, strict=True)))
    assert largest < 1
    assert grown / (0.9 * steps * dt) == pytest.approx(expected, abs=tolerance.LYAPUNOV)
