"""How many tasks this machine runs at the same time."""

from __future__ import annotations

import os
from typing import Literal


def usable_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_slots(workers: int | Literal["auto"], *, threads: int) -> int:
    """Tasks at the same time: as configured, or as many as the processors hold with ``threads`` each."""
    if workers == "auto":
        return max(1, usable_cpus() // threads)
    return workers
