"""Clusters that are found during a run: what is found, what each cluster learns, and where later clients belong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from cli_support import fedpkg
from digits import Data, permuted, rotated, trained
from federation import Federation
from training import STEPS, Digits, accuracy, models, places, run

from fedpkg.controller.events import Event
from fedpkg.errors import AggregationError, Interrupted
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home
from fedpkg.weights.weights import Weights

METHODS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "agglomerative": lambda count: {"cut": {"clusters": count}},
    "kmeans": lambda count: {"method": "kmeans", "cut": {"clusters": count}, "distance": "euclidean"},
    "bipartition": lambda _: {"method": "bipartition", "cut": {"eps1": 1.5, "eps2": 1.6}},
}
GROUPS: Mapping[str, tuple[Callable[[Sequence[int]], list[Data]], list[int]]] = {
    "opposing labels": (permuted, [5, 3]),
    "rotated": (rotated, [5, 3, 2, 4]),
}
OWN: dict[str, Any] = {"cut": {"clusters": 2}, "own_models": True}


def expected_places(sizes: Sequence[int]) -> dict[str, list[int]]:
    ends = np.cumsum(sizes).tolist()
    return {name: list(range(end - size, end)) for name, size, end in zip("abcd", sizes, ends, strict=False)}


def small(sizes: Sequence[int] = (3, 2)) -> Digits:
    """Clients with few images, whose groups are as easy to find."""
    return Digits([(images[:60], labels[:60]) for images, labels in permuted(sizes)])


def mean_accuracy(clients: Digits, model_of: Callable[[int], Weights]) -> float:
    found = [accuracy(model_of(number), test) for number, test in enumerate(clients.tests)]
    return float(np.average(found, weights=[len(labels) for _, labels in clients.tests]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.every_push("opposing labels-|rotated-agglomerative")
def test_groups_are_found_from_updates_and_learn_more_than_one_model_could(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, group: str, method: str
) -> None:
    make, sizes = GROUPS[group]
    infer = {**METHODS[method](len(sizes)), "own_models": True, "first": 2}
    clients, more = Digits(make(sizes)), {"rounds": 4, "validation": {"every": 0}}
    clustered = run(federation, monkeypatch, clients, infer, **more)
    found, own = places(federation, clustered), models(federation, clustered)
    assert found == expected_places(sizes)
    path_of = {number: path for path, numbers in found.items() for number in numbers}
    plain = run(federation, monkeypatch, clients, None, **more)
    one = federation.model(f"{plain.session_id}.4")
    assert mean_accuracy(clients, lambda number: own[path_of[number]]) > mean_accuracy(clients, lambda _: one) + 0.2


def test_the_first_finding_is_fedavg_within_each_cluster(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = small()
    session = run(federation, monkeypatch, clients, OWN)
    seed, own = federation.model(f"{session.session_id}.0"), models(federation, session)
    updates = [trained(seed, data, STEPS) for data in clients.data]
    sizes = [float(len(labels)) for _, labels in clients.data]
    for path, numbers in {"a": [0, 1, 2], "b": [3, 4]}.items():
        expected = Weights.mean([updates[k] for k in numbers], [sizes[k] for k in numbers])
        assert own[path].allclose(expected, rtol=1e-6)
    expected = Weights.mean([own["a"], own["b"]], [sum(sizes[:3]), sum(sizes[3:])])
    assert federation.model(f"{session.session_id}.1").allclose(expected, rtol=1e-6)
    assert [row.entry_point for row in federation.store.list_requests(session.session_id)] == ["train"]


@pytest.mark.parametrize("strategy", ["fedavg", {"name": "fedavgm", "momentum": 0.9}], ids=["fedavg", "fedavgm"])
@pytest.mark.parametrize("reply", ["weights", "delta"])
def test_one_cluster_has_the_bits_of_a_session_without(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, strategy: Any, reply: str
) -> None:
    section = {**({"name": strategy} if isinstance(strategy, str) else strategy), "reply": reply}
    clients = small()
    if reply == "delta":
        clients = _Deltas(clients)
    more = {"rounds": 3, "strategy": section, "validation": {"every": 0}}
    one = run(federation, monkeypatch, clients, {"cut": {"clusters": 1}, "own_models": True, "first": 2}, **more)
    flat = run(federation, monkeypatch, clients, None, **more)
    assert federation.digests(one.session_id) == federation.digests(flat.session_id)


def test_one_cluster_in_half_precision_has_the_bits_of_a_session_without(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = small()
    clients.dtype = np.float16
    more = {"rounds": 4, "strategy": {"name": "fedavgm", "momentum": 0.9}, "validation": {"every": 0}}
    infer = {"cut": {"clusters": 1}, "own_models": True, "first": 2, "every": 2}
    one = run(federation, monkeypatch, clients, infer, **more)
    flat = run(federation, monkeypatch, clients, None, **more)
    assert federation.digests(one.session_id) == federation.digests(flat.session_id)


class _Deltas(Digits):
    """Clients that send differences."""

    def __init__(self, like: Digits) -> None:
        super().__init__([])
        self.data, self.tests = like.data, like.tests

    def write(self, job: Any) -> None:
        super().write(job)
        if job.order.entry_point == "train":
            with np.load(job.place.out) as after, np.load(job.model) as before:
                moved = {name: after[name] - before[name] for name in after.files}
            np.savez(job.place.out, **moved)


def test_clusters_without_own_models_are_the_combiners_of_a_tree(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"name": "fedavgm", "momentum": 0.9}
    defaults = {"strategy": section, "rounds": 2}
    clients, more = small(), {"rounds": 3, "validation": {"every": 0}}
    topology = {"defaults": defaults}
    found = run(federation, monkeypatch, clients, {"cut": {"clusters": 2}}, topology=topology, **more)
    children = [
        {"name": "a", "clients": ["client-[0-2]"], **defaults},
        {"name": "b", "clients": ["client-[34]"], **defaults},
    ]
    declared = run(federation, monkeypatch, clients, None, **{**more, "topology": {"children": children}})
    assert federation.digests(found.session_id) == federation.digests(declared.session_id)
    assert places(federation, found) == {"a": [0, 1, 2], "b": [3, 4]}


@pytest.mark.parametrize("every", [None, 2])
def test_shared_tensors_are_equal_in_all_clusters(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, every: int | None
) -> None:
    clients = small()
    infer = {**OWN, "shared": ["bi*"], "every": every}
    session = run(federation, monkeypatch, clients, infer, rounds=3, validation={"every": 0})
    own, one = models(federation, session), federation.model(f"{session.session_id}.3")
    for path in ("a", "b"):
        assert np.array_equal(own[path]["bias"], one["bias"])
    assert not np.array_equal(own["a"]["weight"], own["b"]["weight"])
    assert one["bias"].abs().max() > 0


def test_shared_tensors_are_the_mean_of_all_clusters(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = small()
    session = run(federation, monkeypatch, clients, {**OWN, "shared": ["bias"]})
    flat = run(federation, monkeypatch, clients, None)
    one, other = (federation.model(f"{each.session_id}.1") for each in (session, flat))
    np.testing.assert_allclose(one["bias"], other["bias"], rtol=1e-5, atol=1e-7)


def test_later_clients_train_once_from_where_the_clusters_were_found(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = small([4, 3])
    session = run(
        federation, monkeypatch, clients, OWN, rounds=6, sampler={"count": 5}, validation={"every": 0}, seed=3
    )
    found = places(federation, session)
    assert sorted(found.values()) == [[0, 1, 2, 3], [4, 5, 6]]
    requests = federation.store.list_requests(session.session_id)
    first, joins = requests[0], [row for row in requests if row.request_id == "join"]
    assert sorted([*first.cohort, *(name for row in joins for name in row.cohort)]) == [f"client-{k}" for k in range(7)]
    for row in joins:
        model = federation.store.get_model(f"{session.session_id}.{row.round_number}")
        named = {one["client_id"] for one in model.contributors}
        assert not named.intersection(row.cohort), "an update that decides a place is no part of a model"
    saved = federation.store.load_strategy_state(session.session_id)
    assert saved is not None and "centres" not in saved[1]["infer"], "all have a place"


def test_over_selection_does_not_wait_for_all_clients_that_are_placed(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = {"count": 4, "over_selection": 0.5}
    session = run(federation, monkeypatch, small((9, 5)), OWN, rounds=2, sampler=sampler, validation={"every": 0})
    (join,) = [row for row in federation.store.list_requests(session.session_id) if row.request_id == "join"]
    assert join.target == -(-len(join.cohort) * 4 // 6) < len(join.cohort)
    assert join.num_ok == join.target


def test_clients_that_fail_when_clusters_are_found_are_placed_later(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = small()
    clients.fails = frozenset({"client-1@1", "client-4@1", "client-4@2"})
    session = run(federation, monkeypatch, clients, OWN, rounds=3, validation={"every": 0})
    assert places(federation, session) == {"a": [0, 1, 2], "b": [3, 4]}
    rounds = federation.store.list_rounds(session.session_id)
    assert [row.num_ok for row in rounds] == [3, 4, 5]
    assert "client-1" in rounds[1].strategy_metrics["clusters"]["a"]


def test_clusters_that_are_found_again_keep_their_names_and_their_parents_are_on_record(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = small()
    turned = copy.copy(clients.data[2])

    def watch(event: Event) -> None:
        if getattr(getattr(event, "round", None), "round_number", 0) == 2:  # from round 3 on, client-2 is of the others
            clients.data[2] = (turned[0], 9 - turned[1])

    more = {"rounds": 3, "strategy": {"name": "fedavgm", "momentum": 0.5}, "validation": {"every": 0}}
    session = run(federation, monkeypatch, clients, {**OWN, "every": 2}, watch=watch, **more)
    assert places(federation, session) == {"a": [0, 1], "b": [2, 3, 4]}
    rows = {row.cluster: row for row in federation.store.list_clusters(session.session_id)}
    before = {
        row.cluster: row.model_id
        for row in federation.store.list_models(session.session_id, cluster=None)
        if row.round_number == 2 and row.cluster
    }
    assert list(rows["a"].parents) == [before["a"]]
    assert list(rows["b"].parents) == [before["a"], before["b"]]


def test_clusters_that_have_ended_are_marked(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = small((2, 1))
    alone = clients.data[2]

    def watch(event: Event) -> None:
        if getattr(getattr(event, "round", None), "round_number", 0) == 2:  # from round 3 on, all are alike
            clients.data[2] = (alone[0], 9 - alone[1])

    infer = {"cut": {"distance": 0.8}, "every": 2}
    run(federation, monkeypatch, clients, infer, watch=watch, rounds=3, validation={"every": 0})
    told = fedpkg("session", "show", "--tree", "--home", federation.home.root, "--json").json()
    assert {one["path"]: one["ended_after"] for one in told} == {"": None, "a": None, "b": 2}
    shown = fedpkg("session", "show", "--tree", "--home", federation.home.root).out
    assert "  b (ended after round 2)" in shown and shown.count("ended") == 1


@pytest.mark.parametrize("own_models", [True, False])
def test_a_cluster_of_which_no_client_answers_stays_when_clusters_are_found_again(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, own_models: bool
) -> None:
    clients = small()
    clients.fails = frozenset({"client-3@3", "client-4@3"})
    infer = {"cut": {"clusters": 2}, "own_models": own_models, "every": 2}
    session = run(federation, monkeypatch, clients, infer, rounds=4, validation={"every": 0})
    assert places(federation, session)["b"] == [3, 4]
    took_part = [row.round_number for row in federation.store.list_combiners(session.session_id) if row.path == "b"]
    assert took_part == [1, 2, 4]
    if own_models:
        rows = federation.store.list_models(session.session_id, cluster="b")
        assert [(row.round_number, row.until_round) for row in rows] == [(1, 2), (2, 4), (4, None)]


def test_clusters_are_found_in_the_next_round_if_too_few_clients_answer(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fedpkg.clusters")
    clients = small()
    clients.fails = frozenset(f"client-{number}@{round_number}" for number in (0, 1, 3, 4) for round_number in (1, 4))
    session = run(federation, monkeypatch, clients, {**OWN, "every": 2}, rounds=5, validation={"every": 0})
    assert places(federation, session) == {"a": [0, 1, 2], "b": [3, 4]}
    found = [row.message.split()[:2] for row in caplog.records if row.message.startswith("clusters.")]
    expected = ["not_found round=1", "found round=2", "not_found round=4", "found round=5"]
    assert [" ".join(words) for words in found] == [f"clusters.{words}" for words in expected]
    (alone,) = [row for row in federation.store.list_combiners(session.session_id) if row.round_number == 1]
    assert (alone.path, alone.num_ok) == ("", 1), "all train one model"


def test_a_round_without_clients_leaves_the_clusters_as_they_are(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisson = {"name": "poisson", "fraction_train": 0.4}
    more = {"rounds": 5, "seed": 4, "sampler": poisson, "validation": {"every": 0}}
    session = run(federation, monkeypatch, small(), OWN, **more)
    assert [row.num_ok for row in federation.store.list_rounds(session.session_id)][3] == 0
    ends = [row.until_round for row in federation.store.list_models(session.session_id, cluster=None) if row.cluster]
    assert 4 not in ends and 5 in ends


def test_a_round_with_too_few_replies_fails(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = small()
    clients.fails = frozenset({"client-0@2"})
    with pytest.raises(AggregationError, match="4 usable updates of 5 clients, 5 are required"):
        run(federation, monkeypatch, clients, OWN, rounds=2, round={"required": 5}, validation={"every": 0})


def test_dendrograms_of_several_levels_have_models_at_the_bottom(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Digits([(images[:60], labels[:60]) for images, labels in rotated([2, 2, 2, 2])])
    infer = {"cut": {"clusters": 4}, "depth": 2, "own_models": True, "every": 1}
    session = run(federation, monkeypatch, clients, infer, rounds=3, validation={"every": 0})
    assert list(places(federation, session)) == list(models(federation, session)) == ["a/a", "a/b", "b/a", "b/b"]
    paths = {row.path for row in federation.store.list_combiners(session.session_id)}
    assert paths == {"", "a", "b", "a/a", "a/b", "b/a", "b/b"}


def outcome(federation: Federation, session: SessionRow) -> list[object]:
    rounds = federation.store.list_rounds(session.session_id)
    current = [(row.cluster, row.digest) for row in federation.store.list_clusters(session.session_id)]
    saved = federation.store.load_strategy_state(session.session_id)
    return [federation.digests(session.session_id), current, [row.strategy_metrics for row in rounds], saved]


class _Stop:
    """Interrupts a session at the k-th event after it began."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, event: Event) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


