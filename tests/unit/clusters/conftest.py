"""Fixtures of the clusters' tests: those of the controller's."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "controller"))
from federating import federation

__all__ = ["federation"]
