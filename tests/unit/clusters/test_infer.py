"""Clusters of the labels of a split, of entities' attributes, and of the updates that a session has kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from federation import Federation

from fedpkg.clusters.infer import infer, updates_of_session
from fedpkg.clusters.method import Finding
from fedpkg.clusters.points import points_of
from fedpkg.clusters.vectors import attributes, histograms
from fedpkg.data.manifest import Entry, Manifest
from fedpkg.errors import ConfigError, DataError, NotFound, SessionError, StoreError

TWO = Finding(cut={"clusters": 2})
QUADRATIC = Path(__file__).resolve().parents[2] / "packages" / "quadratic"


def test_distances_of_labels_are_hellinger_distances() -> None:
    points = points_of(histograms({"a": [10, 0], "b": [0, 300], "c": [7, 7], "d": [1, 1]}))
    assert points.clients == ("a", "b", "c", "d")
    near = 1 - np.sqrt(0.5)
    expected = [[0, 1, near, near], [1, 0, near, near], [near, near, 0, 0], [near, near, 0, 0]]
    assert np.allclose(points.distances("euclidean"), np.sqrt(expected))
    assert np.allclose(points.distances("cosine"), expected)


def test_rare_and_negative_counts_are_none() -> None:
    points = points_of(histograms({"a": [10, 2], "b": [10, -3.5]}, minimum=5))
    assert points.distances("euclidean")[0, 1] == 0
    with pytest.raises(DataError, match="a: it has no label with at least 20 examples"):
        histograms({"a": [10, 2]}, minimum=20)
    for wrong in ([1], [1, float("nan")]):
        with pytest.raises(DataError, match="b: its counts of labels are not one finite number for each label"):
            histograms({"a": [1, 2], "b": wrong})


def test_distances_of_attributes_count_categories_and_scale_numbers() -> None:
    given = {
        "a": {"region": "north", "beds": 100, "rural": True},
        "b": {"region": "north", "beds": 300, "rural": False},
        "c": {"region": "south", "beds": 200, "rural": True},
    }
    points = points_of(attributes(given))
    assert np.allclose(points.squares, [[0, 2, 1.25], [2, 0, 2.25], [1.25, 2.25, 0]])
    assert np.allclose(points_of(attributes(given, ["region"])).squares, [[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    with pytest.raises(DataError, match=r"a has no attribute 'size'\s+try .* there are region, beds, rural"):
        attributes(given, ["size"])
    with pytest.raises(DataError, match=r"a has no attribute 'size'\s+try .*; no client has attributes"):
        attributes({"a": {}, "b": {}}, ["size"])
    with pytest.raises(DataError, match="b: its attribute 'x' is not finite"):
        attributes({"a": {"x": 1}, "b": {"x": float("inf")}})
    with pytest.raises(DataError, match="the clients have no attributes"):
        attributes({"a": {}})
    with pytest.raises(DataError, match="no clients to cluster"):
        histograms({})


def test_clusters_of_a_split(tmp_path: Path) -> None:
    counts = [[9, 0], [0, 8], [5, 1], [1, 7]]
    parts = [Entry(f"{number}.npz", 1, 9) for number in range(4)]
    Manifest({}, parts, labels=[0, 1], counts={"train": counts}).write(tmp_path)
    assert infer(tmp_path, TWO).leaves() == {"a": ("client-0", "client-2"), "b": ("client-1", "client-3")}
    with pytest.raises(DataError, match=r"no counts of labels for the part 'test'\s+try +parts with labels: train"):
        infer(tmp_path, TWO, part="test")


def test_clusters_of_entities(tmp_path: Path) -> None:
    path = tmp_path / "entities.yaml"
    path.write_text("- {id: n, region: cold}\n- {id: s, region: hot}\n- {id: x, parent: n}\n- {id: y, parent: s}\n")
    assert infer(path, TWO).leaves() == {"a": ("x",), "b": ("y",)}
    with pytest.raises(ConfigError, match="bipartition compares updates only"):
        infer(path, Finding(method="bipartition", cut={"eps1": 0.4, "eps2": 1.6}))


def test_what_is_no_source_is_an_error(tmp_path: Path, federation: Federation) -> None:
    with pytest.raises(DataError, match="gone does not exist"):
        infer(tmp_path / "gone", TWO)
    federation.run()
    with pytest.raises(NotFound):
        infer("gone", TWO, home=federation.home)


def quadratics(federation: Federation, **strategy: str) -> str:
    session = federation.run(
        package=str(QUADRATIC),
        clients=5,
        rounds=2,
        sampler={"name": "uniform", "count": 4},
        strategy={"name": "fedavg", **strategy},
        keep={"updates": True},
    )
    return session.session_id


def test_updates_of_a_session_are_those_that_its_clients_sent(federation: Federation) -> None:
    session_id = quadratics(federation)
    updates, left_out = updates_of_session(federation.home, session_id)
    row = federation.store.get_round(session_id, 2)
    assert updates.clients == row.cohort and len(left_out) == 1
    model = federation.model(f"{session_id}.1")
    assert updates.model.equal(model)
    steps = []
    for client_id in updates.clients:
        task = federation.store.list_tasks(session_id, round_number=2, client_id=client_id, entry_point="train")[-1]
        (update,) = [one for one in federation.store.list_updates(session_id, 2) if one.task_id == task.task_id]
        with np.load(federation.home.root / update.path) as arrays:
            steps.append(arrays["x"] - model["x"].numpy())
        metadata = json.loads((federation.home.root / f"{update.path}-metadata").read_text())
        assert metadata["num_examples"] == updates.num_examples[updates.clients.index(client_id)]
    assert np.allclose(points_of(updates).squared_norms, np.square(steps).sum(axis=1))

    clustering = infer(session_id, TWO, home=federation.home)
    assert clustering.left_out == tuple(left_out) and clustering.topology()["others"] == "root"
    assert set(infer(session_id, TWO, home=federation.home, round_number=1).clients) == set(
        federation.store.get_round(session_id, 1).cohort
    )
    with pytest.raises(NotFound):
        infer(session_id, TWO, home=federation.home, round_number=9)
    path = next(federation.home.root / update.path for update in federation.store.list_updates(session_id, 2))
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    with pytest.raises(StoreError, match=r"the update of client-. is damaged"):
        infer(session_id, TWO, home=federation.home)


def test_deltas_are_differences_already(federation: Federation) -> None:
    whole, delta = (
        updates_of_session(federation.home, quadratics(federation, reply=one), 1)[0] for one in ("weights", "delta")
    )
    assert whole.clients == delta.clients
    assert np.allclose(points_of(whole).distances("cosine"), points_of(delta).distances("cosine"))


def test_a_session_without_kept_updates_says_what_to_do(federation: Federation) -> None:
    session_id = federation.run().session_id
    with pytest.raises(
        SessionError, match=rf"{session_id}: no updates are on disk\s+try +run the session with keep.updates"
    ):
        infer(session_id, TWO, home=federation.home)
    with pytest.raises(SessionError, match=rf"{session_id}, round 1: no updates"):
        infer(session_id, TWO, home=federation.home, round_number=1)
