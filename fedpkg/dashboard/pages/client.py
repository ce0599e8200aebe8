"""One client: in a session, and over all sessions of the home."""

from __future__ import annotations

from typing import Any

from fedpkg.api.clients import client_history, get_client
from fedpkg.api.metrics import Curves
from fedpkg.api.tasks import list_tasks
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.curves import client_charts, history_chart, tasks_chart
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.failures import failures_table, task_row
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import Column, Row, row_of, table_of

RECENT_FAILURES = 20


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id, client_id = detail.summary.session_id, asked.names["client_id"]
    client = get_client(asked.at, session_id, client_id)
    known = list(list_tasks(asked.at, session_id, client_id=client_id))
    tasks = [task_row(one) for one in known]
    columns = [
        Column("round", "round", "whole"),
        Column("entry_point", "entry point", link=lambda row: address("tasks", row["task_id"])),
        Column("status", "state", "state"),
        Column("failure", "failure"),
        Column("seconds", "time", "seconds"),
        Column("started_at", "started", "time"),
    ]
    failures, _ = failures_table(asked, session_id, client_id=client_id, per_page=RECENT_FAILURES)
    plots = dict(client_charts(asked, Curves(asked.at, session_id), client_id))
    if known:
        plots["times"] = tasks_chart(known)
    parts: dict[str, Part] = {
        **plots,
        "tasks": table_of(asked, "tasks", columns, tasks, caption="Its tasks", sort="-started_at", per_page=20),
        "failures": failures,
        "metrics": _metrics(asked, client.train_metrics, client.validation_metrics),
    }
    trail = trail_of(detail, ("Clients", address("sessions", session_id, "clients")))
    values = values_of(detail, "Clients", client=client, plots=list(plots))
    return Page(f"How does {client_id} do?", values, parts, (), trail)


def _metrics(asked: Asked, train: Any, validation: Any) -> Any:
    rows: list[Row] = [
        {"metric": name, "train": train.get(name), "validation": validation.get(name)}
        for name in dict.fromkeys((*validation, *train))
    ]
    columns = [
        Column("metric", "metric"),
        Column("train", "with its last update", "number"),
        Column("validation", "in its last validation", "number"),
    ]
    return table_of(asked, "metrics", columns, rows, caption="What it reported last", empty="It has no numbers yet.")


def history(asked: Asked) -> Page:
    client_id = asked.names["client_id"]
    past = client_history(asked.at, client_id)
    chart = history_chart(client_id, past)
    rows = [row_of(one, status=one.session_status) for one in past]
    columns = [
        Column("session_id", "session", link=lambda row: address("sessions", row["session_id"], "clients", client_id)),
        Column("status", "state", "state"),
        Column("strategy", "strategy"),
        Column("num_examples", "examples", "number"),
        Column("times_asked", "rounds asked", "whole"),
        Column("times_counted", "counted", "whole"),
        Column("num_failed", "failed tasks", "whole"),
        Column("created_at", "started", "time"),
    ]
    table = table_of(asked, "sessions", columns, rows, caption="Sessions with this client", sort="-created_at")
    parts: dict[str, Part] = {"sessions": table}
    if chart is not None:
        parts["last"] = chart
    values = {"has_chart": chart is not None}
    return Page(f"In which sessions did {client_id} take part?", values, parts, (), (("Sessions", "/"),))
