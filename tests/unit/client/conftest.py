"""Fixtures of the tests of fedpkg.client."""

from __future__ import annotations

from pathlib import Path

import pytest
from calls import Calls


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(tmp_path, monkeypatch)
