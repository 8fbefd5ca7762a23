"""Who runs what. Each trial has one place in its study, also when another worker goes on with it.

Optuna's own heartbeat knows neither journal files nor ask-and-tell, so a running trial carries a mark of its worker and
the time of its last sign of life. A trial whose worker is gone is *handed back*: a copy with the same values and the
same place waits for the next worker, then the old one is failed. That order, and the rule in `holders`, make a kill at
any moment harmless.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

PLACE, AFTER, KILLED, SURPLUS = "place", "after", "killed", "surplus"
WORKER, BEAT, SAID, DIVERGED = "worker", "beat", "said", "diverged"
BEAT_SECONDS, SILENT_SECONDS = 60.0, 300.0
UNMARKED_SECONDS = 10.0
"""A worker marks the trial it gets at once: after this time without a mark it was killed before it could."""
KILLS = 5
"""A trial whose worker was killed this often is not tried again: it may be what kills them (memory)."""


def place(trial: FrozenTrial | optuna.Trial) -> int:
    """The place of a trial: its own number, or that of the first trial it goes on with."""
    return int(trial.user_attrs.get(PLACE, trial.number))


def holders(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Place -> the trial that holds it: the first that is neither surplus nor handed back."""
    kept = [t for t in trials if SURPLUS not in t.user_attrs]
    handed_back = {t.user_attrs[AFTER] for t in kept if AFTER in t.user_attrs}
    held: dict[int, FrozenTrial] = {}
    for trial in sorted(kept, key=lambda t: t.number):
        if trial.number not in handed_back:
            held.setdefault(place(trial), trial)
    return dict(sorted(held.items()))


def why(trial: FrozenTrial) -> str:
    """Why a trial failed or diverged, in a sentence; empty for others."""
    if trial.state == TrialState.FAIL and trial.user_attrs.get(KILLED, 0) + 1 >= KILLS:
        return f"its worker was killed {KILLS} times while it ran: it may need more memory than there is"
    return str(trial.user_attrs.get(SAID, ""))


def next_trial(study: optuna.Study, total: int) -> optuna.Trial | None:
    """A trial to run; None when all places are taken. Two workers never get the same one, nor more than `total`."""
    while True:
        trials = study.get_trials(deepcopy=False)
        waiting = any(t.state == TrialState.WAITING for t in trials)
        if not waiting and len(holders(trials)) >= total:
            return None
        trial = study.ask()
        # an error: this worker stood still before the mark, and another one has handed the trial back
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr(WORKER, _me())
            # two workers can ask for the last place at once: the lower number has it
            first = list(holders(study.get_trials(deepcopy=False)).values())[:total]
            if any(t.number == trial.number for t in first):
                return trial
            trial.set_user_attr(SURPLUS, True)
            study.tell(trial, state=TrialState.FAIL)


def hand_back(study: optuna.Study, number: int, *, killed: bool) -> None:
    """Let another worker, or a later one, go on with a trial. `killed`: its worker didn't say goodbye."""
    trials = {t.number: t for t in study.get_trials(deepcopy=False)}
    trial = trials[number]
    if trial.state.is_finished():
        return
    kills = trial.user_attrs.get(KILLED, 0) + killed
    if SURPLUS not in trial.user_attrs and kills < KILLS:
        notes = {PLACE: place(trial), AFTER: number, KILLED: kills}
        copy = optuna.create_trial(
            state=TrialState.WAITING, params=trial.params, distributions=trial.distributions, user_attrs=notes
        )
        study.add_trial(copy)
    finish(study, number, state=TrialState.FAIL)


def hand_back_the_dead(study: optuna.Study) -> int:
    """Hand back the trials whose workers are gone, and say how many there were."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    dead = [t.number for t in running if not _alive(t)]
    for number in dead:
        hand_back(study, number, killed=True)
    return len(dead)


def finish(
    study: optuna.Study,
    trial: optuna.Trial | int,
    value: float | Sequence[float] | None = None,
    *,
    state: TrialState = TrialState.COMPLETE,
) -> bool:
    """Tell how a trial ended; False if another worker took it for dead, and has finished or handed it back."""
    try:
        return study.tell(trial, value, state=state, skip_if_finished=True).state == state
    except UpdateFinishedTrialError:
        return False


@contextmanager
def beating(trial: optuna.Trial) -> Iterator[None]:
    """A sign of life in the study every minute, for workers on other machines."""
    over = threading.Event()

    def beat() -> None:
        while True:
            try:
                trial.set_user_attr(BEAT, time.time())
            except UpdateFinishedTrialError:
                return
            except StorageInternalError:
                # a database that is away for a while; if it stays away, the worker itself will say so
                pass
            if over.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _me() -> dict[str, Any]:
    return {"host": platform.node(), "machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def _alive(trial: FrozenTrial) -> bool:
    """Whether the worker of a running trial is there: asked of the kernel where it is ours, else by its last sign."""
    worker = trial.user_attrs.get(WORKER)
    began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    if worker is None:
        return time.time() - began < UNMARKED_SECONDS
    if worker["machine"] is not None and worker["machine"] == _machine():
        return bool(_started(worker["pid"]) == worker["started"])
    last: float = max(trial.user_attrs.get(BEAT, 0.0), began)
    return time.time() - last < SILENT_SECONDS


def _machine() -> str | None:
    """Where process numbers mean the same: this boot of this kernel, and this container. None: can't be told here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(process: int) -> str | None:
    """When a process started, in the kernel's ticks, as numbers are used again; None if it is gone."""
    try:
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else rest[18]
