"""Reads a database of a node: CSV, Parquet, Excel or SQL as a pandas DataFrame; a folder is given as its path.

A CSV file is read as production reads it, by ``pandas.read_csv(path)``, so numbers are the same to the last digit; a
file that this would misread is an error or a warning with the remedy. Options of a database are in the node's
configuration (docs/reference/node-configuration.md).
"""

from __future__ import annotations

import os
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from fedpkg.analytics.node import Database
from fedpkg.analytics.parquet import quoted, read_with_duckdb
from fedpkg.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("csv", "parquet", "excel", "sql", "folder")
_NOT_HERE = {
    "omop": "R with the OHDSI packages, through rpy2, and an OMOP database",
    "sparql": "SPARQLWrapper, and a server that answers SPARQL",
}
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_URL = re.compile(r"[a-z][a-z0-9+.]*://", re.IGNORECASE)
_SECRETS = ("password", "sslpassword")  # parameters of a URL
_OTHER_SEPARATORS = ";\t|"
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d*)?")
_LARGE_BYTES = 32 << 20  # of a CSV file: pandas needs 3.5 times the frame for it (tests/benchmarks/algorithm_data.py)
_ROWS_AT_ONCE = 1 << 17
_EXACT = 1 << 53  # larger whole numbers are not exact as float64
_MAY = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, getattr(sqlite3, "SQLITE_RECURSIVE", 33))
_ONE_SELECT = "write one SELECT (or WITH … SELECT); nothing may be written"


class DatabaseWarning(UserWarning):
    """A database was read, but probably not as it was meant."""


def read(
    uri: str,
    kind: str,
    *,
    query: str | None = None,
    sheet_name: str | int | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
    about: str = "",
) -> Any:
    """A database as a DataFrame; of kind ``folder``, its path.

    Args:
        uri: A path, or the URL of an SQL database.
        kind: One of `KINDS`.
        query: Of an SQL database: one SELECT.
        sheet_name: Of an Excel file; None: the first sheet.
        separator, encoding, decimal: Of a CSV file; None: as pandas does.
        about: The database and its node, for messages.

    Raises:
        DataError: It cannot be read; with the remedy.
    """
    read_it = _READERS.get(kind.lower())
    if read_it is None:
        raise _unknown(kind, about or "database")
    where = about or f"database {without_password(uri)}"
    path = uri
    if not is_url(uri):
        path = check_path(uri, where, is_folder=kind.lower() == "folder")
    elif kind.lower() != "sql":
        path = check_path(uri.removeprefix("file://"), where, is_folder=kind.lower() == "folder")
    options = {
        "query": query,
        "sheet_name": sheet_name,
        "separator": separator,
        "encoding": encoding,
        "decimal": decimal,
    }
    for name in [name for name, value in options.items() if value is not None and name not in _OPTIONS[kind.lower()]]:
        raise DataError(f"{where}: a database of type {kind} has no option {name!r}")
    return read_it(path, where, {name: options[name] for name in _OPTIONS[kind.lower()]})


def is_url(uri: str) -> bool:
    return bool(_URL.match(uri))


def path_of(uri: str) -> str | None:
    """The path of a database that is a file or a folder, also from the URL of an SQLite database; None: another URL."""
    if uri.startswith("sqlite://"):  # three slashes before a relative path, four before an absolute one
        return uri.partition("://")[2].removeprefix("/")
    return None if is_url(uri) else uri


def has_password(url: str) -> bool:
    """Whether the URL of a database has a password, before the host or among its parameters.

    Raises:
        ValueError: It is no URL.
    """
    parts = urlsplit(url)
    return parts.password is not None or _has_secrets(parts.query)


def _has_secrets(query: str) -> bool:
    return any(name in _SECRETS for name, _ in parse_qsl(query))


def without_password(uri: str) -> str:
    """A URL as it may be shown."""
    uri = re.sub(r"(://[^:/@]*):.*@", r"\1:…@", uri)
    address, _, query = uri.partition("?")
    return f"{address}?…" if _has_secrets(query) else uri


def is_windows_path(uri: str) -> bool:
    """Whether it is a path of Windows, on a machine that has another system."""
    return os.name != "nt" and bool(_WINDOWS.match(uri))


def _unknown(kind: str, where: str) -> DataError:
    if kind.lower() in _NOT_HERE:
        return DataError(
            f"{where}: databases of type {kind} are not supported: they need {_NOT_HERE[kind.lower()]}",
            hint="export what the algorithm needs as CSV or Parquet",
        )
    near = nearest(kind, KINDS)
    return DataError(f"{where}: unknown type {kind!r}{near}", hint=f"types of databases: {', '.join(KINDS)}")


