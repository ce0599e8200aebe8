"""Sessions in the background of a program: they share a workshop, and can be waited for or stopped together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fedpkg.controller.events import Event, SessionEnded
from fedpkg.log import event
from fedpkg.session.session import Session

logger = logging.getLogger("fedpkg.session")
_SESSIONS: dict[Path, list[Session]] = {}  # by home
OTHERS: list[threading.Thread] = []  # further threads that `wait` waits for


def sessions_in(home: Path) -> list[Session]:
    """The sessions of a home, newest last; callers append the sessions that they start."""
    return _SESSIONS.setdefault(home, [])


def tell_of_failure(what: Event, *, told: Callable[[str], str]) -> None:
    """A watcher that logs a failure, because the error of a session in the background is not raised anywhere.

    ``told`` is applied to its message.
    """
    if isinstance(what, SessionEnded) and what.session.status != "finished":
        row = what.session
        about = told(row.error or "")
        event(logger, logging.WARNING, "session.ended", session=row.session_id, status=row.status, about=about)


def stop() -> None:
    """Stop all sessions."""
    for session in _all():
        session.stop()


def wait() -> None:
    """Wait for all sessions. Ctrl-C stops them; KeyboardInterrupt is raised after they have ended."""
    try:
        while any(one.is_running for one in _all()) or any(one.is_alive() for one in OTHERS):
            time.sleep(0.02)
    except KeyboardInterrupt:
        stop()
        wait()
        raise


def _all() -> list[Session]:
    return [one for sessions in _SESSIONS.values() for one in sessions]
