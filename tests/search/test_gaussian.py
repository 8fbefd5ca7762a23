"""The Gaussian processes of a search: the noise of a point from its repeats."""

from __future__ import annotations

import pytest

from pendula.search.gaussian import noise


def test_noise_is_the_variance_of_the_mean_drawn_towards_that_of_all() -> None:
    # variances 2 and 8 with one degree of freedom each: 5 in all, and two more repeats of it for each point
    found = noise([[0.0, 2.0], [0.0, 4.0], [1.0]])
    assert found == pytest.approx([(2 + 10) / 3 / 2, (8 + 10) / 3 / 2, 5.0])


def test_points_without_repeats_have_no_known_noise() -> None:
    assert noise([[1.0], [2.0]]) == [0.0, 0.0]
