"""A session in a notebook, as a table and as a figure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fedpkg.errors import NotFound, SessionError, nearest
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
        SessionError: matplotlib is not installed, or there is nothing to draw.
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
    figure = _figure()
    axes = figure.add_subplot()
    for name in names or known:
        points = [(row["round"], row[name]) for row in rows if row.get(name) is not None]
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set(xlabel="round", title=session_id)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _figure() -> Figure:
    """An empty figure that a notebook shows, whatever its backend, and though no code of it has imported pyplot.

    Raises:
        SessionError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SessionError("plot() needs matplotlib", hint="pip install 'fedpkg[plots]'") from error

    class Plot(Figure):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=100)
            return picture.getvalue()

    return Plot(figsize=(6.4, 3.6), layout="constrained")


def _is_numeric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [row[name] for row in rows if row.get(name) is not None]
    return bool(values) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
