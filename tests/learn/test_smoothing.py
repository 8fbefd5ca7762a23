"""Label smoothing is the cross-entropy of smoothed targets."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from pendula.learn.smoothing import smoothed
from pendula.learn.training import Training
from pendula.tasks import Adding, Batch, Copying, Digits


def test_of_classes_it_is_the_one_of_torch() -> None:
    output, y = torch.randn(7, 10), torch.randint(10, (7,))
    task = Digits()
    got = smoothed(task, 0.1)(output, Batch(torch.zeros(3, 7, 1), y))
    assert torch.allclose(got, functional.cross_entropy(output, y, label_smoothing=0.1))


def test_of_two_classes_the_targets_move_towards_a_half() -> None:
    task = Digits()
    task.target = "binary"
    output, y = torch.randn(7, 1), torch.randint(2, (7,))
    got = smoothed(task, 0.2)(output, Batch(torch.zeros(3, 7, 1), y))
    wanted = functional.binary_cross_entropy_with_logits(output.squeeze(-1), y * 0.8 + 0.1)
    assert torch.allclose(got, wanted)


@pytest.mark.parametrize("task", [Adding(length=5), Copying(delay=3)], ids=["values", "steps"])
def test_other_targets_are_refused(task: Adding | Copying, tmp_path: Path) -> None:
    from pendula import Model, ModelSpec, Node
    from pendula.learn.fit import fit

    pool = "steps" if task.per_step else "last"
    model = Model(ModelSpec(task.input_size, task.output_size, (Node("CoRNN", 4),), pool=pool))
    with pytest.raises(ValueError, match="label_smoothing needs one class per sequence"):
        fit(model, task, Training(label_smoothing=0.1, epochs=1), tmp_path / "run")


def test_a_share_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\)"):
        Training(label_smoothing=1.0)
