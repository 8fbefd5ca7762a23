"""A reservoir: the read-out is the ridge regression on what it sees, in one pass, and nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula import LAYERS, ModelSpec, Node, ShapeError
from pendula.learn.fit import evaluate
from pendula.nets.reservoir import Reservoir
from pendula.tasks.images import Digits
from pendula.tasks.synthetic import Adding
from tests import tolerance

T, I, C = 7, 2, 3
LENGTHS = [7, 3, 5, 1, 6]
RIDGE = 1e-3
SOLVED = {"rtol": 1e-7, "atol": 1e-9}
"""Two ways to solve one ridge system of condition 1e6 or less in float64."""


def reservoir(network: str = "CoRNN", pool: str = "last", outputs: int = C, **options: Any) -> Reservoir:
    options = {"ridge": RIDGE, "dtype": torch.float64, **options}
    return Reservoir.of(network, I, outputs, 6, pool=pool, **options)


def sequences(batch: int) -> Tensor:
    return torch.randn(T, batch, I, dtype=torch.float64)


def features(built: Reservoir, x: Tensor, lengths: Any = None) -> Tensor:
    """What the layer shows, by hand: (T, B, N)."""
    outputs: Tensor = built.model.layers["layer0"](x, lengths=lengths)[0]
    return outputs.detach()


def ridge_by_numpy(x: Tensor, y: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The normal equations on features with a column of ones, which the penalty leaves out."""
    A = numpy.concatenate([x.numpy(), numpy.ones((len(x), 1))], 1)
    penalty = ridge * numpy.eye(A.shape[1])
    penalty[-1, -1] = 0
    solved = numpy.linalg.solve(A.T @ A + penalty, A.T @ y.numpy())
    return torch.from_numpy(solved[:-1].T), torch.from_numpy(solved[-1])


def assert_read_out(built: Reservoir, x: Tensor, y: Tensor) -> None:
    weight, bias = ridge_by_numpy(x, y, built.ridge)
    assert_close(built.model.readout.weight.detach(), weight, **SOLVED)
    assert_close(built.model.readout.bias.detach(), bias, **SOLVED)


def test_the_read_out_is_numpys_ridge_regression() -> None:
    built, x, y = reservoir(), sequences(40), torch.randn(40, C).double()
    built.fit([(x, y)])
    assert_read_out(built, features(built, x)[-1], y)


def test_the_mean_over_time_is_regressed_where_the_spec_pools_it() -> None:
    built, x, y = reservoir(pool="mean"), sequences(5), torch.randn(5, C).double()
    built.fit([(x, y, LENGTHS)])
    seen = features(built, x, LENGTHS).sum(0) / torch.tensor(LENGTHS).unsqueeze(1)
    assert_read_out(built, seen, y)


def test_each_sequence_is_read_at_its_own_end() -> None:
    built, x, y = reservoir(), sequences(5), torch.randn(5, C).double()
    built.fit([(x, y, LENGTHS)])
    seen = torch.stack([features(built, x[:n, b : b + 1])[-1, 0] for b, n in enumerate(LENGTHS)])
    assert_read_out(built, seen, y)


@pytest.mark.parametrize("washout", [0, 2])
def test_steps_leave_out_the_washout_and_the_padding(washout: int) -> None:
    built, x, y = reservoir(pool="steps", washout=washout), sequences(5), torch.randn(T, 5, C).double()
    for b, length in enumerate(LENGTHS):
        x[length:, b], y[length:, b] = float("nan"), float("nan")
    built.fit([(x, y, LENGTHS)])
    seen = [features(built, x[:n, b : b + 1])[washout:, 0] for b, n in enumerate(LENGTHS)]
    aims = [y[washout:n, b] for b, n in enumerate(LENGTHS)]
    assert_read_out(built, torch.cat(seen), torch.cat(aims))


def test_classes_of_the_padding_are_not_looked_at() -> None:
    built, x = reservoir(pool="steps"), sequences(5)
    y = torch.randint(C, (T, 5))
    expected = copy.deepcopy(built.fit([(x, y, LENGTHS)]).model.readout.weight)
    for b, length in enumerate(LENGTHS):
        y[length:, b] = -100
    assert_close(built.fit([(x, y, LENGTHS)]).model.readout.weight, expected, **tolerance.EXACT)


