"""Clusters that are found during a run from label histograms and attributes, and what is refused before a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from digits import permuted
from federation import Federation
from training import Digits, models, places, run

from fedpkg.errors import AggregationError, ConfigError
from fedpkg.waist.order import Order

OWN: dict[str, Any] = {"cut": {"clusters": 2}, "own_models": True}
ASKED: dict[str, Any] = {**OWN, "from": "label_histogram"}
QUIET: dict[str, Any] = {"validation": {"every": 0}}
ODD_AND_EVEN = {0: [9, 0, 8, 0], 1: [0, 7, 0, 9], 2: [5, 0, 6, 1], 3: [1, 9, 0, 9], 4: [7, 0, 9, 0]}


def small() -> Digits:
    clients = Digits([(images[:40], labels[:40]) for images, labels in permuted([3, 2])])
    clients.counts = lambda order: ODD_AND_EVEN[order.partition_id]
    return clients


def test_label_histograms_are_asked_of_the_clients(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = small()
    parameters = []

    def counts(order: Order) -> list[int]:
        parameters.append(dict(order.parameters))
        return ODD_AND_EVEN[order.partition_id]

    clients.counts = counts
    session = run(federation, monkeypatch, clients, {**ASKED, "minimum": 2, "noise": 0.5}, rounds=2, **QUIET)
    assert places(federation, session) == {"a": [0, 2, 4], "b": [1, 3]}
    assert parameters == [{"minimum": 2, "noise": 0.5}] * 5
    asked = [row.entry_point for row in federation.store.list_requests(session.session_id)]
    assert asked == ["label_histogram", "train", "train", "train", "train"]
    assert set(models(federation, session)) == {"a", "b"}


def test_clients_without_a_usable_histogram_are_asked_again(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clients = small()
    wrong: dict[int, Any] = {0: [1, -1, 0, 0], 1: [1, "2", 0, 0], 2: [1, 2], 3: [1e13, 0, 0, 0], 4: "many"}

    def counts(order: Order) -> Any:
        return wrong[order.round_number - 1] if order.client_id == "client-4" else ODD_AND_EVEN[order.partition_id]

    clients.counts = counts
    session = run(federation, monkeypatch, clients, ASKED, rounds=5, **QUIET)
    assert places(federation, session) == {"a": [0, 2], "b": [1, 3]}
    for reason in (
        "a count is -1; from 0 to 1e+12 are possible",
        "a count is not a number",
        "it has 2 labels, and not 4",
        "a count is 10000000000000.0",
        "its metrics have no list 'label_histogram'",
    ):
        assert f"label_histogram.left_out client=client-4 reason={reason}" in caplog.text


def test_clients_below_the_minimum_are_of_the_largest_cluster(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = small()
    clients.counts = lambda order: [2, 0, 0, 2] if order.partition_id == 1 else ODD_AND_EVEN[order.partition_id]
    session = run(federation, monkeypatch, clients, {**ASKED, "minimum": 5}, **QUIET)
    assert places(federation, session) == {"a": [0, 1, 2, 4], "b": [3]}


def test_later_clients_are_asked_for_their_labels(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = small()
    session = run(federation, monkeypatch, clients, ASKED, rounds=6, sampler={"count": 3}, **QUIET)
    assert sorted(places(federation, session).values()) == [[0, 2, 4], [1, 3]]
    asked = [client_id for _, entry_point, client_id in clients.asked if entry_point == "label_histogram"]
    assert sorted(asked) == [f"client-{number}" for number in range(5)], "each is asked once"


def test_no_usable_histogram_at_all_is_an_error(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = small()
    clients.counts = lambda order: None
    with pytest.raises(AggregationError, match="no client has sent counts of its labels that can be used"):
        run(federation, monkeypatch, clients, ASKED)


def test_the_split_of_the_data_tells_the_labels(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    clients = small()
    data = {"dataset": "sklearn/digits", "partition": {"name": "pathological", "classes_per_client": 2}}
    infer = {**OWN, "from": "label_histogram", "distance": "euclidean", "cut": {"clusters": 3}}
    more = {"clients": {"count": 5, "data": data}, **QUIET}
    session = run(federation, monkeypatch, clients, infer, sampler={"held_out": ["client-4"]}, **more)
    assert sorted(number for numbers in places(federation, session).values() for number in numbers) == [0, 1, 2, 3, 4]
    assert [row.entry_point for row in federation.store.list_requests(session.session_id)] == ["train"] * 3
    with pytest.raises(ConfigError, match=r"infer\.every: the split of the data does not change during the run"):
        run(federation, monkeypatch, clients, {**infer, "every": 2}, **more)


def entities(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "entities.yaml"
    regions = ["north", "south", "north", "south", "north"]
    path.write_text(
        json.dumps([{"id": f"client-{k}", "region": region, "beds": k} for k, region in enumerate(regions)])
    )
    return {"entities": str(path)}


def test_attributes_of_entities_make_clusters(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    infer = {**OWN, "from": "attributes", "attributes": ["region"], "distance": "euclidean"}
    more = {"clients": entities(tmp_path), "sampler": {"count": 2}, **QUIET}
    session = run(federation, monkeypatch, small(), infer, **more)
    assert places(federation, session) == {"a": [0, 2, 4], "b": [1, 3]}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cut": {"clusters": 2}, "methd": "kmeans"}, r"unknown key 'methd' in 'topology\.infer'; did you mean 'method'"),
    ({"method": "kmeans"}, "missing key 'cut'"),
    ({"cut": {"clusters": 2}, "method": "dbscan"}, "must be 'agglomerative' or 'bipartition' or 'kmeans'"),
    ({"cut": {"clusters": 0}}, r"topology\.infer\.cut\.clusters: 0 is not possible"),
    ({"cut": {"size": [4, 2]}}, r"topology\.infer\.cut\.size: \[4, 2\] is not possible"),
    ({"cut": {"clusters": 2}, "method": "bipartition"}, r"topology\.infer\.cut: bipartition cannot use"),
    (
        {"from": "label_histogram", "method": "bipartition", "cut": {"eps1": 0.4, "eps2": 1.6}},
        r"infer\.method: bipartition compares updates only",
    ),
    ({"cut": {"clusters": 9}}, r"topology\.infer\.cut: 9 clusters of 5 clients"),
    ({"cut": {"size": [4, 4]}}, "5 clients cannot be divided into clusters of 4 to 4 clients"),
    ({"cut": {"clusters": 2}, "shared": ["bias"]}, r"infer\.shared: without own models, all tensors are the same"),
    ({**OWN, "shared": ["head.*"]}, r"infer\.shared: no tensor matches 'head\.\*'\s+try +the model has"),
    ({**OWN, "shared": ["*"]}, r"infer\.shared: all tensors are shared"),
    ({**OWN, "minimum": 3}, r"infer\.minimum: it goes with from: label_histogram"),
    ({**OWN, "attributes": ["region"]}, r"infer\.attributes: it goes with from: attributes"),
    ({**OWN, "from": "attributes"}, "the attributes are those of entities, and the run has none"),
    ({**OWN, "from": "attributes", "every": 2}, r"infer\.every: attributes do not change during a run"),
    ({**ASKED, "entry_point": "labels"}, "labels"),
]


@pytest.mark.parametrize(("infer", "message"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_section_is_refused_before_anything_runs(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, infer: dict[str, Any], message: str
) -> None:
    clients = small()
    with pytest.raises(Exception, match=message):
        run(federation, monkeypatch, clients, infer)
    assert not [one for one in clients.asked if one[1] != "build"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"topology": {"rounds": 2}}, "with own models, the root has no rounds of its own"),
        ({"topology": {"defaults": {"strategy": "fedadam"}}}, "each cluster has the strategy of the session"),
        ({"topology": {"defaults": {"sampler": {"count": 2}}}}, r"defaults\.sampler: clusters that are found cannot"),
        ({"topology": {"fanout": [2]}}, "both 'fanout' and 'infer'"),
        ({"sampler": {"count": 1}}, r"2 clusters of 1 clients\s+try .* let more clients train in a round"),
        ({"strategy": {"name": "scaffold"}}, "scaffold cannot train clusters with models of their own: each client"),
        ({"strategy": {"name": "ifca"}}, "ifca cannot train clusters with models of their own"),
        ({"strategy": {"name": "fedbuff"}}, "fedbuff cannot be in a tree: its requests stay outstanding"),
        ({"strategy": {"name": "dp_fedavg", "noise_multiplier": 1.0}}, "dp_fedavg cannot be in a tree: its guarantee"),
        (
            {"strategy": {"name": "fltrust"}, "clients": {"count": 5, "groups": {"server": ["client-0"]}}},
            r"fltrust asks groups of clients \(server\)",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_with_clusters_is_refused_with_the_reason(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], message: str
) -> None:
    clients = small()
    with pytest.raises(Exception, match=message):
        run(federation, monkeypatch, clients, OWN, **more)
    assert not clients.asked
