"""The compiled library as a part of an installation: it is there and fits, or what it lacks is said."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import pendula
from pendula.cells import CELLS
from pendula.nets.scan import _said
from pendula.ops import native
from tests import tolerance

ROOT = Path(__file__).parents[1]
HEADER = (ROOT / "native" / "scans.h").read_text()
STRUCTURES = {
    f"pendula_{name}": re.findall(r"(\w+)\s*[,;]", re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL))
    for body, name in re.findall(r"typedef struct \{(.*?)\} pendula_(\w+);", HEADER, re.DOTALL)
}
MIRRORS = {
    f"pendula_{kind.__name__.replace('Forward', '_forward').replace('Backward', '_backward').lower()}": kind
    for kind in vars(native).values()
    if isinstance(kind, type) and issubclass(kind, ctypes.Structure)
}
COMPILED = [name for name, cell in CELLS.items() if cell.fused and cell.fused.name.startswith("pendula::")]


@pytest.fixture
def fresh() -> Iterator[None]:
    """The library is looked for anew, in the test and after it; nothing was said before."""
    before = set(_said)
    _said.clear()
    native.load.cache_clear()
    yield
    native.load.cache_clear()
    _said.update(before)


@pytest.fixture
def without_library(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FILE", "hidden from this test")


# --- Python and C mean the same


def test_every_structure_of_the_header_has_a_mirror_with_the_same_fields() -> None:
    assert {name: [field for field, *_ in kind._fields_] for name, kind in MIRRORS.items()} == STRUCTURES


def test_every_function_of_the_header_is_called_with_as_many_arguments() -> None:
    declared = {
        name: 0 if given == "void" else given.count(",") + 1
        for name, given in re.findall(r"PENDULA_API [^;]*?(pendula_\w+)\(([^)]*)\);", HEADER)
    }
    assert {name: len(arguments) for name, (arguments, _) in native.ENTRIES.items()} == declared


@pytest.mark.skipif(shutil.which("clang++") is None, reason="there is no Clang here, which builds the scans on macOS")
@pytest.mark.parametrize("set", ["baseline", "avx2", "avx512"])
def test_clang_takes_the_sources_without_a_warning(set: str) -> None:
    listed = (ROOT / "native" / "CMakeLists.txt").read_text()
    networks = re.findall(r"\w+\.cpp", re.search(r"set\(NETWORKS (.*)\)", listed)[1])
    flags = [] if set == "baseline" else re.search(rf"set\(FLAGS_{set} (.*)\)", listed)[1].split()
    assert len(networks) > 3
    checked = [
        "clang++",
        "--target=x86_64-linux-gnu",
        "-fsyntax-only",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-psabi",
    ]
    for network in networks:
        subprocess.run([*checked, *flags, f"-DPENDULA_ISA={set}", str(ROOT / "native" / network)], check=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_the_fields_lie_where_a_c_compiler_lays_them(tmp_path: Path) -> None:
    lines = [
        f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));'
        for name, fields in STRUCTURES.items()
        for field in fields
    ]
    lines += [f'printf("{name} %zu\\n", sizeof({name}));' for name in STRUCTURES]
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <scans.h>\nint main(void) {" + "\n".join(lines) + "}"
    )
    folder = ROOT / "native"
    subprocess.run(
        ["cc", "-std=c99", "-Wall", "-Werror", f"-I{folder}", str(source), "-o", str(tmp_path / "layout")], check=True
    )
    printed = subprocess.run([str(tmp_path / "layout")], capture_output=True, text=True, check=True).stdout
    ours = [
        f"{name}.{field} {getattr(MIRRORS[name], field).offset} {getattr(MIRRORS[name], field).size}"
        for name, fields in STRUCTURES.items()
        for field in fields
    ]
    ours += [f"{name} {ctypes.sizeof(MIRRORS[name])}" for name in STRUCTURES]
    assert printed.splitlines() == ours


@pytest.mark.skipif(bool(native.missing()), reason=native.missing())
@pytest.mark.parametrize("name", sorted(MIRRORS))
def test_a_library_of_another_version_is_refused(name: str, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    wider = type("Wider", (MIRRORS[name],), {"_fields_": [("one_more", ctypes.c_void_p)]})
    (_, *rest), result = native.ENTRIES[f"{name}_run"]
    monkeypatch.setitem(native.ENTRIES, f"{name}_run", ([ctypes.POINTER(wider), *rest], result))
    assert native.missing() == f"the compiled scans are of another version ({name} differs): install pendula again"


def test_a_file_that_is_no_library_is_refused(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FILE", "_scans.broken")
    monkeypatch.setattr(pendula, "__path__", [str(tmp_path)])
    (tmp_path / "_scans.broken").write_text("not a library")
    assert re.match(r"the compiled scans can't be loaded \(.*\): install pendula again", native.missing())


# --- an installation without the library


@pytest.mark.parametrize("network", COMPILED)
@pytest.mark.usefixtures("without_library")
def test_without_the_library_a_demand_for_it_is_refused(network: str) -> None:
    said = "the compiled scans are not part of this installation: install pendula where there is a C.. compiler: use"
    with pytest.raises(pendula.BackendError, match=said):
        pendula.LAYERS[network](2, 3, backend="fused")(torch.zeros(4, 1, 2))


@pytest.mark.parametrize("network", COMPILED)
@pytest.mark.usefixtures("without_library")
def test_without_the_library_one_warning_is_given_and_the_numbers_are_the_same(network: str) -> None:
    layer, x = pendula.LAYERS[network](2, 3, 2, bidirectional=True), torch.randn(4, 2, 2)
    with pytest.warns(UserWarning, match=f"{network} runs on the reference scan: the compiled scans are not") as given:
        outputs, state = layer(x)
    assert len(given) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)
    layer.backend = "reference"
    assert_close((outputs, state), layer(x), **tolerance.EXACT)


@pytest.mark.parametrize("network", COMPILED)
@pytest.mark.usefixtures("without_library")
def test_without_the_library_a_call_of_the_operator_is_refused(network: str) -> None:
    cell = CELLS[network](2, 3)
    with pytest.raises(RuntimeError, match="the compiled scans are not part of this installation"):
        cell.fused(torch.zeros(4, 1, 2), tuple(cell.initial_state(1)), cell.operands(), lengths=None, tau=None)


@pytest.mark.usefixtures("without_library")
def test_without_the_library_the_list_of_backends_says_what_is_missing() -> None:
    listing = pytest.importorskip("pendula.listing")
    how = {row[0]: row[1:] for row in listing._backends()[1]}
    assert how["(compiled scans)"] == ("none", native.missing())
    for network in COMPILED:
        assert how[network][0] == "reference scan: each step from Python"
        assert how[network][1].endswith(native.missing())
    assert how["LSTM"] == ("fused scan torch.lstm: all steps in one call", "")


@pytest.mark.skipif(bool(native.missing()), reason=native.missing())
def test_the_list_of_backends_names_instruction_sets_and_fused_scans() -> None:
    listing = pytest.importorskip("pendula.listing")
    how = {row[0]: row[1:] for row in listing._backends()[1]}
    assert how["(compiled scans)"][0].startswith(native.instruction_sets()[0])
    assert how["(processor)"][0] == f"threads: {torch.get_num_threads()}"
    for network in COMPILED:
        assert how[network] == (f"fused scan {CELLS[network].fused.name}: all steps in one call", "")
