"""Training: exact resuming, divergence, interrupts, full disks, several processes."""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pendula import DataError, Model, ModelSpec, Node, load
from pendula.learn import BPTT
from pendula.learn.fit import Diverged, evaluate, fit
from pendula.learn.geodesic import Geodesic
from pendula.learn.training import Training
from pendula.math.orthogonal import orthogonality_defect
from pendula.nets.checkpoint import read_tensors

sys.path.insert(0, str(Path(__file__).parent))
from toy import TRAINING, SignOfSum, model, spectral

TOY = Path(__file__).parent / "toy.py"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def start(folder: Path, *flags: str, **words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(TOY), str(folder), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **words)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start(folder)
    assert process.wait(120) == 0, process.stderr.read()
    return folder


@pytest.mark.parametrize("batches", [1, 7, 13])
def test_a_run_killed_and_resumed_ends_with_the_same_bits(tmp_path: Path, whole: Path, batches: int) -> None:
    folder = tmp_path / "run"
    process = start(folder, "slow")
    for _ in range(batches):
        assert process.stdout.readline() == "batch\n", process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert not (folder / "last").exists() or not same(weights(folder / "last"), weights(whole / "last"))
    assert start(folder, "resume").wait(120) == 0
    for which in ("best", "last"):
        assert same(weights(folder / which), weights(whole / which))
    timeless = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in (run / "record.jsonl").open()]
        for run in (folder, whole)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_the_very_batch_it_came_in(tmp_path: Path, whole: Path, number: int) -> None:
    folder = tmp_path / "run"
    process = start(folder, "slow")
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "can be resumed" in said
    _, notes = read_tensors(folder / "resume.safetensors")
    at = json.loads(notes["progress"])
    assert at["epoch"] * 4 + at["batch"] >= 3
    assert start(folder, "resume").wait(120) == 0
    assert same(weights(folder / "last"), weights(whole / "last"))


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, whole: Path) -> None:
    before = weights(whole / "last")
    assert start(whole, "resume").wait(120) == 0
    assert same(before, weights(whole / "last"))


def test_a_full_disk_keeps_the_last_good_state_and_the_run_goes_on_from_it(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    done = start(folder, "slow")
    for _ in range(6):
        done.stdout.readline()
    done.send_signal(signal.SIGKILL)
    done.wait(60)
    # files larger than 2 kB can no longer be written, as on a full disk
    limit = (2048, 2048)
    full = start(
        folder,
        "resume",
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        ),
    )
    _, said = full.communicate(timeout=60)
    assert full.returncode != 0
    assert "what was there before is untouched" in said
    assert not list(folder.rglob("*.part"))
    assert start(folder, "resume").wait(120) == 0
    assert same(weights(folder / "last"), weights(whole / "last"))


def test_a_new_run_refuses_a_folder_that_holds_one(whole: Path) -> None:
    with pytest.raises(DataError, match="holds a run: resume it, or give another folder"):
        fit(model(), SignOfSum(), TRAINING, whole)


def test_resuming_with_other_settings_is_refused(whole: Path) -> None:
    with pytest.raises(DataError, match="was started with other settings"):
        fit(model(), SignOfSum(), replace(TRAINING, learning_rate=0.5), whole, resume=True)


def test_a_damaged_resume_file_is_refused(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    data = bytearray((whole / "resume.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "resume.safetensors").write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        fit(model(), SignOfSum(), TRAINING, folder, resume=True)


def test_a_diverged_run_says_where_and_keeps_the_last_good_model(tmp_path: Path) -> None:
    training = Training(epochs=3, batch_size=8, learning_rate=0.01, accelerator="cpu")
    net, task = model(), SignOfSum()
    fitted = fit(net, task, replace(training, epochs=1), tmp_path / "good")
    assert fitted.best_epoch == 1
    poisoned = model()
    calls = 0

    class Poison(BPTT):
        def __call__(self, *args, **words):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == 6:
                with torch.no_grad():
                    poisoned.readout.weight[0, 0] = torch.nan
            return super().__call__(*args, **words)

    with pytest.raises(
        Diverged, match=r"step 6 \(epoch 2, batch 2\).*readout\.weight nan.*Try a lower learning_rate"
    ) as error:
        fit(poisoned, task, training, tmp_path / "bad", rule=Poison())
    assert "last good checkpoint is kept" in str(error.value)
    assert all(t.isfinite().all() for t in weights(tmp_path / "bad" / "last").values())


def test_geodesic_steps_killed_and_resumed_end_with_the_same_bits(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert start(whole, "spectral").wait(120) == 0
    process = start(folder, "spectral", "slow")
    for _ in range(7):
        assert process.stdout.readline() == "batch\n", process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert not (folder / "last").exists() or not same(weights(folder / "last"), weights(whole / "last"))
    assert start(folder, "spectral", "resume").wait(120) == 0
    for which in ("best", "last"):
        assert same(weights(folder / which), weights(whole / which))
    ended, began = weights(whole / "last"), spectral().state_dict()
    bases = [name for name in ended if name.endswith((".U", ".V"))]
    assert len(bases) == 4
    for name in bases:
        assert orthogonality_defect(ended[name]) < 1e-6
        assert (ended[name] - began[name]).abs().max() > 1e-4


def test_a_schedule_keeps_the_shares_of_the_learning_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    step = Geodesic.step

    def spy(self: Geodesic, closure: object = None) -> object:
        seen.append([group["lr"] for group in self.param_groups])
        return step(self, closure)  # type: ignore[arg-type]

    monkeypatch.setattr(Geodesic, "step", spy)
    training = Training(epochs=2, batch_size=30, learning_rate=0.1, schedule="drop", drop_after=(1,), accelerator="cpu")
    fit(spectral(), SignOfSum(), training, tmp_path)
    # the rest, the spectrum at 1 / 2 m, the bases
    assert seen[0] == pytest.approx([0.1 / 0.6, 0.1, 0.01])
    assert seen[1] == pytest.approx([0.01 / 0.6, 0.01, 0.001])


def test_penalties_are_felt_and_not_reported(tmp_path: Path) -> None:
    node = Node("SpectralRNN", 8, physics={"margin": 0.5, "prior": 100.0})
    torch.manual_seed(0)
    net = Model(ModelSpec(2, 2, (node,), labels=("no", "yes")))
    with torch.no_grad():
        net.layers["layer0"].cells[0].p.fill_(2.0)
    training = Training(epochs=4, batch_size=3, learning_rate=0.1, accelerator="cpu")
    fitted = fit(net, SignOfSum(), training, tmp_path)
    # 100 sum (s - 1)^2 was 116 at the start; the loss of the task is about log 2
    assert max(line["train_loss"] for line in fitted.history) < 2
    assert (net.layers["layer0"].cells[0].s - 1).abs().max() < 0.1


@pytest.mark.parametrize("network", [[], ["spectral"]], ids=["CoRNN", "SpectralRNN"])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, network: list[str]) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert start(alone, "sgd", *network).wait(120) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29713"]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(TOY), str(both), "sgd", *network], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "batch" in done.stdout
    one, two = weights(alone / "last"), weights(both / "last")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-10, atol=1e-12)
    records = [[json.loads(line) for line in (run / "record.jsonl").open()] for run in (alone, both)]
    assert len(records[0]) == len(records[1]) == 2
    for a, b in zip(*records, strict=True):
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-10)
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-10)


