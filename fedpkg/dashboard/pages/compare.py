"""Sessions side by side."""

from __future__ import annotations

from fedpkg.api.comparing import Comparison, compare, compare_series
from fedpkg.api.sessions import list_sessions
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.curves import View, overlay_chart
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.configuration import text_of
from fedpkg.dashboard.pages.sessions import COLUMNS, session_row
from fedpkg.dashboard.tables import Column, Row, Table, table_of
from fedpkg.reporting.charts import PHASES

MOST = 20  # sessions side by side


def page(asked: Asked) -> Page:
    refs = [one for one in dict.fromkeys(asked.all("session")) if one][:MOST]
    title = "How do sessions differ?"
    if not refs:
        known = [session_row(one) for one in list_sessions(asked.at, limit=100).items]
        table = table_of(asked, "sessions", COLUMNS, known, caption="Sessions to compare", empty="There is no session.")
        return Page(title, {"found": None}, {"sessions": table})
    found = compare(asked.at, refs)
    view = View.of(asked)
    metrics = list(dict.fromkeys(one.metric for one in found.outcomes))
    metric = asked.get("metric") if asked.get("metric") in metrics else next(iter(metrics), "")
    parts: dict[str, Part] = {
        "sessions": _sessions(asked, found),
        "outcomes": _outcomes(asked, found),
        "differences": _differences(asked, found),
    }
    missing: list[str] = []
    if metric:
        overlay = compare_series(asked.at, refs, metric, axis=view.axis)
        parts["curves"] = overlay_chart(overlay, metric, view)
        missing = overlay.missing
    return Page(title, {"found": found, "view": view, "metrics": metrics, "metric": metric, "missing": missing}, parts)


def _sessions(asked: Asked, found: Comparison) -> Table:
    columns = [column for column in COLUMNS if column.kind != "pick"]
    return table_of(asked, "sessions", columns, [session_row(one) for one in found.sessions], caption="The sessions")


def _outcomes(asked: Asked, found: Comparison) -> Table:
    """The final and the best value of each metric, a pair of columns for each session."""
    columns = [Column("metric", "metric"), Column("phase", "phase")]
    for number, one in enumerate(found.sessions):
        columns += [
            Column(f"final{number}", f"{one.session_id}: final", "number"),
            Column(f"best{number}", "best", "number"),
            Column(f"at{number}", "in round", "whole"),
        ]
    columns.append(
        Column("winner", "best session", link=lambda row: row["winner"] and address("sessions", row["winner"]))
    )
    rows: list[Row] = []
    for told in found.outcomes:
        winner = None if told.winner is None else found.sessions[told.winner].session_id
        row: dict[str, object] = {"metric": told.metric, "phase": PHASES.get(told.phase, told.phase), "winner": winner}
        for number in range(len(found.sessions)):
            row |= {f"final{number}": told.final[number], f"best{number}": told.best[number]}
            row[f"at{number}"] = told.best_round[number]
        rows.append(row)
    empty = "No session has a metric."
    return table_of(asked, "outcomes", columns, rows, caption="Final and best values", empty=empty)


def _differences(asked: Asked, found: Comparison) -> Table:
    columns = [Column("key", "key")]
    columns += [Column(f"value{number}", one.session_id) for number, one in enumerate(found.sessions)]
    rows = [
        {
            "key": one.key,
            **{
                f"value{n}": text_of(value) if has else None
                for n, (value, has) in enumerate(zip(one.values, one.has, strict=True))
            },
        }
        for one in found.differences
    ]
    empty = "Their configurations are the same."
    return table_of(asked, "differences", columns, rows, caption="Differences of configuration", empty=empty)
