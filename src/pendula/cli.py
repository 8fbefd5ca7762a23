"""The command line: `pendula train | evaluate | predict | list | data | demo`.

Exit codes: 0 done; 2 a wrong word or value; 3 data, files or disk; 4 the training diverged; 130 interrupted (and
resumable); 1 a defect of pendula, with a traceback.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import textwrap
import tomllib
import traceback
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

try:
    import jsonargparse
    import rich.console
    import yaml
    from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_loader
except ImportError as error:
    sys.exit(f"the command line needs more packages ({error.name} is missing): pip install 'pendula[train]'")

import pendula
from pendula._check import BackendError, DataError
from pendula.experiment import Experiment, ModelChoice, TaskChoice, open_run, read_config, run
from pendula.learn.training import Diverged, Training

WRONG, DATA, DIVERGED, INTERRUPTED = 2, 3, 4, 130
EXAMPLES = """examples:
  pendula train --task.name digits --model.network CoRNN --out runs/digits
  pendula train --task.name har2 --model.physics.dt 0.1 --train.epochs 20
  pendula train --config har2.toml --train.seed 1
  pendula train --resume runs/digits
  pendula predict runs/digits --out predictions.csv
"""

console = rich.console.Console()


def train(args: Namespace) -> None:
    from pendula.report import progress, result_table

    if args.resume is not None:
        folder = Path(args.resume)
        given = {"task": args.task, "model": args.model, "train": args.train, "out": args.out}
        plain = {"task": TaskChoice(), "model": ModelChoice(), "train": Training(), "out": None}
        if given != plain:
            words = ", ".join(f"--{name}" for name in plain if given[name] != plain[name])
            raise ValueError(f"--resume goes on with the settings of the run: leave {words} out, or start a new run")
        experiment, _ = read_config(folder)
    else:
        experiment = Experiment(args.task, args.model, args.train)
        name = f"{args.task.name}-{args.model.network}-seed{args.train.seed}".lower()
        folder = Path(args.out or f"runs/{name}")
    if "path" in experiment.task.options:
        # the run must find its data again from wherever it is resumed
        path = Path(str(experiment.task.options["path"])).expanduser()
        experiment.task.options["path"] = str(path.resolve())

    def note(words: str) -> None:
        console.print(f"- {words}", soft_wrap=True, highlight=False)

    with progress(console, f"{experiment.model.network} on {experiment.task.name}", experiment.train.epochs) as report:
        result = run(experiment, folder, resume=args.resume is not None, report=report, say=note)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        console.print(result_table(result))
        console.print(f"model: {folder / 'best'}", soft_wrap=True)


def evaluate(args: Namespace) -> None:
    from pendula.learn.fit import evaluate as measure
    from pendula.report import simple_table
    from pendula.tasks.files import Labelled

    experiment, facts, model = open_run(Path(args.run))
    of = f"{args.part} part of {experiment.task.name}"
    if args.data is None:
        task = experiment.task.build()
    else:
        task = Labelled(Path(args.data), _described(args.run, facts), model.spec.labels, args.part)
        of = args.data
    rows = [(name, f"{value:.6g}") for name, value in measure(model, task, args.part).items()]
    rows.append(("sequences", str(task.size(args.part))))
    console.print(simple_table(f"{args.run} on {of}", ("metric", "value"), rows))


def predict(args: Namespace) -> None:
    from pendula.predictions import predict as table_of
    from pendula.predictions import write
    from pendula.tasks.base import StoredTask
    from pendula.tasks.files import read_unlabelled

    experiment, facts, model = open_run(Path(args.run))
    if args.data is not None:
        sequences = read_unlabelled(Path(args.data), _described(args.run, facts))
    else:
        task = experiment.task.build()
        if not isinstance(task, StoredTask):
            raise DataError(f"{task.name} is generated, so there is no file of sequences to predict")
        sequences = task.part(args.part)
    table = table_of(model, sequences, facts)
    write(table, Path(args.out), overwrite=args.overwrite)
    console.print(f"{table.num_rows} rows: {args.out}", soft_wrap=True)


def listing(args: Namespace) -> None:
    from pendula.report import simple_table

    head, rows = LISTS[args.what]()
    console.print(simple_table(args.what, head, rows))


def _networks() -> tuple[Sequence[str], list[Sequence[str]]]:
    from pendula.cells import CELLS

    def count(name: str) -> str:
        return f"{sum(p.numel() for p in CELLS[name](1, 128).parameters()):,}"

    return ("network", "equation", "parameters (1 in, 128 units)", "source"), [
        (name, cell.equation, count(name), cell.source) for name, cell in CELLS.items()
    ]


def _tasks() -> tuple[Sequence[str], list[Sequence[str]]]:
    from pendula.tasks import TASKS

    return ("task", "what"), [(name, task.summary) for name, task in TASKS.items()]


def _backends() -> tuple[Sequence[str], list[Sequence[str]]]:
    import torch

    from pendula.cells import CELLS

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU that torch can use"
    rows: list[Sequence[str]] = [("threads", f"{torch.get_num_threads()} on the processor; {device}")]
    for name, cell in CELLS.items():
        fused = f"fused scan {cell.fused.name}" if cell.fused else "reference scan: this version has no fused one"
        rows.append((name, fused))
    return ("network", "how it runs"), rows


LISTS: dict[str, Callable[[], tuple[Sequence[str], list[Sequence[str]]]]] = {
    "networks": _networks,
    "tasks": _tasks,
    "backends": _backends,
}


def data(args: Namespace) -> None:
    from pendula.report import simple_table
    from pendula.tasks import Files, store

    if args.action == "list":
        rows = [(r.name, r.summary, str(r.where or "not here"), _size(r.size)) for r in store.listing()]
        console.print(simple_table("data sets", ("set", "what", "where", "size"), rows))
        return
    if args.set is None:
        raise ValueError(f"data {args.action} needs a set: `pendula data list` shows them")
    if args.action == "get":
        for path in store.get(args.set, progress=console.is_terminal):
            console.print(str(path), soft_wrap=True)
        return
    if args.set not in store.SOURCES and (Path(args.set).exists() or Path(args.set).suffix):
        for note in Files(args.set).notes:
            console.print(f"- {note}", soft_wrap=True)
        return
    states = store.check(args.set)
    for file, state in states:
        console.print(f"{file}: {state}", soft_wrap=True)
    if not all(state.startswith("ok") for _, state in states):
        raise DataError(f"{args.set} is not whole: `pendula data get {args.set}`")


def demo(args: Namespace) -> None:
    from pendula.demo import demo as show

    show(Path(args.out), seeds=args.seeds, epochs=args.epochs, console=console)


def _size(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"


def _described(run_folder: str, facts: dict[str, Any]) -> dict[str, Any]:
    """How the run read its files, to read others the same way."""
    if facts["files"] is None:
        raise DataError(f"{run_folder} was trained on {facts['name']}, not on files: leave --data out")
    return dict(facts["files"])


def _load_text(text: str) -> Any:
    """TOML where the text is a TOML document of several lines, else YAML (which JSON is part of)."""
    if "\n" in text and not text.lstrip().startswith("{"):
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            try:
                return yaml.safe_load(text)
            except yaml.YAMLError as other:
                said = " ".join(str(other).split())
                raise yaml.YAMLError(f"neither TOML ({error}) nor YAML ({said})") from other
    return yaml.safe_load(text)


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Types and defaults beside each option; examples as they are written."""


