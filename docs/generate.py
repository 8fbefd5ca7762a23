"""Writes pages that must not be typed: `make docs`.

docs/networks/*.md come from the docstrings of the cells; docs/results.md, and tables in README.md, docs/dfa.md and
docs/nago.md, from results/.
"""

from __future__ import annotations

import csv
import inspect
import json
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pendula
from pendula.cells import CELLS, Cell
from pendula.papers.rows import rows
from pendula.papers.text import markdown as tables
from pendula.papers.text import summary

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results: written by `make docs` from results/ -->", "<!-- end of results -->"
STUDY = "<!-- study: written by `make docs` from results/search/ -->", "<!-- end of study -->"
SPREAD = "<!-- spread: written by `make docs` from results/search/ -->", "<!-- end of spread -->"
HALF = "<!-- half: written by `make docs` from results/search/ -->", "<!-- end of half -->"
SURROGATES = "<!-- surrogates: written by `make docs` from results/search/ -->", "<!-- end of surrogates -->"
SPEED = "<!-- speed: written by `make docs` from results/bench/ -->", "<!-- end of speed -->"
COST = "<!-- cost: written by `make docs` from results/bench/dfa.json -->", "<!-- end of cost -->"
FOLDER = Path(__file__).parent / "networks"
NOTICE = "<!-- written by `make docs` from the docstring of the cell: edit that -->"


def pages() -> dict[str, str]:
    """Name of the file -> its text."""
    made = {f"{name}.md": page(name, cell) for name, cell in CELLS.items()}
    rows = [f"| [{name}]({name}.md) | `{cell.equation}` | {cell.source} |" for name, cell in CELLS.items()]
    head = ["# Networks", NOTICE, "| network | equation | source |\n|---|---|---|\n" + "\n".join(rows)]
    return {"README.md": "\n\n".join(head) + "\n", **made}


def page(name: str, cell: type[Cell]) -> str:
    words, _, example = (inspect.getdoc(cell) or "").partition("\n\n>>> ")
    built = cell(1, 128)
    order = built.order()
    facts = [
        f"- source: {cell.source}",
        f"- parameters with 1 input and 128 units: {sum(p.numel() for p in built.parameters()):,}",
        f"- state: {', '.join(f'`{field}`' for field in cell.State._fields)}",
        f"- irregular time steps (`timespans`): {'yes' if cell.has_time_step else 'no, it has no time step'}",
        f"- nested nonlinearities and range of memory (n, t): {order if order else 'not worked out'}",
    ]
    parts = [f"# {name}", NOTICE, markdown(words), "\n".join(facts)]
    parts.append(f"```python\nimport torch, pendula\n\nlayer = pendula.{name}(3, 8)\n{CALL}\n```")
    if example:
        parts.append(f"The cell alone:\n\n```\n>>> {example}\n```")
    return "\n\n".join(parts) + "\n"


CALL = "outputs, state = layer(torch.zeros(5, 2, 3))"


def markdown(docstring: str) -> str:
    """Arguments become a list; the rest of our docstrings is Markdown already (equations are indented)."""
    before, _, rest = docstring.partition("\nArgs:\n")
    if not rest:
        return docstring
    block, _, after = rest.partition("\n\n")
    lines = []
    for line in block.splitlines():
        argument = re.match(r" {4}(\w[\w, ]*): (.*)", line)
        lines.append(f"- `{argument[1]}`: {argument[2]}" if argument else "  " + line.strip())
    return f"{before.rstrip()}\n\nArguments:\n\n" + "\n".join(lines) + (f"\n\n{after}" if after else "")


def results() -> dict[Path, str]:
    """The page of published and measured numbers, and the pages with a table of what was run."""
    found = rows(ROOT / "results")
    rules = [row for row in found if row.entry.paper == "dfa"]
    others = [row for row in found if row not in rules]
    readme = ROOT / "README.md"
    dfa, nago, native = (ROOT / "docs" / f"{name}.md" for name in ("dfa", "nago", "native"))
    return {
        ROOT / "docs" / "results.md": tables(found),
        readme: _between(readme.read_text(), BEGIN, END, summary(others)),
        dfa: _between(_between(dfa.read_text(), BEGIN, END, summary(rules)), *COST, costs()),
        nago: searches(nago.read_text()),
        native: _between(native.read_text(), *SPEED, speeds()),
    }


