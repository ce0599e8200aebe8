"""Groups of clients that disagree are found exactly, by each method; odd sets of clients have a clear outcome."""

from __future__ import annotations

import itertools
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits import permuted, rotated, updates_of

from fedpkg.clusters.finding import find_clusters
from fedpkg.clusters.kmeans import kmeans
from fedpkg.clusters.merges import merged, merges_of
from fedpkg.clusters.method import Finding
from fedpkg.clusters.points import points_of
from fedpkg.errors import AggregationError, ConfigError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model, write_model
from fedpkg.strategies.base import Reply
from fedpkg.strategies.updates.held import Updates
from fedpkg.weights.weights import Weights

AGGLOMERATIVE = {"cut": {"clusters": 2}}


def updates(rows: Sequence[Sequence[float]], *, model: Sequence[float] | None = None) -> Updates:
    start = torch.zeros(len(rows[0])) if model is None else torch.tensor(model)
    made = [Weights({"x": torch.tensor(row, dtype=torch.float32)}) for row in rows]
    return Updates((Reply("", n, f"c{n}", {"": one}, 1.0) for n, one in enumerate(made)), Weights({"x": start}))


def found(given: Updates, **options: Any) -> list[tuple[str, ...]]:
    return list(find_clusters(given, Finding(**options)).leaves().values())


def numbers(clusters: Sequence[Sequence[str]]) -> list[list[int]]:
    return [[int(client.strip("client-")) for client in cluster] for cluster in clusters]


BIPARTITION: Mapping[str, Any] = {"method": "bipartition", "cut": {"eps1": 0.12, "eps2": 0.4}}
METHODS: list[Mapping[str, Any]] = [{"method": "agglomerative"}, {"method": "kmeans"}, BIPARTITION]
GROUPS = ((permuted, [7, 5]), (rotated, [8, 5, 3, 2]))


