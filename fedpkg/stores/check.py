"""Whether a home is whole: the database, every model file's digest, and rows and files that must agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedpkg.errors import StoreError
from fedpkg.files import sha256_file
from fedpkg.stores.base import SessionRow, StateStore
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.prune import (
    model_files,
    temporary_files,
    unknown_sessions,
    unnamed_states,
    unneeded_models,
)
from fedpkg.stores.sqlite import SqliteStore

_RESTORE = "put back a copy; or run the session again: the same configuration and seed make the same"
_PRUNE = "`fedpkg home prune` removes it"
_ORPHAN = "if no copy of state.db knows it, `fedpkg home prune --orphans` removes it"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. What is not damaged is only in the way."""

    place: str
    problem: str
    advice: str
    damaged: bool


def check_home(home: Home) -> Iterator[Finding]:
    """Look at everything, change nothing.

    A controller may be at work meanwhile: what seems to be missing is looked at again, and as what it is just writing
    cannot be told from what was left behind, leftovers are then not looked for.
    """
    holder = home.holder()
    busy = holder is not None and holder.is_alive()
    yield from _damaged_models(home)
    if home.state_db.exists() or any(home.sessions.glob("*")) or any(model_files(home)):
        try:
            with SqliteStore(home.state_db, read_only=True) as store:
                for problem in store.check():
                    yield Finding(str(home.state_db), problem, "put back a copy of it", True)
                yield from _missing_models(home, store)
                for session in store.list_sessions():
                    yield from _session(home, store, session)
                if not busy:
                    yield from _leftovers(home, store)
        except StoreError as error:
            yield Finding(str(home.state_db), error.message, error.hint or "put back a copy of it", True)
    if not busy:
        for removal in temporary_files(home):
            yield Finding(str(removal.path), removal.why, _PRUNE, False)


def _damaged_models(home: Home) -> Iterator[Finding]:
    for path in model_files(home):
        try:
            digest = sha256_file(path)
        except FileNotFoundError:  # pruned just now
            continue
        except OSError as error:
            yield Finding(str(path), f"cannot be read: {error.strerror}", _RESTORE, True)
            continue
        if digest != path.name[:64]:
            yield Finding(
                str(path), f"its bytes changed: their digest is {digest[:12]}", f"remove it and {_RESTORE}", True
            )


def _missing_models(home: Home, store: StateStore) -> Iterator[Finding]:
    files = ModelStore(home.models)

    def of_rows() -> Iterable[tuple[Path, str]]:
        for model in store.list_kept_models():
            yield files.path(model.digest, model.suffix), f"the file of model {model.model_id} is missing"

    def of_states() -> Iterable[tuple[Path, str]]:
        for digest in sorted(store.state_digests()):
            folder = home.models / digest[:2]
            found = next(folder.glob(f"{digest}.*"), folder / digest)
            yield found, "a file that a strategy's state names is missing"

    missing = dict(_missing(of_rows))
    missing |= {path: words for path, words in _missing(of_states) if path.name not in {p.stem for p in missing}}
    for path, problem in missing.items():
        yield Finding(str(path), problem, _RESTORE, True)


def _session(home: Home, store: StateStore, session: SessionRow) -> Iterator[Finding]:
    session_id, folder = session.session_id, home.session_folder(session.session_id)
    rounds = store.list_rounds(session_id)
    if rounds and not folder.is_dir():
        yield Finding(str(folder), f"the folder of session {session_id} is missing", _RESTORE, True)
        return

    def states() -> Iterable[tuple[Path, str]]:
        for client in store.list_clients(session_id):
            if client.state_version is not None:
                path = folder / "clients" / client.client_id / client.state_version
                yield path, f"the state of {client.client_id} is missing: session {session_id} cannot go on as it was"

    def data() -> Iterable[tuple[Path, str]]:
        for client in store.list_clients(session_id):
            if client.data_path is not None and session.status != "finished":
                path = home.root / client.data_path
                yield path, f"the data of {client.client_id} is missing: session {session_id} cannot go on"

    def updates() -> Iterable[tuple[Path, str]]:
        if not session.config.get("keep", {}).get("updates"):
            return
        for row in rounds:
            for update in store.list_updates(session_id, row.round_number) if row.status == "finished" else ():
                parts = Path(update.path).parts  # the home may have been moved since
                where = len(parts) - 1 - parts[::-1].index(session_id) if session_id in parts else -1
                path = folder.joinpath(*parts[where + 1 :])
                yield path, f"a kept update of session {session_id}, round {row.round_number}, is missing"

    for look in (states, data, updates):
        for path, problem in _missing(look):
            yield Finding(str(path), problem, _RESTORE, True)


def _missing(look: Callable[[], Iterable[tuple[Path, str]]]) -> list[tuple[Path, str]]:
    """What the rows name and is not there, also when the rows are read once more: they may just have changed."""
    first = {path for path, _ in look() if not path.exists()}
    return [(path, problem) for path, problem in look() if path in first and not path.exists()] if first else []


def _leftovers(home: Home, store: StateStore) -> Iterator[Finding]:
    for session in store.list_sessions():
        for removal in unnamed_states(home, store, session.session_id):
            yield Finding(str(removal.path), removal.why, _PRUNE, False)
    for removal in unneeded_models(home, store, pruned=True):
        yield Finding(str(removal.path), removal.why, _PRUNE, False)
    for look in (unneeded_models(home, store, pruned=False), unknown_sessions(home, store)):
        for removal in look:
            yield Finding(str(removal.path), removal.why, _ORPHAN, False)
