"""Fixtures of the controller's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from at_once import AtOnce
from federation import Federation
from zygotes import share

from fedpkg.session import executors
from fedpkg.stores.home import Home


@pytest.fixture(scope="session", autouse=True)
def shared_zygotes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        share(patch)
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> AtOnce:
    """From now on sessions run without processes."""
    executor = AtOnce()
    monkeypatch.setattr(executors, "make_executor", executor.make)
    return executor
