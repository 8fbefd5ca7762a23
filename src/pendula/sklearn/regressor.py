"""A recurrent network as a scikit-learn regressor."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array

from pendula._check import ShapeError
from pendula.sklearn.estimator import SequenceEstimator, required, with_targets


class SequenceRegressor(RegressorMixin, SequenceEstimator):  # type: ignore[misc]
    """A value, or several, for each sequence, by recurrent layers and a linear read-out.

    X, arguments, attributes and errors are those of `SequenceClassifier`. The network learns targets of mean 0 and
    standard deviation 1 (the losses of `history_` are in these units); `model_` gives the caller's units.

    >>> X = [numpy.full((length, 1), level) for length, level in [(3, -1.0), (5, 1.0), (4, 0.0), (6, 0.5)]]
    >>> model = SequenceRegressor(hidden_size=8, epochs=5, validation_fraction=0, device="cpu", random_state=0)
    >>> model.fit(X, [10.0, 30.0, 20.0, 25.0]).predict(X).shape
    (4,)
    """

    def fit(self, X: Any, y: Any, timespans: Any = None) -> SequenceRegressor:
        """Learn from N sequences and their values (N,) or (N, C); `timespans` as for `SequenceClassifier.fit`."""
        sequences = self._read(X, timespans, first=True)
        y = check_array(required(y), dtype=numpy.float64, ensure_2d=False, input_name="y")
        if y.ndim > 2:
            raise ShapeError(f"y must be (sequences,) or (sequences, values), got {y.shape}")
        self._columns_of_y = y.ndim == 2
        values = y.reshape(len(y), -1)
        centre, scale = values.mean(0), values.std(0)
        scale[scale == 0] = 1
        self._learn(with_targets(sequences, (values - centre) / scale), None)
        with torch.no_grad():
            # the read-out is linear: it takes over the units of y
            weight, bias = self.model_.readout.weight, self.model_.readout.bias
            weight.mul_(torch.from_numpy(scale).unsqueeze(1))
            bias.mul_(torch.from_numpy(scale)).add_(torch.from_numpy(centre))
        return self

    def predict(self, X: Any, timespans: Any = None) -> NDArray[numpy.float64]:
        """Values, in the shape of the y that was learnt: (N,) or (N, C)."""
        outputs = self._outputs(X, timespans)
        return outputs if self._columns_of_y else outputs[:, 0]

    def score(self, X: Any, y: Any, sample_weight: Any = None, timespans: Any = None) -> float:
        """The coefficient of determination R^2."""
        return float(r2_score(y, self.predict(X, timespans), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
