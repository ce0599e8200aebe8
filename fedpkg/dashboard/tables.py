"""Tables as data: sorted and paged by the query, and as CSV and JSON whole."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from fedpkg.pictures.rows import csv_cell

if TYPE_CHECKING:
    from fedpkg.dashboard.asked import Asked

Kind: TypeAlias = Literal[
    "text", "prose", "number", "whole", "bytes", "seconds", "time", "state", "digest", "rounds", "pick"
]  # rounds: of num_rounds of the row; pick: selects the row, and is in no file
Row: TypeAlias = Mapping[str, Any]
PER_PAGE = 50
NUMBERS: tuple[Kind, ...] = ("number", "whole", "bytes", "seconds", "rounds")


@dataclass(frozen=True)
class Column:
    """A column: the key of its values in the rows, its heading, and what kind of values they are."""

    key: str
    title: str
    kind: Kind = "text"
    link: Callable[[Row], str | None] | None = None  # the address that a row's cell leads to
    is_sortable: bool = True
    about: str = ""  # explains the heading

    @property
    def is_number(self) -> bool:
        return self.kind in NUMBERS


@dataclass(frozen=True)
class Table:
    """The rows that a page shows, out of ``total``; ``everything`` yields all of them for a file."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    total: int
    everything: Callable[[], Iterable[Row]]
    sort: str = ""  # a column's key, with "-" before it: from the largest
    page: int = 1
    per_page: int = PER_PAGE
    empty: str = "There is nothing here yet."
    links: Mapping[str, str] = field(default_factory=dict)  # column's key → address that sorts by it
    pages: Sequence[tuple[str, str | None]] = ()  # (words, address) of "previous" and "next"

    @property
    def heading(self) -> Column:
        """The column that names the rows."""
        return next(column for column in self.columns if column.kind != "pick")

    def order_of(self, column: Column) -> str:
        """For ``aria-sort``."""
        if self.sort.removeprefix("-") != column.key:
            return "none"
        return "descending" if self.sort.startswith("-") else "ascending"


def row_of(answer: msgspec.Struct, **changed: Any) -> Row:
    """An answer of the API as a row: its fields by their names, and values that are shown instead or besides."""
    return {**msgspec.structs.asdict(answer), **changed}


def table_of(
    asked: Asked,
    name: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    caption: str,
    sort: str = "",
    empty: str = "There is nothing here yet.",
    per_page: int = PER_PAGE,
) -> Table:
    """A table of rows that are in memory, sorted and paged as the query says (``<name>.sort``, ``<name>.page``)."""
    chosen = _chosen(asked, name, columns, sort)
    ordered = _sorted(rows, chosen)

    def window(offset: int, limit: int) -> Sequence[Row]:
        return ordered[offset : offset + limit]

    return _table(asked, name, columns, window, len(ordered), lambda: ordered, caption, chosen, empty, per_page)


def table_from(
    asked: Asked,
    name: str,
    columns: Sequence[Column],
    source: Callable[[str, int, int], tuple[Sequence[Row], int]],
    *,
    caption: str,
    sort: str = "",
    empty: str = "There is nothing here yet.",
    per_page: int = PER_PAGE,
) -> Table:
    """A table whose rows are read a page at a time: ``source(sort, offset, limit)`` returns rows and their total."""
    chosen = _chosen(asked, name, columns, sort)
    found: dict[tuple[int, int], tuple[Sequence[Row], int]] = {}

    def read(offset: int, limit: int) -> tuple[Sequence[Row], int]:
        if (offset, limit) not in found:
            found[offset, limit] = source(chosen, offset, limit)
        return found[offset, limit]

    def everything() -> Iterator[Row]:
        offset = 0
        while rows := source(chosen, offset, 1000)[0]:
            yield from rows
            offset += len(rows)

    page = asked.number(f"{name}.page", 1, least=1)
    total = read((page - 1) * per_page, per_page)[1]
    return _table(asked, name, columns, lambda o, n: read(o, n)[0], total, everything, caption, chosen, empty, per_page)


def _chosen(asked: Asked, name: str, columns: Sequence[Column], default: str) -> str:
    """The order that the query asks for, if there is such a column."""
    given = asked.get(f"{name}.sort", default)
    return given if given.removeprefix("-") in {one.key for one in columns if one.is_sortable} else default


def _table(
    asked: Asked,
    name: str,
    columns: Sequence[Column],
    window: Callable[[int, int], Sequence[Row]],
    total: int,
    everything: Callable[[], Iterable[Row]],
    caption: str,
    sort: str,
    empty: str,
    per_page: int,
) -> Table:
    last = max(1, math.ceil(total / per_page))
    page = min(asked.number(f"{name}.page", 1, least=1), last)
    links = {}
    for column in columns:
        if column.is_sortable:
            is_down = sort == f"-{column.key}" or (
                sort != column.key and not column.is_number and column.kind != "time"
            )
            links[column.key] = asked.url(
                **{f"{name}.sort": f"{'' if is_down else '-'}{column.key}", f"{name}.page": None}
            )
    pages = []
    if last > 1:
        pages = [
            ("previous", asked.url(**{f"{name}.page": page - 1 if page > 2 else None}) if page > 1 else None),
            ("next", asked.url(**{f"{name}.page": page + 1}) if page < last else None),
        ]
    rows = window((page - 1) * per_page, per_page)
    return Table(name, caption, columns, rows, total, everything, sort, page, per_page, empty, links, pages)


def _sorted(rows: Sequence[Row], sort: str) -> list[Row]:
    """Rows by a column; those without a value come last in either direction."""
    key = sort.removeprefix("-")
    if not key:
        return list(rows)
    with_value = [row for row in rows if _is_value(row.get(key))]
    without = [row for row in rows if not _is_value(row.get(key))]
    return [*sorted(with_value, key=lambda row: _rank(row[key]), reverse=sort.startswith("-")), *without]


def _is_value(value: Any) -> bool:
    return value is not None and value == value  # NaN is no value


def _rank(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, (int, float))
    return (not is_number, float(value) if is_number else 0.0, "" if is_number else str(value).casefold())


def _in_files(table: Table) -> list[Column]:
    return [column for column in table.columns if column.kind != "pick"]


def csv_of(table: Table) -> Iterator[bytes]:
    """All rows as CSV in UTF-8, in pieces. A text that a spreadsheet would run as a formula gets an apostrophe."""
    buffer = io.StringIO("\ufeff")  # by which spreadsheets know UTF-8
    buffer.seek(1)
    writer = csv.writer(buffer)
    columns = _in_files(table)
    writer.writerow([_csv_cell(column.title) for column in columns])
    for number, row in enumerate(table.everything()):
        writer.writerow([_csv_cell(row.get(column.key)) for column in columns])
        if number % 500 == 499:
            yield buffer.getvalue().encode(errors="backslashreplace")
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode(errors="backslashreplace")


def _csv_cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return csv_cell(text)


def json_of(table: Table) -> Iterator[bytes]:
    """All rows as a JSON list of objects, in pieces."""
    yield b"["
    columns = _in_files(table)
    for number, row in enumerate(table.everything()):
        known = {column.key: _plain(row.get(column.key)) for column in columns}
        yield (b",\n" if number else b"\n") + json.dumps(known, default=str).encode()
    yield b"\n]\n"


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
