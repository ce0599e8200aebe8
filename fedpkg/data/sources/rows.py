"""The rows of a table in DuckDB, and the arrays that they make. No row becomes a Python object."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fedpkg.analytics.parquet import quoted
from fedpkg.data.sources.base import Dataset
from fedpkg.errors import DataError, nearest

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "BOOLEAN", "VARCHAR")
_NO_DOWNLOADS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_Table = TypeVar("_Table", bound="TableSource")


class TableSource:
    """Base of sources that are a table. The column of `partition.by` is no feature, unless it is listed as one."""

    other: Sequence[str]

    def with_column(self: _Table, name: str) -> _Table:
        return self if name in self.other else dataclasses.replace(self, other=(*self.other, name))  # type: ignore[type-var]


@contextmanager
def loaded(source: str, load: Callable[[Any], None]) -> Iterator[Rows]:
    """The rows that ``load`` puts into the table ``rows`` of a DuckDB connection, until the end of the block.

    Raises:
        DataError: DuckDB is missing, or cannot read the source; with the line of a CSV file.
    """
    try:
        import duckdb
    except ImportError as error:
        raise DataError(f"{source}: DuckDB is not installed", hint="pip install 'fedpkg[tabular]'") from error
    connection = duckdb.connect(config=_NO_DOWNLOADS)
    try:
        try:
            load(connection)
        except duckdb.Error as error:
            raise DataError(f"{source}: cannot be read: {_words(str(error))}") from error
        yield Rows(source, connection)
    finally:
        connection.close()


def _words(text: str) -> str:
    """What a CSV error of DuckDB says, without its advice to ignore the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if place := re.search(r"CSV Error on Line: (\d+)", text):
        found = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
        if found:
            return f"line {place[1]} has {found[2]} values, and the header has {found[1]}"
        about = next((line for line in lines[1:] if re.match(r"(Value with|Invalid|Maximum|Quote)", line)), lines[-1])
        return f"line {place[1]}: {about}"
    return re.sub(r"^[\w ]*Error: ", "", lines[0]) if lines else "unknown error"


class Rows:
    """The table ``rows`` of a DuckDB connection, as arrays."""

    def __init__(self, source: str, connection: Any) -> None:
        self._source = source
        self._connection = connection
        described = connection.execute("DESCRIBE rows").fetchall()
        self._types: dict[str, str] = {name: kind for name, kind, *_ in described}

    def dataset(self, label: str, features: Sequence[str] | None, other: Sequence[str]) -> Dataset:
        """x: the features as float32 (examples x features); y: the labels; the columns ``other`` for partitioners.

        Labels are int64 if all are whole numbers, float32 if all are numbers, and otherwise positions in the sorted
        list of texts, the classes. Raises DataError: a column is missing, or a value is missing or of another kind.
        """
        for name in (label, *(features or ()), *other):
            self._check(name)
        if features is None:
            features = [name for name in self._types if name != label and name not in other]
        if not features:
            raise DataError(f"{self._source}: it has no column other than '{label}'", hint="list the features")
        if not (count := self._one("SELECT count(*) FROM rows")):
            raise DataError(f"{self._source}: it has no rows")
        y, classes = self._values(label)
        x = np.empty((count, len(features)), np.float32)
        for number, name in enumerate(features):
            x[:, number] = self._numbers(name)
        found = {name: self._values(name) for name in other}
        columns = {name: values for name, (values, _) in found.items()}
        texts = {name: words for name, (_, words) in found.items() if words is not None}
        return Dataset(
            {"x_train": x, "y_train": y}, columns=columns, texts=texts, classes=classes, features=tuple(features)
        )

    def _check(self, name: str) -> None:
        if name not in self._types:
            raise DataError(
                f"{self._source}: it has no column '{name}'{nearest(name, self._types)}",
                hint=f"its columns: {', '.join(list(self._types)[:20])}{' …' * (len(self._types) > 20)}",
                column=name,
            )

    def _one(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()[0]

    def _array(self, expression: str) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._connection.execute(f"SELECT {expression} AS v FROM rows").fetchnumpy()["v"]
        return found

    def _numbers(self, name: str) -> npt.NDArray[np.float32]:
        column = quoted(name)
        hint = f"list the features without it, or name it in other: other: [{name}]"
        if not self._types[name].startswith((*_NUMBERS, "U", "DECIMAL")):
            raise DataError(
                f"{self._source}: column '{name}' has values of type {self._types[name]}; features must be numbers",
                hint=hint,
                column=name,
            )
        self._refuse_missing(name)
        self._refuse(name, f"TRY_CAST({column} AS DOUBLE) IS NULL", "features must be numbers", hint)
        return np.ma.getdata(self._array(f"TRY_CAST({column} AS FLOAT)"))

    def _values(self, name: str) -> tuple[npt.NDArray[Any], tuple[str, ...] | None]:
        """The values of a column of labels; for texts, their positions in the sorted texts, and these."""
        self._refuse_missing(name)
        column = quoted(name)
        of_whole, of_numbers, of_all = self._connection.execute(
            f"SELECT count(TRY_CAST({column} AS BIGINT)) FILTER (TRY_CAST({column} AS DOUBLE) = TRY_CAST({column} AS "
            f"BIGINT)), count(TRY_CAST({column} AS DOUBLE)), count(*) FROM rows"
        ).fetchone()
        if of_whole == of_all:
            return np.ma.getdata(self._array(f"TRY_CAST({column} AS BIGINT)")), None
        if of_numbers == of_all:
            return np.ma.getdata(self._array(f"TRY_CAST({column} AS FLOAT)")), None
        if of_numbers:
            few = "IS NULL" if of_numbers > of_all / 2 else "IS NOT NULL"
            self._refuse(
                name,
                f"TRY_CAST({column} AS DOUBLE) {few}",
                f"{of_numbers} of {of_all} values are numbers, the others are text",
                "make them all numbers or all texts",
            )
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE texts AS SELECT v, row_number() OVER (ORDER BY v) - 1 AS code FROM "
            f"(SELECT DISTINCT CAST({column} AS VARCHAR) AS v FROM rows)"
        )
        texts = [row[0] for row in self._connection.execute("SELECT v FROM texts ORDER BY code").fetchall()]
        codes = self._connection.execute(
            f"SELECT code FROM rows JOIN texts ON v = CAST({column} AS VARCHAR) ORDER BY rows.rowid"
        ).fetchnumpy()["code"]
        return np.ma.getdata(codes).astype(np.int64), tuple(texts)

    def _refuse_missing(self, name: str) -> None:
        column = quoted(name)
        hint = "fill the gap, or leave the row out"
        self._refuse(name, f"{column} IS NULL OR lower(CAST({column} AS VARCHAR)) IN ('', 'nan')", "", hint)

    def _refuse(self, name: str, condition: str, about: str, hint: str) -> None:
        row = self._connection.execute(
            f"SELECT rowid, CAST({quoted(name)} AS VARCHAR) FROM rows WHERE {condition} ORDER BY rowid LIMIT 1"
        ).fetchone()
        if row is None:
            return
        what = f"holds {row[1]!r:.80}; {about}" if about else "has no value"
        raise DataError(
            f"{self._source}: column '{name}', row {row[0] + 1}, {what}", hint=hint, column=name, row=row[0] + 1
        )