def test_time_spans_reach_the_network() -> None:
    built, x, y = reservoir(), sequences(30), torch.randn(30, C).double()
    spans = 0.5 + torch.rand(T, 30).double()
    built.fit([(x, y, None, spans)])
    assert_read_out(built, built.model.layers["layer0"](x, timespans=spans)[0][-1].detach(), y)


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [17, 23], [3, 30, 7]])
def test_several_batches_weigh_what_one_batch_weighs(sizes: list[int]) -> None:
    built, x, y = reservoir(), sequences(40), torch.randn(40, C).double()
    built.fit(zip(x.split(sizes, 1), y.split(sizes), strict=True))
    assert_read_out(built, features(built, x)[-1], y)


def test_features_far_from_zero_lose_no_digits() -> None:
    # the uncentred sum of squares would be 1e12 times the variance: float64 keeps four digits of it
    x, y = torch.randn(200, 3).double(), torch.randn(200, C).double()
    moments = [pendula.nets.reservoir.Moments(3, C, x) for _ in range(2)]
    for offset, gathered in zip((0.0, 1e6), moments, strict=True):
        for piece, aim in zip(x.split(50), y.split(50), strict=True):
            gathered.add(piece + offset, aim)
    near, far = (gathered.solve(RIDGE)[0] for gathered in moments)
    assert_close(far, near, rtol=1e-6, atol=1e-8)


def test_nothing_is_kept_that_grows_with_the_data() -> None:
    def sizes(examples: int) -> list[tuple[int, ...]]:
        moments = pendula.nets.reservoir.Moments(6, C, torch.zeros(1))
        moments.add(torch.randn(examples, 6).double(), torch.randn(examples, C).double())
        return [tuple(value.shape) for value in vars(moments).values() if isinstance(value, Tensor)]

    assert sizes(10) == sizes(1000)


def test_batches_are_read_once_and_one_at_a_time() -> None:
    alive = []

    def stream() -> Iterator[Any]:
        for number in range(4):
            alive.append(number)
            yield sequences(3), torch.randn(3, C).double()

    reservoir().fit(stream())
    assert alive == [0, 1, 2, 3]


def test_the_recurrent_weights_are_not_touched_and_frozen() -> None:
    built = reservoir(num_layers=2)
    before = copy.deepcopy(built.model.layers.state_dict())
    built.fit([(sequences(20), torch.randint(C, (20,)))])
    assert_close(built.model.layers.state_dict(), before, **tolerance.EXACT)
    assert {name for name, p in built.model.named_parameters() if p.requires_grad} == {"readout.weight", "readout.bias"}


def test_a_second_fit_replaces_the_first() -> None:
    built, x, y = reservoir(), sequences(40), torch.randn(40, C).double()
    built.fit([(sequences(40), torch.randn(40, C).double())]).fit([(x, y)])
    assert_read_out(built, features(built, x)[-1], y)


def test_classes_are_learned_as_one_for_the_class_and_zero_for_the_others() -> None:
    built, x, y = reservoir(), sequences(40), torch.randint(C, (40,))
    built.fit([(x, y)])
    assert_read_out(built, features(built, x)[-1], torch.eye(C).double()[y])


def test_one_output_learns_the_sign_of_the_second_class() -> None:
    built, x, y = reservoir(outputs=1), sequences(40), torch.randint(2, (40,))
    built.fit([(x, y)])
    assert_read_out(built, features(built, x)[-1], 2.0 * y.double().unsqueeze(1) - 1)


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_one_value_needs_no_axis_of_its_own(shape: tuple[int, ...]) -> None:
    built, x, y = reservoir(outputs=1), sequences(40), torch.randn(40).double()
    built.fit([(x, y.reshape(shape))])
    assert_read_out(built, features(built, x)[-1], y.unsqueeze(1))


