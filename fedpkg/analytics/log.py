"""Messages of an algorithm: one line each on the standard output, after a word for how serious it is."""

from __future__ import annotations

import sys


def info(msg: str) -> None:
    """Print an informative message."""
    _write("info", msg)


def warn(msg: str) -> None:
    """Print a warning."""
    _write("warn", msg)


def error(msg: str) -> None:
    """Print an error message."""
    _write("error", msg)


def debug(msg: str) -> None:
    """Print a message for the algorithm's author."""
    _write("debug", msg)


warning = warn


def _write(word: str, msg: str) -> None:
    sys.stdout.write(f"{word} > {msg}\n")
