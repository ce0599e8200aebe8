"""Statements for the clients' histories: one row per client, whatever the number of rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from fedpkg.stores.base import ClientHistoryRow, RoundRow
from fedpkg.stores.database import Transaction
from fedpkg.stores.tables import CLIENT_HISTORY

Metrics: TypeAlias = "Mapping[str, Mapping[str, float]]"  # client → its reported numbers


def note_asked(transaction: Transaction, row: RoundRow, metrics: Metrics) -> None:
    """Record which clients a round asked and counted; a round is added once, however often it is committed."""
    number, counted = row.round_number, set(row.counted or ())
    asked = [
        ClientHistoryRow(
            session_id=row.session_id,
            client_id=client_id,
            times_asked=1,
            last_asked=number,
            times_counted=int(client_id in counted),
            last_counted=number if client_id in counted else None,
            train_metrics=dict(metrics.get(client_id, {})),
        )
        for client_id in row.cohort
    ]
    former = "client_history"
    transaction.run_many(
        f"{CLIENT_HISTORY.insert} on conflict (session_id, client_id) do update set"
        f" times_asked = {former}.times_asked"
        f" + case when coalesce({former}.last_asked, 0) < excluded.last_asked then 1 else 0 end,"
        " last_asked = excluded.last_asked,"
        f" times_counted = {former}.times_counted"
        f" + case when coalesce({former}.last_counted, 0) < coalesce(excluded.last_counted, 0) then 1 else 0 end,"
        f" last_counted = coalesce(excluded.last_counted, {former}.last_counted),"
        f" train_metrics = case when excluded.last_counted is null then {former}.train_metrics"
        " else excluded.train_metrics end",
        [CLIENT_HISTORY.encode(one) for one in asked],
    )


def note_measured(transaction: Transaction, session_id: str, metrics: Metrics) -> None:
    """Record the clients' metrics from their last validation."""
    measured = [
        ClientHistoryRow(session_id=session_id, client_id=client_id, validation_metrics=dict(numbers))
        for client_id, numbers in metrics.items()
    ]
    transaction.run_many(
        f"{CLIENT_HISTORY.insert} on conflict (session_id, client_id)"
        " do update set validation_metrics = excluded.validation_metrics",
        [CLIENT_HISTORY.encode(one) for one in measured],
    )
