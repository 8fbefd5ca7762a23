"""Proven bounds watched while training."""

from pathlib import Path

import pytest
import torch

from pendula import Model, StabilityWarning
from pendula.choices import ModelChoice, TaskChoice
from pendula.experiment import Experiment, run
from pendula.learn.fit import fit
from pendula.learn.training import Training
from pendula.nets.spec import Node
from pendula.tasks import Adding, Batch

TASK = TaskChoice("adding", {"length": 6, "epoch_size": 40, "validation_size": 8, "test_size": 8})


def test_a_training_says_what_it_looked_at_and_what_was_broken(tmp_path: Path) -> None:
    watched = Experiment(TASK, ModelChoice("CoRNN", 4), Training(epochs=2, batch_size=8, certify=5))
    result = run(watched, tmp_path / "watched")
    assert result["certificates"] == {"every": 5, "looks": 2, "broken": []}
    plain = Experiment(TASK, ModelChoice("CoRNN", 4), Training(epochs=2, batch_size=8))
    other = run(plain, tmp_path / "plain")
    assert other["certificates"] is None
    assert other["test"] == result["test"], "watching changes no number"


def test_a_time_step_that_is_too_long_is_found(tmp_path: Path) -> None:
    physics = {"dt": 2.5, "gamma": 1.0, "epsilon": 0.1}
    training = Training(epochs=1, batch_size=8, certify=1)
    with pytest.warns(StabilityWarning):
        result = run(Experiment(TASK, ModelChoice("CoRNN", 4, physics=physics), training), tmp_path / "run")
    broken = result["certificates"]["broken"]
    assert {"after", "name", "where", "statement"} <= broken[0].keys()
    assert [row["after"] for row in broken if row["name"] == "linear stability"] == [1, 2, 3, 4, 5]


def test_the_watch_sees_every_step_with_its_number(tmp_path: Path) -> None:
    from pendula.nets.spec import ModelSpec

    steps = []

    def watch(model: Model, batch: Batch, step: int) -> None:
        assert batch.x.shape[2] == 2
        steps.append(step)

    torch.manual_seed(0)
    task = Adding(length=6, epoch_size=24, validation_size=8, test_size=8)
    fit(
        Model(ModelSpec(2, 1, (Node("CoRNN", 4),))),
        task,
        Training(epochs=2, batch_size=8),
        tmp_path / "run",
        watch=watch,
    )
    assert steps == [1, 2, 3, 4, 5, 6]
