"""A small package folder, and a cache with limits, for the tests of compute packages."""

from __future__ import annotations

from pathlib import Path

import pytest

SPEC = """\
entry_points:
  train:
    command: python entrypoint.py train
  validate:
    command: python entrypoint.py validate
"""


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A folder named ``client`` with a spec, a script and a nested file, below a path with spaces and an umlaut."""
    folder = tmp_path / "Übung mit Leerzeichen" / "client"
    (folder / "sub").mkdir(parents=True)
    (folder / "fedn.yaml").write_text(SPEC, encoding="utf-8")
    (folder / "entrypoint.py").write_text("print('hello')\n", encoding="utf-8")
    (folder / "sub" / "größe.txt").write_bytes(b"\x00\xff")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache of packages"
