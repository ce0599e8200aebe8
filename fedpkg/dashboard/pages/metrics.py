"""The metrics of a session: all of them, and one with its clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from fedpkg.api.clients import list_clients
from fedpkg.api.metrics import Curves, MetricName, metric_names
from fedpkg.api.topology import list_clusters
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.curves import MOST_CHOSEN, View, chart_of, clusters_chart, lines_of, some_clients
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import Column, Row, Table, table_of
from fedpkg.errors import NotFound, nearest
from fedpkg.pictures.chart import Curve
from fedpkg.reporting.charts import PHASES, clients_chart

PLOTS = 12  # on one page


def page(asked: Asked) -> Page:
    """Every scalar that clients or the strategy reported: twelve plots a page, and a table of all."""
    detail = session_of(asked)
    session_id = detail.summary.session_id
    curves, view, search = Curves(asked.at, session_id), View.of(asked), asked.get("search")
    words = search.casefold().split()
    names = [one for one in curves.names() if all(word in f"{one.metric} {one.phase}".casefold() for word in words)]
    metrics = list(dict.fromkeys(one.metric for one in names))
    last = max(1, -(-len(metrics) // PLOTS))
    number = min(asked.number("page", 1, least=1), last)
    shown = metrics[(number - 1) * PLOTS : number * PLOTS]
    plots: dict[str, Part | Callable[[], Part]] = {}
    links: dict[str, str] = {}
    for at, metric in enumerate(shown):
        plots[f"metric-{at}"] = partial(chart_of, curves, metric, view)
        links[f"metric-{at}"] = address("sessions", session_id, "metrics", metric, **view.query)
    turns = {
        "previous": asked.url(page=number - 1) if number > 1 else None,
        "next": asked.url(page=number + 1) if number < last else None,
    }
    values = values_of(detail, "Metrics", plots=links, view=view, search=search, total=len(metrics), turns=turns)
    values["first"] = (number - 1) * PLOTS + 1
    parts = {**plots, "metrics": _table(asked, session_id, names)}
    return Page("How did the metrics develop?", values, parts, (), trail_of(detail))


def _table(asked: Asked, session_id: str, names: list[MetricName]) -> Table:
    columns = [
        Column("metric", "metric", link=lambda row: address("sessions", session_id, "metrics", row["metric"])),
        Column("phase", "phase"),
        Column("rounds", "rounds", "whole", about="rounds that have a value"),
        Column("first", "from round", "whole"),
        Column("last", "to round", "whole"),
    ]
    rows: list[Row] = [
        {
            "metric": one.metric,
            "phase": PHASES.get(one.phase, one.phase),
            "rounds": one.rounds,
            "first": one.first_round,
            "last": one.last_round,
        }
        for one in names
    ]
    return table_of(asked, "metrics", columns, rows, caption="Metrics", empty="No metric fits.", per_page=25)


def one_metric(asked: Asked) -> Page:
    """One metric: its mean, and on demand the line of each client."""
    detail = session_of(asked)
    session_id, metric = detail.summary.session_id, asked.names["metric"]
    curves, view = Curves(asked.at, session_id), View.of(asked)
    phases = [one.phase for one in curves.names() if one.metric == metric]
    if not phases:
        known = [one.metric for one in curves.names()]
        raise NotFound(f"session {session_id} has no metric '{metric:.200}'{nearest(metric, known)}")
    has_clients = any(phase != "strategy" for phase in phases)
    chosen = asked.all("client")[:MOST_CHOSEN]
    chosen = [one for text in chosen if (one := text.strip())]
    is_each = asked.get("each") == "1" and has_clients

    def curve() -> Part:
        clients, total = some_clients(asked, session_id) if is_each else ([], 0)
        lines = lines_of(asked, curves, metric, phases[0], view, clients) if clients else None
        found = chart_of(curves, metric, view, lines, total)
        if not chosen:
            return found
        own = lines_of(asked, curves, metric, phases[0], view, chosen).lines
        return replace(found, curves=[*found.curves, *(Curve(one.client_id, one.x, one.values) for one in own)])

    parts: dict[str, Part | Callable[[], Part]] = {"curve": curve}
    if has_clients and (spread := _spread(asked, session_id, metric, phases[0], curves)):
        parts["spread"] = spread
    clusters = [one.path for one in list_clusters(asked.at, session_id)] if has_clients else []
    clusters = [path for path in clusters if _has(asked, session_id, path, metric)]
    if clusters:
        parts["clusters"] = partial(clusters_chart, asked, session_id, metric, view, clusters)
    parts["values"] = _values(asked, curves, metric, phases)
    values = values_of(detail, "Metrics", metric=metric, view=view, is_each=is_each, chosen=chosen)
    values |= {"has_clients": has_clients, "has_spread": "spread" in parts, "has_clusters": bool(clusters)}
    trail = trail_of(detail, ("Metrics", address("sessions", session_id, "metrics")))
    return Page(f"How did {metric} develop?", values, parts, (), trail)


def _has(asked: Asked, session_id: str, cluster: str, metric: str) -> bool:
    """Whether the clients of a cluster report the metric."""
    return any(one.metric == metric for one in metric_names(asked.at, session_id, cluster=cluster))


def _spread(asked: Asked, session_id: str, metric: str, phase: str, curves: Curves) -> Part | None:
    """How the clients' last values are distributed; None: they are not on record."""
    clients = list_clients(asked.at, session_id, limit=1000).items
    found = [(one.train_metrics if phase == "train" else one.validation_metrics).get(metric) for one in clients]
    rounds = curves.series(metric, phase, "round").rounds
    known = [value for value in found if value is not None]
    return clients_chart(known, metric, rounds[-1] if rounds else 0) if known else None


def _values(asked: Asked, curves: Curves, metric: str, phases: list[str]) -> Table:
    rows: list[Row] = []
    for phase in phases:
        found = curves.series(metric, phase, "round")
        for at, number in enumerate(found.rounds):
            row = {"round": number, "phase": PHASES.get(phase, phase), "mean": found.weighted_mean[at]}
            row |= {"std": found.std[at], "min": found.min[at], "max": found.max[at]}
            row |= {"worst": found.worst_tenth[at], "best": found.best_tenth[at], "clients": found.num_clients[at]}
            rows.append(row)
    columns = [
        Column("round", "round", "whole"),
        Column("phase", "phase"),
        Column("mean", "mean", "number", about="weighted over clients"),
        Column("std", "standard deviation", "number", about="over clients"),
        Column("min", "least", "number"),
        Column("max", "greatest", "number"),
        Column("worst", "worst tenth", "number", about="mean of the worst tenth of the clients"),
        Column("best", "best tenth", "number"),
        Column("clients", "clients", "whole"),
    ]
    return table_of(asked, "values", columns, rows, caption=f"{metric} by round", sort="-round", per_page=25)
