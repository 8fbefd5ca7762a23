"""Training in a CUDA graph: the numbers of a training without, for which a tape stands in where there is no GPU."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tests.learn.tape import Tape
from torch import Tensor

from pendula import DataError, Model, ModelSpec, Node, load
from pendula.choices import ModelChoice, TaskChoice
from pendula.experiment import Experiment, run
from pendula.learn import graph, graphed
from pendula.learn.fit import Diverged, fit, refuse
from pendula.learn.training import Training
from pendula.nets.checkpoint import read_tensors
from pendula.papers.reproduce import same_settings
from pendula.tasks.base import Batch, Sequences, StoredTask

CUDA = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1"
NEEDS_GPU = pytest.mark.skipif(
    not CUDA, reason="no NVIDIA GPU (or TRITON_INTERPRET=1): no graph is captured, the tape alone is compared"
)
# 30 sequences in batches of 8: the last one has 6
TRAINING = Training(
    epochs=5,
    batch_size=8,
    learning_rate=0.02,
    schedule="cosine",
    clip_norm=1.0,
    input_noise=0.1,
    precision="64-true",
    cuda_graph=True,
)
PLAIN = replace(TRAINING, cuda_graph=False, accelerator="cpu")


class Rows(StoredTask):
    """Whether the sum of a short sequence is positive; all have the same length."""

    name = "rows"
    summary = "toy"
    output_size, labels = 2, ("no", "yes")

    def __init__(self, per_step: bool = False, steps: int = 6, count: int = 30) -> None:
        x = torch.randn(3 * count, steps, 2, generator=torch.Generator().manual_seed(3))
        y = (x[..., 0] > 0).long() if per_step else (x[..., 0].sum(1) > 0).long()
        self.per_step = per_step
        parts = zip(("train", "validation", "test"), x.split(count), y.split(count), strict=True)
        made = {part: Sequences.stacked(own, target) for part, own, target in parts}
        if per_step:
            made = {part: replace(one, y=one.y.flatten()) for part, one in made.items()}
        super().__init__(made)


class Drawn(Rows):
    """Rows that are more than what is stored: nothing can lie on the GPU."""

    def rows(self, part: str, index: Tensor, seed: int, epoch: int) -> Batch:
        batch = super().rows(part, index, seed, epoch)
        return replace(batch, x=batch.x + epoch)


def model(per_step: bool = False, dropout: float = 0.3) -> Model:
    torch.manual_seed(0)
    node = Node("UnICORNN", 8, num_layers=2, dropout=dropout, physics={"dt": 0.3, "alpha": 2.0})
    return Model(ModelSpec(2, 2, (node,), pool="steps" if per_step else "last", labels=("no", "yes")))


def trained(folder: Path, training: Training, task: StoredTask | None = None, **words: Any) -> dict[str, Tensor]:
    """The last weights, and the loss of each epoch as "epoch N"."""
    task = task or Rows()
    fit(model(task.per_step), task, training, folder, fabric=Fabric(accelerator="cpu", devices=1), **words)
    lines = [json.loads(line) for line in (folder / "record.jsonl").open()]
    losses = {f"epoch {line['epoch']}": torch.tensor(line["train_loss"], dtype=torch.float64) for line in lines}
    return load(folder / "last").state_dict() | losses


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    # the learning rate is rounded to float32
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """The processor passes for a GPU on which work can be captured."""
    tape = Tape()
    monkeypatch.setattr(graphed, "capture_on", lambda device: tape)
    monkeypatch.setattr(graphed, "device_objection", lambda device: None)
    return tape


@pytest.fixture
def rmsprop_too(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    """RMSprop's steps for a capture are refused on a processor."""
    rmsprop = sys.modules[torch.optim.RMSprop.__module__]
    # its steps on a processor, unlike those on a GPU, make a tensor of the number 1
    tape.refused.discard("aten::lift_fresh")
    monkeypatch.setattr(rmsprop, "_get_capturable_supported_devices", lambda *given: ["cpu"])


