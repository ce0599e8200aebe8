"""Sessions that a program has started and left to themselves: they share a workshop, and are waited for or stopped."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from fedpkg.controller.events import Event, SessionEnded
from fedpkg.log import event
from fedpkg.session.session import Session

logger = logging.getLogger("fedpkg.session")
_SESSIONS: dict[Path, list[Session]] = {}  # by home
OTHERS: list[threading.Thread] = []  # threads that are waited for as well


def sessions_in(home: Path) -> list[Session]:
    """Those of a home, the newest last; a program adds to this list what it starts."""
    return _SESSIONS.setdefault(home, [])


def tell_of_failure(what: Event) -> None:
    """A watcher: nobody gets the error of a session in the background."""
    if isinstance(what, SessionEnded) and what.session.status != "finished":
        row = what.session
        event(logger, logging.WARNING, "session.ended", session=row.session_id, status=row.status, about=row.error)


def stop() -> None:
    """Stop all of them."""
    for session in _all():
        session.stop()


def wait() -> None:
    """Wait for all of them. Ctrl-C stops them, and is raised when they have ended."""
    try:
        while any(one.is_running for one in _all()) or any(one.is_alive() for one in OTHERS):
            time.sleep(0.02)
    except KeyboardInterrupt:
        stop()
        wait()
        raise


def _all() -> list[Session]:
    return [one for sessions in _SESSIONS.values() for one in sessions]