class Parser(ArgumentParser):
    """jsonargparse's parser, with a short usage line and a suggestion for a misspelt option."""

    def __init__(self, prog: str, **words: Any) -> None:
        self.command = prog
        super().__init__(
            prog=prog,
            usage=f"{prog} {'COMMAND ...' if prog == 'pendula' else '[options]'}",
            formatter_class=HelpFormatter,
            parser_mode="pendula",
            allow_abbrev=False,
            **words,
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong on one line, with the nearest option, and exit with 2."""
        groups = {"task": TaskChoice, "model": ModelChoice, "train": Training}
        known = [f"{group}.{f.name}" for group, kind in groups.items() for f in fields(kind)]
        words = re.findall(r"\w+\.[\w.]+", message)
        near = [n for word in words if word not in known for n in difflib.get_close_matches(word, known, n=1)]
        hint = f" (did you mean {near[0]}?)" if near else ""
        print(f"pendula: {' '.join(message.split()).rstrip('.')}{hint}; `{self.command} --help` helps", file=sys.stderr)
        raise SystemExit(WRONG)


def parser() -> ArgumentParser:
    set_loader("pendula", _load_text, exceptions=(yaml.YAMLError,))
    codes = " ".join((__doc__ or "").split("\n\n")[1].split())
    words = "\n\n".join(textwrap.fill(text, 78) for text in ((pendula.__doc__ or "").strip(), codes))
    top = Parser("pendula", description=words, epilog=EXAMPLES)
    top.add_argument("--version", action="version", version=f"pendula {pendula.__version__}")
    commands = top.add_subcommands(dest="command", required=True, metavar="COMMAND")
    for name, (_, words) in COMMANDS.items():
        command = Parser(f"pendula {name}", description=f"{words[0].upper()}{words[1:]}.")
        _arguments(name, command)
        commands.add_subcommand(name, command, help=words)
    return top


def _arguments(name: str, command: ArgumentParser) -> None:
    add = command.add_argument
    if name == "train":
        add(
            "--config",
            action=jsonargparse.ActionConfigFile,  # type: ignore[attr-defined]
            help="TOML, YAML or JSON file with task, model and train",
        )
        add("--task", type=TaskChoice, default=TaskChoice())
        add("--model", type=ModelChoice, default=ModelChoice())
        add("--train", type=Training, default=Training())
        add("--out", type=str | None, help="new folder of the run; runs/TASK-NETWORK-SEED when left out")
        add("--resume", type=str | None, help="folder of a run to go on with, with the settings it was started with")
    if name in ("evaluate", "predict"):
        add("run", type=str, help="folder that `pendula train` wrote")
        add("--part", type=str, default="test", help="train, validation or test")
        add("--data", type=str | None, help="file or folder of your own data, instead of the data of the run")
    if name == "predict":
        add("--out", type=str, default="predictions.csv", help="file to write, .csv or .parquet")
        add("--overwrite", type=bool, default=False, help="replace the file if it exists")
    if name == "list":
        add("what", choices=list(LISTS), help="networks, tasks or backends")
    if name == "data":
        add("action", choices=["list", "get", "check"], help="list the sets, get one, or check one")
        add("set", nargs="?", type=str, help="name of a set; for check also a file or folder of your own")
    if name == "demo":
        add("--out", type=str, default="runs/demo", help="folder of the runs, resumed if it has some")
        add("--seeds", type=int, default=1, help="runs of each network on each data set")
        add("--epochs", type=int, default=40, help="passes over the data")


COMMANDS: dict[str, tuple[Callable[[Namespace], None], str]] = {
    "train": (train, "train a network on a task"),
    "evaluate": (evaluate, "measure a trained model"),
    "predict": (predict, "write predictions of a trained model to CSV or Parquet"),
    "list": (listing, "show the networks, tasks or backends"),
    "data": (data, "list, get or check data sets"),
    "demo": (demo, "train coRNN and an LSTM on handwritten digits"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    warnings.showwarning = _warn
    try:
        made = parser()
        args = made.instantiate(made.parse_args(arguments))
        command, _ = COMMANDS[args.command]
        command(args[args.command])
    except KeyboardInterrupt as stop:
        return _say(str(stop) or "interrupted", INTERRUPTED)
    except DataError as error:
        return _say(str(error), DATA)
    except OSError as error:
        return _say(f"{error.filename or 'a file'}: {error.strerror or error}", DATA)
    except (ValueError, TypeError, BackendError) as error:
        # a complaint of ours is about what the user gave; anything else is a defect and keeps its traceback
        if Path(pendula.__file__).parent not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parents:
            raise
        return _say(str(error), WRONG)
    except Diverged as error:
        return _say(str(error), DIVERGED)
    return 0


def _warn(message: Warning | str, category: type[Warning], *place: Any, **words: Any) -> None:
    _say(f"warning: {message}", 0)


def _say(words: str, code: int) -> int:
    rich.console.Console(stderr=True).print(f"pendula: {words}", soft_wrap=True, markup=False, highlight=False)
    return code
