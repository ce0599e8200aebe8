"""K-means of points of which only the distances are known."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fedpkg.clusters.from_scipy import Array
from fedpkg.clusters.merges import Groups, in_order
from fedpkg.clusters.method import check_cut

Labels: TypeAlias = "np.ndarray[Any, np.dtype[np.int_]]"
_STARTS, _MOST_STEPS = 10, 300


def kmeans(squares: Array, count: int, *, seed: int) -> Groups:
    """The best of ten runs of Lloyd's algorithm from seeds drawn as in k-means++, all with at least one client.

    The squared distance from the centre c of a cluster C is |x - c|^2 = mean_{j in C} |x - x_j|^2 -
    mean_{j, k in C} |x_j - x_k|^2 / 2, so that distances of pairs are enough.

    Source: D. Arthur, S. Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.

    Args:
        squares: |x_i - x_j|^2.

    Raises:
        ConfigError: there are fewer clients than clusters.
    """
    check_cut({"clusters": count}, len(squares))
    rng = np.random.default_rng(seed)
    runs = [_run(squares, count, rng) for _ in range(_STARTS)]
    _, labels = min(runs, key=lambda run: run[0])  # of equal ones the first
    return in_order([np.flatnonzero(labels == label).tolist() for label in range(count)])


def _run(squares: Array, count: int, rng: np.random.Generator) -> tuple[float, Labels]:
    centres = [int(rng.integers(len(squares)))]
    while len(centres) < count:
        nearest = squares[:, centres].min(axis=1)
        if nearest.sum() > 0:
            centres.append(int(rng.choice(len(squares), p=nearest / nearest.sum())))
        else:  # all others are equal to one of these
            centres.append(next(one for one in range(len(squares)) if one not in centres))
    to_centres = squares[:, centres]
    labels = to_centres.argmin(axis=1)
    for _ in range(_MOST_STEPS):
        labels = _without_empty(labels, to_centres)
        shares = np.stack([(labels == label) / (labels == label).sum() for label in range(count)], axis=1)
        means = squares @ shares
        to_centres = means - (shares * means).sum(axis=0) / 2
        if (to_centres.argmin(axis=1) == labels).all():
            break
        labels = to_centres.argmin(axis=1)
    labels = _without_empty(labels, to_centres)
    return float(to_centres[np.arange(len(labels)), labels].sum()), labels


def _without_empty(labels: Labels, to_centres: Array) -> Labels:
    """Each empty cluster gets the client that is farthest from its centre, of those that are not alone."""
    labels = labels.copy()
    for label in range(to_centres.shape[1]):
        if not (labels == label).any():
            sizes = np.bincount(labels, minlength=to_centres.shape[1])
            own = np.where(sizes[labels] > 1, to_centres[np.arange(len(labels)), labels], -np.inf)
            labels[own.argmax()] = label
    return labels
