"""The result of an SQL query on SQLite or PostgreSQL."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedpkg.analytics.databases import has_password, let_only_read, without_password
from fedpkg.analytics.parquet import quoted
from fedpkg.data.sources.base import Dataset
from fedpkg.data.sources.csv import load_csv
from fedpkg.data.sources.registry import register_dataset
from fedpkg.data.sources.rows import TableSource, loaded
from fedpkg.errors import DataError

_ROWS_AT_ONCE = 65_536
_ONE_SELECT = "write one SELECT (or WITH … SELECT), without ';'; nothing may be written"


@register_dataset("sql")
@dataclass(frozen=True)
class Sql(TableSource):
    """The rows of one SELECT. The database is only read, and all rows come from one moment.

    Needs the extra `[tabular]`; PostgreSQL also needs psycopg. Rows travel as text in large pieces.

    Args:
        database: Path of an SQLite file, or postgresql://user@host/name. A password comes from PGPASSWORD or ~/.pgpass.
        query: The SELECT. Add ORDER BY: otherwise the order of the rows, and so the split, may change.
        label: The column of the labels.
        features: The columns of x. null: all columns but the label and those in `other`.
        other: Columns that are not features. That of `partition.by` need not be listed.
    """

    database: str
    query: str
    label: str = "label"
    features: list[str] | None = None
    other: Sequence[str] = ()

    def read(self) -> Dataset:
        is_server = self.database.startswith(("postgresql://", "postgres://"))
        copy: Callable[[Path], None] = self._copy_postgresql if is_server else self._copy_sqlite
        with tempfile.TemporaryDirectory(prefix="fedpkg-sql-") as folder:
            path = Path(folder) / "rows.csv"
            copy(path)
            with loaded(self._source, lambda connection: load_csv(connection, path)) as rows:
                return rows.dataset(self.label, self.features, self.other)

    @property
    def _source(self) -> str:
        return f"dataset {without_password(self.database)}"

    def _refused(self, error: Exception) -> DataError:
        first = str(error).strip().splitlines()
        return DataError(
            f"{self._source}: the query failed: {first[0] if first else type(error).__name__}",
            hint=_ONE_SELECT,
            query=self.query,
        )

    def _copy_sqlite(self, path: Path) -> None:
        file = Path(self.database)
        if not file.is_file():
            raise DataError(f"{self._source}: no such file", hint="database is the path of an SQLite file")
        connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True)
        try:
            # The query alone first: SQLite asks for each thing that it would do, also in a WITH or a sub-query.
            let_only_read(connection)
            names = [column[0] for column in connection.execute(self.query).description or ()]
            connection.set_authorizer(None)
            columns = [f"c{number}" for number in range(len(names))]
            connection.execute("PRAGMA temp_store = FILE")
            connection.execute(
                f"CREATE TEMP TABLE rows AS WITH q({', '.join(columns)}) AS ({self.query}\n) SELECT * FROM q"
            )
            self._write(connection, names, columns, path)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._refused(error) from error
        finally:
            connection.close()

    def _write(self, connection: sqlite3.Connection, names: list[str], columns: list[str], path: Path) -> None:
        """Write the rows as CSV, which SQLite makes itself: one text for many rows."""
        line = " || ',' || ".join(map(_as_csv, columns))
        query = f"SELECT group_concat({line}, char(10)) FROM rows WHERE rowid BETWEEN ? AND ?"
        last = connection.execute("SELECT max(rowid) FROM rows").fetchone()[0] or 0
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(",".join(map(quoted, names)) + "\n")
            for start in range(1, last + 1, _ROWS_AT_ONCE):
                text = connection.execute(query, (start, start + _ROWS_AT_ONCE - 1)).fetchone()[0]
                file.write(f"{text}\n")

    def _copy_postgresql(self, path: Path) -> None:
        try:
            is_secret = has_password(self.database)
        except ValueError as error:
            raise DataError(f"{self._source}: the address of the database is wrong: {error}") from error
        if is_secret:
            raise DataError(
                f"{self._source}: the address of the database has a password, which would be stored",
                hint="set PGPASSWORD, or write it to ~/.pgpass",
            )
        try:
            import psycopg
        except ImportError as error:
            raise DataError(
                f"{self._source}: psycopg is not installed", hint="pip install 'psycopg[binary]'"
            ) from error
        try:
            with psycopg.connect(self.database) as connection, open(path, "wb") as file:
                connection.read_only = True
                query: Any = f"SELECT * FROM ({self.query}\n) AS q"
                connection.execute(f"{query} LIMIT 0", prepare=True)  # a prepared statement is one statement
                with connection.cursor().copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)") as copy:
                    for block in copy:
                        file.write(block)
        except psycopg.OperationalError as error:
            first = str(error).strip().splitlines()[0]
            raise DataError(
                f"{self._source}: no connection: {first}", hint="check the address of the database"
            ) from error
        except psycopg.Error as error:
            raise self._refused(error) from error


def _as_csv(column: str) -> str:
    """An SQL expression: the value as a field of a CSV file; nothing for NULL."""
    return (
        f"CASE typeof({column}) WHEN 'null' THEN '' WHEN 'integer' THEN {column} "
        f"WHEN 'real' THEN printf('%!.17g', {column}) ELSE '\"' || replace({column}, '\"', '\"\"') || '\"' END"
    )
