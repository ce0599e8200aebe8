"""Fixtures of the controller's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from federation import Federation

from fedpkg.stores.home import Home


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))
