"""Geodesic steps beside another optimiser: invariants, descent, oracle F8 and property S1 of the sheet spectral.md."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from tests import tolerance
from torch import Tensor, nn
from torch.testing import assert_close

from pendula import LSTM, Model, ModelSpec, Node, SpectralRNN, StabilityWarning, scan
from pendula.cells import Cell, SpectralRNNCell
from pendula.cells.spectral import SpectralRNNState
from pendula.learn.geodesic import OPTIMISERS, Geodesic, make_optimiser
from pendula.learn.training import Training
from pendula.math.orthogonal import geodesic_step, newton_schulz, orthogonality_defect, polar, skew
from pendula.math.unitary import complex_of, pairs_of

EVERY = pytest.mark.parametrize("name", list(OPTIMISERS))


def model(dtype: torch.dtype = torch.float64, layers: int = 2, **physics: Any) -> Model:
    node = Node("SpectralRNN", 12, num_layers=layers, physics=physics)
    return Model(ModelSpec(3, 2, (node,)), dtype=dtype)


def cells(net: nn.Module) -> list[SpectralRNNCell]:
    return [module for module in net.modules() if isinstance(module, SpectralRNNCell)]


def loss_of(net: Model, x: Tensor) -> Tensor:
    """A wish that changes with the data, so that the steps never end."""
    output, _ = net(x)
    wish = torch.stack((x[:, :, 0].sum(0), x[-1, :, 1] * x[0, :, 2]), -1)
    return (output - wish).square().mean()


def train(net: Model, optimiser: torch.optim.Optimizer, steps: int, *, seed: int = 0) -> float:
    """The largest defect that any basis has after any of the steps."""
    generator, worst = torch.Generator().manual_seed(seed), 0.0
    dtype = net.readout.weight.dtype
    for _ in range(steps):
        x = torch.randn(3, 4, 3, generator=generator, dtype=torch.float64).to(dtype)
        optimiser.zero_grad()
        loss_of(net, x).backward()
        optimiser.step()
        for cell in cells(net):
            for basis in (cell.U, cell.V):
                worst = max(worst, orthogonality_defect(basis.detach()).item())
    return worst


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("margin", [0, 0.3, "free"])
@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_a_thousand_steps_in_single_precision_keep_the_bases_orthogonal(name: str, margin: Any) -> None:
    net = model(torch.float32, layers=1, margin=margin)
    before = [cell.U.detach().clone() for cell in cells(net)]
    # a hundred times the step that is the default
    assert train(net, make_optimiser(net, name, lr=0.01, bases_lr_scale=10), 1000) <= 1e-6
    for cell, start in zip(cells(net), before, strict=True):
        assert (cell.U - start).abs().max() > 0.1
        s = torch.linalg.svdvals(cell.W.detach().double())
        if margin != "free":
            assert 1 - margin - 1e-6 <= float(s[-1])
            assert float(s[0]) <= 1 + margin + 1e-6


def test_s1_thousands_of_steps_in_double_precision_leave_no_defect() -> None:
    net = model(layers=1, margin=0.3)
    assert train(net, make_optimiser(net, "adam", lr=0.01, bases_lr_scale=10), 3000) <= 1e-12


@pytest.mark.parametrize("shape", [(64, 64), (64, 10), (3, 3), (1, 1)])
@pytest.mark.parametrize("rms", [None, 0.9])
def test_a_thousand_single_steps_keep_a_complex_matrix_unitary(shape: tuple[int, int], rms: float | None) -> None:
    W = nn.Parameter(pairs_of(polar(torch.randn(shape, dtype=torch.complex64))))
    optimiser = Geodesic([{"params": [W], "unitary": True}], lr=0.05, rms=rms)
    start, worst = W.detach().clone(), 0.0
    for _ in range(1000):
        W.grad = torch.randn_like(W)
        optimiser.step()
        worst = max(worst, orthogonality_defect(complex_of(W.detach())).item())
    assert worst <= 1e-6
    assert (W - start).abs().max() > 0.1


@EVERY
def test_the_bases_take_geodesic_steps_and_the_rest_those_of_its_optimiser(name: str) -> None:
    net, other = model(margin=0.3), model(margin=0.3)
    other.load_state_dict(net.state_dict())
    ours = make_optimiser(net, name, lr=0.02, bases_lr_scale=0.5, weight_decay=0.01)
    theirs = OPTIMISERS[name](other.parameters(), lr=0.02, weight_decay=0.01)
    for _ in range(3):
        x, expected = torch.randn(6, 4, 3).double(), {}
        for each in (net, other):
            each.zero_grad()
        loss_of(net, x).backward()
        for (key, p), q in zip(net.named_parameters(), other.parameters(), strict=True):
            q.grad = p.grad.clone()
            if key.endswith((".U", ".V")):
                expected[key] = newton_schulz(geodesic_step(p.detach().clone(), p.grad, 0.01))
        ours.step()
        theirs.step()
        for (key, p), q in zip(net.named_parameters(), other.parameters(), strict=True):
            wanted = expected[key] if key in expected else q.detach()
            assert_close(p.detach(), wanted, **tolerance.ROUNDING, msg=lambda text, key=key: f"{key}: {text}")


def test_f7_a_small_step_descends_at_the_rate_of_the_gradient_along_the_manifold() -> None:
    net, x = model(margin=0.3), torch.randn(6, 4, 3).double()
    optimiser = make_optimiser(net, "sgd", lr=1e-6, bases_lr_scale=1.0)
    loss = loss_of(net, x)
    loss.backward()
    expected = 0.0
    for key, p in net.named_parameters():
        if key.endswith((".U", ".V")):
            expected -= 0.5 * float(skew(p.detach(), p.grad).square().sum())
        else:
            expected -= float(p.grad.square().sum())
    optimiser.step()
    assert float((loss_of(net, x) - loss).detach()) / 1e-6 == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd"])
def test_training_with_a_composed_optimiser_learns(name: str) -> None:
    net, x = model(margin=0.3), torch.randn(6, 32, 3).double()
    optimiser = make_optimiser(net, name, lr=0.01, bases_lr_scale=1.0)
    before = loss_of(net, x).item()
    for _ in range(150):
        optimiser.zero_grad()
        loss_of(net, x).backward()
        optimiser.step()
    assert loss_of(net, x).item() < 0.7 * before


@pytest.mark.parametrize(
    ("margin", "rmsprop", "sgd"),
    [
        (0.001, -7.8893e-5, -8.75e-9),
        (0.01, -7.9055e-5, -8.75e-8),
        (0.1, -7.9057e-5, -8.75e-7),
        (1.0, -7.9057e-5, -8.75e-6),
    ],
)
def test_f8_the_rate_of_the_spectrum_does_not_depend_on_the_margin(margin: float, rmsprop: float, sgd: float) -> None:
    for name, expected, options in (("rmsprop", rmsprop, {"alpha": 0.9, "eps": 0.0}), ("sgd", sgd, {})):
        cell = SpectralRNNCell(2, 4, margin=margin, rate_by_margin=True, dtype=torch.float64)
        optimiser = make_optimiser(cell, name, lr=1e-4, **options)
        (0.7 * cell.s).sum().backward()
        optimiser.step()
        moved = (cell.s - 1).detach()
        # printed to five (three) digits
        assert moved.tolist() == pytest.approx([expected] * 4, rel=7e-6 if name == "rmsprop" else 1e-3)


@EVERY
@pytest.mark.parametrize("rms", [None, 0.9])
def test_an_optimiser_put_back_from_its_state_goes_on_bit_for_bit(name: str, rms: float | None) -> None:
    net = model(torch.float32, margin=0.3)
    optimiser = make_optimiser(net, name, lr=0.01, rms=rms)
    train(net, optimiser, 5)
    weights, kept = copy.deepcopy(net.state_dict()), copy.deepcopy(optimiser.state_dict())
    train(net, optimiser, 5, seed=1)
    again = model(torch.float32, margin=0.3)
    again.load_state_dict(weights)
    other = make_optimiser(again, name, lr=0.5, rms=rms)
    other.load_state_dict(kept)
    train(again, other, 5, seed=1)
    assert same(again, net)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_of_model_and_optimiser_goes_on_by_itself(copied: Any) -> None:
    net = model(torch.float32, margin=0.3)
    optimiser = make_optimiser(net, "adam", lr=0.01)
    train(net, optimiser, 3)
    other, its = copied((net, optimiser))
    train(net, optimiser, 3)
    assert not same(net, other)
    train(other, its, 3)
    assert same(net, other)


def test_a_schedule_of_torch_reaches_every_group() -> None:
    net = model(margin=0.3)
    optimiser = make_optimiser(net, "adam", lr=0.02, bases_lr_scale=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=1, gamma=0.5)
    train(net, optimiser, 1)
    schedule.step()
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.01, 0.001])
    assert isinstance(optimiser, Geodesic)
    assert optimiser.rest.param_groups[0] is optimiser.param_groups[0]


def test_groups_carry_their_share_of_the_learning_rate() -> None:
    net = model(margin=0.1, rate_by_margin=True)
    optimiser = make_optimiser(net, "adam", lr=0.01, bases_lr_scale=0.2)
    found = [(len(g["params"]), g["lr"], g["lr_scale"]) for g in optimiser.param_groups]
    # W_in, b and h_0 of two cells and the read-out; two spectra at 1 / 2 m; four bases
    assert sorted(found) == [(2, 0.05, 5.0), (4, 0.002, 0.2), (8, 0.01, 1.0)]
    assert len({p for g in optimiser.param_groups for p in g["params"]}) == len(list(net.parameters()))


@EVERY
def test_a_model_without_bases_gets_the_optimiser_of_torch(name: str) -> None:
    optimiser = make_optimiser(LSTM(3, 4), name, lr=0.01)
    assert type(optimiser) is OPTIMISERS[name]
    assert len(optimiser.param_groups) == 1


def test_training_takes_the_composed_optimiser_by_itself() -> None:
    net = model(margin=0.3)
    optimiser = Training(learning_rate=0.01, bases_rate=0.3, optimiser="sgd", momentum=0.5).make_optimiser(net)
    assert isinstance(optimiser, Geodesic)
    assert [g["lr"] for g in optimiser.param_groups] == pytest.approx([0.01, 0.003])
    assert optimiser.param_groups[0]["momentum"] == 0.5
    assert train(net, optimiser, 3) < 1e-14


def test_zero_grad_clears_the_gradients_of_all() -> None:
    net = model(margin=0.3)
    optimiser = make_optimiser(net, lr=0.01)
    loss_of(net, torch.randn(4, 2, 3).double()).backward()
    optimiser.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_parameter_without_a_gradient_stays() -> None:
    layer = SpectralRNN(3, 4)
    before = layer.cells[0].U.detach().clone()
    make_optimiser(layer, lr=0.1).step()
    assert torch.equal(layer.cells[0].U, before)


def test_a_closure_is_called_once_with_gradients() -> None:
    net, x, calls = model(margin=0.3), torch.randn(4, 2, 3).double(), []
    optimiser = make_optimiser(net, lr=0.01)

    def closure() -> Tensor:
        optimiser.zero_grad()
        calls.append(loss_of(net, x))
        calls[-1].backward()
        return calls[-1]

    before = loss_of(net, x).item()
    assert optimiser.step(closure).item() == before
    assert len(calls) == 1
    assert loss_of(net, x).item() < before


class Turner(Cell):
    """h_t = |W h_{t-1}| + x_t + b with W unitary, in a module of its own."""

    State = SpectralRNNState

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.inner = nn.ParameterDict({"W": pairs_of(polar(torch.randn(3, 3, dtype=torch.complex64)))})
        self.b = nn.Parameter(torch.zeros(3))

    def manifold(self) -> dict[str, str]:
        return {"inner.W": "unitary"}

    def drive(self, x: Tensor) -> Tensor:
        return x + self.b

    def step(self, state: tuple[Tensor, ...], drive: Tensor, *, tau: Tensor | None = None) -> SpectralRNNState:
        return SpectralRNNState(((state[0] + 0j) @ complex_of(self.inner["W"]).mT).abs() + drive)


def test_a_cell_with_a_unitary_parameter_in_a_module_keeps_it_unitary() -> None:
    cell = Turner()
    optimiser = make_optimiser(cell, "rmsprop", lr=0.01, bases_lr_scale=2.0)
    start = cell.inner["W"].detach().clone()
    for _ in range(20):
        optimiser.zero_grad()
        scan(cell, torch.randn(4, 5, 3))[0].square().mean().backward()
        optimiser.step()
    assert orthogonality_defect(complex_of(cell.inner["W"].detach())) < 1e-6
    assert (cell.inner["W"] - start).abs().max() > 0.01
    with torch.no_grad():
        cell.inner["W"].mul_(1.1)
    with pytest.warns(StabilityWarning, match=r"Turner: inner.W is no longer unitary \(defect 0.21\)"):
        scan(cell, torch.randn(4, 5, 3))


def test_groups_can_be_added_to_either_part() -> None:
    free, basis = nn.Parameter(torch.ones(3)), nn.Parameter(torch.eye(3))
    net = model(torch.float32, margin=0.3)
    optimiser = make_optimiser(net, lr=0.01)
    optimiser.add_param_group({"params": [free], "lr": 0.5})
    optimiser.add_param_group({"params": [basis], "geodesic": True, "lr": 0.5})
    free.grad, basis.grad = torch.ones(3), torch.randn(3, 3)
    optimiser.step()
    assert_close(free.detach(), torch.full((3,), 0.5), **tolerance.FLOAT32)
    assert orthogonality_defect(basis.detach()) < 1e-6
    assert (basis - torch.eye(3)).abs().max() > 0.01
    optimiser.load_state_dict(optimiser.state_dict())
    assert len(optimiser.param_groups) == 4


def test_a_matrix_that_is_not_orthogonal_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a parameter \(3, 3\) must be orthogonal, its defect is 3: .*polar"):
        Geodesic([nn.Parameter(2 * torch.eye(3))])
    with pytest.raises(ValueError, match=r"must be unitary, \(N, 2K\) as \[Re \| Im\]"):
        Geodesic([{"params": [nn.Parameter(torch.ones(3, 6))], "unitary": True}])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"lr": -1.0}, "lr must be at least 0"),
        ({"rms": 1.0}, "rms must be at least 0 and below 1, got 1.0"),
        ({"eps": math.nan}, "eps must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(words: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Geodesic([nn.Parameter(torch.eye(2))], **words)


def test_impossible_compositions_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'adam'"):
        make_optimiser(model(), "adm", lr=0.1)
    with pytest.raises(ValueError, match="bases_lr_scale must be positive, got 0"):
        make_optimiser(model(), lr=0.1, bases_lr_scale=0)
    with pytest.raises(ValueError, match="bases_rate must be positive, got -1"):
        Training(bases_rate=-1)
