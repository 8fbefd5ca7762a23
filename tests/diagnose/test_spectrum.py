"""Spectra of steps: against finite differences, against systems whose spectra are known, for every network."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CELLS, Cell
from pendula.diagnose.linearised import EDGE, EULER
from pendula.diagnose.spectrum import LayerSpectrum, spectrum
from pendula.math import oscillator
from pendula.math.schemes import TABLEAUX
from pendula.nets.jacobian import step_jacobian
from pendula.nets.spec import ModelSpec, Node
from pendula.tasks.base import Batch
from tests import tolerance

I, N, T, B = 2, 4, 40, 3
LENGTHS = torch.tensor([40, 23, 1])
ALL = 10**6


def layer(network: str, units: int = N, **options: Any) -> pendula.Recurrent:
    return pendula.LAYERS[network](I, units, dtype=torch.float64, **options)


def batch(steps: int = T, size: int = B, lengths: Tensor | None = None, timespans: Tensor | None = None) -> Batch:
    return Batch(torch.randn(steps, size, I).double(), torch.zeros(size), lengths, timespans)


def alone(network: pendula.Recurrent, given: Batch, **options: Any) -> LayerSpectrum:
    (found,) = spectrum(network, given, **options)
    return found


def near(found: Any, wanted: Any, **within: float) -> None:
    assert_close(*(torch.as_tensor(numbers, dtype=torch.float64) for numbers in (found, wanted)), **within)


def moduli(line: Any) -> Tensor:
    return torch.tensor([math.hypot(*v) for v in zip(line.real, line.imaginary, strict=True)], dtype=torch.float64)


# --- every network


@pytest.mark.parametrize("network", CELLS)
def test_it_runs_for_every_network_and_says_whether_time_can_run_in_parallel(network: str) -> None:
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    net = pendula.Model(ModelSpec(I, 2, (Node(network, N, **options),)))
    spans = torch.rand(T, B) + 0.5 if CELLS[network].has_time_step else None
    found = spectrum(net, replace(batch(lengths=LENGTHS), x=torch.randn(T, B, I), timespans=spans))
    names = ["layer0.0", "layer0.0 backwards", "layer0.1", "layer0.1 backwards"]
    assert [s.name for s in found] == names
    for one in found:
        data = json.loads(json.dumps(one.to_dict(), allow_nan=False))
        assert data["network"] == network
        assert one.parallel.sentence
        assert one.lyapunov.sign in ("negative", "zero", "positive")
        assert one.gains is not None
        assert one.gains.times[0] == 0
        assert one.gains.times[-1] == T - 1
        assert one.linearisations[0].where == "at rest"
        for line in one.linearisations:
            assert len(line.real) == len(line.decay) == len(line.frequency) == one.state_size
            assert len(line.points) == len(line.growth) == len(line.inside)


@pytest.mark.parametrize("network", CELLS)
def test_gains_are_the_singular_values_of_finite_differences(network: str) -> None:
    net, given = layer(network), batch(size=1)
    gains = alone(net, given, samples=3).gains
    assert gains is not None
    cell, step = net.cell(0), 1e-6
    state = cell.initial_state(1)
    widths = [s.shape[-1] for s in state]
    with torch.no_grad(), cell.keeping():
        for t in range(T):
            drive = cell.drive(given.x[t : t + 1])[0]
            if t in gains.times:
                flat = torch.cat([s.expand(2 * sum(widths), -1) for s in state], -1)
                moved = flat + step * torch.cat((torch.eye(sum(widths)), -torch.eye(sum(widths))))
                after = torch.cat(cell.step(cell.State(*moved.split(widths, -1)), drive.expand(len(moved), -1)), -1)
                values = torch.linalg.svdvals((after[: sum(widths)] - after[sum(widths) :]).T / (2 * step))
                i = gains.times.index(t)
                near([gains.largest[i], gains.smallest[i]], values[[0, -1]], rtol=1e-6, atol=1e-6)
            state = cell.step(state, drive)


@pytest.mark.parametrize("network", ["CoRNN", "UnICORNN", "LEM", "LinOSS", "AntisymmetricRNN", "ODERNN", "LMU", "QUNN"])
def test_all_exponents_add_up_to_the_logarithm_of_the_volume(network: str) -> None:
    physics = {"memory": 3, "theta": 8.0} if network == "LMU" else {}
    net, given = layer(network, **physics), batch(lengths=LENGTHS)
    found = alone(net, given, samples=1, exponents=ALL).lyapunov
    assert found.complete
    cell, total, steps = net.cell(0), 0.0, 0
    # the last tenth of a sequence only turns the frame
    for b, used in enumerate((36, 21, 1)):
        state = cell.initial_state(1)
        for t in range(used):
            drive = cell.drive(given.x[t : t + 1, b : b + 1])[0].detach()
            total += float(step_jacobian(cell, state, drive)[0].slogdet().logabsdet)
            state = cell.State(*(s.detach() for s in cell.step(state, drive)))
        steps += used
    assert found.steps == pytest.approx((36**2 + 21**2 + 1) / steps)
    assert sum(found.exponents) == pytest.approx(total / steps, rel=1e-9, abs=1e-9)


def test_the_leading_exponents_are_those_of_all_of_them() -> None:
    net, given = layer("CoRNN"), batch(steps=400, size=2)
    whole = alone(net, given, exponents=ALL).lyapunov
    few = alone(net, given, exponents=2).lyapunov
    assert (few.complete, len(few.exponents)) == (False, 2)
    near(few.exponents, whole.exponents[:2], rtol=0.0, atol=2e-3)


# --- systems that are known


def undriven(units: int = 2, **physics: Any) -> pendula.Recurrent:
    """coRNN without weights: damped oscillators that see nothing."""
    net = layer("CoRNN", units, **physics)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    return net


@pytest.mark.parametrize("variant", oscillator.VARIANTS)
@pytest.mark.parametrize(("gamma", "epsilon"), [(4.0, 0.5), (0.4, 8.0)])
def test_a_damped_oscillator_has_its_own_frequency_decay_and_exponents(
    variant: str, gamma: float, epsilon: float
) -> None:
    dt = 0.076
    found = alone(undriven(1, dt=dt, gamma=gamma, epsilon=epsilon, variant=variant), batch(1500, 1), exponents=ALL)
    A, _ = oscillator.transition(*torch.tensor([dt, gamma, epsilon], dtype=torch.float64), variant)
    values = torch.linalg.eigvals(A)
    log = values[values.abs().argsort(descending=True)].log()
    for line in found.linearisations:
        near(line.decay, -1 / log.real, rtol=1e-9, atol=0.0)
        near(line.frequency, log.imag.abs() / (2 * math.pi), rtol=1e-9, atol=1e-12)
        near(line.rate, log.real / dt, rtol=1e-9, atol=0.0)
        near(line.angular, log.imag.abs() / dt, rtol=1e-9, atol=1e-12)
        assert all(line.inside)
    # a conjugate pair turns within a stride, so one exponent may be off by a share of a period
    near(found.lyapunov.exponents, log.real, rtol=0.0, atol=4e-3)
    near(sum(found.lyapunov.exponents), log.real.sum(), rtol=1e-9, atol=0.0)
    assert found.lyapunov.per_time is not None
    near(found.lyapunov.per_time[0] * dt, found.lyapunov.exponents[0], rtol=1e-12, atol=0.0)


def test_small_steps_have_the_frequency_and_damping_of_the_equation() -> None:
    found = alone(undriven(1, dt=1e-4, gamma=4.0, epsilon=0.5), batch(9, 1)).linearisations[0]
    near(found.rate, [-0.25, -0.25], rtol=1e-3, atol=0.0)
    near(found.angular, 2 * [math.sqrt(4 - 0.25**2)], rtol=1e-3, atol=0.0)


def test_units_with_time_steps_of_their_own_have_rates_of_their_own() -> None:
    dt = torch.tensor([1e-4, 3e-4]).double()
    found = alone(undriven(2, dt=dt, gamma=4.0, epsilon=0.5), batch(9, 1)).linearisations[0]
    near(found.rate, [-0.25] * 4, rtol=1e-3, atol=0.0)
    coupled = alone(layer("CoRNN", 2, dt=dt, gamma=4.0, epsilon=0.5), batch(9, 1))
    assert coupled.linearisations[0].rate is None
    assert coupled.lyapunov.per_time is None


@pytest.mark.parametrize(("physics", "memory"), [((0.076, 0.4, 8.0), 262), ((0.06, 66.0, 15.0), 3.1)])
def test_the_settings_of_the_sheet_forget_as_it_says(physics: tuple[float, float, float], memory: float) -> None:
    # spec sheet cornn.md 4.5: -1/ln rho of psMNIST (256 units), and of the adding default
    net = undriven(**dict(zip(("dt", "gamma", "epsilon"), physics, strict=True)))
    assert max(alone(net, batch(9, 1)).linearisations[0].decay) == pytest.approx(memory, rel=5e-3)


def test_a_stable_and_an_unstable_step_lie_on_their_sides_of_the_edge() -> None:
    # sheet 4.6: gamma = 4, epsilon = 0.5, explicit
    critical = 0.8827822185373186
    with pytest.warns(pendula.StabilityWarning):
        nets = [undriven(dt=share * critical, gamma=4.0, epsilon=0.5) for share in (0.999, 1.001)]
    inside, beyond = (alone(net, batch(9, 1)).linearisations[0] for net in nets)
    assert all(inside.inside)
    assert not all(beyond.inside)
    # O12
    assert max(beyond.growth) == pytest.approx(1.01580481, rel=1e-8)
    assert min(beyond.decay) < 0


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_the_exponents_of_unicornn_add_up_to_zero(alpha: float) -> None:
    net = layer("UnICORNN", alpha=alpha, dt=0.3)
    with torch.no_grad():
        net.cell(0).w.uniform_(-3, 3)
    found = alone(net, batch(steps=200), exponents=ALL).lyapunov
    assert sum(found.exponents) == pytest.approx(0, abs=1e-12)
    assert found.exponents[0] > 0


@pytest.mark.parametrize("network", ["URNN", "FullCapacityURNN", "EURNN", "RealEURNN", "ExpRNN", "ScoRNN"])
def test_without_its_nonlinearity_a_unitary_step_stretches_nothing(network: str) -> None:
    found = alone(layer(network, bias=False), batch(), exponents=ALL)
    assert found.gains is not None
    ones = [1.0] * len(found.gains.times)
    # modReLU has no slope at zero, where the orthogonal networks start
    for gains in (found.gains.largest, found.gains.median, found.gains.smallest):
        near(gains, ones, rtol=1e-9, atol=0.0)
    near(found.lyapunov.exponents, [0.0] * found.state_size, rtol=0.0, atol=1e-9)
    assert found.lyapunov.sign == "zero"
    near(moduli(found.linearisations[1]), [1.0] * found.state_size, rtol=1e-9, atol=0.0)


def test_oscillators_of_linoss_keep_their_amplitude_and_show_their_frequency() -> None:
    net = layer("LinOSS", dt=torch.linspace(0.5, 1.5, N).double())
    found = alone(net, batch())
    cell: Any = net.cell(0)
    angle = torch.acos(1 - cell.dt**2 * cell.A / 2).repeat_interleave(2)
    line = found.linearisations[0]
    near(sorted(line.frequency), (angle / (2 * math.pi)).sort().values.detach(), rtol=1e-9, atol=0.0)
    near(sorted(line.angular or ()), (angle / cell.dt.repeat_interleave(2)).sort().values.detach(), rtol=1e-9, atol=0.0)
    assert set(line.decay) == {math.inf}
    assert found.parallel.safe
    assert "associative scan" in found.parallel.sentence


def test_the_eigenvalues_of_dlinoss_lie_in_the_ring_they_start_in() -> None:
    found = alone(layer("DLinOSS", r_min=0.8, r_max=0.82), batch())
    assert all(0.8 <= r <= 0.82 for r in moduli(found.linearisations[0]).tolist())


def chaotic(steps: int, variant: str) -> tuple[pendula.Recurrent, Batch]:
    """Spec sheet cornn.md 4.4; a kick in the first step takes the place of its starting state."""
    draws, units = numpy.random.default_rng(0), 50
    draws.standard_normal((units, units))
    net = layer("CoRNN", units, dt=0.02, gamma=1.0, epsilon=2.0, variant=variant)
    cell: Any = net.cell(0)
    with torch.no_grad():
        cell.W_z.copy_(torch.from_numpy(20 * draws.standard_normal((units, units)) / math.sqrt(units)))
        cell.W.zero_()
        cell.b.zero_()
    given = batch(steps, 1)
    given.x[1:] = 0
    return net, given


@pytest.mark.parametrize(("variant", "exponent"), [("explicit", 0.42), ("implicit", 0.37)])
def test_the_counter_example_of_cornn_is_chaotic_and_not_to_be_run_in_parallel(variant: str, exponent: float) -> None:
    net, given = chaotic(12_000, variant)
    found = alone(net, given, exponents=2, samples=1)
    assert found.lyapunov.per_time is not None
    assert found.lyapunov.per_time[0] == pytest.approx(exponent, abs=tolerance.LYAPUNOV)
    assert (found.lyapunov.sign, found.parallel.safe) == ("positive", False)
    assert f"{found.lyapunov.exponents[0]:+.3g} per step" in found.parallel.sentence
    # the states stay bounded all the same
    outputs, _ = net(given.x)
    assert float(outputs.detach().abs().max()) < 1


def test_a_network_that_forgets_can_be_run_in_parallel() -> None:
    found = alone(layer("LSTM"), batch(steps=300))
    assert (found.lyapunov.sign, found.parallel.safe) == ("negative", True)
    assert "small changes are forgotten" in found.parallel.sentence


def test_growth_like_a_power_of_time_is_not_called_exponential() -> None:
    net = layer("UnICORNN", alpha=0.0, dt=0.3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    # free particles: a change of velocity moves the position on and on
    found = alone(net, batch(steps=500), exponents=ALL)
    assert found.lyapunov.exponents[0] > 0.003
    assert (found.lyapunov.sign, found.parallel.safe) == ("zero", True)
    assert "at the edge" in found.parallel.sentence


def test_what_overflows_is_not_called_safe() -> None:
    net = layer("IRNN")
    with torch.no_grad():
        net.cell(0).W.copy_(1e30 * torch.eye(N))
        net.cell(0).V.abs_()
    found = alone(net, Batch(torch.ones(T, 1, I).double(), torch.zeros(1)))
    assert (found.lyapunov.sign, found.parallel.safe) == ("not finite", False)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("network", CELLS)
def test_weights_that_are_no_numbers_are_reported_and_break_nothing(network: str) -> None:
    net = layer(network)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(math.nan)
    found = alone(net, batch())
    assert (found.lyapunov.sign, found.parallel.safe) == ("not finite", False)
    json.dumps(found.to_dict(), allow_nan=False)


# --- lengths, time spans, precision


def test_a_batch_gives_what_its_sequences_give_one_by_one() -> None:
    net, given = layer("CoRNN"), batch(lengths=LENGTHS)
    given.x[1:, 2] = math.nan
    both = alone(net, given, exponents=ALL, samples=1)
    singles = []
    for b, length in enumerate(LENGTHS.tolist()):
        one = Batch(given.x[:length, b : b + 1], torch.zeros(1))
        singles.append(alone(net, one, exponents=ALL, samples=1))
    weights = torch.tensor([s.lyapunov.steps for s in singles])
    sums = torch.tensor([sum(s.lyapunov.exponents) for s in singles])
    assert sum(both.lyapunov.exponents) == pytest.approx(float((weights * sums).sum() / weights.sum()), rel=1e-6)
    assert both.gains is not None
    assert both.gains.largest[0] == max(s.gains.largest[0] for s in singles if s.gains)


def test_a_time_span_of_two_is_a_step_twice_as_long() -> None:
    slow, given = layer("CoRNN", dt=0.05), batch(timespans=torch.full((T, B), 2.0))
    fast = layer("CoRNN", dt=0.1)
    fast.load_state_dict({**slow.state_dict(), "cells.0.dt": fast.state_dict()["cells.0.dt"]})
    a, b = alone(slow, given), alone(fast, replace(given, timespans=None))
    near(a.lyapunov.exponents, b.lyapunov.exponents, rtol=1e-9, atol=1e-12)
    near(a.lyapunov.per_time, b.lyapunov.per_time, rtol=1e-9, atol=1e-12)
    assert a.gains is not None
    assert b.gains is not None
    near(a.gains.largest, b.gains.largest, rtol=1e-12, atol=0.0)
    near(a.linearisations[1].rate, b.linearisations[1].rate, rtol=1e-9, atol=1e-9)


def test_the_second_direction_is_followed_backwards_in_time() -> None:
    net, given = layer("CoRNN", bidirectional=True), batch(size=1)
    back = layer("CoRNN")
    back.load_state_dict({k.replace("cells.1", "cells.0"): v for k, v in net.state_dict().items() if "cells.1" in k})
    wanted = alone(back, replace(given, x=given.x.flip(0)))
    found = spectrum(net, given)[1]
    assert found.lyapunov == wanted.lyapunov
    assert found.gains == wanted.gains


def test_float32_networks_are_looked_at_in_float64_and_stay_as_they_were() -> None:
    net = pendula.CoRNN(I, N)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    (found,) = spectrum(net, replace(batch(), x=torch.randn(T, B, I)))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net.training
    assert next(net.parameters()).dtype == torch.float32
    assert found.lyapunov.exponents[0] != torch.tensor(found.lyapunov.exponents[0]).float().item()


def test_a_jacobian_that_is_too_large_is_left_out_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    # the package has a function of the same name
    monkeypatch.setattr(sys.modules[spectrum.__module__], "LARGEST", 7)
    found = alone(layer("CoRNN"), batch())
    assert (found.gains, found.linearisations) == (None, ())
    assert found.left_out is not None
    assert "8 by 8" in found.left_out
    assert len(found.lyapunov.exponents) == 8


# --- the region of the scheme


@pytest.mark.parametrize("tableau", TABLEAUX)
@pytest.mark.parametrize("order", [1, 2])
def test_the_region_of_a_scheme_multiplies_modes_as_its_step_does(tableau: str, order: int) -> None:
    net = layer("ODERNN", tableau=tableau, order=order, dt=torch.linspace(0.1, 0.4, N).double())
    found = alone(net, batch())
    assert found.region.scheme == tableau
    # elsewhere the stages of a step see fields that differ from that at its start
    line = found.linearisations[0]
    near(sorted(line.growth), moduli(line).sort().values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", EULER)
def test_networks_of_euler_steps_are_seen_as_such(network: str) -> None:
    found = alone(layer(network), batch(timespans=torch.rand(T, B) + 0.5))
    assert found.region.scheme == "Euler"
    for line in found.linearisations:
        near(sorted(line.growth), moduli(line).sort().values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("gamma", "inside"), [(2.78, True), (2.79, False)])
def test_a_mode_beyond_the_limit_of_rk4_is_outside(gamma: float, inside: bool) -> None:
    # odernn.md C1: 2.7852935634 on the real axis
    net = layer("ODERNN", tableau="rk4", order=1, dt=1.0, gamma=2.0)
    cell: Any = net.cell(0)
    with torch.no_grad():
        cell.W.zero_()
        cell.gamma.fill_(gamma)
    line = alone(net, batch()).linearisations[0]
    assert line.points == tuple([(-gamma, 0.0)] * N)
    assert line.inside == tuple([inside] * N)


def test_the_kept_input_of_linear_interpolation_is_no_mode_of_the_field() -> None:
    found = alone(layer("ODERNN", input="linear"), batch())
    assert found.state_size == 3 * N
    assert len(found.linearisations[0].points) == 2 * N
    assert found.lyapunov.exponents[0] > -math.inf


@pytest.mark.parametrize("tableau", TABLEAUX)
def test_on_the_boundary_a_mode_keeps_its_size(tableau: str) -> None:
    region = alone(layer("ODERNN", tableau=tableau), batch(steps=3)).region
    z = torch.tensor([complex(*point) for point in region.boundary], dtype=torch.complex128)
    near(TABLEAUX[tableau].R(z).abs(), torch.ones(len(z)), rtol=1e-9, atol=0.0)
    assert region.polynomial == TABLEAUX[tableau].polynomial
    assert bool((z.imag >= -EDGE).all())


def test_a_map_without_an_equation_has_the_unit_disc() -> None:
    region = alone(layer("GRU"), batch()).region
    assert (region.scheme, region.polynomial) == ("step", None)
    near([math.hypot(*point) for point in region.boundary], [1.0] * len(region.boundary), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 0}, "samples must be a whole number"),
        ({"exponents": 0}, "exponents must be a whole number"),
        ({"sequences": True}, "sequences must be a whole number"),
        ({"network": torch.nn.Linear(2, 2)}, "got Linear"),
        ({"network": pendula.LSTM(I, N), "batch": batch(timespans=torch.ones(T, B))}, "LSTM has no time step"),
    ],
)
def test_what_it_cannot_use_it_refuses(change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"network": layer("CoRNN"), "batch": batch(), **change}
    with pytest.raises(ValueError, match=words):
        spectrum(**arguments)


def test_a_cell_stays_a_cell() -> None:
    net = layer("CoRNN")
    spectrum(net, batch())
    assert isinstance(net.cell(0), Cell)
    assert all(p.grad is None for p in net.parameters())


EIGENWORMS = """
import resource, torch, pendula
from pendula.diagnose.gradients import gradient_flow
from pendula.diagnose.spectrum import spectrum
from pendula.tasks.base import Batch

torch.set_num_threads(1)
model = pendula.Model(pendula.ModelSpec(6, 5, (pendula.Node("CoRNN", 32),)))
batch = Batch(torch.randn(17984, 8, 6), torch.randint(5, (8,)))
flow = gradient_flow(model, batch, lambda y, b: torch.nn.functional.cross_entropy(y, b.y))
(one,) = spectrum(model, batch)
assert flow.layers[0].lags[-1] == 17984 and one.gains.times[-1] == 17983
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GiB")
"""


def test_17_984_steps_fit_into_two_gigabytes() -> None:
    done = subprocess.run([sys.executable, "-c", EIGENWORMS], capture_output=True, text=True, check=True)
    peak = float(done.stdout.split()[-2])
    # macOS counts bytes where Linux counts KiB
    assert peak / (1024 if sys.platform == "darwin" else 1) < 2
