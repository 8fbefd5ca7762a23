"""Learning rules in a training: chosen by words, tables and arguments; resumed; aligned; refused early."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pendula.cli import main
from pendula.experiment import Experiment, open_run, run
from pendula.learn.dfa import DFA, ReadoutOnly, alignment_report
from pendula.learn.rule import BPTT
from pendula.learn.training import Training
from pendula.nets import Model, ModelSpec, Node, load
from pendula.nets.checkpoint import read_tensors
from pendula.tasks.base import Batch

SMALL = {
    "task": {"name": "digits"},
    "model": {"network": "ConvStack", "hidden_size": 4, "num_layers": 2},
    "train": {"epochs": 2, "batch_size": 64, "learning_rate": 3e-3, "accelerator": "cpu"},
}
HYBRID = {"name": "dfa", "plan": "stages", "boundary": "bp", "source": "module", "sparsity": 0.5}


def experiment(rule: object, **train: object) -> Experiment:
    return Experiment.from_dict({**SMALL, "train": {**SMALL["train"], "rule": rule, **train}})


def test_a_rule_is_written_out_with_all_its_options() -> None:
    made = Training(rule="dfa")
    assert isinstance(made.rule, dict)
    assert set(made.rule) == {"name", *DFA.options()}
    assert Training(rule=json.loads(json.dumps(made.rule))) == made
    assert isinstance(made.make_rule(), DFA)
    assert isinstance(Training(rule="readout").make_rule(), ReadoutOnly)
    assert Training(rule={"name": "bptt"}) == Training()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("dfaa", "did you mean"),
        ({"plan": "stages"}, "rule needs a name"),
        ({"name": "dfa", "sparsty": 0.5}, "sparsity"),
        ({"name": "dfa", "sparsity": 1.0}, r"\[0, 1\)"),
        ({"name": "dfa", "sparsity": -0.1}, r"\[0, 1\)"),
        ({"name": "dfa", "plan": "stage"}, "plan must be one of"),
        ({"name": "bptt", "sparsity": 0.5}, "rule bptt"),
    ],
)
def test_a_wrong_rule_is_refused_with_what_to_do(rule: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Training(rule=rule)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"rule": {"name": "dfa", "plan": [["stage0_conv9"]]}}, "no layer of the model"),
        ({"rule": {"name": "dfa", "time": "local"}}, "for recurrent networks"),
        ({"rule": "dfa", "devices": 2}, "devices=1"),
        ({"rule": "dfa", "precision": "bf16-mixed"}, "bf16-mixed"),
    ],
)
def test_what_can_not_be_trained_is_refused_before_anything_is_written(
    tmp_path: Path, train: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        run(Experiment.from_dict({**SMALL, "train": {**SMALL["train"], **train}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_stopped_and_resumed_has_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    wanted = experiment(HYBRID, align=5)
    whole = run(wanted, tmp_path / "whole")
    seen = 0

    def stop(at: object, batches: int, loss: float) -> None:
        nonlocal seen
        seen += 1
        if seen == 25:
            raise KeyboardInterrupt

    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(replace(wanted, train=replace(wanted.train, save_every=3)), folder, report=stop)
    # a file of the run was changed by nobody: it goes on with the feedback it has drawn
    held = {name for name in read_tensors(folder / "resume.safetensors")[0] if name.startswith("rule/")}
    assert held
    resumed = run(replace(wanted, train=replace(wanted.train, save_every=3)), folder, resume=True)
    ours, theirs = (load(tmp_path / name / "last").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert resumed["alignment"] == whole["alignment"]


def test_the_feedback_of_a_checkpoint_is_used_and_not_drawn_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model(ModelSpec(3, 2, (Node("CoRNN", 4),)))
    batch = Batch(torch.randn(6, 5, 3), torch.randint(2, (5,)))

    def gradients(rule: DFA) -> list[torch.Tensor]:
        model.zero_grad()
        rule(model, batch, lambda o, b: torch.nn.functional.cross_entropy(o, b.y), lambda v, **w: v.backward(**w))
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    one, other = DFA(seed=1), DFA(seed=2)
    first = gradients(one)
    assert not all(torch.equal(a, b) for a, b in zip(first, gradients(other), strict=True))
    again = DFA(seed=2)
    again.restore(one.tensors())
    assert all(torch.equal(a, b) for a, b in zip(first, gradients(again), strict=True))


def test_the_command_line_takes_a_rule_and_its_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = {"task.name": "digits", "model.network": "ConvStack", "model.hidden_size": "4", "train.epochs": "1"}
    of |= {"train.rule": "dfa", "train.rule.sparsity": "0.5", "train.rule.plan": "stages", "train.rule.boundary": "bp"}
    of |= {"train.rule.source": "module", "train.align": "5", "train.accelerator": "cpu"}
    words = ["train", *(part for name, value in of.items() for part in (f"--{name}", value))]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    written, _, _ = open_run(tmp_path / "run")
    assert isinstance(written.train.rule, dict)
    assert {k: written.train.rule[k] for k in ("name", "sparsity", "plan", "boundary", "source")} == {
        "name": "dfa",
        "sparsity": 0.5,
        "plan": "stages",
        "boundary": "bp",
        "source": "module",
    }
    assert main([*words, "--train.rule.plan", "[[a], [b]]", "--out", str(tmp_path / "other")]) == 2
    assert "no layer of the model" in capsys.readouterr().err


def test_a_table_in_a_file_is_a_rule_too(tmp_path: Path) -> None:
    file = tmp_path / "dfa.toml"
    file.write_text(
        '[task]\nname = "digits"\n[model]\nnetwork = "CoRNN"\nhidden_size = 8\n'
        '[train]\nepochs = 1\n[train.rule]\nname = "dfa"\ntime = "kernel"\nsparsity = 0.5\n'
    )
    assert main(["train", "--config", str(file), "--out", str(tmp_path / "run")]) == 0
    written, _, _ = open_run(tmp_path / "run")
    assert isinstance(written.train.rule, dict)
    assert written.train.rule["time"] == "kernel"


def test_only_the_readout_learns_under_readout(tmp_path: Path) -> None:
    wanted = experiment("readout", epochs=1)
    run(wanted, tmp_path / "run")
    torch.manual_seed(wanted.train.seed)
    task = wanted.task.build()
    began = Model(wanted.model.spec(task)).state_dict()
    ended = load(tmp_path / "run" / "last").state_dict()
    parameters = {name for name, _ in load(tmp_path / "run" / "last").named_parameters()}
    moved = {name for name in parameters if not torch.equal(began[name], ended[name])}
    assert moved == {"readout.weight", "readout.bias"}


def test_alignment_leaves_model_and_random_numbers_as_they_were() -> None:
    torch.manual_seed(0)
    nodes = (Node("Conv", 4), Node("Conv", 4, dropout=0.3), Node("Linear", 8))
    model = Model(ModelSpec(1, 3, nodes, image=(6, 6), pool="flatten"))
    batch = Batch(torch.randn(36, 8, 1), torch.randint(3, (8,)))
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    found = alignment_report(
        model, batch, lambda o, b: torch.nn.functional.cross_entropy(o, b.y), DFA(plan="layers", boundary="bp")
    )
    assert list(found) == ["layer0", "layer1", "layer2", "readout"]
    # modules of one layer with exact boundaries are backpropagation
    assert all(a.degrees is not None and a.degrees < 1e-3 for a in found.values())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(random, torch.get_rng_state())


def test_alignment_tells_a_turned_gradient() -> None:
    torch.manual_seed(0)
    model = Model(ModelSpec(3, 2, (Node("CoRNN", 6, num_layers=2),))).double()
    batch = Batch(torch.randn(6, 5, 3, dtype=torch.float64), torch.randint(2, (5,)))

    def loss(o: torch.Tensor, b: Batch) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(o, b.y)

    class Upwards(BPTT):
        def __call__(self, model, batch, loss, backward, state=None):  # type: ignore[no-untyped-def]
            return super().__call__(model, batch, loss, lambda v: backward(-3 * v), state)

    for angle in alignment_report(model, batch, loss, Upwards()).values():
        assert angle.degrees == pytest.approx(180)
        assert angle.ratio == pytest.approx(3)
    assert 0 < alignment_report(model, batch, loss, DFA())["layer0.0"].degrees < 180  # type: ignore[operator]


def test_the_estimator_of_scikit_learn_takes_a_rule() -> None:
    pytest.importorskip("sklearn")
    from pendula.sklearn import SequenceClassifier

    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    X = (torch.randn(60, 1, 1, generator=generator) * 0.1 + y.view(-1, 1, 1) * 2 - 1).expand(-1, 20, 1).numpy().copy()
    made = SequenceClassifier(
        hidden_size=8, epochs=60, random_state=0, training={"rule": {"name": "dfa", "time": "broadcast"}}
    )
    assert made.fit(X, y.numpy()).score(X, y.numpy()) > 0.9
