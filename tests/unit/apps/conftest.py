"""Fixtures of the tests of message apps that run in sessions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "controller"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "coordinators"))
from federation import Federation
from public_apps import Apps
from records_at_once import RecordsAtOnce

from fedpkg.session import executors
from fedpkg.stores.home import Home


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> RecordsAtOnce:
    """From now on sessions run their tasks without processes."""
    executor = RecordsAtOnce()
    monkeypatch.setattr(executors, "make_executor", executor.make)
    return executor


@pytest.fixture
def apps(federation: Federation, tmp_path: Path) -> Apps:
    """Runs the apps of tests/apps."""
    return Apps(federation, tmp_path)
