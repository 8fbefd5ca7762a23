"""`pendula bench --device cuda` without a GPU: its cases, that nothing is timed before it is equal, its tables.

A processor stands in for the GPU (`contestants.place`), and its clock for events of the GPU.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from pendula.bench import CASES, GPU_CASES, Case, contestants, gpu, measure, newton, process, run, show, timing
from pendula.bench.cases import (
    BACKWARD,
    COMPILED,
    CPU,
    EAGER,
    FORWARD,
    GPU,
    GRU,
    LSTM,
    NEWTON,
    SWEEP,
    TRAINING,
)
from pendula.bench.contestants import OURS, Contestant, Problem, build
from pendula.bench.equality import LOOSE, SINGLE, tolerance
from pendula.bench.gpu_cases import NAMES_ON, least_bytes
from pendula.cells import CoRNNCell
from pendula.cli import main
from pendula.ops import native
from pendula.ops.gpu import device

needs_scans = pytest.mark.skipif(
    isinstance(native.load(), str), reason="there are no compiled scans that stand in for those of a GPU"
)
TINY = Case("tiny", "CoRNN", steps=70, batch=3, inputs=2, units=5, rivals=(EAGER, LSTM, GRU), device=GPU)


class Tick:
    """A clock on which a call takes the seconds of its turn, and the copy a GPU's."""

    bandwidth = 4e12

    def __init__(self, place: torch.device) -> None:
        assert place.type == "cpu"

    def __call__(self, call: Callable[[], Any], count: int) -> tuple[float, float]:
        assert count == 1
        call()
        return 0.001, 0.002


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor, and a clock of its own."""
    monkeypatch.setattr(contestants, "place", lambda case: torch.device("cpu"))
    monkeypatch.setattr(gpu, "Clock", Tick)
    # what is compiled is PyTorch's affair
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


@pytest.fixture
def a_gpu(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """As if there were one, and every case measured in this process; what it was told stands in the list."""
    seen: list[dict[str, Any]] = []

    def ask(job: str, cases: list[Case], *, limit: float | None = None, **options: Any) -> list[dict[str, Any]]:
        seen.append({"job": job, "limit": limit, **options})
        return [json.loads(json.dumps(measure.measure(case, **options))) for case in cases]

    facts = {"name": "a GPU", "cuda": "13.0", "cudnn": 91002, "cudnn_allows_tf32": True}
    monkeypatch.setattr(gpu, "missing", lambda: "")
    monkeypatch.setattr(gpu, "about", lambda: facts)
    monkeypatch.setattr(process, "ask", ask)
    return seen


@pytest.mark.parametrize("name", GPU_CASES)
def test_the_layer_of_every_case_builds_and_its_goals_name_what_is_measured(name: str) -> None:
    case = GPU_CASES[name]
    layer = build(case)
    assert (case.name, case.device) == (name, GPU)
    assert (layer.input_size, layer.hidden_size, layer.output_size) == (case.inputs, case.units, case.units)
    assert set(case.rivals) <= measure.RIVALS.keys()
    assert (case.passes, case.layers, case.threads) == ((FORWARD, TRAINING), 1, 1)
    assert set(case.targets) <= {FORWARD, BACKWARD}
    assert all(set(goals) <= set(case.rivals) and where in case.passes for where, goals in case.goals.items())
    assert case.autocast in (None, "float16")
    assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case
    quick = case.quick()
    assert (quick.device, quick.targets, quick.goals) == (GPU, {}, {})


def test_the_targets_are_those_that_were_asked_for() -> None:
    worms, first = GPU_CASES["unicornn-worms"], GPU_CASES["unicornn-psmnist"]
    assert {w: round(us * worms.steps) for w, us in worms.targets.items()} == {FORWARD: 750, BACKWARD: 650}
    assert {w: round(us * first.steps) for w, us in first.targets.items()} == {FORWARD: 65, BACKWARD: 110}
    assert GPU_CASES["cornn-128"].targets == {FORWARD: 0.35, BACKWARD: 0.35}
    assert GPU_CASES["cornn-128"].goal(TRAINING, LSTM) == 2
    assert GPU_CASES["cornn-256"].targets == {FORWARD: 0.6, BACKWARD: 0.6}


def test_names_of_the_two_devices_never_meet() -> None:
    assert not set(NAMES_ON[CPU]) & set(NAMES_ON[GPU])
    assert NAMES_ON[CPU] == (*CASES, SWEEP)


def test_half_precision_and_long_sequences_are_allowed_more() -> None:
    assert tolerance(TINY) == SINGLE
    assert tolerance(replace(TINY, autocast="float16")) == tolerance(replace(TINY, steps=1001)) == LOOSE


@needs_scans
@pytest.mark.parametrize("name", GPU_CASES)
def test_every_case_runs_at_tiny_sizes(name: str, stand_in: None) -> None:
    case = GPU_CASES[name].quick()
    if case.autocast:
        # some processors have no LSTM in float16
        case = replace(case, rivals=(EAGER,))
    found = measure.measure(case, repetitions=2, compiles=True)
    assert json.loads(json.dumps(found))["absent"] == {}
    compiled = [COMPILED] if case.compiles else []
    for where in (FORWARD, TRAINING):
        rows = found["passes"][where]["contestants"]
        assert [row["name"] for row in rows] == [OURS, *case.rivals, *compiled]
        assert all(row["gpu_ms"] == 1.0 and row["wall_ms"] == 2.0 and row["repetitions"] == 2 for row in rows)
        assert [row.get("ratio") for row in rows] == [None, *[1.0] * (len(rows) - 1)]
    assert found["equality"]["float32"].keys() == {
        *(OURS, *compiled),
        *({NEWTON} & set(case.rivals)),
        # its products are rounded, and the reference's are not
        *({EAGER} if case.autocast else ()),
    }
    assert "the gradient of initial state 0" in found["equality"]["float64"][OURS]
    assert len(list(show.case_tables(found))) == 4


@needs_scans
def test_newtons_method_on_thousands_of_steps_says_how_it_went(stand_in: None) -> None:
    case = replace(GPU_CASES["unicornn-worms"], steps=1001, batch=2, inputs=1, units=8)
    found = measure.measure(case, repetitions=1)
    (row,) = [r for r in found["passes"][FORWARD]["contestants"] if r["name"] == NEWTON]
    assert (row["steps"], row["fallback"]) == (1001, None)
    assert 4 <= row["iterations"] < 100
    assert show._verdict(row, 1.0) == f"1.00x; {row['iterations']} iterations"


@needs_scans
@pytest.mark.filterwarnings("ignore:UnICORNN runs step by step")
def test_newtons_method_that_gave_up_is_not_timed_as_such(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton, "DIFFERENCE", 0.0)
    found = measure.measure(replace(GPU_CASES["unicornn-worms"].quick(), steps=300), repetitions=1)
    assert found["absent"][NEWTON].startswith("it ran step by step: rounding grows")
    assert NEWTON not in [row["name"] for row in found["passes"][FORWARD]["contestants"]]


class Spoilt:
    """coRNN's compiled scan, with other outputs for sequences of more than so many steps."""

    name = "spoilt"
    true: Any = CoRNNCell.fused

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def objection(self, *given: Any, **named: Any) -> None:
        return None

    def __call__(self, x: torch.Tensor, *given: Any, **named: Any) -> Any:
        outputs, final = type(self).true(x, *given, **named)
        return outputs * (1 + 1e-3 * (len(x) > self.steps)), final


