"""uRNN, EURNN and full-capacity uRNN: oracles U7 to U9 and U11 of the spec sheet urnn.md, its sections 4 and 5, counts,
the authors' weights. Their matrices stand in test_operators.py.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula import Model, ModelSpec, Node, scan
from pendula.cells import EURNNCell, FullCapacityURNNCell, URNNCell
from pendula.cells.complex_units import UnitaryCell, UnitaryState
from pendula.cells.urnn import urnn_author_weights
from pendula.learn.geodesic import make_optimiser
from pendula.math.unitary import complex_of, pairs_of
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import LayerContract, gradients, sequences, weigh

PRINTED = {"rtol": 1e-12, "atol": 1e-15}
"""Sheet numbers with 15 digits."""
PERM = (5 * torch.arange(8) + 3) % 8


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def sheet_cell(product: str = "fast") -> tuple[URNNCell, Tensor]:
    """The common numbers of section 8 and those of U7, and the input x (5, 1, 2)."""
    cell = URNNCell(2, 8, product=product, dtype=torch.float64)
    weights = {
        "W.theta": det((3, 8), 0.1, 3),
        "W.v": torch.stack(
            (torch.cat((det((8,), 0.2, 1), det((8,), 0.3, 1))), torch.cat((det((8,), 0.4, 1), det((8,), 0.5, 1))))
        ),
        "W.perm": PERM,
        "V": torch.cat((det((8, 2), 0.8, 0.3), det((8, 2), 0.9, 0.3))),
        "b": det((8,), 1.1, 0.05),
        "h_0": torch.cat((det((8,), 0.6, 0.5), det((8,), 0.7, 0.5))),
    }
    cell.load_state_dict(weights)
    return cell, det((5, 2), 1.2, 1).unsqueeze(1)


def read_out(h: Tensor) -> Tensor:
    return h @ det((3, 16), 1.3, 0.3).T + det((3,), 1.4, 0.1)


@pytest.mark.parametrize("product", ["fast", "dense"])
def test_u7_full_cell(product: str) -> None:
    cell, x = sheet_cell(product)
    with torch.no_grad():
        outputs, _ = scan(cell, x)
    h = complex_of(outputs)[:, 0]
    norms = [2.01668725713712, 2.33330468481537, 2.53497201877455, 3.48549727638019, 3.60434046650691]
    assert_close(torch.linalg.vector_norm(h, dim=-1), double(norms), **PRINTED)
    ends = [-0.326249301388219 - 0.796848564174789j, -0.691728925764907 - 0.357250347925599j]
    assert_close(h[-1, [0, 7]], torch.tensor(ends, dtype=torch.complex128), **PRINTED)
    o = [-0.19270505227099, 0.0956418667640612, 0.21188397791513]
    assert_close(read_out(outputs[-1, 0]), double(o), **PRINTED)


@pytest.mark.parametrize("product", ["fast", "dense"])
def test_u8_gradients(product: str) -> None:
    cell, x = sheet_cell(product)
    loss = 0.5 * read_out(scan(cell, x)[0][-1, 0]).square().sum()
    loss.backward()
    assert_close(loss.detach(), double(0.0455887119730094), **PRINTED)
    theta, b = cell.W.theta.grad, cell.b.grad
    v, h_0 = complex_of(cell.W.v.grad), complex_of(cell.h_0.grad)
    V = torch.complex(*cell.V.grad.chunk(2))
    expected = [
        (theta.norm(), 0.444459332335376),
        (theta[1, 2], 0.0280776957824144),
        (v[0, 0], -0.00276968153149276 + 0.0715711425518543j),
        (b[3], -0.0277180653241304),
        (V[1, 1], 0.0529532385839666 + 0.0739645883398942j),
        (h_0[0], 0.0130745275122717 - 0.0262451031087074j),
    ]
    for got, number in expected:
        assert_close(got, torch.tensor(number, dtype=got.dtype), **PRINTED)
    # P6: the gradient is orthogonal to the ray of v
    axes = complex_of(cell.W.v.detach())
    assert ((axes.conj() * v).sum(-1)).abs().max() < 1e-15


def model(network: str, units: int, inputs: int, classes: int, **physics: Any) -> Model:
    return Model(ModelSpec(inputs, classes, (Node(network, units, physics=physics),)), device="meta")


def count(model: Model) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("units", "inputs", "classes", "numbers"), [(128, 10, 9, 6153), (512, 2, 1, 8193)])
def test_u9_counts(units: int, inputs: int, classes: int, numbers: int) -> None:
    assert count(model("URNN", units, inputs, classes)) == numbers == units * (2 * inputs + 2 * classes + 10) + classes


def test_u9_count_for_images_is_the_one_annotated_in_stwisdoms_code() -> None:
    assert count(model("URNN", 512, 1, 10)) == 16394 == 32 * 512 + 10


@pytest.mark.parametrize(("units", "published"), [(116, 16366), (512, 274954)])
def test_full_capacity_counts_take_the_dimension_of_the_unitary_group(units: int, published: int) -> None:
    # stored are 2 n^2 numbers, of which n^2 are free
    assert count(model("FullCapacityURNN", units, 1, 10)) - units**2 == published == units**2 + 25 * units + 10


@pytest.mark.parametrize(("units", "capacity", "pairing"), [(6, 4, "tunable"), (7, 2, "tunable"), (16, None, "fft")])
def test_eurnn_counts(units: int, capacity: int | None, pairing: str) -> None:
    cell = EURNNCell(1, units, capacity=capacity, pairing=pairing)
    n = sum(p.numel() for p in cell.W.parameters())
    if pairing == "fft":
        assert n == units * round(math.log2(units)) + units
    else:
        assert n == 2 * (capacity // 2) * (units // 2 + (units - 1) // 2) + units


def test_u11_start_states_have_norm_one_on_average() -> None:
    cell = URNNCell(1, 128, dtype=torch.float64)
    norms = []
    for _ in range(10_000):
        cell.reset_parameters()
        norms.append(cell.h_0.detach().square().sum())
    # sheet: the standard deviation of the mean is about 6e-4
    assert torch.stack(norms).mean().item() == pytest.approx(1, abs=3 * 6e-4)


def test_the_starting_distributions_have_their_published_bounds() -> None:
    cell = URNNCell(1, 512, dtype=torch.float64)
    bounds = {"V": 0.0765092056, "h_0": 0.0541265877, "b": 0.01, "W.theta": math.pi, "W.v": (6 / 1026) ** 0.5}
    weights = dict(cell.named_parameters())
    for name, bound in bounds.items():
        largest = weights[name].abs().max().item()
        assert 0.99 * bound < largest <= bound * (1 + 1e-9), name


def test_bias_range_zero_starts_modrelu_as_the_identity() -> None:
    assert not URNNCell(2, 5, bias_range=0.0).b.any()


def test_the_permutation_is_drawn_once_and_saved() -> None:
    cell, other = URNNCell(2, 50), URNNCell(2, 50)
    perm = cell.W.perm.clone()
    assert sorted(perm.tolist()) == list(range(50))
    assert not torch.equal(perm, other.W.perm)
    cell.reset_parameters()
    assert torch.equal(cell.W.perm, perm)
    other.load_state_dict(cell.state_dict())
    assert torch.equal(other.W.perm, perm)


CELLS = [
    lambda **options: URNNCell(2, 6, dtype=torch.float64, **options),
    lambda **options: URNNCell(2, 6, product="dense", dtype=torch.float64, **options),
    lambda **options: FullCapacityURNNCell(2, 6, dtype=torch.float64, **options),
    lambda **options: FullCapacityURNNCell(2, 6, init="structured", dtype=torch.float64, **options),
]


@pytest.mark.parametrize("make", CELLS)
def test_p5_without_input_and_bias_the_norm_stays(make: Any) -> None:
    cell = make(bias=False)
    with torch.no_grad():
        outputs, _ = scan(cell, torch.zeros(200, 1, 2).double())
        start = torch.cat(cell.initial_state(1), -1).norm()
    assert_close(outputs.norm(dim=-1), start.expand(200, 1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("make", CELLS)
def test_p5_with_input_the_norm_stays_below_its_bound(make: Any) -> None:
    cell, x = make(bias_range=0.3), torch.randn(40, 3, 2).double()
    with torch.no_grad():
        outputs, _ = scan(cell, x)
        growth = cell.drive(x).norm(dim=-1).cumsum(0)
        steps = torch.arange(1, 41).double().unsqueeze(1)
        bound = cell.h_0.norm() + growth + steps * cell.b.clamp(min=0).norm()
    assert (outputs.norm(dim=-1) <= bound * (1 + tolerance.BOUND)).all()


def gradient_norms(cell: UnitaryCell, x: Tensor) -> tuple[Tensor, Tensor]:
    """|dL/dh_t| for t = 0 .. T of a loss on h_T, and the largest gain of each step."""
    state = UnitaryState(*(s.detach().requires_grad_() for s in cell.initial_state(1)))
    states, gains = [state], []
    for drive in cell.drive(x):
        gains.append(cell.max_tangential_gain(state, drive).detach())
        state = cell.step(state, drive)
        for part in state:
            part.retain_grad()
        states.append(state)
    weigh(*state).backward()
    return torch.stack([torch.cat((s.re.grad, s.im.grad)).norm() for s in states]), torch.stack(gains)


@pytest.mark.parametrize("make", CELLS)
def test_p4_gradients_grow_by_the_gain_of_each_step_at_most(make: Any) -> None:
    norms, gains = gradient_norms(make(bias_range=0.3), torch.randn(30, 1, 2).double())
    assert gains.max() > 1
    assert (norms[:-1] <= gains * norms[1:] * (1 + tolerance.BOUND)).all()


def test_p4_with_a_bias_that_is_never_positive_no_gradient_grows() -> None:
    cell = URNNCell(2, 6, bias_range=0.3, contracting=True, dtype=torch.float64)
    norms, gains = gradient_norms(cell, torch.randn(30, 1, 2).double())
    assert_close(gains, torch.ones(30).double())
    assert (norms[:-1] <= norms[1:] * (1 + tolerance.BOUND)).all()
    assert (cell.b > 0).any()


def test_p4_with_a_positive_bias_a_small_unit_stretches_its_gradient_without_bound() -> None:
    cell = URNNCell(1, 1, bias=True, dtype=torch.float64)
    torch.nn.init.constant_(cell.b, 0.1)
    drive = torch.zeros(1, 2).double()
    start = UnitaryState(torch.full((1, 1), 1e-9).double(), torch.zeros(1, 1).double())
    assert cell.max_tangential_gain(start, drive).item() == pytest.approx(1e8, rel=1e-6)


def test_section_4_the_whole_recurrence_backwards_by_hand() -> None:
    cell, x = sheet_cell()
    with torch.no_grad():
        state, drive, steps = cell.initial_state(1), cell.drive(x), []
        for d in drive:
            z = cell.preactivation(state, d)
            steps.append((torch.complex(*state), z))
            state = cell.step(state, d)
        g = complex_of(read_out(torch.cat(state, -1)) @ det((3, 16), 1.3, 0.3))
        db, dV = torch.zeros(8).double(), torch.zeros(8, 2, dtype=torch.complex128)
        for (_, z), u in zip(reversed(steps), x.flip(0), strict=True):
            size = z.abs()
            along = (z.conj() * g).real
            active = size + cell.b > 0
            db += (active * along / size)[0]
            g = active * (g * (1 + cell.b / size) - cell.b * z * along / size**3)
            dV += g.T @ u.to(g.dtype)
            g = cell.W.adjoint(g)
    loss = 0.5 * read_out(scan(cell, x)[0][-1, 0]).square().sum()
    loss.backward()
    assert_close(db, cell.b.grad, **tolerance.ROUNDING)
    assert_close(torch.cat((dV.real, dV.imag)), cell.V.grad, **tolerance.ROUNDING)
    assert_close(pairs_of(g)[0], cell.h_0.grad, **tolerance.ROUNDING)


def test_section_4_where_every_unit_lives_a_step_can_be_undone() -> None:
    cell, x = sheet_cell()
    with torch.no_grad():
        states = [cell.initial_state(1)]
        for d in cell.drive(x):
            states.append(cell.step(states[-1], d))
        h = torch.complex(*states[-1])
        assert (h.abs() > cell.b.clamp(min=0)).all()
        for d, before in zip(cell.drive(x).flip(0), reversed(states[:-1]), strict=True):
            h = cell.W.adjoint((h.abs() - cell.b) * torch.sgn(h) - complex_of(d))
            assert_close(h, torch.complex(*before), **tolerance.ROUNDING)


def test_the_dense_product_gives_the_numbers_and_gradients_of_the_fast_one() -> None:
    fast = URNNCell(2, 9, bias_range=0.1, dtype=torch.float64)
    dense = URNNCell(2, 9, product="dense", dtype=torch.float64)
    dense.load_state_dict(fast.state_dict())
    x, found = sequences(20), []
    for cell in (fast, dense):
        outputs, final = scan(cell, x)
        weigh(outputs, *final).backward()
        found.append((outputs, *final, gradients(cell)))
    assert_close(*found, **tolerance.ROUNDING)


def test_the_state_starts_at_h_0_for_all_sequences() -> None:
    cell = URNNCell(2, 5)
    re, im = cell.initial_state(4)
    assert_close(torch.cat((re, im), -1), cell.h_0.expand(4, -1), **tolerance.EXACT)


def test_eurnn_shows_the_real_part_and_starts_at_zero() -> None:
    cell = EURNNCell(2, 8, pairing="fft", dtype=torch.float64)
    assert not any(s.any() for s in cell.initial_state(2))
    outputs, final = scan(cell, sequences())
    assert_close(outputs[-1], final.re, **tolerance.EXACT)
    assert final.im.any()


def test_eurnn_takes_the_modulus_with_its_offset_above_and_below() -> None:
    cell = EURNNCell(2, 4, dtype=torch.float64)
    torch.nn.init.uniform_(cell.b, -0.2, 0.2)
    torch.nn.init.uniform_(cell.V, -1, 1)
    state = UnitaryState(torch.randn(3, 4).double(), torch.randn(3, 4).double())
    drive = cell.drive(sequences(1))[0]
    new = cell.step(state, drive)
    z = cell.preactivation(state, drive)
    modulus = z.abs() + 0.01
    assert_close(torch.complex(*new), torch.relu(modulus + cell.b) * z / modulus, **tolerance.ROUNDING)


@pytest.mark.parametrize("bias", [False, True])
def test_without_a_bias_eurnn_is_linear(bias: bool) -> None:
    cell = EURNNCell(2, 4, bias, dtype=torch.float64)
    state = UnitaryState(torch.randn(3, 4).double(), torch.randn(3, 4).double())
    drive = cell.drive(sequences(1))[0]
    # b = 0 at the start
    expected = cell.preactivation(state, drive)
    assert_close(torch.complex(*cell.step(state, drive)), expected, **tolerance.ROUNDING)


def authors() -> dict[str, Any]:
    """Weights in the authors' layout: d = 2, n = 8."""
    names = {"V": (2, 16), "hidden_bias": (8,), "reflection": (2, 16), "theta": (3, 8), "h_0": (1, 16)}
    state = {name: det(shape, 0.3 * k, 0.4).numpy() for k, (name, shape) in enumerate(names.items())}
    return {**state, "index_permute": PERM.numpy(), "U": numpy.zeros((16, 3)), "out_bias": numpy.zeros(3)}