RESUMED: Mapping[str, dict[str, Any]] = {
    "updates": {**OWN, "every": 2, "shared": ["bias"]},
    "tree": {"cut": {"distance": 0.6}, "every": 2},
    "labels": {**OWN, "from": "label_histogram", "entry_point": "label_histogram", "method": "kmeans", "every": 3},
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize(
    "every", [pytest.param(23, id="some"), pytest.param(1, marks=pytest.mark.soak, id="each event")]
)
def test_a_session_that_was_interrupted_resumes_to_the_same_bits(
    federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    every: int,
) -> None:
    more = {
        "rounds": 4,
        "sampler": {"count": 5},
        "strategy": {"name": "fedavgm", "momentum": 0.5},
        "validation": {"every": 0},
    }
    clients = small([4, 3])
    clients.fails = frozenset({"client-1@1", "client-5@3"})
    quiet = Federation(Home.open(tmp_path_factory.mktemp("quiet") / ".fedpkg"))
    expected = outcome(quiet, run(quiet, monkeypatch, clients, RESUMED[name], **more))
    for at in range(1, len(quiet.events), every):
        with pytest.raises(Interrupted):
            run(federation, monkeypatch, clients, RESUMED[name], watch=_Stop(at), **more)
        session = federation.store.list_sessions()[-1]
        assert outcome(federation, federation.resume(session.session_id)) == expected, f"interrupted at event {at}"
