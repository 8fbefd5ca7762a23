"""What a person sees: progress while training, tables and learning curves afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from pendula.learn.fit import Report
from pendula.learn.record import Progress as Place

# Okabe and Ito's colours, told apart by colour-blind readers too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@contextmanager
def progress(console: Console, name: str, epochs: int) -> Iterator[Report]:
    """A bar with loss, validation metric and time left; a line per epoch where there is no terminal."""
    if not console.is_terminal:
        seen: int | None = None

        def line(at: Place, batches: int, loss: float) -> None:
            nonlocal seen
            # the first batch of a run that goes on finds the epochs before it
            if seen is None:
                seen = len(at.history) if at.batch else 0
            if len(at.history) > seen:
                seen = len(at.history)
                console.print(f"{name}: {_epoch_line(at, epochs)}", soft_wrap=True)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        job = bar.add_task(name, total=None, said="")

        def move(at: Place, batches: int, loss: float) -> None:
            words = f"epoch {min(at.epoch + 1, epochs)}/{epochs} loss {loss:.3f}"
            if at.history:
                words += " " + _metric(at.history[-1])
            bar.update(job, total=epochs * batches, completed=at.epoch * batches + at.batch, said=words)

        yield move


def _metric(line: dict[str, Any]) -> str:
    if "validation_accuracy" in line:
        return f"val acc {line['validation_accuracy']:.3f}"
    return f"val loss {line['validation_loss']:.3g}"


def _epoch_line(at: Place, epochs: int) -> str:
    line = at.history[-1]
    return (
        f"epoch {line['epoch']}/{epochs} train loss {line['train_loss']:.4f} {_metric(line)} ({line['seconds']:.0f} s)"
    )


def result_table(result: dict[str, Any]) -> Table:
    """One run: what was trained on what, and how well it did."""
    task, model = result["experiment"]["task"], result["experiment"]["model"]
    network = f"a graph of {len(model['nodes'])} nodes" if model.get("nodes") else model["network"]
    table = Table(title=f"{network} on {task['name']}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("epochs", f"{result['epochs']}, best at {result['best_epoch']}")
    table.add_row("validation, at best", f"{result['validation']:.4f}")
    for name, value in result["test"].items():
        table.add_row(f"test {name}", f"{value:.4f}")
    table.add_row("training time", f"{result['seconds']:.1f} s")
    table.add_row("data", result["data"])
    return table


def alignment_table(measured: Sequence[dict[str, Any]]) -> Table:
    """Angles of a learning rule as `pendula.learn.dfa.Alignment` measured them: the first and the last."""
    first, last = measured[0], measured[-1]
    rows = [
        (layer, _angle(first["layers"].get(layer)), _angle(found), _shown(found["ratio"], "{:.3g}"))
        for layer, found in last["layers"].items()
    ]
    head = ("layer", f"at step {first['step']}", f"at step {last['step']}", "ratio of norms")
    return simple_table("angle to backpropagation, degrees", head, rows)


def _angle(found: dict[str, Any] | None) -> str:
    return _shown(None if found is None else found["degrees"], "{:.1f}")


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def simple_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(head):
        table.add_column(name, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*row)
    return table


def learning_curves(results: Sequence[tuple[str, str, dict[str, Any]]], path: Path) -> Path:
    """A picture of validation accuracy (or loss) by epoch: one panel per group, one line per run, one colour per label.

    Args:
        results: (group, label, result) of each run.
        path: the picture to write; png, svg or pdf by its ending.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys(group for group, _, _ in results))
    labels = list(dict.fromkeys(label for _, label, _ in results))
    figure, panels = pyplot.subplots(1, len(groups), figsize=(5 * len(groups), 3.6), sharey=True, squeeze=False)
    for panel, group in zip(panels[0], groups, strict=True):
        for k, label in enumerate(labels):
            for number, result in enumerate(r for g, l, r in results if (g, l) == (group, label)):
                lines = result["history"]
                metric = "validation_accuracy" if "validation_accuracy" in lines[0] else "validation_loss"
                panel.plot(
                    [line["epoch"] for line in lines],
                    [line[metric] for line in lines],
                    color=COLOURS[k % len(COLOURS)],
                    linewidth=1.4,
                    linestyle=("-", "--", ":")[k % 3],
                    label=label if number == 0 else None,
                )
                panel.set_ylabel(metric.replace("_", " "))
        panel.set_title(group)
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
        panel.legend(loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path
