"""Fixtures of the tests of fedpkg.client."""

from __future__ import annotations

from pathlib import Path

import pytest
from calls import Calls
from zygotes import shared_zygotes

__all__ = ["shared_zygotes"]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(tmp_path, monkeypatch)
