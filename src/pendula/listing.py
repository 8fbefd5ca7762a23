"""What `pendula list` shows: networks, tasks, papers and backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def _networks() -> tuple[Sequence[str], list[Sequence[str]]]:
    from pendula.cells import CELLS
    from pendula.nets import Model, ModelSpec
    from pendula.nets.images import IMAGE_NETWORKS

    def count(name: str) -> str:
        return f"{sum(p.numel() for p in CELLS[name](1, 128).parameters()):,}"

    def of_images(name: str) -> str:
        kind = IMAGE_NETWORKS[name]
        spec = ModelSpec(1, 10, kind.build(32, 2), pool=kind.pool, image=(28, 28))
        return f"{Model(spec, device='meta').parameter_count:,} (MNIST, hidden_size 32, num_layers 2)"

    return ("network", "equation", "parameters (1 in, 128 units)", "source"), [
        *((name, cell.equation, count(name), cell.source) for name, cell in CELLS.items()),
        *((name, kind.summary, of_images(name), kind.source) for name, kind in IMAGE_NETWORKS.items()),
    ]


def _tasks() -> tuple[Sequence[str], list[Sequence[str]]]:
    from pendula.tasks import TASKS

    return ("task", "what"), [(name, task.summary) for name, task in TASKS.items()]


def _papers() -> tuple[Sequence[str], list[Sequence[str]]]:
    from pendula.papers import read_papers

    entries = [entry for paper in read_papers().values() for entry in paper.entries]
    return ("PAPER/ID", "problem", "network", "published", "data", "to run it"), [
        (
            entry.name,
            entry.table.title.split(":")[0],
            entry.method,
            "-" if entry.published is None else entry.table.measure.write(entry.published),
            entry.table.data,
            entry.missing or entry.hardware,
        )
        for entry in entries
    ]


def _backends() -> tuple[Sequence[str], list[Sequence[str]]]:
    import torch

    from pendula.cells import CELLS
    from pendula.cells.linear import LinearCell
    from pendula.cells.linoss import OscillatorBlock
    from pendula.ops import linoss, native
    from pendula.ops.gpu import device

    sets = [] if native.missing() else native.instruction_sets()
    here = "; also built in: ".join(filter(None, (" ".join(sets[:1]), ", ".join(sets[1:])))) or "none"
    rows: list[Sequence[str]] = [
        ("(processor)", f"threads: {torch.get_num_threads()}", "OMP_NUM_THREADS sets how many"),
        ("(compiled scans)", here, native.missing()),
    ]
    if torch.cuda.is_available():
        rows.append(("(GPU)", torch.cuda.get_device_name(), device.missing() or device.too_old(0)))
    else:
        rows.append(("(GPU)", "none that torch can use", ""))

    def on_gpu(name: str) -> str:
        """Why not on this machine's GPU too; empty when it does, or when there is none."""
        scan, place = CELLS[name].fused, torch.device("cuda")
        if not torch.cuda.is_available():
            return ""
        made = CELLS[name](2, 4).to(place)
        if isinstance(made, OscillatorBlock):
            reason = linoss.objection(torch.zeros(1, 1, 4, device=place), made.A, made.initial_state(1), None)
            return f"on the GPU by the associative scan: {reason}" if reason else ""
        if scan is None:
            return ""
        reason = scan.objection(torch.zeros(1, 1, 2, device=place), made.operands(), lengths=None, tau=None)
        return f"on the GPU step by step: {reason}" if reason else ""

    for name, cell in CELLS.items():
        made = cell(2, 4)
        if isinstance(made, LinearCell):
            rows.append((name, "associative scan: all times in 2 log2(T) rounds", on_gpu(name)))
        elif made.fused is None:
            rows.append((name, "reference scan: each step from Python", "no fused scan is written yet"))
        elif reason := made.fused.objection(torch.zeros(1, 1, 2), made.operands(), lengths=None, tau=None):
            rows.append((name, "reference scan: each step from Python", f"{made.fused.name}: {reason}"))
        else:
            rows.append((name, f"fused scan {made.fused.name}: all steps in one call", on_gpu(name)))
    return ("network", "how it runs", "what would be faster, and is missing"), rows


LISTS: dict[str, Callable[[], tuple[Sequence[str], list[Sequence[str]]]]] = {
    "networks": _networks,
    "tasks": _tasks,
    "papers": _papers,
    "backends": _backends,
}
