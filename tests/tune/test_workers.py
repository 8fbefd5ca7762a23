"""Workers share a study, can be killed at any moment, and never run a trial twice or too many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from pendula.cli import main
from pendula.experiment import run
from pendula.learn.record import where
from pendula.tune import places, worker
from pendula.tune.places import hand_back, hand_back_the_dead, holders, next_trial
from pendula.tune.space import read_space
from pendula.tune.study import existing_study, open_study
from pendula.tune.worker import Job, work
from tests.tune.spaces import WriteSpace

HOME = Path("runs/tune/small")


def study_of(space: Path) -> optuna.Study:
    return open_study(read_space(space), HOME, None, ("loss", False))


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.02)


def start(space: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pendula", "tune", str(space), *words])


def under_way(space: Path) -> Callable[[], bool]:
    """Whether a trial is complete, and another one some epochs old."""

    def look() -> bool:
        if not (HOME / "trials").is_dir():
            return False
        trials = existing_study(read_space(space), HOME, None).trials
        running = [t for t in trials if t.state == TrialState.RUNNING and 2 <= len(t.intermediate_values) < 20]
        return bool(running) and any(t.state == TrialState.COMPLETE for t in trials)

    return look


def test_two_workers_get_different_trials_and_no_more_than_asked(write_space: WriteSpace) -> None:
    space = write_space()
    one, other = study_of(space), study_of(space)
    got = [next_trial(study, 3) for study in (one, other, one, other)]
    assert [trial and trial.number for trial in got] == [0, 1, 2, None]


def test_of_two_workers_that_ask_for_the_last_place_at_once_one_gets_it(
    write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = write_space()
    one, other = study_of(space), study_of(space)
    look = other.get_trials
    # the other one looks before the first one asks, and asks afterwards
    stale = [look()]
    monkeypatch.setattr(other, "get_trials", lambda **words: stale.pop() if stale else look(**words))
    assert next_trial(one, 1) is not None
    assert next_trial(other, 1) is None
    assert list(holders(one.trials)) == [0]
    assert states(one) == ["RUNNING", "FAIL"]


def test_a_trial_handed_back_twice_at_once_is_run_once(write_space: WriteSpace) -> None:
    study = study_of(write_space())
    first = next_trial(study, 1)
    assert first is not None
    value = first.suggest_float("train.learning_rate", 1e-4, 1e-1, log=True)
    hand_back(study, first.number, killed=False)
    # as another worker would that saw the trial before it was failed
    notes = {places.PLACE: 0, places.AFTER: 0}
    study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs=notes))
    again = next_trial(study, 1)
    assert again is not None
    assert places.place(again) == 0
    assert again.suggest_float("train.learning_rate", 1e-4, 1e-1, log=True) == value
    places.finish(study, again, 0.5)
    assert next_trial(study, 1) is None
    assert [t.number for t in holders(study.trials).values()] == [again.number]


def mark(trial: optuna.Trial, *, machine: str | None, beat: float) -> None:
    """Give a trial to a worker that does not exist."""
    trial.set_user_attr(places.WORKER, {"host": "h", "machine": machine, "pid": 2**22 + 1, "started": "0"})
    trial.set_user_attr(places.BEAT, beat)


@pytest.mark.parametrize(("here", "silent", "dead"), [(True, 0, True), (False, 0, False), (False, 1000, True)])
def test_a_worker_is_dead_if_the_kernel_says_so_or_after_a_long_silence(
    write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch, here: bool, silent: float, dead: bool
) -> None:
    monkeypatch.setattr(places, "_machine", lambda: "this one")
    study = study_of(write_space())
    trial = study.ask()
    now = time.time()
    mark(trial, machine="this one" if here else "another one", beat=now)
    monkeypatch.setattr(places.time, "time", lambda: now + silent)
    assert hand_back_the_dead(study) == dead


def test_a_trial_whose_worker_was_killed_before_it_marked_it_is_handed_back_soon(
    write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(write_space())
    study.ask()
    assert hand_back_the_dead(study) == 0
    now = time.time()
    monkeypatch.setattr(places.time, "time", lambda: now + 2 * places.UNMARKED_SECONDS)
    assert hand_back_the_dead(study) == 1
    again = next_trial(study, 1)
    assert again is not None
    assert places.place(again) == 0


def test_a_worker_that_was_taken_for_dead_before_its_mark_gets_another_trial(
    write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, ask = study_of(write_space()), optuna.Study.ask
    asked: list[int] = []

    def slowly(self: optuna.Study) -> optuna.Trial:
        trial = ask(self)
        if not asked:
            # meanwhile another worker takes this one for dead
            hand_back(study, trial.number, killed=True)
        asked.append(trial.number)
        return trial

    monkeypatch.setattr(optuna.Study, "ask", slowly)
    got = next_trial(study, 1)
    assert got is not None
    assert (asked, got.number, places.place(got)) == ([0, 1], 1, 0)
    assert states(study) == ["FAIL", "RUNNING"]


def test_a_worker_that_lives_keeps_its_trial(write_space: WriteSpace) -> None:
    study = study_of(write_space())
    assert next_trial(study, 3) is not None
    assert hand_back_the_dead(study) == 0
    assert states(study) == ["RUNNING"]


def test_a_trial_whose_workers_are_killed_again_and_again_is_given_up(write_space: WriteSpace) -> None:
    study = study_of(write_space())
    for _ in range(places.KILLS):
        trial = next_trial(study, 1)
        assert trial is not None
        hand_back(study, trial.number, killed=True)
    assert next_trial(study, 1) is None
    (last,) = holders(study.trials).values()
    assert (last.state, places.why(last)[:23]) == (TrialState.FAIL, "its worker was killed 5")


def test_a_worker_whose_trial_was_taken_over_lets_go_of_it(
    write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = write_space("trials = 1")
    study = study_of(space)

    def slow(*words: Any, report: Any, **more: Any) -> dict[str, Any]:
        if len(study.trials) == 1:
            # another worker takes this one for dead
            hand_back(study, 0, killed=True)
        return run(*words, report=report, **more)

    monkeypatch.setattr(worker, "run", slow)
    said: list[str] = []
    work(Job(str(space), str(HOME), None, ("loss", False), 1), said.append)
    assert said[0].startswith("trial 0 was silent for too long")
    assert states(study) == ["FAIL", "COMPLETE"]


def test_a_deadline_stops_the_trial_at_a_checkpoint_from_which_it_goes_on(write_space: WriteSpace) -> None:
    space = write_space("trials = 2", epochs=100_000)
    epochs = []
    for _ in range(2):
        work(Job(str(space), str(HOME), None, ("loss", False), 2, time.monotonic() + 2), print)
        epochs.append(where(HOME / "trials" / "0000" / "seed-0").epoch)
    assert 0 < epochs[0] < epochs[1]
    assert states(study_of(space)) == ["FAIL", "FAIL", "WAITING"]
    assert list(holders(study_of(space).trials)) == [0]


def test_a_killed_worker_loses_nothing_that_was_finished_and_its_trial_goes_on(
    write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = write_space("trials = 3\npruner = 'none'", epochs=60)
    process = start(space)
    try:
        wait_until(under_way(space), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = existing_study(read_space(space), HOME, None).trials
    (cut,) = (t for t in before if t.state == TrialState.RUNNING)
    resumed_at: dict[str, int] = {}

    def spy(experiment: Any, folder: Path, **words: Any) -> dict[str, Any]:
        resumed_at[folder.parent.name] = where(folder).epoch if folder.exists() else 0
        return run(experiment, folder, **words)

    monkeypatch.setattr(worker, "run", spy)
    assert main(["tune", str(space)]) == 0
    after = holders(existing_study(read_space(space), HOME, None).trials)
    assert [t.state for t in after.values()] == [TrialState.COMPLETE] * 3
    finished = [t for t in before if t.state == TrialState.COMPLETE]
    assert [after[t.number] for t in finished] == finished
    assert not {f"{t.number:04d}" for t in finished} & set(resumed_at)
    assert resumed_at[f"{cut.number:04d}"] >= 2
    # as if it had not been killed
    alone = run(read_space(space).experiment(cut.params), Path("alone"))
    assert after[cut.number].value == alone["validation"]


def test_workers_of_one_command_share_its_trials_and_stop_with_it(write_space: WriteSpace) -> None:
    space = write_space("trials = 4\npruner = 'none'", epochs=60)
    process = start(space, "--workers", "2")
    try:
        wait_until(under_way(space), process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 130
    study = existing_study(read_space(space), HOME, None)
    assert "RUNNING" not in states(study)
    assert "WAITING" in states(study)
    assert main(["tune", str(space), "--workers", "2"]) == 0
    after = holders(study.trials)
    assert [t.state for t in after.values()] == [TrialState.COMPLETE] * 4
    assert sorted(path.name for path in (HOME / "trials").iterdir()) == [f"{place:04d}" for place in after]


def test_without_optuna_the_command_says_how_to_get_it(write_space: WriteSpace) -> None:
    code = "import sys; sys.modules['optuna'] = None; from pendula.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "tune", str(write_space())]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, "pip install 'pendula[tune]'" in done.stderr) == (3, True)


@pytest.mark.parametrize("storage", [None, "sqlite:///all.db"])
def test_commands_that_start_at_once_make_one_study(write_space: WriteSpace, storage: str | None) -> None:
    space = read_space(write_space())
    together = threading.Barrier(4)

    def start_one(_: int) -> optuna.Study:
        together.wait()
        return open_study(space, HOME, storage, ("loss", False))

    with ThreadPoolExecutor(4) as threads:
        studies = list(threads.map(start_one, range(4)))
    assert sorted(study.ask().number for study in studies) == [0, 1, 2, 3]


def test_a_line_that_was_cut_off_does_not_spoil_the_journal(write_space: WriteSpace) -> None:
    space = write_space()
    study_of(space).ask()
    with open(HOME / "study.journal", "ab") as file:
        file.write(b'{"op_code": 4, "wor')
    study_of(space).ask()
    assert states(study_of(space)) == ["RUNNING", "RUNNING"]
