"""The spectral-margin RNN: F2, F11, F12 and the properties S2 to S6 of the spec sheet spectral.md, and its contract."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import pendula
from pendula import Model, ModelSpec, Node, ShapeError, SpectralRNN, StabilityWarning, scan
from pendula.cells import SpectralRNNCell
from pendula.cells.spectral import SpectralRNNState
from pendula.learn.geodesic import make_optimiser
from pendula.math.orthogonal import orthogonality_defect, orthogonality_penalty, polar
from tests import tolerance
from tests.cells.sheet import det
from tests.contracts.layer import LayerContract

MARGINS = pytest.mark.parametrize("margin", [0, 0.3, "free"])


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def orth(M: Tensor) -> Tensor:
    return polar(2 * torch.eye(len(M), dtype=M.dtype) + M)


def made(margin: Any = 0.3, **physics: Any) -> SpectralRNNCell:
    """The cell of F11, with the bases and the spectrum that all oracles share."""
    cell = SpectralRNNCell(2, 4, margin=margin, dtype=torch.float64, **physics)
    with torch.no_grad():
        cell.U.copy_(orth(det((4, 4), 0.1, 1)))
        cell.V.copy_(orth(det((4, 4), 0.7, 1)))
        if cell.p is not None:
            cell.p.copy_(double([-1.0, 0.0, 0.5, 3.0]))
        cell.W_in.copy_(det((4, 2), 1.1, 0.3))
        if cell.b is not None:
            cell.b.copy_(det((4,), 1.2, 0.1))
    return cell


def jacobian(cell: SpectralRNNCell, x: Tensor, h: Tensor) -> Tensor:
    """dh_T / dh_0 (N, N) of one sequence x (T, I) from h (N)."""

    def last(h: Tensor) -> Tensor:
        return scan(cell, x.unsqueeze(1), SpectralRNNState(h.unsqueeze(0)))[1].h[0]

    found: Tensor = torch.autograd.functional.jacobian(last, h)  # type: ignore[no-untyped-call]
    return found


def test_f2_recurrent_matrix() -> None:
    cell = made()
    W = [0.832757870599495, -0.0189849774407834, -0.103296721260988, 0.314398186785627]
    W += [0.122849765005473, 0.908816226015259, -0.33791854796692, -0.0620527232116109]
    W += [0.162839874427118, 0.318608981948173, 1.04298954003391, -0.205925703008005]
    W += [-0.306906186333614, 0.138963073085965, 0.0512971263617108, 1.17230072406591]
    assert_close(cell.W.detach().flatten(), double(W), **tolerance.PRINTED_16)
    row = [0.900144189936977, 0.411764116094967, 0.00281292609851696, 0.142066313621485]
    assert_close(cell.U[0].detach(), double(row), **tolerance.PRINTED_16)
    row = [0.856413375153026, 0.485869957973601, -0.0233510000334361, -0.173035388274112]
    assert_close(cell.V[0].detach(), double(row), **tolerance.PRINTED_16)


def test_f11_cell() -> None:
    cell, x = made(), det((6, 2), 1.3, 1)
    outputs, final = scan(cell, x.unsqueeze(1))
    h = [-0.260358700139883, 0.474816298900543, 0.738775991286953, -0.748525054966896]
    assert_close(final.h[0].detach(), double(h), **tolerance.PRINTED_16)
    assert_close(outputs[-1], final.h, **tolerance.EXACT)
    gain = float(torch.linalg.matrix_norm(jacobian(cell, x, torch.zeros(4).double()), 2))
    assert gain == pytest.approx(1.17095570863112, rel=1e-13)
    largest = cell.spectrum()["max"] ** 6
    assert largest == pytest.approx(4.22658233139337, rel=1e-13)
    assert gain <= largest <= 1.3**6
    assert pytest.approx(4.826809, rel=1e-13) == 1.3**6


def test_f12_s5_at_margin_zero_the_matrix_is_orthogonal_and_no_spectrum_is_left_to_learn() -> None:
    cell = made(margin=0)
    assert orthogonality_defect(cell.W.detach()) < 1e-14
    assert_close(cell.s, torch.ones(4).double(), **tolerance.EXACT)
    assert cell.p is None
    assert sorted(cell.state_dict()) == ["U", "V", "W_in", "b", "h_0"]
    scan(cell, torch.randn(5, 2, 2).double())[0].sum().backward()
    assert cell.W_in.grad is not None


@MARGINS
def test_s2_singular_values_keep_the_margin_wherever_the_parameters_go(margin: Any) -> None:
    cell = SpectralRNNCell(2, 16, margin=margin, dtype=torch.float64)
    with torch.no_grad():
        for spectrum in (cell.p, cell.free_s):
            if spectrum is not None:
                spectrum.copy_(20 * torch.randn(16))
    s = torch.linalg.svdvals(cell.W.detach())
    low, high = (0.0, math.inf) if margin == "free" else (1 - margin, 1 + margin)
    assert float(s[-1]) >= low * (1 - tolerance.BOUND)
    assert float(s[0]) <= high * (1 + tolerance.BOUND)
    assert_close(s, cell.s.detach().sort(descending=True).values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "identity"])
@pytest.mark.parametrize("margin", [0.0, 0.01, 0.3])
def test_s3_gains_over_time_keep_the_bound_of_the_margin(activation: str, margin: float) -> None:
    cell = made(margin, activation=activation)
    with torch.no_grad():
        if cell.p is not None:
            cell.p.copy_(5 * torch.randn(4))
    for steps in (1, 5, 40):
        gains = torch.linalg.svdvals(jacobian(cell, torch.randn(steps, 2).double(), torch.randn(4).double()))
        assert float(gains[0]) <= (1 + margin) ** steps * (1 + tolerance.BOUND)
        if activation == "identity":
            assert float(gains[-1]) >= (1 - margin) ** steps * (1 - tolerance.BOUND)


def test_s6_signs_and_order_of_the_columns_of_both_bases_change_nothing() -> None:
    cell, other = made(), made()
    order, signs = torch.tensor([2, 0, 3, 1]), double([1, -1, -1, 1])
    with torch.no_grad():
        for name in ("U", "V"):
            getattr(other, name).copy_(getattr(cell, name)[:, order] * signs)
        other.p.copy_(cell.p[order])
    assert_close(other.W, cell.W, **tolerance.ROUNDING)


@pytest.mark.parametrize("bias", [True, False])
def test_without_a_margin_it_is_the_elman_network_of_torch(bias: bool) -> None:
    torchs = nn.RNN(3, 8, bias=bias, dtype=torch.float64)
    layer = SpectralRNN(3, 8, bias=bias, margin="free", dtype=torch.float64)
    cell = layer.cells[0]
    with torch.no_grad():
        cell.factorise_(torchs.weight_hh_l0)
        cell.W_in.copy_(torchs.weight_ih_l0)
        if bias:
            cell.b.copy_(torchs.bias_ih_l0 + torchs.bias_hh_l0)
    assert_close(cell.W, torchs.weight_hh_l0, rtol=1e-12, atol=1e-14)
    x = torch.randn(50, 4, 3, dtype=torch.float64)
    expected, last = torchs(x)
    outputs, final = layer(x)
    assert_close(outputs, expected, rtol=1e-12, atol=1e-13)
    assert_close(final.h, last, rtol=1e-12, atol=1e-13)
    # the gradient of the matrix as a whole is torch's too: G_U = G_W V S, and so on
    expected.sum().backward()
    outputs.sum().backward()
    G_W, s = torchs.weight_hh_l0.grad, cell.s.detach()
    assert_close(cell.U.grad, G_W @ cell.V.detach() * s, rtol=1e-10, atol=1e-12)
    assert_close(cell.V.grad, G_W.T @ cell.U.detach() * s, rtol=1e-10, atol=1e-12)
    assert_close(cell.free_s.grad, (cell.U.T @ G_W @ cell.V).diagonal().detach(), rtol=1e-10, atol=1e-12)


def test_a_matrix_within_the_margin_is_taken_over() -> None:
    cell = SpectralRNNCell(2, 4, margin=0.3, dtype=torch.float64)
    W = made().W.detach()
    cell.factorise_(W)
    assert_close(cell.W.detach(), W, rtol=1e-12, atol=1e-14)
    SpectralRNNCell(2, 4, margin=0).factorise_(orth(det((4, 4), 0.1, 1)))


@pytest.mark.parametrize("margin", [0, 0.2])
def test_a_matrix_outside_of_the_margin_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=r"singular values .*0\.86.* to 1\.27.*wider margin"):
        SpectralRNNCell(2, 4, margin=margin).factorise_(made().W)


def test_a_matrix_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"W must be \(N, N\) = \(4, 4\), got \(3, 4\)"):
        SpectralRNNCell(2, 4).factorise_(torch.zeros(3, 4))


@MARGINS
def test_it_starts_orthogonal_at_rest_with_small_input_weights(margin: Any) -> None:
    cell = SpectralRNNCell(7, 64, margin=margin)
    assert orthogonality_defect(cell.W.detach()) < 1e-5
    assert cell.spectrum() == pytest.approx({"min": 1, "mean": 1, "max": 1, "std": 0}, abs=1e-6)
    assert 0.0095 < cell.W_in.abs().max().item() <= 0.01
    assert cell.b is not None
    assert not cell.b.any()
    assert not cell.h_0.any()


def test_other_starts_of_the_matrix() -> None:
    assert_close(SpectralRNNCell(2, 8, init="identity").W.detach(), torch.eye(8), rtol=0.0, atol=1e-6)
    W = SpectralRNNCell(2, 200, init="glorot", margin="free").W.detach()
    # 40 000 numbers of variance 1 / n
    assert float(W.var()) == pytest.approx(1 / 200, rel=0.05)
    with pytest.raises(ValueError, match=r"init='glorot' does not keep margin=0.3"):
        SpectralRNNCell(2, 8, init="glorot")


def test_penalties_are_the_sums_of_the_sheet() -> None:
    assert made().penalty() is None
    assert SpectralRNNCell(2, 4, margin=0).penalty() is None
    cell = made(orthogonality=0.5, prior=0.25, decay=0.125)
    expected = 0.5 * orthogonality_penalty(cell.W) + 0.25 * ((cell.s - 1) ** 2).sum()
    expected = expected + 0.125 * ((cell.W**2).sum() + (cell.W_in**2).sum())
    assert_close(cell.penalty(), expected, **tolerance.ROUNDING)


def test_the_prior_draws_the_singular_values_to_one() -> None:
    cell = made(prior=0.25)
    (g_p,) = torch.autograd.grad(cell.penalty(), cell.p)
    s, sigma = cell.s.detach(), torch.sigmoid(cell.p.detach())
    assert_close(g_p, 0.25 * 2 * (s - 1) * 2 * 0.3 * sigma * (1 - sigma), **tolerance.ROUNDING)


def test_the_initial_state_is_trained() -> None:
    layer = SpectralRNN(2, 4, dtype=torch.float64)
    outputs, _ = layer(torch.randn(3, 2, 2).double())
    outputs.sum().backward()
    assert bool((layer.cells[0].h_0.grad != 0).all())
    with torch.no_grad():
        layer.cells[0].h_0.fill_(0.5)
    assert_close(layer.cells[0].initial_state(3).h.detach(), torch.full((3, 4), 0.5).double(), **tolerance.EXACT)


def test_bases_that_have_left_the_manifold_are_said_once_in_training() -> None:
    layer, x = SpectralRNN(2, 4), torch.randn(5, 3, 2)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    layer(x)[0].sum().backward()
    optimiser.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.eval()(x)
        with torch.no_grad():
            layer.train()(x)
    with pytest.warns(StabilityWarning, match=r"SpectralRNNCell: U is no longer orthogonal .*pendula\.make_optimiser"):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)


def test_rounding_is_not_taken_for_leaving_the_manifold() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = SpectralRNN(2, 64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(torch.randn(5, 3, 2))
        layer.bfloat16()(torch.randn(5, 3, 2).bfloat16())


@MARGINS
def test_a_single_unit_runs_and_learns(margin: Any) -> None:
    layer = SpectralRNN(1, 1, margin=margin)
    layer(torch.randn(5, 2, 1))[0].sum().backward()
    make_optimiser(layer, lr=0.1).step()
    assert all(p.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize(("margin", "count"), [(0, 0), (0.3, 64), ("free", 64)])
def test_parameter_counts(margin: Any, count: int) -> None:
    spec = ModelSpec(3, 5, (Node("SpectralRNN", 64, physics={"margin": margin}),))
    # U, V, spectrum, W_in, b, h_0, read-out
    assert Model(spec).parameter_count == 2 * 64**2 + count + 64 * 3 + 64 + 64 + 65 * 5


@pytest.mark.parametrize(
    ("physics", "said"),
    [
        ({"margin": -0.1}, "margin must be a number from 0 to 1, or 'free' .*, got -0.1"),
        ({"margin": 1.5}, "margin must be a number from 0 to 1, or 'free' .*, got 1.5"),
        ({"margin": None}, "margin must be .*'free' .*, got None"),
        ({"margin": True}, "margin must be .*, got True"),
        ({"margin": float("nan")}, "margin must be .*, got nan"),
        ({"margin": "wide"}, "margin must be .*, got 'wide'"),
        ({"activation": "relu"}, "activation must be one of tanh, identity"),
        ({"init": "orthogonl"}, "did you mean 'orthogonal'"),
        ({"prior": -1.0}, "prior must be at least 0, got -1.0"),
        ({"orthogonality": -1.0}, "orthogonality must be at least 0, got -1.0"),
        ({"decay": float("inf")}, "decay must be a finite number, got inf"),
    ],
)
def test_impossible_physics_is_refused(physics: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SpectralRNNCell(2, 4, **physics)


def test_a_step_has_no_time_step_to_scale() -> None:
    cell = made()
    with pytest.raises(ValueError, match="SpectralRNNCell has no time step"):
        cell.step(cell.initial_state(1), torch.zeros(1, 4).double(), tau=torch.ones(1, 1).double())


class SpectralContract(LayerContract):
    """Weights as training leaves them: another spectrum and larger input weights than those of the start."""

    def layer(self, num_layers: int = 1, *, dtype: torch.dtype = torch.float64, **options: Any) -> pendula.Recurrent:
        layer = super().layer(num_layers, dtype=dtype, **options)
        with torch.no_grad():
            for cell in layer.cells:
                cell.W_in.mul_(50)
                cell.h_0.normal_(0, 0.3)
                if cell.p is not None:
                    cell.p.normal_()
                if cell.free_s is not None:
                    cell.free_s.uniform_(0.5, 1.5)
        return layer


class TestOrthogonal(SpectralContract):
    """Margin 0 with the linear transition, as in the copy task."""

    network = "SpectralRNN"
    physics: ClassVar = {"margin": 0, "activation": "identity"}


class TestMargin(SpectralContract):
    """A margin, with tanh."""

    network = "SpectralRNN"
    physics: ClassVar = {"margin": 0.3}


class TestFree(SpectralContract):
    """No margin: a plain recurrent network."""

    network = "SpectralRNN"
    physics: ClassVar = {"margin": "free", "init": "glorot"}
