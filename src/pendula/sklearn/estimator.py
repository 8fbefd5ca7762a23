"""What the classifier and the regressor share: reading X, training with `pendula.learn.fit`, outputs, pickling."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pendula._check import ShapeError, known_keys, positive_int, probability
from pendula.choices import ModelChoice
from pendula.learn.fit import EVALUATION_BATCH, Report, fit
from pendula.learn.place import denormals_flushed
from pendula.learn.record import Progress
from pendula.learn.training import Training
from pendula.nets import Model, ModelSpec
from pendula.nets.checkpoint import built
from pendula.sklearn.sequences import from_block, from_list, from_rows, held_out, is_list, spans_of
from pendula.tasks.base import Sequences, StoredTask

FURTHER = ("bases_rate", "drop_after", "drop_factor", "input_noise", "momentum", "rule", "select", "warmup_steps")
"""Settings of `Training` that have no argument of their own."""


class GivenSequences(StoredTask):
    """What was passed to `fit`, as a task."""

    name: ClassVar[str] = "sequences"
    summary: ClassVar[str] = "what was passed to fit"

    def __init__(self, parts: dict[str, Sequences], labels: tuple[str, ...] | None, *, standardise: bool) -> None:
        super().__init__(parts)
        self.labels, self.standardise = labels, standardise
        self.target = "values" if labels is None else "classes"
        self.output_size = parts["train"].y.shape[1] if labels is None else len(labels)


class SequenceEstimator(BaseEstimator):  # type: ignore[misc]
    """The arguments and the training of both estimators; they are described in `SequenceClassifier`."""

    def __init__(
        self,
        network: str = "CoRNN",
        hidden_size: int = 64,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        residual: bool = False,
        pool: str = "auto",
        physics: Mapping[str, Any] | None = None,
        standardise: bool = True,
        channels: int = 1,
        channels_first: bool = False,
        epochs: int = 30,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        optimiser: str = "adam",
        weight_decay: float = 0.0,
        schedule: str = "constant",
        clip_norm: float | None = None,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        training: Mapping[str, Any] | None = None,
        precision: str = "32-true",
        device: str = "auto",
        threads: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.network = network
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.residual = residual
        self.pool = pool
        self.physics = physics
        self.standardise = standardise
        self.channels = channels
        self.channels_first = channels_first
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimiser = optimiser
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.training = training
        self.precision = precision
        self.device = device
        self.threads = threads
        self.random_state = random_state
        self.verbose = verbose

    def _read(self, X: Any, timespans: Any, *, first: bool) -> Sequences:
        """X as sequences without targets, in double precision; compared with what `fit` saw unless this is `fit`."""
        order = {"channels_first": bool(self.channels_first)}
        columns = None
        if is_list(X):
            flat, offsets = from_list(X, **order)
        elif getattr(X, "ndim", 2) == 3:
            flat, offsets = from_block(check_array(X, dtype=numpy.float64, allow_nd=True, ensure_2d=False), **order)
        elif getattr(getattr(X, "index", None), "nlevels", 1) > 1:
            raise ShapeError(
                "X is a data frame with rows of many series: give one frame per series, a list "
                "(sktime.datatypes.convert_to(X, 'df-list') makes it)"
            )
        else:
            if first or self._columns is not None:
                rows = validate_data(self, X, dtype=numpy.float64, reset=first)
            else:
                rows = check_array(X, dtype=numpy.float64)
            columns = rows.shape[1]
            flat, offsets = from_rows(rows, positive_int("channels", self.channels), **order)
        if first:
            self.channels_, self._irregular = flat.shape[1], timespans is not None
            self._columns: int | None = columns
            if columns is None:
                self.n_features_in_ = self.channels_
                self.__dict__.pop("feature_names_in_", None)
        self._refuse(flat.shape[1], timespans is not None)
        spans = None if timespans is None else spans_of(timespans, offsets)
        return Sequences(torch.from_numpy(flat), torch.from_numpy(offsets), torch.zeros(len(offsets) - 1), spans)

    def _refuse(self, channels: int, irregular: bool) -> None:
        if channels != self.channels_:
            raise ShapeError(
                f"X has {channels} channels, but {type(self).__name__} was fitted on {self.channels_}: each sequence "
                f"must be {f'({self.channels_}, time)' if self.channels_first else f'(time, {self.channels_})'}"
            )
        if irregular != self._irregular:
            now, before = ("with", "without") if irregular else ("without", "with")
            raise ValueError(f"X comes {now} timespans, but {type(self).__name__} was fitted {before} them")

    def _learn(self, sequences: Sequences, labels: tuple[str, ...] | None) -> None:
        """Train on sequences with targets; what is found out gets an underscore."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        training = self._training(seed)
        if training.precision != "64-true":
            sequences = _single(sequences)
        train, held = torch.arange(len(sequences)), torch.arange(len(sequences))
        if fraction := probability("validation_fraction", _plain(self.validation_fraction)):
            classes = sequences.y if labels else torch.zeros(len(sequences))
            train, held = held_out(classes, fraction, seed)
        parts = {"train": sequences.take(train), "validation": sequences.take(held)}
        task = GivenSequences(parts, labels, standardise=bool(self.standardise))
        spec = self._choice().spec(task)
        with self._apart(), tempfile.TemporaryDirectory(prefix="pendula-") as folder:
            torch.manual_seed(seed)
            model = Model(spec, dtype=torch.float64 if training.precision == "64-true" else None)
            if task.standardise:
                model.set_standard(*task.statistics())
            fitted = fit(model, task, training, Path(folder), report=_teller() if self.verbose else None)
        self.model_ = fitted.model.to("cpu")
        self.history_ = fitted.history
        self.n_iter_ = len(fitted.history)
        self.best_epoch_ = fitted.best_epoch

    def _choice(self) -> ModelChoice:
        names = ("network", "hidden_size", "num_layers", "bidirectional", "dropout", "residual", "pool")
        given = {name: _plain(getattr(self, name)) for name in names}
        return ModelChoice(**given, physics={k: _plain(v) for k, v in dict(self.physics or {}).items()})

    def _training(self, seed: int) -> Training:
        names = ("epochs", "batch_size", "learning_rate", "optimiser", "weight_decay", "schedule", "clip_norm")
        given = {name: getattr(self, name) for name in (*names, "patience", "precision")}
        further = dict(self.training or {})
        known_keys("training", further, FURTHER)
        plain = {name: _plain(value) for name, value in {**given, **further}.items()}
        return Training(**plain, accelerator=self.device, seed=seed)  # type: ignore[arg-type]

    def _outputs(self, X: Any, timespans: Any) -> NDArray[numpy.float64]:
        """What the read-out gives for each sequence, (N, C)."""
        check_is_fitted(self, "model_")
        sequences = self._read(X, timespans, first=False)
        place = torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")
        # in double precision a row's result does not show which rows stand beside it
        model = _rebuilt(self.model_.spec, self.model_.state_dict(), place, torch.float64)
        found = []
        with self._apart(), torch.no_grad(), denormals_flushed(place):
            for start in range(0, len(sequences), EVALUATION_BATCH):
                index = torch.arange(start, min(start + EVALUATION_BATCH, len(sequences)))
                batch = sequences.batch(index, per_step=False).to(place, torch.float64)
                found.append(model(batch.x, lengths=batch.lengths, timespans=batch.timespans)[0])
        values: NDArray[numpy.float64] = torch.cat(found).cpu().numpy()
        return values

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """The caller's random numbers and number of threads are left as they were."""
        before = torch.get_num_threads()
        # looking at GPUs would start them
        devices = range(torch.cuda.device_count() if self.device != "cpu" and torch.cuda.is_available() else 0)
        with torch.random.fork_rng(devices=list(devices)):
            try:
                if self.threads is not None:
                    torch.set_num_threads(positive_int("threads", self.threads))
                yield
            finally:
                torch.set_num_threads(before)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            model = state.pop("model_")
            arrays = {name: tensor.numpy(force=True) for name, tensor in model.state_dict().items()}
            state["_pickled_model"] = (model.spec.to_dict(), arrays)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        facts, arrays = state.get("_pickled_model", (None, {}))
        super().__setstate__({name: value for name, value in state.items() if name != "_pickled_model"})
        if facts is not None:
            # arrays may be mapped from a file that can't be written to
            tensors = {name: torch.from_numpy(numpy.array(array)) for name, array in arrays.items()}
            spec = ModelSpec.from_dict(facts)
            self.model_ = _rebuilt(spec, tensors, torch.device("cpu"), tensors["readout.weight"].dtype)


