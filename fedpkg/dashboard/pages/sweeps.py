"""The sweeps of the home, and the points of one sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fedpkg.api.sweeps import get_sweep, heat_of, list_sweeps
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.curves import sweep_chart
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.configuration import text_of
from fedpkg.dashboard.tables import Column, Row, row_of, table_from, table_of

COLUMNS = (
    Column("name", "sweep", link=lambda row: address("sweeps", row["name"]), is_sortable=False),
    Column("status", "state", "state", is_sortable=False),
    Column("kind", "kind", is_sortable=False),
    Column("points", "points", is_sortable=False),
    Column("source", "from", is_sortable=False),
    Column("created_at", "started", "time", is_sortable=False),
    Column("updated_at", "last change", "time", is_sortable=False),
)


def page(asked: Asked) -> Page:
    def source(_sort: str, offset: int, limit: int) -> tuple[Sequence[Row], int]:
        part = list_sweeps(asked.at, skip=offset, limit=limit)
        points = [", ".join(f"{count} {status}" for status, count in one.points.items()) for one in part.items]
        rows = [row_of(one, points=told) for one, told in zip(part.items, points, strict=True)]
        return rows, part.total

    empty = "No sweep has run in this home: fedpkg experiment sweep starts one."
    table = table_from(asked, "sweeps", COLUMNS, source, caption="Sweeps", empty=empty)
    return Page("Which sweeps ran in this home?", {}, {"sweeps": table})


def one_sweep(asked: Asked) -> Page:
    found = get_sweep(asked.at, asked.names["sweep"], metric=asked.get("metric"))
    rows: list[Row] = [
        row_of(
            one,
            baseline=one.baseline or None,
            **{
                f"key{n}": text_of(one.choices[key]) if key in one.choices else None for n, key in enumerate(found.keys)
            },
        )
        for one in found.points
    ]
    columns = [
        Column("number", "point", "whole"),
        Column("status", "state", "state"),
        *(Column(f"key{number}", key) for number, key in enumerate(found.keys)),
        Column("final", f"{found.metric}: final", "number"),
        Column("best", "best", "number"),
        Column("best_round", "in round", "whole"),
        Column("rounds_done", "rounds", "whole"),
        Column("session_id", "session", link=lambda row: row["session_id"] and address("sessions", row["session_id"])),
        Column("baseline", "baseline"),
        Column("error", "error", "prose"),
    ]
    sort = "best" if found.lower_is_better else "-best"
    empty = "The sweep has no points yet."
    table = table_of(asked, "points", columns, rows, caption="Points", sort=sort, empty=empty, per_page=100)
    name = found.sweep.name
    values = {"found": found, "sweep": found.sweep, "x_key": "", "y_key": "", "value": "best"}
    parts: dict[str, Part] = {"points": table}
    if len(found.keys) > 1:
        x, y = (asked.get(key) if asked.get(key) in found.keys else "" for key in ("across", "down"))
        x = x or next(key for key in found.keys if key != y)
        y = y if y not in ("", x) else next(key for key in found.keys if key != x)
        value: Literal["final", "best"] = "final" if asked.get("value") == "final" else "best"
        parts["heat"] = sweep_chart(heat_of(found, x, y, value=value), value)
        values |= {"x_key": x, "y_key": y, "value": value}
    return Page(f"Which point of {name} is best?", values, parts, found.notes, (("Sweeps", "/sweeps"),))
