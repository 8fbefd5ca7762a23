"""Runs the tutorials with a Jupyter kernel and writes what they print and draw into them.

    python docs/execute.py [NOTEBOOK ...]

Without names: all of docs/tutorials. Needs nbformat, nbclient, ipykernel (the [dev] extra). A cell that fails, or
writes to stderr, leaves its notebook as it was. What tells of the machine (paths, times, versions) is not kept.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent / "tutorials"
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COLOURS = 128


def execute(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    # one thread: sums of floating-point numbers in the same order everywhere
    os.environ.update(OMP_NUM_THREADS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, kernel_name="python3", timeout=900, record_timing=False, resources=place)
        kernel = client.create_kernel_manager()
        # sockets in a folder of its own, where no other user can listen
        kernel.transport, kernel.ip = "ipc", f"{folder}/kernel"
        client.execute()
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number:02}"
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.outputs = joined([tidy(output, f"{path.name}, cell {number}") for output in cell.outputs])
    notebook.metadata = KERNEL
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(path)


def tidy(output: Any, where: str) -> Any:
    if output.get("name") == "stderr":
        raise SystemExit(f"{where} writes to stderr, which shows paths of this machine: catch it\n{output.text}")
    if "image/png" in output.get("data", {}):
        output.metadata = {}
        output.data = {"image/png": smaller(output.data["image/png"])}
    return output


def smaller(png: str) -> str:
    """The picture with few colours: line drawings need no more, and it takes a third of the place."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    few.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def joined(outputs: list[Any]) -> list[Any]:
    """What is printed in a row is one output, however it was sent."""
    kept: list[Any] = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


if __name__ == "__main__":
    for notebook_file in map(Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
        execute(notebook_file)
        print(f"{notebook_file}: {notebook_file.stat().st_size / 1024:.0f} kB")
