"""One session: what it does now, how far it is, how its metrics develop, and where bytes and time go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fedpkg.api.metrics import Curves
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.curves import View, chart_of, cost_charts
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.failures import failures_table
from fedpkg.dashboard.pages.of_session import session_of, values_of
from fedpkg.dashboard.pages.rounds import all_rounds, rounds_table

MOST_PLOTS = 6
NEWEST_FAILURES = 3


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
    costs = dict(cost_charts(rounds)) if rounds else {}
    table = rounds_table(asked, session_id, curves, rounds=rounds, per_page=10)
    title = f"How is {session_id} doing?" if detail.now else f"How did {session_id} end?"
    more = {"plots": links, "costs": list(costs), "num_metrics": len(metrics), "view": view}
    parts: dict[str, Part | Callable[[], Part]] = {**plots, **costs, "rounds": table}
    if detail.num_failed_tasks:
        parts["failures"] = failures_table(asked, session_id, per_page=NEWEST_FAILURES)[0]
    return Page(title, values_of(detail, "Overview", **more), parts, detail.notes, (("Sessions", "/"),))
