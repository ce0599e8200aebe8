"""Distances between all clients of a set, by their updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fedpkg.clusters.from_scipy import Array, add_products, components
from fedpkg.config_topology import Distance
from fedpkg.errors import AggregationError
from fedpkg.strategies.updates.held import Updates

_CANCELLED = 1e-4  # below this share of |a|^2 + |b|^2, |a - b|^2 has lost more than 4 of its 16 digits
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
    """The points of all updates, in float64 and without cancellation.

    |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b>: one product of matrices for each piece of all updates gives all pairs. Where
    clients are much closer to each other than to the global model, digits cancel: such groups are computed again,
    relative to one of them, until none are left. So equal updates have the distance 0. Memory: a few matrices of n × n,
    and a piece of each update.

    Raises:
        AggregationError: an update has values that are not finite, or whose squares are not (names the client).
        ConfigError: SciPy is not installed.
    """
    count = len(updates)
    squares = np.zeros((count, count))
    norms = _fill(squares, updates, [list(range(count))])
    return Points(tuple(updates.clients), norms, squares, np.asarray(updates.num_examples, dtype=np.float64))


def _fill(squares: Array, updates: Updates, groups: list[list[int]]) -> Array:
    """Set |x_i - x_j|^2 within the groups, and then again within parts where digits were lost; returns |x_i|^2."""
    names, norms = updates.model.parameters, np.zeros(0)
    lost = np.ones(squares.shape, dtype=bool)
    while groups:
        grams = [np.zeros((len(group), len(group)), order="F") for group in groups]
        for rows, model in updates.pieces(names, wide=True):
            for number, group in enumerate(groups):
                shifted = rows.sub_(model) if not len(norms) else rows[group] - rows[group[0]]
                grams[number] = add_products(grams[number], shifted.numpy())
        if not len(norms):
            norms = grams[0].diagonal().copy()
            _check_finite(updates.clients, norms)
        parts = []
        for group, gram in zip(groups, grams, strict=True):
            place, lengths, found = np.ix_(group, group), gram.diagonal(), _squares(gram)
            squares[place] = np.where(lost[place], found, squares[place])
            lost[place] &= found < _CANCELLED * (lengths[:, None] + lengths[None, :])
            parts += [[group[one] for one in part] for part in components(lost[place])]
        groups = parts
    return norms


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


def _squares(gram: Array) -> Array:
    """|x_i - x_j|^2 from the upper triangle of <x_i, x_j>."""
    gram = np.triu(gram)
    squares = gram.diagonal()[:, None] + gram.diagonal()[None, :] - 2 * (gram + np.triu(gram, 1).T)
    np.fill_diagonal(squares, 0)
    return np.asarray(squares.clip(0))


def _rounded(distances: Array) -> Array:
    largest = float(distances.max(initial=0.0))
    return distances if not largest else np.asarray(np.round(distances / largest * _DIGITS) / _DIGITS * largest)