def test_the_authors_weights_give_the_numbers_of_their_recurrence() -> None:
    state, x = authors(), sequences(4, 1)
    cell = URNNCell(2, 8, eps=1e-5, dtype=torch.float64)
    cell.load_state_dict(urnn_author_weights(state))
    V, b, reflection, theta, h = (
        torch.as_tensor(state[key]) for key in ("V", "hidden_bias", "reflection", "theta", "h_0")
    )
    # their recurrence on [Re | Im], with their bilinear reflection h - 2 conj(v) (v^T h) / |v|^2 written out
    h, v, turn = complex_of(h), complex_of(reflection), torch.exp(1j * theta)

    def mirrored(y: Tensor, v: Tensor) -> Tensor:
        return y - 2 * (y @ v).unsqueeze(-1) * v.conj() / v.abs().square().sum()

    for u in x:
        y = mirrored(torch.fft.fft(h * turn[0], norm="ortho"), v[0])[:, PERM]
        y = mirrored(torch.fft.ifft(y * turn[1], norm="ortho"), v[1]) * turn[2] + complex_of(u @ V)
        h = y * torch.relu(y.abs() + b) / (y.abs() + 1e-5)
    with torch.no_grad():
        _, final = scan(cell, x)
    assert_close(torch.complex(*final), h, **tolerance.ROUNDING)


