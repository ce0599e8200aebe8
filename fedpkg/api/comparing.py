"""Several sessions side by side: curves over each other, differences of their configurations, final and best values."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeAlias

import msgspec

from fedpkg.api.asking import Ref, Text, question
from fedpkg.api.metrics import Axis, Curves, MetricName, Series
from fedpkg.api.opening import Opened, Struct
from fedpkg.api.sessions import SessionSummary, summaries
from fedpkg.controller.metrics import finite_number
from fedpkg.errors import NotFound
from fedpkg.reporting.stored_config import without_secrets
from fedpkg.types import leaves

Refs: TypeAlias = Annotated[list[Ref], msgspec.Meta(min_length=1, max_length=100)]
MostMetrics: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=200)]


class Difference(Struct, frozen=True, kw_only=True):
    """A key of the configuration whose values differ, one value for each session; ``has``: whether it has the key."""

    key: str
    values: list[Any]
    has: list[bool]


class Outcome(Struct, frozen=True, kw_only=True):
    """What sessions reached in one metric, a value for each session; null: it has none."""

    phase: str
    metric: str
    lower_is_better: bool
    final: list[float | None]
    final_round: list[int | None]
    best: list[float | None]
    best_round: list[int | None]
    winner: int | None  # the place of the session with the best value; None: there is none, or several have it


class Comparison(Struct, frozen=True, kw_only=True):
    sessions: list[SessionSummary]
    differences: list[Difference]
    outcomes: list[Outcome]


class Overlay(Struct, frozen=True, kw_only=True):
    """One metric of several sessions; ``missing`` are those that have no such metric."""

    series: list[Series]
    missing: list[str]


@question
def compare(at: Opened, sessions: Refs, *, metrics: MostMetrics = 20) -> Comparison:
    """Sessions side by side.

    Args:
        sessions: each an id, the beginning of one, or ``latest``.
        metrics: most outcomes of the answer.
    """
    curves = {one.session.session_id: one for one in (Curves(at, ref) for ref in sessions)}
    names: dict[tuple[str, str], MetricName] = {}
    for one in curves.values():
        for name in one.names():
            names.setdefault((name.phase, name.metric), name)
    outcomes = [_outcome(list(curves.values()), name) for name in list(names.values())[:metrics]]
    known = summaries(at, [one.session for one in curves.values()])
    return Comparison(sessions=known, differences=_differences(at, list(curves.values())), outcomes=outcomes)


@question
def compare_series(at: Opened, sessions: Refs, metric: Text, *, phase: Text = "", axis: Axis = "round") -> Overlay:
    """One metric of several sessions, to draw over each other.

    Args:
        phase: none: of each session the first of the phases that has the metric.
    """
    found, missing = [], []
    for one in {one.session.session_id: one for one in (Curves(at, ref) for ref in sessions)}.values():
        try:
            found.append(one.series(metric, phase, axis))
        except NotFound:
            missing.append(one.session.session_id)
    return Overlay(series=found, missing=missing)


def _differences(at: Opened, curves: list[Curves]) -> list[Difference]:
    configs = [dict(leaves(at.without_paths(without_secrets(one.session.config)))) for one in curves]
    # An empty section is not told apart from one that is absent, where another session has keys in it.
    sections = {path[:end] for config in configs for path in config for end in range(1, len(path))}
    trees = [
        {".".join(path): value for path, value in config.items() if path not in sections or value not in (None, {})}
        for config in configs
    ]
    found = []
    for key in dict.fromkeys(key for tree in trees for key in tree):
        told = {json.dumps(tree[key], sort_keys=True, default=str) if key in tree else None for tree in trees}
        if len(told) > 1:
            values, has = [tree.get(key) for tree in trees], [key in tree for tree in trees]
            found.append(Difference(key=key, values=values, has=has))
    return found


def _outcome(curves: list[Curves], name: MetricName) -> Outcome:
    reached = [reached_by(one, name.metric, name.phase, is_lower=name.lower_is_better) for one in curves]
    best = [one[2] for one in reached]
    measured = [place for place, value in enumerate(best) if value is not None]
    pick = min if name.lower_is_better else max
    winner = pick(measured, key=lambda place: best[place] or 0.0) if measured else None
    if winner is not None and [best[place] for place in measured].count(best[winner]) > 1:
        winner = None
    return Outcome(
        phase=name.phase,
        metric=name.metric,
        lower_is_better=name.lower_is_better,
        final=[one[0] for one in reached],
        final_round=[one[1] for one in reached],
        best=best,
        best_round=[one[3] for one in reached],
        winner=winner,
    )


def reached_by(
    curves: Curves | None, metric: str, phase: str, *, is_lower: bool
) -> tuple[float | None, int | None, float | None, int | None]:
    """The last finite mean of a metric and its round, and the best and its round; None: there is none."""
    try:
        rows = [] if curves is None else curves.rows(metric, phase)[1]
    except NotFound:
        rows = []
    told = [(value, row.round_number) for row in rows if (value := finite_number(row.weighted_mean)) is not None]
    if not told:
        return None, None, None, None
    pick = min if is_lower else max
    best = pick(told, key=lambda one: one[0])
    return told[-1][0], told[-1][1], best[0], best[1]
