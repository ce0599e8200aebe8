"""A session in a notebook, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fedpkg.errors import NotFound, SessionError, nearest
from fedpkg.pictures.chart import Axis, Curve, LineChart
from fedpkg.pictures.raster import to_figure
from fedpkg.shown import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_ROUNDS = 20


def as_html(session_id: str, status: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The session's id and status, and its metrics by round; only the last rounds, if there are many."""
    heading = f"<b>{_text(session_id or 'not started')}</b> ({_text(status)}, {len(rows)} rounds finished)"
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        return f"<div>{heading}</div>"
    lines = [[_number(row.get(name)) for name in names] for row in rows[-SHOWN_ROUNDS:]]
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    caption = f"<div>the last {SHOWN_ROUNDS} of them:</div>" if len(rows) > SHOWN_ROUNDS else ""
    return f"<div>{heading}</div>{caption}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else _text(str(value)[:80])


def _text(value: str) -> str:
    return escape(shown(value))


def plot(session_id: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """A line per metric over the rounds; without names, a line for each numeric metric.

    Raises:
        ConfigError: matplotlib is not installed.
        SessionError: there is nothing to draw.
        NotFound: no round has a metric of that name.
    """
    numeric = [name for name in dict.fromkeys(name for row in rows for name in row) if _is_numeric(rows, name)]
    known = [name for name in numeric if name not in ("round", "num_examples", "train_num_examples")]
    for name in names:
        if name not in numeric:
            there = f"metrics of session {session_id}: {', '.join(known)}" if known else None
            raise NotFound(f"no round has a number '{name}'{nearest(name, known)}", hint=there)
    if not (names or known):
        raise SessionError(f"session {session_id} has no metrics to plot yet", hint="it has no validated round")
    curves = [Curve(name, [row["round"] for row in rows], [row.get(name) for row in rows]) for name in names or known]
    return to_figure([LineChart(title=session_id, curves=curves, x=Axis("round", "whole"))], height=3.6)


def _is_numeric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [row[name] for row in rows if row.get(name) is not None]
    return bool(values) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
