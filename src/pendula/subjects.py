"""What `pendula diagnose` looks at, a run with data of its task or a model alone with noise, and what it writes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pendula._check import DataError, one_of, positive_int
from pendula.cells import CELLS
from pendula.circumstances import circumstances
from pendula.diagnose.alignment import LayerAngle, RuleReport
from pendula.diagnose.diagnosis import Diagnosis, examine
from pendula.diagnose.forward import Loss
from pendula.experiment import ALIGNMENT_FILE, CONFIG_FILE, RESULT_FILE, files_of, open_run
from pendula.learn.dfa import alignment_report
from pendula.learn.record import RESUME_FILE, rule_tensors
from pendula.learn.training import Training
from pendula.nets import Model, Node, load
from pendula.nets.checkpoint import SPEC_FILE, read_tensors, write_whole
from pendula.nets.maps import MAPS
from pendula.tasks.base import Batch

PAGE, DATA = "diagnosis.html", "diagnosis.json"
NOISE_STEPS = 200


@dataclass(frozen=True)
class Subject:
    """A model, a batch for it, its loss, facts for the head of the page, and what the reader must know.

    `learning`: of a run that was trained by another rule than backpropagation.
    """

    model: Model
    batch: Batch
    loss: Loss
    about: dict[str, Any]
    notes: tuple[str, ...]
    learning: RuleReport | None = None


def diagnose(
    run: str,
    *,
    out: str,
    part: str | None = None,
    data: str | None = None,
    sequences: int = 8,
    steps: int | None = None,
    compare: str = "LSTM",
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Diagnosis:
    """Examine a run or a model, and write `PAGE` and `DATA` to a folder.

    Args:
        run: folder that `pendula train` wrote, its best/ or last/, or a folder that `pendula.save` wrote.
        out: folder for the two files, new or empty unless `overwrite`.
        part: of the run's task, validation when None; data: own files instead, as in `pendula evaluate`.
        sequences: how many, the first ones.
        steps: of each sequence, the first ones; all when None. Of noise, `NOISE_STEPS` when None.
        compare: a network whose gradients stand beside, or "none".
        say: is told the verdict, the notes and the paths.

    Errors: DataError for missing or damaged data, and a folder with something in it; ValueError for wrong words.
    """
    from pendula.diagnose.page import page

    rival = None if compare == "none" else one_of("--compare", compare, (*CELLS, "none"))
    positive_int("--sequences", sequences)
    if steps is not None:
        positive_int("--steps", steps)
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise DataError(f"{folder} is not empty: give another --out, or --overwrite")
    subject = subject_of(Path(run), part=part, data=data, sequences=sequences, steps=steps)
    found = examine(
        subject.model,
        subject.batch,
        subject.loss,
        compare=rival,
        about=subject.about,
        notes=subject.notes,
        learning=subject.learning,
    )
    text = page(found)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / DATA, (json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n").encode())
    write_whole(folder / PAGE, text.encode())
    for sentence in (*found.notes, *found.verdict, str(folder / PAGE)):
        say(sentence)
    return found


def subject_of(folder: Path, *, part: str | None, data: str | None, sequences: int, steps: int | None) -> Subject:
    """The subject in a folder. Errors: as for `diagnose`."""
    home = folder.parent if folder.name in ("best", "last") else folder
    if (folder / SPEC_FILE).is_file() and not (home / CONFIG_FILE).is_file():
        if part is not None or data is not None:
            raise ValueError(f"{folder} is a model without a task, so it has no data: leave --part and --data out")
        return _of_model(folder, sequences, NOISE_STEPS if steps is None else steps)
    return _of_run(folder, home, part, data, sequences, steps)


def _of_run(folder: Path, home: Path, part: str | None, data: str | None, sequences: int, steps: int | None) -> Subject:
    from pendula.tasks.files import Labelled

    experiment, facts, model = open_run(folder)
    chosen, notes = part or "validation", []
    if data is None:
        task = experiment.task.build()
    else:
        task = Labelled(Path(data), files_of(str(folder), facts), model.spec.labels, chosen)
        notes += list(task.notes)
    count = min(sequences, task.size(chosen))
    batch = task.rows(chosen, torch.arange(count), 0, 0)
    whole = batch.x.shape[0]
    if steps is not None and model.spec.image is not None:
        raise ValueError(f"{folder} is a model of images, which are looked at whole: leave --steps out")
    if steps is not None and steps < whole:
        batch = _cut(batch, steps, per_step=task.per_step)
        notes.append(f"Only the first {steps} of {whole} steps were looked at; the targets are those of the whole.")
    known = _known(home / RESULT_FILE)
    what = "sequences" if model.spec.image is None else "images"
    source = f"the {chosen} part of {task.name}"
    about = {
        **_about(folder, model, batch),
        "batch": f"the first {count} {what} of {source}" if data is None else f"the first {count} of {data}",
        "data": task.provenance,
        "trained with commit": known.get("commit"),
        "epochs": known.get("epochs"),
    }
    batch = batch.to("cpu", _type(model))
    learning = _learning(home, experiment.train, model, batch, task.loss, notes)
    return Subject(model, batch, task.loss, _ordered(about), tuple(notes), learning)


def _learning(
    home: Path, train: Training, model: Model, batch: Batch, loss: Loss, notes: list[str]
) -> RuleReport | None:
    """What there is to see of the rule of a run; None of backpropagation. Adds to the notes."""
    if train.rule == "bptt":
        return None
    rule = train.make_rule()
    if (home / RESUME_FILE).is_file():
        rule.restore(rule_tensors(read_tensors(home / RESUME_FILE)[0]))
    else:
        notes.append(f"{RESUME_FILE} is not in {home}: the feedback weights are those that the rule's seed draws.")
    # as the rule saw it: with dropout, and normalised by the batch
    found = alignment_report(copy.deepcopy(model).train(), batch, loss, rule)
    measured = _measured(home / ALIGNMENT_FILE)
    return RuleReport(
        _in_words(train.rule),
        tuple(LayerAngle(name, angle.degrees, angle.ratio) for name, angle in found.items()),
        tuple(line["step"] for line in measured),
        {name: tuple(line["layers"].get(name, {}).get("degrees") for line in measured) for name in found},
    )


def _measured(path: Path) -> list[dict[str, Any]]:
    """The lines of `pendula.learn.dfa.Alignment`; none where the run did not measure."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; restore it, or remove it: the page then leaves it out") from error


