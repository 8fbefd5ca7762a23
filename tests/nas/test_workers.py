"""Workers of a search share its points, and can be killed at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna", reason="a search runs on Optuna")
pytest.importorskip("networkx", reason="graphs are drawn by networkx")

from pendula._check import DataError  # noqa: E402
from pendula.cli import main  # noqa: E402
from pendula.nas.networks import build_task  # noqa: E402
from pendula.nas.report import open_search  # noqa: E402
from pendula.nas.space import read_space  # noqa: E402
from pendula.nas.worker import next_point, open_study  # noqa: E402
from pendula.tune.places import _alive, holders  # noqa: E402
from tests.nas.spaces import DISCRETE, WriteSpace  # noqa: E402

HOME = Path("runs/search/small")
COMPLETE, RUNNING = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


def under_way() -> bool:
    """Whether a trial is complete, and another one has a checkpoint."""
    try:
        trials = open_search(str(HOME))[0].trials
    except DataError:
        return False
    running = [t.number for t in trials if t.state == RUNNING]
    saved = [(HOME / "trials" / f"{n:04d}" / "network-0" / "resume.safetensors").exists() for n in running]
    return any(saved) and any(t.state == COMPLETE for t in trials)


def process_ids(parent: int) -> list[int]:
    """Of the processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_two_workers_never_get_the_same_point(write_space: WriteSpace) -> None:
    space = read_space(write_space("trials = 50", DISCRETE))
    task = build_task(space)
    studies = [open_study(space, HOME, None, task) for _ in range(2)]
    # both draw at random from four points, and would soon draw the same
    got = [next_point(studies[number % 2], space, space.total) for number in range(6)]
    held = [tuple(trial.params.values()) for trial in got if trial is not None]
    assert sorted(held) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert got[4:] == [None, None]


def test_of_two_workers_that_draw_one_point_at_once_no_two_keep_it(
    write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = read_space(write_space("trials = 50", DISCRETE))
    task = build_task(space)
    one, other = (open_study(space, HOME, None, task) for _ in range(2))
    # the other one has asked and written its point, and then looks after the first one did
    trial = other.ask()
    point = {variable.name: variable.suggest(trial) for variable in space.searched}
    one.enqueue_trial(point)
    first = next_point(one, space, space.total)
    assert first is not None
    assert first.params != point


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a killed worker is noticed at once on Linux only")
def test_a_killed_driver_and_a_killed_worker_lose_nothing_that_was_finished(write_space: WriteSpace) -> None:
    space = write_space("trials = 3", DISCRETE, epochs=150)
    words = [sys.executable, "-m", "pendula", "search", "run", str(space), "--workers", "2"]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    workers: list[int] = []
    try:
        wait_until(under_way, process)
        workers = process_ids(process.pid)
        # one worker by force, and then the driver: the other worker hears of it, and saves
        os.kill(workers[0], signal.SIGKILL)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(workers) == 2
    until = time.monotonic() + 240
    while not all(map(gone, workers)):
        assert time.monotonic() < until, "the other worker goes on"
        time.sleep(0.05)
    # one that was killed between asking for a trial and marking it is missed only after a while
    while any(t.state == RUNNING and _alive(t) for t in open_search(str(HOME))[0].trials):
        assert time.monotonic() < until, "a trial of the killed is taken to be run"
        time.sleep(0.2)
    before = holders(open_search(str(HOME))[0].trials)
    finished = {place: trial for place, trial in before.items() if trial.state == COMPLETE}
    begun = [place for place in before if (HOME / "trials" / f"{place:04d}").exists()]
    assert set(finished) <= set(begun)
    assert main(["search", "run", str(space)]) == 0
    after = holders(open_search(str(HOME))[0].trials)
    assert [trial.state for trial in after.values()] == [COMPLETE] * 3
    assert {place: after[place] for place in finished} == finished
    # what had begun and was cut off went on at its own point, in its own folder; a worker that was killed while it
    # drew a point had not begun
    assert {place: after[place].params for place in begun} == {place: before[place].params for place in begun}
    assert sorted(path.name for path in (HOME / "trials").iterdir()) == [f"{place:04d}" for place in after]


def test_without_the_libraries_the_command_says_how_to_get_them(write_space: WriteSpace) -> None:
    code = "import sys; sys.modules['optuna'] = None; from pendula.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "search", "run", str(write_space())], capture_output=True, text=True
    )
    assert (done.returncode, "pip install 'pendula[search]'" in done.stderr) == (3, True)
