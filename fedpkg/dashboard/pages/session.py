"""One session: what it does now, how far it is, and how its metrics develop."""

from __future__ import annotations

from fedpkg.api.metrics import Curves, Series
from fedpkg.dashboard.asked import Asked
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.pages.of_session import session_of, values_of
from fedpkg.dashboard.pages.rounds import rounds_table
from fedpkg.pictures.chart import Axis, Band, Chart, Curve, LineChart

MOST_PLOTS = 6


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    curves = Curves(asked.at, session_id)
    names = curves.names()
    plots = {
        f"metric-{number}": metric_chart(curves.series(one.metric, one.phase, "round"))
        for number, one in enumerate(names[:MOST_PLOTS])
    }
    rounds = rounds_table(asked, session_id, curves, per_page=10)
    title = f"How is {session_id} doing?" if detail.now else f"How did {session_id} end?"
    values = values_of(detail, "Overview", plots=list(plots))
    parts: dict[str, Chart] = dict(plots)
    return Page(title, values, {**parts, "rounds": rounds}, detail.notes, (("Sessions", "/"),))


def metric_chart(series: Series) -> LineChart:
    """The weighted mean of a metric by round, with a band over the clients."""
    bands = () if all(low is None for low in series.min) else (Band(series.min, series.max, "all clients"),)
    curve = Curve(series.phase, series.x, series.weighted_mean, bands)
    return LineChart(title=series.metric, curves=[curve], x=Axis("round", "whole"))
