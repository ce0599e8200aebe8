"""Sessions with several global models: what a step may return, what is on record, kills, pruning and validation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import pytest
from clustering import GROUPING, SPLITTING, Grouping
from driven import killed, outcome_of, wait_until_gone, write_config
from federation import DRIFTING, Federation

from fedpkg.config import RunConfig
from fedpkg.errors import AggregationError, ConfigError, FedpkgError, SessionFailed
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.strategies.base import ClusterModel
from fedpkg.weights.weights import Weights


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


def test_each_client_validates_the_model_of_its_cluster(federation: Federation) -> None:
    session_id = federation.run(config_of(federation, rounds=3, validation={"every": 1})).session_id
    store = federation.store
    rows = {row.client_id: row for row in store.list_validations(session_id, round_number=3)}
    assert list(rows) == [f"client-{k}" for k in range(6)]
    assert {name: row.model_id.removeprefix(f"{session_id}.") for name, row in rows.items()} == {
        "client-0": "3/c",
        "client-1": "2/a/y",
        "client-2": "3/c",
        "client-3": "3/c",
        "client-4": "3/c",
        "client-5": "3",
    }
    (of_all,) = store.list_metric_rows(session_id, round_number=3, phase="validate")
    by_cluster = {row.cluster: row for row in store.list_metric_rows(session_id, round_number=3, cluster=None)}
    assert {path: row.num_clients for path, row in by_cluster.items() if row.phase == "validate"} == {
        "": 6,
        "a/y": 1,
        "c": 4,
    }
    weights = {name: row.weight for name, row in rows.items()}
    assert of_all.weighted_mean == pytest.approx(
        sum(row.metrics["mean"] * row.weight for row in rows.values()) / sum(weights.values())  # type: ignore[index]
    )
    assert store.get_round(session_id, 3).metrics["mean"] == of_all.weighted_mean
    assert by_cluster["a/y"].weighted_mean == rows["client-1"].metrics["mean"]  # type: ignore[index, call-overload]


TREE = {
    "validate": "own",
    "children": [
        {"name": "north", "clients": ["client-0"], "children": [{"name": "kiruna", "clients": ["client-[1-2]"]}]},
        {"name": "south", "rounds": 2, "clients": ["client-3"], "validate": "global"},
        {"name": "west", "validate": "global", "children": [{"name": "bergen", "clients": ["client-[4-5]"]}]},
    ],
}


def test_combiners_validate_their_own_models_on_their_subtrees(federation: Federation) -> None:
    more: dict[str, Any] = {"topology": TREE, "rounds": 2, "validation": {"every": 1}}
    session_id = federation.run(config_of(federation, {"name": "fedavg"}, **more)).session_id
    store = federation.store
    rows = store.list_validations(session_id, round_number=2)
    assert {row.client_id: row.cluster for row in rows} == {
        "client-0": "north",
        "client-1": "north/kiruna",
        "client-2": "north/kiruna",
        "client-3": "",
        "client-4": "",
        "client-5": "",
    }
    kiruna, north = (store.get_cluster_model(session_id, path) for path in ("north/kiruna", "north"))
    assert [one["client_id"] for one in kiruna.contributors] == ["client-1", "client-2"]
    assert [one["client_id"] for one in north.contributors] == ["client-0", "client-1", "client-2"]
    assert north.num_examples == sum(one["num_examples"] for one in north.contributors)
    assert kiruna.parents == [f"{session_id}.1"], "the model that it received is the session's"


@pytest.mark.parametrize(
    ("made", "error", "says"),
    [
        (lambda m: {"a//b": ClusterModel(m, ())}, SessionFailed, r"'a//b' is no path of a cluster"),
        (lambda m: {"": ClusterModel(m, ())}, SessionFailed, r"'' is no path"),
        (lambda m: {"/".join("x" * 99 for _ in range(30)): ClusterModel(m, ())}, SessionFailed, "the most are 2000"),
        (lambda m: {"a": m}, SessionFailed, r", a: it is not a ClusterModel with Weights, but a Weights"),
        (lambda m: {"a": ClusterModel(m.filter("w"), ())}, SessionFailed, r", a: its model does not fit .* 'steps'"),
        (lambda m: {"a": ClusterModel(m * math.nan, ())}, AggregationError, r"cluster a: tensor 'w' .* not finite"),
        (lambda m: {"a": ClusterModel(m, ("client-9",))}, SessionFailed, r", a: the session has no client 'client-9'"),
        (
            lambda m: {"a": ClusterModel(m, ("client-0",)), "b": ClusterModel(m, ("client-0",))},
            SessionFailed,
            "client-0 belongs to two clusters, a and b",
        ),
        (
            lambda m: {"a": ClusterModel(m, (), ("b",))},
            SessionFailed,
            r"parent 'b' was no cluster .* \(which had: none",
        ),
        (lambda m: {"a": ClusterModel(m, (), num_examples=-1)}, SessionFailed, "num_examples is -1, not a number from"),
    ],
    ids=["path", "none", "long", "type", "misfit", "not finite", "client", "two", "parent", "examples"],
)
@pytest.mark.every_push("misfit|two")
def test_bad_models_of_clusters_end_the_session_with_the_path(
    federation: Federation,
    made: Callable[[Weights], Mapping[str, Any]],
    error: type[FedpkgError],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Grouping, "clusters", staticmethod(lambda _round, model: made(model)), raising=False)
    with pytest.raises(error, match=says):
        federation.run(config_of(federation, GROUPING, clients=2, rounds=1))
    (session,) = federation.store.list_sessions()
    assert federation.store.list_models(session.session_id, cluster=None)[1:] == []


def test_clusters_that_end_leave_the_session_with_one_model(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clusters(number: int, model: Weights) -> dict[str, ClusterModel]:
        return (
            {"a": ClusterModel(model, ("client-0",)), "a/b": ClusterModel(model, ("client-0",))} if number == 1 else {}
        )

    monkeypatch.setattr(Grouping, "clusters", staticmethod(clusters), raising=False)
    more: dict[str, Any] = {"clients": 2, "rounds": 2, "validation": {"every": 1}}
    session_id = federation.run(config_of(federation, GROUPING, **more)).session_id
    store = federation.store
    validated = [(row.round_number, row.client_id, row.cluster) for row in store.list_validations(session_id)]
    assert sorted(validated) == [(1, "client-0", "a/b"), (1, "client-1", ""), (2, "client-0", ""), (2, "client-1", "")]
    assert store.list_clusters(session_id) == [] and store.list_cluster_clients(session_id) == {}
    digests = {row.digest for row in store.list_models(session_id, cluster=None) if row.round_number == 1}
    assert len(digests) == 1, "equal models share a file"


@pytest.mark.slow
def test_models_of_clusters_are_pruned_by_the_rule_and_current_ones_stay(federation: Federation) -> None:
    session_id = federation.run(config_of(federation, keep={"models": "last 1"})).session_id
    rows = federation.store.list_models(session_id, cluster=None)
    files = ModelStore(federation.home.models)
    there = {row.model_id.removeprefix(f"{session_id}.") for row in rows if files.path(row.digest, row.suffix).exists()}
    # The strategy's last two states name what rounds 3 and 4 ended with.
    assert there == {"0", "3", "4", "2/a/y", "3/c", "4/c"}
    assert there == {row.model_id.removeprefix(f"{session_id}.") for row in rows if row.pruned is None}
    assert federation.findings() == []
    files.path(rows[-1].digest, rows[-1].suffix).unlink()
    assert [one.problem for one in federation.findings()] == [f"the file of model {session_id}.4/c is missing"]


def of_clusters(federation: Federation, session_id: str) -> list[object]:
    store = federation.store
    paths = [store.list_cluster_clients(session_id, round_number=number) for number in range(5)]
    by_cluster = [{**asdict(row), "session_id": ""} for row in store.list_metric_rows(session_id, cluster=None)]
    return [*outcome_of(federation, session_id), clusters_of(federation, session_id), paths, by_cluster]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", ["splitting", "tree"])
@pytest.mark.parametrize("every", [pytest.param(19), pytest.param(1, marks=pytest.mark.soak)], ids=str)
@pytest.mark.every_push("19-tree")
def test_sessions_with_models_of_clusters_resume_to_the_same_bits(
    federation: Federation, tmp_path_factory: pytest.TempPathFactory, strategy: str, every: int
) -> None:
    more: dict[str, Any] = {"validation": {"every": 1}, "arguments": {"train": {"fails": "client-1@2"}}, "rounds": 4}
    if strategy == "tree":
        more |= {"topology": TREE, "strategy": {"name": "fedavgm"}, "sampler": {"count": 3}, "rounds": 2}
    quiet = Federation(Home.open(tmp_path_factory.mktemp("quiet") / ".fedpkg"))
    expected = of_clusters(quiet, quiet.run(config_of(quiet, **more)).session_id)
    config = write_config(federation, config_of(federation, **more))
    for kill_at in range(1, len(quiet.events), every):
        killed(federation, "--run", config, "--kill-at", str(kill_at))
        wait_until_gone(federation)
        session = federation.store.list_sessions()[-1]
        assert not [one for one in federation.findings() if one.damaged]
        assert federation.resume(session.session_id).status == "finished"
        assert of_clusters(federation, session.session_id) == expected, f"killed at event {kill_at}"


def test_own_models_of_combiners_are_refused_where_they_cannot_be(federation: Federation) -> None:
    with pytest.raises(ConfigError, match="combiner north: validate: own, but no round of the session is validated"):
        federation.run(config_of(federation, {"name": "fedavg"}, topology=TREE))
    chain: dict[str, Any] = {"name": "x" * 99, "clients": ["*"]}
    for _ in range(25):
        chain = {"name": "x" * 99, "children": [chain]}
    deep = {"validate": "own", "children": [chain]}
    with pytest.raises(ConfigError, match="its path has 2099 bytes, and a model of its own is on record only up to"):
        federation.run(config_of(federation, {"name": "fedavg"}, topology=deep, validation={"every": 1}))
