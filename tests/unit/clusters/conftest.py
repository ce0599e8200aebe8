"""Fixtures of the clusters' tests: those of the controller's; and command lines."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("controller", "cli")]
from federating import federation

__all__ = ["federation"]
