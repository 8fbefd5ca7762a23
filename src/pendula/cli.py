"""The command line: `pendula train | evaluate | predict | diagnose | tune | search | reproduce | report | list | ...`.

Exit codes: 0 done; 2 a wrong word or value; 3 data, files or disk; 4 the training diverged; 130 interrupted (and
resumable); 1 a defect of pendula, with a traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import rich.console
    from jsonargparse import Namespace

    from pendula.words import in_full, parser
except ImportError as error:
    if (error.name or "").startswith("pendula"):
        raise
    sys.exit(f"the command line needs more packages ({error.name} is missing): pip install 'pendula[train]'")

import pendula
from pendula._check import BackendError, DataError, seconds_of
from pendula.choices import ModelChoice, TaskChoice
from pendula.experiment import Experiment, files_of, open_run, read_config, run
from pendula.learn.heap import keep_freed_memory
from pendula.learn.training import Diverged, Training

WRONG, DATA, DIVERGED, INTERRUPTED = 2, 3, 4, 130

# a pipe has no width, unless COLUMNS says so: a row of a table is then a line
console = rich.console.Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 500)


def train(args: Namespace) -> None:
    from pendula.report import alignment_table, progress, result_table

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
        network = "graph" if args.model.nodes else args.model.network
        name = f"{args.task.name}-{network}-seed{args.train.seed}".lower()
        folder = Path(args.out or f"runs/{name}")
    if experiment.task.options.get("path") is not None:
        # the run must find its data again from wherever it is resumed
        path = Path(str(experiment.task.options["path"])).expanduser()
        experiment.task.options["path"] = str(path.resolve())

    with progress(console, f"{experiment.model.title} on {experiment.task.name}", experiment.train.epochs) as report:
        result = run(experiment, folder, resume=args.resume is not None, report=report, say=_note)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        console.print(result_table(result))
        if result.get("alignment"):
            console.print(alignment_table(result["alignment"]))
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
        task = Labelled(Path(args.data), files_of(args.run, facts), model.spec.labels, args.part)
        of = args.data
        for words in task.notes:
            _note(words)
        if task.entire and Path(args.data).resolve() == Path(str(experiment.task.options.get("path"))):
            _note("the model was trained on some of these: leave --data out to measure on the test part alone")
    rows = [(name, f"{value:.6g}") for name, value in measure(model, task, args.part).items()]
    rows.append(("sequences", str(task.size(args.part))))
    console.print(simple_table(f"{args.run} on {of}", ("metric", "value"), rows))


def predict(args: Namespace) -> None:
    from pendula.predictions import predict as table_of
    from pendula.predictions import refuse, write
    from pendula.tasks.base import StoredTask
    from pendula.tasks.files import read_unlabelled

    # before anything takes time
    refuse(Path(args.out), overwrite=args.overwrite)
    experiment, facts, model = open_run(Path(args.run))
    if args.data is not None:
        sequences = read_unlabelled(Path(args.data), files_of(args.run, facts), _note)
    else:
        task = experiment.task.build()
        if not isinstance(task, StoredTask):
            raise DataError(f"{task.name} is generated, so there is no file of sequences to predict")
        sequences = task.part(args.part)
    table = table_of(model, sequences, facts)
    write(table, Path(args.out), overwrite=args.overwrite)
    console.print(f"{table.num_rows} rows: {args.out}", soft_wrap=True)


def diagnose(args: Namespace) -> None:
    from pendula.subjects import diagnose as look

    look(say=_note, **args.as_dict())


def tune(args: Namespace) -> None:
    from pendula.tune.sweep import tune as sweep

    sweep(
        Path(args.space),
        console=console,
        out=args.out,
        storage=args.storage,
        trials=args.trials,
        budget=None if args.budget is None else seconds_of("--budget", args.budget),
        workers=args.workers,
        report=args.report,
    )


def search(args: Namespace) -> None:
    from pendula.nas.command import search as act

    act(console=console, **args.as_dict())


def listing(args: Namespace) -> None:
    from pendula.listing import LISTS
    from pendula.report import simple_table

    head, rows = LISTS[args.what]()
    console.print(simple_table(args.what, head, rows))


def data(args: Namespace) -> None:
    from pendula.report import simple_table
    from pendula.tasks import Files, store
    from pendula.tasks.sources import SOURCES

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
    # a folder that is not there has no ending, but often a slash
    if args.set not in SOURCES and (Path(args.set).exists() or Path(args.set).suffix or "/" in args.set):
        for words in Files(args.set).notes:
            _note(words)
        return
    states = store.check(args.set)
    for file, state in states:
        console.print(f"{file}: {state}", soft_wrap=True)
    if not all(state.startswith("ok") for _, state in states):
        raise DataError(f"{args.set} is not whole: `pendula data get {args.set}`")


def reproduce(args: Namespace) -> None:
    from pendula.published import reproduce as run_entries

    run_entries(console=console, **args.as_dict())


def report(args: Namespace) -> None:
    from pendula.published import report as show

    show(console=console, **args.as_dict())


def demo(args: Namespace) -> None:
    from pendula.demo import demo as show

    show(Path(args.out), seeds=args.seeds, epochs=args.epochs, console=console)


def bench(args: Namespace) -> None:
    from pendula.bench import bench as run_cases

    run_cases(
        Path(args.out),
        console=console,
        device=args.device,
        names=args.case,
        repetitions=args.repetitions,
        threads=args.threads,
        compiles=args.compile,
        quick=args.quick,
        budget=None if args.budget is None else seconds_of("--budget", args.budget),
    )


def _note(words: str) -> None:
    console.print(f"- {words}", soft_wrap=True, markup=False, highlight=False)


def _size(size: int | None) -> str:
    return "" if not size else f"{size / 1e6:.1f} MB"


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "diagnose": diagnose,
    "tune": tune,
    "search": search,
    "reproduce": reproduce,
    "report": report,
    "list": listing,
    "data": data,
    "demo": demo,
    "bench": bench,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    warnings.showwarning = _warn
    keep_freed_memory()
    try:
        made = parser(" ".join((__doc__ or "").split("\n\n")[1].split()))
        args = made.instantiate(made.parse_args(in_full(sys.argv[1:] if arguments is None else arguments)))
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
