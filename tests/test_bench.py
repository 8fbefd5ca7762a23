"""`pendula bench`: nothing is timed before it is equal, nobody is left out silently, no file is replaced."""

from __future__ import annotations

import gc
import importlib
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pendula.bench import CASES, Case, contestants, lax, measure, process, run, show, steps, timing
from pendula.bench.cases import (
    EAGER,
    FLOOR,
    FORWARD,
    JAX,
    MEMORY,
    RIVALS,
    STEP,
    THREADS,
    TORCHRECURRENT,
    TRAINING,
    work,
)
from pendula.bench.contestants import OURS, Absent, Contestant, Problem
from pendula.bench.equality import SINGLE, Unequal, require_equal
from pendula.cells import CoRNNCell
from pendula.cli import main
from pendula.ops import native

pytestmark = pytest.mark.skipif(isinstance(native.load(), str), reason=f"{native.load()}")

TINY = Case("tiny", "CoRNN", steps=6, batch=3, inputs=2, units=5, rivals=(EAGER,))
TINY_UNICORNN = Case(
    "tiny", "UnICORNN", 20, 3, 2, 5, layers=2, rivals=(EAGER,), physics={"dt": [0.1, 0.4], "alpha": 0.5}
)


@pytest.fixture(autouse=True)
def _a_small_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SQUARE", 16)
    monkeypatch.setattr(measure, "COPIED", 64)


class Spoilt:
    """The compiled scan with its outputs, or only their gradients, changed."""

    name = "spoilt"

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self.change = change

    def objection(self, *given: Any, **named: Any) -> None:
        return None

    def __call__(self, *given: Any, **named: Any) -> Any:
        fused = type(self).true
        outputs, final = fused(*given, **named)
        return self.change(outputs), final

    true: Any = CoRNNCell.fused


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda y: y * (1 + 1e-9), "the outputs"),
        (lambda y: y + 1e-6 * (y - y.detach()), "the gradient of"),
        (lambda y: y * float("nan"), "the outputs"),
    ],
)
def test_a_scan_with_other_numbers_is_refused_and_not_timed(
    change: Callable[[Tensor], Tensor], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CoRNNCell, "fused", Spoilt(change))
    monkeypatch.setattr(measure, "interleave", lambda *_, **__: pytest.fail("it was timed"))
    found = measure.measure(TINY, repetitions=1)
    assert found["refused"].startswith(f"pendula differs from the reference in {where}")
    assert "passes" not in found
    assert "refused, nothing was timed: pendula differs" in " ".join(map(str, show.case_tables(found)))


def test_a_stream_with_other_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    true = steps.ours

    def spoilt(problem: Problem) -> Contestant:
        numbers = true(problem).numbers
        assert numbers is not None
        return Contestant(OURS, true(problem).forward, numbers=lambda: {n: v + 1 for n, v in numbers().items()})

    monkeypatch.setattr(steps, "ours", spoilt)
    assert "differs from the reference in y" in measure.measure(CASES["cornn-stream"].quick(), repetitions=1)["refused"]


def test_a_missing_library_refuses_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "missing", lambda: "the compiled scans are not there")
    assert "the compiled scans are not there" in measure.measure(TINY, repetitions=1)["refused"]


def test_a_rival_with_other_numbers_is_left_out_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(problem: Problem) -> Contestant:
        numbers = contestants.eager(problem).numbers
        assert numbers is not None
        return Contestant(
            JAX, lambda: pytest.fail("it was timed"), None, lambda: {k: 2 * v for k, v in numbers().items()}
        )

    monkeypatch.setitem(measure.RIVALS, JAX, wrong)
    found = measure.measure(replace(TINY, rivals=(EAGER, JAX)), repetitions=1, seconds=0)
    assert found["absent"][JAX].startswith(f"{JAX} differs from the reference in the outputs by 1 (at most")
    assert [row["name"] for row in found["passes"][FORWARD]["contestants"]] == [OURS, EAGER]


