"""Log lines: an event, then fields. Only the command line configures handlers."""

from __future__ import annotations

import logging
import sys

from fedpkg.shown import shown, shown_lines

ALWAYS_TOLD = ("fedpkg.environments", "fedpkg.server_app", "fedpkg.algorithm")
"""Events that occur once and may take minutes, and what a user's app says."""


def event(logger: logging.Logger, level: int, name: str, /, **fields: object) -> None:
    """Log ``name key=value key=value``; floats are shortened. Never pass data, weights or tokens."""
    if logger.isEnabledFor(level):
        words = [f"{key}={f'{value:.4g}' if isinstance(value, float) else value}" for key, value in fields.items()]
        logger.log(level, "%s", " ".join([name, *map(shown, words)]))


class _Formatter(logging.Formatter):
    """Makes log lines, which quote packages, paths and clients, safe for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return shown_lines(super().format(record))


def configure(verbosity: int) -> None:
    """Send fedpkg's log to standard error: warnings (0), one line per round (1), one line per task (2)."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S"))
    root = logging.getLogger("fedpkg")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
    for name in ALWAYS_TOLD:
        logging.getLogger(name).setLevel(min(level, logging.INFO))
