"""A recurrent network as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from pendula.sklearn.estimator import SequenceEstimator, required, with_targets


class SequenceClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """A class for each sequence, by recurrent layers and a linear read-out, trained by `pendula.learn.fit`.

    X, everywhere, is one of

    - a list (tuple, array of objects) of N arrays or data frames (T_i, C) of any lengths; (T_i,) for one channel;
    - an array (N, T, C);
    - an array or data frame (N, T * C): rows; one channel unless `channels` says more.

    Padding never influences a result, nor does the batch a sequence stands in. Only after fitting on rows the number of
    columns is fixed.

    Args:
        network: a name of `pendula.CELLS`.
        hidden_size: units per layer.
        num_layers: layers stacked on one another.
        bidirectional: read the sequence in both directions.
        dropout: probability between layers, one mask per sequence.
        residual: from the second layer on, a layer's input is added to its output.
        pool: what is read out: "last", "mean" (over time), or "auto", which is last.
        physics: arguments of the cell, such as {"dt": 0.1}; None for its defaults.
        standardise: scale each channel by mean and standard deviation of the training inputs.
        channels: C, for X that is rows.
        channels_first: sequences are (C, T), as sktime has them; rows are then one channel after the other.
        epochs: passes over the training part, at most.
        batch_size: sequences per optimiser step.
        learning_rate: step size of the optimiser at its highest.
        optimiser: "adam", "adamw", "rmsprop" or "sgd".
        weight_decay: as the optimiser defines it.
        schedule: "constant", "cosine" (falls to zero) or "drop" (with `training`).
        clip_norm: largest norm of the gradient; None: as it is.
        patience: stop after this many epochs without a better validation metric; None: never.
        validation_fraction: share of the sequences held out of training, of each class. The model is that of the epoch
            which is best on them; with 0, on the training part itself.
        training: further settings of `pendula.learn.training.Training`: bases_rate, drop_after, drop_factor,
            input_noise, momentum, select ("last" keeps the last epoch), warmup_steps.
        precision: of training: "32-true", "64-true" or "bf16-mixed". Predictions are made in double precision.
        device: "auto", "cpu", "cuda" or "mps".
        threads: of PyTorch, while this estimator works; None: as many as it has.
        random_state: a number gives the same model again on the same machine; None, or a NumPy generator.
        verbose: print a line per epoch.

    Attributes:
        model_: the `pendula.Model`, in raw units; `pendula.save` writes it without pickle.
        classes_: labels, sorted.
        channels_: C.
        n_features_in_: columns, after fitting on rows; else C.
        n_iter_: epochs that were run.
        best_epoch_: the one, from 1, that model_ is of.
        history_: a dict per epoch: losses, accuracy, learning rate, seconds.

    Errors: ValueError for settings, shapes, and values that are not finite; `pendula.learn.training.Diverged` when the
    gradient is not finite.

    >>> X = [numpy.full((length, 1), sign) for length, sign in [(3, -1.0), (5, 1.0), (4, -1.0), (6, 1.0)]]
    >>> model = SequenceClassifier(hidden_size=8, epochs=10, validation_fraction=0, device="cpu", random_state=0)
    >>> model.fit(X, ["down", "up", "down", "up"]).predict([numpy.ones(7)]).tolist()
    ['up']
    """

    classes_: NDArray[Any]

    def fit(self, X: Any, y: Any, timespans: Any = None) -> SequenceClassifier:
        """Learn from N sequences and their labels (N,).

        Args:
            X: see above.
            y: numbers, words or truth values.
            timespans: for irregular sampling: the time since the sample before, in units of the network's dt, an array
                (T_i,) per sequence. Needed at prediction too, then.

        Errors: ValueError also for less than two classes, and for timespans with a network that has no time step.
        """
        sequences = self._read(X, timespans, first=True)
        y = column_or_1d(required(y), warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        self.classes_, index = numpy.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}: telling classes apart needs two")
        self._learn(with_targets(sequences, index), tuple(str(label) for label in self.classes_))
        return self

    def decision_function(self, X: Any, timespans: Any = None) -> NDArray[numpy.float64]:
        """The read-out (N, classes); for two classes (N,), the log-odds of the second."""
        outputs = self._outputs(X, timespans)
        return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs

    def predict_proba(self, X: Any, timespans: Any = None) -> NDArray[numpy.float64]:
        """Probabilities (N, classes), in the order of `classes_`."""
        outputs = self._outputs(X, timespans)
        # the largest is taken off first: exp overflows
        odds = numpy.exp(outputs - outputs.max(1, keepdims=True))
        chances: NDArray[numpy.float64] = odds / odds.sum(1, keepdims=True)
        return chances

    def predict(self, X: Any, timespans: Any = None) -> NDArray[Any]:
        """Labels (N,)."""
        likely = self._outputs(X, timespans).argmax(1)
        labels: NDArray[Any] = self.classes_[likely]
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None, timespans: Any = None) -> float:
        """The share of labels that are predicted."""
        return float(accuracy_score(y, self.predict(X, timespans), sample_weight=sample_weight))
