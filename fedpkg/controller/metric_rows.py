"""Aggregates of metrics over clients (`MetricRow`): docs/reference/metrics.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fedpkg.controller.metrics import Weight, average, nested_numbers, numbers_of
from fedpkg.stores.base import HELD_OUT, MetricPhase, MetricRow, RoundRow, ValidationRow
from fedpkg.stores.metric_rows import is_lower_better
from fedpkg.types import Json

if TYPE_CHECKING:
    from fedpkg.stores.sql import StateStore

MAX_METRICS = 256  # of one phase of a round: clients choose the names of their metrics, and how many they report
_NUM_EXAMPLES = "num_examples"  # counts the examples; it is not a metric


def metric_rows(
    replies: Sequence[tuple[Json, Weight]],
    *,
    session_id: str,
    round_number: int,
    phase: MetricPhase,
    cluster: str = "",
) -> list[MetricRow]:
    """One row for each metric that the clients report, given each client's metrics and their weight.

    Numbers inside other values have rows, too, by the names of `nested_numbers`. The weighted mean is that of
    `average`. Of more than 256 metrics, those that most clients report have rows.
    """
    replies = [(_with_nested(metrics), weight) for metrics, weight in replies]
    weighted = average(replies).values
    values: dict[str, list[float]] = {name: [] for name in weighted if name != _NUM_EXAMPLES}
    for metrics, _ in replies:
        for name, number in numbers_of(metrics).items():
            if name != _NUM_EXAMPLES:
                values[name].append(number)
    names = sorted(values, key=lambda name: -len(values[name]))[:MAX_METRICS]
    return [
        _row(
            values[name],
            weighted[name],
            MetricRow(
                session_id=session_id,
                round_number=round_number,
                phase=phase,
                metric=name,
                num_clients=len(values[name]),
                cluster=cluster,
            ),
        )
        for name in names
    ]


def _with_nested(metrics: Json) -> Json:
    nested = nested_numbers(metrics)
    return {**metrics, **nested} if nested and isinstance(metrics, dict) else metrics


def _row(values: Sequence[float], weighted_mean: float | None, key: MetricRow) -> MetricRow:
    if not values:
        return key
    # A power of 2, so that scaling is exact: the squares and differences of large values would overflow.
    exponent = max(math.frexp(value)[1] for value in values)
    scaled = sorted(math.ldexp(value, -exponent) for value in values)
    count, tenth = len(scaled), -(-len(scaled) // 10)
    mean = math.fsum(scaled) / count
    variance = math.fsum((value - mean) ** 2 for value in scaled) / count
    low, high = math.fsum(scaled[:tenth]) / tenth, math.fsum(scaled[-tenth:]) / tenth
    worst, best = (high, low) if is_lower_better(key.metric) else (low, high)

    def back(value: float) -> float:
        return math.ldexp(value, exponent)

    return replace(
        key,
        weighted_mean=weighted_mean,
        mean=back(mean),
        std=back(math.sqrt(variance)),
        min=min(values),
        max=max(values),
        deciles=[back(_quantile(scaled, number)) for number in range(1, 10)],
        worst_tenth=back(worst),
        best_tenth=back(best),
    )


def _quantile(values: Sequence[float], tenths: int) -> float:
    """The quantile of sorted values, interpolated linearly between the two values next to it."""
    below, rest = divmod((len(values) - 1) * tenths, 10)
    if not rest:
        return values[below]
    return values[below] + (values[below + 1] - values[below]) * (rest / 10)


def all_metric_rows(store: StateStore, session_id: str, *, clusters: bool = False) -> list[MetricRow]:
    """The aggregates of a session, by round; with ``clusters``, also those of each cluster.

    For rounds of an older fedpkg, the weighted means are those on record; the spread is known of the validations.
    """
    found: dict[int, list[MetricRow]] = {}
    for one in store.list_metric_rows(session_id, cluster=None if clusters else ""):
        found.setdefault(one.round_number, []).append(one)
    rounds = store.list_rounds(session_id, status=("aggregated", "finished"))
    replies: dict[int, list[ValidationRow]] = {}
    if any(row.round_number not in found for row in rounds):
        for validation in store.list_validations(session_id):
            replies.setdefault(validation.round_number, []).append(validation)
    return [
        one
        for row in rounds
        for one in found.get(row.round_number) or _with_spread(former_rows(row), replies.get(row.round_number, ()))
    ]


def _with_spread(means: list[MetricRow], validated: Sequence[ValidationRow]) -> list[MetricRow]:
    """The rows of a former round, those of the validation with their spread over the clients."""
    if not validated or any(mean.phase == "held_out" for mean in means):  # the validations of both kinds are mixed
        return means
    told = [(reply.metrics, (reply.weight, reply.weight_source)) for reply in validated]
    first = validated[0]
    rows = metric_rows(told, session_id=first.session_id, round_number=first.round_number, phase="validate")
    known = {("validate", one.metric): one for one in rows}
    return [replace(known.get((mean.phase, mean.metric), mean), weighted_mean=mean.weighted_mean) for mean in means]


def former_rows(row: RoundRow) -> list[MetricRow]:
    """The aggregates of a round that an older fedpkg recorded: weighted means alone."""
    held_out = {name.removeprefix(HELD_OUT): value for name, value in row.metrics.items() if name.startswith(HELD_OUT)}
    validated = {name: value for name, value in row.metrics.items() if not name.startswith(HELD_OUT)}
    phases: Iterable[tuple[MetricPhase, Mapping[str, float | None]]] = (
        ("held_out", held_out),
        ("train", row.train_metrics),
        ("validate", validated),
    )
    return [
        MetricRow(
            session_id=row.session_id,
            round_number=row.round_number,
            phase=phase,
            metric=name,
            num_clients=_num_finite(row.averages.get(phase, {}), name),
            weighted_mean=value,
        )
        for phase, values in phases
        for name, value in values.items()
        if name != _NUM_EXAMPLES
    ]


def _num_finite(about: Mapping[str, Json], name: str) -> int:
    finite = about.get("finite")
    counts = finite.get(name) if isinstance(finite, Mapping) else None
    number = counts[0] if isinstance(counts, list) else about.get("num_clients", 0)
    return number if isinstance(number, int) else 0
