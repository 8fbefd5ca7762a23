"""The study of docs/nago.md (benchmarks/nago.py): what it compares is comparable, and it writes what it did."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from pendula.choices import ModelChoice
from pendula.nas.networks import build_task, draw
from pendula.nas.space import GeneratorSpace
from pendula.nets import Model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def nago() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nago_study", ROOT / "benchmarks" / "nago.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["digits", "har6"])
def test_the_network_made_by_hand_has_as_many_parameters_as_the_others_may_have(
    nago: ModuleType, name: str, shared_data: Callable[[str], Path]
) -> None:
    if name == "har6":
        shared_data("uci_har/uci_har.npz")
    problem = nago.PROBLEMS[name]
    tables = nago.tables_of(problem)
    tables["search"] |= {"optimiser": "random"}
    space = GeneratorSpace.from_dict(name, tables)
    task = build_task(space)
    hand = Model(ModelChoice(**problem.hand).spec(task)).parameter_count
    assert hand == space.limit
    for generator in filter(None, (problem.wiring, problem.plain)):
        tables["search"] |= {"generator": generator}
        fixed = GeneratorSpace.from_dict(name, tables)
        assert 0.9 * hand < draw(fixed, fixed.lowest(), 0, task).parameters <= hand


def test_every_arm_spends_its_epochs_and_tests_once(
    nago: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "examples" / "search" / "digits.toml").read_text()
    assert "epochs = 12" in text
    short = tmp_path / "short.toml"
    short.write_text(text.replace("epochs = 12", "epochs = 1"))
    problem = replace(nago.PROBLEMS["digits"], space=str(short), epochs=2, search={"limit": 11_284, "least_epochs": 1})
    monkeypatch.setattr(nago, "PROBLEMS", {"digits": problem})
    monkeypatch.setattr(nago, "SAMPLED", 2)
    arms = ["bohb", "wiring", "hand"]
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    words = ["nago.py", "digits", *folders, "--repetitions", "1", "--arms", *arms]
    monkeypatch.setattr(sys, "argv", words)
    nago.main()
    for arm in arms:
        told = json.loads((tmp_path / "out" / "digits" / f"{arm}-1.json").read_text())
        assert told["epochs"] == 2 == sum(network["epochs"] for network in told["networks"])
        assert told["validation"] == max(n["value"] for n in told["networks"] if n["value"] is not None)
        assert len(told.get("samples", ())) == (2 if arm == "bohb" else 0)
        assert 0 <= told["test"] <= 1
        results = list((tmp_path / "work" / "digits" / f"{arm}-1").rglob("result.json"))
        tested = [path.parent.name for path in results if json.loads(path.read_text())["test"]]
        assert tested == ["final"]
