"""The estimators of `pendula.sklearn` in pipelines of sktime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy
import pytest

from pendula.sklearn import SequenceClassifier, SequenceRegressor

pytest.importorskip("sktime", reason="pipelines of sktime need the package: pip install sktime")
pandas = pytest.importorskip("pandas", reason="sktime's panels need pandas")

from sktime.classification.compose import ClassifierPipeline, SklearnClassifierPipeline  # noqa: E402
from sktime.datatypes import convert_to  # noqa: E402
from sktime.regression.compose import SklearnRegressorPipeline  # noqa: E402
from sktime.transformations.difference import Differencer  # noqa: E402
from sktime.transformations.exponent import ExponentTransformer  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs" / "sklearn.md"
FAST: dict[str, Any] = {"hidden_size": 8, "epochs": 2, "batch_size": 8, "device": "cpu", "random_state": 0}

chance = numpy.random.default_rng(0)
PANEL = chance.normal(size=(20, 3, 12))
RAGGED = [pandas.DataFrame(chance.normal(size=(chance.integers(4, 9), 2)), columns=["a", "b"]) for _ in range(20)]
Y = numpy.array(["down", "up"] * 10)


def test_a_pipeline_of_sktime_hands_over_every_channel_of_a_panel() -> None:
    model = SequenceClassifier(**FAST, channels=3, channels_first=True)
    pipeline = SklearnClassifierPipeline(model, [ExponentTransformer(3)]).fit(PANEL, Y)
    seen = ExponentTransformer(3).fit_transform(PANEL)
    alone = SequenceClassifier(**FAST, channels_first=True).fit(seen, Y)
    assert pipeline.classifier_.channels_ == 3
    assert numpy.allclose(pipeline.predict_proba(PANEL), alone.predict_proba(seen), rtol=0, atol=1e-12)


def test_a_product_of_sktime_is_such_a_pipeline() -> None:
    pipeline = Differencer() * SequenceClassifier(**FAST, channels=3, channels_first=True)
    assert set(pipeline.fit(PANEL, Y).predict(PANEL)) <= {"down", "up"}


def test_the_regressor_stands_in_a_pipeline_of_sktime() -> None:
    model = SequenceRegressor(**FAST, channels=3, channels_first=True)
    pipeline = SklearnRegressorPipeline(model, [ExponentTransformer(3)]).fit(PANEL, PANEL[:, 0].sum(1))
    assert pipeline.predict(PANEL).shape == (20,)


def test_panels_of_unequal_lengths_pass_through_the_adapter_of_the_page() -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    names: dict[str, Any] = {}
    exec(code, names)
    adapted = names["PanelClassifier"](SequenceClassifier(**FAST))
    pipeline = ClassifierPipeline(adapted, [Differencer()]).fit(convert_to(RAGGED, "pd-multiindex"), Y)
    seen = Differencer().fit_transform(RAGGED)
    alone = SequenceClassifier(**FAST).fit(seen, Y)
    assert [len(x) for x in seen] == [len(x) for x in RAGGED]
    assert numpy.allclose(pipeline.predict_proba(RAGGED), alone.predict_proba(seen), rtol=0, atol=1e-12)
