"""Clusters as trees with names, as a topology and as a picture; the cluster of a client that joins later."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from digits import rotated, trained, updates_of

from fedpkg.clusters.finding import find_clusters
from fedpkg.clusters.joining import centres_of, nearest
from fedpkg.clusters.method import Finding
from fedpkg.clusters.points import Distance
from fedpkg.clusters.tree import Clustering, clustering_of
from fedpkg.config_reading import config_from_json
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError
from fedpkg.pictures.files import save_charts
from fedpkg.pictures.svg import to_svg
from fedpkg.strategies.base import Reply
from fedpkg.strategies.updates.held import Updates
from fedpkg.topology.building import tree_of
from fedpkg.topology.section import resolve_topology
from fedpkg.weights.weights import Weights

PLACES = (0.0, 0.1, 1.0, 1.2, 9.0, 10.0, 10.1, 30.0)


def clustering(depth: int = 1, *, clusters: int = 8, names: str = "c{}", left_out: tuple[str, ...] = ()) -> Clustering:
    places = np.array(PLACES)
    groups = np.array_split(np.arange(len(places)), clusters)
    return clustering_of(
        [names.format(number) for number in range(len(places))],
        np.abs(places[:, None] - places[None]),
        [group.tolist() for group in groups],
        distance="euclidean",
        depth=depth,
        left_out=left_out,
    )


def test_levels_divide_every_cluster_into_about_as_many() -> None:
    tree = clustering(3)
    sizes = {path: len(cluster.clients) for path, cluster in tree.walk()}
    assert sizes == {
        "a": 7, "a/a": 2, "a/a/a": 1, "a/a/b": 1, "a/b": 2, "a/b/a": 1, "a/b/b": 1,
        "a/c": 3, "a/c/a": 1, "a/c/b": 1, "a/c/c": 1, "b": 1,
    }  # fmt: skip
    assert [cluster.height for path, cluster in tree.walk() if path in ("a/c", "b")] == pytest.approx([1.05, 0])
    assert list(clustering().leaves()) == list("abcdefgh")
    assert len(clustering(1000).leaves()) == 8 and max(path.count("/") for path, _ in clustering(1000).walk()) == 3


def test_the_dendrogram_has_the_clusters_merges_first_and_never_falls() -> None:
    tree = clustering(clusters=2)
    assert tree.leaves() == {"a": ("c0", "c1", "c2", "c3"), "b": ("c4", "c5", "c6", "c7")}
    heights = [merge.height for merge in tree.merges]
    assert len(heights) == 7 and heights[-1] == max(heights)
    assert heights[:6] == pytest.approx([0.1, 0.1, 0.2, 1.05, 1.05, 20.3], rel=0.2)


def test_a_tree_becomes_a_topology_that_yaml_can_hold() -> None:
    section = clustering(3, left_out=("late",)).topology()
    assert yaml.safe_load(yaml.safe_dump(section)) == section
    assert section["others"] == "root"
    first, second = section["children"]
    assert second == {"name": "b", "clients": ["c7"]}
    assert [child["name"] for child in first["children"]] == ["a", "b", "c"]
    assert first["children"][2]["children"] == [
        {"name": name, "clients": [client]} for name, client in (("a", "c4"), ("b", "c5"), ("c", "c6"))
    ]
    assert "others" not in clustering().topology()


def test_a_topology_gives_combiners_with_the_clients_of_the_clusters() -> None:
    for tree in (clustering(3), clustering(2, clusters=3, names="client[{}]*"), clustering(clusters=1)):
        section = tree.topology()
        assert resolve_topology(section, Places("run.yaml")) == section
        config = config_from_json({"package": "x", "rounds": 1, "clients": {"count": 8}, "topology": section})
        made = tree_of(config, [*reversed(tree.clients)])
        assert made is not None
        combiners = {one.path: one for one in made.root.everyone() if one.path}
        assert {path: set(one.clients) for path, one in combiners.items() if one.clients} == {
            path: set(clients) for path, clients in tree.leaves().items()
        }
        assert combiners.keys() == {path for path, _ in tree.walk()}


def test_ids_of_clients_are_no_patterns_and_no_names_of_clusters() -> None:
    section = clustering(clusters=1, names="client[{}]*").topology()
    assert section["children"][0]["clients"][0] == "client[[]0][*]"
    named = clustering_of(["a", "c", "x"], np.ones((3, 3)) - np.eye(3), [[0], [1], [2]], distance="cosine")
    assert list(named.leaves()) == ["b", "d", "e"]


def test_the_name_after_z_is_aa() -> None:
    count = 28
    distances = 1 - np.eye(count)
    groups = [[number] for number in range(count)]
    tree = clustering_of([f"c{number}" for number in range(count)], distances, groups, distance="cosine")
    assert list(tree.leaves())[-3:] == ["z", "aa", "ab"]


def test_a_dendrogram_is_drawn_as_svg_and_png(tmp_path: Path) -> None:
    chart = clustering(clusters=3).chart()
    drawn = ElementTree.fromstring(to_svg(chart))
    lines = [path for path in drawn.iter("{http://www.w3.org/2000/svg}path") if "V" in path.get("d", "")]
    assert len(lines) == 7
    labels = [text for text in drawn.itertext() if text.startswith("c")]
    assert labels == sorted(labels), "the leaves are in the order of the clients, as far as lines do not cross"
    assert {path.get("class") for path in lines} == {"e", "l l0", "l l1", "l l2"}
    assert {*"abc", *(f"c{number}" for number in range(8)), "euclidean distance"} <= set(drawn.itertext())
    pytest.importorskip("matplotlib")
    save_charts([chart], tmp_path / "a.png", title="")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_client_that_joins_later_gets_the_cluster_of_those_like_it(distance: Distance) -> None:
    clients = rotated([8, 5, 3, 3])
    known, late = [*range(18)], [0, 9, 14, 18]
    given = updates_of(clients)
    held = [Reply("", n, given.clients[n], {"": trained(given.model, clients[n], 5)}, 1.0) for n in range(19)]
    updates = Updates([held[number] for number in known], given.model)
    leaves = find_clusters(updates, Finding(method="kmeans", cut={"clusters": 4}, distance=distance)).leaves()
    centres = centres_of(updates, leaves, distance)
    assert centres.keys() == leaves.keys()
    assert nearest(centres, (held[number] for number in late), given.model, distance) == {
        "client-00": "a", "client-09": "b", "client-14": "c", "client-18": "d"
    }  # fmt: skip


def test_a_centre_is_the_mean_and_for_cosines_that_of_directions() -> None:
    model = Weights({"x": torch.tensor([1.0, 1.0]), "n": torch.tensor(3)})
    rows = [Weights({"x": torch.tensor(row), "n": torch.tensor(5)}) for row in ([4.0, 1.0], [1.0, 2.0], [1.0, 1.0])]
    updates = Updates([Reply("", n, f"c{n}", {"": row}, 1.0) for n, row in enumerate(rows)], model)
    groups = {"a": ["c0", "c1"], "b": ["c2"]}
    means, directions = centres_of(updates, groups, "euclidean"), centres_of(updates, groups, "cosine")
    assert means["a"]["x"].tolist() == [2.5, 1.5] and directions["a"]["x"].tolist() == [1.5, 1.5]
    assert means["b"]["x"].tolist() == directions["b"]["x"].tolist() == [1, 1]
    assert int(means["a"]["n"]) == 3, "what is no parameter is that of the model"
    with pytest.raises(ConfigError, match="no clusters to join"):
        nearest({}, [], model, "cosine")
