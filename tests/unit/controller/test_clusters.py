"""Sessions with several global models: what a step may return, what is on record, kills, pruning and validation."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from clustering import SPLITTING
from federation import DRIFTING, Federation

from fedpkg.config import RunConfig


def config_of(federation: Federation, strategy: dict[str, Any] = SPLITTING, **changes: Any) -> RunConfig:
    return federation.config(
        **{"package": str(DRIFTING), "clients": 6, "rounds": 4, "strategy": strategy, "keep": {}, **changes}
    )


def clusters_of(federation: Federation, session_id: str) -> list[dict[str, Any]]:
    """The rows of all models, with what differs between two runs left out."""
    rows = federation.store.list_models(session_id, cluster=None)
    return [json.loads(json.dumps({**asdict(row), "created_at": 0}).replace(session_id, "S")) for row in rows]


def test_models_of_clusters_are_on_record_with_their_parents_and_clients(federation: Federation) -> None:
    session_id = federation.run(config_of(federation)).session_id
    store = federation.store
    rows = {row.model_id.partition(".")[2]: row for row in store.list_models(session_id, cluster=None) if row.cluster}
    assert {name: (row.parents, row.until_round) for name, row in rows.items()} == {
        name: ([f"{session_id}.{one}" for one in parents], until)
        for name, (parents, until) in {
            "1/a": (["0"], 2),
            "1/b": (["0"], 3),
            "2/a/x": (["1/a"], 3),
            "2/a/y": (["1/a"], None),  # unchanged since, so without rows of rounds 3 and 4
            "3/c": (["2/a/x", "1/b"], 4),
            "4/c": (["3/c"], None),
        }.items()
    }
    assert [one["client_id"] for one in rows["3/c"].contributors] == ["client-0", "client-2", "client-3", "client-4"]
    assert (rows["3/c"].num_examples, rows["3/c"].parent_id) == (1.0, f"{session_id}.2/a/x")
    paths = [store.list_cluster_clients(session_id, round_number=number) for number in (1, 2, 3, 4)]
    assert [one.get("client-2") for one in paths] == ["a", "a/y", "c", "c"]
    assert "client-5" not in paths[0]
    saved = store.load_strategy_state(session_id)
    assert saved is not None
    kept = {path: one["$weights"] for path, one in saved[1]["clusters"].items()}
    assert kept == {"a/y": rows["2/a/y"].digest, "c": rows["4/c"].digest}, "a row and the state share one file"
    assert federation.findings() == []
    assert not federation.model(f"{session_id}.4/c").equal(federation.model(f"{session_id}.4"))
