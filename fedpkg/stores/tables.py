"""Conversion of the state store's rows to parameters of statements, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Generic, TypeVar

from fedpkg.errors import StoreError
from fedpkg.stores.base import (
    ClientHistoryRow,
    ClientRow,
    ClusterClientRow,
    CombinerRow,
    MetricRow,
    ModelRow,
    PackageRow,
    RequestRow,
    RoundRow,
    SessionRow,
    SweepPointRow,
    SweepRow,
    TaskRow,
    UpdateRow,
    ValidationRow,
)
from fedpkg.stores.database import RESTORE, Parameters

Row = TypeVar("Row")


@dataclass(frozen=True)
class Table(Generic[Row]):
    """The table of one kind of row.

    Columns are the row's fields. ``json`` columns hold JSON text (None is null). ``free_text`` columns hold output of
    programs, which may be binary: characters that databases refuse are written as escapes.
    """

    name: str
    row: type[Row]
    key: tuple[str, ...]
    json: frozenset[str] = frozenset()
    free_text: frozenset[str] = frozenset()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(f.name for f in fields(self.row))  # type: ignore[arg-type]  # rows are dataclasses

    @cached_property
    def insert(self) -> str:
        values = ", ".join(f":{column}" for column in self.columns)
        return f"insert into {self.name} ({', '.join(self.columns)}) values ({values})"

    @cached_property
    def upsert(self) -> str:
        changes = ", ".join(f"{column} = excluded.{column}" for column in self.columns if column not in self.key)
        return f"{self.insert} on conflict ({', '.join(self.key)}) do update set {changes}"

    @cached_property
    def select(self) -> str:
        return f"select {', '.join(f'{self.name}.{column}' for column in self.columns)} from {self.name}"

    def encode(self, row: Row) -> dict[str, Any]:
        items = {column: getattr(row, column) for column in self.columns}
        for column, value in items.items():
            if value is not None and (type(value) is not int or column in self.json):
                items[column] = self.value(column, value)
        return items

    def value(self, column: str, value: Any) -> Any:
        """``value`` in a form that every database can store in ``column``.

        Raises:
            StoreError: it cannot be stored unchanged: NaN (SQLite makes it null), or text that is not Unicode.
        """
        if value is None:
            return None
        if column in self.json:
            return to_json(value)
        if isinstance(value, float) and value != value:
            raise StoreError(f"{self.name}.{column} is NaN, which a row cannot store", table=self.name, column=column)
        if isinstance(value, str) and (not value.isascii() or "\0" in value):
            storable = value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
            if storable != value and column not in self.free_text:
                raise StoreError(
                    f"{self.name}.{column} is not Unicode text: {storable}",
                    hint="rename the file, folder or client: names must be UTF-8 without NUL characters",
                    table=self.name,
                    column=column,
                )
            return storable
        return value

    @cached_property
    def types(self) -> tuple[tuple[str, tuple[type, ...]], ...]:
        """The Python types of each column's values, from the row's annotations; a Literal is text."""
        kinds = {
            "int": (int,),
            "float": (int, float),
            "bool": (int,),
            "dict": (dict,),
            "list": (list,),
            "Json": (object,),
        }
        found = []
        for field in fields(self.row):  # type: ignore[arg-type]
            word = re.split(r"\W", str(field.type))[0]
            none = (type(None),) if "None" in str(field.type) else ()
            found.append((field.name, (*kinds.get(word, (str,)), *none)))
        return tuple(found)

    def decode(self, values: Sequence[Any]) -> Row:
        """The row from a database's values.

        Raises:
            StoreError: the values are invalid: the database was changed by another program or a disk fault.
        """
        items: dict[str, Any] = dict(zip(self.columns, values, strict=True))
        column = ""
        try:
            for column in self.json:
                if items[column] is not None:
                    items[column] = json.loads(items[column])
            for column, types in self.types:
                if not isinstance(items[column], types):
                    raise TypeError(f"it is {items[column]!r:.100}")
            column = ""
            return self.row(**items)
        except (ValueError, TypeError, RecursionError) as error:
            where = ", ".join(f"{name} {items[name]!r:.100}" for name in self.key)
            what = f"{self.name}.{column}" if column else f"a row of {self.name}"
            raise StoreError(
                f"the database is damaged: {what} of {where} cannot be read: {error}",
                hint=RESTORE,
                table=self.name,
                column=column,
            ) from error


def to_json(value: Any) -> str:
    """JSON text in ASCII, so that any database returns NaN, lone surrogates and NUL unchanged."""
    return _COMPACT.encode(value)


_COMPACT = json.JSONEncoder(separators=(",", ":"))


def where_of(filters: Parameters) -> tuple[str, dict[str, Any]]:
    """A where clause for the filters that are not None, and its parameters; several values: any of them."""
    clauses: list[str] = []
    parameters: dict[str, Any] = {}
    for column, value in filters.items():
        if value is None:
            continue
        several = (value,) if isinstance(value, (str, int)) else tuple(value)
        names = [f"{column.replace('.', '_')}_{number}" for number in range(len(several))]
        parameters.update(zip(names, several, strict=True))
        clauses.append(f"{column} in ({', '.join(f':{name}' for name in names) or 'null'})")
    return (f" where {' and '.join(clauses)}" if clauses else ""), parameters


PACKAGES = Table("packages", PackageRow, ("digest",), json=frozenset({"entry_points"}))
SESSIONS = Table(
    "sessions",
    SessionRow,
    ("session_id",),
    json=frozenset({"config", "signatures"}),
    free_text=frozenset({"error"}),
)
CLIENTS = Table("clients", ClientRow, ("session_id", "client_id"))
CLIENT_HISTORY = Table(
    "client_history",
    ClientHistoryRow,
    ("session_id", "client_id"),
    json=frozenset({"train_metrics", "validation_metrics"}),
)
MODELS = Table("models", ModelRow, ("model_id",), json=frozenset({"contributors", "buffers", "parents"}))
CLUSTER_CLIENTS = Table("cluster_clients", ClusterClientRow, ("session_id", "client_id", "round_number"))
ROUNDS = Table(
    "rounds",
    RoundRow,
    ("session_id", "round_number"),
    json=frozenset(
        {"cohort", "counted", "arrivals", "metrics", "train_metrics", "strategy_metrics", "averages", "phases"}
    ),
    free_text=frozenset({"error"}),
)
REQUESTS = Table(
    "requests", RequestRow, ("session_id", "round_number", "request_id"), json=frozenset({"cohort", "counted"})
)
TASKS = Table(
    "tasks",
    TaskRow,
    ("task_id",),
    json=frozenset({"phases"}),
    free_text=frozenset({"message", "command", "log_tail"}),
)
UPDATES = Table("updates", UpdateRow, ("task_id",), json=frozenset({"metadata"}))
VALIDATIONS = Table("validations", ValidationRow, ("task_id",), json=frozenset({"metrics"}))
METRIC_ROWS = Table(
    "metric_rows",
    MetricRow,
    ("session_id", "round_number", "phase", "cluster", "metric"),
    json=frozenset({"deciles"}),
    free_text=frozenset({"metric"}),
)
COMBINERS = Table(
    "combiners",
    CombinerRow,
    ("session_id", "round_number", "path"),
    json=frozenset({"metrics"}),
    free_text=frozenset({"reason"}),
)
SWEEPS = Table("sweeps", SweepRow, ("name",), json=frozenset({"overrides", "options"}), free_text=frozenset({"error"}))
SWEEP_POINTS = Table(
    "sweep_points",
    SweepPointRow,
    ("sweep", "number"),
    json=frozenset({"choices", "config"}),
    free_text=frozenset({"error"}),
)