@needs_scans
@pytest.mark.parametrize("right_up_to", [0, 64])
def test_a_scan_with_other_numbers_is_refused_and_not_timed(
    right_up_to: int, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CoRNNCell, "fused", Spoilt(right_up_to))
    monkeypatch.setattr(measure, "interleave", lambda *_, **__: pytest.fail("it was timed"))
    found = measure.measure(TINY, repetitions=1)
    assert found["refused"].startswith("pendula differs from the reference in the outputs by 0.001 (at most 1e-04)")
    assert "passes" not in found


@needs_scans
def test_the_few_steps_are_compared_in_every_number(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.dtype, str, tuple[int, ...]]] = []
    true = contestants.everything

    def everything(problem: Problem, backend: str, physics: Any) -> Any:
        seen.append((problem.x.dtype, backend, tuple(problem.x.shape)))
        return true(problem, backend, physics)

    monkeypatch.setattr(contestants, "everything", everything)
    errors = gpu.equal_in_double(replace(TINY, batch=40, autocast=None))[OURS]
    shape = (64, 16, 2)
    assert seen == [(torch.float64, "reference", shape), (torch.float32, "fused", shape)]
    assert {"the outputs", "final state 1", "the gradient of the input", "the gradient of cells.0.W_z"} <= errors.keys()
    # float32 against float64: not the same tensors twice
    assert 0 < max(errors.values()) < SINGLE


