"""The failed tasks of a session."""

from __future__ import annotations

from collections.abc import Sequence

from fedpkg.api.tasks import Task, failure_kinds, list_failures
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.curves import failure_kinds_chart
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import PER_PAGE, Column, Row, Table, row_of, table_from, table_of

COLUMNS = (
    Column("round", "round", "whole", is_sortable=False),
    Column("client_id", "client", link=lambda row: address("tasks", row["task_id"]), is_sortable=False),
    Column("entry_point", "entry point", is_sortable=False),
    Column("failure", "failure", is_sortable=False),
    Column("message", "message", "prose", is_sortable=False),
    Column("attempt", "attempt", "whole", is_sortable=False),
    Column("seconds", "time", "seconds", is_sortable=False),
    Column("started_at", "started", "time", is_sortable=False),
)


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    kind, client = asked.get("kind"), asked.get("client")
    kinds = failure_kinds(asked.at, session_id)
    table, notes = failures_table(asked, session_id, kind=kind or None, client_id=client or None)
    by_kind = table_of(
        asked,
        "kinds",
        [
            Column("kind", "failure", link=lambda row: asked.url(kind=row["kind"])),
            Column("total", "tasks", "whole"),
            Column("rounds", "rounds", "whole", about="rounds with such a failure"),
        ],
        [{"kind": one.kind, "total": one.total, "rounds": len(one.by_round)} for one in kinds],
        caption="Failures by kind",
        sort="-total",
        empty="No task failed.",
    )
    values = values_of(detail, "Failures", kind=kind, client=client, kinds=[one.kind for one in kinds])
    parts: dict[str, Part] = {"kinds": by_kind, "failures": table}
    if kinds:
        last = max(detail.summary.rounds_done, *(number for one in kinds for number, _ in one.by_round))
        parts["by-round"] = failure_kinds_chart(kinds, last)
    return Page("Which tasks failed, and why?", values, parts, notes, trail_of(detail))


def failures_table(
    asked: Asked,
    session_id: str,
    *,
    kind: str | None = None,
    client_id: str | None = None,
    round_number: int | None = None,
    per_page: int = PER_PAGE,
) -> tuple[Table, tuple[str, ...]]:
    """The failed tasks of a session that match, and the notes about rows that cannot be read."""
    notes: tuple[str, ...] = ()

    def source(_sort: str, offset: int, limit: int) -> tuple[Sequence[Row], int]:
        nonlocal notes
        part = list_failures(
            asked.at,
            session_id,
            kind=kind,
            client_id=client_id,
            round_number=round_number,
            skip=offset,
            limit=limit,
        )
        notes = part.notes
        return [task_row(one) for one in part.items], part.total

    empty = "No failed task fits these filters." if kind or client_id else "No task failed."
    caption = "Failed tasks, newest first"
    table = table_from(asked, "failures", COLUMNS, source, caption=caption, empty=empty, per_page=per_page)
    return table, notes


def task_row(one: Task) -> Row:
    """A task as a row of a table."""
    told = [text[:300] for text in (one.message, one.last_line) if text]
    return row_of(one, round=one.round_number, message="; its log ends with: ".join(told) or None)
