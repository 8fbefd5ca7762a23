"""`pendula search ACTION`: which options belong to which action, and what each of them calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from pendula._check import one_of, seconds_of

ACTIONS: dict[str, tuple[str, ...]] = {
    "run": ("storage", "trials", "budget", "workers"),
    "report": ("best", "study"),
    "show": ("seed",),
}
"""Action -> its options, beside --out."""


def search(action: str, what: str, *, console: Console, out: str | None = None, **options: Any) -> None:
    """Do an action of `pendula search`.

    Args:
        action: of `ACTIONS`.
        what: a TOML file; for "report" a folder or a storage.
        console: where to say how it goes.
        out: see the functions that are called.
        options: those of all actions; None where they are not given.

    Errors: ValueError for options of another action, and as the functions.
    """
    own = ACTIONS[one_of("action", action, ACTIONS)]
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in own:
            other = next(other for other, names in ACTIONS.items() if name in names)
            raise ValueError(f"--{name} is for `pendula search {other}`: leave it out")
    if action == "run":
        from pendula.nas.running import search as run

        if "budget" in given:
            given["budget"] = seconds_of("--budget", given["budget"])
        run(Path(what), console=console, out=out, **given)
    elif action == "report":
        from pendula.nas.report import report

        report(what, console=console, out=out, **given)
    else:
        from pendula.nas.show import show

        if out is None:
            raise ValueError("search show needs --out: a new .svg or .png file")
        console.print(f"- {show(Path(what), Path(out), **given)}", soft_wrap=True, markup=False, highlight=False)
