"""Names of clusters that are found again: those of the former clusters with which they share most clients."""

from __future__ import annotations

from collections.abc import Mapping

from fedpkg.clusters.tree import Cluster, Clustering


def tree_of(*children: Cluster) -> Clustering:
    everyone = tuple(client_id for child in children for client_id in child.clients)
    return Clustering(everyone, Cluster("", everyone, 1.0, children), (), "cosine")


def leaf(clients: str) -> Cluster:
    return Cluster("?", tuple(clients))


def node(*children: Cluster) -> Cluster:
    return Cluster("?", tuple(client_id for child in children for client_id in child.clients), 0.5, children)


def named(found: Clustering, places: Mapping[str, str], used: tuple[str, ...] = (), others: str = "") -> dict[str, str]:
    return {path: "".join(clients) for path, clients in found.named_after(places, used, others).leaves().items()}


def test_first_names_are_letters_that_no_client_has() -> None:
    assert named(tree_of(leaf("bx"), leaf("cy")), {}, (), "bxcy") == {"a": "bx", "d": "cy"}


def test_names_follow_most_clients_and_are_never_used_again() -> None:
    places = {"1": "a", "2": "a", "3": "a", "4": "b", "5": "b", "6": "c"}
    found = tree_of(leaf("3"), leaf("12"), leaf("456"), leaf("7"))
    # c is gone: its only client is in b now.
    assert named(found, places, ("a", "b", "c")) == {"d": "3", "a": "12", "b": "456", "e": "7"}


def test_clusters_below_another_parent_are_others() -> None:
    places = {"1": "a/a", "2": "a/b", "3": "b/a", "4": "b/b"}
    used = ("a", "a/a", "a/b", "b", "b/a", "b/b")
    same = tree_of(node(leaf("4"), leaf("3")), node(leaf("1"), leaf("2")))
    assert named(same, places, used) == {"b/b": "4", "b/a": "3", "a/a": "1", "a/b": "2"}
    moved = tree_of(node(leaf("1"), leaf("3"), leaf("2")), leaf("4"))
    assert named(moved, places, used) == {"a/a": "1", "a/c": "3", "a/b": "2", "b": "4"}


def test_former_clusters_stand_beside_those_that_were_found_where_no_leaf_is_above_them() -> None:
    clustering = tree_of(leaf("ab"), node(leaf("c"), leaf("d")))
    clustering = clustering.named_after({"a": "a", "b": "a", "c": "b/a", "d": "b/b"}, (), ())
    former = {"c": ["e"], "b/c": ["f", "g"], "d/a": ["h"], "a/a": ["i"]}
    assert clustering.with_former(former).leaves() == {
        "a": ("a", "b"),
        "b/a": ("c",),
        "b/b": ("d",),
        "b/c": ("f", "g"),
        "c": ("e",),
        "d/a": ("h",),
    }


def test_a_clustering_survives_json() -> None:
    found = tree_of(node(leaf("1"), leaf("3")), leaf("4"))
    assert Clustering.from_data(found.to_data()) == found
