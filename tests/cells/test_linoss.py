"""LinOSS and D-LinOSS: the formulas of the issue, their eigenvalues, order and bounds, and the block around them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm
from torch.testing import assert_close

import pendula
from pendula import ShapeError, scan
from pendula.cells import DLinOSSCell, LinOSSCell
from pendula.cells.linoss import OscillatorState
from pendula.math.associative import linear_recurrence
from pendula.math.linear_oscillator import SCHEMES, clamped, ring, step_matrix
from tests import tolerance
from tests.contracts.layer import LayerContract, gradients, weigh

EACH = pytest.mark.parametrize("scheme", SCHEMES)
# a network and its discretisation
NETWORKS = [(LinOSSCell, "im"), (LinOSSCell, "imex"), *((DLinOSSCell, scheme) for scheme in SCHEMES)]
BOTH = pytest.mark.parametrize(("kind", "discretisation"), NETWORKS)


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def drawn(scheme: str, count: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """A, G and h of oscillators inside the region of the scheme: of eigenvalues of modulus 0.5 to 0.99."""
    h = 0.05 + torch.rand(count).double()
    hhA, hG = ring(scheme, 0.5 + 0.49 * torch.rand(count).double(), 0.1 + 2.9 * torch.rand(count).double())
    return hhA / h**2, hG / h, h


def eigenvalues(matrix: Tensor) -> Tensor:
    """(P, 2) of step matrices (2, 3, P)."""
    return torch.linalg.eigvals(matrix[:, :2].permute(2, 0, 1))


def modulus(scheme: str, A: Tensor, G: Tensor, h: Tensor) -> Tensor:
    """|lambda| as the issue has it for im (G = 0) and imex1, and as derived here: the root of the determinant."""
    if scheme == "imex1":
        return (1 + h * G) ** -0.5
    if scheme == "imex2":
        return (1 - h * G) ** 0.5
    return (1 + h * G + h * h * A) ** -0.5 if scheme == "im" else (1 - h * G + h * h * A) ** 0.5


# --- the matrices, as the issue writes them


def blocks(*entries: Tensor) -> Tensor:
    return torch.stack(entries).reshape(2, 2, -1)


def test_im_is_the_matrix_of_the_issue() -> None:
    A, h = 5 * torch.rand(50).double(), torch.rand(50).double()
    S = 1 / (1 + h**2 * A)
    M = blocks(1 - h**2 * A * S, -h * A * S, h * S, S)
    got = step_matrix("im", A, torch.zeros_like(A), h)
    assert_close(got[:, :2], M, **tolerance.ROUNDING)
    # F = M [dt B u; 0]
    assert_close(got[:, 2], M[:, 0] * h, **tolerance.ROUNDING)
    assert_close(eigenvalues(got).abs().T, ((1 + h**2 * A) ** -0.5).expand(2, -1), **tolerance.ROUNDING)


def test_imex_is_the_matrix_of_the_issue() -> None:
    h = 0.1 + torch.rand(50).double()
    A = 3.99 * torch.rand(50).double() / h**2
    one = torch.ones_like(h)
    got = step_matrix("imex1", A, torch.zeros_like(A), h)
    assert_close(got[:, :2], blocks(one, -h * A, h, 1 - h**2 * A), **tolerance.ROUNDING)
    assert_close(got[:, 2], torch.stack((h, h**2)), **tolerance.ROUNDING)
    assert_close(eigenvalues(got).abs(), one.unsqueeze(1).expand(-1, 2), **tolerance.ROUNDING)


def test_imex_leaves_the_unit_circle_beyond_its_limit() -> None:
    h = double([0.7])
    got = step_matrix("imex1", 4.04 / h**2, double([0.0]), h)
    assert eigenvalues(got).abs().max() > 1.2


def test_imex1_is_the_matrix_of_the_issue() -> None:
    A, G, h = drawn("imex1")
    S = 1 / (1 + h * G)
    got = step_matrix("imex1", A, G, h)
    assert_close(got[:, :2], blocks(S, -h * S * A, h * S, 1 - h**2 * S * A), **tolerance.ROUNDING)
    assert_close(got[:, 2], torch.stack((h * S, h**2 * S)), **tolerance.ROUNDING)


@EACH
def test_a_step_solves_the_equations_that_define_it(scheme: str) -> None:
    A, G, h = drawn(scheme)
    z, y, f = torch.randn(3, 200).double()
    M = step_matrix(scheme, A, G, h)
    new_z, new_y = M[:, 0] * z + M[:, 1] * y + M[:, 2] * f
    stiff = new_y if scheme == "im" else y
    damped = new_z if scheme in ("im", "imex1") else z
    assert_close(new_z, z + h * (-A * stiff - G * damped + f), rtol=1e-10, atol=1e-12)
    assert_close(new_y, y + h * (z if scheme == "ex" else new_z), rtol=1e-10, atol=1e-12)


# --- eigenvalues, ring and region


@EACH
def test_the_ring_gives_the_eigenvalues_it_was_asked_for(scheme: str) -> None:
    r, theta = 0.3 + 0.7 * torch.rand(200).double(), 0.05 + 3.0 * torch.rand(200).double()
    hhA, hG = ring(scheme, r, theta)
    h = 0.1 + torch.rand(200).double()
    found = eigenvalues(step_matrix(scheme, hhA / h**2, hG / h, h))
    found = found.gather(1, found.imag.argmax(1, keepdim=True))[:, 0]
    assert_close(found, torch.polar(r, theta), rtol=1e-11, atol=1e-12)


def test_the_ring_of_imex1_is_the_closed_form_of_the_issue() -> None:
    r, theta, dt = double([0.95, 0.6]), double([0.3, 2.0]), 0.4
    hhA, hG = ring("imex1", r, theta)
    assert_close(hG / dt, (r**-2 - 1) / dt, **tolerance.ROUNDING)
    assert_close(hhA / dt**2, (1 - 2 * torch.cos(theta) / r + r**-2) / dt**2, **tolerance.ROUNDING)


@EACH
def test_moduli_follow_from_the_determinant(scheme: str) -> None:
    A, G, h = drawn(scheme)
    found = eigenvalues(step_matrix(scheme, A, G, h))
    assert bool((found.imag.abs() > 0).all())
    assert_close(found.abs(), modulus(scheme, A, G, h).unsqueeze(1).expand(-1, 2), **tolerance.ROUNDING)


@EACH
def test_a_clamp_leaves_alone_what_lies_in_the_region(scheme: str) -> None:
    A, G, h = drawn(scheme)
    assert_close(clamped(scheme, A, G, h), (A, G), **tolerance.EXACT)


@EACH
def test_clamped_oscillators_have_the_modulus_of_the_region_and_never_grow(scheme: str) -> None:
    count = 5000
    h = 0.01 + 3 * torch.rand(count).double()
    A, G = 30 * torch.randn(count).double(), 10 * torch.randn(count).double()
    A, G = clamped(scheme, A, G, h)
    found = eigenvalues(step_matrix(scheme, A, G, h)).abs()
    expected = modulus(scheme, A, G, h).unsqueeze(1).expand(-1, 2)
    assert bool((expected <= 1 + 1e-12).all())
    # on the border both eigenvalues meet, and rounding moves them by the root of its size
    assert_close(found, expected, rtol=0, atol=1e-6)
    assert bool((A >= 0).all())


def test_the_clamp_of_imex1_is_that_of_the_issue() -> None:
    G, h = 5 * torch.rand(100).double(), 0.1 + torch.rand(100).double()
    q = 2 * torch.sqrt(1 + h * G)
    low, high = (2 + h * G - q) / h**2, (2 + h * G + q) / h**2
    assert_close(clamped("imex1", low - 1, G, h)[0], low, rtol=1e-9, atol=1e-9)
    assert_close(clamped("imex1", high + 1, G, h)[0], high, rtol=1e-9, atol=0)
    assert not clamped("imex1", low, -G, h)[1].any()


@EACH
def test_a_clamp_gives_finite_gradients_everywhere(scheme: str) -> None:
    h = 0.01 + 3 * torch.rand(5000).double()
    A, G = 30 * torch.randn(5000).double(), 10 * torch.randn(5000).double()
    # the edges of the regions too
    G[:3], A[3:6] = torch.stack((1 / h[0], 4 / h[1], 0 * h[2])), 0
    leaves = [t.requires_grad_() for t in (A, G, h)]
    step_matrix(scheme, *clamped(scheme, A, G, h), h).sum().backward()
    assert all(bool(torch.isfinite(t.grad).all()) for t in leaves)


# --- the differential equation, conservation and decay


@EACH
def test_steps_tend_to_the_solution_of_the_equation_to_first_order(scheme: str) -> None:
    A, G = 4.0, 0.5
    # z, y and a held force
    flow = double([[-G, -A, 1], [1, 0, 0], [0, 0, 0]])
    start = double([0.3, -0.2, 0.7])
    exact = (torch.matrix_exp(flow) @ start)[:2]
    errors = []
    for steps in (100, 200, 400):
        matrix = step_matrix(scheme, double([A]), double([G]), double([1 / steps]))
        M = torch.cat((matrix[..., 0], double([[0, 0, 1]])))
        errors.append((torch.linalg.matrix_power(M, steps) @ start)[:2].sub(exact).norm().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=tolerance.OBSERVED_ORDER)


@EACH
def test_the_step_tends_to_the_vector_field_where_the_clamp_acts_too(scheme: str) -> None:
    cell = DLinOSSCell(2, 3, discretisation=scheme, dtype=torch.float64)
    with torch.no_grad():
        cell.A.copy_(torch.tensor([-1.0, 0.1, 3.0]))
        cell.G.copy_(torch.tensor([0.5, 2.0, 0.4]))
        state = OscillatorState(*torch.randn(2, 1, 3).double())
        drive = cell.drive(torch.randn(1, 1, 2).double())[0]
        field, errors = torch.stack(cell.vector_field(state, drive)), []
        for tau in (1e-4, 5e-5):
            moved = torch.stack(cell.step(state, drive, tau=double([[tau]])))
            errors.append(((moved - torch.stack(state)) / (tau * cell.dt) - field).abs().max().item())
    assert errors[0] < 1e-3
    # explicit Euler has the slope of the equation at once, up to rounding
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.01, abs=1e-10)
    assert (errors[0] < 1e-10) == (scheme == "ex")


def free(matrix: Tensor, start: Tensor, steps: int = 10_000) -> Tensor:
    """(2, T, P): the motion without a force, by the associative scan."""
    return linear_recurrence(matrix[:, :2], torch.zeros(2, steps, matrix.shape[2]).double(), start)


def test_imex_conserves_its_energy_over_ten_thousand_steps() -> None:
    h = 0.1 + torch.rand(20).double()
    A, start = 3.5 * torch.rand(20).double() / h**2, torch.randn(2, 20).double()
    z, y = free(step_matrix("imex1", A, torch.zeros_like(A), h), start)
    z0, y0 = start
    # the energy that symplectic Euler keeps, h A z y beside that of the equation
    energy, before = z**2 + A * y**2 - h * A * z * y, z0**2 + A * y0**2 - h * A * z0 * y0
    assert_close(energy, before.expand_as(energy), rtol=1e-10, atol=0)


def test_im_loses_the_same_share_of_its_energy_at_each_step() -> None:
    h, A, start = 0.1 + torch.rand(20).double(), torch.rand(20).double(), torch.randn(2, 20).double()
    z, y = free(step_matrix("im", A, torch.zeros_like(A), h), start, 500)
    energy = torch.cat(((start[0] ** 2 + A * start[1] ** 2).unsqueeze(0), z**2 + A * y**2))
    assert_close(energy[1:] * (1 + h**2 * A), energy[:-1], rtol=1e-11, atol=1e-200)


@EACH
def test_ten_thousand_free_steps_stay_within_the_decay_of_the_eigenvalues(scheme: str) -> None:
    h, r = 0.1 + torch.rand(20).double(), 0.999 + 0.001 * torch.rand(20).double()
    hhA, hG = ring(scheme, r, 0.1 + 2.9 * torch.rand(20).double())
    matrix = step_matrix(scheme, hhA / h**2, hG / h, h)
    vectors = torch.linalg.eig(matrix[:, :2].permute(2, 0, 1))[1]
    start = torch.randn(2, 20).double()
    motion = free(matrix, start).norm(dim=0)
    bound = torch.linalg.cond(vectors) * start.norm(dim=0) * r ** torch.arange(1, 10_001).double().unsqueeze(1)
    assert bool((motion <= bound * (1 + 1e-9)).all())


@BOTH
def test_a_driven_block_stays_bounded_over_ten_thousand_steps_in_single_precision(
    kind: Any, discretisation: str
) -> None:
    physics = {} if kind is LinOSSCell else {"r_max": 0.999}
    cell = kind(2, 8, discretisation=discretisation, **physics)
    x = torch.randn(10_000, 1, 2)
    with torch.no_grad():
        outputs, final = scan(cell, x)
        expected, last = scan(cell.double(), x.double(), backend="reference")
    for got, true in zip((outputs, *final), (expected, *last), strict=True):
        # at worst, ten thousand roundings of 6e-8 add up
        assert (got - true).abs().max() < 6e-4 * max(1.0, true.abs().max().item())


@EACH
def test_a_step_of_any_length_is_stable(scheme: str) -> None:
    cell = DLinOSSCell(2, 50, discretisation=scheme, dtype=torch.float64)
    for tau in (0.01, 1.0, 3.0, 100.0):
        assert eigenvalues(cell.matrix(cell.dt * tau)).abs().max() <= 1 + 1e-6


# --- over time: all at once and step by step


@BOTH
@pytest.mark.parametrize(("steps", "batch", "units", "oscillators"), [(1, 1, 2, 3), (2, 3, 3, 1), (63, 2, 37, 5)])
@pytest.mark.parametrize("spanned", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_all_at_once_is_step_by_step(
    kind: Any, discretisation: str, steps: int, batch: int, units: int, oscillators: int, spanned: bool, padded: bool
) -> None:
    cell = kind(2, units, discretisation=discretisation, oscillators=oscillators, dtype=torch.float64)
    x, start = torch.randn(steps, batch, 2).double(), torch.randn(2, batch, oscillators).double()
    spans = 0.5 + torch.rand(steps, batch).double() if spanned else None
    lengths = torch.randint(1, steps + 1, (batch,)) if padded else None
    found = []
    for backend in ("fused", "reference"):
        given = [t.clone().requires_grad_() for t in (x, start, spans) if t is not None]
        state = OscillatorState(*given[1])
        tau = given[2] if spanned else None
        outputs, final = scan(cell, given[0], state, lengths=lengths, timespans=tau, backend=backend)
        cell.zero_grad()
        weigh(outputs, *final).backward()
        found.append((outputs, final, [g.grad for g in given], gradients(cell)))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


# --- the block


def test_the_block_is_its_formula() -> None:
    cell = DLinOSSCell(3, 4, oscillators=5, dtype=torch.float64)
    x, state = torch.randn(1, 2, 3).double(), OscillatorState(*torch.randn(2, 2, 5).double())
    outputs, final = scan(cell, x, state)
    e = x[0] @ cell.encoder.weight.T + cell.encoder.bias
    u = layer_norm(e, (4,))
    z = (state.z + cell.dt * (u @ cell.B.T - cell.A * state.y)) / (1 + cell.dt * cell.G)
    y = state.y + cell.dt * z
    left, right = (gelu(y @ cell.C.T + cell.D * u) @ cell.gate.weight.T + cell.gate.bias).chunk(2, -1)
    assert_close(final, OscillatorState(z, y), **tolerance.ROUNDING)
    assert_close(outputs[0], e + left * torch.sigmoid(right), **tolerance.ROUNDING)


def test_an_input_as_wide_as_the_block_is_its_own_encoding() -> None:
    cell = LinOSSCell(4, 4, dtype=torch.float64)
    assert cell.encoder is None
    torch.nn.init.zeros_(cell.gate.weight)
    torch.nn.init.zeros_(cell.gate.bias)
    x = torch.randn(5, 2, 4).double()
    assert_close(scan(cell, x)[0], x, **tolerance.EXACT)


def test_parameters_and_their_shapes() -> None:
    shapes = {name: tuple(p.shape) for name, p in DLinOSSCell(3, 4, oscillators=5).named_parameters()}
    expected = {"A": (5,), "G": (5,), "log_dt": (5,), "B": (5, 4), "C": (4, 5), "D": (4,)}
    block = {"encoder.weight": (4, 3), "encoder.bias": (4,), "gate.weight": (8, 4), "gate.bias": (8,)}
    assert shapes == expected | block
    assert {name for name, _ in LinOSSCell(4, 4, False).named_parameters()} == {
        "A",
        "log_dt",
        "B",
        "C",
        "D",
        "gate.weight",
    }


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cell_starts_on_its_ring(scheme: str, dtype: torch.dtype) -> None:
    where = {"r_min": 0.9, "r_max": 0.9, "theta_min": 1.2, "theta_max": 1.2}
    cell = DLinOSSCell(2, 7, discretisation=scheme, dt=torch.linspace(0.1, 2, 7), dtype=dtype, **where)
    found = eigenvalues(cell.steady.detach().double())
    found = found.gather(1, found.imag.argmax(1, keepdim=True))[:, 0]
    expected = torch.polar(double(0.9), double(1.2)).expand(7)
    close = tolerance.ROUNDING if dtype == torch.float64 else tolerance.FLOAT32
    assert_close(found, expected, **close)


@EACH
def test_the_ring_is_filled_evenly(scheme: str) -> None:
    torch.manual_seed(0)
    where = {"r_min": 0.5, "r_max": 0.8, "theta_min": 0.5, "theta_max": 2.0}
    cell = DLinOSSCell(2, 2, oscillators=20_000, discretisation=scheme, dtype=torch.float64, **where)
    found = eigenvalues(cell.steady.detach())
    found = found.gather(1, found.imag.argmax(1, keepdim=True))[:, 0]
    area, angle = (found.abs() ** 2 - 0.25) / 0.39, (found.angle() - 0.5) / 1.5
    for share in (area, angle):
        # five standard errors of the mean of a uniform variable
        assert share.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * 20_000))
        assert -1e-9 < share.min().item() < 1e-3
        assert 1 - 1e-3 < share.max().item() < 1 + 1e-9


def test_the_oscillators_of_linoss_start_between_zero_and_the_largest_stiffness() -> None:
    cell = LinOSSCell(2, 2, oscillators=5000, A_max=3.0)
    assert 0 <= cell.A.min() < 0.01
    assert 2.99 < cell.A.max() <= 3


def test_dt_is_learned_by_each_oscillator() -> None:
    cell = LinOSSCell(2, 4, oscillators=3, dt=double([0.1, 0.2, 0.4]), dtype=torch.float64)
    assert_close(cell.dt.detach(), double([0.1, 0.2, 0.4]), **tolerance.ROUNDING)
    outputs, _ = scan(cell, torch.randn(3, 2, 2).double())
    outputs.sum().backward()
    assert bool((cell.log_dt.grad != 0).all())


@pytest.mark.parametrize(
    ("kind", "physics", "error", "said"),
    [
        (LinOSSCell, {"discretisation": "imx"}, ValueError, "discretisation must be one of im, imex, got 'imx'"),
        (DLinOSSCell, {"discretisation": "imex"}, ValueError, "discretisation must be one of imex1, imex2, im, ex"),
        (LinOSSCell, {"oscillators": 0}, ValueError, "oscillators must be a whole number, at least 1, got 0"),
        (LinOSSCell, {"dt": -1.0}, ValueError, "dt must be positive and finite, got -1.0"),
        (LinOSSCell, {"dt": [0.1, 0.2]}, ShapeError, r"dt must be one number or one per unit, shape \(\) or \(4,\)"),
        (LinOSSCell, {"A_max": 0.0}, ValueError, "A_max must be positive, got 0.0"),
        (LinOSSCell, {"A_max": "1"}, ValueError, "A_max must be a finite number, got '1'"),
        (DLinOSSCell, {"r_min": 0.0}, ValueError, "0 < r_min <= r_max <= 1 must hold, got r_min 0.0"),
        (DLinOSSCell, {"r_max": 1.1}, ValueError, "0 < r_min <= r_max <= 1 must hold, got r_min 0.9 and r_max 1.1"),
        (DLinOSSCell, {"theta_max": 4}, ValueError, "0 <= theta_min <= theta_max <= pi must hold, got theta_min 0.0"),
        (DLinOSSCell, {"theta_min": 2, "theta_max": 1}, ValueError, "0 <= theta_min <= theta_max <= pi must hold"),
    ],
)
def test_impossible_physics_is_refused(kind: Any, physics: dict[str, Any], error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        kind(2, 4, **physics)


@pytest.mark.parametrize("kind", [LinOSSCell, DLinOSSCell])
def test_a_block_of_one_feature_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="hidden_size must be at least 2, got 1: the norm of one feature"):
        kind(2, 1)


def test_the_command_line_names_the_associative_scan() -> None:
    listing = pytest.importorskip("pendula.listing")
    assert {row[0]: row[1] for row in listing._backends()[1]}["LinOSS"].startswith("associative scan")


# --- the contract


class BlockContract(LayerContract):
    """Dropout acts within the block, on the branch beside the encoding: the mask is looked for there."""

    def layer(self, num_layers: int = 1, **options: Any) -> pendula.Recurrent:
        layer = super().layer(num_layers, **options)
        with torch.no_grad():
            for cell in layer.cells:
                # the norm of features that happen to be nearly equal magnifies rounding by one over their spread
                if cell.encoder is not None:
                    cell.encoder.bias.copy_(torch.linspace(-1, 1, cell.hidden_size))
        return layer

    def wide(self, num_layers: int, **options: Any) -> pendula.Recurrent:
        return self.kind(2, 64, num_layers, dropout=0.5, dtype=torch.float64, **self.physics, **options)

    def branch(self, cell: Any, x: Tensor, outputs: Tensor) -> Tensor:
        return outputs - (x if cell.encoder is None else cell.encoder(x))

    def masks(self, monkeypatch: pytest.MonkeyPatch, layer: pendula.Recurrent) -> list[Tensor]:
        """What each layer's branch was multiplied by: (T, B, N)."""
        entered, left, outputs = self._spied(monkeypatch, layer, torch.randn(6, 4, 2).double())
        for seen, follows in zip(left, [*entered[1:], outputs], strict=True):
            assert_close(seen, follows, **tolerance.EXACT)
        layer.eval()
        full = [scan(cell, x)[0] for cell, x in zip(layer.cells, entered, strict=True)]
        layer.train()
        return [
            self.branch(cell, x, seen) / self.branch(cell, x, whole)
            for cell, x, seen, whole in zip(layer.cells, entered, left, full, strict=True)
        ]

    def locked(self, mask: Tensor) -> bool:
        assert_close(mask, mask[0].expand_as(mask), rtol=0, atol=1e-6)
        return set(mask[0].round(decimals=3).unique().tolist()) == {0.0, 2.0} and not torch.equal(
            mask[0, 0], mask[0, 1]
        )

    def test_dropout_holds_one_mask_per_sequence_over_all_times(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, _ = self.masks(monkeypatch, self.wide(2))
        assert self.locked(first)

    def test_dropout_draws_anew_for_each_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer, x = self.wide(1), torch.randn(6, 4, 2).double()
        assert not torch.equal(layer(x)[0], layer(x)[0])

    def test_dropout_spares_the_last_layer_if_so_wished(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, last = self.masks(monkeypatch, self.wide(2, dropout_last=False))
        assert self.locked(first)
        assert_close(last, torch.ones_like(last), rtol=0, atol=1e-6)
        both = self.wide(2, dropout_last=False, bidirectional=True)
        both(torch.randn(6, 4, 2).double())
        assert [cell.dropout for cell in both.cells] == [0.5, 0.5, 0.0, 0.0]

    def test_dropout_can_be_changed_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = self.wide(2)
        layer.dropout = 0.0
        for mask in self.masks(monkeypatch, layer):
            assert_close(mask, torch.ones_like(mask), rtol=0, atol=1e-6)
        layer.dropout, layer.dropout_last = 0.5, False
        first, last = self.masks(monkeypatch, layer)
        assert self.locked(first)
        assert_close(last, torch.ones_like(last), rtol=0, atol=1e-6)

    def test_dropout_behind_the_last_layer_holds_one_mask_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (only,) = self.masks(monkeypatch, self.wide(1))
        assert self.locked(only)

    def test_dropout_is_the_same_all_at_once_and_step_by_step(self) -> None:
        layer, x = self.wide(2), torch.randn(6, 4, 2).double()
        found = []
        for backend in ("fused", "reference"):
            torch.manual_seed(3)
            layer.backend = backend
            found.append(layer(x))
        assert_close(*found, **tolerance.ROUNDING)


class TestLinOSS(BlockContract):
    network = "LinOSS"


class TestLinOSSImex(BlockContract):
    network = "LinOSS"
    physics: ClassVar = {"discretisation": "imex", "dt": 0.8, "A_max": 3.0}


# inside the regions, so that A and G get gradients, at half and at one and a half the time step too
RING: dict[str, Any] = {"r_min": 0.7, "r_max": 0.9, "theta_min": 0.5, "theta_max": 1.4}


class TestDLinOSS(BlockContract):
    network = "DLinOSS"
    physics: ClassVar = RING


class TestDLinOSSImex2(BlockContract):
    network = "DLinOSS"
    physics: ClassVar = {**RING, "discretisation": "imex2"}


class TestDLinOSSIm(BlockContract):
    network = "DLinOSS"
    physics: ClassVar = {**RING, "discretisation": "im"}


class TestDLinOSSEx(BlockContract):
    network = "DLinOSS"
    physics: ClassVar = {**RING, "discretisation": "ex"}

    def test_the_step_tends_to_the_differential_equation(self) -> None:
        """Explicit Euler does not tend to the slope of the equation, it takes it."""
        cell, state = self.layer().cells[0], OscillatorState(*torch.randn(2, 3, 3).double())
        drive = cell.drive(torch.randn(1, 3, 2).double())[0]
        moved = torch.stack(cell.step(state, drive, tau=double([[0.5]])))
        slope = (moved - torch.stack(state)) / (0.5 * cell.dt)
        assert_close(slope, torch.stack(cell.vector_field(state, drive)), **tolerance.ROUNDING)
