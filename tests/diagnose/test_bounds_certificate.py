"""What a certificate says, and what it never says."""

from __future__ import annotations

import json
import math

import pytest

from pendula.diagnose import broken
from pendula.diagnose.certificate import SLACK, Statement

ENERGY = Statement("energy", "E <= b.", "a sheet")
GROWTH = Statement("growth", "ln g <= b.", "a sheet", logarithm=True)
RADIUS = Statement("radius", "r < 1.", "a sheet", strict=True)


def test_what_does_not_apply_is_neither_held_nor_broken() -> None:
    one = ENERGY.declined("layer", "dt < 1 fails, it is 2", "dt = 2", bound=1.0, measured=0.1)
    assert (one.applies, one.holds, one.verdict, one.margin, one.used) == (False, None, "does not apply", None, None)
    assert one.why_not == "does not apply: dt < 1 fails, it is 2"
    assert broken([one]) == []


@pytest.mark.parametrize(("measured", "holds"), [(0.5, True), (2.0, True), (2.0 * (1 + SLACK / 2), True), (2.1, False)])
def test_a_bound_is_kept_up_to_the_stated_slack(measured: float, holds: bool) -> None:
    assert ENERGY.checked("layer", "", 2.0, measured).holds is holds


@pytest.mark.parametrize(("measured", "holds"), [(-3.0, True), (SLACK / 2, True), (0.01, False)])
def test_a_logarithm_has_an_absolute_slack(measured: float, holds: bool) -> None:
    assert GROWTH.checked("layer", "", 0.0, measured).holds is holds


def test_a_strict_bound_may_not_be_reached() -> None:
    assert RADIUS.checked("layer", "", 1.0, 1.0).holds is False


@pytest.mark.parametrize("statement", [ENERGY, GROWTH, RADIUS])
@pytest.mark.parametrize("measured", [math.nan, math.inf])
def test_a_measured_value_that_is_no_number_breaks_the_bound(statement: Statement, measured: float) -> None:
    assert statement.checked("layer", "", 1.0, measured).holds is False


def test_the_margin_is_what_is_left_and_used_is_the_share() -> None:
    one = ENERGY.checked("layer", "", 2.0, 0.5)
    assert (one.margin, one.used) == (1.5, 0.25)


def test_of_logarithms_there_is_a_margin_and_no_share() -> None:
    one = GROWTH.checked("layer", "", 2.0, -0.5)
    assert (one.margin, one.used) == (2.5, None)


@pytest.mark.parametrize(
    "one",
    [
        ENERGY.checked("layer", "dt = 1", 2.0, 0.5, step=3),
        ENERGY.checked("layer", "dt = 1", 2.0, math.nan),
        ENERGY.declined("layer", "no", "", math.inf, None),
    ],
)
def test_a_certificate_is_plain_data(one) -> None:
    data = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert set(data) == {*vars(one), "verdict", "margin", "used", "sentence"}


def test_a_sentence_has_the_place_the_verdict_and_the_numbers() -> None:
    said = ENERGY.checked("layer0 backwards", "dt = 1", 2.0, 2.5, step=3).sentence
    assert said == "layer0 backwards, energy: broken; measured 2.5 at step 3, bound 2 (dt = 1)"
