"""Agglomerative clustering by average linkage, and its cuts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedpkg.clusters.from_scipy import Array
from fedpkg.clusters.merges import Groups, Merge, in_order, merged, merges_of
from fedpkg.clusters.method import check_cut


def agglomerative(distances: Array, cut: Mapping[str, Any]) -> Groups:
    """Merge the two clusters with the smallest mean distance of their clients, until the cut.

    Source: C. Briggs, Z. Fan, P. Andras, Federated learning with hierarchical clustering of local updates to improve
    training on non-IID data, 2020, arXiv:2004.11791.

    Args:
        cut: One of three.

            - ``clusters: 4``: the number of clusters.
            - ``distance: 0.3``: clusters are merged up to this mean distance.
            - ``size: [5, 50]``: the least and greatest number of clients of a cluster. Branches of the dendrogram that
              are larger are divided; clusters that are smaller are merged with the nearest one that has room, or get
              the nearest clients of clusters that have more than they need.

    Raises:
        ConfigError: the cut cannot be made of this number of clients.
    """
    count, merges = len(distances), merges_of(distances)
    check_cut(cut, count)
    if "clusters" in cut:
        left = cut["clusters"]
    elif "distance" in cut:
        left = count - sum(merge.height <= cut["distance"] for merge in merges)
    else:
        return _by_size(distances, merges, *cut["size"])
    return in_order(list(merged(merges, count, left).values()))


def _by_size(distances: Array, merges: list[Merge], least: int, most: int) -> Groups:
    count = len(distances)
    groups = _branches(count, merges, most)
    while (small := min(groups, key=len)) and len(small) < least:
        others = [group for group in groups if group is not small]
        others.sort(key=lambda group: float(distances[np.ix_(small, group)].mean()))
        if fits := [group for group in others if len(group) + len(small) <= most]:
            fits[0] += small
        elif can_give := [group for group in others if len(group) > least]:
            _move(distances, [(client, group) for group in can_give for client in group], [small])
            continue
        else:
            while small:
                _move(distances, [(one, small) for one in small], [group for group in others if len(group) < most])
        groups = others
    return in_order(groups)


def _branches(count: int, merges: list[Merge], most: int) -> Groups:
    """The largest branches with at most this number of clients."""
    whole, found = merged(merges, count, 1), []
    waiting = list(whole)
    sizes = [1] * count
    for merge in merges:
        sizes.append(sizes[merge.left] + sizes[merge.right])
    while waiting:
        if sizes[number := waiting.pop()] > most:
            waiting += [merges[number - count].left, merges[number - count].right]
            continue
        inside, below = [], [number]
        while below:
            if (at := below.pop()) < count:
                inside.append(at)
            else:
                below += [merges[at - count].left, merges[at - count].right]
        found.append(inside)
    return in_order(found)


def _move(distances: Array, clients: list[tuple[int, list[int]]], groups: Groups) -> None:
    """Move the client that is nearest to one of these groups there."""
    steps = [(float(distances[one, to].mean()), one, number) for one, _ in clients for number, to in enumerate(groups)]
    _, client, number = min(steps)
    next(group for one, group in clients if one == client).remove(client)
    groups[number].append(client)
