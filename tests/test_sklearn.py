"""The estimators of `pendula.sklearn`: scikit-learn's own checks, sequences of unequal lengths, pipelines, pickling."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy
import pytest
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pendula
from pendula.sklearn import SequenceClassifier, SequenceRegressor
from pendula.sklearn.sequences import held_out

PAGE = Path(__file__).parents[1] / "docs" / "sklearn.md"

# rows of ten columns are short series: oscillators that hardly decay over ten steps tell the columns apart
SHORT: dict[str, Any] = {
    "hidden_size": 32,
    "physics": {"dt": 0.5, "gamma": 1.0, "epsilon": 0.5},
    "learning_rate": 0.03,
    "batch_size": 16,
    "device": "cpu",
    "random_state": 0,
}
FAST: dict[str, Any] = {"hidden_size": 8, "epochs": 2, "batch_size": 8, "device": "cpu", "random_state": 0}


@parametrize_with_checks([SequenceClassifier(**SHORT, epochs=4), SequenceRegressor(**SHORT, epochs=20)])
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def series(count: int = 30, channels: int = 2, seed: int = 0) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """Sequences of 3 to 8 steps, and whether the sum of the first channel is positive."""
    chance = numpy.random.default_rng(seed)
    X = [chance.normal(size=(chance.integers(3, 9), channels)) for _ in range(count)]
    return X, numpy.array(["yes" if x[:, 0].sum() > 0 else "no" for x in X])


def test_series_of_unequal_lengths_are_learnt() -> None:
    X, y = series(200)
    model = SequenceClassifier(**SHORT, epochs=15).fit(X[:150], y[:150])
    assert model.score(X[150:], y[150:]) > 0.8


def test_the_regressor_answers_in_the_units_of_its_targets() -> None:
    X, _ = series(200)
    y = numpy.array([1000 + 50 * x[:, 0].sum() for x in X])
    model = SequenceRegressor(**SHORT, epochs=15).fit(X[:150], y[:150])
    assert model.score(X[150:], y[150:]) > 0.9


def test_the_model_alone_gives_what_the_regressor_predicts() -> None:
    X, _ = series()
    model = SequenceRegressor(**FAST).fit(X, numpy.array([[len(x), 100.0 * len(x)] for x in X]))
    with torch.no_grad():
        alone = model.model_(torch.tensor(X[0], dtype=torch.float32).unsqueeze(1))[0]
    assert model.predict(X[:1]) == pytest.approx(alone.numpy(), rel=1e-5)


def test_a_sequence_is_predicted_alike_alone_and_in_a_padded_batch() -> None:
    X, y = series()
    model = SequenceClassifier(**FAST, bidirectional=True, pool="mean").fit(X, y)
    alone = numpy.concatenate([model.predict_proba([x]) for x in X])
    assert model.predict_proba(X) == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize(
    "kind", ["tuple", "objects", "block", "tensor", "channels first", "rows", "rows, channels first"]
)
def test_every_form_of_x_means_the_same(kind: str) -> None:
    X = numpy.random.default_rng(0).normal(size=(20, 6, 3)).astype("float32")
    y = (X[:, :, 0].sum(1) > 0).astype(int)
    objects = numpy.empty(20, dtype=object)
    objects[:] = list(X)
    turned = numpy.ascontiguousarray(X.transpose(0, 2, 1))
    given, settings = {
        "tuple": (tuple(X), {}),
        "objects": (objects, {}),
        "block": (X, {}),
        "tensor": (torch.from_numpy(X), {}),
        "channels first": (turned, {"channels_first": True}),
        "rows": (X.reshape(20, 18), {"channels": 3}),
        "rows, channels first": (turned.reshape(20, 18), {"channels": 3, "channels_first": True}),
    }[kind]
    model = SequenceClassifier(**FAST, **settings).fit(given, y)
    expected = SequenceClassifier(**FAST).fit(list(X), y).predict_proba(list(X))
    assert numpy.array_equal(model.predict_proba(given), expected)


def test_one_dimensional_series_have_one_channel() -> None:
    X, y = series(channels=1)
    model = SequenceClassifier(**FAST).fit([x[:, 0] for x in X], y)
    assert model.channels_ == 1
    assert numpy.array_equal(model.predict_proba(X), model.predict_proba([x[:, 0] for x in X]))


def test_lists_of_plain_numbers_are_rows_when_they_are_equally_long_and_series_otherwise() -> None:
    rows = SequenceClassifier(**FAST).fit([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]] * 5, [0, 1] * 5)
    free = SequenceClassifier(**FAST).fit([[1.0, 2.0, 3.0], [3.0, 1.0]] * 5, [0, 1] * 5)
    assert (rows.n_features_in_, free.n_features_in_) == (3, 1)


def test_after_series_the_number_of_columns_is_free() -> None:
    X, y = series(channels=1)
    model = SequenceClassifier(**FAST).fit(X, y)
    assert model.predict(numpy.zeros((2, 11))).shape == (2,)


def test_names_of_columns_are_forgotten_when_series_follow() -> None:
    pandas = pytest.importorskip("pandas", reason="data frames need pandas")
    X, y = series()
    rows = pandas.DataFrame(numpy.random.default_rng(0).normal(size=(30, 4)), columns=list("abcd"))
    model = SequenceClassifier(**FAST).fit(rows, y)
    assert model.feature_names_in_.tolist() == list("abcd")
    assert not hasattr(model.fit(X, y), "feature_names_in_")


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ([], "X has no sequences"),
        ([numpy.zeros((4, 2)), numpy.zeros((0, 2))], r"X\[1\] is empty"),
        ([numpy.zeros((4, 2)), numpy.zeros((4, 3))], r"X\[1\] has 3 channels, X\[0\] has 2"),
        ([numpy.zeros((4, 2)), numpy.full((4, 2), numpy.nan)], r"X\[1\] contains NaN"),
        ([numpy.zeros((4, 2)), numpy.full((4, 2), numpy.inf)], r"X\[1\] contains infinity"),
        ([numpy.zeros((4, 2)), numpy.full((4, 2), 1e300)], r"X holds 1e\+300, too large for single precision"),
        (numpy.full((2, 3, 4), numpy.nan), "contains NaN"),
        (numpy.zeros((2, 0, 4)), "needs a time step"),
        (numpy.zeros((2, 3, 4, 5)), "dim 4"),
        ([1.0, 2.0], r"X\[0\] must be a sequence"),
        ([numpy.zeros((2, 3, 4))], r"X\[0\] must be a sequence"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_place(X: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SequenceClassifier(**FAST).fit(X, [0, 1])


@pytest.mark.parametrize("X", [[numpy.zeros((4, 3))], numpy.zeros((1, 4, 3)), numpy.zeros((1, 4))])
def test_other_channels_than_in_fit_are_refused(X: Any) -> None:
    model = SequenceClassifier(**FAST).fit(*series())
    with pytest.raises(ValueError, match=r"has [13] channels, but SequenceClassifier was fitted on 2"):
        model.predict(X)


def test_columns_that_the_channels_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="channels=3 must divide the 10 columns"):
        SequenceClassifier(**FAST, channels=3).fit(numpy.zeros((4, 10)), [0, 1, 0, 1])


def test_a_frame_of_many_series_is_refused_with_the_way_out() -> None:
    pandas = pytest.importorskip("pandas", reason="data frames need pandas")
    frame = pandas.DataFrame({"x": numpy.zeros(6)}, index=pandas.MultiIndex.from_product([range(2), range(3)]))
    with pytest.raises(ValueError, match="df-list"):
        SequenceClassifier(**FAST).fit(frame, [0, 1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": "CornN"}, "did you mean 'CoRNN'"),
        ({"pool": "steps"}, "pool"),
        ({"physics": {"dT": 1.0}}, "dT"),
        ({"training": {"window": 3}}, "training has no 'window'"),
        ({"training": {"epochs": 3}}, "training has no 'epochs'"),
        ({"epochs": 0}, "epochs"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"validation_fraction": 0.99}, "too few are left"),
        ({"threads": 0}, "threads"),
        ({"device": "abacus"}, "accelerator"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    X, y = series(10)
    with pytest.raises(ValueError, match=words):
        SequenceClassifier(**{**FAST, **settings}).fit(X, y)


def test_one_class_is_refused() -> None:
    X, _ = series(4)
    with pytest.raises(ValueError, match="y has one class only"):
        SequenceClassifier(**FAST).fit(X, ["yes"] * 4)


def test_the_same_random_state_gives_the_same_model_and_another_another() -> None:
    X, y = series()
    first, again, other = (SequenceClassifier(**{**FAST, "random_state": s}).fit(X, y) for s in (1, 1, 2))
    assert numpy.array_equal(first.predict_proba(X), again.predict_proba(X))
    assert not numpy.array_equal(first.predict_proba(X), other.predict_proba(X))


def test_the_random_numbers_and_threads_of_the_caller_are_left_alone() -> None:
    X, y = series(10)
    random.seed(1)
    before = (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate())
    SequenceClassifier(**FAST, threads=2).fit(X, y).predict(X)
    after = (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate())
    assert after == before
    assert torch.get_num_threads() == 1


def test_nothing_is_printed_unless_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    X, y = series(10)
    SequenceClassifier(**FAST).fit(X, y)
    assert capfd.readouterr() == ("", "")
    SequenceClassifier(**FAST, verbose=True).fit(X, y)
    assert re.findall(r"^epoch (\d): train_loss \d", capfd.readouterr().out, re.MULTILINE) == ["1", "2"]


def test_patience_ends_the_training_early() -> None:
    X, y = series()
    model = SequenceClassifier(**{**FAST, "epochs": 50, "learning_rate": 1e-12}, patience=2).fit(X, y)
    assert model.n_iter_ == len(model.history_) < 50
    assert model.n_iter_ - model.best_epoch_ == 2


@pytest.mark.parametrize("seed", range(3))
def test_each_class_is_held_out_in_proportion_and_none_whole(seed: int) -> None:
    classes = torch.tensor([0] * 60 + [1] * 30 + [2] * 10 + [3])
    train, held = held_out(classes, 0.2, seed)
    assert torch.cat((train, held)).sort().values.tolist() == list(range(101))
    shares = torch.bincount(classes[held], minlength=4)
    assert (shares - torch.tensor([12, 6, 2, 0])).abs().max() <= 1
    assert 3 in classes[train]


def test_settings_of_training_without_an_argument_reach_it() -> None:
    X, y = series()
    model = SequenceClassifier(**FAST, schedule="drop", training={"drop_after": (1,), "drop_factor": 0.5}).fit(X, y)
    assert [line["learning_rate"] for line in model.history_] == [0.01, 0.005]


def test_numbers_of_numpy_and_of_a_search_are_taken() -> None:
    X, y = series()
    grid = {"hidden_size": numpy.array([4, 6]), "learning_rate": numpy.array([0.01, 0.02], dtype="float32")}
    search = GridSearchCV(SequenceClassifier(**FAST), grid, cv=2).fit(X, y)
    assert search.best_params_["hidden_size"] in (4, 6)
    assert search.best_estimator_.model_.spec.nodes[0].hidden_size == search.best_params_["hidden_size"]


def test_cross_validation_and_pipelines_take_series_of_unequal_lengths() -> None:
    X, y = series()
    pipeline = make_pipeline(FunctionTransformer(lambda X: [x[::2] for x in X]), SequenceClassifier(**FAST))
    scores = cross_val_score(pipeline, X, y, cv=3, error_score="raise")
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_pipeline_of_rows_scales_and_learns() -> None:
    X = numpy.random.default_rng(0).normal(5, 3, size=(60, 6))
    y = X[:, -1] > 5
    pipeline = make_pipeline(StandardScaler(), SequenceClassifier(**SHORT, epochs=15))
    assert pipeline.fit(X, y).score(X, y) > 0.9
    assert pipeline.predict(X).dtype == bool


@pytest.mark.parametrize(("network", "physics"), [("ScoRNN", {}), ("CoRNN", {"coupling": "0-1 1-2"})])
def test_joblib_keeps_a_fitted_model(network: str, physics: dict[str, Any]) -> None:
    X, y = series()
    model = SequenceClassifier(**FAST, precision="64-true", network=network, physics=physics).fit(X, y)
    with torch.no_grad():
        logits = model.model_(torch.tensor(X[0]).unsqueeze(1))[0]
    assert model.predict_proba(X[:1]) == pytest.approx(logits.softmax(1).numpy(), abs=1e-12)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    again = joblib.load(file)
    assert numpy.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert {p.dtype for p in again.model_.parameters()} == {torch.float64}


def test_a_pickle_holds_a_spec_and_arrays_and_no_module() -> None:
    X, y = series()
    state = SequenceClassifier(**FAST).fit(X, y).__getstate__()
    spec, arrays = state["_pickled_model"]
    assert "model_" not in state
    assert spec["nodes"][0]["network"] == "CoRNN"
    assert {type(array) for array in arrays.values()} == {numpy.ndarray}


def test_a_model_is_saved_and_loaded_without_pickle(tmp_path: Path) -> None:
    X, y = series()
    model = SequenceClassifier(**FAST).fit(X, y)
    loaded = pendula.load(pendula.save(model.model_, tmp_path / "model"))
    assert loaded.spec.labels == ("no", "yes")
    with torch.no_grad():
        logits = loaded(torch.tensor(X[0], dtype=torch.float32).unsqueeze(1))[0]
    assert model.predict_proba(X[:1]) == pytest.approx(logits.softmax(1).numpy(), abs=1e-5)


def spans(X: list[NDArray[Any]], seed: int = 1) -> list[NDArray[Any]]:
    chance = numpy.random.default_rng(seed)
    return [chance.uniform(0.2, 3, len(x)) for x in X]


def test_timespans_change_what_is_predicted() -> None:
    X, y = series()
    model = SequenceClassifier(**FAST).fit(X, y, timespans=spans(X))
    slow = [numpy.full(len(x), 5.0) for x in X]
    assert not numpy.allclose(model.predict_proba(X, spans(X)), model.predict_proba(X, timespans=slow))


def test_timespans_are_routed_through_cross_validation() -> None:
    X, y = series()
    with sklearn.config_context(enable_metadata_routing=True):
        model = SequenceClassifier(**FAST).set_fit_request(timespans=True).set_score_request(timespans=True)
        scores = cross_val_score(model, X, y, cv=2, params={"timespans": spans(X)}, error_score="raise")
    assert scores.shape == (2,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[:-1], "an array per sequence, 30, got 29"),
        (lambda t: [*t[:-1], t[-1][1:]], r"timespans\[29\] must have a number per step"),
        (lambda t: [*t[:-1], -t[-1]], r"timespans\[29\] must be positive"),
        (lambda t: None, "without timespans"),
    ],
)
def test_timespans_that_do_not_fit_are_refused(change: Any, words: str) -> None:
    X, y = series()
    model = SequenceClassifier(**FAST).fit(X, y, spans(X))
    with pytest.raises(ValueError, match=words):
        model.predict(X, timespans=change(spans(X)))


def test_a_network_without_a_time_step_refuses_timespans() -> None:
    X, y = series()
    with pytest.raises(ValueError, match="LSTM has no time step"):
        SequenceClassifier(**FAST, network="LSTM").fit(X, y, timespans=spans(X))


def test_a_clone_starts_without_a_model() -> None:
    X, y = series()
    model = SequenceClassifier(**FAST, physics={"dt": 0.3}).fit(X, y)
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert not hasattr(fresh, "model_")


def test_the_example_of_the_page_runs_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["model"].score(names["X"][30:], names["y"][30:]) >= 0.8
    assert (tmp_path / "swings" / "spec.json").exists()


def test_without_scikit_learn_the_extra_is_named() -> None:
    code = "import sys; sys.modules['sklearn'] = None\nimport pendula\nimport pendula.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'pendula[train]'" in done.stderr.splitlines()[-1]
