"""Copies of a node's databases without the columns that its policy hides: what isolated algorithms can open.

A view has the type of the original, and is read in the same way: values are copied as they are written, not as numbers.
"""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedpkg.analytics import databases
from fedpkg.analytics.node import Database
from fedpkg.analytics.parquet import metadata, pattern_of, quoted, types_of
from fedpkg.errors import DataError

_VIRTUAL = re.compile(r"CREATE VIRTUAL TABLE\b", re.IGNORECASE)
_FIELDS = re.compile(r"\b(STRUCT|MAP|UNION)\(")  # in the type of a column of a Parquet file
_NOTES = ("column_indexes", "creator", "pandas_version")  # of pandas in such a file
Shows = Callable[[str], bool]  # whether a column may be seen, by its name


def write_view(database: Database, target: Path, shows: Shows, *, about: str) -> None:
    """Write the columns of a database that ``shows`` says may be seen.

    Raises:
        DataError: It cannot be read, or is of a type whose columns cannot be hidden.
    """
    path = databases.path_of(database.uri)
    if path is None:
        raise DataError(
            f"{about}: columns of a database on a server cannot be hidden: a query can give them other names",
            hint="make a view in the database with the columns that may be seen, a user that may read only this view, "
            "and leave the database out of allowed_columns and forbidden_columns",
        )
    if database.kind not in _WRITERS:
        raise DataError(
            f"{about}: a database of type {database.kind} has no columns that a policy could hide",
            hint="name the databases that have them: allowed_columns: {LABEL: [COLUMN]}",
        )
    source = Path(databases.check_path(path, about, is_folder=False))
    try:
        _WRITERS[database.kind](source, target, shows, database.options, about)
    except (OSError, UnicodeError, ValueError, csv.Error, sqlite3.Error) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise DataError(f"{about}: {source}: no view without hidden columns can be made: {what}") from error


def _csv(source: Path, target: Path, shows: Shows, options: Mapping[str, Any], about: str) -> None:
    encoding = options.get("encoding") or "utf-8"
    separator = options.get("separator") or ","
    if len(separator) != 1:
        raise DataError(f"{about}: {source}: the separator {separator!r} must be one character, as columns are hidden")
    csv.field_size_limit(sys.maxsize)
    reading = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    with (
        open(source, encoding=reading, newline="") as given,
        open(target, "w", encoding=encoding, newline="") as out,
    ):
        rows = csv.reader(given, delimiter=separator)
        names = next((row for row in rows if row), None)
        if names is None:
            return
        if len(names) == 1 and options.get("separator") is None and any(mark in names[0] for mark in ";\t|"):
            raise DataError(
                f"{about}: {source} has one column, {names[0][:80]!r}, which is several with another separator",
                hint='set the option separator of the database, such as separator: ";"',
            )
        seen = _seen(names, shows)
        if not seen:
            raise DataError(f"{about}: {source} has no column that may be seen")
        write = csv.writer(out, delimiter=separator, lineterminator="\n")
        write.writerow([names[number] for number in seen])
        for row in rows:
            if not row or (len(names) > 1 and len(row) == 1 and not row[0].strip()):  # pandas passes over such lines
                continue
            if len(row) > len(names):
                raise DataError(
                    f"{about}: {source}, line {rows.line_num}: {len(row)} values for {len(names)} columns",
                    hint="with such a row it is not known which value belongs to which column",
                )
            cells = [row[number] if number < len(row) else "" for number in seen]
            if len(cells) == 1 and not cells[0].strip():
                out.write(f'"{cells[0]}"\n')  # … but not over this value
            else:
                write.writerow(cells)


def _excel(source: Path, target: Path, shows: Shows, options: Mapping[str, Any], about: str) -> None:
    try:
        import openpyxl
    except ImportError as error:
        raise DataError(f"{about}: openpyxl is not installed", hint="pip install 'fedpkg[tabular]'") from error
    given = openpyxl.load_workbook(source, read_only=True, data_only=True)
    out = openpyxl.Workbook(write_only=True)
    for sheet in given.worksheets:
        made = out.create_sheet(sheet.title)
        seen: list[int] | None = None
        for row in sheet.iter_rows(values_only=True):
            if seen is None:
                seen = _seen(["" if name is None else str(name) for name in row], shows)
            made.append([row[number] for number in seen if number < len(row)])
    out.save(target)