def check_path(uri: str, where: str, *, is_folder: bool) -> str:
    """The path of a database. Raises DataError: there is no such file or folder, or it is something else."""
    if is_url(uri):
        raise DataError(f"{where}: {without_password(uri)} is not a path", hint="download the file, and give its path")
    if is_windows_path(uri):
        raise DataError(
            f"{where}: {uri} is a Windows path, and this machine is not Windows",
            hint="write the path that the data have here, in the node's configuration or as --database LABEL=PATH",
        )
    if not os.path.exists(uri):
        raise DataError(f"{where}: there is no file {uri}", hint="paths are relative to the node's configuration")
    if os.path.isdir(uri) and not is_folder:
        raise DataError(f"{where}: {uri} is a folder", hint="name a file in it, or set type: folder")
    if is_folder and not os.path.isdir(uri):
        raise DataError(f"{where}: {uri} is not a folder", hint="set its type, such as type: csv")
    if not is_folder and not os.path.isfile(uri):
        raise DataError(f"{where}: {uri} is not a regular file")
    return uri


def _pandas(where: str) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise _missing(where, "pandas") from error
    return pandas


def _missing(where: str, name: str, install: str = "fedpkg[tabular]") -> DataError:
    return DataError(f"{where}: {name} is not installed, which reads it", hint=f"pip install '{install}'")


def count_rows(database: Database, *, about: str) -> int | None:
    """The rows of a database, of the largest table of an SQLite file; None: they cannot be counted.

    Raises:
        DataError: It cannot be read.
    """
    options = {name: value for name, value in database.options.items() if name != "preprocessing"}
    if database.kind == "csv":
        path = check_path(database.uri, about, is_folder=False)
        if os.path.getsize(path) > _LARGE_BYTES:
            pandas, given = _pandas(about), _given(options)
            with (
                _naming_errors_of_csv(pandas, path, about, options),
                pandas.read_csv(path, **given, usecols=[0], chunksize=_ROWS_AT_ONCE) as chunks,
            ):
                return sum(len(chunk) for chunk in chunks)
    if database.kind in ("csv", "parquet", "excel"):
        return len(read(database.uri, database.kind, about=about, **options))
    if database.kind == "sql" and options.get("query"):
        return len(read(database.uri, database.kind, about=about, **options))
    if database.kind == "sql" and path_of(database.uri) is not None:
        names = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = read(database.uri, "sql", query=names, about=about)["name"]
        counts = [f"SELECT count(*) AS n FROM {quoted(one)}" for one in tables]
        return max((int(read(database.uri, "sql", query=one, about=about)["n"][0]) for one in counts), default=0)
    return None


