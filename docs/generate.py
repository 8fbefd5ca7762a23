"""Writes pages that must not be typed: `make docs`.

docs/networks/*.md come from the docstrings of the cells; docs/results.md, and tables in README.md and docs/dfa.md, from
results/.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pendula
from pendula.cells import CELLS, Cell
from pendula.papers.rows import rows
from pendula.papers.text import markdown as tables
from pendula.papers.text import summary

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results: written by `make docs` from results/ -->", "<!-- end of results -->"
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
    readme, dfa = ROOT / "README.md", ROOT / "docs" / "dfa.md"
    return {
        ROOT / "docs" / "results.md": tables(found),
        readme: _between(readme.read_text(), BEGIN, END, summary(others)),
        dfa: _between(_between(dfa.read_text(), BEGIN, END, summary(rules)), *COST, costs()),
    }


def _between(text: str, begin: str, end: str, made: str) -> str:
    """A page with another table between two of its marks."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


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
