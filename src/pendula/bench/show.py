"""What a person sees of a benchmark: tables and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from pendula.bench.cases import BACKWARD, COMPILED, EAGER, FORWARD, GPU, GRU, LSTM, MEMORY, TRAINING
from pendula.bench.contestants import OURS
from pendula.report import COLOURS, simple_table


def machine_line(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in results["rivals"].items())
    if results["device"] == GPU:
        gpu = results["gpu"]
        tf32 = "may" if gpu["cudnn_allows_tf32"] else "may not"
        where = f"{gpu['name']}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}, whose products of float32 {tf32} be TF32"
    else:
        where = f"{machine['processor']}, {machine['cores']} cores, {results['instruction_set'] or 'no compiled scans'}"
    return f"- {where}; {versions}; commit {results['commit'] or 'of an installed package'}"


def case_tables(found: dict[str, Any]) -> Iterator[Table | str]:
    """A table for each pass of a case, and what there is to say beside it."""
    if "refused" in found:
        yield f"{found['title']}\n  refused, nothing was timed: {found['refused']}\n"
        return
    if "left_out" in found:
        yield f"{found['title']}\n  left out: {found['left_out']}\n"
        return
    own = "gpu" if found["case"]["device"] == GPU else "cpu"
    head = ("", f"ms {own.upper()}", "ms clock", "pendula is faster by")
    for where, facts in found["passes"].items():
        share = facts["floor"]["fraction"] if "floor" in facts else 1.0
        rows = [(r["name"], _ms(r[f"{own}_ms"]), _ms(r["wall_ms"]), _verdict(r, share)) for r in facts["contestants"]]
        rows += [(name, "", "", why) for name, why in found["absent"].items()]
        yield simple_table(f"{found['title']}: {where}", head, rows)
        if "floor" in facts:
            yield f"  {floor_line(facts['floor'])}"
    for row in found.get(MEMORY, ()):
        yield f"  {memory_line(row)}"
    if "per_step" in found:
        yield f"  {step_line(found['per_step'])}"
    worst = {kind: max(max(e.values()) for e in errors.values()) for kind, errors in found["equality"].items()}
    yield f"  equal to the reference within {worst['float64']:.1e} in float64 and {worst['float32']:.1e} in float32\n"


def step_line(per_step: dict[str, Any]) -> str:
    """This library on a GPU, beside what the project wants and what the memory could do."""
    taken = (
        f"{where} {per_step['us'][where]:.3f} us"
        + (f" (goal {per_step['targets'][where]:.3f} us)" if where in per_step["targets"] else "")
        for where in (FORWARD, BACKWARD)
    )
    share, speed = per_step["of_memory"], per_step["copy_gb_per_second"]
    return (
        f"per step: {', '.join(taken)}; at the {speed:.0f} GB/s of a copy, input and output of the forward pass alone "
        f"would take {100 * share:.0f} % of its time"
    )


def summary(cases: Sequence[dict[str, Any]]) -> Table:
    """A row for each case of a GPU: this library's time per step, and how many times longer others train."""
    rivals = (LSTM, GRU, EAGER, COMPILED)
    rows: list[tuple[str, ...]] = []
    for found in cases:
        name = found["case"]["name"]
        if "passes" not in found:
            rows.append((name, "not timed", *[""] * (len(rivals) + 3)))
            continue
        taken, times = found["per_step"]["us"], found["passes"][TRAINING]["contestants"]
        ratios = {row["name"]: f"{row['ratio']:.2f}x" for row in times if "ratio" in row}
        error = max(max(errors.values()) for errors in found["equality"]["float64"].values())
        own = (f"{taken[FORWARD]:.3f}", f"{taken[TRAINING]:.3f}")
        beside = (ratios.get(rival, "-") for rival in rivals)
        rows.append((name, *own, *beside, f"{found['per_step']['of_memory']:.0%}", f"{error:.1e}"))
    head = ("case", "us per step", "with backward", *rivals, "of memory", "error")
    return simple_table(f"us per step, {TRAINING} of others in times of ours, share of memory's speed", head, rows)