@pytest.mark.parametrize("spoil", [{"theta": numpy.zeros((2, 8))}, {"h_0": numpy.zeros(8)}, {"V": numpy.zeros((2, 8))}])
def test_authors_weights_of_other_sizes_are_refused(spoil: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sizes of a uRNN of 8 units don't fit one another: got V"):
        urnn_author_weights(authors() | spoil)


def test_what_is_no_uRNN_of_the_authors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not the weights of a uRNN: V, .* missing, got W"):
        urnn_author_weights({"W": numpy.zeros(3)})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: URNNCell(2, 3, product="quick"), "product must be one of fast, dense, got 'quick'"),
        (lambda: URNNCell(2, 3, eps=-1.0), "eps must be at least 0, got -1.0"),
        (lambda: URNNCell(2, 3, bias_range=-1.0), "bias_range must be at least 0, got -1.0"),
        (lambda: URNNCell(2, 3, contracting=True, bias_range=0.0), "bias_range must be positive"),
        (lambda: URNNCell(2, 0), "hidden_size must be a whole number, at least 1, got 0"),
        (lambda: FullCapacityURNNCell(2, 3, init="haar"), "init must be one of gaussian, structured, got 'haar'"),
        (lambda: EURNNCell(2, 1), "rotations need at least 2 units, got 1"),
        (lambda: EURNNCell(2, 6, pairing="fft"), "needs 2, 4, 8, ... units, got 6: take pairing='tunable'"),
        (lambda: EURNNCell(2, 8, pairing="fft", capacity=4), r"is log2\(units\), got 4: leave capacity out"),
        (lambda: EURNNCell(2, 8, capacity=3), "capacity must be even and at most the 8 units, got 3"),
        (lambda: EURNNCell(2, 3, capacity=4), "capacity must be even and at most the 3 units, got 4"),
        (lambda: EURNNCell(2, 8, pairing="ring"), "pairing must be one of tunable, fft, got 'ring'"),
    ],
)
def test_impossible_arguments_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("make", [URNNCell, FullCapacityURNNCell])
def test_one_unit_is_enough(make: Any) -> None:
    cell = make(1, 1, dtype=torch.float64)
    outputs, _ = scan(cell, torch.randn(5, 2, 1).double())
    assert outputs.shape == (5, 2, 2)
    assert torch.isfinite(outputs).all()