@pytest.mark.usefixtures("rmsprop_too")
@pytest.mark.parametrize("optimiser", ["adam", "adamw", "rmsprop", "sgd"])
def test_the_numbers_are_those_without_the_graph(tmp_path: Path, tape: Tape, optimiser: str) -> None:
    words = {"optimiser": optimiser, "momentum": 0.9 if optimiser == "sgd" else 0.0, "weight_decay": 0.01}
    found = trained(tmp_path / "graph", replace(TRAINING, **words))
    close(found, trained(tmp_path / "plain", replace(PLAIN, **words)))
    # 5 epochs of three whole batches and a smaller one: all but the first of each shape
    assert (tape.captures, tape.replays) == (2, 5 * 3 - graph.WARM_UP + 5 - graph.WARM_UP)


def test_a_replay_has_the_bits_of_the_same_step_outside(
    tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trained(tmp_path / "graph", TRAINING)
    monkeypatch.setattr(graph, "WARM_UP", 1000)
    same(found, trained(tmp_path / "outside", TRAINING))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "drop", "drop_after": (1, 3), "drop_factor": 0.5},
        {"warmup_steps": 9, "schedule": "constant"},
        {"label_smoothing": 0.2, "clip_norm": None},
        {"batch_size": 30},
    ],
    ids=["drop", "warm-up", "label smoothing", "one batch"],
)
def test_schedules_and_losses_are_followed(tmp_path: Path, tape: Tape, changes: dict[str, Any]) -> None:
    found = trained(tmp_path / "graph", replace(TRAINING, **changes))
    close(found, trained(tmp_path / "plain", replace(PLAIN, **changes)))
    assert tape.replays


def test_targets_at_every_step_lie_on_the_device_too(tmp_path: Path, tape: Tape) -> None:
    task = Rows(per_step=True)
    close(trained(tmp_path / "graph", TRAINING, task), trained(tmp_path / "plain", PLAIN, task))


@pytest.mark.parametrize("task", [Drawn(), Rows()], ids=["drawn", "too large"])
def test_batches_are_sent_where_the_data_can_not_lie_on_the_device(
    tmp_path: Path, tape: Tape, task: StoredTask
) -> None:
    tape.memory = 1000
    found = trained(tmp_path / "graph", TRAINING, task)
    close(found, trained(tmp_path / "plain", PLAIN, task))
    assert tape.replays


def test_data_lie_on_the_device_as_a_batch_has_them() -> None:
    for task in (Rows(), Rows(per_step=True)):
        index = torch.tensor([5, 0, 17])
        there = graphed.resident(task, torch.device("cpu"), torch.float32, Tape())
        assert there is not None
        batch, own = task.rows("train", index, 0, 0), there.draw(index)
        assert own.x.is_contiguous(), "noise is drawn in the order of memory"
        same({"x": own.x, "y": own.y}, {"x": batch.x, "y": batch.y})


def test_a_batch_with_lengths_is_taken_outside_with_the_same_numbers(tmp_path: Path, tape: Tape) -> None:
    class Uneven(Drawn):
        def rows(self, part: str, index: Tensor, seed: int, epoch: int) -> Batch:
            batch = super().rows(part, index, seed, epoch)
            return replace(batch, lengths=torch.full((len(index),), 4)) if index[0] % 2 else batch

    found = trained(tmp_path / "graph", TRAINING, Uneven())
    close(found, trained(tmp_path / "plain", PLAIN, Uneven()))
    assert 0 < tape.replays < 10


class Killed(Exception):
    pass


