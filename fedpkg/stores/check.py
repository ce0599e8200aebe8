"""Check a home: the database, the digests of models and packages, and that rows and files agree."""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedpkg.errors import OtherSchema, StoreError
from fedpkg.files import sha256_file, tree_checksum
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.leftovers import never_begun, of_sessions, temporary_files, unknown_sessions
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store
from fedpkg.stores.prune import (
    dataset_copies,
    half_unpacked,
    model_files,
    packages,
    size_of,
    unneeded_models,
    unneeded_packages,
)
from fedpkg.stores.sql import StateStore
from fedpkg.waist.place import REPLY, STATES_ELSEWHERE, states_folder

_RESTORE = "restore it from a copy; or run the session again: the same configuration and seed give the same results"
_UNPACK = "unpack the same archive (or folder) again: fedpkg package inspect ARCHIVE"
_PRUNE = "`fedpkg home prune` removes it"
_ORPHAN = "if it is in no copy of state.db either, `fedpkg home prune --orphans` removes it"


@dataclass(frozen=True)
class Finding:
    """A problem in a home. If it is not damage, it is a leftover that only takes space."""

    place: str
    problem: str
    advice: str
    damaged: bool


@dataclass
class Checkup:
    """What a check has examined, and its findings."""

    sessions: int = 0
    models: int = 0
    packages: int = 0
    states: int = 0  # number of versions of clients' states
    replies: int = 0  # recorded replies that are kept, or that a session needs to be resumed
    data_files: int = 0  # files of clients' data that fedpkg has split
    size_bytes: int = 0  # of all files above
    leftovers: bool = True  # whether the check looked for them
    findings: list[Finding] = field(default_factory=list)


def check_home(
    home: Home,
    *,
    package_problems: Callable[[Path], list[str]],
    unneeded_copies: Callable[[Path], list[Path]] = lambda _data: [],
) -> Checkup:
    """Check everything, without changing anything.

    A controller may be running meanwhile: what seems to be missing is then checked again. Files that it is writing
    look like leftovers, so the check does not look for leftovers then.

    Args:
        package_problems: lists the differences between a folder of the package cache and the unpacked package.
        unneeded_copies: lists the copies of datasets in the home's folder of data that no split needs.

    Raises:
        OtherSchema: the database was written by an older or a newer fedpkg, so it cannot be checked.
    """
    holder = home.holder()
    checkup = Checkup(leftovers=holder is None or not holder.is_alive())
    found = checkup.findings
    used: set[str] | None = None  # packages of sessions, if the database can be read
    if home.state_db.exists() or any(home.sessions.glob("*")) or any(model_files(home)):
        try:
            with open_store(home, read_only=True) as store:
                sessions = store.list_sessions()
                used = {session.package_digest for session in sessions}
                checkup.sessions = len(sessions)
                for problem in store.check():
                    found.append(Finding(str(home.state_db), problem, "put back a copy of it", True))
                found += _missing_models(home, store)
                found += _missing_packages(home, sessions)
                for session in sessions:
                    found += _session(home, store, session, checkup)
                found += _damaged_data(home, store, sessions, checkup)
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
            found += _package(path, package_problems(path))
    if checkup.leftovers:
        for removal in (*temporary_files(home), *half_unpacked(home), *dataset_copies(unneeded_copies(home.data))):
            found.append(Finding(str(removal.path), removal.why, _PRUNE, False))
    return checkup


def _package(path: Path, problems: list[str]) -> Iterator[Finding]:
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        yield Finding(str(path), "; ".join(problems[:3]) + more, f"remove it, then {_UNPACK}", True)


def _damaged_models(home: Home, checkup: Checkup) -> Iterator[Finding]:
    for path in model_files(home):
        try:
            digest = sha256_file(path)
            checkup.models += 1
            checkup.size_bytes += size_of(path)
        except FileNotFoundError:  # just pruned
            continue
        except OSError as error:
            yield Finding(str(path), f"cannot be read: {error.strerror}", _RESTORE, True)
            continue
        if digest != path.name[:64]:
            yield Finding(
                str(path), f"its bytes changed: their digest is {digest[:12]}", f"remove it and {_RESTORE}", True
            )


