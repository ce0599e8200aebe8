"""Statements for the aggregates of metrics over clients, and which direction of a metric is better."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fedpkg.stores.base import MetricRow, RoundRow
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
