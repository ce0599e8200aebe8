"""What a backend of the state store provides, and bringing its schema up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from fedpkg.errors import OtherSchema, StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
RESTORE = "put back a copy of the database; `fedpkg home check` looks at the rest of the home"
Parameters = Mapping[str, Any]


class Reader(Protocol):
    def rows(self, sql: str, parameters: Parameters = ..., /) -> list[Sequence[Any]]:
        """All rows of one statement."""

    def has_table(self, name: str, /) -> bool: ...


class Transaction(Reader, Protocol):
    """Statements that take effect together."""

    def run(self, sql: str, parameters: Parameters = ..., /) -> int:
        """Run a statement; return how many rows it changed."""

    def run_many(self, sql: str, parameters: Sequence[Parameters], /) -> int:
        """Run a statement once per set of parameters; return how many rows they changed together."""


class Database(Reader, Protocol):
    """What a backend provides. Everything may be called from any thread."""

    @property
    def where(self) -> str:
        """Which database this is, for messages."""

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[Transaction]:
        """Writing, one transaction at a time; ``durable``: when the block ends it would survive a power cut."""

    def check(self) -> list[str]:
        """What the database finds wrong with itself."""

    def keep_copy(self, version: int) -> None:
        """Keep a copy of the database, whose schema has this version; it may be in a transaction that changed nothing.

        Raises:
            StoreError: there is no room for it.
        """

    def close(self) -> None: ...


def migrate(database: Database, *, folder: Path = MIGRATIONS, read_only: bool = False) -> None:
    """Bring the schema up to the newest of ``folder``'s ``NNNN_name.sql``, each in a transaction of its own.

    Before the first change of a database that holds something, a copy of it is kept.

    Raises:
        OtherSchema: a newer fedpkg wrote the database, or it is older and ``read_only``.
        StoreError: it is empty and ``read_only``, or its version is no number.
    """
    migrations = {int(path.name[:4]): path for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))}
    newest = max(migrations)
    version = _schema_version(database)
    if version > newest:
        raise OtherSchema(
            f"{database.where} was written by a newer fedpkg: its schema is {version}, this one knows up to {newest}",
            hint="upgrade fedpkg, or use another --home",
            version=version,
        )
    if version == newest:
        return
    if read_only and version == 0:
        raise StoreError(
            f"{database.where} holds nothing: it is damaged, or was copied without the file {database.where}-wal",
            hint="put back a copy of it, with its -wal file",
        )
    if read_only:
        raise OtherSchema(
            f"{database.where} was written by an older fedpkg: its schema is {version}, this one reads {newest}",
            hint="run or resume a session in this home once: that brings the database up to date",
            version=version,
        )
    for number, path in migrations.items():
        with database.transaction() as transaction:
            if _schema_version(transaction) >= number:  # another process was faster
                continue
            if version:
                database.keep_copy(version)
                version = 0  # one copy, of before the first migration
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
