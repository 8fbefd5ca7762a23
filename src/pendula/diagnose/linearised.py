"""A cell near a state: the eigenvalues of its step as frequencies and decay, and the stability region of its scheme."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from pendula.cells import Cell, ODERNNCell, State
from pendula.diagnose.lyapunov import one_step
from pendula.math.schemes import TABLEAUX, Tableau
from pendula.nets.jacobian import step_jacobian

# a matrix that float32 holds as orthogonal has moduli within some 1e-7 of 1; so has a defective double eigenvalue 1
EDGE = 1e-6
EULER = ("AntisymmetricRNN", "LipschitzRNN")
RAYS = 91


@dataclass(frozen=True)
class Region:
    """Where a step does not let a mode grow.

    Attributes:
        scheme: "Euler", "rk4", ..., with the region ``|R(z)| <= 1`` of ``z = dt lambda`` for eigenvalues lambda of the
            vector field; or "step": the unit disc, with the eigenvalues of the step itself in it, for schemes that
            treat positions and velocities differently and for maps that come from no equation.
        polynomial: coefficients of R, constant first; None for "step".
        boundary: points (real, imaginary) of its upper half, where one first leaves it on rays from 0.
    """

    scheme: str
    polynomial: tuple[float, ...] | None
    boundary: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Linearisation:
    """A step near one state, as a matrix: what each of its modes does. The lists are in the same order, but for points.

    Attributes:
        where: "at rest" (the initial state, input zero) or a moment of the trajectory.
        real, imaginary: of the eigenvalues of the step, largest modulus first; complex ones come in pairs.
        frequency: cycles per step, from 0 to 1/2.
        decay: steps in which a mode shrinks to 1/e; inf where it stays, negative where it grows, 0 where it ends.
        rate, angular: real part and size of the imaginary part of ln(eigenvalue)/dt, per unit of time: how it grows and
            turns. None where there is no time step, or none that belongs to the mode.
        points, growth, inside: the spectrum in the plane of the region, by how much the scheme multiplies such a mode
            per step, and whether that is at most 1 (up to rounding). For Runge-Kutta schemes the vector field is frozen
            at the start of the step. Products of harmless steps can still grow (``odernn.md`` O11): see the exponents.
    """

    where: str
    real: tuple[float, ...]
    imaginary: tuple[float, ...]
    frequency: tuple[float, ...]
    decay: tuple[float, ...]
    rate: tuple[float, ...] | None
    angular: tuple[float, ...] | None
    points: tuple[tuple[float, float], ...]
    growth: tuple[float, ...]
    inside: tuple[bool, ...]


def scheme_of(cell: Cell) -> tuple[str, Tableau | None]:
    """The Runge-Kutta scheme of a cell's step, and its name; "step" and None where it is none."""
    if isinstance(cell, ODERNNCell) and cell.scheme is not None:
        return (cell.tableau if isinstance(cell.tableau, str) else "Runge-Kutta"), cell.scheme
    if type(cell).__name__.removesuffix("Cell") in EULER:
        return "Euler", TABLEAUX["euler"]
    return "step", None


def region_of(cell: Cell) -> Region:
    name, tableau = scheme_of(cell)
    if tableau is None:
        edge = (cmath.rect(1.0, math.pi * k / (RAYS - 1)) for k in range(RAYS))
        return Region(name, None, tuple((z.real, z.imag) for z in edge))
    rays = [cmath.rect(1.0, math.pi * k / (RAYS - 1)) for k in range(RAYS)]
    limits = [(ray, tableau.limit(ray)) for ray in rays]
    left = (ray * limit for ray, limit in limits if math.isfinite(limit))
    return Region(name, tableau.polynomial, tuple((z.real, z.imag) for z in left))


def linearise(
    cell: Cell, state: State, drive: Tensor, *, where: str, tau: Tensor | None = None
) -> Linearisation | None:
    """The step of one sequence (every tensor (1, ...)) near a state, in float64; None where it is not finite."""
    M = step_jacobian(cell, state, drive, tau=tau)[0]
    if not bool(M.isfinite().all()):
        return None
    span = 1.0 if tau is None else float(tau)
    values, steps = _eigenvalues(cell, M, len(state))
    order = values.abs().argsort(descending=True)
    values, steps = values[order], None if steps is None else steps[order] * span
    log = values.log()
    modulus = values.abs()
    decay = torch.where((modulus - 1).abs() <= EDGE, math.inf, -1 / modulus.log())
    _, tableau = scheme_of(cell)
    points, growth = values, modulus
    if tableau is not None:
        points = torch.linalg.eigvals(_field_jacobian(cell, state, drive) * span)
        growth = tableau.R(points).abs()
    return Linearisation(
        where=where,
        real=tuple(values.real.tolist()),
        imaginary=tuple(values.imag.tolist()),
        frequency=tuple((log.imag.abs() / (2 * math.pi)).tolist()),
        decay=tuple(decay.tolist()),
        rate=None if steps is None else tuple((log.real / steps).tolist()),
        angular=None if steps is None else tuple((log.imag.abs() / steps).tolist()),
        points=tuple(zip(points.real.tolist(), points.imag.tolist(), strict=True)),
        growth=tuple(growth.tolist()),
        inside=tuple((growth <= 1 + EDGE).tolist()),
    )


def rest(cell: Cell) -> tuple[State, Tensor]:
    """The initial state, and the drive of no input."""
    # a state that is not there yet (NaN) is taken as zero
    state = cell.State(*(s.detach().nan_to_num(0.0) for s in cell.initial_state(1)))
    return state, cell.drive(state[0].new_zeros(1, 1, cell.input_size))[0].detach()


def _eigenvalues(cell: Cell, M: Tensor, fields: int) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues of a step (S,), and the time step that belongs to each; unit by unit where units don't see others."""
    units = M.shape[0] // fields
    dt = getattr(cell, "dt", None) if cell.has_time_step else None
    if units * fields == M.shape[0] and units > 1:
        parts = M.reshape(fields, units, fields, units)
        own = parts.diagonal(dim1=1, dim2=3)
        if int(parts.count_nonzero()) == int(own.count_nonzero()):
            values: Tensor = torch.linalg.eigvals(own.permute(2, 0, 1))
            if dt is None or dt.numel() not in (1, units):
                return values.flatten(), None
            return values.flatten(), dt.detach().expand(units).unsqueeze(1).expand_as(values).flatten()
    values = torch.linalg.eigvals(M)
    shared = one_step(cell)
    return values, None if shared is None else torch.full_like(values.real, shared)


def _field_jacobian(cell: Cell, state: State, drive: Tensor) -> Tensor:
    """dt times the Jacobian of the vector field, (S, S) without what is only kept for the next step."""
    field = cast(Callable[..., State], cell.vector_field)
    with torch.enable_grad():
        flat = torch.cat([s.detach() for s in state], -1).requires_grad_()
        parts = torch.split(flat, [s.shape[-1] for s in state], -1)
        slope = torch.cat(field(cell.State(*parts), drive), -1)
        rows = [torch.autograd.grad(part, flat, retain_graph=True)[0][0] for part in slope[0]]
    J = torch.stack(rows)
    size = cell.t * cell.hidden_size if isinstance(cell, ODERNNCell) else J.shape[0]
    dt = cast(Tensor, cell.dt).detach()
    by_row = dt.expand(cell.hidden_size).repeat(size // cell.hidden_size)
    return by_row.unsqueeze(1) * J[:size, :size]
