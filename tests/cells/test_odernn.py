"""ODERNN: every variant under the layer contract, the oracles O1, O4 and O5 of the spec sheet odernn.md, refusals."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula import ShapeError, StabilityWarning
from pendula.cells import ODERNNCell
from pendula.cells.odernn import ODERNNState
from pendula.math.schemes import TABLEAUX
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import B, I, LayerContract, N, T, sequences

SCHEMES = pytest.mark.parametrize("tableau", [*TABLEAUX, "semi-implicit"])


class TestFourStages(LayerContract):
    network = "ODERNN"
    physics: ClassVar = {"tableau": "rk4", "order": 2, "dt": 0.5}


class TestSemiImplicit(LayerContract):
    network = "ODERNN"
    physics: ClassVar = {"tableau": "semi-implicit", "order": 2, "dt": 0.4, "antisymmetric": True}


class TestEuler(LayerContract):
    network = "ODERNN"
    physics: ClassVar = {"tableau": "euler", "order": 1, "dt": 0.3, "gamma": 0.5}

    def test_the_step_tends_to_the_differential_equation(self) -> None:
        # the contract's test asks for an error that halves: an explicit Euler step is the slope itself
        layer = self.layer()
        cell, start, drive = layer.cells[0], ODERNNState(self.state(layer).Z[0]), layer.cells[0].drive(sequences(1))[0]
        (moved,), (field,) = cell.step(start, drive), cell.vector_field(start, drive)
        assert_close((moved - start.Z) / cell.dt, field, **tolerance.ROUNDING)


class TestThirdOrder(LayerContract):
    network = "ODERNN"
    physics: ClassVar = {"tableau": "ssp33", "order": 3, "dt": 0.4}


class TestLearned(LayerContract):
    network = "ODERNN"
    physics: ClassVar = {"tableau": "heun", "order": 2, "dt": 0.4, "learnable": ["dt", "gamma"]}


class TestOwnTableau(LayerContract):
    """Ralston's scheme, and a damping of its own for every unit."""

    network = "ODERNN"
    physics: ClassVar = {
        "tableau": {"A": [[0, 0], ["2/3", 0]], "b": ["1/4", "3/4"]},
        "dt": 0.4,
        "gamma": torch.tensor([[0.5, 1.0, 2.0], [0.2, 0.4, 0.9]]),
    }


class TestLinearInput(LayerContract):
    network = "ODERNN"
    physics: ClassVar = {"tableau": "rk4", "order": 2, "dt": 0.5, "input": "linear"}

    def test_the_step_tends_to_the_differential_equation(self) -> None:
        # the contract's test holds the input: here it is the same before and after where the state has kept it
        layer = self.layer()
        cell, drive = layer.cells[0], layer.cells[0].drive(sequences(1))[0]
        Z = self.state(layer).Z[0]
        start = ODERNNState(torch.cat((Z[:, :-N], drive), -1))
        (field,), errors = cell.vector_field(start, drive), []
        for tau in (1e-3, 5e-4):
            (moved,) = cell.step(start, drive, tau=torch.full((B, 1), tau).double())
            errors.append(((moved - start.Z) / (tau * cell.dt) - field).abs().max().item())
        assert errors[0] < 0.1
        assert errors[1] == pytest.approx(errors[0] / 2, rel=0.02)


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def small(tableau: Any, **physics: Any) -> tuple[ODERNNCell, ODERNNState, Tensor]:
    """O4: two units, second order, one feature, three steps of one half."""
    with warnings.catch_warnings():
        # Euler of the linear part alone grows at this step
        warnings.simplefilter("ignore", StabilityWarning)
        cell = ODERNNCell(1, 2, tableau=tableau, dt=0.5, gamma=double([0.5, 0.2]), dtype=torch.float64, **physics)
    with torch.no_grad():
        cell.W.copy_(torch.stack((det((2, 2), 0.1, 0.8), det((2, 2), 0.2, 0.8))))
        cell.U.copy_(det((2, 1), 0.3, 0.5))
        cell.b.copy_(det((2,), 0.4, 0.2))
    start = ODERNNState(torch.cat((det((2,), 0.6, 0.5), det((2,), 0.7, 0.5))).unsqueeze(0))
    return cell, start, det((3, 1), 0.5, 1).unsqueeze(1)


