"""Forecasting of dynamical systems: Lorenz-96, Mackey-Glass, FitzHugh-Nagumo."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy
import torch
from numpy.typing import NDArray

from pendula._check import between, finite_number, positive_int
from pendula.tasks.base import PARTS, Sequences, StoredTask
from pendula.tasks.chance import generator_for

Floats = NDArray[numpy.float64]
Field = Callable[[Floats], Floats]


class Forecast(StoredTask):
    """The state some steps ahead, asked for at every step of a trajectory.

    Trajectories are integrated in float64 when the task is made, and kept as float32. Trajectory i of a part starts
    where `data_seed`, the part and i say, so that no two parts share one. The loss is the mean squared error.

    Attributes:
        drawn: how many numbers decide where a trajectory starts.
        variance: of the targets of the test part, mean over the features: what predicting their mean costs.
    """

    target = "values"
    per_step = True
    drawn: int = 1
    variance: float

    def __init__(
        self, train_size: int, validation_size: int, test_size: int, length: int, horizon: int, data_seed: int
    ) -> None:
        self.length, self.horizon = positive_int("length", length), positive_int("horizon", horizon)
        given = {"train_size": train_size, "validation_size": validation_size, "test_size": test_size}
        sizes = [positive_int(name, size) for name, size in given.items()]
        seed = positive_int("data_seed", data_seed, least=0)
        rows = [(part, i) for part, size in enumerate(sizes) for i in range(size)]
        # uniform in [-1, 1), one stream for each row
        draws = [torch.rand(self.drawn, generator=generator_for(seed, *row), dtype=torch.float64) for row in rows]
        course = self.trajectories(2 * torch.stack(draws).numpy() - 1)
        paths = torch.split(torch.from_numpy(course).float(), sizes)
        super().__init__({part: self._asked(path) for part, path in zip(PARTS, paths, strict=True)})
        self.output_size = self.input_size
        self.variance = float(self.part("test").y.double().var(0, correction=0).mean())
        self.baseline = self.variance

    @abstractmethod
    def trajectories(self, draws: Floats) -> Floats:
        """(N, length + horizon, I) from (N, drawn) numbers in [-1, 1)."""

    def nrmse(self, loss: float) -> float:
        """Root mean squared error over the standard deviation of the test targets, from a loss of the test part."""
        return math.sqrt(loss / self.variance)

    def _asked(self, paths: torch.Tensor) -> Sequences:
        seen, asked = paths[:, : self.length], paths[:, self.horizon :]
        return Sequences.stacked(seen, asked.reshape(-1, asked.shape[2]))


class Lorenz96(Forecast):
    """Lorenz-96: x_k' = (x_{k+1} - x_{k-2}) x_{k-1} - x_k + F on a ring, all of it seen, `horizon` steps ahead.

    The coRNN and UnICORNN papers use 5 dimensions, F = 0.9 (regular) and F = 8 (chaotic), and predict 25 steps ahead
    (spec sheets ``cornn.md`` 5.5 and ``unicornn.md`` 5.2: from memory, low confidence, no code). All else is our
    choice: the sampling interval, Runge-Kutta of order 4 with inner steps of at most 0.025, starts uniform within 0.5
    of F, 50 units of time left out before, lengths and counts (those of FitzHugh-Nagumo), and how `nrmse` normalises.
    So numbers beside published ones need that said.

    Args:
        forcing: F.
        dimension: features, at least 4.
        dt: units of time between two samples.
        horizon: samples ahead.
        length: samples of a sequence.
        train_size, validation_size, test_size: trajectories of each part.
        data_seed: draws where they start.
        standardise: whether a model on this task scales its inputs; targets keep their units.

    Errors: ValueError, also when dt is too long for the integration.
    """

    name: ClassVar[str] = "lorenz96"
    summary: ClassVar[str] = "Lorenz-96 with 5 dimensions, the state 25 steps ahead (generated)"
    provenance = "generated; lengths, counts, starts and integration are ours, not the papers'"
    settle: ClassVar[float] = 50.0

    def __init__(
        self,
        forcing: float = 8.0,
        dimension: int = 5,
        dt: float = 0.05,
        horizon: int = 25,
        length: int = 1000,
        train_size: int = 128,
        validation_size: int = 128,
        test_size: int = 1024,
        data_seed: int = 0,
        standardise: bool = True,
    ) -> None:
        self.forcing = finite_number("forcing", forcing)
        self.drawn = positive_int("dimension", dimension, least=4)
        self.dt = between("dt", dt, 1e-6, 1.0)
        self.standardise = standardise
        super().__init__(train_size, validation_size, test_size, length, horizon, data_seed)

    def trajectories(self, draws: Floats) -> Floats:
        inner, left_out = math.ceil(self.dt / 0.025), round(self.settle / self.dt)
        start = self.forcing + 0.5 * draws
        return integrate(self.field, start, self.dt, left_out + self.length + self.horizon, inner)[:, left_out:]

    def field(self, x: Floats) -> Floats:
        """x' of states (N, dimension)."""
        ring = numpy.concatenate((x[:, -2:], x, x[:, :1]), 1)
        return (ring[:, 3:] - ring[:, :-3]) * ring[:, 1:-2] - x + self.forcing


