"""Find clusters by a method, a distance and a cut."""

from __future__ import annotations

from collections.abc import Sequence

from fedpkg.clusters.agglomerative import agglomerative
from fedpkg.clusters.bipartition import bipartition
from fedpkg.clusters.from_scipy import check_scipy
from fedpkg.clusters.kmeans import kmeans
from fedpkg.clusters.method import Finding
from fedpkg.clusters.points import points_of
from fedpkg.clusters.tree import Clustering, clustering_of
from fedpkg.strategies.updates.held import Updates


def find_clusters(updates: Updates, finding: Finding, *, left_out: Sequence[str] = ()) -> Clustering:
    """The clusters of these clients.

    Args:
        updates: of the clients; or `vectors.histograms` or `vectors.attributes`.
        left_out: clients that are noted as being without an update.

    Raises:
        AggregationError: an update is not finite (names the client).
        ConfigError: SciPy is not installed, or the cut cannot be made of this number of clients.
    """
    check_scipy()
    points = points_of(updates)
    distances = points.distances(finding.distance)
    if finding.method == "agglomerative":
        groups = agglomerative(distances, finding.cut)
    elif finding.method == "kmeans":
        groups = kmeans(points.squared_distances(finding.distance), finding.cut["clusters"], seed=finding.seed)
    else:
        groups = bipartition(points, eps1=finding.cut["eps1"], eps2=finding.cut["eps2"])
    return clustering_of(
        points.clients, distances, groups, distance=finding.distance, depth=finding.depth, left_out=left_out
    )
