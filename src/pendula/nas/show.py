"""`pendula search show`: the three levels of a network as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pendula._check import DataError, one_of, positive_int
from pendula.nas.networks import build_task, draw
from pendula.nas.space import GeneratorSpace, read_space
from pendula.nets.checkpoint import write_whole
from pendula.search.draw import FORMATS, picture
from pendula.search.graphs import derived_seed


def show(path: Path, out: Path, *, seed: int | None = None) -> str:
    """Draw a network to a new file, and say what it is.

    Args:
        path: a space (a TOML file), of which a point is drawn evenly and a network of it; or a network that `pendula
            search report` wrote (best-1.toml, with best-1.json beside it).
        out: the picture to write, .svg or .png.
        seed: decides the point and the network of a space; 0 when None. A network of a report has its own.

    Errors: DataError for files, ValueError for words.
    """
    kind = one_of("--out: the ending", out.suffix.removeprefix("."), FORMATS)
    if out.exists():
        raise DataError(f"{out} exists: give another name")
    beside = path.with_suffix(".json")
    if beside.is_file():
        if seed is not None:
            raise ValueError(f"{path} is one network, with a seed of its own: leave --seed out")
        name, space, point, seed = _written(beside)
    else:
        space = read_space(path)
        seed = positive_int("--seed", seed or 0, least=0)
        name, point = space.name, space.point(derived_seed(seed, "point")) or {}
    drawn = draw(space, point, seed, build_task(space))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, picture(drawn.wiring, kind=kind, title=f"{name}: {drawn.parameters} parameters"))
    values = ", ".join(f"{key} {value:.4g}" for key, value in space.values(point).items())
    return f"{len(drawn.spec.nodes)} nodes, {drawn.parameters} parameters ({values}; seed {seed})"


def _written(path: Path) -> tuple[str, GeneratorSpace, dict[str, Any], int]:
    """What a network of a report was drawn from."""
    try:
        facts = json.loads(path.read_text())
        space = GeneratorSpace.from_dict(facts["name"], facts["space"])
        return f"{facts['name']}, trial {facts['trial']}", space, dict(facts["point"]), int(facts["seed"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged, or none that `pendula search report` wrote: {error}") from error