class FitzHughNagumo(Forecast):
    """FitzHugh-Nagumo: v' = v - v^3/3 - w + I, w' = (v + a - b w) / 50; v is seen, its next sample asked for.

    As in the LEM repository (spec sheet ``cornn.md`` 5.6, read in the code): I = 0.5, a = 0.7, b = 0.8, starts uniform
    in [-1, 1] x {0}, [0, 400] in 1000 steps, 128 / 128 / 1024 trajectories. Ours are the samples every 0.4 with the
    start among them, Runge-Kutta of order 4 with inner steps of 0.05, and the random numbers. They report the root of
    the mean squared error.

    Args:
        horizon, length, train_size, validation_size, test_size, data_seed, standardise: as for `Lorenz96`.
    """

    name: ClassVar[str] = "fitzhugh_nagumo"
    summary: ClassVar[str] = "FitzHugh-Nagumo, the next sample of the first component (generated)"
    provenance = "generated by the published equation and counts, with our own random numbers and integration"
    current, a, b, rate = 0.5, 0.7, 0.8, 1 / 50

    def __init__(
        self,
        horizon: int = 1,
        length: int = 1000,
        train_size: int = 128,
        validation_size: int = 128,
        test_size: int = 1024,
        data_seed: int = 0,
        standardise: bool = False,
    ) -> None:
        self.standardise = standardise
        super().__init__(train_size, validation_size, test_size, length, horizon, data_seed)

    def trajectories(self, draws: Floats) -> Floats:
        start = numpy.concatenate((draws, numpy.zeros_like(draws)), 1)
        return integrate(self.field, start, 0.4, self.length + self.horizon, 8)[:, :, :1]

    def field(self, state: Floats) -> Floats:
        """(v', w') of states (N, 2)."""
        v, w = state.T
        slope = numpy.empty_like(state)
        slope[:, 0] = v - v * v * v / 3 - w + self.current
        slope[:, 1] = self.rate * (v + self.a - self.b * w)
        return slope


class MackeyGlass(Forecast):
    """Mackey-Glass: x' = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x, sampled every `dt`, `horizon` samples ahead.

    tau = 17 is the usual, mildly chaotic case. Histories before the start are constant, uniform in [0.7, 1.7]; 1000
    units of time are left out before. These, the counts and the lengths are our choice; the equation is the standard
    one [from memory]. Runge-Kutta of order 4 with inner steps of at most 0.1, the history between them interpolated
    with cubics.

    Args:
        tau: the delay, in units of time.
        dt: units of time between two samples.
        horizon, length, train_size, validation_size, test_size, data_seed, standardise: as for `Lorenz96`.
    """

    name: ClassVar[str] = "mackey_glass"
    summary: ClassVar[str] = "Mackey-Glass with delay 17, 15 samples ahead (generated)"
    provenance = "generated by the standard equation; lengths, counts, starts and integration are our choice"
    settle: ClassVar[float] = 1000.0

    def __init__(
        self,
        tau: float = 17.0,
        dt: float = 1.0,
        horizon: int = 15,
        length: int = 1000,
        train_size: int = 128,
        validation_size: int = 128,
        test_size: int = 128,
        data_seed: int = 0,
        standardise: bool = True,
    ) -> None:
        self.tau = between("tau", tau, 0.1, 1000.0)
        self.dt = between("dt", dt, 1e-3, 100.0)
        self.standardise = standardise
        super().__init__(train_size, validation_size, test_size, length, horizon, data_seed)

    def trajectories(self, draws: Floats) -> Floats:
        inner = math.ceil(self.dt / 0.1)
        left_out = round(self.settle / self.dt)
        start = 1.2 + 0.5 * draws[:, 0]
        course = integrate_delayed(self.field, start, self.tau, self.dt, left_out + self.length + self.horizon, inner)
        return course[:, left_out:, None]

    @staticmethod
    def field(x: Floats, delayed: Floats) -> Floats:
        return 0.2 * delayed / (1 + delayed**10) - 0.1 * x


