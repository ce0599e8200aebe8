"""Statements for the aggregates of metrics over clients, and which direction of a metric is better."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fedpkg.stores.base import TRAIN, MetricRow, RoundRow
from fedpkg.stores.database import Transaction
from fedpkg.stores.tables import METRIC_ROWS

_LOWER = {"loss", "error", "err", "mse", "mae", "rmse", "nll", "perplexity"}


def is_lower_better(metric: str) -> bool:
    """Whether a metric's name contains a word (loss, error, mse …) of metrics for which the lowest value is best."""
    return any(word in _LOWER for word in re.split(r"[^a-z]+", metric.lower()))


def replace_rows(transaction: Transaction, row: RoundRow, rows: Iterable[MetricRow]) -> None:
    """Write the aggregates of a round that is committed, in the place of those of an earlier attempt."""
    transaction.run(
        "delete from metric_rows where session_id = :session_id and round_number = :round_number",
        {"session_id": row.session_id, "round_number": row.round_number},
    )
    add_rows(transaction, rows)


def add_rows(transaction: Transaction, rows: Iterable[MetricRow]) -> None:
    """Write more aggregates of a round."""
    transaction.run_many(METRIC_ROWS.upsert, [METRIC_ROWS.encode(row) for row in rows])


def round_values(row: RoundRow) -> dict[str, float | None]:
    """A round's averages by the names that ``stop.metric`` has; None: there is no finite average."""
    told = {name: value for name, value in row.strategy_metrics.items() if _is_number(value)}
    found = {**told, **{f"{TRAIN}{name}": value for name, value in row.train_metrics.items()}, **row.metrics}
    return {name: value for name, value in found.items() if name.rpartition("/")[2] != "num_examples"}


def name_in(metric: str, values: Iterable[str]) -> str:
    """The name that `round_values` gives a metric which may be spelled ``validate/loss``, ``strategy/norm`` or
    ``train_loss`` (for ``train/loss``); as it is, if no value has one of these names."""
    known = set(values)
    spelled = [metric, *(metric.removeprefix(f"{phase}/") for phase in ("validate", "strategy"))]
    spelled += [f"{TRAIN}{metric.removeprefix('train_')}"] * metric.startswith("train_")
    return next((name for name in spelled if name in known), metric)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def best_is_lowest(stop: Mapping[str, Any]) -> bool:
    """Whether the lowest value of the metric is best, given the section ``stop`` of a configuration."""
    if stop.get("mode") is not None:
        return bool(stop["mode"] == "min")
    if stop.get("at_least") is not None or stop.get("at_most") is not None:
        return stop.get("at_most") is not None
    return is_lower_better(stop["metric"])


def best_round(stop: Mapping[str, Any] | None, rounds: Iterable[RoundRow]) -> int | None:
    """The round of the best value of ``stop.metric``, the earliest of equal ones; None: no round has a finite value."""
    if stop is None:
        return None
    sign = -1.0 if best_is_lowest(stop) else 1.0
    best: tuple[float, int] | None = None
    for row in rounds:
        values = round_values(row) if row.status == "finished" else {}
        value = values.get(name_in(stop["metric"], values))
        if value is not None and math.isfinite(value) and (best is None or sign * value > best[0]):
            best = sign * value, row.round_number
    return None if best is None else best[1]
