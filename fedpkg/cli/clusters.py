"""The clusters of a session that have models of their own: their clients, their models, and what these measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedpkg.cli import output

if TYPE_CHECKING:
    from fedpkg.stores.sql import StateStore


def clusters_of(store: StateStore, session_id: str, round_number: int | None = None) -> list[dict[str, Any]]:
    """The clusters after a round, or now, by path; none if the session has one global model.

    ``clients``: those that have the cluster's model. ``metrics``: the means over them of its last validation.
    """
    models = store.list_clusters(session_id, round_number=round_number)
    if not models:
        return []
    members: dict[str, list[str]] = {}
    for client_id, path in store.list_cluster_clients(session_id, round_number=round_number).items():
        members.setdefault(path, []).append(client_id)
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


def clusters_table(clusters: Sequence[dict[str, Any]]) -> None:
    """A row for each cluster."""
    told = Counter(name for one in clusters for name in one["metrics"])
    names = [name for name, _ in told.most_common(4)]
    columns = [output.measures([one["metrics"].get(name) for one in clusters]) for name in names]
    rows = [
        [one["cluster"], str(len(one["clients"])), one["model_id"], output.number(one["num_examples"])]
        + [column[i] for column in columns]
        for i, one in enumerate(clusters)
    ]
    output.table(["cluster", "clients", "model", "examples", *names], rows)
