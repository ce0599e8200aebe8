"""One session: what it does now, how far it is, how its metrics develop, and where bytes and time go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fedpkg.api.metrics import Curves
from fedpkg.api.tasks import tasks_in_flight
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.curves import View, chart_of, cost_charts
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.failures import failures_table
from fedpkg.dashboard.pages.of_session import session_of, values_of
from fedpkg.dashboard.pages.rounds import all_rounds, rounds_table
from fedpkg.dashboard.tables import Column, Row, row_of, table_of
from fedpkg.waist.order import ALL, SERVER

MOST_PLOTS = 6
NEWEST_FAILURES = 3
MOST_SLOTS = 16


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    curves, view = Curves(asked.at, session_id), View.of(asked)
    metrics = list(dict.fromkeys(one.metric for one in curves.names()))
    plots: dict[str, Part | Callable[[], Part]] = {}
    links: dict[str, str] = {}
    for number, metric in enumerate(metrics[:MOST_PLOTS]):
        plots[f"metric-{number}"] = partial(chart_of, curves, metric, view)
        links[f"metric-{number}"] = address("sessions", session_id, "metrics", metric, **view.query)
    rounds = list(all_rounds(asked, session_id))
    costs = dict(cost_charts(rounds)) if any(one.seconds is not None for one in rounds) else {}
    table = rounds_table(asked, session_id, curves, rounds=rounds, per_page=10)
    title = f"How is {session_id} doing?" if detail.now else f"How did {session_id} end?"
    more: dict[str, Any] = {
        "plots": links,
        "costs": list(costs),
        "num_metrics": len(metrics),
        "view": view,
        "flying": None,
    }
    parts: dict[str, Part | Callable[[], Part]] = {**plots, **costs, "rounds": table}
    if detail.now:
        flying = more["flying"] = tasks_in_flight(asked.at, session_id)
        parts["slots"] = table_of(
            asked,
            "slots",
            [
                Column("slot", "slot", "whole", is_sortable=False),
                Column("client_id", "client", link=lambda row: _client(session_id, row), is_sortable=False),
                Column("entry_point", "entry point", is_sortable=False),
                Column("round_number", "round", "whole", is_sortable=False),
                Column("since", "since", "time", is_sortable=False),
            ],
            [row_of(one) for one in flying.running],
            caption="Tasks that run now",
            sort="slot",
            empty="No task runs at this moment.",
            per_page=MOST_SLOTS,
        )
    if detail.num_failed_tasks:
        parts["failures"] = failures_table(asked, session_id, per_page=NEWEST_FAILURES)[0]
    return Page(title, values_of(detail, "Overview", **more), parts, detail.notes, (("Sessions", "/"),))


def _client(session_id: str, row: Row) -> str | None:
    """The page of a task's client. Tasks of the server, and one that makes the seed model, have none."""
    client_id = row["client_id"]
    return None if client_id in ("", ALL, SERVER) else address("sessions", session_id, "clients", client_id)
