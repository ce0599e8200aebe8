"""Python source that is read by parsing it, never by running it."""

from __future__ import annotations

import ast
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ATTEMPTS = 20
_PLAIN_ATTEMPTS = 3  # before others are held back
_LONGEST_S = 1.0
_one_at_a_time = threading.Lock()


def parsed(source: str | bytes) -> ast.Module:
    """The syntax tree of ``source``. Warnings about the source, such as those of invalid escapes, are not shown.

    Raises :class:`SyntaxError`, :class:`ValueError`, :class:`RecursionError` or :class:`MemoryError`, as
    :func:`ast.parse` does.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for attempt in range(_ATTEMPTS):
            try:
                if attempt < _PLAIN_ATTEMPTS:
                    return ast.parse(source)
                with _held_back(min(_LONGEST_S, 0.05 * 2 ** (attempt - _PLAIN_ATTEMPTS))):
                    return ast.parse(source)
            except SystemError:  # before Python 3.12, two threads that parse at once spoil each other's depth count
                continue
    raise ValueError("the source could not be parsed, because other threads of this process parse all the time")


@contextmanager
def _held_back(seconds: float) -> Iterator[None]:
    """Let other threads wait for as long as this before they interrupt this one."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        time.sleep(0)  # whoever has asked for this thread's turn has it now
        yield
    finally:
        sys.setswitchinterval(before)
