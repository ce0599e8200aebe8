"""What several processes of one run of the tests need, and the first of them makes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this name, filled by ``make`` in one of the workers of pytest-xdist; the others wait until it is."""
    base = factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{root}.lock"):
        if not (root / "made").exists():
            root.mkdir()
            make(root)
            (root / "made").touch()
    return root