def test_rivals_that_are_not_installed_are_rows_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for case in (replace(TINY, rivals=RIVALS), CASES["cornn-stream"].quick()):
        found = measure.measure(case, repetitions=1, seconds=0)
        assert found["absent"][JAX] == "jax is not installed: pip install 'pendula[bench]'"
        assert found["absent"][TORCHRECURRENT] == "torchrecurrent is not installed: pip install 'pendula[bench]'"
        table = next(iter(show.case_tables(found)))
        assert not isinstance(table, str)
        assert list(table.columns[0].cells)[-2:] == [TORCHRECURRENT, JAX]
        assert list(table.columns[3].cells)[-1] == found["absent"][JAX]


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_at_tiny_sizes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lax, "modules", lambda: (_ for _ in ()).throw(Absent("left out here")))
    found = measure.measure(CASES[name].quick(), repetitions=2, seconds=0)
    json.dumps(found)
    for where in CASES[name].passes:
        rows = found["passes"][where]["contestants"]
        assert {OURS, EAGER} <= {row["name"] for row in rows}
        assert all(row["cpu_ms"] >= 0 and row["repetitions"] == 2 for row in rows)
        assert ("floor" in found["passes"][where]) == (where != STEP)
    assert list(show.case_tables(found))


def test_goals_name_passes_and_rivals_that_take_part() -> None:
    for case in CASES.values():
        for where, goals in case.goals.items():
            assert where in (*case.passes, MEMORY)
            assert set(goals) <= {*case.rivals, THREADS, FLOOR}
        assert (MEMORY in case.goals) == case.memory
        assert not case.quick().goals
        assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case


@pytest.mark.parametrize("case", [TINY, TINY_UNICORNN], ids=["CoRNN", "UnICORNN"])
@pytest.mark.parametrize("package", ["jax", "torchrecurrent", "torch.compile"])
def test_rivals_have_the_same_outputs_and_gradients(case: Case, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.draw(case)
    if package == "torch.compile":
        # what is compiled is PyTorch's affair; how it is cut into chunks is ours
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
        rival = contestants.compiled(replace(problem))
    else:
        pytest.importorskip(package)
        rival = lax.scanned(problem) if package == "jax" else contestants.torchrecurrent(problem)
    expected = contestants.eager(problem).numbers
    assert rival.numbers is not None
    assert expected is not None
    assert len(expected()) == 1 + 4 * case.layers
    require_equal(package, rival.numbers(), expected(), 1e-5)


def test_a_step_of_jax_is_a_step_of_the_cell() -> None:
    pytest.importorskip("jax")
    problem = Problem.draw(CASES["cornn-stream"].quick())
    numbers = lax.stepped(problem).numbers, steps.eager(problem).numbers
    assert numbers[0] is not None
    assert numbers[1] is not None
    require_equal("jax", numbers[0](), numbers[1](), SINGLE)


def test_errors_are_relative_and_names_must_agree() -> None:
    found = require_equal("it", {"y": torch.tensor([0.0, 2.0])}, {"y": torch.tensor([0.0, 2.5])}, 0.2)
    assert found == {"y": pytest.approx(0.2)}
    with pytest.raises(Unequal, match=r"it gives a, b instead of a"):
        require_equal("it", {"a": torch.ones(1), "b": torch.ones(1)}, {"a": torch.ones(1)}, 1.0)
    with pytest.raises(Unequal, match=r"it gives a tensor \(1,\) instead of \(2,\)"):
        require_equal("it", {"a": torch.ones(1)}, {"a": torch.ones(2)}, 1.0)


def test_work_is_counted_by_hand() -> None:
    # T B = 18 rows, N = 5: W, W_z and V have 5 x 12 weights, the adjoint of the state 5 x 10
    assert work(TINY, FORWARD) == (2 * 18 * 60, 4 * (18 * (2 + 5) + 60))
    assert work(TINY, TRAINING) == (2 * 18 * (60 + 60 + 50), 4 * (18 * (2 * 2 + 3 * 5) + 60))
    # two layers with input maps 5 x 2 and 5 x 5 on 60 rows; only the second passes a gradient on
    assert work(TINY_UNICORNN, FORWARD) == (2 * 60 * 35, 4 * (60 * (2 + 5 + 5 + 5) + 35))
    assert work(TINY_UNICORNN, TRAINING) == (2 * 60 * (35 + 35 + 25), 4 * (60 * (2 * 2 + 15 + 2 * 5 + 15 + 5) + 35))


def made(*seconds: float) -> timing.Timing:
    return timing.Timing(seconds, tuple(2 * s for s in seconds), calls=1)


def test_ratios_are_of_medians() -> None:
    own, other = made(1.0, 2.0, 9.0), made(8.0, 3.0, 6.0)
    case = replace(TINY, goals={FORWARD: {EAGER: 4.0, THREADS: 1.7, FLOOR: 0.75}})
    rival = Contestant(EAGER, lambda: None)
    assert measure._compared(case, FORWARD, rival, other, own) == {"ratio": 3.0, "wall_ratio": 3.0, "goal": 4.0}
    assert measure._compared(case, FORWARD, Contestant(OURS, lambda: None), own, own) == {}
    # two threads against one: of clock time, whichever of the two the case itself uses
    two, one = (replace(rival, name=f"{OURS}, {n}", threads=n) for n in (2, 1))
    assert measure._compared(case, FORWARD, two, made(1.0), made(1.5)) == {"speedup": 1.5, "goal": 1.7}
    assert measure._compared(replace(case, threads=2), FORWARD, one, made(1.5), made(1.0))["speedup"] == 1.5


def test_a_goal_beyond_the_floor_of_the_machine_is_called_so() -> None:
    row = {"name": EAGER, "ratio": 2.6, "goal": 3.0}
    assert show._verdict(row, 0.93) == "2.60x (goal 3x); the floor itself: 2.80x"
    # faster than sgemm: what it would take is no floor
    assert show._verdict(row, 1.5) == "2.60x (goal 3x)"
    assert show._verdict(row, 0.5) == "2.60x (goal 3x)"


def test_the_floor_is_a_fraction_of_the_time_taken() -> None:
    operations, moved = work(TINY, FORWARD)
    # the products take a second at the rate of sgemm, and the memory so many at that of the copy
    sgemm = made(2 * measure.SQUARE**3 / operations)
    for seconds, bound_by, fraction in ((0.25, "products", 0.25), (2.0, "memory", 0.5)):
        copy = made(seconds * 2 * 4 * measure.COPIED / moved, 1e9)
        floor = measure.floor_fraction(TINY, FORWARD, made(4.0), sgemm, copy)
        assert floor["bound_by"] == bound_by
        assert floor["fraction"] == pytest.approx(fraction)


def test_contestants_take_turns_and_slow_ones_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    calls = {name: (lambda name=name: seen.append((name, torch.get_num_threads()))) for name in "ab"}
    with timing.conditions(1):
        found = timing.interleave(calls, 3, threads={"b": 2}, seconds=0)
    assert seen == [("a", 1), ("b", 2)] * 4
    assert found["a"].calls == 1
    monkeypatch.setattr(timing, "SLOW", -1.0)
    monkeypatch.setattr(timing, "FEW", 2)
    assert len(timing.interleave(calls, 5, seconds=0)["a"].clock) == 2
    short = timing.interleave(calls, 2, seconds=0.001)["a"]
    assert short.calls > 1
    assert len(short.clock) == 2 * timing.SHORT


def test_the_threads_of_one_contestant_sleep_before_the_next_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # a clock that each look at it moves on by a tenth of the time
    clock = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock) * timing.AWAKE / 10)
    seen: list[int] = []
    with timing.conditions(1):
        timing.interleave({name: lambda: seen.append(next(clock)) for name in "ab"}, 1, threads={"a": 2}, seconds=0)
    waits = [later - sooner for sooner, later in itertools.pairwise(seen)]
    assert len(waits) == 3
    assert min(waits) >= 10