def test_a_larger_ridge_gives_smaller_weights_and_leaves_the_mean() -> None:
    x, y = sequences(40), 5 + torch.randn(40, C).double()
    built = reservoir(ridge=1e9).fit([(x, y)])
    assert_close(built.model(x)[0].detach(), y.mean(0).expand(40, C), rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", sorted(LAYERS))
@pytest.mark.parametrize("pool", ["last", "mean", "steps"])
def test_every_network_is_a_reservoir(network: str, pool: str) -> None:
    built, x = reservoir(network, pool), sequences(5)
    y = torch.randn(*((T, 5) if pool == "steps" else (5,)), C).double()
    before = copy.deepcopy(built.model.layers.state_dict())
    guess = built.model(x, lengths=LENGTHS)[0]
    fitted = built.fit([(x, y, LENGTHS)]).model(x, lengths=LENGTHS)[0]
    valid = torch.arange(T).unsqueeze(1) < torch.tensor(LENGTHS) if pool == "steps" else torch.ones(5, dtype=torch.bool)
    mean = y[valid].mean(0)
    # no read-out of these features fits better, so neither the drawn one nor the constant does
    error = (fitted - y)[valid].square().sum()
    assert error < (guess - y)[valid].square().sum()
    assert error < (mean - y)[valid].square().sum()
    assert_close(built.model.layers.state_dict(), before, **tolerance.EXACT)


def test_a_graph_of_networks_with_a_standard_is_a_reservoir() -> None:
    nodes = (Node("CoRNN", 4), Node("GRU", 3, inputs=("input",)), Node("UnICORNN", 5, inputs=("layer0", "layer1")))
    built = Reservoir(ModelSpec(I, C, nodes, standardise=True), ridge=RIDGE, dtype=torch.float64)
    x, y = sequences(40), torch.randn(40, C).double()
    built.model.set_standard(x.mean((0, 1)), x.std((0, 1)))
    built.fit([(x, y)])
    standard = (x - x.mean((0, 1))) / x.std((0, 1))
    layers = built.model.layers
    both = torch.cat((layers["layer0"](standard)[0], layers["layer1"](standard)[0]), -1)
    assert_read_out(built, layers["layer2"](both)[0][-1].detach(), y)


def test_the_model_is_saved_and_loaded_as_any_other(tmp_path: Any) -> None:
    built, x = reservoir(), sequences(20)
    built.fit([(x, torch.randint(C, (20,)))])
    pendula.save(built.model, tmp_path / "model")
    assert_close(pendula.load(tmp_path / "model")(x), built.model(x), **tolerance.EXACT)


def test_batches_of_another_floating_type_are_converted() -> None:
    built, x, y = reservoir(), sequences(40).float(), torch.randn(40, C)
    built.fit([SimpleNamespace(x=x, y=y)])
    assert_read_out(built, features(built, x.double())[-1], y.double())


def test_randomly_coupled_oscillators_read_digits() -> None:
    task = Digits()
    built = Reservoir.of("CoRNN", 1, 10, 200, pool="last", ridge=1e-4, gamma=0.5, epsilon=0.5, dt=0.1)
    built.fit(task.batches("train", 100))
    # chance is 0.1
    assert evaluate(built.model, task, "test")["accuracy"] > 0.8


def test_oscillators_remember_how_a_noisy_sequence_began() -> None:
    y, x = torch.randint(2, (600,)), 0.3 * torch.randn(50, 600, 1).double()
    x[0, :, 0] = 2.0 * y - 1
    built = Reservoir.of("CoRNN", 1, 2, 60, epsilon=0.5, dtype=torch.float64)
    built.fit([(x[:, :400], y[:400])])
    right = (built.model(x[:, 400:])[0].argmax(-1) == y[400:]).double().mean()
    # chance is 0.5
    assert right > 0.9


# --- what is refused


def test_a_negative_ridge_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ridge must be at least 0, got -1\.0"):
        reservoir(ridge=-1.0)


@pytest.mark.parametrize("ridge", [float("nan"), "1", True])
def test_a_ridge_that_is_no_number_is_refused(ridge: Any) -> None:
    with pytest.raises(ValueError, match="ridge must be a finite number, got"):
        reservoir(ridge=ridge)


def test_a_washout_without_steps_to_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"washout drops steps .*pools 'last': take washout=0, or pool='steps'"):
        reservoir(washout=3)


def test_dependent_features_without_a_ridge_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 examples do not fix 6 read-out weights with ridge=0\.0.*larger ridge"):
        reservoir(ridge=0.0).fit([(sequences(5), torch.randn(5, C).double())])


