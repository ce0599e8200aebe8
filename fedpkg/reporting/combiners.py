"""What the combiners of a session's tree have done, and its clusters with models of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpkg.stores.base import CombinerRow, RequestRow, RoundRow
    from fedpkg.stores.sql import StateStore


@dataclass
class Account:
    """A combiner in the rounds that are shown; calls, bytes and seconds are those of its own clients, and of the models
    between it and the combiner above. ``metrics``: of the last of the rounds; ``validation``: what the
    clients below it measured in the last round that was validated, each of the global model, or of the own model of the
    nearest combiner above it that has one. ``ended_after``: the last round of a cluster that is no more.
    """

    path: str
    rounds: int = 0
    failed: int = 0
    reason: str = ""
    num_asked: int = 0
    num_ok: int = 0
    num_examples: float = 0.0
    calls: int = 0
    calls_failed: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    wall_s: float = 0.0
    virtual_s: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    ended_after: int | None = None


def accounts(paths: Sequence[str], combiners: Sequence[CombinerRow], requests: Sequence[RequestRow]) -> list[Account]:
    """The accounts of combiners, in the order of their paths."""
    found: dict[str, Account] = {path: Account(path) for path in paths}
    for row in combiners:
        one = found.setdefault(row.path, Account(row.path))  # of clusters that are no more, too
        one.rounds += row.rounds
        one.failed += row.status == "failed"
        one.reason = row.reason or one.reason
        one.num_asked, one.num_ok, one.num_examples = row.num_asked, row.num_ok, row.num_examples
        one.bytes_down += row.bytes_down
        one.bytes_up += row.bytes_up
        one.metrics = row.metrics
        if row.virtual_s is not None:
            one.virtual_s = (one.virtual_s or 0.0) + row.virtual_s
    for request in requests:
        if (account := found.get(request.client_group or "")) is not None:
            account.calls += len(request.cohort)
            account.calls_failed += request.num_failed
            account.bytes_down += request.bytes_down
            account.bytes_up += request.bytes_up
            account.wall_s += request.wall_s or 0.0
    return list(found.values())


def ended_clusters(rounds: Iterable[RoundRow]) -> dict[str, int]:
    """The last round of each cluster that was found during a run and is no more, by its path."""
    from fedpkg.strategies.base import upward

    ended: dict[str, int] = {}
    before: set[str] = set()
    for row in rounds:
        if (clusters := row.strategy_metrics.get("clusters")) is not None:  # a round that has changed them
            now = {above for path in clusters for above in upward(path)}
            ended |= dict.fromkeys(before - now, row.round_number - 1)
            before = now
    return ended


def clients_by_cluster(store: StateStore, session_id: str, round_number: int | None = None) -> dict[str, list[str]]:
    """The clients of each cluster after a round, or now, by its path."""
    found: dict[str, list[str]] = {}
    for client_id, path in store.list_cluster_clients(session_id, round_number=round_number).items():
        found.setdefault(path, []).append(client_id)
    return found


def clusters_of(store: StateStore, session_id: str, round_number: int | None = None) -> list[dict[str, Any]]:
    """The clusters after a round, or now, by path; none if the session has one global model.

    ``clients``: those that have the cluster's model. ``metrics``: the means over them of its last validation.
    """
    models = store.list_clusters(session_id, round_number=round_number)
    if not models:
        return []
    members = clients_by_cluster(store, session_id, round_number)
    paths = [model.cluster for model in models]
    rows = store.list_metric_rows(session_id, phase="validate", cluster=paths, round_number=round_number)
    last: dict[str, int] = {row.cluster: row.round_number for row in rows}
    return [
        {
            "cluster": model.cluster,
            "clients": members.get(model.cluster, []),
            "model_id": model.model_id,
            "digest": model.digest,
            "parents": model.parents,
            "num_examples": model.num_examples,
            "validated": last.get(model.cluster),
            "metrics": {
                row.metric: row.weighted_mean
                for row in rows
                if row.cluster == model.cluster and row.round_number == last[row.cluster]
            },
        }
        for model in models
    ]
