"""Predictions of a trained model as a table, written as CSV or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import torch
from torch import Tensor

from pendula._check import DataError
from pendula.learn.fit import EVALUATION_BATCH
from pendula.nets import Model
from pendula.tasks.base import Sequences

WRITERS = {".csv": pyarrow.csv.write_csv, ".parquet": pyarrow.parquet.write_table}


def predict(model: Model, sequences: Sequences, facts: dict[str, Any]) -> pyarrow.Table:
    """A row per sequence (or per step): its name, the predicted class and the probability of each class, or the values.

    Args:
        model: with the labels of its classes in its spec.
        sequences: inputs in raw units; their targets are not looked at.
        facts: the task's description: "target" and "per_step".
    """
    outputs, owners, steps = [], [], []
    parameter = next(model.parameters())
    for start in range(0, len(sequences), EVALUATION_BATCH):
        index = torch.arange(start, min(start + EVALUATION_BATCH, len(sequences)))
        batch = sequences.batch(index, per_step=False).to(parameter.device, parameter.dtype)
        with torch.no_grad():
            output, _ = model(batch.x, lengths=batch.lengths, timespans=batch.timespans)
        if facts["per_step"]:
            lengths = sequences.lengths[index]
            valid = (torch.arange(output.shape[0]).unsqueeze(1) < lengths).t()
            rows, at = valid.nonzero(as_tuple=True)
            outputs.append(output.transpose(0, 1)[valid])
            owners.append(index[rows])
            steps.append(at)
        else:
            outputs.append(output)
            owners.append(index)
    owner = torch.cat(owners).tolist()
    names = sequences.names or tuple(str(k) for k in range(len(sequences)))
    columns: dict[str, Any] = {"id": [names[k] for k in owner]}
    if facts["per_step"]:
        columns["step"] = torch.cat(steps).tolist()
    return pyarrow.table({**columns, **_readable(torch.cat(outputs).double(), model, facts["target"])})


def _readable(output: Tensor, model: Model, target: str) -> dict[str, Any]:
    if target == "values":
        name = "value" if output.shape[1] == 1 else "value_{}"
        return {name.format(k): output[:, k].tolist() for k in range(output.shape[1])}
    if target == "binary":
        second = torch.sigmoid(output[:, 0])
        chance = torch.stack((1 - second, second), 1)
    else:
        chance = torch.sigmoid(output) if target == "bits" else output.softmax(1)
    labels = model.spec.labels or tuple(str(k) for k in range(chance.shape[1]))
    # bits do not exclude one another: none of them is the prediction
    said = {} if target == "bits" else {"prediction": [labels[k] for k in chance.argmax(1).tolist()]}
    return said | {f"probability {label}": chance[:, k].tolist() for k, label in enumerate(labels)}


def refuse(path: Path, *, overwrite: bool = False) -> None:
    """Errors: DataError for an unknown ending, or a file that is there already."""
    if path.suffix not in WRITERS:
        raise DataError(f"{path} must end in {' or '.join(WRITERS)}")
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists: give another --out, or --overwrite true")


def write(table: pyarrow.Table, path: Path, *, overwrite: bool = False) -> None:
    """Write the table. Errors: as for `refuse`; DataError where the disk refuses."""
    refuse(path, overwrite=overwrite)
    writer, part = WRITERS[path.suffix], path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(table, str(part))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{path} could not be written ({error.strerror or error})") from error
