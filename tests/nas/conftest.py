"""Every test of a search works in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nas.spaces import BASE, NARROW, WriteSpace


@pytest.fixture
def write_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteSpace:
    """Write a space: lines of [search], the table [search.generator], the number of epochs and the limit."""
    monkeypatch.chdir(tmp_path)

    def write(
        search: str = "trials = 2", generator: str = NARROW, *, epochs: int = 1, limit: int = 400, name: str = "small"
    ) -> Path:
        path = Path(f"{name}.toml")
        base = BASE.replace("EPOCHS", str(epochs)).replace("LIMIT", str(limit))
        path.write_text(f"{base}{search}\n{generator}")
        return path

    return write