# ---------------------------------------------------------------- CSV


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a database as arguments of ``pandas.read_csv``."""
    named = {"sep": options.get("separator"), "encoding": options.get("encoding"), "decimal": options.get("decimal")}
    return {name: value for name, value in named.items() if value is not None}


@contextmanager
def _naming_errors_of_csv(pandas: Any, path: str, where: str, options: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except pandas.errors.EmptyDataError as error:
        raise DataError(f"{where}: {path} is empty", hint="a CSV file begins with a line of column names") from error
    except UnicodeError as error:
        used = options.get("encoding") or "UTF-8"
        raise DataError(
            f"{where}: {path} is not {used} text",
            hint=f"set the option encoding of the database, such as encoding: {_guessed_encoding(path)}",
        ) from error
    except LookupError as error:
        raise DataError(f"{where}: {error}", hint="set the option encoding to a name such as latin-1") from error
    except (ValueError, OverflowError) as error:  # a ParserError is one
        with suppress(ValueError):  # with decimal commas, rows under one name have different numbers of values
            _check_separator(pandas.read_csv(path, **_given(options), nrows=0), where, path, options)
        raise DataError(f"{where}: {path} is not valid CSV: {_without_data(error)}") from error


def _read_csv(path: str, where: str, options: Mapping[str, Any]) -> pd.DataFrame:
    pandas = _pandas(where)
    given = _given(options)
    with _naming_errors_of_csv(pandas, path, where, options), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", pandas.errors.DtypeWarning)
        frame = _read_numbers(pandas, path, given) if os.path.getsize(path) > _LARGE_BYTES else None
        if frame is None:
            frame = pandas.read_csv(path, **given)
    _check_separator(frame, where, path, options)
    for one in said:
        if issubclass(one.category, pandas.errors.DtypeWarning):
            _warn(f"{where}: {_columns_in(one.message)} texts among numbers; correct them, or convert the column")
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    _look_for_texts(frame, where, options)
    return frame


def _read_numbers(pandas: Any, path: str, given: Mapping[str, Any]) -> pd.DataFrame | None:
    """A large file of numbers, into arrays of their final size, so that the memory needed is little above the frame's.

    None: it has something else, such as texts or an index, and pandas must read it as a whole.
    """
    import numpy as np

    rows = _most_rows(path)
    with pandas.read_csv(path, **given, chunksize=_ROWS_AT_ONCE) as chunks:
        arrays: dict[Any, Any] = {}
        most: dict[Any, int] = {}  # the largest whole number of a column
        start = 0
        for chunk in chunks:
            if not isinstance(chunk.index, pandas.RangeIndex) or start + len(chunk) > rows:
                return None
            end = start + len(chunk)
            for name in chunk.columns:
                values = chunk[name].to_numpy()
                if values.dtype not in (np.int64, np.float64):
                    return None
                if name not in arrays:
                    arrays[name] = np.empty(rows, values.dtype)
                if values.dtype == np.int64 and len(values):
                    most[name] = max(most.get(name, 0), abs(int(values.min())), abs(int(values.max())))
                if arrays[name].dtype != values.dtype and most.get(name, 0) > _EXACT:
                    return None
                if values.dtype == np.float64 and arrays[name].dtype == np.int64:
                    arrays[name] = arrays[name].astype(np.float64)
                arrays[name][start:end] = values
            start = end
    for array in arrays.values():
        array.resize(start, refcheck=False)
    return pandas.DataFrame(arrays, copy=False) if arrays else None


def _most_rows(path: str) -> int:
    """At least as many as the file has rows. What is not filled of an array needs no memory."""
    lines = 1
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            lines += max(block.count(b"\n"), block.count(b"\r"))
    return lines


def _check_separator(frame: pd.DataFrame, where: str, path: str, options: Mapping[str, Any]) -> None:
    if options.get("separator") is not None or len(frame.columns) != 1:
        return
    name = str(frame.columns[0])
    if others := [mark for mark in _OTHER_SEPARATORS if mark in name]:
        shown = "\\t" if others[0] == "\t" else others[0]
        raise DataError(
            f"{where}: {path} has one column, {name[:80]!r}: its values are separated by '{shown}', not by ','",
            hint=f'set the option separator of the database: separator: "{shown}"',
        )


def _look_for_texts(frame: pd.DataFrame, where: str, options: Mapping[str, Any]) -> None:
    """Warn of columns that begin with a number, or with one like 1,5, but are read as texts."""
    texts = [name for name, dtype in zip(frame.columns, frame.dtypes, strict=True) if dtype == "object"]
    for name in texts[: 1 << 10]:
        column = frame[name]
        place = column.first_valid_index() if getattr(column, "dtype", None) == "object" else None
        if place is None or not isinstance(first := column[place], str):
            continue
        if _NUMBER.fullmatch(first):
            _warn(f"{where}: column {str(name)!r} has texts among numbers; correct them, or convert the column")
        elif options["decimal"] is None and _DECIMAL_COMMA.fullmatch(first):
            _warn(
                f"{where}: column {str(name)!r} has texts that look like numbers with a decimal comma; "
                'set the option decimal of the database: decimal: ","'
            )
            return


def _columns_in(message: object) -> str:
    found = re.search(r"Columns? \(([^)]*)\)", str(message))
    words = found[1] if found else "some"
    return f"columns {words} have" if "," in words or not found else f"column {words} has"


def _without_data(error: Exception) -> str:
    """A message of the parser, without values of the file."""
    return re.sub(r"(['\"]).*?\1", "…", " ".join(str(error).split())).rstrip(".")


def _guessed_encoding(path: str) -> str:
    with open(path, "rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "latin-1"


def _warn(text: str) -> None:
    warnings.warn(text, DatabaseWarning, stacklevel=2)


# ---------------------------------------------------------------- Excel


def _read_excel(path: str, where: str, options: Mapping[str, Any]) -> pd.DataFrame:
    pandas = _pandas(where)
    sheet = options["sheet_name"]
    if sheet is not None and (isinstance(sheet, bool) or not isinstance(sheet, (str, int))):
        raise DataError(f"{where}: sheet_name must be a name or a number from 0, found {sheet!r:.60}")
    try:
        with pandas.ExcelFile(path) as book:
            names = book.sheet_names
            is_there = sheet in names if isinstance(sheet, str) else 0 <= (sheet or 0) < len(names)
            if not is_there:
                near = nearest(sheet, names) if isinstance(sheet, str) else ""
                raise DataError(f"{where}: {path} has no sheet {sheet!r}{near}", hint=f"its sheets: {', '.join(names)}")
            return book.parse(0 if sheet is None else sheet)
    except ImportError as error:
        raise _missing(where, str(error).partition("'")[2].partition("'")[0] or "openpyxl") from error
    except DataError:
        raise
    except Exception as error:  # of openpyxl, of the zip archive, of the XML
        raise DataError(f"{where}: {path} is not an Excel file that can be read: {type(error).__name__}") from error


# ---------------------------------------------------------------- SQL


def _read_sql(uri: str, where: str, options: Mapping[str, Any]) -> pd.DataFrame:
    pandas = _pandas(where)
    query = options["query"]
    if not isinstance(query, str) or not query.strip():
        raise DataError(f"{where}: an SQL database needs a query", hint=_ONE_SELECT)
    if (path := path_of(uri)) is None:
        return _from_server(pandas, uri, query, where)
    return _from_sqlite(pandas, check_path(path, where, is_folder=False), query, where)


def _from_sqlite(pandas: Any, path: str, query: str, where: str) -> pd.DataFrame:
    address = f"file:{quote(os.path.abspath(path))}?mode=ro"
    if not os.path.exists(f"{path}-wal"):
        address += "&immutable=1"  # nothing is written beside it, which may be read-only
    connection = sqlite3.connect(address, uri=True)
    try:
        let_only_read(connection)
        with warnings.catch_warnings():
            return pandas.read_sql_query(query, connection)
    except Exception as error:  # pandas wraps those of SQLite
        cause = error.__cause__ if isinstance(error.__cause__, sqlite3.Error) else error
        raise DataError(f"{where}: the query failed: {cause}", hint=_ONE_SELECT) from error
    finally:
        connection.close()


def let_only_read(connection: sqlite3.Connection) -> None:
    """Let SQLite refuse all that a query would do beyond reading tables and calling functions, in sub-queries too."""
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _MAY else sqlite3.SQLITE_DENY)


def _from_server(pandas: Any, url: str, query: str, where: str) -> pd.DataFrame:
    try:
        import sqlalchemy
    except ImportError as error:
        raise _missing(where, "SQLAlchemy") from error
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"):
        raise DataError(
            f"{where}: databases of {scheme} are not supported", hint="SQLite (a path) and PostgreSQL (a URL) are"
        )
    try:
        # A prepared statement is one statement: a query cannot end the read-only transaction that it is in.
        engine = sqlalchemy.create_engine(f"postgresql+psycopg://{rest}", connect_args={"prepare_threshold": 0})
    except ImportError as error:
        raise _missing(where, "psycopg", "psycopg[binary]") from error
    except Exception as error:
        raise DataError(f"{where}: the address of the database is wrong: {type(error).__name__}") from error
    try:
        with engine.connect().execution_options(postgresql_readonly=True) as connection:
            return pandas.read_sql_query(sqlalchemy.text(query.replace(":", r"\:")), connection)
    except sqlalchemy.exc.OperationalError as error:
        raise DataError(
            f"{where}: no connection to the database: {_first_line(error.orig)}",
            hint="check its address; isolated tasks have no network",
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        what = _first_line(getattr(error, "orig", None) or error)
        raise DataError(f"{where}: the query failed: {what}", hint=_ONE_SELECT) from error
    finally:
        engine.dispose()


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# ---------------------------------------------------------------- Parquet and folders


def _read_parquet(path: str, where: str, options: Mapping[str, Any]) -> pd.DataFrame:
    pandas = _pandas(where)
    import importlib.util

    if importlib.util.find_spec("pyarrow"):
        try:
            return pandas.read_parquet(path)
        except Exception as error:
            raise DataError(f"{where}: {path} is not a Parquet file that can be read: {error}") from error
    if not importlib.util.find_spec("duckdb"):
        raise _missing(where, "pyarrow or DuckDB")
    return read_with_duckdb(path, where)


def _folder(path: str, where: str, options: Mapping[str, Any]) -> str:
    return path


_READERS: Mapping[str, Callable[[str, str, Mapping[str, Any]], Any]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "excel": _read_excel,
    "sql": _read_sql,
    "folder": _folder,
}
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "csv": ("separator", "encoding", "decimal"),
    "parquet": (),
    "excel": ("sheet_name",),
    "sql": ("query",),
    "folder": (),
}