def floor_line(floor: dict[str, Any]) -> str:
    rate, bandwidth = floor["sgemm_gflops_per_cpu_second"], floor["copy_gb_per_cpu_second"]
    alone = "the products alone, at sgemm's rate," if floor["bound_by"] == "products" else "the least traffic of memory"
    return (
        f"{alone} would take {100 * floor['fraction']:.0f} % of pendula's time{_goal(floor, '')}; "
        f"one core of this machine does {rate:.0f} GFlop/s in sgemm and copies {bandwidth:.1f} GB/s"
    )


def memory_line(row: dict[str, Any]) -> str:
    said = f"peak memory of forward + backward, {row['name']}: "
    if "bytes" not in row:
        return said + (row.get("absent") or row.get("refused") or "not measured")
    said += f"{row['bytes'] / 1e6:.0f} MB"
    return said + (f", {row['fraction']:.2f} of eager's{_goal(row, '')}" if "fraction" in row else "")


def _verdict(row: dict[str, Any], share: float) -> str:
    """`share`: of pendula's time that the floor would take; a goal that even the floor would miss is called so.

    Above 1 it is no floor: the scan multiplies faster than sgemm.
    """
    if "speedup" in row:
        return f"two threads: {row['speedup']:.2f}x one{_goal(row, 'x')}"
    if "ratio" not in row:
        return ""
    most = row["ratio"] / share
    beyond = row.get("goal") is not None and share <= 1 and most < row["goal"]
    said = f"{row['ratio']:.2f}x{_goal(row, 'x')}" + (f"; the floor itself: {most:.2f}x" if beyond else "")
    return said + (f"; {row['iterations']} iterations" if "iterations" in row else "")


def _goal(row: dict[str, Any], unit: str) -> str:
    return "" if row.get("goal") is None else f" (goal {row['goal']:g}{unit})"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}"


def sweep_tables(points: Sequence[dict[str, Any]]) -> Iterator[Table | str]:
    """Processor time of each point of the picture, in milliseconds; points that were refused, with the reason."""
    names = _names(points)
    rows = [
        (point["case"]["name"], *("" if (t := _time(point, name)) is None else _ms(t) for name in names))
        for point in points
        if "passes" in point
    ]
    first = points[0]["case"]
    yield simple_table(f"{first['network']}, B={first['batch']}, {TRAINING}: ms CPU", ("size", *names), rows)
    for point in points:
        if "refused" in point:
            yield f"  {point['case']['name']} refused, not timed: {point['refused']}"


def _names(points: Sequence[dict[str, Any]]) -> list[str]:
    rows = [row for point in points if "passes" in point for row in point["passes"][TRAINING]["contestants"]]
    # the library itself once, on the threads of the rest
    return list(dict.fromkeys(row["name"] for row in rows if row["name"] == OURS or "ratio" in row))


def _time(point: dict[str, Any], name: str) -> float | None:
    rows = point["passes"][TRAINING]["contestants"] if "passes" in point else []
    return next((float(row["cpu_ms"]) for row in rows if row["name"] == name), None)


def picture(points: Sequence[dict[str, Any]], path: Path) -> Path:
    """Time against T and against N, a line per contestant; png, svg or pdf by the ending of the path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for panel, axis, held, words in (
        (panels[0], "steps", "units", "T, time steps (N = {})"),
        (panels[1], "units", "steps", "N, units (T = {})"),
    ):
        timed = [point for point in points if "passes" in point]
        # one point is in both lines
        usual = max({p["case"][held] for p in timed}, key=lambda size: sum(p["case"][held] == size for p in timed))
        line = sorted((p for p in timed if p["case"][held] == usual), key=lambda p: p["case"][axis])
        for k, name in enumerate(_names(points)):
            there = [(p["case"][axis], t) for p in line if (t := _time(p, name)) is not None]
            panel.plot(*zip(*there, strict=True), color=COLOURS[k], marker="o", markersize=3, label=name)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel(words.format(usual))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"ms of processor time, {TRAINING}")
    panels[0].legend()
    first = points[0]["case"]
    words = f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
    figure.suptitle(f"{first['network']}, B = {first['batch']}, {words}, float32")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path
