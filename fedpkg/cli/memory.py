"""Memory of the process that runs a session."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Have all threads take memory from one arena, where the C library is glibc; to be called before there are threads.

    Replies are checked in the executor's threads and folded in the session's. With an arena for each thread, a thread
    keeps the blocks that it has freed: with replies of 100 MB, that took 130 MB more (tests/benchmarks/scale.py).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
