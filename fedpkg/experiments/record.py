"""Sweeps in a home: find one by its name, its status, and its points with their sessions."""

from __future__ import annotations

import os

from fedpkg.errors import NotFound
from fedpkg.stores.base import SessionRow, SweepPointRow, SweepRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.sql import StateStore


def find_sweep(store: StateStore, name: str | None) -> SweepRow:
    """The sweep of this name; None is the newest one.

    Raises:
        NotFound: there is none.
    """
    if name is not None:
        return store.sweeps.get(name)
    sweeps = store.sweeps.all()
    if not sweeps:
        raise NotFound(
            "this home has no sweep yet", hint="fedpkg experiment sweep FOLDER key=a,b starts one; --home names another"
        )
    return sweeps[-1]


def this_process() -> str:
    return f"{os.getpid()}@{os.uname().nodename}"


def status_of_sweep(home: Home, sweep: SweepRow) -> str:
    """A sweep's status. If its process was killed, it is still `running` in the store, and ``killed`` here."""
    if sweep.status != "running":
        return sweep.status
    holder = home.holder()
    is_held = holder is not None and holder.is_alive() and f"{holder.pid}@{holder.host}" == sweep.process
    return "running" if is_held else "killed"


def points_with_sessions(home: Home, sweep: str | None = None) -> list[tuple[SweepPointRow, SessionRow | None]]:
    """The points of a sweep by number, each with its session; None: it has not begun, or could not be composed.

    Args:
        sweep: its name; None is the newest one.

    Raises:
        NotFound: there is no such sweep.
    """
    with open_store(home, read_only=True) as store:
        return with_sessions(store, find_sweep(store, sweep).name)


def with_sessions(store: StateStore, sweep: str) -> list[tuple[SweepPointRow, SessionRow | None]]:
    """As `points_with_sessions`, of an open store."""
    sessions = {session.session_id: session for session in store.list_sessions()}
    return [
        (point, None if point.session_id is None else sessions.get(point.session_id))
        for point in store.sweeps.points(sweep)
    ]