@pytest.mark.parametrize("make", [URNNCell, FullCapacityURNNCell, EURNNCell])
def test_tau_is_refused(make: Any) -> None:
    cell = make(2, 4)
    with pytest.raises(ValueError, match="has no time step, so tau"):
        cell.step(cell.initial_state(1), torch.zeros(1, 8), tau=torch.ones(1, 1))


def test_zero_input_from_a_zero_state_gives_zeros_and_no_nan() -> None:
    cell = EURNNCell(2, 4)
    outputs, _ = scan(cell, torch.zeros(3, 1, 2))
    outputs.sum().backward()
    assert not outputs.any()
    assert all(torch.isfinite(p.grad).all() for p in cell.parameters())


def test_training_keeps_the_full_capacity_matrix_unitary() -> None:
    layer, x = pendula.FullCapacityURNN(2, 5, dtype=torch.float64), sequences()
    optimiser, start = make_optimiser(layer, lr=0.05), layer.cells[0].W.dense().detach()
    for _ in range(20):
        optimiser.zero_grad()
        layer(x)[0].square().sum().backward()
        optimiser.step()
    with torch.no_grad():
        assert (layer.cells[0].W.dense() - start).abs().max() > 0.01
        assert layer.cells[0].W.defect() < 1e-14


class StartContract(LayerContract):
    """Biases of both signs, small beside the units: some units die, most don't."""

    def layer(self, num_layers: int = 1, *, dtype: torch.dtype = torch.float64, **options: Any) -> pendula.Recurrent:
        layer = super().layer(num_layers, dtype=dtype, **options)
        for cell in layer.cells:
            if cell.b is not None:
                torch.nn.init.uniform_(cell.b, -0.03, 0.03)
        return layer


