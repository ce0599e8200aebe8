"""Distances between all clients of a set, by their updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fedpkg.clusters.from_scipy import Array
from fedpkg.config_topology import Distance
from fedpkg.errors import AggregationError
from fedpkg.strategies.updates.distances import distances_and_norms
from fedpkg.strategies.updates.held import Updates

_LARGEST = 1e300  # of a squared norm: sums of two are finite
_DIGITS = 2.0**40


@dataclass(frozen=True)
class Points:
    """Clients as points x_i, which are the differences of their updates from the global model.

    Args:
        squared_norms: |x_i|^2.
        squares: |x_i - x_j|^2.
        num_examples: the weights of their mean.
    """

    clients: tuple[str, ...]
    squared_norms: Array
    squares: Array
    num_examples: Array

    def distances(self, distance: Distance) -> Array:
        """A symmetric matrix: |x_i - x_j|, or 1 - <x_i, x_j> / (|x_i| |x_j|), from 0 to 2.

        A point at zero has no direction: its cosine distance is 0 from others at zero, and 1 from the rest. Distances
        are rounded to 12 digits of the largest, so that equal ones stay equal in whatever order they were summed.
        """
        if distance == "euclidean":
            return _rounded(np.sqrt(self.squares))
        # 1 - cos = (|a - b|^2 - (|a| - |b|)^2) / (2 |a| |b|) is exactly 0 for equal points.
        norms = np.sqrt(self.squared_norms)
        products = norms[:, None] * norms[None, :]
        found = self.squares - np.square(norms[:, None] - norms[None, :])
        found = np.divide(found, 2 * products, out=np.ones_like(found), where=products > 0)
        are_zero = norms == 0
        found[are_zero[:, None] & are_zero[None, :]] = 0
        np.fill_diagonal(found, 0)
        return _rounded(found.clip(0, 2))

    def squared_distances(self, distance: Distance) -> Array:
        """|x_i - x_j|^2, for cosines of the points scaled to length 1: 2 (1 - cos)."""
        found = self.distances(distance)
        return 2 * found if distance == "cosine" else np.square(found)


def points_of(updates: Updates) -> Points:
    """The points of all updates, in float64 and without cancellation (`distances_and_norms`).

    Raises:
        AggregationError: an update has values that are not finite, or whose squares are not (names the client).
    """
    squares, norms = (found.numpy() for found in distances_and_norms(updates))
    _check_finite(updates.clients, norms)
    return Points(tuple(updates.clients), norms, squares, np.asarray(updates.num_examples, dtype=np.float64))


def _check_finite(clients: list[str], norms: Array) -> None:
    for client_id, norm in zip(clients, norms, strict=True):
        if not norm <= _LARGEST:  # NaN as well
            raise AggregationError(
                f"{client_id}: its update has values that are not finite, or too large to be squared in float64",
                hint="leave this client out, or use the updates of another round",
                client_id=client_id,
            )


def cross_distances(updates: Updates, count: int, distance: Distance) -> Array:
    """The distances (n - count, count) of the other updates from the first ``count``."""
    names = updates.model.parameters
    products = torch.zeros(len(updates) - count, count, dtype=torch.float64)
    squares, norms = torch.zeros_like(products), torch.zeros(len(updates), dtype=torch.float64)
    for rows, model in updates.pieces(names, wide=True):
        rows -= model
        norms += rows.square().sum(dim=1)
        if distance == "cosine":
            products += rows[count:] @ rows[:count].T
        else:
            for column in range(count):
                squares[:, column] += (rows[count:] - rows[column]).square_().sum(dim=1)
    if distance == "euclidean":
        return _rounded(squares.sqrt().numpy())
    lengths = norms.sqrt()
    scale = lengths[count:, None] * lengths[None, :count]
    cosines = torch.where(scale > 0, products / scale, 0.0)
    return _rounded((1 - cosines).clamp(0, 2).numpy())


def _rounded(distances: Array) -> Array:
    largest = float(distances.max(initial=0.0))
    return distances if not largest else np.asarray(np.round(distances / largest * _DIGITS) / _DIGITS * largest)
