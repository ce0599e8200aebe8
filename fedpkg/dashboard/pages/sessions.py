"""All sessions of the home: searched, filtered, sorted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedpkg.api.opening import Page as Part
from fedpkg.api.sessions import SessionSummary, list_sessions, session_filters
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.tables import Column, Row, row_of, table_from

FILTERS = ("state", "package", "strategy", "sweep")
COLUMNS = (
    Column("pick", "", "pick", is_sortable=False),
    Column("session_id", "session", link=lambda row: address("sessions", row["session_id"])),
    Column("status", "state", "state"),
    Column("rounds_done", "rounds", "rounds"),
    Column("headline", "last value", "number", is_sortable=False, about="the first metric: weighted mean over clients"),
    Column("metric", "metric", is_sortable=False),
    Column("package", "package"),
    Column("strategy", "strategy"),
    Column("num_clients", "clients", "whole", is_sortable=False),
    Column("created_at", "started", "time"),
    Column("sweep", "sweep", link=lambda row: row["sweep"] and address("sweeps", row["sweep"]), is_sortable=False),
)


def page(asked: Asked) -> Page:
    chosen = {name: asked.get(name) for name in ("search", *FILTERS)}
    notes: list[str] = []

    def source(sort: str, offset: int, limit: int) -> tuple[Sequence[Row], int]:
        key: Any = sort.removeprefix("-")  # a column of ours that can be sorted, which the API checks again
        order: Any = "desc" if sort.startswith("-") else "asc"
        found: Part[SessionSummary] = list_sessions(asked.at, **chosen, sort=key, order=order, skip=offset, limit=limit)
        notes[:] = found.notes
        return [session_row(one) for one in found.items], found.total

    is_filtered = any(chosen.values())
    empty = "No session fits these filters." if is_filtered else "No session has run in this home yet."
    table = table_from(asked, "sessions", COLUMNS, source, caption="Sessions", sort="-created_at", empty=empty)
    values = {"chosen": chosen, "filters": session_filters(asked.at), "is_filtered": is_filtered}
    return Page("Which sessions ran in this home?", values, {"sessions": table}, notes)


def session_row(one: SessionSummary) -> Row:
    """A session as a row of a table."""
    line = one.headline
    told = {"headline": None, "metric": None} if line is None else {"headline": line.value, "metric": line.metric}
    return row_of(one, pick=one.session_id, **told)
