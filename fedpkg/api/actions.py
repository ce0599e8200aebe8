"""What can be done to sessions: stop one that runs, and go on with one that has ended early.

Over HTTP it needs the token of an operator, which the server checks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from fedpkg.api.asking import Ref, question
from fedpkg.api.opening import Opened, Struct
from fedpkg.api.sessions import can_resume
from fedpkg.errors import SessionError
from fedpkg.session.record import status_of
from fedpkg.stores.opening import open_store

LOG = "resumed.log"  # in the folder of a session: what its process printed, if `start_resuming` started it
SOON_S = 5.0  # a resume that fails at once is told; one that goes on is seen in the home
_MOST_BYTES = 64 << 10  # of a log
_MOST_WORDS = 2000


class Done(Struct, frozen=True, kw_only=True):
    """What an action did. ``command`` does the same on the command line."""

    session_id: str
    message: str
    command: str


@question
def stop_session(at: Opened, ref: Ref) -> Done:
    """Ask a running session to stop: tasks in flight end, committed rounds are kept, and it can be resumed.

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
    message = "The session was asked to stop; it stops within a second, or after the aggregation that it is in."
    return Done(
        session_id=session.session_id, message=message, command=at.command(f"session stop {session.session_id}")
    )


def resume_command(at: Opened, ref: str) -> list[str]:
    """The command that goes on with a session, as words.

    Raises:
        NotFound: there is no such session.
        SessionError: it has all its rounds, or a session of this home runs, which holds the home.
    """
    session = at.session(ref)
    running = at.running()
    status = status_of(session, running)
    done = at.overview.round_sums_of(session.session_id).rounds_done
    if status != "created" and not can_resume(status, session.error, done, session.num_rounds):
        raise SessionError(f"session {session.session_id} is {status}: there is nothing to resume")
    if running:
        names = ", ".join(sorted(running))
        raise SessionError(f"{names} runs in this home", hint="resume the session when it has ended")
    words = ["session", "resume", session.session_id, "--home", str(at.home.root)]
    return [sys.executable, "-m", "fedpkg", *words]


@dataclass(frozen=True)
class Resuming:
    """A process that goes on with a session, and continues when this one ends.

    ``log``: the file to which it prints, after the ``start`` bytes of former processes.
    """

    session_id: str
    process: subprocess.Popen[bytes]
    log: Path
    start: int

    def check(self, soon_s: float = SOON_S) -> None:
        """Wait for a moment, in which a process that cannot go on ends.

        Raises:
            SessionError: it has failed; the message is that of the process.
        """
        try:
            code = self.process.wait(soon_s)
        except subprocess.TimeoutExpired:
            return
        if code:
            with self.log.open("rb") as log:
                log.seek(max(self.start, self.log.stat().st_size - _MOST_BYTES))
                words = log.read(_MOST_BYTES).decode(errors="replace").rpartition("error: ")[2].strip()
            raise SessionError(words[:_MOST_WORDS] or f"the process ended with exit code {code}")


def start_resuming(at: Opened, ref: str) -> Resuming:
    """Start the process. Raises what `resume_command` raises."""
    command = resume_command(at, ref)
    session_id = at.session(ref).session_id
    folder = at.home.session_folder(session_id)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=at.home.root.absolute().parent,
            env={**os.environ, "NO_COLOR": "1"},
        )
    threading.Thread(target=process.wait, name="fedpkg-resumed", daemon=True).start()  # so that no zombie is left
    return Resuming(session_id, process, folder / LOG, start)


@question
def resume_session(at: Opened, ref: Ref) -> Done:
    """Go on with a session in a process of its own, which continues when this one ends.

    Raises:
        NotFound: there is no such session.
        SessionError: it has all its rounds, or a session of this home runs, which holds the home.
    """
    session_id = start_resuming(at, ref).session_id
    message = f"A process goes on with the session; it writes to {LOG} in the folder of the session."
    return Done(session_id=session_id, message=message, command=at.command(f"session resume {session_id}"))
