"""The rounds of a session, and one round with its requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedpkg.api.metrics import Curves
from fedpkg.api.rounds import Round, get_round, list_rounds
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.pages.failures import failures_table
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import PER_PAGE, Column, Row, Table, row_of, table_of
from fedpkg.errors import NotFound

_AT_ONCE = 1000  # rounds of one answer of the API
MOST_METRICS = 4  # columns of the table of rounds


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    table = rounds_table(asked, session_id, Curves(asked.at, session_id), per_page=100)
    return Page(
        "What happened in each round?", values_of(detail, "Rounds"), {"rounds": table}, detail.notes, trail_of(detail)
    )


def rounds_table(
    asked: Asked, session_id: str, curves: Curves, *, rounds: Iterable[Round] | None = None, per_page: int = PER_PAGE
) -> Table:
    """The rounds, the newest first, with the means of the first metrics; ``rounds``: those that were read already."""
    names = [one for one in curves.names() if one.phase != "strategy"][:MOST_METRICS]
    means: dict[str, dict[int, float | None]] = {}
    for number, one in enumerate(names):
        found = curves.series(one.metric, one.phase, "round")
        means[f"metric{number}"] = dict(zip(found.rounds, found.weighted_mean, strict=True))
    rows = [_row(one, means) for one in (all_rounds(asked, session_id) if rounds is None else rounds)]
    metrics = [
        Column(f"metric{number}", one.metric, "number", about=f"{one.phase}: weighted mean over clients")
        for number, one in enumerate(names)
    ]
    columns = [
        Column("round", "round", "whole", lambda row: address("sessions", session_id, "rounds", str(row["round"]))),
        Column("status", "state", "state"),
        *metrics,
        Column("num_ok", "ok", "whole", about="calls of clients that succeeded"),
        Column("num_failed", "failed", "whole"),
        Column("num_examples", "examples", "number"),
        Column("bytes_down", "down", "bytes"),
        Column("bytes_up", "up", "bytes"),
        Column("seconds", "time", "seconds"),
        Column("started_at", "started", "time"),
    ]
    empty = "No round has begun yet."
    return table_of(asked, "rounds", columns, rows, caption="Rounds", sort="-round", empty=empty, per_page=per_page)


def all_rounds(asked: Asked, session_id: str) -> Iterator[Round]:
    skip, total = 0, 1
    while skip < total:
        part = list_rounds(asked.at, session_id, counts=False, skip=skip, limit=_AT_ONCE)
        yield from part.items
        skip, total = skip + _AT_ONCE, part.total


def _row(one: Round, means: dict[str, dict[int, float | None]]) -> Row:
    return row_of(one, round=one.round_number, **{key: found.get(one.round_number) for key, found in means.items()})


def one_round(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    number = asked.names["round"]
    if not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise NotFound(f"there is no round {number!r}", hint="a round has a number")
    found = get_round(asked.at, session_id, int(number))
    requests = [row_of(one) for one in found.requests]
    columns = [
        Column("number", "request", "whole"),
        Column("entry_point", "entry point"),
        Column("group", "group"),
        Column("status", "state", "state"),
        Column("num_clients", "clients", "whole"),
        Column("num_ok", "ok", "whole"),
        Column("num_failed", "failed", "whole"),
        Column("bytes_down", "down", "bytes"),
        Column("bytes_up", "up", "bytes"),
        Column("seconds", "time", "seconds"),
    ]
    table = table_of(asked, "requests", columns, requests, caption="Requests to clients", sort="number")
    phases = [{"phase": name, "seconds": seconds} for name, seconds in found.round.phases.items()]
    where = [Column("phase", "phase"), Column("seconds", "time", "seconds")]
    times = table_of(asked, "phases", where, phases, caption="Where the time went", sort="-seconds")
    failures, notes = failures_table(asked, session_id, round_number=found.round.round_number, per_page=20)
    values = values_of(detail, "Rounds", round=found.round)
    trail = trail_of(detail, ("Rounds", address("sessions", session_id, "rounds")))
    title = f"What happened in round {found.round.round_number}?"
    return Page(title, values, {"requests": table, "failures": failures, "phases": times}, notes, trail)
