"""The command line: `pendula train | evaluate | predict | list | data | demo | bench`.

Exit codes: 0 done; 2 a wrong word or value; 3 data, files or disk; 4 the training diverged; 130 interrupted (and
resumable); 1 a defect of pendula, with a traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

try:
    import rich.console
    from jsonargparse import Namespace

    from pendula.words import parser
except ImportError as error:
    if (error.name or "").startswith("pendula"):
        raise
    sys.exit(f"the command line needs more packages ({error.name} is missing): pip install 'pendula[train]'")

import pendula
from pendula._check import BackendError, DataError
from pendula.experiment import Experiment, ModelChoice, TaskChoice, open_run, read_config, run
from pendula.learn.training import Diverged, Training

WRONG, DATA, DIVERGED, INTERRUPTED = 2, 3, 4, 130

# a pipe has no width, unless COLUMNS says so: a row of a table is then a line
console = rich.console.Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 500)


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
    from pendula.cells.linear import LinearCell
    from pendula.ops import native

    sets = [] if native.missing() else native.instruction_sets()
    here = "; also built in: ".join(filter(None, (" ".join(sets[:1]), ", ".join(sets[1:])))) or "none"
    rows: list[Sequence[str]] = [
        ("(processor)", f"threads: {torch.get_num_threads()}", "OMP_NUM_THREADS sets how many"),
        ("(compiled scans)", here, native.missing()),
    ]
    if torch.cuda.is_available():
        rows.append(("(GPU)", torch.cuda.get_device_name(), "there, what pendula:: names here runs step by step"))
    else:
        rows.append(("(GPU)", "none that torch can use", ""))
    for name, cell in CELLS.items():
        made = cell(2, 4)
        if isinstance(made, LinearCell):
            rows.append((name, "associative scan: all times in 2 log2(T) rounds", ""))
        elif made.fused is None:
            rows.append((name, "reference scan: each step from Python", "no fused scan is written yet"))
        elif reason := made.fused.objection(torch.zeros(1, 1, 2), made.operands(), lengths=None, tau=None):
            rows.append((name, "reference scan: each step from Python", f"{made.fused.name}: {reason}"))
        else:
            rows.append((name, f"fused scan {made.fused.name}: all steps in one call", ""))
    return ("network", "how it runs", "what would be faster, and is missing"), rows


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


def bench(args: Namespace) -> None:
    from pendula.bench import bench as run_cases

    run_cases(
        Path(args.out),
        console=console,
        names=args.case,
        repetitions=args.repetitions,
        threads=args.threads,
        compiles=args.compile,
        quick=args.quick,
    )


def _size(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"


def _described(run_folder: str, facts: dict[str, Any]) -> dict[str, Any]:
    """How the run read its files, to read others the same way."""
    if facts["files"] is None:
        raise DataError(f"{run_folder} was trained on {facts['name']}, not on files: leave --data out")
    return dict(facts["files"])


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "list": listing,
    "data": data,
    "demo": demo,
    "bench": bench,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    warnings.showwarning = _warn
    try:
        made = parser(" ".join((__doc__ or "").split("\n\n")[1].split()))
        args = made.instantiate(made.parse_args(arguments))
        COMMANDS[args.command](args[args.command])
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
