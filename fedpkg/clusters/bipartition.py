"""Recursive bi-partition of clients whose updates disagree."""

from __future__ import annotations

import numpy as np

from fedpkg.clusters.merges import Groups, in_order, merged, merges_of
from fedpkg.clusters.points import Points


def bipartition(points: Points, *, eps1: float, eps2: float) -> Groups:
    """Divide clients in two as long as their mean update is small and one of their updates is not.

    A group is divided if |sum_i (n_i / n) x_i| < eps1 and max_i |x_i| > eps2: the group has converged, and some of its
    clients have not. Its parts are those with the smallest largest similarity across,
    argmin_{c1, c2} max_{i in c1, j in c2} cos(x_i, x_j), which single linkage finds. A part whose clients agree has a
    mean update as large as theirs, so it is not divided again; one whose mean is not small yet may be, once it has
    trained a model of its own.

    Source: F. Sattler, K.-R. Müller, W. Samek, Clustered federated learning: model-agnostic distributed multi-task
    optimization under privacy constraints, 2020, arXiv:1910.01991, Algorithms 1 and 2.
    """
    distances = points.distances("cosine")
    waiting, done = [list(range(len(points.clients)))], []
    while waiting:
        group = waiting.pop()
        norms = _norms(points, group)
        if len(group) == 1 or not (norms[0] < eps1 and norms[1] > eps2):
            done.append(group)
            continue
        halves = merged(merges_of(distances[np.ix_(group, group)], "single"), len(group), 2)
        waiting += [[group[one] for one in half] for half in halves.values()]
    return in_order(done)


def _norms(points: Points, group: list[int]) -> tuple[float, float]:
    """|m| and max_i |x_i|, where m = sum_i p_i x_i and |m|^2 = sum_i p_i |x_i|^2 - sum_ij p_i p_j |x_i - x_j|^2 / 2."""
    squares, examples = points.squared_norms[group], points.num_examples[group]
    shares = examples / examples.sum() if examples.sum() else np.full(len(group), 1 / len(group))
    mean = shares @ squares - shares @ points.squares[np.ix_(group, group)] @ shares / 2
    return float(np.sqrt(max(mean, 0.0))), float(np.sqrt(squares.max()))
