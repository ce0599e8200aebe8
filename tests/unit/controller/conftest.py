"""Fixtures of the controller's tests."""

from __future__ import annotations

from federating import at_once, federation
from zygotes import shared_zygotes

__all__ = ["at_once", "federation", "shared_zygotes"]