@pytest.mark.parametrize("flush", [True, False])
def test_conditions_are_put_back_even_after_an_error(flush: bool) -> None:
    threads = torch.get_num_threads()

    def fail() -> None:
        with timing.conditions(threads + 1):
            assert torch.get_num_threads() == threads + 1
            assert timing.flushes_denormals()
            assert not gc.isenabled()
            raise KeyError

    torch.set_flush_denormal(flush)
    try:
        with pytest.raises(KeyError):
            fail()
        assert torch.get_num_threads() == threads
        assert timing.flushes_denormals() == flush
        assert gc.isenabled()
    finally:
        torch.set_flush_denormal(True)


def test_memory_is_a_fraction_of_eagers() -> None:
    case = replace(TINY, goals={MEMORY: {EAGER: 0.4}})
    rows = [{"name": OURS, "bytes": 30}, {"name": "other", "absent": "why"}, {"name": EAGER, "bytes": 120}]
    assert run.compared_memory(case, rows)[0] == {"name": OURS, "bytes": 30, "fraction": 0.25, "goal": 0.4}
    assert "fraction" not in rows[1]
    assert "fraction" not in rows[2]
    assert show.memory_line(rows[0]).endswith("0.25 of eager's (goal 0.4)")
    assert show.memory_line(rows[1]).endswith("other: why")