def searches(page: str) -> str:
    """The page of searches with the tables of what was measured."""
    for marks, made in ((STUDY, study), (SPREAD, spread), (SURROGATES, surrogates), (HALF, half_hour)):
        page = _between(page, *marks, made())
    return page


def _between(text: str, begin: str, end: str, made: str) -> str:
    """A page with another table between two of its marks."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


RIVALS = ("eager PyTorch", "torch.nn.LSTM", "JAX, jitted", "torch.compile")


def speeds() -> str:
    """The latest run of `pendula bench` on a processor: times, and how many times faster than each rival."""
    path = sorted((ROOT / "results" / "bench").glob("bench-*.json"))[-1]
    run = json.loads(path.read_text())
    head = ["case", "pass", "ms", "of sgemm's rate", "two threads", *RIVALS]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for case in run["cases"]:
        for where, found in case["passes"].items():
            floor = found.get("floor", {}).get("fraction")
            by_name = {row["name"]: row for row in found["contestants"]}
            own = by_name["pendula"]
            words = [_times(by_name.get(name), "ratio", floor) for name in RIVALS]
            both = next((row for row in found["contestants"] if "speedup" in row), None)
            share = "" if floor is None else f"{floor:.0%}"
            took = [case["title"].split(",")[0], where, f"{own['cpu_ms']:.3g}", share]
            parts = [*took, _times(both, "speedup", None), *words]
            lines.append(f"| {' | '.join(parts)} |")
    versions = f"PyTorch {run['versions']['torch']}, JAX {run['rivals']['jax']}"
    where = f"{run['machine']['processor']}, {run['instruction_set']}"
    facts = [f"[{path.name}](../results/bench/{path.name}): {where}, {versions}; milliseconds of processor time."]
    picture = path.with_suffix(".png")
    if picture.exists():
        facts.append(f"![Time against steps and units](../results/bench/{picture.name})")
    return "\n\n".join(["\n".join(lines), *facts])


def _times(row: dict[str, Any] | None, what: str, floor: float | None) -> str:
    """How many times faster; the goal where it was missed, and whether products at sgemm's rate would miss it."""
    if row is None:
        return ""
    value, goal = row[what], row.get("goal")
    if goal is None or value >= goal:
        return f"{value:.2f}"
    beyond = floor is not None and floor <= 1 and value / floor < goal
    return f"{value:.2f} (goal {goal:g}" + (", beyond sgemm)" if beyond else ")")