def _missing_models(home: Home, store: StateStore) -> list[Finding]:
    files = ModelStore(home.models)

    def claims() -> Iterator[_Claim]:
        models = store.list_kept_models()
        for model in models:
            path = files.path(model.digest, model.suffix)
            yield _Claim(path, "", f"the file of model {model.model_id}", _RESTORE)
        for digest in sorted(store.state_digests() - {model.digest for model in models}):
            folder = home.models / digest[:2]
            path = next(folder.glob(f"{digest}.*"), folder / digest)
            yield _Claim(path, "", "a file that is named in a strategy's state", _RESTORE)

    return _broken(claims)[1]


def _missing_packages(home: Home, sessions: list[SessionRow]) -> Iterator[Finding]:
    for digest in sorted({session.package_digest for session in sessions if session.status != "finished"}):
        if not (home.packages / digest).is_dir():
            path = str(home.packages / digest)
            yield Finding(path, "the unpacked package of a session that is not finished is missing", _UNPACK, True)


def _session(home: Home, store: StateStore, session: SessionRow, checkup: Checkup) -> Iterator[Finding]:
    session_id, folder = session.session_id, home.session_folder(session.session_id)
    if store.count_rounds(session_id) and not folder.is_dir():
        yield Finding(str(folder), f"the folder of session {session_id} is missing", _RESTORE, True)
        return

    if session.status != "finished":
        store.load_strategy_state(session_id)  # raises, if it cannot be read

    def data() -> Iterator[_Claim]:
        for client in store.list_clients(session_id):
            if client.data_path is not None and session.status != "finished":
                what = f"the data of {client.client_id}, which session {session_id} needs to be resumed,"
                yield _Claim(home.root / client.data_path, "", what, _RESTORE)

    yield from _broken(data)[1]
    if not (folder / STATES_ELSEWHERE).exists():
        yield from _damaged_states(folder, store, session_id, checkup)
    yield from _damaged_replies(home, store, session, checkup)


def _damaged_states(folder: Path, store: StateStore, session_id: str, checkup: Checkup) -> Iterator[Finding]:
    """Committed states that are missing, or whose bytes have changed."""

    def claims() -> Iterator[_Claim]:
        for task in store.list_tasks(session_id, round_number=0):
            if task.state_version is not None:
                path = states_folder(folder, task.client_id) / task.state_version
                what = f"the state from '{task.entry_point}' for all clients of session {session_id}"
                yield _Claim(path, task.state_checksum, what, _RESTORE)
        checksums: dict[int, dict[tuple[str, str | None], str]] = {}  # by round
        for client in store.list_clients(session_id):
            if client.state_version is None:
                continue
            number = int(client.state_version.partition("-")[0])
            if number not in checksums:
                tasks = store.list_tasks(session_id, round_number=number)
                checksums[number] = {(task.client_id, task.state_version): task.state_checksum for task in tasks}
            path = states_folder(folder, client.client_id) / client.state_version
            checksum = checksums[number].get((client.client_id, client.state_version), "")
            yield _Claim(path, checksum, f"the state of {client.client_id} in session {session_id}", _RESTORE)

    first, found = _broken(claims)
    checkup.states += len(first)
    checkup.size_bytes += sum(map(size_of, first))
    yield from found


