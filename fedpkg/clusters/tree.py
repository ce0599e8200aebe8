"""Clusters that were found, as a tree with names, and as the section ``topology`` of a run.yaml."""

from __future__ import annotations

import glob
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedpkg.clusters.from_scipy import Array
from fedpkg.clusters.merges import Groups, Merge, merged, merges_of
from fedpkg.pictures.chart import Axis, Dendrogram

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Cluster:
    """A node of a tree of clusters.

    Args:
        name: a, b … in the order of the first clients; the root has none.
        clients: all clients in it.
        height: the greatest distance at which two parts of it were merged.
    """

    name: str
    clients: tuple[str, ...]
    height: float = 0.0
    children: tuple[Cluster, ...] = ()


@dataclass(frozen=True)
class Clustering:
    """Clusters that were found.

    Args:
        root: all clients; below it there is at least one cluster.
        merges: the dendrogram of all clients, first within the clusters, then of the clusters. A merge is not lower
            than the ones below it.
        left_out: clients without an update. A run with this topology has them below its root.
    """

    clients: tuple[str, ...]
    root: Cluster
    merges: tuple[Merge, ...]
    distance: str
    left_out: tuple[str, ...] = field(default=())

    def walk(self) -> Iterator[tuple[str, Cluster]]:
        """All clusters below the root with their paths (``a/b``), each before those below it."""
        waiting = [(child.name, child) for child in reversed(self.root.children)]
        while waiting:
            path, cluster = waiting.pop()
            yield path, cluster
            waiting += [(f"{path}/{child.name}", child) for child in reversed(cluster.children)]

    def leaves(self) -> dict[str, tuple[str, ...]]:
        """The clients of each cluster that has none below it, by its path."""
        return {path: cluster.clients for path, cluster in self.walk() if not cluster.children}

    def members(self, places: Mapping[str, str], client_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The clients that belong to each cluster at the bottom now, in their order; ``places``: the path of each."""
        found: dict[str, list[str]] = {path: [] for path in self.leaves()}
        for client_id in client_ids:
            if client_id in places:
                found[places[client_id]].append(client_id)
        return {path: tuple(clients) for path, clients in found.items()}

    def topology(self) -> dict[str, Any]:
        """The section ``topology`` of a run.yaml with a combiner for each cluster."""
        section: dict[str, Any] = {}
        waiting = [(section, self.root)]
        while waiting:
            combiner, cluster = waiting.pop()
            if cluster.children:
                combiner["children"] = [{"name": child.name} for child in cluster.children]
                waiting += zip(combiner["children"], cluster.children, strict=True)
            else:
                combiner["clients"] = [glob.escape(client_id) for client_id in cluster.clients]  # they are patterns
        return {**section, "others": "root"} if self.left_out else section

    def chart(self, title: str = "Clusters of clients") -> Dendrogram:
        """The dendrogram, with the clusters at its leaves in different colours."""
        paths = {client_id: path for path, clients in self.leaves().items() for client_id in clients}
        return Dendrogram(
            title=title,
            labels=self.clients,
            groups=[paths[client_id] for client_id in self.clients],
            merges=[(merge.left, merge.right, merge.height) for merge in self.merges],
            x=Axis(f"{self.distance} distance"),
        )

    def to_data(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "clients": list(self.clients),
            "root": _as_data(self.root),
            "merges": [[merge.left, merge.right, merge.height] for merge in self.merges],
            "distance": self.distance,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Clustering:
        """The inverse of `to_data`."""
        merges = tuple(Merge(int(left), int(right), float(height)) for left, right, height in data["merges"])
        return cls(tuple(data["clients"]), _from_data(data["root"]), merges, data["distance"])

    def named_after(self, places: Mapping[str, str], used: Collection[str], others: Collection[str]) -> Clustering:
        """The same clusters, each with the name of the former cluster with which it shares most clients.

        Of several such pairs, the one with the most clients counts first, then the first one. Other clusters get new
        names. Below another parent, a cluster has another path, and is another cluster.

        Args:
            places: the paths of clients before.
            used: paths that no new cluster gets.
            others: names that no new cluster gets, such as those of clients.
        """
        return replace(self, root=_named_after(self.root, "", True, places, used, others))

    def with_former(self, former: Mapping[str, Sequence[str]]) -> Clustering:
        """The same clusters, and former ones of other clients, by their paths. They are in no dendrogram.

        Left out are those above which a cluster at the bottom is now, since it cannot have clusters below it.
        """
        root = self.root
        for path, clients in former.items():
            root = _with(root, path.split("/"), tuple(clients)) or root
        return replace(self, root=root)


def clustering_of(
    clients: Sequence[str],
    distances: Array,
    groups: Groups,
    *,
    distance: str,
    depth: int = 1,
    left_out: Sequence[str] = (),
) -> Clustering:
    """The tree of these groups, by average linkage of their clients.

    Args:
        depth: the greatest number of levels. Of k clusters, level i has round(k^(i / depth)), so that every cluster is
            divided into about as many. Levels with less than two clusters, or as many as another, are left out.
    """
    count, number = len(clients), len(groups)
    merges, depth = _merges(distances, groups), min(depth, number)
    levels = {round(number ** (level / depth)) for level in range(1, depth)} - {1, number}
    below: list[Cluster] = []
    for left in sorted(levels | {number}, reverse=True):
        at_level = []
        for key, numbers in merged(merges, count, left).items():
            members = frozenset(clients[one] for one in numbers)
            parts = [part for part in below if part.clients[0] in members]
            if len(parts) == 1:  # it is not divided
                at_level.append(parts[0])
                continue
            height = merges[key - count].height if key >= count else 0.0
            in_order = tuple(clients[one] for one in numbers)
            at_level.append(Cluster("", in_order, height, _named(parts, clients)))
        below = at_level
    root = Cluster("", tuple(clients), merges[-1].height if merges else 0.0, _named(below, clients))
    return Clustering(tuple(clients), root, tuple(merges), distance, tuple(left_out))


def _merges(distances: Array, groups: Groups) -> list[Merge]:
    """The merges within the groups, and then those of the groups; on the left is the part with the first client."""
    labels = np.zeros(len(distances), dtype=int)
    for number, group in enumerate(groups):
        labels[group] = number
    above_all = 2.0 * float(distances.max(initial=0.0)) + 1.0
    apart = above_all * (labels[:, None] != labels[None, :])
    found: list[Merge] = []
    first = list(range(len(distances)))
    within = len(distances) - len(groups)
    for number, merge in enumerate(merges_of(distances + apart)):
        height = merge.height if number < within else merge.height - above_all
        below = [found[one - len(distances)].height for one in (merge.left, merge.right) if one >= len(distances)]
        left, right = sorted((merge.left, merge.right), key=first.__getitem__)
        first.append(first[left])
        found.append(Merge(left, right, max([height, *below])))
    return found


def _as_data(cluster: Cluster) -> dict[str, Any]:
    below = [_as_data(child) for child in cluster.children]
    return {"name": cluster.name, "clients": list(cluster.clients), "height": cluster.height, "children": below}


def _from_data(data: Mapping[str, Any]) -> Cluster:
    return Cluster(data["name"], tuple(data["clients"]), data["height"], tuple(map(_from_data, data["children"])))


def _named_after(
    cluster: Cluster,
    start: str,
    lives_on: bool,
    places: Mapping[str, str],
    used: Collection[str],
    others: Collection[str],
) -> Cluster:
    """``start``: of the paths below it. ``lives_on``: a former cluster has become this one."""
    shared: Counter[tuple[int, str]] = Counter()
    for number, child in enumerate(cluster.children) if lives_on else ():
        for place in (places[client_id] for client_id in child.clients if client_id in places):
            if place.startswith(start):
                shared[number, place[len(start) :].partition("/")[0]] += 1
    names: dict[int, str] = {}
    for number, name in sorted(shared, key=lambda pair: (-shared[pair], *pair)):
        if number not in names and name not in names.values():
            names[number] = name
    fresh = (name for name in _letters() if f"{start}{name}" not in used and name not in others)
    children = []
    for number, child in enumerate(cluster.children):
        name = names.get(number) or next(fresh)
        below = _named_after(child, f"{start}{name}/", number in names, places, used, others)
        children.append(replace(below, name=name))
    return replace(cluster, children=tuple(children))


def _with(cluster: Cluster, names: Sequence[str], clients: tuple[str, ...]) -> Cluster | None:
    """A cluster with one more at the end of this way down; None: a cluster at the bottom is on the way."""
    name, *rest = names
    child = next((one for one in cluster.children if one.name == name), None)
    if child is not None and not child.children:
        return None
    below = child or Cluster(name, ())
    if rest:
        found = _with(below, rest, clients)
        if found is None:
            return None
        below = found
    else:
        below = replace(below, clients=clients)
    children = [below if one is child else one for one in cluster.children] + [below] * (child is None)
    return replace(cluster, clients=(*cluster.clients, *clients), children=tuple(children))


def _letters() -> Iterator[str]:
    return (name for size in itertools.count(1) for name in map("".join, itertools.product(_LETTERS, repeat=size)))


def _named(clusters: Sequence[Cluster], clients: Collection[str]) -> tuple[Cluster, ...]:
    """A combiner cannot have the name of a client beside it, so names of clients are not used."""
    names = (name for name in _letters() if name not in clients)
    return tuple(replace(cluster, name=name) for cluster, name in zip(clusters, names, strict=False))
