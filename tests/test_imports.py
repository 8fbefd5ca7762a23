"""The layers of the house: imports go down only (docs/how-it-works.md); the library loads nothing it does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pendula

ROOT = Path(pendula.__file__).parent

LEVEL = {
    "_check": 0,
    "math": 1,
    "ops": 1,
    "cells": 2,
    "nets": 3,
    "learn": 4,
    "diagnose": 4,
    "search": 5,
    "circumstances": 5,
    "choices": 5,
    "experiment": 5,
    "papers": 5,
    "predictions": 5,
    "report": 6,
    "bench": 6,
    "cli": 6,
    "demo": 6,
    "published": 6,
    "sklearn": 6,
    "subjects": 6,
    "listing": 6,
    "tune": 6,
    "nas": 6,
    "words": 6,
    "__main__": 7,
}
"""Part of the package -> its level. `tasks`, and `pendula` itself, have rules of their own below."""

SIDEWAYS = {
    # an experiment hands a search what it evaluates with; the command line shows the rest
    "experiment": {"search", "circumstances", "choices"},
    "papers": {"experiment", "choices"},
    "bench": {"report"},
    "words": {"bench"},
    "demo": {"report"},
    "tune": {"report"},
    "published": {"report"},
    "nas": {"report", "tune"},
    "cli": {"report", "bench", "words", "demo", "tune", "nas", "listing", "published", "subjects"},
}
"""What a part may import at its own level."""

TASKS, PACKAGE = "tasks", "pendula"


def allowed(part: str) -> set[str]:
    """Which other parts a part may import."""
    if part == TASKS:
        return {"_check"}
    if part == PACKAGE:
        # the public names, each re-exported once
        return {name for name, level in LEVEL.items() if level < 5}
    below = {name for name, level in LEVEL.items() if level < LEVEL[part]}
    if part == "search":
        # it sees spec sheets of networks; the experiment hands it `evaluate`
        return {"_check", "nets"}
    if LEVEL[part] >= 4:
        below.add(TASKS)
    if LEVEL[part] >= 5:
        below.add(PACKAGE)
    return below | SIDEWAYS.get(part, set())


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else PACKAGE


def imported(module: str, source: str) -> set[str]:
    """Modules of the package that a module imports, anywhere: at its head, in functions, for types only."""
    found = set()
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # `from pendula import nets` imports the module pendula.nets, `from pendula import CoRNN` the package
            names = [name if (name := f"{base}.{alias.name}") in MODULES else base for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.split(".")[0] == PACKAGE}
    return found


@pytest.mark.parametrize("module", list(MODULES))
def test_every_module_has_a_place_in_the_house(module: str) -> None:
    assert part_of(module) in {*LEVEL, TASKS, PACKAGE}


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) in {*LEVEL, TASKS, PACKAGE}])
def test_imports_go_down_only(module: str) -> None:
    own = part_of(module)
    up = {name for name in imported(module, MODULES[module].read_text()) if part_of(name) not in {own, *allowed(own)}}
    assert up == set()


def test_parts_at_one_level_import_one_another_in_one_order_only() -> None:
    seen: set[str] = set()
    below = "search circumstances choices experiment papers"
    top = "report bench words demo tune nas published listing subjects cli"
    for part in f"{below} {top}".split():
        assert SIDEWAYS.get(part, set()) <= seen
        seen.add(part)


def test_mathematics_and_kernels_never_import_one_another() -> None:
    assert not {"ops"} & allowed("math")
    assert not {"math"} & allowed("ops")


def test_search_sees_the_specs_and_nothing_else_of_the_nets() -> None:
    seen = {
        name
        for module in MODULES
        if part_of(module) == "search"
        for name in imported(module, MODULES[module].read_text())
    }
    assert {name for name in seen if part_of(name) == "nets"} <= {"pendula.nets.spec"}


@pytest.mark.parametrize(
    "source",
    [
        "import pendula.nets.scan",
        "from pendula.nets import scan",
        "from pendula import nets",
        "from pendula.nets.scan import run",
        "def f():\n    from pendula.nets import scan",
        "if TYPE_CHECKING:\n    from pendula.nets.scan import run",
        "from ..nets import scan",
        "from .. import nets",
    ],
)
def test_an_import_upwards_is_found_however_it_is_written(source: str) -> None:
    assert {part_of(name) for name in imported("pendula.cells.cornn", source)} == {"nets"}


HEAVY = [
    "botorch",
    "networkx",
    "lightning",
    "lightning_fabric",
    "optuna",
    "rich",
    "jsonargparse",
    "pooch",
    "sklearn",
    "matplotlib",
    "pyarrow",
    "pandas",
    "scipy",
]


def test_the_library_loads_nothing_that_only_the_command_line_needs() -> None:
    code = f"import sys, pendula; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_there() -> None:
    assert [name for name in pendula.__all__ if not hasattr(pendula, name)] == []


def test_every_network_has_its_layer_among_the_public_names() -> None:
    assert set(pendula.LAYERS) == set(pendula.CELLS)
    assert set(pendula.LAYERS) <= set(pendula.__all__)
