"""Sweeps: their points with what each has reached, and a heat map of two keys."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

from fedpkg.api.asking import Limit, Skip, Text, page, question
from fedpkg.api.comparing import reached_by
from fedpkg.api.metrics import Curves
from fedpkg.api.opening import Opened, Page, Struct
from fedpkg.api.sessions import lower_is_better
from fedpkg.errors import NotFound
from fedpkg.experiments.record import find_sweep, status_of_sweep
from fedpkg.reporting.stored_config import without_secrets
from fedpkg.session.record import status_of
from fedpkg.stores.metric_rows import is_lower_better

if TYPE_CHECKING:
    from fedpkg.stores.base import SweepRow


class Sweep(Struct, frozen=True, kw_only=True):
    """A sweep of sessions that differ in some keys; ``points`` counts them by status."""

    name: str
    kind: str
    status: str
    source: str
    overrides: list[str]
    created_at: float
    updated_at: float
    points: dict[str, int]
    error: str | None


class Point(Struct, frozen=True, kw_only=True):
    """A point of a sweep: the chosen values, the session that runs it, and what it reached in the metric."""

    number: int
    choices: dict[str, Any]
    baseline: str
    status: str
    session_id: str | None
    session_status: str | None
    rounds_done: int
    final: float | None
    best: float | None
    best_round: int | None
    value: float | None
    error: str | None


class SweepDetail(Struct, frozen=True, kw_only=True):
    """A sweep with its points; ``keys`` are those in which they differ."""

    sweep: Sweep
    keys: list[str]
    phase: str
    metric: str
    lower_is_better: bool
    metrics: list[str]
    points: list[Point]
    notes: tuple[str, ...] = ()


class HeatMap(Struct, frozen=True, kw_only=True):
    """The mean over the runs of each cell, ``values[y][x]``; null: no run has a value. ``counts``: runs in a cell."""

    sweep: str
    x_key: str
    y_key: str
    metric: str
    phase: str
    lower_is_better: bool
    x: list[Any]
    y: list[Any]
    values: list[list[float | None]]
    counts: list[list[int]]
    sessions: list[list[list[str]]]


@question
def list_sweeps(at: Opened, *, skip: Skip = 0, limit: Limit = 100) -> Page[Sweep]:
    """The sweeps of the home, newest first."""
    return page([_sweep(at, row) for row in reversed(at.store.sweeps.all())], skip=skip, limit=limit)


def _sweep(at: Opened, row: SweepRow) -> Sweep:
    return Sweep(
        name=row.name,
        kind=row.kind,
        status=status_of_sweep(at.home, row),
        source=at.shown_path(row.source),
        overrides=list(row.overrides),
        created_at=row.created_at,
        updated_at=row.updated_at,
        points=at.store.sweeps.counts(row.name),
        error=row.error,
    )


@question
def get_sweep(at: Opened, name: Text, *, metric: Text = "", phase: Text = "") -> SweepDetail:
    """A sweep with its points.

    Args:
        name: its name, or ``latest``.
        metric: none: the first that a run has.

    Raises:
        NotFound: there is no such sweep.
    """
    row = find_sweep(at.store, None if name == "latest" else name)
    running = at.running()
    read = at.overview.sessions()
    sessions = {one.session_id: one for one in read.rows}
    pairs = [(point, sessions.get(point.session_id or "")) for point in at.store.sweeps.points(row.name)]
    curves = {one.session_id: Curves(at, one.session_id) for _, one in pairs if one is not None}
    known: dict[tuple[str, str], None] = {}
    for one in curves.values():
        known.update(dict.fromkeys((each.phase, each.metric) for each in one.names()))
    wanted = [key for key in known if metric in ("", key[1]) and phase in ("", key[0])]
    if metric and curves and not wanted:
        raise NotFound(f"no run of sweep {row.name} has a metric '{metric:.200}'", hint=", ".join(m for _, m in known))
    chosen_phase, chosen = wanted[0] if wanted else (phase, metric)
    configs = [session.config for _, session in pairs if session is not None]
    is_lower = lower_is_better(configs[0], chosen) if configs else is_lower_better(chosen)
    points = []
    for point, session in pairs:
        of = curves.get(session.session_id) if session is not None else None
        reached = reached_by(of, chosen, chosen_phase, is_lower=is_lower)
        points.append(
            Point(
                number=point.number,
                choices=at.without_paths(without_secrets(point.choices)),
                baseline=point.baseline,
                status=point.status,
                session_id=point.session_id,
                session_status=None if session is None else status_of(session, running),
                rounds_done=0 if of is None else len(of.rounds),
                final=reached[0],
                best=reached[2],
                best_round=reached[3],
                value=point.value,
                error=point.error,
            )
        )
    keys = dict.fromkeys(key for one in points for key in one.choices)
    differing = [key for key in keys if len({_text(one.choices.get(key)) for one in points}) > 1]
    return SweepDetail(
        sweep=_sweep(at, row),
        keys=differing or list(keys),
        phase=chosen_phase,
        metric=chosen,
        lower_is_better=is_lower,
        metrics=list(dict.fromkeys(metric for _, metric in known)),
        points=points,
        notes=at.notes(read),
    )


@question
def heat_map(
    at: Opened,
    name: Text,
    x: Text,
    y: Text,
    *,
    metric: Text = "",
    phase: Text = "",
    value: Literal["final", "best"] = "final",
) -> HeatMap:
    """What a sweep reached over two of its keys; runs that differ in other keys, as in the seed, are averaged.

    Raises:
        NotFound: there is no such sweep, or it chose no such key.
    """
    return heat_of(get_sweep(at, name, metric=metric, phase=phase), x, y, value=value)


def heat_of(found: SweepDetail, x: str, y: str, *, value: Literal["final", "best"] = "final") -> HeatMap:
    """The heat map of a sweep that was read. Raises NotFound: it chose no such key."""
    known = {key for one in found.points for key in one.choices}
    for key in (x, y):
        if key not in known:
            hint = f"keys: {', '.join(sorted(known))}"
            raise NotFound(f"sweep {found.sweep.name} has no key '{key:.200}'", hint=hint)
    points = [one for one in found.points if x in one.choices and y in one.choices and not one.baseline]
    columns = _sorted({_text(one.choices[x]): one.choices[x] for one in points})
    rows = _sorted({_text(one.choices[y]): one.choices[y] for one in points})
    cells: dict[tuple[str, str], list[Point]] = {}
    for one in points:
        cells.setdefault((_text(one.choices[y]), _text(one.choices[x])), []).append(one)

    def mean(of: list[Point]) -> float | None:
        told = [number for one in of if (number := one.final if value == "final" else one.best) is not None]
        return math.fsum(told) / len(told) if told else None

    grid = [[cells.get((row, column), []) for column in columns] for row in rows]
    return HeatMap(
        sweep=found.sweep.name,
        x_key=x,
        y_key=y,
        metric=found.metric,
        phase=found.phase,
        lower_is_better=found.lower_is_better,
        x=list(columns.values()),
        y=list(rows.values()),
        values=[[mean(cell) for cell in line] for line in grid],
        counts=[[sum(one.final is not None for one in cell) for cell in line] for line in grid],
        sessions=[[[one.session_id for one in cell if one.session_id] for cell in line] for line in grid],
    )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _sorted(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers by size, before texts by the alphabet."""

    def key(item: tuple[str, Any]) -> tuple[bool, float, str]:
        is_number = isinstance(item[1], (int, float)) and not isinstance(item[1], bool)
        return not is_number, float(item[1]) if is_number else 0.0, item[0]

    return dict(sorted(values.items(), key=key))
