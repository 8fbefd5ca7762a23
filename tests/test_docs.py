"""What the documentation shows runs, and what it points to exists."""

import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import pendula

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, networks = blocks(ROOT / "README.md", "python")
    exec(networks, {})
    names: dict[str, object] = {}
    exec(code, names)
    outputs = names["outputs"]
    assert isinstance(outputs, torch.Tensor)
    assert outputs.shape == (4, 128, 64)
    assert (tmp_path / "my-model" / "spec.json").exists()


def test_the_example_of_a_new_network_runs_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks(ROOT / "docs" / "add-a-network.md", "python")[0]
    # a module of its own, as a user's file would be: its annotations are looked up there
    module = types.ModuleType("leaky")
    names = vars(module)
    monkeypatch.setitem(sys.modules, "leaky", module)
    exec(code, names)
    from pendula.nets.layers import layer

    leaky = layer(names["LeakyCell"])(3, 5, num_layers=2, bidirectional=True, dt=0.2).double()  # type: ignore[arg-type]
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: leaky(x, lengths=[4, 2])[0], x)
    assert leaky(x)[0].shape == (4, 2, 10)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_command_of_the_documentation_exists() -> None:
    from pendula.cli import COMMANDS

    for page in PAGES:
        for line in "\n".join(blocks(page, "")).splitlines():
            if line.startswith("pendula "):
                assert line.split()[1] in COMMANDS, line


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.name)
def test_examples_are_valid_configs(example: Path) -> None:
    command = [sys.executable, "-m", "pendula", "train", "--config", str(example), "--print_config"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "network: CoRNN" in shown


def test_the_changelog_and_the_citation_know_the_version() -> None:
    assert f"## {pendula.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {pendula.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_the_pages_of_the_networks_are_those_of_their_docstrings() -> None:
    place = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert place is not None
    assert place.loader is not None
    generate = importlib.util.module_from_spec(place)
    place.loader.exec_module(generate)
    written = {path.name: path.read_text() for path in generate.FOLDER.glob("*.md")}
    assert written == generate.pages(), "run `make docs`, or python docs/generate.py"


def test_every_network_is_exported_and_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in pendula.LAYERS if f"`{name}`" not in readme]
    assert not missing, f"no row in the table of networks in README.md: {missing}"
    for name, layer in pendula.LAYERS.items():
        assert getattr(pendula, name, None) is layer, f'{name} = LAYERS["{name}"] is missing in pendula/__init__.py'
        assert name in pendula.__all__