def stopped(folder: Path, training: Training, batches: int) -> None:
    """A run that dies after so many batches; it saves every second one."""
    left = batches

    def report(*given: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    with pytest.raises(Killed):
        trained(folder, training, report=report)


@pytest.mark.parametrize("batches", [3, 7, 15])
def test_a_run_that_was_killed_goes_on_with_the_same_bits(tmp_path: Path, tape: Tape, batches: int) -> None:
    training = replace(TRAINING, save_every=2)
    whole = trained(tmp_path / "whole", training)
    stopped(tmp_path / "cut", training, batches)
    same(trained(tmp_path / "cut", training, resume=True), whole)


@pytest.mark.usefixtures("rmsprop_too")
@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
@pytest.mark.parametrize("first", [TRAINING, PLAIN], ids=["graph first", "graph after"])
def test_a_run_goes_on_with_the_graph_or_without(tmp_path: Path, tape: Tape, first: Training, optimiser: str) -> None:
    both = [replace(t, save_every=2, optimiser=optimiser, accelerator="auto") for t in (TRAINING, PLAIN)]
    begun, after = both if first is TRAINING else both[::-1]
    stopped(tmp_path / "cut", begun, 11)
    close(trained(tmp_path / "cut", after, resume=True), trained(tmp_path / "plain", both[1]))


def test_a_run_that_diverges_names_the_step_and_saves_nothing_of_it(tmp_path: Path, tape: Tape) -> None:
    task = Rows()
    # the third batch has it; the losses are read at its end, and before each saving
    task.parts["train"].flat[6 * int(task.order("train")[20])] = torch.nan
    said = []
    for name, training in (("plain", PLAIN), ("graph", TRAINING)):
        with pytest.raises(Diverged) as error:
            trained(tmp_path / name, replace(training, save_every=2), task)
        said.append(re.findall(r"at step .*?\)", str(error.value)))
    assert said == [["at step 3 (epoch 1, batch 3)"]] * 2
    kept, _ = read_tensors(tmp_path / "graph" / "resume.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values() if tensor.is_floating_point())


def test_the_loss_that_is_reported_is_a_loss_from_the_first_batch_on(tmp_path: Path, tape: Tape) -> None:
    seen: list[float] = []
    trained(tmp_path / "run", TRAINING, report=lambda at, batches, loss: seen.append(loss))
    assert len(seen) == 5 * 4 + 5
    assert all(0 < loss < 10 for loss in seen)


def test_a_watch_sees_the_noisy_batch_of_each_step(tmp_path: Path, tape: Tape) -> None:
    def seen_by(training: Training, folder: Path) -> list[Tensor]:
        batches: list[Tensor] = []
        trained(folder, training, watch=lambda net, batch, step: batches.append(batch.x.clone()))
        return batches

    inside, plain = seen_by(TRAINING, tmp_path / "graph"), seen_by(PLAIN, tmp_path / "plain")
    assert len(inside) == len(plain) == 20
    assert all(torch.equal(a, b) for a, b in zip(inside, plain, strict=True))


def test_a_loss_that_waits_for_the_gpu_is_refused_before_training(tmp_path: Path, tape: Tape) -> None:
    class Waits(Rows):
        def loss(self, output: Tensor, batch: Batch) -> Tensor:
            return super().loss(output, batch) * float(output.detach().sum() * 0 + 1)

    with pytest.raises(ValueError, match="the processor waits for a number from the GPU: leave cuda_graph out"):
        trained(tmp_path / "run", TRAINING, Waits())
    assert not (tmp_path / "run").exists()


def test_networks_whose_step_waits_for_the_gpu_are_refused() -> None:
    found = {}
    for network in ("UnICORNN", "CoRNN", "LEM", "LinOSS", "LSTM", "ExpRNN"):
        net = Model(ModelSpec(2, 2, (Node(network, 4),)))
        before = {name: t.clone() for name, t in net.state_dict().items()}
        found[network] = graphed.objection(net, Rows()) is None
        same(net.state_dict(), before)
        assert all(p.grad is None for p in net.parameters())
    # how often its matrix exponential squares depends on the size of the matrix
    assert found == {network: network != "ExpRNN" for network in found}


def test_without_a_gpu_it_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    experiment = Experiment(
        TaskChoice("adding", {"length": 6, "epoch_size": 8, "validation_size": 8, "test_size": 8}),
        ModelChoice("UnICORNN", 4),
        Training(epochs=1, cuda_graph=True),
    )
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, on which it is not refused")
    with pytest.raises(ValueError, match="cuda_graph needs an NVIDIA GPU, and this training runs on"):
        run(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"accelerator": "cpu"}, "cuda_graph needs an NVIDIA GPU, and accelerator='cpu'"),
        ({"rule": "dfa"}, "cuda_graph captures bptt, and the rule is another"),
        ({"window": 3}, "without window: leave one out"),
        ({"recompute_every": 3}, "without recompute_every: leave one out"),
        ({"devices": 2}, "cuda_graph runs in one process: use devices=1"),
    ],
)
def test_what_can_not_be_captured_is_refused_by_the_settings(words: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Training(cuda_graph=True, **words)


def test_what_can_not_be_captured_is_refused_by_model_and_task() -> None:
    uneven = Rows()
    uneven.parts["train"] = replace(uneven.parts["train"], offsets=torch.tensor([0, 6, 11, 18]))
    with pytest.raises(ValueError, match="the training sequences of rows have from 5 to 7 steps"):
        refuse(model(), uneven, TRAINING, 1)
    curved = Model(ModelSpec(2, 2, (Node("SpectralRNN", 4, physics={"margin": 0.3}),)))
    with pytest.raises(ValueError, match="geodesic steps of orthogonal and unitary parameters"):
        refuse(curved, Rows(), TRAINING, 1)
    irregular = Rows()
    irregular.irregular = True
    with pytest.raises(ValueError, match="the check of the time spans that rows has"):
        refuse(model(), irregular, TRAINING, 1)
    with pytest.raises(ValueError, match="cuda_graph runs in one process"):
        refuse(model(), Rows(), TRAINING, 2)
    refuse(model(), Rows(), TRAINING, 1)


def test_a_result_with_the_graph_is_one_of_the_same_settings() -> None:
    experiment = Experiment(train=TRAINING)
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment
    assert same_settings(experiment) == same_settings(Experiment(train=replace(TRAINING, cuda_graph=False)))


def test_an_experiment_goes_on_with_the_graph_and_with_no_other_setting(tmp_path: Path, tape: Tape) -> None:
    task = TaskChoice("adding", {"length": 6, "epoch_size": 16, "validation_size": 8, "test_size": 8})
    begun = Experiment(task, ModelChoice("UnICORNN", 4), Training(epochs=2, batch_size=8))
    first = run(begun, tmp_path / "run")
    after = replace(begun, train=replace(begun.train, cuda_graph=True))
    assert run(after, tmp_path / "run", resume=True)["history"] == first["history"]
    with pytest.raises(DataError, match="holds a run with other settings"):
        run(replace(after, train=replace(after.train, seed=1)), tmp_path / "run", resume=True)


@NEEDS_GPU
@pytest.mark.parametrize("optimiser", ["adam", "rmsprop", "sgd"])
def test_on_a_gpu_the_numbers_are_those_without_the_graph(tmp_path: Path, optimiser: str) -> None:
    """Pixels in a random order, 200 images of 196: seven batches an epoch, the last one incomplete."""
    task = Rows(steps=196, count=200)
    node = Node("UnICORNN", 64, num_layers=3, dropout=0.1, physics={"dt": 0.19, "alpha": 30.65})
    training = Training(
        epochs=4, batch_size=32, learning_rate=1e-3, optimiser=optimiser, clip_norm=1.0, accelerator="cuda"
    )
    found = []
    for use in (True, False):
        torch.manual_seed(0)
        net = Model(ModelSpec(2, 2, (node,), labels=("no", "yes")))
        fitted = fit(net, task, replace(training, cuda_graph=use), tmp_path / str(use))
        weights = {name: t.cpu() for name, t in load(tmp_path / str(use) / "last").state_dict().items()}
        losses = torch.tensor([line["train_loss"] for line in fitted.history])
        found.append(weights | {"losses": losses})
    # Adam divides small gradients by their size, so rounding shows in the fourth digit after 28 steps
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
