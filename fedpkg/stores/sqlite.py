"""The state store in one SQLite file: connections, transactions, and the meaning of its errors."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fedpkg.errors import StoreError
from fedpkg.files import atomic_write, is_full
from fedpkg.stores.sql import StateStore

BUSY_TIMEOUT_S = 30.0


class SqliteStore(StateStore):
    """The state store in one file; see ``StateStore``.

    Args:
        path: the database, created if absent; its folder must exist.
        read_only: for reading while a controller writes; never blocks it, and nothing is created or migrated.
        clock: the time for ``updated_at``.
    """

    def __init__(self, path: Path, *, read_only: bool = False, clock: Callable[[], float] = time.time) -> None:
        database = SqliteDatabase(path, read_only=read_only)
        try:
            super().__init__(database, read_only=read_only, clock=clock)
        except BaseException:
            database.close()
            raise


class SqliteDatabase:
    """One connection in WAL mode, shared by the threads of a process under a lock.

    With ``synchronous=normal`` a commit needs no fsync: it survives a kill of the process, not a power cut. A durable
    transaction uses ``full``; as the log is written in order, all earlier transactions are then on disk too.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.where = str(path)
        self._lock = threading.RLock()
        if read_only and not path.exists():
            raise StoreError(
                f"there is no state database at {path}", hint="run a session first, or select another home with --home"
            )
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no file"
            raise StoreError(
                f"{path} is {what}, where the state database should be",
                hint="move it away, or use another --home",
                path=str(path),
            )
        uri = path.absolute().as_uri()
        with self._naming_errors():
            if not read_only:
                self._connection = self._connect(uri, self._prepare_for_writing)
                return
            try:
                self._connection = self._connect(f"{uri}?mode=ro", self._probe)
            except sqlite3.OperationalError:
                # A reader creates the log's index too. If it may not (another user's home) and there is no log, no
                # process is writing and the file can be read as it is.
                if path.with_name(f"{path.name}-wal").exists():
                    raise
                self._connection = self._connect(f"{uri}?mode=ro&immutable=1", self._probe)

    def _connect(self, uri: str, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        # isolation_level None: only this class starts transactions.
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _probe(connection: sqlite3.Connection) -> None:
        connection.execute("select count(*) from sqlite_master").fetchall()

    @staticmethod
    def _prepare_for_writing(connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while connection.execute("pragma journal_mode").fetchone()[0] != "wal":
            # SQLite does not wait for locks here: two processes that open a new file at once collide.
            try:
                connection.execute("pragma journal_mode = wal")
                break  # without shared memory on the file system, another mode remains
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        connection.execute("pragma synchronous = normal")
        connection.execute("pragma foreign_keys = on")

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[SqliteDatabase]:
        with self._lock, self._naming_errors():
            try:
                if durable:  # cannot be changed inside a transaction
                    self._connection.execute("pragma synchronous = full")
                # Immediate, because a transaction that reads first and writes later could not wait for another writer.
                self._connection.execute("begin immediate")
                yield self
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has already ended some failed transactions
                    self._connection.execute("rollback")
                raise
            finally:
                if durable:
                    self._connection.execute("pragma synchronous = normal")

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None, /) -> list[Sequence[Any]]:
        with self._lock, self._naming_errors():
            return self._connection.execute(sql, parameters or {}).fetchall()

    def run(self, sql: str, parameters: Mapping[str, Any] | None = None, /) -> int:
        with self._lock, self._naming_errors():
            return self._connection.execute(sql, parameters or {}).rowcount

    def run_many(self, sql: str, parameters: Sequence[Mapping[str, Any]], /) -> int:
        with self._lock, self._naming_errors():
            return self._connection.executemany(sql, parameters).rowcount if parameters else 0

    def version(self) -> int:
        return int(self.rows("pragma data_version")[0][0])

    def check(self) -> list[str]:
        problems = [str(row[0]) for row in self.rows("pragma integrity_check")]
        for table, _row, parent, _key in self.rows("pragma foreign_key_check"):
            problems.append(f"a row of {table} refers to a row of {parent} that does not exist")
        return [problem for problem in problems if problem != "ok"]

    def keep_copy(self, version: int) -> None:
        """The copy is ``state.schema-<version>.db`` beside ``state.db``."""
        path = Path(self.where)
        copy = path.with_name(f"{path.stem}.schema-{version}{path.suffix}")
        try:
            with (  # SQLite cannot copy through a connection that is in a transaction
                self._naming_errors(),
                atomic_write(copy) as file,
                closing(self._connect(f"{path.absolute().as_uri()}?mode=ro", self._probe)) as source,
                closing(sqlite3.connect(file.name)) as target,
            ):
                source.backup(target)
        except OSError as error:
            raise StoreError(
                f"{copy}: the database cannot be copied before its schema is changed: {error.strerror}",
                hint=_HINTS["space"],
                path=str(copy),
            ) from error

    def has_table(self, name: str, /) -> bool:
        return bool(self.rows("select 1 from sqlite_master where type = 'table' and name = :name", {"name": name}))

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            raise _store_error(error, self.where) from error


# Python 3.10 has no error codes on these exceptions, so they are identified by SQLite's messages.
_MEANINGS = {
    "not a database": ("is not a database, or is damaged", "restore"),
    "malformed": ("is damaged", "restore"),
    "is full": ("cannot grow: the disk is full", "space"),
    "disk i/o error": ("cannot be read or written", "space"),
    "unable to open": ("cannot be opened", "access"),
    "readonly": ("cannot be written", "access"),
    "is locked": (f"has been locked by another program for more than {BUSY_TIMEOUT_S:.0f} s", "unlock"),
    "unique constraint": ("already has a row with this key", None),
    "constraint failed": ("refuses a row that is inconsistent with others", None),
}
_HINTS = {
    "restore": "restore a copy, or move it away with its -wal and -shm files and start anew; models/ is untouched",
    "space": "free space or raise the quota, then `fedpkg session resume`; all reported results are stored",
    "access": "check that its folder exists and that you may write in it, or use another --home",
    "unlock": "close the program that has it open, then `fedpkg session resume`",
}


def _store_error(error: Exception, where: str) -> StoreError:
    said = str(error)
    if isinstance(error, sqlite3.OperationalError) and "is full" not in said and is_full(Path(where).parent):
        said = f"the disk is full: {said}"  # SQLite does not report it for every file that it cannot create
    for words, (meaning, hint) in _MEANINGS.items():
        if words in said.lower():
            return StoreError(f"{where} {meaning}: {said}", hint=hint and _HINTS[hint], path=where)
    return StoreError(f"{where}: {said}", path=where)