def _in_words(rule: str | dict[str, Any]) -> str:
    """A rule and its options, but for those that are as they would be anyway."""
    if isinstance(rule, str):
        return f"{rule} (the read-out alone)"
    usual = Training(rule="dfa").rule
    assert isinstance(usual, dict)
    said = ("plan", "boundary", "source", "time")
    chosen = {name: value for name, value in rule.items() if name in said or value != usual[name]}
    if not isinstance(rule["plan"], str):
        chosen["plan"] = " | ".join(", ".join(module) for module in rule["plan"])
    return f"{rule['name']} ({', '.join(f'{name} {value}' for name, value in chosen.items())})"


def _of_model(folder: Path, sequences: int, steps: int) -> Subject:
    """A model without a task: noise goes in, and the loss is a squared error to noise."""
    model = load(folder)
    spec, draws = model.spec, torch.Generator().manual_seed(0)
    if spec.vocabulary is None:
        x = torch.randn(steps, sequences, spec.input_size, generator=draws)
        if spec.standardise:
            x = x * model.get_buffer("input_scale").float() + model.get_buffer("input_mean").float()
        noise = "noise of mean 0 and variance 1" + ", on the scale of its training inputs" * spec.standardise
    else:
        x = torch.randint(1, spec.vocabulary, (steps, sequences), generator=draws)
        noise = "tokens drawn at random"
    shape = (sequences, spec.output_size)
    y = torch.randn(steps, *shape, generator=draws) if spec.pool == "steps" else torch.randn(shape, generator=draws)

    def loss(output: Tensor, batch: Batch) -> Tensor:
        return (output - batch.y).square().mean()

    batch = Batch(x, y)
    about = {**_about(folder, model, batch), "batch": f"{sequences} sequences of noise"}
    note = (
        f"{folder} is a model without a task: it was given {noise}, and the loss is the squared error to noise. "
        "What is found of its weights holds for any data; states, gradients and exponents are those of this noise."
    )
    return Subject(model, batch.to("cpu", _type(model)), loss, _ordered(about), (note,))


def _about(folder: Path, model: Model, batch: Batch) -> dict[str, Any]:
    here, image = circumstances(), model.spec.image
    steps: int | str | None = batch.x.shape[0]
    if image is not None:
        steps = None
    elif batch.lengths is not None:
        steps = f"{int(batch.lengths.min())} to {int(batch.lengths.max())}"
    return {
        "run": str(folder),
        "network": ", ".join(_described(node) for node in model.spec.nodes),
        "parameters": model.parameter_count,
        "steps": steps,
        "pixels": None if image is None else f"{image[0]} x {image[1]}",
        "sequences": batch.x.shape[1],
        "when": here["when"],
        "commit": here["commit"],
        "versions": here["versions"],
        "machine": here["machine"],
    }


def _described(node: Node) -> str:
    what = "channels" if node.is_map and MAPS[node.network].images_only else "units"
    words = f"{node.network} of {node.hidden_size} {what}"
    words += f", {node.num_layers} layers" * (node.num_layers > 1)
    return words + ", both directions" * node.bidirectional


def _ordered(about: dict[str, Any]) -> dict[str, Any]:
    first = ("run", "network", "parameters", "batch", "data", "sequences", "steps", "epochs", "trained with commit")
    return {
        name: about[name] for name in (*first, *(k for k in about if k not in first)) if about.get(name) is not None
    }


def _cut(batch: Batch, steps: int, *, per_step: bool) -> Batch:
    lengths = None if batch.lengths is None else batch.lengths.clamp(max=steps)
    spans = None if batch.timespans is None else batch.timespans[:steps]
    return replace(
        batch, x=batch.x[:steps], y=batch.y[:steps] if per_step else batch.y, lengths=lengths, timespans=spans
    )


def _known(path: Path) -> dict[str, Any]:
    """The result of a finished run; nothing of one that has not ended."""
    if not path.is_file():
        return {}
    try:
        known: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; restore it, or start another run") from error
    return known


def _type(model: Model) -> torch.dtype:
    return next(model.parameters()).dtype
