"""Fixtures for sessions without and with processes; a conftest that imports them has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from at_once import AtOnce
from federation import Federation

from fedpkg.session import executors
from fedpkg.stores.home import Home


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> AtOnce:
    """From now on sessions run their tasks without processes."""
    executor = AtOnce()
    monkeypatch.setattr(executors, "make_executor", executor.make)
    return executor
