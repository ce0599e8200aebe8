"""A CSV file with a header: a label in each row, and features."""

from __future__ import annotations

import csv
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpkg.data.sources.base import Dataset, FileSource
from fedpkg.data.sources.registry import register_dataset
from fedpkg.data.sources.rows import TableSource, loaded
from fedpkg.errors import DataError

_MAX_HEADER_BYTES = 1 << 20


@register_dataset("csv")
@dataclass(frozen=True)
class Csv(TableSource, FileSource):
    """A CSV file in UTF-8, with a header. DuckDB reads it (extra `[tabular]`).

    x has the features as float32, y the labels: whole numbers, numbers, or the positions of texts in their sorted list.

    Args:
        path: Path of the file.
        label: The column of the labels.
        features: The columns of x. null: all columns but the label and those in `other`.
        other: Columns that are not features. That of `partition.by` need not be listed.
        separator: The character between values.
    """

    label: str = "label"
    features: list[str] | None = None
    other: Sequence[str] = ()
    separator: str = ","

    def read(self) -> Dataset:
        self.check_file()
        with loaded(f"dataset {self.path}", lambda connection: load_csv(connection, self.file, self.separator)) as rows:
            return rows.dataset(self.label, self.features, self.other)


def load_csv(connection: Any, path: Path, separator: str = ",") -> None:
    """Read a file into the table ``rows``, every value as text, so that nothing is guessed from the first rows.

    Raises:
        DataError: the header is wrong.
        duckdb.Error: a row is wrong.
    """
    names = _header(path, separator)
    connection.execute(
        "CREATE TABLE rows AS SELECT * FROM read_csv(?, columns = ?, delim = ?, auto_detect = false, header = true, "
        "quote = '\"', escape = '\"', strict_mode = true, null_padding = false, allow_quoted_nulls = false)",
        [glob.escape(str(path)), dict.fromkeys(names, "VARCHAR"), separator],
    )


def _header(path: Path, separator: str) -> list[str]:
    source = f"dataset {path}"
    if len(separator) != 1 or separator in '"\r\n':
        raise DataError(f"{source}: separator must be one character, found {separator!r}")
    try:
        with open(path, "rb") as file:
            line = file.readline(_MAX_HEADER_BYTES).decode("utf-8-sig")
        names = next(csv.reader([line], delimiter=separator, strict=True), [])
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{source}: its header cannot be read: {error}", path=str(path)) from error
    if not names or not all(names):
        raise DataError(f"{source}: line 1 must have a name for each column", path=str(path))
    if len(names) == 1 and (others := [mark for mark in ";\t|" if mark in names[0]]):
        raise DataError(
            f"{source}: line 1 has no {separator!r} between names of columns",
            hint=f"if {others[0]!r} separates the values, set separator: {others[0]!r}",
            path=str(path),
        )
    lower = [name.lower() for name in names]
    if twice := [name for name in lower if lower.count(name) > 1]:
        raise DataError(f"{source}: line 1 names the column '{twice[0]}' twice", path=str(path))
    return names
