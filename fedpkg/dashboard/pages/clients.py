"""The clients of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedpkg.api.clients import Client, ClientPage, list_clients
from fedpkg.api.configuration import get_split
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import Column, Row, row_of, table_from
from fedpkg.data.described import split_charts


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    search, state = asked.get("search"), asked.get("state")
    found: list[ClientPage] = []

    def source(sort: str, offset: int, limit: int) -> tuple[Sequence[Row], int]:
        key: Any = sort.removeprefix("-")
        order: Any = "desc" if sort.startswith("-") else "asc"
        part = list_clients(
            asked.at, session_id, search=search, state=state, sort=key, order=order, skip=offset, limit=limit
        )
        found.append(part)
        return [_row(one) for one in part.items], part.total

    columns = [
        Column("client_id", "client", link=lambda row: address("sessions", session_id, "clients", row["client_id"])),
        Column("state", "state", "state"),
        Column("attributes", "attributes", is_sortable=False),
        Column("num_examples", "examples", "number"),
        Column("times_asked", "rounds asked", "whole"),
        Column("times_counted", "counted", "whole", about="rounds in which a reply counted"),
        Column("num_failed", "failed tasks", "whole"),
        Column("seconds", "time", "seconds", about="of the recent rounds"),
        Column("bytes_down", "down", "bytes", about="of the recent rounds"),
        Column("bytes_up", "up", "bytes", about="of the recent rounds"),
        Column("last_seen", "last seen", "time"),
    ]
    empty = "No client fits these filters." if search or state else "The session has no clients yet."
    table = table_from(asked, "clients", columns, source, caption="Clients", sort="client_id", empty=empty)
    first = found[0]
    recent = (first.recent_from, first.recent_to)
    values = values_of(detail, "Clients", search=search, state_chosen=state, states=first.states, recent=recent)
    parts: dict[str, Part] = {"clients": table}
    split = get_split(asked.at, session_id)
    if split is not None and split.sizes:
        charts = split_charts(split.clients, split.sizes, split.labels, split.counts)
        parts |= {f"split-{number}": chart for number, chart in enumerate(charts)}
    values["split"] = split
    values["plots"] = [name for name in parts if name != "clients"]
    return Page("Who takes part, and how do they do?", values, parts, first.notes, trail_of(detail))


def _row(one: Client) -> Row:
    return row_of(one, attributes=", ".join(f"{name} {value}" for name, value in one.attributes.items()) or None)
