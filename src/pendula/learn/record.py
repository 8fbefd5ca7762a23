"""What a run leaves on disk: a line per epoch, and one file from which it goes on bit for bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from pendula._check import DataError
from pendula.learn.rule import LearningRule
from pendula.nets.checkpoint import read_tensors, write_tensors, write_whole

RESUME_FILE, RECORD_FILE = "resume.safetensors", "record.jsonl"


@dataclass
class Progress:
    """Where a run is. Everything else that training depends on is a pure function of this and the seed."""

    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_loss: float = 0.0
    best_epoch: int = -1
    loss_sum: float = 0.0
    loss_count: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def write_resume(
    folder: Path, plan: str, at: Progress, model: nn.Module, optimiser: torch.optim.Optimizer, rule: LearningRule
) -> None:
    """One file, replaced whole: weights, optimiser state, the learning rule's tensors, and place.

    `plan` names what the run was started with.
    """
    tensors: dict[str, Tensor] = {f"model/{name}": t for name, t in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimiser/{index}/{key}"] = torch.as_tensor(value)
    tensors |= {f"rule/{name}": t for name, t in rule.tensors().items()}
    write_tensors(folder / RESUME_FILE, tensors, {"plan": plan, "progress": json.dumps(asdict(at))})


def read_resume(
    folder: Path, plan: str, model: nn.Module, optimiser: torch.optim.Optimizer, rule: LearningRule
) -> Progress:
    """Put model, optimiser and rule back. Errors: DataError if the file is damaged or of a run with another plan."""
    tensors, notes = read_tensors(folder / RESUME_FILE)
    if notes.get("plan") != plan:
        raise DataError(
            f"{folder} was started with other settings or data: resume it with its own, or use a new folder"
        )
    model.load_state_dict({name[6:]: t for name, t in tensors.items() if name.startswith("model/")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
    rule.restore(rule_tensors(tensors))
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return Progress(**json.loads(notes["progress"]))


def rule_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a resume file holds of the learning rule."""
    return {name.removeprefix("rule/"): t for name, t in tensors.items() if name.startswith("rule/")}


def where(folder: Path) -> Progress:
    """Where the run of a folder is. Errors: DataError if its resume file is missing or damaged."""
    return Progress(**json.loads(read_tensors(folder / RESUME_FILE)[1]["progress"]))


class Record:
    """Epoch lines as JSON (and TensorBoard). The resume file holds them too, so a torn line is mended on resuming."""

    def __init__(self, folder: Path, history: list[dict[str, Any]], *, tensorboard: bool = False) -> None:
        self.path = folder / RECORD_FILE
        lines = "".join(json.dumps(line) + "\n" for line in history)
        write_whole(self.path, lines.encode())
        self.board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise DataError("tensorboard=true needs the package: pip install tensorboard") from error
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1)

    def add(self, line: dict[str, Any]) -> None:
        try:
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise DataError(
                f"{self.path} could not be written ({error.strerror}): free some space and resume"
            ) from error
        if self.board is not None:
            for name, value in line.items():
                if isinstance(value, (int, float)) and name != "epoch":
                    self.board.add_scalar(name, value, line["epoch"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


class StopRequest:
    """True after the first Ctrl-C or SIGTERM; the second one acts at once."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def asked_to_stop() -> Iterator[StopRequest]:
    """Turn the first interrupt into a request, so that no step is cut in the middle."""
    request = StopRequest()
    signals = (signal.SIGINT, signal.SIGTERM)

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True
        for s, handler in before.items():
            signal.signal(s, handler)

    try:
        before = {s: signal.signal(s, ask) for s in signals}
    except ValueError:
        # not the main thread: interrupts are somebody else's
        before = {}
    try:
        yield request
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
