"""A model on disk comes back whole or not at all, and says what is wrong with it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.testing import assert_close

import pendula
from pendula import DataError, Model, ModelSpec, Node
from pendula.nets import LAYERS
from pendula.nets.checkpoint import SPEC_FILE, WEIGHTS_FILE, read_tensors, write_tensors
from tests import tolerance


def model(units: int = 3, **options: Any) -> Model:
    return Model(ModelSpec(2, 2, (Node("CoRNN", units, physics={"learnable": ["dt"]}),), standardise=True, **options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pendula.save(model(), tmp_path / "model")


def test_the_folder_holds_the_spec_and_the_weights_and_nothing_else(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [WEIGHTS_FILE, SPEC_FILE]


def test_it_comes_back_with_its_spec_in_evaluation(folder: Path) -> None:
    loaded = pendula.load(folder)
    assert (loaded.spec, loaded.training) == (model().spec, False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_comes_back_in_its_own_type(tmp_path: Path, dtype: torch.dtype) -> None:
    built = model().to(dtype)
    loaded = pendula.load(pendula.save(built, tmp_path / "model"))
    assert_close(dict(loaded.state_dict()), dict(built.state_dict()), **tolerance.EXACT)


NODES = [*(Node(network, 4) for network in LAYERS), Node("CoRNN", 4, physics={"coupling": "0-1 1-2"})]


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.network + "-coupled" * ("0-1 1-2" in str(node.physics)))
def test_it_computes_what_it_computed_before(tmp_path: Path, node: Node) -> None:
    built = Model(ModelSpec(2, 2, (node,))).eval()
    pendula.save(built, tmp_path / "model")
    before = torch.get_rng_state()
    loaded = pendula.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.randn(7, 3, 2)
    assert torch.equal(loaded(x)[0], built(x)[0])


@pytest.mark.parametrize("network", LAYERS)
def test_every_network_comes_back_in_sixteen_bits(tmp_path: Path, network: str) -> None:
    built = Model(ModelSpec(2, 2, (Node(network, 4),))).to(torch.bfloat16)
    loaded = pendula.load(pendula.save(built, tmp_path / "model"))
    assert_close(dict(loaded.state_dict()), dict(built.state_dict()), **tolerance.EXACT)


def test_labels_and_graphs_come_back(tmp_path: Path) -> None:
    nodes = (Node("GRU", 3, name="a"), Node("LSTM", 3, name="b", inputs=("a", "input"), bidirectional=True))
    built = Model(ModelSpec(2, 2, nodes, pool="mean", labels=("no", "yes")))
    assert pendula.load(pendula.save(built, tmp_path / "model")).spec == built.spec


def test_the_backend_is_chosen_when_loading(tmp_path: Path) -> None:
    built = Model(ModelSpec(2, 2, (Node("LipschitzRNN", 3),)))
    loaded = pendula.load(pendula.save(built, tmp_path / "model"), backend="fused")
    with pytest.raises(pendula.BackendError, match="LipschitzRNN has no fused scan"):
        loaded(torch.zeros(3, 1, 2))


def test_missing_parents_are_made(tmp_path: Path) -> None:
    assert (pendula.save(model(), tmp_path / "a" / "b") / SPEC_FILE).is_file()


def test_a_model_is_not_overwritten_unasked(folder: Path) -> None:
    before = (folder / WEIGHTS_FILE).read_bytes()
    with pytest.raises(FileExistsError, match="holds a model: give another folder, or overwrite=True"):
        pendula.save(model(), folder)
    assert (folder / WEIGHTS_FILE).read_bytes() == before


def test_a_model_is_overwritten_when_asked(folder: Path) -> None:
    other = model(5)
    pendula.save(other, folder, overwrite=True)
    assert pendula.load(folder).spec == other.spec


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_damaged_byte_anywhere_in_the_weights_is_noticed(folder: Path, mask: int) -> None:
    path = folder / WEIGHTS_FILE
    whole = path.read_bytes()
    unnoticed = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        try:
            pendula.load(folder)
        except DataError as error:
            unnoticed += [] if WEIGHTS_FILE in str(error) else [place]
        else:
            unnoticed.append(place)
    assert unnoticed == []


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_damaged_byte_anywhere_in_the_spec_is_noticed(folder: Path, mask: int) -> None:
    path = folder / SPEC_FILE
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        with pytest.raises(DataError, match=SPEC_FILE):
            pendula.load(folder)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", [WEIGHTS_FILE, SPEC_FILE])
def test_a_truncated_file_is_noticed(folder: Path, name: str, part: float) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(DataError, match=name):
        pendula.load(folder)


def test_a_longer_file_is_noticed(folder: Path) -> None:
    with open(folder / WEIGHTS_FILE, "ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(DataError, match=r"damaged or not a safetensors file.*take another copy"):
        pendula.load(folder)


def spec_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / SPEC_FILE).read_text())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "is not a pendula-model file: it was written by something else"),
        ('{"format": "onnx", "version": 1}', "is not a pendula-model file"),
        ("[1, 2]", "is not a pendula-model file"),
        ("null", "is not a pendula-model file"),
        ('{"format": ', "is damaged: .*take another copy"),
        ("\x80abc", "is damaged: "),
        ('{"format": "pendula-model", "version": 2}', "has version 2, this pendula reads 1: upgrade pendula"),
        ('{"format": "pendula-model"}', "has version None, this pendula reads 1"),
        ('{"format": "pendula-model", "version": 1}', "does not describe a model: a model spec needs 'input_size'"),
        ('{"format": "pendula-model", "version": 1, "model": 3}', "does not describe a model: .*got int"),
    ],
)
def test_a_foreign_or_later_spec_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / SPEC_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=said):
        pendula.load(folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.update(nodes=3),
        lambda m: m.update(nodes=[3]),
        lambda m: m.update(nodes=[]),
        lambda m: m["nodes"][0].update(network="Transformer"),
        lambda m: m["nodes"][0].update(network=["CoRNN"]),
        lambda m: m["nodes"][0].update(physics=[1]),
        lambda m: m["nodes"][0].update(name=3),
        lambda m: m["nodes"][0].update(inputs=3),
        lambda m: m["nodes"][0].update(hidden_size="3"),
        lambda m: m.update(labels=3),
    ],
)
def test_a_spec_that_describes_no_model_is_refused(folder: Path, spoil: Callable[[dict[str, Any]], None]) -> None:
    data = spec_of(folder)
    spoil(data["model"])
    (folder / SPEC_FILE).write_text(json.dumps(data))
    with pytest.raises(DataError, match="does not describe a model"):
        pendula.load(folder)


def test_a_spec_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = pendula.save(model(pool="mean"), tmp_path / "other")
    shutil.copy(other / SPEC_FILE, folder / SPEC_FILE)
    with pytest.raises(DataError, match=r"belongs to another spec\.json: restore both files from one copy"):
        pendula.load(folder)


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    other = pendula.save(model(4), tmp_path / "other")
    shutil.copy(other / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    with pytest.raises(DataError, match=r"belongs to another spec\.json"):
        pendula.load(folder)


@pytest.mark.parametrize(
    ("name", "said"), [(SPEC_FILE, "is not a model: it has no spec.json"), (WEIGHTS_FILE, "is missing")]
)
def test_a_missing_file_is_named(folder: Path, name: str, said: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=said):
        pendula.load(folder)


def test_a_missing_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a model"):
        pendula.load(tmp_path / "nowhere")


def test_the_folder_of_a_run_is_told_from_its_best_model(tmp_path: Path) -> None:
    pendula.save(model(), tmp_path / "run" / "best")
    with pytest.raises(DataError, match="a training run: give its best or last folder"):
        pendula.load(tmp_path / "run")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """The weights again, with good digests and other tensors."""
    tensors, notes = read_tensors(folder / WEIGHTS_FILE)
    change(tensors)
    write_tensors(folder / WEIGHTS_FILE, tensors, notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("readout.bias"), "missing readout.bias"),
        (lambda t: t.update(spare=torch.zeros(1)), "unknown spare"),
        (lambda t: t.update({"readout.bias": torch.zeros(7)}), r"readout.bias is \(7,\), not \(2,\)"),
        (lambda t: t.update({"readout.bias": torch.zeros(2).double()}), "mixes floating types.*save the model again"),
        (lambda t: t.clear(), "mixes floating types"),
    ],
)
def test_tensors_that_are_not_those_of_the_spec_are_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], said: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(DataError, match=said):
        pendula.load(folder)


def test_a_foreign_safetensors_file_is_refused(folder: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(3)}, folder / WEIGHTS_FILE)
    with pytest.raises(DataError, match="was not written by pendula: it carries no digest"):
        pendula.load(folder)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("write", [lambda p: p.write_bytes(pickle.dumps(Bomb())), lambda p: torch.save(Bomb(), p)])
def test_a_pickle_under_the_name_of_the_weights_is_refused_and_not_run(
    folder: Path, write: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder / WEIGHTS_FILE)
    with pytest.raises(DataError, match="damaged or not a safetensors file"):
        pendula.load(folder)
    assert not (folder / "exploded").exists()


def test_a_failing_replacement_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = dict(pendula.load(folder).state_dict())

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(DataError, match=r"could not be written .*Permission denied.*untouched"):
            pendula.save(model(5), folder, overwrite=True)
    assert_close(dict(pendula.load(folder).state_dict()), expected, **tolerance.EXACT)


FULL_DISK = """
import resource, sys, torch, pendula
spec = pendula.ModelSpec(2, 2, (pendula.Node("LSTM", 64),))
model = pendula.Model(spec)
# room for the new spec, not for the new weights
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    pendula.save(model, sys.argv[1], overwrite=True)
except pendula.DataError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_model(folder: Path) -> None:
    expected = dict(pendula.load(folder).state_dict())
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(folder)], capture_output=True, text=True, check=True)
    assert f"{WEIGHTS_FILE} could not be written (File too large); what was there before is untouched" in done.stdout
    assert_close(dict(pendula.load(folder).state_dict()), expected, **tolerance.EXACT)
    assert sorted(p.name for p in folder.iterdir()) == [WEIGHTS_FILE, SPEC_FILE]
