"""A Parquet file: a column of labels, and features."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass

from fedpkg.data.sources.base import Dataset, FileSource
from fedpkg.data.sources.registry import register_dataset
from fedpkg.data.sources.rows import TableSource, loaded


@register_dataset("parquet")
@dataclass(frozen=True)
class Parquet(TableSource, FileSource):
    """A Parquet file. DuckDB reads it (extra `[tabular]`).

    Args:
        path: Path of the file.
        label: The column of the labels.
        features: The columns of x. null: all columns but the label and those in `other`.
        other: Columns that are not features. That of `partition.by` need not be listed.
    """

    label: str = "label"
    features: list[str] | None = None
    other: Sequence[str] = ()

    def read(self) -> Dataset:
        self.check_file()
        query = "CREATE TABLE rows AS SELECT * FROM read_parquet(?)"
        path = glob.escape(self.path)
        with loaded(f"dataset {self.path}", lambda connection: connection.execute(query, [path])) as rows:
            return rows.dataset(self.label, self.features, self.other)