def _damaged_replies(home: Home, store: StateStore, session: SessionRow, checkup: Checkup) -> Iterator[Finding]:
    """Damaged or missing replies and states of rounds that are not committed, and kept updates."""
    session_id, folder = session.session_id, home.session_folder(session.session_id)
    resume = f"nothing is lost: `fedpkg session resume {session_id}` runs the task again"
    keeps_updates = session.config.get("keep", {}).get("updates")
    has_states = not (folder / STATES_ELSEWHERE).exists()

    def claims() -> Iterator[_Claim]:
        for row in store.list_rounds(session_id):
            is_committed = row.status in ("aggregated", "finished")
            if is_committed and not keeps_updates:
                continue
            updates = {update.task_id: update for update in store.list_updates(session_id, row.round_number)}
            for task in store.list_tasks(session_id, round_number=row.round_number) if updates else ():
                if (update := updates.get(task.task_id)) is None:
                    continue
                whose = f"of {task.client_id} in session {session_id}, round {row.round_number}"
                place = (home.root / update.path).parent
                what = "a kept update" if is_committed else "the recorded reply"
                advice = _RESTORE if is_committed else resume
                yield _Claim(place, update.checksum, f"{what} {whose}", advice)
                if has_states and not is_committed and task.state_version is not None:
                    state = states_folder(folder, task.client_id) / task.state_version
                    yield _Claim(state, task.state_checksum, f"the uncommitted state {whose}", advice)

    first, found = _broken(claims)
    replies = [path for path in first if path.suffix == REPLY]
    checkup.replies += len(replies)
    checkup.states += len(first) - len(replies)
    checkup.size_bytes += sum(map(size_of, first))
    yield from found


@dataclass(frozen=True)
class _Claim:
    """A folder as recorded in rows; without a checksum, only its existence is checked."""

    path: Path
    checksum: str
    what: str
    advice: str

    def problem(self) -> str:
        try:
            if self.checksum and tree_checksum(self.path) != self.checksum:
                return f"{self.what} is damaged: its bytes changed"
        except OSError as error:
            return f"{self.what} cannot be read: {error.strerror}" if self.path.exists() else f"{self.what} is missing"
        return "" if self.path.exists() else f"{self.what} is missing"


def _broken(claims: Callable[[], Iterator[_Claim]]) -> tuple[list[Path], list[Finding]]:
    """The checked paths, and the problems that a second look at rows and files confirms."""
    first = {claim.path: claim.problem() for claim in claims()}
    if not any(first.values()):
        return list(first), []
    again = [(claim, claim.problem()) for claim in claims() if first.get(claim.path)]
    return list(first), [Finding(str(claim.path), problem, claim.advice, True) for claim, problem in again if problem]


def _damaged_data(home: Home, store: StateStore, sessions: list[SessionRow], checkup: Checkup) -> Iterator[Finding]:
    """Clients' data files that fedpkg has written: each .npz has a checksum for every array."""
    paths = {
        home.root / client.data_path
        for session in sessions
        for client in store.list_clients(session.session_id)
        if client.data_path is not None
        and client.data_path.endswith(".npz")
        and not Path(client.data_path).is_absolute()
    }
    for path in sorted(path for path in paths if path.is_file()):
        checkup.data_files += 1
        checkup.size_bytes += size_of(path)
        try:
            with zipfile.ZipFile(path) as archive:
                array = archive.testzip()
            problem = "" if array is None else f"its array '{array.removesuffix('.npy')}' is damaged"
        except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
            problem = f"it cannot be read: {error}"
        if problem:
            advice = f"remove the folder {path.parent}: the next run with this data and seed writes the same files"
            yield Finding(str(path), problem, advice, True)


def _leftovers(home: Home, store: StateStore) -> Iterator[Finding]:
    prunable = (
        of_sessions(home, store, store.list_sessions(), all_rounds=True),
        never_begun(home, store),
        unneeded_models(home, store, pruned=True),
        unneeded_packages(home, store),
    )
    orphans = (unneeded_models(home, store, pruned=False), unknown_sessions(home, store))
    for looks, advice in ((prunable, _PRUNE), (orphans, _ORPHAN)):
        for removal in itertools.chain(*looks):
            yield Finding(str(removal.path), removal.why, advice, False)