def _sqlite(source: Path, target: Path, shows: Shows, options: Mapping[str, Any], about: str) -> None:
    """Every table, and every view as a table. Columns of the same name are hidden in all of them.

    What is computed may have a hidden column under another name. So views are computed from the tables without hidden
    columns, and left out if that is impossible; so are computed columns of a table with hidden ones, and virtual
    tables, whose contents are in tables with columns of other names.
    """
    connection = sqlite3.connect(f"file:{quote(str(target.absolute()))}", uri=True, isolation_level=None)
    try:
        connection.execute("ATTACH DATABASE ? AS given", [f"file:{quote(str(source.absolute()))}?mode=ro"])
        rows = connection.execute("SELECT type, name, sql FROM given.sqlite_master ORDER BY rowid").fetchall()
        virtual = [name for kind, name, sql in rows if kind == "table" and _VIRTUAL.match(sql or "")]
        for kind, table, _ in rows:
            is_of_virtual = any(table == one or table.startswith(f"{one}_") for one in virtual)
            if kind != "table" or table.startswith("sqlite_") or is_of_virtual:
                continue
            told = connection.execute(f"PRAGMA given.table_xinfo({quoted(table)})").fetchall()
            seen = _seen([row[1] for row in told], shows)
            if len(seen) < len(told):
                seen = [number for number in seen if not told[number][6]]  # 2 and 3: a computed column
            if columns := ", ".join(quoted(told[number][1]) for number in seen):
                connection.execute(f"CREATE TABLE {quoted(table)} AS SELECT {columns} FROM given.{quoted(table)}")
        connection.execute("DETACH DATABASE given")
        _as_tables(connection, {name: sql for kind, name, sql in rows if kind == "view"}, shows)
    finally:
        connection.close()


def _as_tables(connection: sqlite3.Connection, views: Mapping[str, str], shows: Shows) -> None:
    """Make tables of the views that can be computed from the tables that there are."""
    for sql in views.values():
        connection.execute(sql.replace("CREATE VIEW", "CREATE TEMP VIEW", 1))  # SQLite itself has written the beginning
    for name in map(quoted, views):
        try:
            names = [row[1] for row in connection.execute(f"PRAGMA temp.table_xinfo({name})")]
        except sqlite3.OperationalError:  # it uses what is hidden
            continue
        if columns := ", ".join(quoted(names[number]) for number in _seen(names, shows)):
            connection.execute(f"CREATE TABLE main.{name} AS SELECT {columns} FROM temp.{name}")


def _parquet(source: Path, target: Path, shows: Shows, options: Mapping[str, Any], about: str) -> None:
    try:
        import duckdb
    except ImportError as error:
        raise DataError(f"{about}: DuckDB is not installed", hint="pip install 'fedpkg[tabular]'") from error
    connection = duckdb.connect()
    try:
        path = [pattern_of(str(source))]
        types = types_of(connection, path, about, str(source))
        seen = [name for name in types if shows(name)]
        if not seen:
            raise DataError(f"{about}: {source} has no column that may be seen")
        if within := next((name for name in seen if _FIELDS.search(types[name])), None):
            raise DataError(
                f"{about}: {source}: column {within!r} has fields, among which there may be hidden ones",
                hint="write the fields as columns, or hide this column",
            )
        told = metadata(connection, path)
        notes = json.dumps(_metadata_of(told, seen)).replace("'", "''")
        more = f", KV_METADATA {{pandas: '{notes}'}}" if told else ""
        columns = ", ".join(
            f"CAST({quoted(name)} AS {types[name]}) AS {quoted(name)}"
            if types[name] == "TIMESTAMP_MS"
            else quoted(name)
            for name in seen
        )
        connection.execute(
            f"COPY (SELECT {columns} FROM read_parquet(?, hive_partitioning = false)) TO '{_literal(target)}' "
            f"(FORMAT parquet{more})",
            path,
        )
    except duckdb.Error as error:
        raise DataError(f"{about}: {source}: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()


def _metadata_of(told: Mapping[str, Any], seen: Sequence[str]) -> dict[str, Any]:
    """What pandas noted about the frame, without columns that are hidden, an index that is, and notes of others."""
    indexes = told.get("index_columns") or []
    is_seen = all(not isinstance(one, str) or one in seen for one in indexes)
    columns = [one for one in told.get("columns", ()) if isinstance(one, dict) and one.get("field_name") in seen]
    kept = {name: told[name] for name in _NOTES if name in told}
    return {**kept, "columns": columns, "index_columns": indexes if is_seen else []}


def _literal(path: Path) -> str:
    return str(path).replace("'", "''")


def _seen(names: Sequence[str], shows: Shows) -> list[int]:
    return [number for number, name in enumerate(names) if shows(name)]


_WRITERS: Mapping[str, Callable[[Path, Path, Shows, Mapping[str, Any], str], None]] = {
    "csv": _csv,
    "excel": _excel,
    "sql": _sqlite,
    "parquet": _parquet,
}
