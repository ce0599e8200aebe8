"""Sessions in a home: find one by a reference, and its status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.errors import NotFound, nearest

if TYPE_CHECKING:
    from fedpkg.stores.base import SessionRow
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore


DEFAULT_HOME = ".fedpkg"


def usual_home() -> Path:
    """The folder of the default home: ``$FEDPKG_HOME``, else ``.fedpkg``."""
    return Path(os.environ.get("FEDPKG_HOME") or DEFAULT_HOME)


def open_home(home: Home | Path | str | None, *, create: bool) -> Home:
    """Open a home; None is the default one.

    Raises:
        NotFound: it is absent and ``create`` is False.
        StoreError: it cannot be made.
    """
    from fedpkg.stores.home import Home

    return home if isinstance(home, Home) else Home.open(Path(home or usual_home()), create=create)


def find_session(store: StateStore, ref: str | None) -> SessionRow:
    """The session with an id, a prefix of an id, or ``latest``; None is also the newest one.

    Raises:
        NotFound: there is none.
    """
    if ref not in (None, "latest"):
        return store.get_session(str(ref))
    sessions = store.list_sessions(newest_first=True, limit=1)
    if not sessions:
        raise NotFound("this home has no session yet", hint="fedpkg run RUN.yaml starts one; --home names another home")
    return sessions[0]


def check_there(store: StateStore, session: SessionRow, *, round_number: int | None, client_id: str | None) -> None:
    """Check that the session has that round and that client; None is not checked.

    Raises:
        NotFound: the session lacks one of them.
    """
    if round_number is not None:
        store.get_round(session.session_id, round_number)
    if client_id is None:
        return
    known = [client.client_id for client in store.list_clients(session.session_id)]
    if client_id not in known:
        raise NotFound(
            f"session {session.session_id} has no client {client_id!r}{nearest(client_id, known)}",
            hint=f"it has {len(known)}: {', '.join(known[:5])}{' …' if len(known) > 5 else ''}",
        )


def running_sessions(home: Home) -> frozenset[str]:
    """Ids of the sessions that run in this home now."""
    holder = home.holder()
    return frozenset(holder.session_id.split() if holder is not None and holder.is_alive() else ())


def status_of(session: SessionRow, running: frozenset[str]) -> str:
    """A session's status. If its controller was killed, it is still `running` in the store, and ``killed`` here."""
    if session.status in ("running", "created") and session.session_id not in running:
        return "killed"
    return session.status
