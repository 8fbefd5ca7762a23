"""The words of the command line: commands, options, config files and help."""

from __future__ import annotations

import difflib
import re
import sys
import textwrap
import tomllib
from argparse import RawDescriptionHelpFormatter
from dataclasses import fields
from typing import Any, NoReturn

import jsonargparse
import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_loader

import pendula
from pendula.bench.cases import CPU, GPU
from pendula.bench.gpu_cases import NAMES_ON
from pendula.choices import ModelChoice, TaskChoice
from pendula.learn.training import Training

EXAMPLES = """examples:
  pendula train --task.name digits --model.network CoRNN --out runs/digits
  pendula train --task.name har2 --model.physics.dt 0.1 --train.epochs 20
  pendula train --config har2.toml --train.seed 1
  pendula train --resume runs/digits
  pendula predict runs/digits --out predictions.csv
  pendula diagnose runs/digits --out diagnosis
  pendula reproduce cornn/har2 --seeds 5 --budget 20m
"""
HELP = {
    "train": "train a network on a task",
    "evaluate": "measure a trained model",
    "predict": "write predictions of a trained model to CSV or Parquet",
    "diagnose": "check what is proven of a network, and draw what its states and gradients do",
    "tune": "search for the settings of an experiment",
    "search": "search for networks by the generator that draws them",
    "reproduce": "run published experiments and write what was measured",
    "report": "show published and measured numbers side by side",
    "list": "show the networks, tasks, papers or backends",
    "data": "list, get or check data sets",
    "demo": "train coRNN and an LSTM on handwritten digits",
    "bench": "time the compiled scans against the same equations elsewhere",
}


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
        raise SystemExit(2)


def in_full(arguments: list[str]) -> list[str]:
    """`--train.rule dfa`, where options of the rule are given too, as the name among them.

    >>> in_full(["train", "--train.rule", "dfa", "--train.rule.sparsity", "0.9"])
    ['train', '--train.rule.name', 'dfa', '--train.rule.sparsity', '0.9']
    """
    if not any(word.startswith("--train.rule.") for word in arguments):
        return arguments
    return [re.sub(r"^--train\.rule(?==|$)", "--train.rule.name", word) for word in arguments]