def numbers_of(sizes: Sequence[int]) -> list[list[int]]:
    ends = np.cumsum(sizes).tolist()
    return [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("method", ["agglomerative", "kmeans"])
def test_groups_that_disagree_are_found_exactly_from_their_updates(method: str) -> None:
    for make, sizes in GROUPS:
        given, options = updates_of(make(sizes)), {"method": method, "cut": {"clusters": len(sizes)}}
        assert numbers(found(given, **options)) == numbers_of(sizes)
        assert find_clusters(given, Finding(**options)) == find_clusters(given, Finding(**options))


def test_groups_that_disagree_are_found_exactly_by_bipartition_of_models_that_have_converged() -> None:
    """As in the paper: each part trains its own model before it may be divided again."""
    for make, sizes in GROUPS:
        clients = make(sizes)
        waiting, done = [list(range(len(clients)))], []
        while waiting:
            group = waiting.pop()
            parts = numbers(found(updates_of([clients[one] for one in group]), **BIPARTITION))
            if len(parts) == 1:
                done.append(group)
            else:
                waiting += [[group[one] for one in part] for part in parts]
        assert sorted(done) == numbers_of(sizes)


def test_clients_that_agree_are_not_divided() -> None:
    assert found(updates_of(permuted([9])), method="bipartition", cut={"eps1": 0.01, "eps2": 0.1}) == [
        tuple(f"client-{number:02d}" for number in range(9))
    ]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_distances_are_those_of_float64(distance: str) -> None:
    rows = np.random.default_rng(0).standard_normal((7, 50)).astype(np.float32)
    model = np.random.default_rng(1).standard_normal(50).astype(np.float32)
    exact = rows.astype(np.float64) - model
    norms = np.linalg.norm(exact, axis=1)
    expected = (
        np.linalg.norm(exact[:, None] - exact[None], axis=2)
        if distance == "euclidean"
        else 1 - exact @ exact.T / np.outer(norms, norms)
    )
    points = points_of(updates(rows.tolist(), model=model.tolist()))
    assert np.allclose(points.distances(distance), expected, atol=1e-11)  # type: ignore[arg-type]


def test_clients_close_to_each_other_and_far_from_the_model_keep_all_digits() -> None:
    rows = [[1e6, 1e-3 * number, 0] for number in range(3)] + [[1e6, 1e-3, 0], [-1e6, 0, 5]]
    distances = points_of(updates(rows)).distances("euclidean")
    places = np.float32([0, 1e-3, 2e-3, 1e-3]).astype(np.float64)
    assert np.allclose(distances[:4, :4], np.abs(places[:, None] - places[None]), rtol=1e-2)
    assert distances[1, 3] == 0
    squares = points_of(updates(rows)).squares
    assert np.allclose(squares[:4, :4], np.square(places[:, None] - places[None]), rtol=1e-12)


@pytest.mark.parametrize("method", ["agglomerative", "kmeans"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_equal_updates_can_still_be_divided_and_ties_go_to_the_first(method: str, distance: str) -> None:
    same = updates([[3, 4]] * 5)
    assert points_of(same).distances(distance).max() == 0  # type: ignore[arg-type]
    assert len(found(same, method=method, distance=distance, cut={"clusters": 2})) == 2
    assert found(same, method=method, distance=distance, cut={"clusters": 1}) == [("c0", "c1", "c2", "c3", "c4")]
    none = updates([[0, 0]] * 3)
    assert found(none, method=method, distance=distance, cut={"clusters": 3}) == [("c0",), ("c1",), ("c2",)]
    square = updates([[0, 1], [1, 0], [0, -1], [-1, 0]])
    assert found(square, method=method, distance=distance, cut={"clusters": 2}) == found(
        square, method=method, distance=distance, cut={"clusters": 2}
    )


def test_bipartition_leaves_equal_updates_and_updates_of_zero_together() -> None:
    for rows in ([[3, 4]] * 5, [[0, 0]] * 5):
        assert len(found(updates(rows), method="bipartition", cut={"eps1": 1, "eps2": 0.5})) == 1


@pytest.mark.parametrize(
    "options", [{"cut": {"clusters": 1}}, {"cut": {"distance": 0.5}}, {"cut": {"size": [1, 3]}}, BIPARTITION]
)
def test_one_client_is_one_cluster(options: Mapping[str, Any]) -> None:
    clustering = find_clusters(updates([[1, 2]]), Finding(**{"depth": 3, **options}))
    assert clustering.leaves() == {"a": ("c0",)} and clustering.merges == ()


def test_a_client_unlike_all_others_is_a_cluster_of_one() -> None:
    rows = [[1, 0], [1, 0.1], [-1, 0], [1, 0.05]]
    for options in (*METHODS[:2], {"cut": {"distance": 0.5}}, BIPARTITION):
        options = {"cut": {"clusters": 2}, **options}
        if options.get("method") == "bipartition":
            options["cut"] = {"eps1": 0.6, "eps2": 0.5}
        assert found(updates(rows), **options) == [("c0", "c1", "c3"), ("c2",)]


def test_clusters_are_within_the_limits_of_their_size() -> None:
    rng = np.random.default_rng(0)
    for count, least, most in ((7, 3, 5), (6, 3, 3), (20, 4, 6), (50, 2, 9), (9, 1, 2), (11, 5, 6)):
        for spread in (0.1, 10):
            rows = spread * rng.standard_normal((count, 3)) + 5 * rng.integers(0, 2, (count, 1))
            clusters = found(updates(rows.tolist()), distance="euclidean", cut={"size": [least, most]})
            assert all(least <= len(cluster) <= most for cluster in clusters)
            assert sorted(sum(clusters, ())) == sorted(f"c{number}" for number in range(count))
    with pytest.raises(ConfigError, match="7 clients cannot be divided into clusters of 4 to 6 clients"):
        found(updates([[1]] * 7), cut={"size": [4, 6]})


def test_bipartition_has_the_smallest_largest_similarity_across_of_all_divisions() -> None:
    for seed in range(10):
        rows = np.random.default_rng(seed).standard_normal((7, 3))
        distances = points_of(updates(rows.tolist())).distances("cosine")
        halves = [set(half) for size in range(1, 4) for half in itertools.combinations(range(7), size)]
        nearest = [min(distances[i, j] for i in half for j in range(7) if j not in half) for half in halves]
        first, _ = merged(merges_of(distances, "single"), 7, 2).values()
        best = halves[int(np.argmax(nearest))]
        assert set(first) in (best, set(range(7)) - best)


def test_kmeans_starts_anew_from_each_seed_and_keeps_the_best() -> None:
    places = np.array([0, 0.1, 0.2, 5, 5.1, 9, 9.1, 9.2])
    squares = np.square(places[:, None] - places[None])
    for seed in range(20):
        assert kmeans(squares, 3, seed=seed) == [[0, 1, 2], [3, 4], [5, 6, 7]]


def test_updates_that_are_not_finite_are_refused_with_their_client() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(AggregationError, match="c1: its update has values that are not finite"):
            found(updates([[1, 2], [bad, 0], [0, 1]]), cut={"clusters": 2})
    huge = Weights({"x": torch.tensor([1e200], dtype=torch.float64)})
    model = Weights({"x": torch.zeros(1, dtype=torch.float64)})
    with pytest.raises(AggregationError, match=r"c0: .* too large to be squared"):
        points_of(Updates([Reply("", 0, "c0", {"": huge}, 1.0)], model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": {"clusters": 0}}, r"cut\.clusters: 0 is not possible"),
        ({"cut": {"clusters": True}}, r"cut\.clusters: True is not possible"),
        ({"cut": {"clusters": 9}}, "cut: 9 clusters of 2 clients"),
        ({"cut": {"clusters": 9}, "method": "kmeans"}, "cut: 9 clusters of 2 clients"),
        ({"cut": {"size": [5, 2]}}, r"cut\.size: \[5, 2\] is not possible\s+try +for example size: \[5, 50\]"),
        ({"cut": {"distance": float("nan")}}, r"cut\.distance: nan is not possible"),
        ({"cut": {}}, r"agglomerative cannot use \{\}\s+try +give it \{clusters: 4\} or \{distance: 0\.3\} or \{size"),
        ({"cut": {"clusters": 2, "distance": 1}}, "agglomerative cannot use"),
        ({"cut": {"distance": 1}, "method": "kmeans"}, "kmeans cannot use"),
        ({"cut": {"clusters": 2}, "method": "bipartition"}, r"give it \{eps1: 0\.4, eps2: 1\.6\}"),
        ({"cut": {"eps2": 1, "eps1": 1}, "method": "bipartition", "distance": "euclidean"}, "compares the directions"),
        ({"cut": {"clusters": 2}, "method": "kmean"}, "'kmean' is unknown; did you mean 'kmeans'"),
        ({"cut": {"clusters": 2}, "distance": "cos"}, "distance: 'cos' is unknown"),
        ({"cut": {"clusters": 2}, "depth": 0}, "depth: 0 is not a positive whole number"),
    ],
)
def test_wrong_options_are_named(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        found(updates([[1, 0], [0, 1]]), **options)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ConfigError, match=r"needs SciPy\s+try +pip install 'fedpkg\[clusters\]'"):
        found(updates([[1, 0], [0, 1]]), **AGGLOMERATIVE)


def test_updates_are_never_all_in_memory(tmp_path: Path) -> None:
    clients, elements = 100, 100_000
    model = Weights({"x": torch.zeros(elements)})
    rng = np.random.default_rng(0)
    replies = []
    for number in range(clients):
        row = torch.from_numpy(rng.standard_normal(elements).astype(np.float32) + 0.3 * (-1) ** number)
        path = tmp_path / f"{number}.npz"
        write_model(path, Weights({"x": row}), ModelForm(".npz", "names"))
        replies.append(Reply("", number, f"c{number}", {"": read_model(path)}, 1.0))
    given = Updates(replies, model)
    tracemalloc.start()
    try:
        clusters = found(given, **AGGLOMERATIVE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert clusters == [tuple(f"c{number}" for number in range(first, clients, 2)) for first in (0, 1)]
    assert peak < clients * elements * 4 / 10
