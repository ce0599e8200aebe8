"""Delayed writes of rows of tasks and requests: one transaction for all that end at about the same time."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from fedpkg.errors import StoreError
from fedpkg.stores.base import RequestRow, TaskRow, UpdateRow, ValidationRow
from fedpkg.stores.database import Database, Parameters, Transaction
from fedpkg.stores.tables import REQUESTS, TASKS, UPDATES, VALIDATIONS

WITHIN_S = 0.05  # longest delay of a row


class TaskRecord(NamedTuple):
    """All rows of one task, as parameters of statements."""

    task: Parameters
    update: Parameters | None
    validation: Parameters | None

    @property
    def key(self) -> Hashable:
        return str(self.task["task_id"])

    @classmethod
    def of(cls, task: TaskRow, update: UpdateRow | None, validation: ValidationRow | None) -> TaskRecord:
        """Raises StoreError: a value cannot be stored."""
        return cls(
            TASKS.encode(task),
            None if update is None else UPDATES.encode(update),
            None if validation is None else VALIDATIONS.encode(validation),
        )


class RequestRecord(NamedTuple):
    """The row of one request, as parameters of a statement."""

    request: Parameters

    @property
    def key(self) -> Hashable:
        return tuple(self.request[column] for column in REQUESTS.key)

    @classmethod
    def of(cls, request: RequestRow) -> RequestRecord:
        """Raises StoreError: a value cannot be stored."""
        return cls(REQUESTS.encode(request))


Record: TypeAlias = TaskRecord | RequestRecord


def write(database: Database, given: Sequence[Record]) -> None:
    """Write records in one transaction; each replaces earlier rows with its task's or request's key."""
    records = [record for record in given if isinstance(record, TaskRecord)]
    tasks = [record.task for record in records]
    with database.transaction() as transaction:
        transaction.run_many(REQUESTS.upsert, [one.request for one in given if isinstance(one, RequestRecord)])
        transaction.run_many("delete from updates where task_id = :task_id", tasks)
        transaction.run_many("delete from validations where task_id = :task_id", tasks)
        transaction.run_many(TASKS.upsert, tasks)
        transaction.run_many(UPDATES.insert, [record.update for record in records if record.update])
        transaction.run_many(VALIDATIONS.insert, [record.validation for record in records if record.validation])


class WriteBehind:
    """A database with a queue of records, which are written before any other read or write.

    If the process is killed, records in the queue are lost: their tasks count as in flight, and run again.
    If they cannot be written, they stay in the queue, and each call of a method raises the reason until they are
    written, so that no caller builds on them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.where = database.where
        self._waiting: dict[Hashable, Record] = {}  # by key: of a task or request, only the last record is written
        self._changed = threading.Condition()  # guards the attributes above and below
        self._error: StoreError | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._writing = threading.Lock()  # so that `flush` also waits for a write in another thread

    def add(self, record: Record) -> None:
        self._raise_error()
        if self._closed:  # the database raises the error
            write(self._database, [record])
            return
        with self._changed:
            self._waiting.pop(record.key, None)
            self._waiting[record.key] = record
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fedpkg-write-behind", daemon=True)
                self._thread.start()
            if len(self._waiting) == 1:  # otherwise the thread is awake already
                self._changed.notify()

    def flush(self) -> None:
        """Write all records in the queue.

        Raises:
            StoreError: they cannot be written, or earlier records could not.
        """
        if self._thread is not None:
            self._write()
            self._raise_error()

    def close(self) -> None:
        """Flush, end the thread, and close the database."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        try:
            if self._thread is not None:
                self._thread.join()
                self.flush()
                self._thread = None
        finally:
            self._database.close()

    def rows(self, sql: str, parameters: Parameters = MappingProxyType({}), /) -> list[Sequence[Any]]:
        self.flush()
        return self._database.rows(sql, parameters)

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[Transaction]:
        self.flush()
        return self._database.transaction(durable=durable)

    def has_table(self, name: str, /) -> bool:
        return self._database.has_table(name)

    def version(self) -> int:
        return self._database.version()

    def check(self) -> list[str]:
        self.flush()
        return self._database.check()

    def _run(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(lambda: self._closed, timeout=WITHIN_S)
            self._write()

    def _write(self) -> None:
        with self._writing:
            with self._changed:
                records, self._waiting = self._waiting, {}
            try:
                if records:
                    write(self._database, list(records.values()))
                self._error = None
            except BaseException as error:  # also Ctrl-C
                with self._changed:
                    self._waiting = records | self._waiting
                if not isinstance(error, StoreError):
                    raise
                self._error = error

    def _raise_error(self) -> None:
        if (error := self._error) is not None:
            raise error