def test_training_learns_the_toy_task(tmp_path: Path) -> None:
    training = Training(epochs=25, batch_size=16, learning_rate=0.05, accelerator="cpu")
    fitted = fit(model(dropout=0.0), SignOfSum(count=600), training, tmp_path)
    assert fitted.best > 0.9
    assert evaluate(fitted.model, SignOfSum(count=600), "test")["accuracy"] > 0.85


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    training = Training(epochs=50, batch_size=16, learning_rate=1e-9, patience=3, accelerator="cpu")
    fitted = fit(model(), SignOfSum(), training, tmp_path)
    assert len(fitted.history) == fitted.best_epoch + 3


def test_the_best_model_is_the_one_with_the_best_validation_metric(tmp_path: Path) -> None:
    fitted = fit(model(), SignOfSum(), TRAINING, tmp_path)
    ranks = [(line["validation_accuracy"], -line["validation_loss"]) for line in fitted.history]
    assert fitted.best == max(ranks)[0]
    # of epochs with the same accuracy, the one with the smallest loss
    assert fitted.best_epoch == ranks.index(max(ranks)) + 1
    assert evaluate(load(tmp_path / "best"), SignOfSum(), "validation")["accuracy"] == fitted.best


def test_truncated_training_carries_the_state_and_resumes_exactly(tmp_path: Path) -> None:
    assert start(tmp_path / "whole", "steps").wait(120) == 0
    process = start(tmp_path / "cut", "steps", "slow")
    for _ in range(9):
        process.stdout.readline()
    process.kill()
    process.wait()
    assert start(tmp_path / "cut", "steps", "resume").wait(120) == 0
    assert same(weights(tmp_path / "cut" / "last"), weights(tmp_path / "whole" / "last"))


def test_truncated_training_is_refused_for_two_directions(tmp_path: Path) -> None:
    net = Model(ModelSpec(2, 2, (Node("CoRNN", 4, bidirectional=True),), pool="steps"))
    with pytest.raises(ValueError, match="can't be used with bidirectional=True"):
        fit(net, SignOfSum(per_step=True), replace(TRAINING, window=3), tmp_path)


def test_resuming_on_other_data_is_refused(whole: Path) -> None:
    task = SignOfSum()
    task.parts["train"].flat[0, 0] += 1
    with pytest.raises(DataError, match="was started with other settings"):
        fit(model(), task, TRAINING, whole, resume=True)


def test_truncated_training_is_refused_without_a_target_per_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a target at every step"):
        fit(model(), SignOfSum(), replace(TRAINING, window=4), tmp_path)


def test_evaluation_does_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    net, task = model().eval(), SignOfSum()
    whole = evaluate(net, task, "test")
    monkeypatch.setattr("pendula.learn.fit.EVALUATION_BATCH", 4)
    assert evaluate(net, task, "test") == pytest.approx(whole, rel=1e-5)


def test_training_puts_the_treatment_of_denormals_back_also_when_it_fails(tmp_path: Path) -> None:
    half = torch.tensor([torch.finfo(torch.float32).tiny])
    torch.set_flush_denormal(False)
    try:
        with pytest.raises(Diverged):
            fit(model(), SignOfSum(), replace(TRAINING, learning_rate=1e38, optimiser="sgd", clip_norm=None), tmp_path)
        assert (half * 0.5).item() > 0
    finally:
        torch.set_flush_denormal(True)


def test_tensorboard_files_are_written_on_request(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    fit(model(), SignOfSum(), replace(TRAINING, epochs=1, tensorboard=True), tmp_path)
    assert list((tmp_path / "tensorboard").glob("events*"))