def costs() -> str:
    """What a training step costs under each learning rule, as `benchmarks/dfa.py` measured it."""
    measured = json.loads((ROOT / "results" / "bench" / "dfa.json").read_text())["cases"]
    lines = [
        "| network | steps | rule | peak memory, MB | of bptt's | of plain's | processor, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in measured:
        shares = " | ".join(f"{share:.2f}" for share in case["share_of"].values())
        peak = f"{case['peak_bytes'] / 1e6:.1f}"
        lines.append(
            f"| {case['network']} | {case['steps']} | {case['rule']} | {peak} | {shares} | {case['cpu_ms']:.0f} |"
        )
    return "\n".join(lines)


ARMS = {
    "bohb": "generators, TPE with Hyperband",
    "random": "generators, random search",
    "wiring": "random wiring, one generator fixed by hand",
    "physics": "one coRNN layer, its physics searched at random",
    "hand": "made by hand, the best of several seeds",
}


def searched() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Problem -> arm of the study -> its repetitions, as `benchmarks/nago.py` wrote them."""
    home = ROOT / "results" / "search"
    found = {
        folder.name: {
            arm: [json.loads(file.read_text()) for file in sorted(folder.glob(f"{arm}-*.json"))] for arm in ARMS
        }
        for folder in sorted(home.glob("*"))
    }
    return {
        problem: kept for problem, runs in found.items() if (kept := {arm: each for arm, each in runs.items() if each})
    }


def study() -> str:
    """What each way of finding a network found, at equal numbers of epochs and at most equal numbers of parameters."""
    lines = [
        "| problem | way | best of validation | its test part | repetitions | parameters | networks begun | epochs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for problem, runs in searched().items():
        for arm, each in runs.items():
            sizes, begun = ([one["parameters"] for one in each], [len(one["networks"]) for one in each])
            cells = [problem, ARMS[arm], *(_mean([one[key] for one in each]) for key in ("validation", "test"))]
            cells += [str(len(each)), _range(sizes), _range(begun), _range([one["epochs"] for one in each])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread() -> str:
    """How much the networks of one generator differ."""
    lines = [
        "| problem | networks | how many | validation accuracy | lowest | highest |",
        "|---|---|---|---|---|---|",
    ]
    for problem, runs in searched().items():
        whole = {
            arm: [n["value"] for one in runs.get(arm, ()) for n in one["networks"] if n["ended"] == "complete"]
            for arm in ("random", "wiring", "hand")
        }
        named = {
            f"of the generator that repetition {number} found": one["samples"]
            for number, one in enumerate(runs.get("bohb", ()))
        }
        named |= {
            "of the generator fixed by hand": whole["wiring"],
            "of as many generators, drawn at random": whole["random"],
            "made by hand, from other seeds": whole["hand"],
        }
        for name, values in named.items():
            if values:
                cells = [problem, name, str(len(values)), _mean(values), f"{min(values):.1%}", f"{max(values):.1%}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


PREDICTED_BY = {"constant": "one normal for all", "gp": "Gaussian process", "bnn": "Bayesian network"}


def surrogates() -> str:
    """How well each surrogate predicts generators that it hasn't seen, as `benchmarks/surrogates.py` measured it."""
    told = json.loads((ROOT / "results" / "search" / "surrogates.json").read_text())
    lines = [
        "| problem | generators | their networks | surrogate | negative log-likelihood | of the middle one | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for problem, found in told["problems"].items():
        known = found["generators"]
        sizes = [str(len(known)), str(sum(len(values) for _, values in known))]
        for name, each in found["surrogates"].items():
            likelihood, middle, error = ([one[key] for one in each] for key in ("nll", "median_nll", "rmse"))
            span = f"{fmean(likelihood):.2f} ({min(likelihood):.2f} to {max(likelihood):.2f})"
            cells = [problem, *sizes, PREDICTED_BY[name], span, f"{fmean(middle):.2f}", f"{fmean(error):.1%}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def half_hour() -> str:
    """The best network of half an hour, beside all those made by hand that the study trained for as many epochs."""
    home = ROOT / "results" / "search" / "half-hour"
    drawn, run = (json.loads((home / name).read_text()) for name in ("best-1.json", "result.json"))
    trials = list(csv.DictReader((home / "trials.csv").open()))
    hand = searched()["har6"]["hand"]
    alone = [n["value"] for one in hand for n in one["networks"]]
    begun = sum(1 for trial in trials if trial["outcome"] != "waiting")
    epochs = sum(int(trial["epochs"] or 0) for trial in trials)
    lines = ["| network | parameters | validation | test | trained |", "|---|---|---|---|---|"]
    lines.append(
        f"| the best of {begun} points, {epochs} epochs | {drawn['parameters']:,} | {run['validation']:.1%} | "
        f"{run['test']['accuracy']:.1%} | once |"
    )
    lines.append(
        f"| coRNN of 64 units, by hand | {hand[0]['parameters']:,} | {_mean(alone)}, at most {max(alone):.1%} | "
        f"{_mean([one['test'] for one in hand])} | validation: {len(alone)} times; test: the best of each ten |"
    )
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    return f"{fmean(values):.1%}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


if __name__ == "__main__":
    made = pages()
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.glob("*.md"):
        file.unlink()
    for file_name, text in made.items():
        (FOLDER / file_name).write_text(text)
    for path, text in results().items():
        path.write_text(text)
    print(f"{len(made)} pages in {FOLDER}, of pendula {pendula.__version__}")
