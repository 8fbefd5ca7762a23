"""Backpropagation through time, whole and truncated."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pendula import BPTT
from pendula.learn.rule import carry_on, penalties
from pendula.learn.training import Training

sys.path.insert(0, str(Path(__file__).parent))
from toy import SignOfSum, model, spectral


def gradients(net: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def test_whole_bptt_leaves_the_gradient_of_the_loss_in_every_parameter() -> None:
    net, task = model(dropout=0.0).double(), SignOfSum()
    batch = next(task.batches("train", 30)).to("cpu", torch.float64)
    loss, _ = BPTT()(net, batch, task.loss, lambda value: value.backward())
    left = gradients(net)
    assert len(left) == len(list(net.parameters()))
    net.zero_grad()
    direct = task.loss(net(batch.x, lengths=batch.lengths)[0], batch)
    direct.backward()
    assert loss == direct.detach()
    assert all(torch.equal(a, b) for a, b in zip(left, gradients(net), strict=True))


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_penalties_of_the_cells_are_differentiated_whole_and_not_reported(share: float) -> None:
    net, task = spectral().double(), SignOfSum()
    with torch.no_grad():
        for layer in net.layers.values():
            for cell in layer.cells:
                cell.p.normal_()
    batch = replace(next(task.batches("train", 30)).to("cpu", torch.float64), share=share)
    loss, _ = BPTT()(net, batch, task.loss, lambda value: value.backward())
    left = gradients(net)
    net.zero_grad()
    direct = task.loss(net(batch.x, lengths=batch.lengths)[0], batch)
    added = penalties(net)
    cells = [cell for layer in net.layers.values() for cell in layer.cells]
    assert len(cells) == 2
    assert added.detach() == pytest.approx(sum(cell.penalty().item() for cell in cells), rel=1e-12)
    (share * direct + added).backward()
    assert loss == direct.detach()
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-15) for a, b in zip(left, gradients(net), strict=True))


def test_a_model_whose_cells_add_nothing_has_no_penalty() -> None:
    assert penalties(model()) is None


def test_windows_with_carried_states_run_the_same_sequences() -> None:
    net, task = model(per_step=True, dropout=0.0).double().eval(), SignOfSum(per_step=True)
    batch = next(task.batches("train", 30)).to("cpu", torch.float64)
    output, _ = net(batch.x, lengths=batch.lengths)
    whole = task.measures(output, batch)
    rule, state, sums, count = BPTT(window=3), None, {"loss": 0.0, "accuracy": 0.0}, 0
    for piece, rows in rule.windows(batch):
        state = carry_on(state, rows)
        output, _ = net(piece.x, state, lengths=piece.lengths)
        for name, value in task.measures(output, piece).items():
            sums[name] += float(value.detach())
        count += task.count(piece)
        _, state = rule(net, piece, task.loss, lambda value: value.backward(), state)
        assert all(not t.requires_grad for s in state.values() for t in s)
    assert count == task.count(batch)
    assert sums == pytest.approx({k: float(v.detach()) for k, v in whole.items()}, rel=1e-12)


def test_a_window_as_long_as_the_sequences_is_whole_bptt() -> None:
    batch = next(SignOfSum().batches("train", 30))
    assert [piece is batch for piece, _ in BPTT(window=8).windows(batch)] == [True]


@pytest.mark.parametrize("window", [0, -1, 2.5, True])
def test_a_window_that_is_no_number_of_steps_is_refused(window: object) -> None:
    with pytest.raises(ValueError, match="window must be a whole number"):
        BPTT(window=window)  # type: ignore[arg-type]


def test_learning_rates_are_what_the_schedules_say() -> None:
    drop = Training(epochs=4, learning_rate=1.0, schedule="drop", drop_after=(1, 3))
    assert [drop.rate(e, 0, 10) for e in range(4)] == pytest.approx([1, 0.1, 0.1, 0.01])
    cosine = Training(epochs=2, learning_rate=1.0, schedule="cosine")
    assert [cosine.rate(e, b, 2) for e in range(2) for b in range(2)] == pytest.approx(
        [1, 0.853553, 0.5, 0.146447], abs=1e-6
    )
    warm = Training(learning_rate=1.0, warmup_steps=4)
    assert [warm.rate(0, b, 10) for b in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        ({"optimiser": "adm"}, "did you mean 'adam'"),
        ({"schedule": "cos"}, "schedule must be one of constant, cosine, drop"),
    ],
)
def test_impossible_settings_are_refused(words: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Training(**words)  # type: ignore[arg-type]