@needs_scans
def test_rivals_with_other_numbers_or_none_are_left_out_with_a_sentence(
    stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(problem: Problem) -> Contestant:
        numbers = contestants.eager(problem).numbers
        assert numbers is not None
        return Contestant(
            NEWTON, lambda: pytest.fail("it was timed"), None, lambda: {k: 2 * v for k, v in numbers().items()}
        )

    def broken(function: Any, **_: Any) -> Any:
        def fail(*given: Any) -> Any:
            raise RuntimeError("no compiler\n  was found")

        return fail

    monkeypatch.setitem(measure.RIVALS, NEWTON, wrong)
    monkeypatch.setattr(torch, "compile", broken)
    found = measure.measure(replace(TINY, rivals=(EAGER, NEWTON), compiles=True), repetitions=1, compiles=True)
    assert found["absent"] == {
        NEWTON: "Newton's method differs from the reference in the outputs by 1 (at most 1e-04)",
        COMPILED: "torch.compile failed: no compiler was found",
    }
    assert [row["name"] for row in found["passes"][TRAINING]["contestants"]] == [OURS, EAGER]


def test_numbers_are_the_same_in_double_and_rounded_to_nothing_less() -> None:
    problem = Problem.draw(replace(TINY, device=CPU, autocast="bfloat16"))
    exact = problem.exactly(torch.float64)
    assert exact.x.dtype == exact.layer("reference").cell(0).V.dtype == torch.float64
    assert torch.equal(exact.x.float(), problem.x)
    assert exact.case.autocast is None
    a, b = torch.ones(2, 2), torch.ones(2, 2)
    assert problem.narrowed(lambda: a @ b)().dtype == torch.bfloat16
    assert exact.narrowed(lambda: a @ b)().dtype == torch.float32


class Events:
    """What `torch.cuda` is asked for by a `Clock`, on a clock of which the copy takes 1 ms and a call what it says."""

    def __init__(self) -> None:
        self.now, self.done = 0.0, ""

    def Event(self, enable_timing: bool) -> Any:
        def record() -> None:
            event.at = self.now
            self.done += "|"

        def elapsed_time(other: Any) -> float:
            return 1e3 * (other.at - event.at)

        event = SimpleNamespace(record=record, synchronize=lambda: None, elapsed_time=elapsed_time, at=0.0)
        return event

    def synchronize(self) -> None:
        self.done += "."

    def advance(self, seconds: float, what: str) -> None:
        self.now += seconds
        self.done += what


@pytest.mark.parametrize(("launch", "copies"), [(0.0014, 4), (0.0051, 0)])
def test_events_stand_around_the_call_behind_copies_that_outlast_its_launch(
    launch: float, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events()
    monkeypatch.setattr(gpu, "cuda", events)
    monkeypatch.setattr(gpu, "COPIED", 8)
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: events.now))
    monkeypatch.setattr(gpu.Clock, "_copy", lambda self: events.advance(0.001, "c"))
    clock = gpu.Clock(torch.device("cpu"))
    assert clock.copy == pytest.approx(0.001)
    assert clock.bandwidth == pytest.approx(2 * 4 * 8 / 0.001)
    events.done = ""
    own, wall = clock(lambda: events.advance(launch, "x"), 1)
    assert events.done == f".x.{'c' * copies}|x|"
    assert (own, wall) == (pytest.approx(launch), pytest.approx(launch))


def test_rounds_end_with_the_time_but_not_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, Callable[[], Any]] = {"a": lambda: None, "b": lambda: None}
    times = {"timer": lambda call, count: (1.0, 3.0), "seconds": 0}
    found = timing.interleave(calls, 4, until=0.0, **times)
    assert [len(found[name].clock) for name in calls] == [1, 1]
    assert len(timing.interleave(calls, 4, **times)["a"].clock) == timing.FEW == 3
    assert len(timing.interleave(calls, 4, slow=5.0, **times)["a"].clock) == 4


def rows(forward: float, training: float) -> dict[str, Any]:
    times = {FORWARD: forward, TRAINING: training}
    return {where: {"contestants": [{"name": OURS, "gpu_ms": ms}]} for where, ms in times.items()}