def integrate(field: Field, start: Floats, dt: float, samples: int, inner: int) -> Floats:
    """Samples (N, samples, I) of x' = field(x) every dt from `start` (N, I), which is the first of them.

    The classical Runge-Kutta scheme of order 4 with steps of dt / inner. Errors: ValueError if it overflows.

    >>> decay = integrate(lambda x: -x, numpy.ones((1, 1)), dt=1.0, samples=2, inner=20)
    >>> round(float(decay[0, 1, 0]), 6)
    0.367879
    """
    h, x = dt / inner, start
    course = numpy.empty((len(start), samples, start.shape[1]))
    course[:, 0] = x
    with numpy.errstate(over="ignore", invalid="ignore"):
        for k in range(1, samples):
            for _ in range(inner):
                a = field(x)
                b = field(x + h / 2 * a)
                c = field(x + h / 2 * b)
                x = x + h / 6 * (a + 2 * (b + c) + field(x + h * c))
            course[:, k] = x
    return _finite(course, dt)


def integrate_delayed(
    field: Callable[[Floats, Floats], Floats], start: Floats, tau: float, dt: float, samples: int, inner: int
) -> Floats:
    """Samples (N, samples) of x' = field(x, x(t - tau)) every dt; before and at the start, x is `start` (N,).

    Runge-Kutta of order 4 with `inner` steps between two samples; where t - tau is between two steps, the cubic through
    values and slopes of both (Hermite), so that order 4 is kept as long as corners of the solution (at the start, and
    tau, 2 tau, ... later) fall on steps. Errors: ValueError if a step is longer than tau, or it overflows.
    """
    h = dt / inner
    if h > tau:
        raise ValueError(f"the inner step dt / {inner} = {h:g} must be at most tau = {tau:g}: take a smaller dt")
    steps = (samples - 1) * inner
    values, slopes = numpy.empty((2, steps + 1, len(start)))
    values[0], slopes[0] = start, field(start, start)
    with numpy.errstate(over="ignore", invalid="ignore"):
        for k in range(steps):
            middle, late = (_history(values, slopes, k + ahead - tau / h, h) for ahead in (0.5, 1.0))
            x, a = values[k], slopes[k]
            b = field(x + h / 2 * a, middle)
            c = field(x + h / 2 * b, middle)
            values[k + 1] = x + h / 6 * (a + 2 * (b + c) + field(x + h * c, late))
            slopes[k + 1] = field(values[k + 1], late)
    return _finite(values[::inner].T, dt)


def _history(values: Floats, slopes: Floats, place: float, h: float) -> Floats:
    """The solution at a place in steps from the start."""
    # 170.00000000000003 steps of 0.1 are 17
    place = max(round(place, 9), 0.0)
    k = math.floor(place)
    s = place - k
    found: Floats = values[k]
    if s > 0:
        rest = 1 - s
        found = (1 + 2 * s) * rest * rest * values[k] + (3 - 2 * s) * s * s * values[k + 1]
        found += h * s * rest * (rest * slopes[k] - s * slopes[k + 1])
    return found


def _finite(course: Floats, dt: float) -> Floats:
    if not numpy.isfinite(course).all():
        raise ValueError(f"the integration overflows with dt={dt:g}: take a smaller one")
    return course
