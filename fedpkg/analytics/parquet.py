"""Reads a Parquet file with DuckDB, where pyarrow is not installed, into the DataFrame that pandas would read with it.

Columns of a type that would come out differently are refused: they need pyarrow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fedpkg.errors import DataError

_INTEGERS = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT)")
_NUMBERS = ("FLOAT", "DOUBLE")
_TIMES = {"TIMESTAMP": "us", "TIMESTAMP_NS": "ns", "TIMESTAMP_MS": "ms", "TIMESTAMP_S": "s"}
_OBJECTS = ("VARCHAR", "DATE", "BLOB", "NULL")
_EXTENSIONS = re.compile(
    r"(U?Int|Float)\d+|boolean|string(\[python\])?"
)  # nullable types of pandas, as its metadata say
_SOURCE = "read_parquet(?, hive_partitioning = false)"
_NO_NAME = re.compile(r"__index_level_\d+__")


def read_with_duckdb(path: str, where: str) -> Any:
    """The file as a DataFrame. Raises DataError: it cannot be read, or it needs pyarrow."""
    import duckdb
    import pandas

    connection = duckdb.connect()
    try:
        literal = [pattern_of(path)]
        types = types_of(connection, literal, where, path)
        told = metadata(connection, literal)
        of_pandas = {one["field_name"]: one for one in told.get("columns", ()) if isinstance(one, Mapping)}
        for name, kind in types.items():
            _check_type(name, kind, of_pandas.get(name, {}), where, path)
        columns = {
            name: _column(
                pandas,
                connection.execute(f"SELECT {quoted(name)} AS one FROM {_SOURCE}", literal),
                kind,
                str(of_pandas.get(name, {}).get("numpy_type", "")),
            )
            for name, kind in types.items()
        }
    except duckdb.Error as error:
        raise DataError(
            f"{where}: {path} is not a Parquet file that can be read: {str(error).splitlines()[0]}"
        ) from error
    finally:
        connection.close()
    return _indexed(pandas, pandas.DataFrame(columns, copy=False), told)


def types_of(connection: Any, pattern: list[str], where: str, path: str) -> dict[str, str]:
    """The types of a file's columns by name. Raises DataError: DuckDB cannot tell two columns apart."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {_SOURCE}", pattern).fetchall()
    types = {name: kind.strip('"') for name, kind, *_ in described}
    in_file = connection.execute("SELECT name, logical_type FROM parquet_schema(?)", pattern).fetchall()
    if strange := [name for name in types if name not in {one for one, _ in in_file}]:
        raise DataError(
            f"{where}: {path}: names of columns differ only by their case (DuckDB calls one {strange[0]!r})",
            hint="pip install pyarrow, which reads such files",
        )
    in_ms = {name: "TIMESTAMP_MS" for name, about in in_file if name in types and "MILLIS=Milli" in str(about)}
    return types | in_ms  # which DuckDB reads as microseconds


def metadata(connection: Any, path: list[str]) -> dict[str, Any]:
    """What pandas has noted in the file about the frame; nothing, if another program has written it."""
    rows = connection.execute("SELECT value FROM parquet_kv_metadata(?) WHERE key = 'pandas'::BLOB", path).fetchall()
    found = json.loads(rows[0][0]) if rows else {}
    return found if isinstance(found, dict) else {}


def _check_type(name: str, kind: str, about: Mapping[str, Any], where: str, path: str) -> None:
    is_known = _INTEGERS.fullmatch(kind) or kind in ("BOOLEAN", *_NUMBERS, *_TIMES, *_OBJECTS)
    if not is_known or about.get("pandas_type") == "categorical":
        kind = "categorical" if is_known else kind
        raise DataError(
            f"{where}: {path}: column {name!r} has the type {kind}, which only pyarrow reads as pandas does",
            hint="pip install pyarrow",
        )


def _column(pandas: Any, rows: Any, kind: str, of_pandas: str) -> Any:
    import numpy as np

    if kind in _OBJECTS:
        found = [one for (one,) in rows.fetchall()]
        values = np.empty(len(found), object)
        values[:] = found
        series = pandas.Series(values)
    else:
        values = rows.fetchnumpy()["one"]
        missing = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
        values = np.ma.getdata(values)
        if missing is not None and not missing.any():
            missing = None
        if kind in _TIMES:
            unit = re.search(r"\[(m?s)\]", of_pandas)
            values = values.astype(f"datetime64[{unit[1] if unit else _TIMES[kind]}]")
            if missing is not None:
                values[missing] = np.datetime64("NaT")
        elif missing is not None:
            values = values.astype(object if kind == "BOOLEAN" else values.dtype if kind in _NUMBERS else np.float64)
            values[missing] = None if kind == "BOOLEAN" else np.nan
        series = pandas.Series(values, copy=False)
    return series.astype(of_pandas) if _EXTENSIONS.fullmatch(of_pandas) else series


def _indexed(pandas: Any, frame: Any, told: Mapping[str, Any]) -> Any:
    """The frame with the index that it had when pandas wrote it."""
    indexes = told.get("index_columns") or ()
    named = [one for one in indexes if isinstance(one, str) and one in frame.columns]
    labels = {one.get("field_name"): one.get("name") for one in told.get("columns", ()) if isinstance(one, Mapping)}
    if named:
        frame = frame.set_index(named)
        frame.index.names = [None if _NO_NAME.fullmatch(one) else labels.get(one, one) for one in named]
    elif indexes and isinstance(indexes[0], Mapping) and indexes[0].get("kind") == "range":
        one = indexes[0]
        index = pandas.RangeIndex(one["start"], one["stop"], one["step"], name=one.get("name"))
        if len(index) == len(frame):
            frame.index = index
    heads: Any = told.get("column_indexes") or ({},)
    if heads[0].get("pandas_type") == "int64":
        frame.columns = frame.columns.astype("int64")
    return frame


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def pattern_of(path: str) -> str:
    """The path as a pattern that fits this file only."""
    return re.sub(r"([*?\[])", r"[\1]", path)
