"""Dendrograms as data: the merges of agglomerative clustering, and the groups that are left after some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedpkg.clusters.from_scipy import Array, linkage

Groups: TypeAlias = "list[list[int]]"  # of clients by their numbers: in order, and ordered by their first clients


@dataclass(frozen=True)
class Merge:
    """Two clusters become one. Of n clients, cluster n + i is that of merge i; a smaller number is a client."""

    left: int
    right: int
    height: float


def merges_of(distances: Array, method: Literal["average", "single"] = "average") -> list[Merge]:
    """All merges of n points in order, n - 1 of them."""
    if len(distances) < 2:
        return []
    return [Merge(int(left), int(right), float(at)) for left, right, at, _ in linkage(distances, method)]


def merged(merges: Sequence[Merge], count: int, left: int) -> dict[int, list[int]]:
    """The clusters of ``count`` clients when only ``left`` clusters are left: by number, the clients of each."""
    clusters = {number: [number] for number in range(count)}
    for number, merge in enumerate(merges[: count - left]):
        clusters[count + number] = clusters.pop(merge.left) + clusters.pop(merge.right)
    return {number: sorted(clients) for number, clients in sorted(clusters.items(), key=lambda one: min(one[1]))}


def in_order(groups: Sequence[Sequence[int]]) -> Groups:
    """The groups as `Groups`."""
    return sorted(sorted(group) for group in groups)
