"""Whether a home is whole: the database, the digests of models and packages, and rows and files that must agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedpkg.errors import OtherSchema, StoreError
from fedpkg.files import sha256_file
from fedpkg.stores.base import SessionRow, StateStore
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.prune import (
    model_files,
    packages,
    size_of,
    temporary_files,
    unknown_sessions,
    unnamed_states,
    unneeded_models,
    unneeded_packages,
)
from fedpkg.stores.sqlite import SqliteStore

_RESTORE = "put back a copy; or run the session again: the same configuration and seed make the same"
_UNPACK = "unpack the same archive (or folder) again: fedpkg package inspect ARCHIVE"
_PRUNE = "`fedpkg home prune` removes it"
_ORPHAN = "if no copy of state.db knows it, `fedpkg home prune --orphans` removes it"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. What is not damaged is only in the way."""

    place: str
    problem: str
    advice: str
    damaged: bool


@dataclass
class Checkup:
    """What a check has looked at, and found."""

    sessions: int = 0
    models: int = 0
    packages: int = 0
    size_bytes: int = 0  # of the models and packages
    leftovers: bool = True  # whether they were looked for
    findings: list[Finding] = field(default_factory=list)


def check_home(home: Home, *, package_problems: Callable[[Path], list[str]]) -> Checkup:
    """Look at everything, change nothing.

    A controller may be at work meanwhile: what seems to be missing is looked at again, and as what it is just writing
    cannot be told from what was left behind, leftovers are then not looked for.

    Args:
        package_problems: what is not as it was unpacked in a folder of the package cache.

    Raises:
        OtherSchema: the database is of an older or a newer fedpkg, so nothing can be said.
    """
    holder = home.holder()
    checkup = Checkup(leftovers=holder is None or not holder.is_alive())
    found = checkup.findings
    used: set[str] | None = None  # packages of sessions, if that is known
    if home.state_db.exists() or any(home.sessions.glob("*")) or any(model_files(home)):
        try:
            with SqliteStore(home.state_db, read_only=True) as store:
                sessions = store.list_sessions()
                used = {session.package_digest for session in sessions}
                checkup.sessions = len(sessions)
                for problem in store.check():
                    found.append(Finding(str(home.state_db), problem, "put back a copy of it", True))
                found += _missing_models(home, store)
                found += _missing_packages(home, sessions)
                for session in sessions:
                    found += _session(home, store, session)
                if checkup.leftovers:
                    found += _leftovers(home, store)
        except OtherSchema:
            raise
        except StoreError as error:
            found.append(Finding(str(home.state_db), error.message, error.hint or "put back a copy of it", True))
    found += _damaged_models(home, checkup)
    for path in packages(home):
        if used is None or path.name in used:  # others are leftovers
            checkup.packages += 1
            checkup.size_bytes += size_of(path)
            problems = package_problems(path)
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            if problems:
                found.append(Finding(str(path), "; ".join(problems[:3]) + more, f"remove it, then {_UNPACK}", True))
    if checkup.leftovers:
        for removal in temporary_files(home):
            found.append(Finding(str(removal.path), removal.why, _PRUNE, False))
    return checkup


def _damaged_models(home: Home, checkup: Checkup) -> Iterator[Finding]:
    for path in model_files(home):
        try:
            digest = sha256_file(path)
            checkup.models += 1
            checkup.size_bytes += size_of(path)
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


def _missing_packages(home: Home, sessions: list[SessionRow]) -> Iterator[Finding]:
    for digest in sorted({session.package_digest for session in sessions if session.status != "finished"}):
        if not (home.packages / digest).is_dir():
            path = str(home.packages / digest)
            yield Finding(path, "the unpacked package of a session that is not finished is missing", _UNPACK, True)


def _session(home: Home, store: StateStore, session: SessionRow) -> Iterator[Finding]:
    session_id, folder = session.session_id, home.session_folder(session.session_id)
    rounds = store.list_rounds(session_id)
    if rounds and not folder.is_dir():
        yield Finding(str(folder), f"the folder of session {session_id} is missing", _RESTORE, True)
        return

    if session.status != "finished":
        store.load_strategy_state(session_id)  # raises, if it cannot be read

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
    for look in (unneeded_models(home, store, pruned=True), unneeded_packages(home, store)):
        for removal in look:
            yield Finding(str(removal.path), removal.why, _PRUNE, False)
    for look in (unneeded_models(home, store, pruned=False), unknown_sessions(home, store)):
        for removal in look:
            yield Finding(str(removal.path), removal.why, _ORPHAN, False)