def test_times_per_step_and_shares_of_memory_are_counted_by_hand() -> None:
    case = replace(TINY, steps=100, batch=8, inputs=3, units=7, targets={FORWARD: 0.5, BACKWARD: 0.75})
    assert least_bytes(case) == 4 * 100 * 8 * 10
    # 32 kB in 50 us are 640 MB/s: a fifth of 3.2 GB/s
    found = gpu.per_step(case, rows(0.05, 0.15), 3.2e9)
    assert found["us"] == pytest.approx({FORWARD: 0.5, TRAINING: 1.5, BACKWARD: 1.0})
    assert found["of_memory"] == pytest.approx(0.2)
    assert show.step_line(found) == (
        "per step: forward 0.500 us (goal 0.500 us), backward 1.000 us (goal 0.750 us); at the 3 GB/s of a copy, input "
        "and output of the forward pass alone would take 20 % of its time"
    )


def cells(table: Any) -> list[list[str]]:
    return [list(column.cells) for column in table.columns]


def test_the_summary_has_a_row_for_each_case() -> None:
    case = replace(TINY, steps=100)
    passes = rows(0.05, 0.15)
    passes[TRAINING]["contestants"] += [
        {"name": EAGER, "gpu_ms": 3.0, "ratio": 20.0},
        {"name": LSTM, "gpu_ms": 0.375, "ratio": 2.5},
    ]
    found = {
        "case": case.to_dict(),
        "passes": passes,
        "per_step": gpu.per_step(case, passes, 3.2e9),
        "equality": {"float64": {OURS: {"y": 1e-6, "z": 2e-6}}, "float32": {}},
    }
    refused = {"case": replace(case, name="other").to_dict(), "refused": "it was not equal"}
    table = show.summary([found, refused])
    heads = ["case", "us per step", "with backward", LSTM, GRU, EAGER, COMPILED, "of memory", "error"]
    assert [column.header for column in table.columns] == heads
    first, second = zip(*cells(table), strict=True)
    assert first == ("tiny", "0.500", "1.500", "2.50x", "-", "20.00x", "-", "5%", "2.0e-06")
    assert second == ("other", "not timed", *[""] * 7)


@needs_scans
def test_a_run_writes_the_gpu_its_settings_and_every_case(
    a_gpu: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "--device", "cuda", "--quick", "--case", "cornn-128", "linoss-64", "--out", str(tmp_path)]
    assert main(words) == 0
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("gpu-")
    found = json.loads(path.read_text())
    assert (found["device"], found["gpu"]["name"], found["quick"]) == (GPU, "a GPU", True)
    assert found["rivals"]["torch"]
    assert [case["case"]["name"] for case in found["cases"]] == ["cornn-128", "linoss-64"]
    assert found["cases"][0]["per_step"]["us"][FORWARD] == pytest.approx(1000 / 18)
    said = capsys.readouterr().out
    assert "a GPU, CUDA 13.0, cuDNN 91002, whose products of float32 may be TF32" in said
    assert "cornn-128: CoRNN T=18 B=3 d=1 N=8, GPU" in said
    # the title of a table is as wide as the table
    assert "share of memory's speed" in " ".join(said.split())
    assert [seen["limit"] for seen in a_gpu] == [run.HANGS] * 2


