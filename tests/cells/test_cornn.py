"""coRNN: its starting distributions, refusals and warnings, per-unit physics, time spans and differential equation."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any, ClassVar

import pytest
import torch
from torch.testing import assert_close

import pendula
from pendula import ShapeError, StabilityWarning
from pendula.cells import CoRNNCell
from tests import tolerance
from tests.cells.cornn_cases import PHYSICS, VARIANTS, double, filled, trajectory
from tests.contracts.layer import LayerContract, N

BOTH = pytest.mark.parametrize("variant", VARIANTS)

# sheet 1.3: init, inputs, units, bound of V and b, bound of W and W_z
BOUNDS = [
    ("concat", 1, 256, 0.044151, 0.044151),
    ("concat", 2, 128, 0.062257, 0.062257),
    ("concat", 9, 64, 0.085436, 0.085436),
    ("separate", 96, 128, 0.102062, 0.088388),
    ("split", 100, 128, 0.100000, 0.062500),
]


@pytest.mark.parametrize(("init", "inputs", "units", "outer", "inner"), BOUNDS)
def test_weights_start_uniform_up_to_the_printed_bound(
    init: str, inputs: int, units: int, outer: float, inner: float
) -> None:
    cell = CoRNNCell(inputs, units, init=init)
    for name, bound in (("V", outer), ("b", outer), ("W", inner), ("W_z", inner)):
        values = cell.get_parameter(name).abs() / (bound + 5e-7)
        # a uniform draw of n numbers has its largest above 1 - 10 / n, but for one time in 22 000
        assert 1 - 10 / values.numel() < values.max() <= 1, name


def test_read_out_starts_uniform_up_to_the_printed_bound() -> None:
    model = pendula.Model(pendula.ModelSpec(1, 10, (pendula.Node("CoRNN", 256),)))
    assert 0.99 * 0.0625 < model.readout.weight.abs().max() <= 0.0625


def test_it_has_one_bias_or_none() -> None:
    assert "b" not in dict(CoRNNCell(2, 3, False).named_parameters())


@pytest.mark.parametrize("name", PHYSICS)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, [0.1, -0.1, 0.1], "fast", None])
def test_physics_that_is_no_positive_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*got"):
        CoRNNCell(2, 3, **{name: value})


@pytest.mark.parametrize("name", PHYSICS)
@pytest.mark.parametrize("value", [[0.1, 0.1], torch.ones(4), torch.ones(3, 1)])
def test_physics_of_the_wrong_size_is_refused(name: str, value: Any) -> None:
    with pytest.raises(
        ShapeError, match=rf"{name} must be one number or one per unit, shape \(\) or \(3,\), got shape"
    ):
        CoRNNCell(2, 3, **{name: value})


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("variant", "implicitt", "variant must be one of explicit, implicit, got 'implicitt'.*did you mean 'implicit'"),
        ("init", "concatenate", "init must be one of concat, separate, split.*did you mean 'concat'"),
        ("learnable", ("gama",), "learnable has no 'gama'.*did you mean 'gamma'.*dt, gamma, epsilon"),
        ("learnable", ("W",), "learnable has no 'W'.*dt, gamma, epsilon"),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_known_one(argument: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CoRNNCell(2, 3, **{argument: value})


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "3"])
@pytest.mark.parametrize("argument", ["input_size", "hidden_size"])
def test_sizes_that_are_no_positive_whole_numbers_are_refused(argument: str, size: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be a whole number, at least 1, got"):
        CoRNNCell(**{"input_size": 2, "hidden_size": 3, argument: size})


# variant, dt, gamma, epsilon, the inequality that fails
UNSTABLE = [
    ("explicit", 0.9, 4.0, 0.5, r"gamma dt\^2 \+ 2 epsilon dt < 4 fails"),
    ("explicit", 0.1, 1.0, 10.0, r"epsilon dt < 1 fails"),
    ("explicit", 0.5, 4.0, 0.9, r"2 epsilon > gamma dt fails"),
    ("implicit", 1.2, 4.0, 0.5, r"gamma dt\^2 < 4 \+ 2 epsilon dt fails"),
    ("implicit", 0.5, 4.0, 0.9, r"2 epsilon > gamma dt fails"),
]


@pytest.mark.parametrize(("variant", "dt", "gamma", "epsilon", "said"), UNSTABLE)
def test_each_stability_inequality_that_fails_is_said(
    variant: str, dt: float, gamma: float, epsilon: float, said: str
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CoRNNCell(2, 3, dt=dt, gamma=gamma, epsilon=epsilon, variant=variant)
    texts = [str(w.message) for w in caught if issubclass(w.category, StabilityWarning)]
    matching = [text for text in texts if re.search(said, text)]
    assert len(matching) == 1, texts


@BOTH
def test_one_unstable_unit_is_enough_for_a_warning(variant: str) -> None:
    with pytest.warns(StabilityWarning, match="2 epsilon > gamma dt fails"):
        CoRNNCell(2, 3, dt=0.5, gamma=[1.0, 1.0, 4.0], epsilon=0.9, variant=variant)


@BOTH
def test_the_defaults_are_stable(variant: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CoRNNCell(2, 3, variant=variant)


@BOTH
@pytest.mark.parametrize("learnable", [(), PHYSICS])
def test_per_unit_physics_is_that_of_units_run_alone(variant: str, learnable: tuple[str, ...]) -> None:
    # exact only where units do not see one another
    physics = {"dt": [0.05, 0.1, 0.2], "gamma": [0.5, 1.0, 2.0], "epsilon": [4.0, 3.0, 2.0]}
    v, b = torch.randn(3, 2).double(), torch.randn(3).double()
    options = {"variant": variant, "learnable": learnable, "dtype": torch.float64}
    together = filled(CoRNNCell(2, 3, **physics, **options), V=v, b=b)
    x = torch.randn(12, 4, 2).double()
    y, z = trajectory(together, x)
    for unit in range(3):
        own = {name: values[unit] for name, values in physics.items()}
        alone = filled(CoRNNCell(2, 1, **own, **options), V=v[unit : unit + 1], b=b[unit : unit + 1])
        expected_y, expected_z = trajectory(alone, x)
        assert_close(y[..., unit], expected_y[..., 0], **tolerance.ROUNDING)
        assert_close(z[..., unit], expected_z[..., 0], **tolerance.ROUNDING)


@BOTH
def test_learned_physics_gives_the_numbers_of_fixed_physics(variant: str) -> None:
    physics = {"dt": 0.1, "gamma": [0.5, 1.0, 2.0], "epsilon": 2.0, "variant": variant, "dtype": torch.float64}
    fixed, learned = CoRNNCell(2, 3, **physics), CoRNNCell(2, 3, **physics, learnable=PHYSICS)
    learned.load_state_dict(fixed.state_dict() | {f"log_{n}": getattr(fixed, n).log() for n in PHYSICS}, strict=False)
    x = torch.randn(12, 4, 2).double()
    assert_close(trajectory(learned, x), trajectory(fixed, x), **tolerance.ROUNDING)


@BOTH
@pytest.mark.parametrize("learnable", PHYSICS)
def test_exactly_the_named_constants_are_parameters(variant: str, learnable: str) -> None:
    cell = CoRNNCell(2, 3, variant=variant, learnable=(learnable,))
    assert {name for name, _ in cell.named_parameters()} == {"W", "W_z", "V", "b", f"log_{learnable}"}


@BOTH
def test_a_time_span_scales_the_time_step(variant: str) -> None:
    slow, fast = (CoRNNCell(2, 3, dt=dt, variant=variant, dtype=torch.float64) for dt in (0.1, 0.05))
    fast.load_state_dict(slow.state_dict() | {"dt": fast.dt})
    x = torch.randn(9, 4, 2).double()
    spans = torch.full((9, 4), 2.0).double()
    assert_close(pendula.scan(fast, x, timespans=spans), pendula.scan(slow, x), **tolerance.ROUNDING)


@BOTH
def test_each_sequence_has_its_own_time_spans(variant: str) -> None:
    cell = CoRNNCell(2, 3, variant=variant, dtype=torch.float64)
    x, spans = torch.randn(9, 4, 2).double(), torch.rand(9, 4).double() + 0.5
    together, _ = pendula.scan(cell, x, timespans=spans)
    for b in range(4):
        alone, _ = pendula.scan(cell, x[:, b : b + 1], timespans=spans[:, b : b + 1])
        assert_close(together[:, b], alone[:, 0], **tolerance.ROUNDING)


@BOTH
@pytest.mark.parametrize("per_unit", [False, True])
def test_the_step_is_consistent_with_the_vector_field_to_first_order(variant: str, per_unit: bool) -> None:
    start, drive = (torch.randn(4, 3).double(), torch.randn(4, 3).double()), torch.randn(4, 3).double()
    gamma = [0.5, 1.0, 2.0] if per_unit else 1.0
    reference = CoRNNCell(2, 3, gamma=gamma, dtype=torch.float64)
    defects = []
    for dt in (2e-3, 1e-3):
        cell = CoRNNCell(2, 3, dt=dt, gamma=gamma, variant=variant, dtype=torch.float64)
        cell.load_state_dict(reference.state_dict() | {"dt": cell.dt})
        with torch.no_grad():
            moved, field = cell.step(start, drive), cell.vector_field(start, drive)
        defect = [(new - old) / dt - slope for new, old, slope in zip(moved, start, field, strict=True)]
        defects.append(torch.cat(defect).norm())
    assert math.log2(defects[0] / defects[1]) == pytest.approx(1.0, abs=tolerance.OBSERVED_ORDER)


def test_the_example_defaults_run_out_of_the_box() -> None:
    outputs, state = pendula.CoRNN(9, 64)(torch.randn(20, 3, 9))
    assert outputs.isfinite().all()
    assert state.y.shape == (1, 3, 64)


class Watched(CoRNNCell):
    """Remembers the type that the force was summed in."""

    def force(self, state: tuple[torch.Tensor, ...], drive: torch.Tensor) -> torch.Tensor:
        s = super().force(state, drive)
        self.seen = s.dtype
        return s


def test_under_autocast_the_narrow_products_are_summed_in_the_type_of_the_state() -> None:
    cell = Watched(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pendula.scan(cell, torch.randn(4, 2, 2), backend="reference")
    assert cell.seen == torch.float32


def test_moving_the_cell_moves_its_physics() -> None:
    assert CoRNNCell(2, 3, dt=[0.1, 0.15, 0.2]).double().dt.dtype == torch.float64


def test_double_physics_is_not_rounded_through_single() -> None:
    assert_close(CoRNNCell(2, 3, dt=0.1, dtype=torch.float64).dt, double(0.1), **tolerance.EXACT)


class TestCoRNNExplicit(LayerContract):
    network = "CoRNN"
    physics: ClassVar = {"dt": 0.2, "gamma": 1.5, "epsilon": 1.2}


class TestCoRNNImplicit(LayerContract):
    network = "CoRNN"
    physics: ClassVar = {"dt": 0.2, "gamma": 1.5, "epsilon": 1.2, "variant": "implicit"}


class TestCoRNNPerUnitLearned(LayerContract):
    network = "CoRNN"
    physics: ClassVar = {
        "dt": torch.linspace(0.1, 0.3, N, dtype=torch.float64),
        "gamma": torch.linspace(0.5, 2.0, N, dtype=torch.float64),
        "epsilon": torch.linspace(2.0, 1.0, N, dtype=torch.float64),
        "learnable": ("dt", "gamma", "epsilon"),
    }
