"""Reading of databases under the names of version 4."""

from __future__ import annotations

import os
from typing import Any

from fedpkg.analytics.words import DatabaseType

__all__ = [
    "DatabaseType",
    "get_column_names",
    "load_csv_data",
    "load_data",
    "load_excel_data",
    "load_parquet_data",
    "load_sparql_data",
    "load_sql_data",
]


def load_data(
    database_uri: str | os.PathLike[str],
    db_type: str | None = None,
    query: str | None = None,
    sheet_name: str | None = None,
) -> Any:
    """Read a database as a data frame. Errors are those of `fedpkg.analytics.databases.read`."""
    from fedpkg.analytics import databases

    return databases.read(os.fspath(database_uri), db_type or "csv", query=query, sheet_name=sheet_name)


def get_column_names(
    database_uri: str, db_type: str | None = None, query: str | None = None, sheet_name: str | None = None
) -> list[str]:
    """The names of the columns of a database."""
    return list(load_data(database_uri, db_type, query, sheet_name).columns)


def load_csv_data(database_uri: str) -> Any:
    return load_data(database_uri, "csv")


def load_excel_data(database_uri: str, sheet_name: str | None = None) -> Any:
    return load_data(database_uri, "excel", sheet_name=sheet_name)


def load_parquet_data(database_uri: str) -> Any:
    return load_data(database_uri, "parquet")


def load_sparql_data(database_uri: str, query: str) -> Any:
    return load_data(database_uri, "sparql", query=query)


def load_sql_data(database_uri: str, query: str) -> Any:
    return load_data(database_uri, "sql", query=query)