def parser(codes: str) -> ArgumentParser:
    """The parser of the whole command line; `codes` says what the exit codes mean."""
    set_loader("pendula", _load_text, exceptions=(yaml.YAMLError,))
    words = "\n\n".join(textwrap.fill(text, 78) for text in ((pendula.__doc__ or "").strip(), codes))
    top = Parser("pendula", description=words, epilog=EXAMPLES)
    top.add_argument("--version", action="version", version=f"pendula {pendula.__version__}")
    commands = top.add_subcommands(dest="command", required=True, metavar="COMMAND")
    for name, words in HELP.items():
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
    if name == "diagnose":
        add("run", type=str, help="folder that `pendula train` wrote, or a model alone, which is given noise")
        add("--part", type=str | None, help="train, validation or test; validation when left out")
        add("--data", type=str | None, help="file or folder of your own data, instead of the data of the run")
        add("--sequences", type=int, default=8, help="how many sequences, the first ones")
        add("--steps", type=int | None, help="only the first steps of each; all when left out (200 of noise)")
        add("--compare", type=str, default="LSTM", help="network whose gradients stand beside, or none")
        add("--out", type=str, default="diagnosis", help="new folder for diagnosis.html and diagnosis.json")
        add("--overwrite", action="store_true", help="replace the two files if they exist")
    if name == "list":
        add("what", choices=["networks", "tasks", "papers", "backends"], help="networks, tasks, papers or backends")
    if name == "tune":
        add("space", type=str, help="TOML file with task, model, train, and search: what is searched (docs/tune.md)")
        add("--out", type=str | None, help="folder of the sweep; runs/tune/NAME when left out")
        add("--storage", type=str | None, help="database such as sqlite:///x.db, or a journal file; one in the folder")
        add("--trials", type=int | None, help="of the study, over all workers and starts; as many as the space says")
        add("--budget", type=str | None, help="time, such as 20m or 1h30m; the trials at hand can go on later")
        add("--workers", type=int, default=1, help="processes on this machine; other machines join by the same command")
        add("--report", action="store_true", help="only show the study")
    if name == "search":
        add("action", choices=["run", "report", "show"], help="run a search, report what it found, or draw a network")
        add(
            "what",
            type=str,
            help="run, show: TOML file with task, train and search (docs/nago.md); report: DIR, storage",
        )
        add("--out", type=str | None, help="run: folder, runs/search/NAME; report: new folder; show: new .svg or .png")
        add(
            "--storage",
            type=str | None,
            help="run: database such as sqlite:///x.db, or a journal file; one in the folder",
        )
        add("--trials", type=int | None, help="run: points of the study, over all workers; as many as the space says")
        add("--budget", type=str | None, help="run: time, such as 30m or 1h30m; the trials at hand can go on later")
        add("--workers", type=int | None, help="run: processes here, 1; other machines join by the same command")
        add("--best", type=int | None, help="report: how many networks to write, 5")
        add("--study", type=str | None, help="report: name of the study, where a storage has several")
        add("--seed", type=int | None, help="show: which network of the space, 0")
    if name == "reproduce":
        add(
            "entries",
            type=str,
            nargs="+",
            help="PAPER/ID of `pendula list papers`, or patterns such as 'cornn/*'",
        )
        add("--seeds", type=int | None, help="how many seeds, from 0 on; as many as the entry says when left out")
        add("--seed", type=int, nargs="+", help="particular seeds, to share the work among machines")
        add("--budget", type=str | None, help="time for all of them, such as 20m or 1h30m; what is stopped can go on")
        add("--accelerator", type=str, default="auto", help="cpu, cuda, mps or auto")
        add("--devices", type=int, default=1, help="processes of each training")
        add("--cuda_graph", action="store_true", help="capture whole training steps on a GPU: train.cuda_graph")
        add("--runs", type=str, default="runs/reproduce", help="folder of weights and checkpoints")
    if name in ("reproduce", "report"):
        add("--results", type=str, default="results", help="folder of the results, PAPER/ID/seed-N.json")
    if name == "report":
        add("--paper", type=str, nargs="+", help="some of the papers; all when left out")
        add("--measured", action="store_true", help="only what was run")
        add("--markdown", type=str | None, help="also write the tables to this new .md file")
        add("--html", type=str | None, help="also write a page with learning curves to this new .html file")
        add("--overwrite", action="store_true", help="replace the files if they exist")
    if name == "data":
        add("action", choices=["list", "get", "check"], help="list the sets, get one, or check one")
        add("set", nargs="?", type=str, help="name of a set; for check also a file or folder of your own")
    if name == "demo":
        add("--out", type=str, default="runs/demo", help="folder of the runs, resumed if it has some")
        add("--seeds", type=int, default=1, help="runs of each network on each data set")
        add("--epochs", type=int, default=40, help="passes over the data")
    if name == "bench":
        add("--device", type=str, default=CPU, help="cpu, cuda (an NVIDIA GPU), or auto: a GPU where there is one")
        names = {device: ", ".join(known) for device, known in NAMES_ON.items()}
        which = f"some of: {names[CPU]} (a picture); on a GPU: {names[GPU]}; all when left out"
        add("--case", type=str, nargs="+", help=which)
        rounds = "rounds, of which medians are taken; 5 when left out (of short calls, 15), on a GPU 20"
        add("--repetitions", type=int | None, help=rounds)
        add("--threads", type=int | None, help="threads of each case, instead of its own; not on a GPU")
        add("--compile", action="store_true", help="time torch.compile too, in the small cases: takes minutes")
        add("--quick", action="store_true", help="tiny sizes, to see that everything runs; the numbers mean nothing")
        add("--budget", type=str | None, help="time, such as 7m; cases that have not begun by then are left out")
        add("--out", type=str, default="results/bench", help="folder of the new file and picture")