O4 = {
    "euler": [1.16759561330385, 1.50040906851601, 1.06044083724454, 0.947959030041751, 2.81883399051254],
    "heun": [1.3162718072379, 1.58207143859016, 0.933075852684829, 0.84557321242802, 2.91057305588570],
    "kutta3": [1.30117022023572, 1.5702747306196, 0.930243131824022, 0.848100637602349, 2.87171682372900],
    "ssp33": [1.30033935593135, 1.56989419954818, 0.931054414098939, 0.849166122412353, 2.87169783191247],
    "rk4": [1.3005037443405, 1.57055886452586, 0.931629156540581, 0.849159525212862, 2.87348496028034],
    "semi-implicit": [1.48325618288746, 1.70133510927493, 0.979475370378545, 0.908075494466174],
}
O4_GRADIENT = {
    "euler": 0.43252575955228,
    "heun": 0.40643520511908,
    "kutta3": 0.39556354461500,
    "ssp33": 0.39773949317557,
    "rk4": 0.39777787700723,
}


@pytest.mark.parametrize("tableau", O4)
def test_o4_forward(tableau: str) -> None:
    cell, start, x = small(tableau)
    _, (Z,) = pendula.scan(cell, x, start)
    loss = 0.5 * Z.square().sum()
    expected = O4[tableau]
    assert_close(Z[0], double(expected[:4]), **tolerance.PRINTED_16)
    assert loss.item() == pytest.approx([*expected, loss.item()][4], rel=1e-12)


@pytest.mark.parametrize("tableau", O4_GRADIENT)
def test_o4_gradient(tableau: str) -> None:
    cell, start, x = small(tableau)
    _, (Z,) = pendula.scan(cell, x, start)
    (0.5 * Z.square().sum()).backward()
    assert cell.W.grad[0, 0, 1].item() == pytest.approx(O4_GRADIENT[tableau], rel=1e-12)
    if tableau == "rk4":
        expected = double([[0.322810850870043], [0.403591868353462]])
        assert_close(cell.U.grad, expected, **tolerance.PRINTED_16)


