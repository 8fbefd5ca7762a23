"""Every test of sweeps works in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tune.spaces import BASE, RATE, WriteSpace


@pytest.fixture
def write_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteSpace:
    """Write a space: lines of [search], lines of [search.parameters], and the number of epochs."""
    monkeypatch.chdir(tmp_path)

    def write(search: str = "trials = 3", parameters: str = RATE, *, epochs: int = 2, name: str = "small") -> Path:
        path = Path(f"{name}.toml")
        base = BASE.replace("EPOCHS", str(epochs))
        path.write_text(f"{base}\n[search]\n{search}\n\n[search.parameters]\n{parameters}\n")
        return path

    return write
