"""What makes the pages of docs that are generated can be imported; a copy of the repository to run pages in."""

import sys
from pathlib import Path

import pytest
from lessons import ROOT, copy_of_repository

sys.path.insert(0, str(ROOT / "docs" / "_ext"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_of_repository(tmp_path)
