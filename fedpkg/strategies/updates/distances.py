"""Distances between the updates of a round, in float64 and without cancellation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedpkg.errors import AggregationError
from fedpkg.strategies.updates.held import Updates

_CHUNK = 1 << 12
_CANCELLED = 1e-4  # below this share of |a|^2 + |b|^2, |a - b|^2 has lost more than 4 of its 16 digits


def squared_distances(updates: Updates) -> Tensor:
    """|x_i - x_j|^2 of the parameters, a symmetric matrix in float64.

    |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b>, with a and b relative to the global model: one product of matrices for each
    piece gives all pairs. For pairs much closer to each other than to the model digits cancel, so these are computed
    directly.
    """
    count = len(updates)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for rows, model in updates.pieces(updates.model.parameters, wide=True):
        rows -= model
        gram += products(rows)
    gram = gram.triu() + gram.triu(1).T  # rounding makes the product asymmetric, which would break ties
    squares = gram.diagonal()
    sums = squares[:, None] + squares[None, :]
    distances = sums - 2 * gram
    pairs = [
        (i, j)
        for i, j in (distances < _CANCELLED * sums).nonzero().tolist()
        if i < j  # NaN: see below
    ]
    if pairs:
        left, right = map(list, zip(*pairs, strict=True))
        exact = torch.zeros(len(pairs), dtype=torch.float64)
        for rows, _ in updates.pieces(updates.model.parameters, wide=True):
            for number, (i, j) in enumerate(pairs):
                difference = rows[i] - rows[j]
                exact[number] += torch.dot(difference, difference)
        distances[left, right] = distances[right, left] = exact
    if torch.isnan(distances).any():
        raise AggregationError("updates are too large: their distances are not finite in float64")
    distances.fill_diagonal_(0)
    return distances


def products(rows: Tensor) -> Tensor:
    """rows rows^T as a sum over chunks in a fixed order, with the same bits for any number of threads."""
    whole = rows.shape[1] // _CHUNK * _CHUNK
    total = rows[:, whole:] @ rows[:, whole:].T
    if whole:
        chunks = rows[:, :whole].view(len(rows), -1, _CHUNK).transpose(0, 1)
        total += torch.bmm(chunks, chunks.transpose(1, 2)).sum(dim=0)
    return total


def squared_norms(updates: Updates, centre: Mapping[str, Tensor] | None = None) -> Tensor:
    """|x_k - c|^2 of the parameters in float64; without ``centre``, c is the global model."""
    total = torch.zeros(len(updates), dtype=torch.float64)
    for rows, row in updates.pieces(updates.model.parameters, wide=True, beside=centre):
        rows -= row
        total += rows.square_().sum(dim=1)
    return total