def test_independent_features_need_no_ridge() -> None:
    built, x, y = reservoir(ridge=0.0), sequences(200), torch.randn(200, C).double()
    built.fit([(x, y)])
    seen = torch.cat((features(built, x)[-1], torch.ones(200, 1).double()), 1)
    error = y - built.model(x)[0].detach()
    # least squares leave an error that is orthogonal to every feature
    assert_close(seen.T @ error, torch.zeros(7, C).double(), rtol=0, atol=1e-9)


def test_no_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn from: no batch"):
        reservoir().fit([])


def test_a_washout_of_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="every step is washed out"):
        reservoir(pool="steps", washout=T).fit([(sequences(2), torch.randn(T, 2, C).double())])


@pytest.mark.parametrize("single", [True, False])
def test_a_single_batch_is_refused(single: bool) -> None:
    x, y = sequences(2), torch.randn(2, C).double()
    with pytest.raises(TypeError, match="put a single one into a list"):
        reservoir().fit((x, y) if single else SimpleNamespace(x=x, y=y))


@pytest.mark.parametrize("batch", [(1,), 5, (1, 2, 3, 4, 5)])
def test_what_is_no_batch_is_refused(batch: Any) -> None:
    with pytest.raises(TypeError, match=r"a batch must be \(x, y, lengths=None, timespans=None\) or have x and y"):
        reservoir().fit([batch])


@pytest.mark.parametrize(
    ("y", "error", "said"),
    [
        (torch.zeros(4, C + 1), ShapeError, r"y must be \(4, 3\) for values with pool='last', got \(4, 4\)"),
        (torch.zeros(4), ShapeError, r"y must be \(4, 3\) for values"),
        (torch.zeros(3, C), ShapeError, r"y must be \(4, 3\)"),
        (torch.zeros(T, 4, C), ShapeError, r"y must be \(4, 3\)"),
        (torch.zeros(4, C).long(), ShapeError, r"y must be \(4,\) for classes .*call y.float\(\)"),
        (torch.tensor([0, 1, 2, 3]), ValueError, "y must hold classes from 0 to 2, got 0 to 3"),
        (torch.tensor([0, 1, 2, -1]), ValueError, "y must hold classes from 0 to 2, got -1 to 2"),
        (torch.full((4, C), float("nan")), ValueError, "y must be finite"),
        ([0, 1, 2, 0], TypeError, r"y must be a tensor, got list.*torch.as_tensor"),
    ],
)
def test_bad_targets_are_refused_before_the_network_runs(
    y: Any, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = reservoir()
    before = copy.deepcopy(built.model.readout.weight)
    monkeypatch.setattr(Reservoir, "_features", lambda *_: pytest.fail("the network ran"))
    with pytest.raises(error, match=said):
        built.fit([(sequences(4), y)])
    assert_close(built.model.readout.weight, before, **tolerance.EXACT)


def test_a_bad_batch_leaves_the_read_out_as_it_was() -> None:
    built, x, y = reservoir(), sequences(40), torch.randn(40, C).double()
    before = copy.deepcopy(built.model.readout.weight)
    with pytest.raises(ShapeError):
        built.fit([(x, y), (x, y[:3])])
    assert_close(built.model.readout.weight, before, **tolerance.EXACT)


@pytest.mark.parametrize("shape", [(T, 4, I + 1), (T, I)])
def test_an_input_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"input must be \(time, batch, 2\)"):
        reservoir().fit([(torch.zeros(shape).double(), torch.randn(4, C).double())])


def test_outputs_that_are_not_finite_are_refused() -> None:
    x = sequences(4)
    x[2, 1] = float("nan")
    with pytest.raises(ValueError, match="outputs are not finite: take a smaller time step"):
        reservoir().fit([(x, torch.randn(4, C).double())])


def test_the_adding_problem_is_no_harder_than_its_baseline() -> None:
    task = Adding(length=20, epoch_size=1000)
    built = Reservoir.of("CoRNN", 2, 1, 100, ridge=1e-4).fit(task.batches("train", 250))
    assert evaluate(built.model, task, "test")["loss"] < task.baseline
