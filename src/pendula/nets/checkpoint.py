"""A model on disk: a folder with `spec.json` and `model.safetensors`. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pendula._check import DataError, StabilityWarning
from pendula.nets.model import Model
from pendula.nets.spec import ModelSpec

FORMAT, VERSION = "pendula-model", 1
SPEC_FILE, WEIGHTS_FILE = "spec.json", "model.safetensors"


def save(model: Model, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a model to a folder, each file whole or not at all.

    Errors: FileExistsError when the folder holds a model already and `overwrite` is not set.
    """
    folder = Path(path)
    if not overwrite and (folder / WEIGHTS_FILE).exists():
        raise FileExistsError(f"{folder} holds a model: give another folder, or overwrite=True to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"format": FORMAT, "version": VERSION, "model": model.spec.to_dict()}
    text = (json.dumps(facts, indent=2) + "\n").encode()
    weights = _packed(model.state_dict(), {"spec": _digest(text)})
    _replace({folder / SPEC_FILE: text, folder / WEIGHTS_FILE: weights})
    return folder


def load(path: str | os.PathLike[str], *, backend: str = "auto", device: Any = "cpu") -> Model:
    """A model from the folder that `save` wrote, in evaluation mode, with its own floating type.

    Errors: DataError when a file is missing, damaged, of another kind or of a later version.
    """
    folder = Path(path)
    spec_path = folder / SPEC_FILE
    if not spec_path.is_file():
        hint = " (a training run: give its best or last folder)" if (folder / "best").is_dir() else ""
        raise DataError(f"{folder} is not a model: it has no {SPEC_FILE}{hint}")
    text = spec_path.read_bytes()
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DataError(f"{spec_path} is damaged: {error}; take another copy of the folder") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(f"{spec_path} is not a {FORMAT} file: it was written by something else")
    if data.get("version") != VERSION:
        raise DataError(f"{spec_path} has version {data.get('version')}, this pendula reads {VERSION}: upgrade pendula")
    try:
        spec = ModelSpec.from_dict(data.get("model", {}))
    except (ValueError, TypeError) as error:
        raise DataError(f"{spec_path} does not describe a model: {error}") from error
    tensors, notes = read_tensors(folder / WEIGHTS_FILE)
    if notes.get("spec") != _digest(text):
        raise DataError(f"{folder / WEIGHTS_FILE} belongs to another {SPEC_FILE}: restore both files from one copy")
    types = {t.dtype for t in tensors.values() if t.is_floating_point()}
    if len(types) != 1:
        raise DataError(f"{folder / WEIGHTS_FILE} mixes floating types {sorted(map(str, types))}: save the model again")
    model = built(spec, types.pop(), backend=backend, device=device)
    needed = {name: t.shape for name, t in model.state_dict().items()}
    if needed != {name: t.shape for name, t in tensors.items()}:
        raise DataError(
            f"{folder / WEIGHTS_FILE} does not have the tensors of its spec: {_difference(needed, tensors)}"
        )
    model.load_state_dict(tensors)
    return model.eval()


def built(spec: ModelSpec, dtype: torch.dtype, *, backend: str = "auto", device: Any = "cpu") -> Model:
    """A model that is about to get weights. The global random numbers stay where they are.

    Built for real, not on "meta": what follows from the spec, such as the mask of a coupling, is in no file.
    """
    place = torch.device(device)
    # some initial values can't be drawn in 16 bits
    wide = dtype if dtype.itemsize >= 4 else torch.float32
    with warnings.catch_warnings(), torch.random.fork_rng([place] if place.type == "cuda" else []):
        # said when the model was made
        warnings.simplefilter("ignore", StabilityWarning)
        return Model(spec, backend=backend, device=place, dtype=wide).to(dtype)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a machine that dies, sees the old one or the new one, never a part."""
    _replace({path: data})


def _replace(files: Mapping[Path, bytes]) -> None:
    """All files are written in full before the first takes its place: a full disk leaves the old ones together."""
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    try:
        for path, data in files.items():
            with open(parts[path], "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise DataError(
            f"{path} could not be written ({error.strerror}); what was there before is untouched"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """A safetensors file whose notes carry a digest of its own content."""
    write_whole(path, _packed(tensors, notes))


def _packed(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> bytes:
    plain = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    # tensors that share memory are refused by safetensors
    plain = {name: t.clone() for name, t in plain.items()}
    return safetensors.torch.save(plain, {**notes, "content": _content(plain)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and notes of a file that `write_tensors` wrote. Errors: DataError if it is missing or damaged."""
    if not path.is_file():
        raise DataError(f"{path} is missing: restore it, or train again")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            notes = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or not a safetensors file: {error}; take another copy") from error
    if "content" not in notes:
        raise DataError(f"{path} was not written by pendula: it carries no digest of its content")
    if notes.pop("content") != _content(tensors):
        raise DataError(f"{path} is damaged: its content does not have the digest it carries; take another copy")
    return tensors, notes


def _content(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _difference(needed: Mapping[str, Any], given: Mapping[str, Tensor]) -> str:
    missing, spare = sorted(set(needed) - set(given)), sorted(set(given) - set(needed))
    sizes = [
        f"{n} is {tuple(given[n].shape)}, not {tuple(needed[n])}"
        for n in needed
        if n in given and given[n].shape != needed[n]
    ]
    said = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(spare)}"] * bool(spare) + sizes
    return "; ".join(said)
