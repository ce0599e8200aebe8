"""Statements for the models of clusters of clients, and for the clusters to which clients belong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedpkg.errors import NotFound
from fedpkg.stores.base import ClusterChanges, ClusterClientRow, ModelRow, RoundRow
from fedpkg.stores.database import Transaction
from fedpkg.stores.tables import CLUSTER_CLIENTS, MODELS
from fedpkg.stores.write_behind import WriteBehind


def save_clusters(transaction: Transaction, row: RoundRow, changes: ClusterChanges) -> None:
    """Write what a round changes."""
    transaction.run_many(MODELS.upsert, [MODELS.encode(model) for model in changes.models])
    transaction.run_many(
        "update models set until_round = :until where model_id = :model_id",
        [{"until": row.round_number, "model_id": model_id} for model_id in changes.ended],
    )
    moved = [
        ClusterClientRow(session_id=row.session_id, client_id=client_id, round_number=row.round_number, path=path)
        for client_id, path in changes.clients.items()
    ]
    transaction.run_many(CLUSTER_CLIENTS.upsert, [CLUSTER_CLIENTS.encode(one) for one in moved])


def clusters_of_clients(database: WriteBehind, session_id: str, round_number: int | None) -> dict[str, str]:
    """The cluster of each client after a round, or now, in the order of their ids; without clients that have none."""
    rows = database.rows(
        f"{CLUSTER_CLIENTS.select} where session_id = :session_id and round_number <= :until"
        " order by client_id, round_number",
        {"session_id": session_id, "until": _LAST if round_number is None else round_number},
    )
    found = {row.client_id: row.path for row in map(CLUSTER_CLIENTS.decode, rows)}
    return {client_id: path for client_id, path in found.items() if path}


def current_models(database: WriteBehind, session_id: str, round_number: int | None) -> list[ModelRow]:
    """The models of the clusters that exist after a round, or now, in the order of their paths."""
    rows = database.rows(
        f"{MODELS.select} where session_id = :session_id and cluster <> '' and round_number <= :at"
        " and coalesce(until_round, :never) > :at order by cluster",
        {"session_id": session_id, "at": _LAST if round_number is None else round_number, "never": _LAST + 1},
    )
    return [MODELS.decode(row) for row in rows]


def trail_of(models: Iterable[ModelRow], model_id: str) -> list[ModelRow]:
    """The models from which a model comes, itself first, the newest rounds first; each once, also after merges."""
    known = {model.model_id: model for model in models}
    found: dict[str, ModelRow] = {}
    waiting = [model_id]
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            model = found[name] = known[name]
            waiting += model.parents or ([] if model.parent_id is None else [model.parent_id])
    return sorted(found.values(), key=lambda model: (-model.round_number, model.cluster))


def no_cluster(path: str, known: Sequence[str], session_id: str, when: str = "") -> NotFound:
    """An error: the session has no such cluster."""
    some = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
    return NotFound(
        f"session {session_id} has no cluster {path!r}{when}" + (f"; it has {some}" if known else ""),
        hint=f"`fedpkg model list {session_id} --clusters` lists the models of its clusters"
        if known
        else "only some strategies, such as ifca, and trees with validate: own have models of clusters",
        session_id=session_id,
        cluster=path,
    )


_LAST = (1 << 62) - 1
