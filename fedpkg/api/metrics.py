"""Metrics of a session by round: their names, and curves with their spread over the clients.

A metric inside another value has the keys that lead to it, joined by dots: ``per_class.3``, ``loss.total``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

import msgspec

from fedpkg.api.asking import Ref, Text, question
from fedpkg.api.opening import Opened, Struct
from fedpkg.api.sessions import lower_is_better
from fedpkg.controller.metric_rows import former_rows
from fedpkg.controller.metrics import finite_number
from fedpkg.errors import NotFound, nearest
from fedpkg.reporting.measures import PHASES, metric_rank, phase_place, strategy_rows
from fedpkg.stores.base import MetricRow
from fedpkg.stores.overview import RoundFacts

Axis: TypeAlias = Literal["round", "bytes", "seconds", "calls", "virtual_s"]
MostSeries: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=100)]


class MetricName(Struct, frozen=True, kw_only=True):
    """A metric that a session has. ``phase``: what was measured, as in docs/reference/metrics.md."""

    phase: str
    metric: str
    rounds: int
    first_round: int
    last_round: int
    lower_is_better: bool


class Series(Struct, frozen=True, kw_only=True):
    """One metric of one session by round, a column for each aggregate over the clients; null: unknown.

    ``x`` is the round, or what the session has cost up to the end of the round. ``deciles`` has nine numbers for each
    round, or none. ``best`` is the place of the best mean in the columns.
    """

    session_id: str
    phase: str
    metric: str
    axis: str
    lower_is_better: bool
    rounds: list[int]
    x: list[float]
    weighted_mean: list[float | None]
    mean: list[float | None]
    std: list[float | None]
    min: list[float | None]
    max: list[float | None]
    deciles: list[list[float]]
    worst_tenth: list[float | None]
    best_tenth: list[float | None]
    num_clients: list[int]
    best: int | None


@question
def metric_names(at: Opened, ref: Ref, *, cluster: Text = "") -> list[MetricName]:
    """The metrics of a session, those first that a reader looks for first.

    Args:
        cluster: the path of a cluster, whose clients report them; none: all clients.
    """
    return Curves(at, ref, cluster=cluster).names()


@question
def series(at: Opened, ref: Ref, metric: Text, *, phase: Text = "", axis: Axis = "round", cluster: Text = "") -> Series:
    """One metric of a session by round.

    Args:
        phase: none: the first of the phases that has the metric.
        axis: what ``x`` is: the round, or bytes, seconds, calls of clients or virtual seconds up to its end.
        cluster: the path of a cluster, of whose clients the aggregates are; none: all clients.

    Raises:
        NotFound: the session has no such metric; the message names the nearest.
    """
    return Curves(at, ref, cluster=cluster).series(metric, phase, axis)


@question
def all_series(at: Opened, ref: Ref, *, phase: Text = "", axis: Axis = "round", limit: MostSeries = 20) -> list[Series]:
    """The first metrics of a session, each by round, in the order of `metric_names`."""
    curves = Curves(at, ref)
    wanted = [one for one in curves.names() if phase in ("", one.phase)][:limit]
    return [curves.series(one.metric, one.phase, axis) for one in wanted]


class Curves:
    """The metrics of one session; its rounds are read once for all of them."""

    def __init__(self, at: Opened, ref: str, *, cluster: str = "") -> None:
        self._cluster = cluster
        self.session = at.session(ref)
        self._overview, self._id = at.overview, self.session.session_id
        self._x: dict[Axis, dict[int, float]] = {}
        self._rows: dict[tuple[str, str], list[MetricRow]] = {}

    @cached_property
    def rounds(self) -> list[RoundFacts]:
        """The committed rounds."""
        return [one for one in self._overview.rounds(self._id).rows if one.status in ("aggregated", "finished")]

    def names(self) -> list[MetricName]:
        found = {(phase, metric): seen for phase, metric, *seen in self._named}
        for key, rows in self._former.items():
            found.setdefault(key, [len(rows), rows[0].round_number, rows[-1].round_number])
        names = [
            MetricName(
                phase=phase,
                metric=metric,
                rounds=count,
                first_round=first,
                last_round=last,
                lower_is_better=lower_is_better(self.session.config, metric),
            )
            for (phase, metric), (count, first, last) in found.items()
        ]

        def order(one: MetricName) -> tuple[int, bool, int, str]:
            return phase_place(one.phase), "." in one.metric, metric_rank(one.metric), one.metric

        return sorted(names, key=order)

    def series(self, metric: str, phase: str, axis: Axis) -> Series:
        """One metric by round; no phase: the first that has it. Raises NotFound."""
        chosen, rows = self.rows(metric, phase)
        x = self.x(axis)
        rows = [one for one in rows if one.round_number in x]
        is_lower = lower_is_better(self.session.config, metric)
        return _series(self._id, chosen, metric, axis, rows, x, is_lower=is_lower)

    def rows(self, metric: str, phase: Text = "") -> tuple[str, list[MetricRow]]:
        """A phase that has the metric, and its aggregates by round. Raises NotFound."""
        for each in (phase,) if phase else PHASES:
            if (each, metric) not in self._rows:
                rows = self._overview.metric_series(self._id, each, metric, cluster=self._cluster)
                self._rows[each, metric] = [*self._former.get((each, metric), ()), *rows]
            if found := self._rows[each, metric]:
                return each, found
        known = list(dict.fromkeys(one.metric for one in self.names() if phase in ("", one.phase)))
        where = f" in phase '{phase}'" if phase else ""
        raise NotFound(
            f"no round has a metric '{metric:.200}'{where}{nearest(metric, known)}",
            hint=f"metrics{where}: {', '.join(known[:20])}" if known else "no round of the session has a metric",
        )

    def x(self, axis: Axis) -> dict[int, float]:
        """By committed round: its number, or what the session has cost up to its end."""
        if axis not in self._x:
            self._x[axis] = self._costs(axis)
        return self._x[axis]

    def _costs(self, axis: Axis) -> dict[int, float]:
        if axis == "round":
            return {one.round_number: one.round_number for one in self.rounds}
        if axis == "virtual_s":
            return {one.round_number: one.phases["virtual_time"] for one in self.rounds if "virtual_time" in one.phases}
        sums = self._overview.request_sums(self._id, with_calls=axis == "calls")
        total, found = 0.0, {}
        for one in self.rounds:
            request = sums.get(one.round_number)
            if axis == "seconds":
                total += one.wall_s or 0.0
            elif request is not None:
                total += request.calls if axis == "calls" else request.bytes_down + request.bytes_up
            found[one.round_number] = total
        return found

    @cached_property
    def _named(self) -> list[tuple[str, str, int, int, int]]:
        return self._overview.metric_names(self._id, cluster=self._cluster)

    @cached_property
    def _former(self) -> dict[tuple[str, str], list[MetricRow]]:
        """The numbers that strategies report, and the means of rounds before the first with rows of metrics."""
        found: dict[tuple[str, str], list[MetricRow]] = {}
        if self._cluster:
            return found
        for one in self.rounds:
            for each in strategy_rows(self._id, one.round_number, one.strategy_metrics):
                found.setdefault(("strategy", each.metric), []).append(each)
        begins = min((first for _, _, _, first, _ in self._named), default=None)
        for before in self._overview.means(self._id, before=begins):
            for each in former_rows(before):
                found.setdefault((each.phase, each.metric), []).append(each)
        return found


def _series(
    session_id: str,
    phase: str,
    metric: str,
    axis: str,
    rows: Sequence[MetricRow],
    x: Mapping[int, float],
    *,
    is_lower: bool,
) -> Series:
    means = [finite_number(one.weighted_mean) for one in rows]
    measured = [place for place, value in enumerate(means) if value is not None]
    pick: Callable[..., int] = min if is_lower else max
    return Series(
        session_id=session_id,
        phase=phase,
        metric=metric,
        axis=axis,
        lower_is_better=is_lower,
        rounds=[one.round_number for one in rows],
        x=[x[one.round_number] for one in rows],
        weighted_mean=means,
        mean=[finite_number(one.mean) for one in rows],
        std=[finite_number(one.std) for one in rows],
        min=[finite_number(one.min) for one in rows],
        max=[finite_number(one.max) for one in rows],
        deciles=[one.deciles for one in rows],
        worst_tenth=[finite_number(one.worst_tenth) for one in rows],
        best_tenth=[finite_number(one.best_tenth) for one in rows],
        num_clients=[one.num_clients for one in rows],
        best=pick(measured, key=lambda place: means[place]) if measured else None,
    )