def adjoint(cell: ODERNNCell, Z: Tensor, drive: Tensor, g: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Section 5 of the sheet, by hand: gradients at Z (t, D) and at the parameters for a cotangent g (t, D)."""
    A, b, h, W, gamma = cell.scheme.A, cell.scheme.b, cell.dt, cell.W, cell.gamma
    n, t = len(b), cell.t
    stages, K = [], []
    for i in range(n):
        stages.append(Z + h * sum((A[i][j] * K[j] for j in range(i)), torch.zeros_like(Z)))
        K.append(cell.field(stages[i].unsqueeze(0), drive)[0])
    gZ = [torch.zeros_like(Z)] * n
    gW, gdrive, gh = torch.zeros_like(W), torch.zeros_like(drive), torch.zeros(()).double()
    for i in reversed(range(n)):
        gK = h * b[i] * g + h * sum((A[j][i] * gZ[j] for j in range(i + 1, n)), torch.zeros_like(Z))
        before = drive + sum(W[j] @ stages[i][j] for j in range(t))
        delta = gK[t - 1] * (1 - torch.tanh(before) ** 2)
        gZ[i] = torch.stack(
            [(gK[j - 1] if j else 0) + W[j].T @ delta - gamma[j] * gK[t - 1] for j in range(t)],
        )
        gW += torch.stack([torch.outer(delta, stages[i][j]) for j in range(t)])
        gdrive += delta
        gh += (K[i] * gK).sum() / h
    return g + sum(gZ), {"W": gW, "drive": gdrive, "dt": gh}


@pytest.mark.parametrize("tableau", list(TABLEAUX))
def test_o5_the_discrete_adjoint_is_the_gradient(tableau: str) -> None:
    cell, (Z,), x = small(tableau)
    g = det((4,), 0.9, 1)
    drive = cell.drive(x)[0].detach().requires_grad_()
    Z.requires_grad_()
    cell.dt.requires_grad_()
    (new,) = cell.step(ODERNNState(Z), drive)
    gradient, W, d, h = torch.autograd.grad(new, (Z, cell.W, drive, cell.dt), g.unsqueeze(0))
    with torch.no_grad():
        by_hand, weights = adjoint(cell, Z[0].reshape(2, 2), drive[0], g.reshape(2, 2))
    assert_close(gradient[0], by_hand.flatten(), **tolerance.ROUNDING)
    assert_close({"W": W, "drive": d[0], "dt": h}, weights, **tolerance.ROUNDING)
    if tableau == "rk4":
        expected = [0.638826342738153, 1.08951202049204, 0.516098175138837, -0.0821180764600536]
        assert_close(gradient[0], double(expected), **tolerance.PRINTED_16)


# --- order of the schemes, through the cell

O1 = {
    "euler": ([1, -0.4], [3.6916e-1, 1.7070e-1, 8.1823e-2, 4.0032e-2, 1.9797e-2], 1.016),
    "heun": ([0.98, -0.396], [1.12808e-2, 2.92382e-3, 7.77331e-4, 2.00103e-4, 5.07450e-5], 1.979),
    "kutta3": (
        [0.980133333333333, -0.39336],
        [1.08642e-3, 1.29468e-4, 1.57476e-5, 1.94002e-6, 2.40690e-7],
        3.011,
    ),
    "rk4": (
        [0.980199333333333, -0.393386533333333],
        [2.37884e-5, 1.69598e-6, 1.12218e-7, 7.20274e-9, 4.55997e-10],
        3.981,
    ),
}


def swinging(tableau: str, dt: float) -> ODERNNCell:
    """O1: y'' = -4 y - 0.2 y', the cell without weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        gamma = double([4.0, 0.2])
        cell = ODERNNCell(1, 1, tableau=tableau, dt=dt, gamma=gamma, dtype=torch.float64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
    return cell


def swung(tableau: str, steps: int, dt: float) -> Tensor:
    cell, state = swinging(tableau, dt), ODERNNState(double([[1.0, 0.0]]))
    with torch.no_grad():
        for _ in range(steps):
            state = cell.step(state, torch.zeros(1, 1).double())
    return state.Z[0]


@pytest.mark.parametrize("tableau", O1)
def test_o1_linear_problem(tableau: str) -> None:
    first, printed, printed_rate = O1[tableau]
    assert_close(swung(tableau, 1, 0.1), double(first), rtol=1e-12, atol=1e-15)
    exact = double([-0.333248986080509, -1.64947455892823])
    errors = [(swung(tableau, steps, 1 / steps) - exact).abs().max().item() for steps in (10, 20, 40, 80, 160)]
    # printed to 5 digits (euler) or 6: half a unit of the last one
    assert errors == pytest.approx(printed, rel=5e-5 if tableau == "euler" else 5e-6)
    rate = math.log2(errors[-2] / errors[-1])
    assert rate == pytest.approx(printed_rate, abs=6e-4)
    assert abs(rate - TABLEAUX[tableau].order) < 0.06


def wave(cell: ODERNNCell, pieces: list[float], split: int) -> Tensor:
    """The state after some inputs, each interval in `split` steps, on the line between the inputs or held."""
    shares = [m / split if cell.input == "linear" else 1.0 for m in range(1, split + 1)]
    inputs = [a + share * (b - a) for a, b in zip([pieces[0], *pieces], pieces, strict=False) for share in shares]
    x = double(inputs).reshape(-1, 1, 1)
    spans = torch.full((len(inputs), 1), 5 / split, dtype=torch.float64)
    return pendula.scan(cell, x, timespans=spans)[1].Z.detach()[..., : cell.t * cell.hidden_size]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("input", ["hold", "linear"])
@SCHEMES
def test_the_error_falls_with_the_order_of_the_scheme(tableau: str, input: str, order: int) -> None:
    # theorem 3.6, nonlinear, driven by what the input rule follows exactly
    cell = ODERNNCell(1, 3, tableau=tableau, order=order, dt=0.1, input=input, dtype=torch.float64)
    fine = ODERNNCell(1, 3, tableau="rk4", order=order, dt=0.1, input=input, dtype=torch.float64)
    fine.load_state_dict(cell.state_dict())
    pieces = [1.0, -0.6, 0.8]
    exact = wave(fine, pieces, 128)
    p = 1 if cell.scheme is None else cell.scheme.order
    errors = [(wave(cell, pieces, split) - exact).norm().item() for split in (16, 32)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(p, abs=0.25)


def test_a_smooth_input_wants_the_line_between_its_samples() -> None:
    # held, the input itself is only followed to first order
    def error(input: str, steps: int) -> float:
        dt = 2 / steps
        x = torch.sin(dt * torch.arange(1, steps + 1).double()).reshape(-1, 1, 1)
        torch.manual_seed(5)
        cell = ODERNNCell(1, 2, dt=dt, input=input, dtype=torch.float64)
        start = cell.initial_state(1).Z
        if input == "linear":
            # the drive at time 0, where the sine is 0
            start[:, -2:] = cell.drive(torch.zeros(1, 1, 1).double())[0].detach()
        return pendula.scan(cell, x, ODERNNState(start))[1].Z[0, :4].detach()

    exact = error("linear", 2048)
    for input, p in (("hold", 1), ("linear", 2)):
        errors = [(error(input, steps) - exact).norm().item() for steps in (32, 64)]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(p, abs=0.1)


# --- inputs


@pytest.mark.parametrize(("tableau", "delay"), [("euler", 3), ("semi-implicit", 1), ("rk4", 1)])
def test_an_input_reaches_the_output_after_as_many_steps_as_the_sheet_says(tableau: str, delay: int) -> None:
    cell = ODERNNCell(1, 2, tableau=tableau, order=3, dtype=torch.float64)
    x = torch.zeros(5, 1, 1).double().requires_grad_()
    outputs, _ = pendula.scan(cell, x)
    reached = [bool(torch.autograd.grad(o.sum(), x, retain_graph=True)[0][0].any()) for o in outputs]
    assert reached.index(True) + 1 == delay


def test_the_first_input_counts_as_the_one_before_it() -> None:
    cell = ODERNNCell(I, N, input="linear", dtype=torch.float64)
    x = sequences(2)
    start = torch.cat((torch.zeros(B, 2 * N).double(), cell.drive(x)[0].detach()), -1)
    found, given = (pendula.scan(cell, x, state, backend="reference") for state in (None, ODERNNState(start)))
    assert_close(found, given, **tolerance.EXACT)
    # a compiled scan has its own drive, which is this one up to rounding
    assert_close(pendula.scan(cell, x), given, **tolerance.ROUNDING)


def test_from_no_input_yet_gradients_are_finite() -> None:
    cell = ODERNNCell(I, N, input="linear", dtype=torch.float64)
    x, start = sequences().requires_grad_(), ODERNNState(cell.initial_state(B).Z.requires_grad_())
    outputs, (Z,) = pendula.scan(cell, x, start)
    (outputs.sum() + Z.sum()).backward()
    found = [x.grad, start.Z.grad, *(p.grad for p in cell.parameters())]
    assert all(bool(torch.isfinite(g).all()) for g in found)


def test_with_one_stage_a_line_shows_the_sample_before() -> None:
    cell = ODERNNCell(1, 2, tableau="euler", order=1, input="linear", dtype=torch.float64)
    held = ODERNNCell(1, 2, tableau="euler", order=1, dtype=torch.float64)
    held.load_state_dict(cell.state_dict())
    x = torch.randn(T, 1, 1).double()
    before = torch.cat((x[:1], x[:-1]))
    assert_close(pendula.scan(cell, x)[0], pendula.scan(held, before)[0], **tolerance.ROUNDING)


# --- parameters


@pytest.mark.parametrize("order", [1, 2, 3])
def test_parameters_are_counted_as_in_the_sheet(order: int) -> None:
    D, d = 7, 3

    def count(**physics: Any) -> int:
        return sum(p.numel() for p in ODERNNCell(d, D, order=order, **physics).parameters())

    assert count() == order * D**2 + D * d + D
    assert count(learnable=["dt", "gamma"]) == order * D**2 + D * d + D + order + 1
    # raising n at fixed t changes no count
    assert count(tableau="euler") == count(tableau="rk4")


def test_starting_distributions() -> None:
    cell = ODERNNCell(40, 200, order=3, gamma=torch.tensor([1.0, 3.0, 3.0]))
    # 120 000 normal numbers: five standard errors of their deviation are 1 %
    assert cell.W.std().item() == pytest.approx((3 * 200) ** -0.5, rel=0.01)
    edge = math.sqrt(6 / 240)
    assert 0.99 * edge < cell.U.abs().max() <= edge
    assert not cell.b.any()
    turned = ODERNNCell(40, 200, antisymmetric=True).W[0]
    assert_close(turned, -turned.T, **tolerance.EXACT)
    # M - M^T of entries with variance 1/(2 D) has entries of variance 1/D off its diagonal
    assert turned.square().sum().item() == pytest.approx(199, rel=0.05)


@pytest.mark.parametrize(("order", "gamma"), [(1, [0.01]), (2, [1.0, 1.0]), (3, [1, 3, 3]), (4, [1, 4, 6, 4])])
def test_default_damping(order: int, gamma: list[float]) -> None:
    assert ODERNNCell(1, 2, order=order, dtype=torch.float64).gamma.tolist() == gamma


def test_gamma_of_each_layer_comes_from_plain_data() -> None:
    node = pendula.Node("ODERNN", 4, num_layers=2, physics={"gamma": [[1.0, 0.3], [2.0, 0.4]]})
    model = pendula.Model(
        pendula.ModelSpec.from_dict(json.loads(json.dumps(pendula.ModelSpec(2, 1, (node,)).to_dict())))
    )
    cells = [m for m in model.modules() if isinstance(m, ODERNNCell)]
    assert [c.gamma.tolist() for c in cells] == [pytest.approx([1.0, 0.3]), pytest.approx([2.0, 0.4])]


def test_learned_constants_start_where_they_were_given() -> None:
    cell = ODERNNCell(1, 2, dt=0.3, gamma=[2.0, 0.7], learnable=["dt", "gamma"], dtype=torch.float64)
    assert_close(cell.dt.detach(), double(0.3), **tolerance.ROUNDING)
    assert_close(cell.gamma.detach(), double([2.0, 0.7]), **tolerance.ROUNDING)
    assert sorted(n for n, _ in cell.named_parameters()) == ["U", "W", "b", "log_dt", "log_gamma"]


def test_one_step_size_per_unit_runs_each_unit_on_its_own_clock() -> None:
    cell = ODERNNCell(1, 2, dt=[0.1, 0.3], dtype=torch.float64)
    with torch.no_grad():
        cell.W.copy_(torch.diag_embed(torch.randn(2, 2)))
    x = torch.randn(T, B, 1).double()
    spans = 0.5 + torch.rand(T, B).double()
    together, _ = pendula.scan(cell, x, timespans=spans)
    for unit, dt in enumerate((0.1, 0.3)):
        alone = ODERNNCell(1, 1, dt=dt, dtype=torch.float64)
        with torch.no_grad():
            alone.W.copy_(cell.W[:, unit : unit + 1, unit : unit + 1])
            alone.U.copy_(cell.U[unit : unit + 1])
        assert_close(pendula.scan(alone, x, timespans=spans)[0], together[..., unit : unit + 1], **tolerance.ROUNDING)


def test_a_tableau_given_as_data_is_the_one_of_its_name() -> None:
    named, given = (
        ODERNNCell(2, 3, tableau="ssp33"),
        ODERNNCell(
            2,
            3,
            tableau={"A": [[0, 0, 0], [1, 0, 0], ["1/4", 0.25, 0]], "b": ["1/6", "1/6", "2/3"], "order": 3},
        ),
    )
    given.load_state_dict(named.state_dict())
    x = torch.randn(T, B, 2)
    assert_close(pendula.scan(given, x), pendula.scan(named, x), **tolerance.EXACT)
    assert given.scheme == TABLEAUX["ssp33"]


@pytest.mark.parametrize(
    ("physics", "error", "said"),
    [
        ({"tableau": "rk5"}, ValueError, "tableau must be one of euler, .*semi-implicit, got 'rk5'.*'rk4'"),
        ({"tableau": 4}, ValueError, "tableau must be one of euler.* or data such as .*got 4"),
        ({"tableau": {"A": [[0]]}}, ValueError, "a tableau needs 'b', got A"),
        ({"tableau": {"A": [[0.5]], "b": [1]}}, ValueError, "zero on and above its diagonal"),
        ({"order": 0}, ValueError, "order must be a whole number, at least 1, got 0"),
        ({"dt": -0.1}, ValueError, "dt must be positive and finite, got -0.1"),
        (
            {"gamma": 0.5},
            ShapeError,
            r"gamma must be one number per derivative, shape \(2,\) or \(2, 4\), got shape \(\)",
        ),
        ({"gamma": [1.0, -0.2]}, ValueError, "gamma must be at least 0 and finite"),
        ({"gamma": [1.0, 0.0], "learnable": ["gamma"]}, ValueError, "gamma must be positive to be learned"),
        ({"gamma": "much"}, ValueError, "gamma must be numbers, one per derivative, got 'much'"),
        ({"input": "cubic"}, ValueError, "input must be one of hold, linear, got 'cubic'"),
        ({"learnable": "dt"}, ValueError, r"learnable must be a list of names, such as \['dt'\]"),
        ({"learnable": ["W"]}, ValueError, "learnable has no 'W'"),
    ],
)
def test_impossible_physics_is_refused(physics: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        ODERNNCell(2, 4, **physics)


def test_a_list_of_two_gammas_is_not_taken_for_two_layers() -> None:
    with pytest.raises(ShapeError, match=r"give a layer a tensor, or a list for each of its layers"):
        pendula.ODERNN(2, 4, 2, gamma=[1.0, 0.2])


@pytest.mark.parametrize(
    ("physics", "radius"),
    [
        ({"tableau": "euler", "gamma": [4.0, 0.0], "dt": 0.1}, "1.02"),
        ({"tableau": "rk4", "gamma": [4.0, 0.0], "dt": 1.5}, "1.5"),
        ({"gamma": [0.0, 0.0]}, "1"),
    ],
)
def test_a_linear_part_that_grows_warns(physics: dict[str, Any], radius: str) -> None:
    with pytest.warns(StabilityWarning, match=rf"the linear part alone grows \(spectral radius {radius}"):
        ODERNNCell(2, 4, **physics)


@pytest.mark.parametrize("order", [1, 2, 3])
@SCHEMES
def test_the_defaults_do_not_warn(tableau: str, order: int) -> None:
    ODERNNCell(2, 4, tableau=tableau, order=order)


def test_an_equation_of_first_order_needs_no_damping() -> None:
    ODERNNCell(2, 4, order=1, gamma=0, antisymmetric=True)


@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (1, 5), (5, 1)])
def test_one_unit_and_one_feature_are_enough(inputs: int, units: int) -> None:
    cell = ODERNNCell(inputs, units, bias=False, input="linear")
    outputs, _ = pendula.scan(cell, torch.randn(4, 2, inputs))
    assert outputs.shape == (4, 2, units)
    assert bool(torch.isfinite(outputs).all())
