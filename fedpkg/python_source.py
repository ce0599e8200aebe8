"""Python source that is read by parsing it, never by running it."""

from __future__ import annotations

import ast
import threading
import warnings

_MOST_ATTEMPTS = 100
_one_at_a_time = threading.Lock()


def parsed(source: str | bytes) -> ast.Module:
    """The syntax tree of ``source``. Warnings about the source, such as those of invalid escapes, are not shown.

    Raises :class:`SyntaxError`, :class:`ValueError`, :class:`RecursionError` or :class:`MemoryError`, as
    :func:`ast.parse` does.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(_MOST_ATTEMPTS):
            try:
                return ast.parse(source)
            except SystemError:  # before Python 3.12, two threads that parse at once spoil each other's depth count
                continue
    raise ValueError("the source could not be parsed, because other threads of this process parse all the time")
