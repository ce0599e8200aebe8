"""The protocol of a backend of the state store, and the migration of its schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from fedpkg.errors import OtherSchema, StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
RESTORE = "restore a copy of the database; `fedpkg home check` checks the rest of the home"
Parameters = Mapping[str, Any]


class Reader(Protocol):
    def rows(self, sql: str, parameters: Parameters = ..., /) -> list[Sequence[Any]]:
        """All rows of one statement."""

    def has_table(self, name: str, /) -> bool: ...


class Transaction(Reader, Protocol):
    """Statements that take effect together."""

    def run(self, sql: str, parameters: Parameters = ..., /) -> int:
        """Run a statement; return the number of changed rows."""

    def run_many(self, sql: str, parameters: Sequence[Parameters], /) -> int:
        """Run a statement once per set of parameters; return the total number of changed rows."""


class Database(Reader, Protocol):
    """A backend. All methods may be called from any thread."""

    @property
    def where(self) -> str:
        """The database's name for messages."""

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[Transaction]:
        """A writing transaction, one at a time; with ``durable``, it survives a power cut once the block has ended."""

    def version(self) -> int:
        """A number that changes when another connection commits."""

    def check(self) -> list[str]:
        """The problems that the database's own check reports."""

    def keep_copy(self, version: int) -> None:
        """Keep a copy of the database, whose schema has this version. An open transaction must not have changed it.

        Raises:
            StoreError: there is no space for the copy.
        """

    def close(self) -> None: ...


def migrate(database: Database, *, folder: Path = MIGRATIONS, read_only: bool = False) -> None:
    """Bring the schema up to the newest of ``folder``'s ``NNNN_name.sql``, each in a transaction of its own.

    A copy of a database that is not empty is kept before its first change.

    Raises:
        OtherSchema: a newer fedpkg wrote the database, or it is older and ``read_only``.
        StoreError: it is empty and ``read_only``, or its version is not a number.
    """
    migrations = {int(path.name[:4]): path for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))}
    newest = max(migrations)
    version = _schema_version(database)
    if version > newest:
        raise OtherSchema(
            f"{database.where} was written by a newer fedpkg: its schema is {version}, the newest known is {newest}",
            hint="upgrade fedpkg, or use another --home",
            version=version,
        )
    if version == newest:
        return
    if read_only and version == 0:
        raise StoreError(
            f"{database.where} is empty: it is damaged, or was copied without the file {database.where}-wal",
            hint="restore a copy of it, with its -wal file",
        )
    if read_only:
        raise OtherSchema(
            f"{database.where} was written by an older fedpkg: its schema is {version}, the current one {newest}",
            hint="run or resume a session in this home once, which migrates the database",
            version=version,
        )
    for number, path in migrations.items():
        with database.transaction() as transaction:
            if _schema_version(transaction) >= number:  # another process has migrated it meanwhile
                continue
            if version:
                database.keep_copy(version)
                version = 0  # one copy, before the first migration
            for statement in _statements(path.read_text(encoding="utf-8")):
                transaction.run(statement)
            transaction.run(
                "insert into schema_version (only_row, version) values (1, :version)"
                " on conflict (only_row) do update set version = excluded.version",
                {"version": number},
            )


def _schema_version(reader: Reader) -> int:
    if not reader.has_table("schema_version"):
        return 0
    rows = reader.rows("select version from schema_version")
    version = rows[0][0] if rows else 0
    if not isinstance(version, int):
        raise StoreError(f"the database is damaged: its schema_version is {version!r:.100}", hint=RESTORE)
    return version


def _statements(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]
