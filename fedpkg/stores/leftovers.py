"""Leftover files of killed controllers: the database does not name them, or no longer needs them.

Only the holder of the home's lock may remove them: no other controller is running then, so files that are not on
record will never be.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeAlias

from fedpkg.errors import StoreError
from fedpkg.log import event
from fedpkg.stores.base import UNFINISHED, RoundRow, SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.prune import Removal, entries, outstanding_requests, remove, size_of
from fedpkg.stores.sql import StateStore
from fedpkg.waist.order import SERVER
from fedpkg.waist.place import STATES, is_of_build, names_of_calls, round_folder

logger = logging.getLogger("fedpkg.stores")
Requests: TypeAlias = "Collection[tuple[int, str | None]]"  # by round and id
BEGINNING = ".beginning"  # a file in the folder of a session that is not on record yet


def sweep(home: Home, store: StateStore) -> list[Removal]:
    """Remove leftovers before a session starts or is resumed; return what was removed.

    Rounds that finished earlier are skipped, because the time would grow with the size of the home. Their leftovers
    were removed before they finished, unless an older fedpkg wrote them; `home prune` checks all rounds.
    """
    try:
        sessions = store.list_sessions()
        found = [
            *temporary_files(home),
            *never_begun(home, store),
            *of_sessions(home, store, sessions, all_rounds=False),
        ]
    except StoreError as error:  # a damaged row may belong to a session that is not about to run
        event(logger, logging.WARNING, "home.not_swept", error=error.message)
        return []
    gone = remove(found)
    if gone:
        size_bytes = sum(removal.size_bytes for removal in gone)
        event(logger, logging.INFO, "home.swept", leftovers=len(gone), size_bytes=size_bytes)
    return gone


def of_sessions(home: Home, store: StateStore, sessions: list[SessionRow], *, all_rounds: bool) -> Iterator[Removal]:
    """Leftovers of these sessions."""
    for session in sessions:
        folder = home.session_folder(session.session_id)
        for name in ("models", "copies", "package", "walls"):
            yield from _if_there(folder / "executor" / name, "what tasks shared")
        yield from of_build(folder)
        yield from of_rounds(home, store, session, all_rounds=all_rounds)


def of_rounds(home: Home, store: StateStore, session: SessionRow, *, all_rounds: bool = False) -> Iterator[Removal]:
    """Leftovers of rounds; without ``all_rounds``, only of those that are unfinished or have outstanding requests, and
    of none in a finished session.
    """
    if session.status == "finished" and not all_rounds:
        return
    folder, outstanding = home.session_folder(session.session_id), outstanding_requests(store, session.session_id)
    numbers = {number for number, _ in outstanding}
    rounds = [
        row
        for row in store.list_rounds(session.session_id, status=None if all_rounds or numbers else UNFINISHED)
        if all_rounds or row.status in UNFINISHED or row.round_number in numbers
    ]
    yield from _unnamed_states(folder, store, session.session_id, rounds, outstanding)
    for row in rounds:
        yield from _of_round(round_folder(folder, row.round_number), store, session, row, outstanding)


def of_build(folder: Path) -> Iterator[Removal]:
    """Files of building a seed model, once the session is on record: the seed model is then in the store."""
    for path in _inside(folder):
        if is_of_build(path.name):
            yield Removal(path, size_of(path), "of building a seed model that is in the store now")
    yield from _if_there(folder / BEGINNING, "the marker of a session that is on record now")


def temporary_files(home: Home) -> Iterator[Removal]:
    """Files whose writer was killed. The cache of packages has its own lock and cleanup."""
    for folder in (home.root, home.models, home.data, *_inside(home.sessions)):
        for path in sorted(folder.glob(".*.tmp")):
            yield Removal(path, size_of(path), "half written")


def mark_beginning(folder: Path) -> Path:
    """Make a session's folder with the returned marker file: until the session is on record, it may be removed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGINNING).touch()
    return folder / BEGINNING


def never_begun(home: Home, store: StateStore) -> Iterator[Removal]:
    """Folders of sessions that ended before they were on record."""
    for folder in _not_on_record(home, store):
        if (folder / BEGINNING).exists():
            yield Removal(folder, size_of(folder), "of a session that ended before it was on record")


def unknown_sessions(home: Home, store: StateStore) -> Iterator[Removal]:
    """Other folders of sessions that are not on record: building the seed model failed, or the record was lost."""
    for folder in _not_on_record(home, store):
        if not (folder / BEGINNING).exists():
            yield Removal(folder, size_of(folder), "the folder of an unknown session")


def _not_on_record(home: Home, store: StateStore) -> list[Path]:
    known = {session.session_id for session in store.list_sessions()}
    return [folder for folder in entries(home.sessions) if folder.name not in known]


def _unnamed_states(
    folder: Path, store: StateStore, session_id: str, rounds: list[RoundRow], outstanding: Requests
) -> Iterator[Removal]:
    """Versions of clients' states that no row names: of tasks that were interrupted."""
    named = {(client.client_id, client.state_version) for client in store.list_clients(session_id)}
    named |= {(task.client_id, task.state_version) for task in store.list_tasks(session_id, round_number=0)}
    for row in rounds:
        tasks = store.list_tasks(session_id, round_number=row.round_number)
        named |= {
            (task.client_id, task.state_version)
            for task in tasks
            # The task's reply is on record, but the client's new state is not yet.
            if row.status != "finished" or (task.round_number, task.request_id) in outstanding
        }
    for client in _inside(folder / STATES):
        for version in _inside(client):
            if (client.name, version.name) not in named:
                yield Removal(version, size_of(version), "a client's state that no row names")


def _of_round(
    folder: Path, store: StateStore, session: SessionRow, row: RoundRow, outstanding: Requests
) -> Iterator[Removal]:
    """Folders of tasks and replies that are not on record, replies that have been used, and inputs of requests."""
    if not (found := _inside(folder)):
        return
    tasks = store.list_tasks(session.session_id, round_number=row.round_number)
    requests = store.list_requests(session.session_id, round_number=row.round_number)
    recorded = {(task.client_id, Path(task.folder).name): task for task in tasks if task.folder is not None}
    asked = {request.entry_point for request in requests} | {task.entry_point for task in tasks}
    own = names_of_calls({"validate", *asked})
    is_committed = row.status in ("aggregated", "finished")
    keeps_updates = bool(session.config.get("keep", {}).get("updates"))
    for client in found:
        if client.name.startswith(".") and client.name != SERVER:
            yield Removal(client, size_of(client), "an input of requests, written again when they are sent again")
            continue
        for path in _inside(client):
            if (name := own.fullmatch(path.name)) is None:
                continue
            task = recorded.get((client.name, name[1]))
            if name[2] is None:
                # The empty folder is kept: a task may still write to it, so no later attempt may use its path.
                if task is None and (path.is_symlink() or _inside(path)):
                    why = "of an interrupted task"
                    yield Removal(path, size_of(path), why, contents=not path.is_symlink())
            elif task is None or task.status == "cancelled":
                yield Removal(path, size_of(path), "a reply that is not on record")
            elif (task.round_number, task.request_id) in outstanding:
                continue
            elif task.status == "ok" and (task.request_id is None or (is_committed and not keeps_updates)):
                yield Removal(path, size_of(path), "a reply that has been used")


def _inside(folder: Path) -> list[Path]:
    """The entries of a folder. A link is not followed: a task may have made it, and it may point anywhere."""
    return [] if folder.is_symlink() else entries(folder)


def _if_there(path: Path, why: str) -> Iterator[Removal]:
    if path.exists():
        yield Removal(path, size_of(path), why)
