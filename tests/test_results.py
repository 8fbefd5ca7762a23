"""The numbers in the README are the ones in results/."""

import json
from pathlib import Path
from statistics import mean, stdev

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def runs(pattern: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((ROOT / "results").glob(pattern))]


@pytest.mark.parametrize("network", ["CoRNN", "LSTM"])
@pytest.mark.parametrize(("part", "name"), [("plain", "digits in order"), ("permuted", "permuted digits")])
def test_the_readme_shows_the_measured_accuracy_of_the_demo(network: str, part: str, name: str) -> None:
    found = runs(f"digits/{part}-{network.lower()}-seed*.json")
    tests = [run["test"]["accuracy"] for run in found]
    (parameters,) = {run["parameters"] for run in found}
    row = f"| {name} | `{network}` | {parameters:,} | {mean(tests):.3f} ± {stdev(tests):.3f} ({len(tests)} seeds) |"
    assert row in README


def test_the_readme_shows_the_measured_accuracy_on_har2() -> None:
    (run,) = runs("har2/*.json")
    accuracy = f"{run['test']['accuracy']:.3f} (1 seed)"
    row = f"| HAR-2, {run['epochs']} of 250 epochs | `CoRNN` | {run['parameters']:,} | {accuracy} |"
    assert row in README
    assert run["validation"] > 0.95


def test_every_result_says_where_it_comes_from() -> None:
    found = runs("*/*.json")
    assert len(found) >= 13
    for run in found:
        assert run["commit"]
        assert run["versions"]["torch"]
        assert run["machine"]["processor"]
        assert run["data"]
        assert not run["commit"].endswith("+"), "made from a changed source tree"
