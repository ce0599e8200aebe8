"""Fixtures of the coordinators' tests: those of the controller's, and programs that coordinate."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "controller"))
from federating import at_once, federation
from zygotes import shared_zygotes

__all__ = ["at_once", "federation", "shared_zygotes"]