@needs_scans
def test_the_file_is_whole_after_each_case(
    a_gpu: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, seen = process.ask, []

    def ask(job: str, cases: list[Case], **options: Any) -> Any:
        seen.append([len(json.loads(path.read_text())["cases"]) for path in tmp_path.iterdir()])
        return true(job, cases, **options)

    monkeypatch.setattr(process, "ask", ask)
    assert main(["bench", "--device", "cuda", "--quick", "--case", "cornn-64", "lem-128", "--out", str(tmp_path)]) == 0
    assert seen == [[], [1]]


@needs_scans
def test_what_the_time_does_not_allow_is_left_out_and_no_error(
    a_gpu: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # begins at 0; the first case has 100 s left, the second none
    clock = iter([0.0, 20.0, 130.0])
    monkeypatch.setattr(
        run, "time", SimpleNamespace(monotonic=lambda: next(clock), strftime=lambda *_: "gpu", gmtime=int)
    )
    words = ["bench", "--device", "cuda", "--quick", "--compile", "--budget", "2m", "--out", str(tmp_path)]
    assert main([*words, "--case", "cornn-128", "cornn-64"]) == 0
    first, second = json.loads((tmp_path / "gpu.json").read_text())["cases"]
    assert first["absent"] == {COMPILED: "left out: less than 120 seconds were left"}
    assert second["left_out"] == "the time was over"
    assert "passes" not in second
    assert "left out: the time was over" in capsys.readouterr().out
    assert [(seen["left"], seen["limit"], seen["compiles"]) for seen in a_gpu] == [(100.0, 220.0, False)]


def test_a_case_that_hangs_is_ended_and_refused() -> None:
    (found,) = process.ask("time", [TINY], limit=0.05)
    assert found["refused"] == "its process was ended after 0 s, without an answer"
    assert found["case"] == TINY.to_dict()


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)


def test_without_a_gpu_it_says_what_is_missing_before_any_work(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "ask", lambda *_, **__: pytest.fail("it began"))
    assert main(["bench", "--device", "cuda", "--out", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert "pendula: nothing can be timed on a GPU here: PyTorch" in said
    assert (
        "is built without CUDA: install one that has it (https://pytorch.org); device 'cpu' times the processor" in said
    )
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("available", "triton", "old", "said"),
    [
        (False, "", "", "there is no GPU that PyTorch"),
        (True, "pip install 'pendula[triton]'", "", "pip install 'pendula[triton]'"),
        (True, "", "has compute capability 7.0", "has compute capability 7.0"),
        (True, "", "", ""),
    ],
)
def test_each_thing_that_a_gpu_needs_is_named(
    available: bool, triton: str, old: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu, "cuda", SimpleNamespace(is_available=lambda: available))
    monkeypatch.setattr(device, "missing", lambda: triton)
    monkeypatch.setattr(device, "too_old", lambda index: old)
    assert gpu.missing().startswith(said)
    assert bool(gpu.missing()) == bool(said)


def test_what_is_told_of_a_gpu_fits_into_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="a GPU", major=9, minor=0, total_memory=80 << 30)
    monkeypatch.setattr(gpu, "cuda", SimpleNamespace(get_device_properties=lambda index: properties))
    found = json.loads(json.dumps(gpu.about()))
    assert (found["name"], found["compute_capability"], found["memory_bytes"]) == ("a GPU", "9.0", 80 << 30)
    assert found["cudnn_allows_tf32"] is torch.backends.cudnn.allow_tf32


def test_auto_is_the_processor_where_there_is_no_gpu_and_says_why(
    no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES["cornn-har"]
    answer = {"case": case.to_dict(), "title": case.title(), "left_out": "not here"}
    monkeypatch.setattr(process, "ask", lambda *_, **__: [answer])
    assert main(["bench", "--device", "auto", "--case", "cornn-har", "--out", str(tmp_path)]) == 0
    assert "- on the processor: PyTorch" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("bench-")
    assert json.loads(path.read_text())["device"] == CPU


@needs_scans
def test_auto_is_the_gpu_where_there_is_one(a_gpu: list[dict[str, Any]], tmp_path: Path) -> None:
    assert main(["bench", "--device", "auto", "--quick", "--case", "cornn-64", "--out", str(tmp_path)]) == 0
    assert next(tmp_path.iterdir()).name.startswith("gpu-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--case", "cornn-128"], "case 'cornn-128' is timed on device 'cuda', not on 'cpu': give that device"),
        (["--device", "cuda", "--case", "cornn-har"], "case 'cornn-har' is timed on device 'cpu', not on 'cuda'"),
        (["--device", "cuda", "--case", "cornn-129"], "case must be one of unicornn-psmnist"),
        (["--device", "gpu"], "device must be one of cpu, cuda, auto, got 'gpu'"),
        (["--device", "cuda", "--threads", "2"], "threads are those of a processor: leave threads out"),
        (["--device", "cuda", "--repetitions", "0"], "repetitions must be a whole number, at least 1, got 0"),
        (["--budget", "soon"], "--budget must be a time such as 90s"),
    ],
)
def test_wrong_words_are_explained(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "missing", lambda: "")
    assert main(["bench", *words, "--out", "nowhere"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_the_help_names_the_cases_of_both_devices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    said = "".join(capsys.readouterr().out.split())
    assert all(name in said for names in NAMES_ON.values() for name in names)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", Path(__file__).parents[1] / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_script_of_make_gpu_is_this_command(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("pendula.bench.bench", lambda folder, **given: seen.append({"folder": folder, **given}))
    for words, names, budget in ([], None, 420.0), (["cornn-64", "--seconds", "12.5"], ["cornn-64"], 12.5):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
        assert script.main() == 0
        assert seen[-1]["folder"] == script.RESULTS
        assert (seen[-1]["device"], seen[-1]["compiles"], seen[-1]["quick"]) == (GPU, True, False)
        assert (seen[-1]["names"], seen[-1]["budget"]) == (names, budget)


def test_the_script_without_a_gpu_says_so(
    script: ModuleType, no_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert script.main() == 2
    assert "nothing can be timed on a GPU here" in capsys.readouterr().err