def _rebuilt(spec: ModelSpec, tensors: Mapping[str, Tensor], place: torch.device, dtype: torch.dtype) -> Model:
    model = built(spec, dtype, device=place)
    model.load_state_dict(tensors)
    return model.eval()


def _single(sequences: Sequences) -> Sequences:
    """In single precision. Errors: ValueError for a number that it has no room for."""
    flat, spans = sequences.flat.float(), sequences.timespans
    if not bool(flat.isfinite().all()):
        largest = float(sequences.flat.abs().max())
        raise ValueError(f"X holds {largest:g}, too large for single precision: rescale it, or precision='64-true'")
    y = sequences.y.float() if sequences.y.is_floating_point() else sequences.y
    return replace(sequences, flat=flat, y=y, timespans=None if spans is None else spans.float())


def _plain(value: Any) -> Any:
    """Numbers of NumPy, as a grid search hands them over, become Python's: specs are written as JSON."""
    return value.item() if isinstance(value, numpy.generic) else value


def _teller() -> Report:
    """A line per epoch."""
    told = 0

    def tell(at: Progress, batches: int, loss: float) -> None:
        nonlocal told
        if len(at.history) > told:
            told = len(at.history)
            line = at.history[-1]
            said = [f"{name} {value:.4g}" for name, value in line.items() if name != "epoch"]
            print(f"epoch {line['epoch']}: {', '.join(said)}", flush=True)

    return tell


def required(y: Any) -> Any:
    if y is None:
        # scikit-learn's words: its checks look for them
        raise ValueError("fit requires y to be passed, but the target y is None: give a target for each sequence")
    return y


def with_targets(sequences: Sequences, y: NDArray[Any]) -> Sequences:
    """The same sequences with their targets. Errors: ValueError when there are not as many."""
    if len(y) != len(sequences):
        raise ValueError(f"y must have a target per sequence, {len(sequences)}, got {len(y)}")
    return replace(sequences, y=torch.from_numpy(y))