def test_peak_memory_holds_the_outputs_and_a_process_that_dies_is_told() -> None:
    case = Case("memory", "UnICORNN", 400, 64, 1, 128)
    (found,) = process.ask("memory", [case], who=OURS)
    outputs = 4 * case.steps * case.batch * case.units
    # pages that the process had before are not counted
    assert 0.95 * outputs <= found["bytes"] <= 10 * outputs
    (refused,) = process.ask("memory", [replace(case, network="Perceptron")], who=OURS)
    assert refused["refused"] == "its process ended with code 1: KeyError: 'Perceptron'"


def test_a_quick_run_writes_numbers_and_circumstances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--quick", "--case", "cornn-har", "--out", str(tmp_path / "bench")]) == 0
    (path,) = (tmp_path / "bench").iterdir()
    found = json.loads(path.read_text())
    assert found["versions"]["torch"] == torch.__version__
    assert found["machine"]["processor"]
    assert found["instruction_set"] in native.instruction_sets()
    assert found["data"]
    assert found["quick"]
    (case,) = found["cases"]
    assert case["case"]["name"] == "cornn-har"
    assert max(case["equality"]["float64"][OURS].values()) < 1e-12
    assert case["passes"][TRAINING]["floor"]["sgemm_gflops_per_cpu_second"] > 0
    row = next(r for r in case["passes"][TRAINING]["contestants"] if r["name"] == EAGER)
    assert row["ratio"] > 0
    assert len(row["cpu_ms_of_each"]) == row["repetitions"] == 2
    assert "these numbers mean nothing" in capsys.readouterr().out


def test_what_is_to_be_installed_is_said_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = replace(TINY, rivals=(EAGER, JAX))
    words = "pip install 'pendula[bench]'"
    monkeypatch.setattr(lax, "modules", lambda: (_ for _ in ()).throw(Absent(words)))
    found = measure.measure(case, repetitions=1, seconds=0)
    refused = {"case": case.to_dict(), "title": case.title(), "refused": words}
    answers = iter([[found], [refused]])
    monkeypatch.setattr(process, "ask", lambda *_, **__: next(answers))
    assert main(["bench", "--case", "cornn-har", "cornn-adding", "--out", str(tmp_path)]) == 2
    # in a row of each of the two passes, and in the sentence
    assert capsys.readouterr().out.count(words) == 3


def points(refused: bool = False) -> list[dict[str, Any]]:
    made = []
    for n, (steps_, units) in enumerate([(32, 64), (64, 64), (128, 64), (128, 32)]):
        case = replace(TINY, name=f"T={steps_} N={units}", steps=steps_, units=units)
        rows = [{"name": OURS, "cpu_ms": 1.0 + n}, {"name": EAGER, "cpu_ms": 4.0 * (1 + n), "ratio": 4.0}]
        made.append({"case": case.to_dict(), "title": case.title(), "passes": {TRAINING: {"contestants": rows}}})
    if refused:
        made[1] = {"case": made[1]["case"], "title": made[1]["title"], "refused": "it was not equal"}
    return made


@pytest.mark.parametrize("refused", [False, True])
def test_the_picture_is_drawn_from_the_points_that_were_timed(refused: bool, tmp_path: Path) -> None:
    path = show.picture(points(refused), tmp_path / "bench.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    said = " ".join(part for part in show.sweep_tables(points(refused)) if isinstance(part, str))
    assert ("T=64 N=64 refused, not timed: it was not equal" in said) == refused


def test_a_sweep_writes_a_picture_and_a_refused_case_is_an_error_after_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "ask", lambda *_, **__: points(refused=True))
    assert main(["bench", "--case", "sweep", "--out", str(tmp_path)]) == 2
    assert "1 of 4 cases were refused (see above): T=64 N=64" in capsys.readouterr().err
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".png"]


def test_no_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.time, "strftime", lambda *_: "bench-2026-11-21-120000")
    names = []
    for _ in range(3):
        path = run.new_file(tmp_path / "bench")
        path.write_text("{}")
        names.append(path.name)
    assert names == [f"bench-2026-11-21-120000{tail}.json" for tail in ("", "-2", "-3")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--case", "cornn-hra"], "case must be one of cornn-har"),
        (["--repetitions", "0"], "repetitions must be a whole number, at least 1, got 0"),
        (["--threads", "0"], "threads must be a whole number, at least 1, got 0"),
    ],
)
def test_wrong_words_are_explained(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words, "--out", "nowhere"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("nowhere").exists()
