"""Graphs of coupled oscillators: which see one another, and the step that is proved to be stable.

Source: spec sheets ``nago.md`` 9.2 (an extension of ours, not of the paper) and ``cornn.md`` 4.3 and 4.6.
"""

from __future__ import annotations

import math

from pendula._check import at_least_zero, between, one_of, positive_int
from pendula.search.graphs import Graph, watts_strogatz

MARGIN = 0.9
"""Of the largest stable step that a generated network takes."""


def neighbours(units: int, density: float) -> int | None:
    """K of the ring on which a share `density` of the pairs see one another, each oscillator itself among them.

    Even and at least 2, so that units * (K + 1) entries of a matrix are within density * units^2; None: all see all.

    >>> neighbours(100, 0.25), neighbours(100, 1.0), neighbours(3, 0.1)
    (24, None, None)
    """
    positive_int("units", units)
    least = max(2, 2 * math.floor((between("density", density, 0.0, 1.0) * units - 1) / 2))
    return None if density == 1 or least >= units - 1 else least


def coupling(units: int, density: float, probability: float, *, seed: int) -> Graph | None:
    """A Watts-Strogatz graph of oscillators; cycles are allowed: an edge acts from one step to the next, both ways.

    Args:
        units: N, number of oscillators.
        density: share of the recurrent matrix that is not zero.
        probability: with which an edge of the ring is rewired; a low one keeps the ring, on which waves travel.
        seed: see `pendula.search.graphs.watts_strogatz`.

    Returns: None where all see all.
    """
    least = neighbours(units, density)
    return None if least is None else watts_strogatz(units, least, probability, seed=seed)


def edges_of(graph: Graph) -> str:
    """The graph as the `coupling` of a `pendula.CoRNN`.

    >>> edges_of(Graph(3, ((0, 1), (1, 2))))
    '0-1 1-2'
    """
    return " ".join(f"{low}-{high}" for low, high in graph.edges)


def zeros(units: int, edges: int | None) -> int:
    """Entries that stay zero in one recurrent matrix of oscillators with so many edges; None: all see all."""
    return 0 if edges is None else units**2 - units - 2 * edges


def largest_step(stiffness: float, damping: float = 0.0, *, coupled: float = 0.0) -> float:
    """The step below which y'' = -(stiffness + coupled Lap) y - damping y' stays bounded in symplectic Euler.

    With omega^2 = stiffness + coupled: omega^2 dt^2 + 2 damping dt < 4, and dt omega < 2 without damping (sheet 9.2).

    Args:
        stiffness: alpha, or gamma of coRNN; positive.
        damping: epsilon, at least 0.
        coupled: kappa times the largest eigenvalue of the Laplacian, or times what bounds it: twice the largest degree.

    >>> largest_step(4.0)
    1.0
    """
    square = at_least_zero("stiffness", stiffness) + at_least_zero("coupled", coupled)
    if not square:
        raise ValueError("stiffness must be positive: without it every step is stable, and nothing oscillates")
    at_least_zero("damping", damping)
    return (math.sqrt(damping**2 + 4 * square) - damping) / square


def safe_step(graph: Graph, stiffness: float, strength: float) -> float:
    """MARGIN times the step that is stable for every graph of these degrees: 2 / sqrt(alpha + 2 kappa d_max).

    Args:
        graph: of the oscillators.
        stiffness: alpha.
        strength: kappa, of the coupling through the Laplacian.
    """
    return MARGIN * largest_step(stiffness, coupled=2 * at_least_zero("strength", strength) * max(graph.degrees))


def cornn_step(dt: float, gamma: float, epsilon: float, variant: str = "explicit") -> float:
    """The step of a generated coRNN: `dt`, or MARGIN times the largest for which its bounds are proved.

    The coupling stands inside a bounded force, so the bounds are those of one oscillator, whatever the graph: the
    linear part is stable and there is an energy bound (`pendula.math.oscillator.stability_objections` has none).

    >>> cornn_step(0.2, 0.5, 3.0), cornn_step(1.0, 0.5, 3.0)
    (0.2, 0.3)
    """
    one_of("variant", variant, ("explicit", "implicit"))
    bounds = [2 * epsilon / gamma]
    if variant == "explicit":
        bounds += [largest_step(gamma, epsilon), 1 / epsilon]
    return min(dt, MARGIN * min(bounds))
