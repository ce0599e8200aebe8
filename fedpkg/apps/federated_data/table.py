"""A table of examples, with the methods by which apps read, change and divide it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import ceil, floor
from typing import Any

import numpy as np

from fedpkg.apps.federated_data.columns import Column, Feature, Rows, column_of
from fedpkg.errors import FederatedDataError, NoColumn, nearest
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.splitting import within_client

_FORMATS = ("python", "numpy", "torch", "pandas")


class Dataset:
    """Examples in rows, with named columns. Selections share the columns' arrays, which may be mapped from a file.

    ``dataset[3]`` is the row 3 as a dict, ``dataset[3:9]`` a dict of lists, ``dataset["label"]`` a list.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        *,
        num_rows: int | None = None,
        format_type: str | None = None,
        transform: Callable[[dict[str, list[Any]]], Mapping[str, Any]] | None = None,
        shown: Sequence[str] | None = None,
    ) -> None:
        self._columns = dict(columns)
        self._num_rows = num_rows if num_rows is not None else len(next(iter(columns.values()), ()))
        self._format, self._transform, self._shown = format_type, transform, shown

    # ---- making one

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Sequence[Any]]) -> Dataset:
        columns = {name: column_of(values) for name, values in mapping.items()}
        if len({len(column) for column in columns.values()}) > 1:
            told = ", ".join(f"{name}: {len(column)}" for name, column in columns.items())
            raise FederatedDataError(f"the columns have different numbers of rows ({told})")
        return cls(columns)

    @classmethod
    def from_list(cls, rows: Sequence[Mapping[str, Any]]) -> Dataset:
        return cls.from_dict({name: [row[name] for row in rows] for name in (rows[0] if rows else ())})

    # ---- what it has

    def __len__(self) -> int:
        return self._num_rows

    @property
    def num_rows(self) -> int:
        return self._num_rows

    @property
    def num_columns(self) -> int:
        return len(self._columns)

    @property
    def shape(self) -> tuple[int, int]:
        return self._num_rows, len(self._columns)

    @property
    def column_names(self) -> list[str]:
        return list(self._columns)

    @property
    def features(self) -> dict[str, Feature]:
        return {name: column.feature for name, column in self._columns.items()}

    def __repr__(self) -> str:
        return f"Dataset(num_rows={self._num_rows}, columns={self.column_names})"

    def column(self, name: str) -> Column:
        if name not in self._columns:
            raise _no_column(name, self._columns)
        return self._columns[name]

    def unique(self, column: str) -> list[Any]:
        """The different values, in the order in which they first appear."""
        return list(dict.fromkeys(self.column(column).many()))

    # ---- reading it

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._formatted_column(self.column(key))
        if isinstance(key, (int, np.integer)):
            return self._row(int(key))
        return self._batch(self._rows_of(key))

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The rows as dicts: what torch's DataLoader fetches for a batch."""
        if self._transform is None:
            return [self._row(int(row)) for row in rows]
        batch = self._batch(self._rows_of(rows))
        return [{name: values[number] for name, values in batch.items()} for number in range(len(rows))]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self._row(row) for row in range(self._num_rows))

    def iter(self, batch_size: int, drop_last_batch: bool = False) -> Iterator[dict[str, Any]]:
        for start in range(0, self._num_rows, batch_size):
            if not drop_last_batch or start + batch_size <= self._num_rows:
                yield self[start : start + batch_size]

    def to_dict(self) -> dict[str, list[Any]]:
        return {name: column.many() for name, column in self._columns.items()}

    def to_list(self) -> list[dict[str, Any]]:
        plain = self._with(format_type=None, transform=None)
        return list(plain)

    def to_pandas(self) -> Any:
        """A DataFrame of pandas, which must be installed."""
        return pandas("to_pandas").DataFrame(self.to_dict())

    def _row(self, row: int) -> dict[str, Any]:
        if not -self._num_rows <= row < self._num_rows:
            raise IndexError(f"row {row} of a dataset with {self._num_rows} rows")
        row %= self._num_rows
        if self._transform is not None:
            batch = self._transform(_Columns({name: [column.one(row)] for name, column in self._visible()}))
            return _Columns({name: values[0] for name, values in batch.items()})
        if self._format is None:
            return _Columns({name: column.one(row) for name, column in self._visible()})
        batch = self._batch(np.array([row]))
        if self._format == "pandas":
            return batch  # type: ignore[no-any-return]
        return _Columns({name: values[0] for name, values in batch.items()})

    def _batch(self, rows: Rows) -> Any:
        chosen = {name: column.select(rows) for name, column in self._visible()}
        if self._transform is not None:
            return dict(self._transform(_Columns({name: column.many() for name, column in chosen.items()})))
        if self._format == "pandas":
            return pandas("with_format('pandas')").DataFrame({name: column.many() for name, column in chosen.items()})
        return _Columns({name: self._formatted_column(column) for name, column in chosen.items()})

    def _visible(self) -> Iterable[tuple[str, Column]]:
        if self._shown is None:
            return self._columns.items()
        return [(name, self.column(name)) for name in self._shown]

    def _formatted_column(self, column: Column) -> Any:
        if self._format == "numpy":
            return column.array()
        if self._format == "torch":
            return _tensor(column)
        if self._format == "pandas":
            return pandas("with_format('pandas')").Series(column.many())
        return column.many()

    def _rows_of(self, key: Any) -> Rows:
        if isinstance(key, slice):
            return np.arange(*key.indices(self._num_rows))
        rows = np.asarray(list(key) if not isinstance(key, np.ndarray) else key)
        if rows.dtype == np.bool_ and len(rows) == self._num_rows:
            return np.flatnonzero(rows)
        rows = rows.astype(np.int64)
        if len(rows) and not (-self._num_rows <= rows.min() and rows.max() < self._num_rows):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a dataset with {self._num_rows} rows")
        return np.where(rows < 0, rows + self._num_rows, rows)

    # ---- how it is shown

    def with_format(
        self, type: str | None = None, columns: Sequence[str] | None = None, output_all_columns: bool = False
    ) -> Dataset:
        """The same rows, whose values are ``numpy`` arrays, ``torch`` tensors, or (None) Python objects.

        Args:
            columns: Those that are shown; None: all.
            output_all_columns: The others are shown, too.
        """
        if type not in (None, *_FORMATS):
            raise FederatedDataError(f"there is no format {type!r}", hint=f"use one of {', '.join(_FORMATS)}, or None")
        shown = None if columns is None or output_all_columns else list(columns)
        for name in columns or ():
            self.column(name)
        return self._with(format_type=None if type == "python" else type, transform=None, shown=shown)

    def with_transform(
        self,
        transform: Callable[[dict[str, list[Any]]], Mapping[str, Any]] | None,
        columns: Sequence[str] | None = None,
        output_all_columns: bool = False,
    ) -> Dataset:
        """The same rows, each passed through ``transform`` when it is read.

        Args:
            transform: From a dict of lists, one value for each row of a batch, to such a dict.
        """
        shown = None if columns is None or output_all_columns else list(columns)
        return self._with(format_type=None, transform=transform, shown=shown)

    def set_format(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.update(self.with_format(*args, **kwargs).__dict__)

    def set_transform(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.update(self.with_transform(*args, **kwargs).__dict__)

    def reset_format(self) -> None:
        self.set_format()

    def _with(self, **changes: Any) -> Dataset:
        return Dataset(
            changes.pop("columns", self._columns),
            **{
                "num_rows": self._num_rows,
                "format_type": self._format,
                "transform": self._transform,
                "shown": self._shown,
                **changes,
            },
        )

    # ---- other rows

    def select(self, indices: Iterable[int]) -> Dataset:
        return self._selected(self._rows_of(indices))

    def _selected(self, rows: Rows) -> Dataset:
        composed: dict[int, Rows] = {}  # columns of one table mostly have the same rows: composed once
        columns = {}
        for name, column in self._columns.items():
            before = column.rows
            if id(before) not in composed:
                composed[id(before)] = rows if before is None else before[rows]
            columns[name] = Column(column.values, composed[id(before)], column.names, column.is_image)
        return self._with(columns=columns, num_rows=len(rows))

    def take(self, n: int) -> Dataset:
        return self.select(range(min(n, self._num_rows)))

    def skip(self, n: int) -> Dataset:
        return self.select(range(min(n, self._num_rows), self._num_rows))

    def shuffle(self, seed: int | None = None, generator: np.random.Generator | None = None, **_cache: Any) -> Dataset:
        """The rows in random order. Without a seed, NumPy's global generator gives one; tasks are seeded."""
        return self._selected(_draws(seed, generator).permutation(self._num_rows))

    def shard(self, num_shards: int, index: int, contiguous: bool = True, **_cache: Any) -> Dataset:
        if not 0 <= index < num_shards:
            raise FederatedDataError(f"there is no shard {index} of {num_shards}")
        if not contiguous:
            return self.select(range(index, self._num_rows, num_shards))
        size, more = divmod(self._num_rows, num_shards)
        start = index * size + min(index, more)
        return self.select(range(start, start + size + (index < more)))

    def sort(self, column_names: str | Sequence[str], reverse: bool = False, **_cache: Any) -> Dataset:
        names = names_of(column_names)
        keys = [np.unique(self.column(name).array(), return_inverse=True)[1] for name in reversed(names)]
        return self._selected(np.lexsort([-key if reverse else key for key in keys]))

    def train_test_split(
        self,
        test_size: float | int | None = None,
        train_size: float | int | None = None,
        shuffle: bool = True,
        stratify_by_column: str | None = None,
        seed: int | None = None,
        generator: np.random.Generator | None = None,
        **_cache: Any,
    ) -> DatasetDict:
        """The datasets ``train`` and ``test``, with these fractions or numbers of the rows; by default a quarter test.

        Args:
            stratify_by_column: Both have the same mixture of this column's values, and all rows.
        """
        train, test = _sizes(self._num_rows, train_size, test_size)
        if stratify_by_column is not None:
            rng = np.random.default_rng(_seed(seed, generator))
            labels = self.column(stratify_by_column).array()
            fractions = {"train": train / (train + test), "test": test / (train + test)}
            parts = within_client(np.arange(self._num_rows), labels, fractions, rng)
            return DatasetDict({name: self._selected(rows) for name, rows in parts.items()})
        order = _draws(seed, generator).permutation(self._num_rows) if shuffle else np.arange(self._num_rows)
        rows = {"train": order[test:][:train], "test": order[:test]}
        if not shuffle:
            rows = {"train": order[:train], "test": order[train:][:test]}
        return DatasetDict({name: self._selected(chosen) for name, chosen in rows.items()})

    def filter(
        self,
        function: Callable[..., Any],
        with_indices: bool = False,
        input_columns: str | Sequence[str] | None = None,
        batched: bool = False,
        batch_size: int = 1000,
        fn_kwargs: Mapping[str, Any] | None = None,
        **_cache: Any,
    ) -> Dataset:
        """The rows for which ``function`` is true."""
        kept: list[bool] = []
        for results in self._applied(function, with_indices, input_columns, batched, batch_size, fn_kwargs):
            kept += map(bool, results if batched else [results])
        return self._selected(np.flatnonzero(np.array(kept, np.bool_)))

    # ---- other columns

    def map(
        self,
        function: Callable[..., Any],
        with_indices: bool = False,
        input_columns: str | Sequence[str] | None = None,
        batched: bool = False,
        batch_size: int | None = 1000,
        remove_columns: str | Sequence[str] | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        **_cache: Any,
    ) -> Dataset:
        """The rows with the columns that ``function`` returns for a row or, with ``batched``, for a batch of rows.

        The other columns stay, unless ``remove_columns`` names them. Options about files and processes have no effect.
        """
        found: dict[str, list[Any]] = {}
        count = 0
        size = batch_size or max(1, self._num_rows)
        for result in self._applied(function, with_indices, input_columns, batched, size, fn_kwargs):
            if result is None:
                continue
            batch = dict(result) if batched else {name: [value] for name, value in result.items()}
            if found and batch.keys() != found.keys():
                raise FederatedDataError(
                    f"map: the function returned the columns {list(batch)} for one row, and {list(found)} for another"
                )
            for name, values in batch.items():
                found.setdefault(name, []).extend(values)
            count += len(next(iter(batch.values()), ()))
        gone = names_of(remove_columns or ())
        columns = {name: column for name, column in self._columns.items() if name not in gone}
        if found and count != self._num_rows:
            columns = {name: column for name, column in columns.items() if name in found}
            if strange := [name for name in self._columns if name not in gone and name not in found]:
                raise FederatedDataError(
                    f"map: the function returned {count} rows for {self._num_rows}, so the columns {strange} do not "
                    "fit",
                    hint=f"remove them: remove_columns={strange}",
                )
        columns |= {name: column_of(values) for name, values in found.items()}
        return self._with(columns=columns, num_rows=count if found else self._num_rows)

    def _applied(
        self,
        function: Callable[..., Any],
        with_indices: bool,
        input_columns: str | Sequence[str] | None,
        batched: bool,
        batch_size: int,
        fn_kwargs: Mapping[str, Any] | None,
    ) -> Iterator[Any]:
        names = None if input_columns is None else names_of(input_columns)
        more = dict(fn_kwargs or {})
        for start in range(0, self._num_rows, batch_size if batched else 1):
            stop = min(start + batch_size, self._num_rows)
            given = self[start:stop] if batched else self[start]
            words = [given] if names is None else [given[name] for name in names]
            number = [list(range(start, stop)) if batched else start] if with_indices else []
            yield function(*words, *number, **more)

    def rename_column(self, original_column_name: str, new_column_name: str) -> Dataset:
        return self.rename_columns({original_column_name: new_column_name})

    def rename_columns(self, column_mapping: Mapping[str, str]) -> Dataset:
        for name in column_mapping:
            self.column(name)
        columns = {column_mapping.get(name, name): column for name, column in self._columns.items()}
        if len(columns) < len(self._columns):
            raise FederatedDataError(f"rename_columns: two columns would have one name: {dict(column_mapping)}")
        shown = None if self._shown is None else [column_mapping.get(name, name) for name in self._shown]
        return self._with(columns=columns, shown=shown)

    def remove_columns(self, column_names: str | Sequence[str]) -> Dataset:
        gone = names_of(column_names)
        for name in gone:
            self.column(name)
        return self.select_columns([name for name in self._columns if name not in gone])

    def select_columns(self, column_names: str | Sequence[str]) -> Dataset:
        names = names_of(column_names)
        shown = None if self._shown is None else [name for name in self._shown if name in names]
        return self._with(columns={name: self.column(name) for name in names}, shown=shown)

    def add_column(self, name: str, column: Sequence[Any], **_cache: Any) -> Dataset:
        if name in self._columns or len(column) != self._num_rows:
            raise FederatedDataError(
                f"add_column: '{name}' exists already, or has {len(column)} values for {self._num_rows} rows"
            )
        return self._with(columns={**self._columns, name: column_of(column)})


class DatasetDict(dict[str, Dataset]):
    """Datasets by the names of their splits. Its methods do the same with each."""

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_EACH:
            raise AttributeError(name)
        return lambda *args, **kwargs: DatasetDict(
            {split: getattr(dataset, name)(*args, **kwargs) for split, dataset in self.items()}
        )

    @property
    def num_rows(self) -> dict[str, int]:
        return {split: len(dataset) for split, dataset in self.items()}

    @property
    def column_names(self) -> dict[str, list[str]]:
        return {split: dataset.column_names for split, dataset in self.items()}


_OF_EACH = (
    *("filter", "map", "remove_columns", "rename_column", "rename_columns", "select_columns", "shuffle", "sort"),
    *("with_format", "with_transform"),
)


def concatenate(datasets: Iterable[Dataset]) -> Dataset:
    """The rows of some datasets with the same columns, one dataset after another."""
    parts = list(datasets)
    names = parts[0].column_names
    if strange := next((part for part in parts if set(part.column_names) != set(names)), None):
        raise FederatedDataError(f"datasets with the columns {names} and {strange.column_names} cannot be joined")
    columns = {}
    for name in names:
        first = parts[0].column(name)
        if all(isinstance(part.column(name).values, np.ndarray) for part in parts):
            values: Any = np.concatenate([_raw(part.column(name)) for part in parts])
        else:
            values = [value for part in parts for value in part.column(name).many()]
        columns[name] = Column(values, None, first.names, first.is_image)
    return Dataset(columns)


def pandas(what: str) -> Any:
    try:
        import pandas  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise FederatedDataError(f"{what} needs pandas, which is not installed", hint="pip install pandas") from error
    return pandas


def names_of(given: str | Sequence[str]) -> list[str]:
    """The columns that a parameter names: one or several."""
    return [given] if isinstance(given, str) else list(given)


def seed_of(given: int | None) -> int:
    """The seed that was given or, without one, a draw from NumPy's global generator."""
    return int(np.random.randint(2**31)) if given is None else operator.index(given)


def _raw(column: Column) -> Any:
    return column.values if column.rows is None else column.values[column.rows]


def _tensor(column: Column) -> Any:
    """A tensor of all values (images as channels x height x width), or a list if they have no common shape."""
    import torch

    array = column.array()
    if array.dtype.kind not in "biufc":
        return [torch.as_tensor(value) if _is_numeric(value) else value for value in array]
    if column.is_image:
        array = array[:, None] if array.ndim == 3 else np.ascontiguousarray(np.moveaxis(array, -1, 1))
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch.from_numpy(array)


def _is_numeric(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "biufc"


def _seed(seed: int | None, generator: np.random.Generator | None) -> int:
    if generator is not None:
        return int(generator.integers(2**31))
    return seed_of(seed)


def _draws(seed: int | None, generator: np.random.Generator | None) -> Draws:
    return Draws(np.random.default_rng(_seed(seed, generator)))


def _sizes(total: int, train: float | int | None, test: float | int | None) -> tuple[int, int]:
    """The numbers of rows of both parts, from fractions or numbers."""
    if train is None and test is None:
        test = 0.25

    def number(size: float | int, rounded: Callable[[float], int]) -> int:
        return rounded(size * total) if isinstance(size, float) and size < 1 else int(size)

    tests = None if test is None else number(test, ceil)
    trains = None if train is None else number(train, floor)
    trains = total - (tests or 0) if trains is None else trains
    tests = total - trains if tests is None else tests
    if trains < 1 or tests < 1 or trains + tests > total:
        raise FederatedDataError(
            f"train_test_split: {total} rows cannot be divided into {trains} for training and {tests} for tests",
            hint="give fractions above 0 and below 1, such as test_size=0.2",
        )
    return trains, tests


def _no_column(name: str, names: Iterable[str]) -> NoColumn:
    known = list(names)
    hint = f"its columns: {', '.join(known) or 'none'}"
    return NoColumn(f"the dataset has no column '{name}'{nearest(name, known)}", hint=hint)


class _Columns(dict[str, Any]):
    """Columns of rows by name. A name that does not exist is an error that lists those that do."""

    def __missing__(self, name: str) -> Any:
        raise _no_column(name, self)


def check_split(splits: Mapping[str, Any], name: str, where: str, *, hint: str = "") -> None:
    """Raises FederatedDataError: ``where`` has no such split."""
    if name not in splits:
        there = f"its splits: {', '.join(splits)}"
        raise FederatedDataError(
            f"{where} has no split '{name}'{nearest(name, splits)}", hint=f"{there}; {hint}" if hint else there
        )