class LearnedStartContract(StartContract):
    """The start is learned; the contract's finite differences give a state, and so pass it by."""

    def test_gradients_of_the_start_are_those_of_finite_differences(self) -> None:
        layer, x = self.layer(2), sequences(3)
        weights = dict(layer.named_parameters())

        def run(*parameters: Tensor) -> Tensor:
            outputs, _ = torch.func.functional_call(layer, dict(zip(weights, parameters, strict=True)), (x,))
            return outputs

        assert "cells.1.h_0" in weights
        assert torch.autograd.gradcheck(run, tuple(p.detach().requires_grad_() for p in weights.values()))


# bias_range 0: a unit that is dead at the start would make 0 / 0 of the mask that a test divides out


class TestURNN(LearnedStartContract):
    network = "URNN"
    physics: ClassVar = {"bias_range": 0.0}


class TestURNNDense(LearnedStartContract):
    network = "URNN"
    physics: ClassVar = {"product": "dense", "bias_range": 0.0, "eps": 1e-5}


class TestURNNContracting(LearnedStartContract):
    network = "URNN"
    physics: ClassVar = {"contracting": True, "bias_range": 1e-9}


class TestFullCapacityURNN(LearnedStartContract):
    network = "FullCapacityURNN"
    physics: ClassVar = {"bias_range": 0.0}


class TestEURNN(StartContract):
    network = "EURNN"
    physics: ClassVar = {"capacity": 2}

    def layer(self, *arguments: Any, **options: Any) -> pendula.Recurrent:
        layer = super().layer(*arguments, **options)
        for cell in layer.cells:
            # the published start of V is so small that a second layer would see next to nothing
            torch.nn.init.uniform_(cell.V, -0.7, 0.7)
        return layer
