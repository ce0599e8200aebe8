"""What can be done to sessions: stop one that runs, and go on with one that has ended early."""

from __future__ import annotations

import sys

from fedpkg.api.opening import Opened
from fedpkg.errors import SessionError
from fedpkg.session.record import status_of
from fedpkg.stores.opening import open_store


def stop_session(at: Opened, ref: str) -> None:
    """Ask a running session to stop; its process sees it within a tenth of a second.

    Raises:
        NotFound: there is no such session.
        SessionError: it does not run.
    """
    session = at.session(ref)
    status = status_of(session, at.running())
    if status not in ("running", "created"):
        raise SessionError(f"session {session.session_id} is {status}: there is nothing to stop")
    with open_store(at.home) as store:
        store.request_stop(session.session_id)


def resume_command(at: Opened, ref: str) -> list[str]:
    """The command that goes on with a session, as words.

    Raises:
        NotFound: there is no such session.
        SessionError: it is finished, or a session of this home runs, which holds the home.
    """
    session = at.session(ref)
    running = at.running()
    status = status_of(session, running)
    if status in ("running", "finished"):
        raise SessionError(f"session {session.session_id} is {status}: there is nothing to resume")
    if running:
        names = ", ".join(sorted(running))
        raise SessionError(f"{names} runs in this home", hint="resume the session when it has ended")
    words = ["session", "resume", session.session_id, "--home", str(at.home.root)]
    return [sys.executable, "-m", "fedpkg", *words]
