"""Distances between the updates of a round, in float64 and without cancellation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedpkg.errors import AggregationError
from fedpkg.strategies.updates.held import Updates

_CHUNK = 1 << 12
_SHARED = 128  # columns from which BLAS divides the sums of a single product among threads
_BLOCK = 128  # rows of one product of matrices: tests/benchmarks/clusters.py
_ROOM = (
    1 << 22
)  # elements of all rows together (32 MiB), since a product of long rows takes half the time of short ones
_CANCELLED = 1e-4  # below this share of |a|^2 + |b|^2, |a - b|^2 has lost more than 4 of its 16 digits


def squared_distances(updates: Updates) -> Tensor:
    """|x_i - x_j|^2 of the parameters, a symmetric matrix in float64; see `distances_and_norms`.

    Raises:
        AggregationError: a distance is not finite in float64.
    """
    distances, _ = distances_and_norms(updates)
    if torch.isnan(distances).any():
        raise AggregationError("updates are too large: their distances are not finite in float64")
    return distances


def distances_and_norms(updates: Updates) -> tuple[Tensor, Tensor]:
    """|x_i - x_j|^2 and |x_i|^2 of the parameters relative to the global model, in float64.

    |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b>: one product of matrices for each piece gives all pairs. Where updates are much
    closer to each other than to the model, digits cancel: such groups are computed again, relative to their first
    update, until no pair is left. So equal updates have the distance 0. The result has the same bits for any number of
    threads. What is not finite is NaN or infinite. Memory: a few matrices (n, n), and 32 MiB of the updates.
    """
    count = len(updates)
    distances, norms = torch.zeros(count, count, dtype=torch.float64), None
    lost = ~torch.eye(count, dtype=torch.bool)
    groups = [list(range(count))]
    while groups:
        grams = [torch.zeros(len(group), len(group), dtype=torch.float64) for group in groups]
        for rows, model in updates.pieces(updates.model.parameters, wide=True, room=_ROOM):
            for gram, group in zip(grams, groups, strict=True):
                _add_products(gram, rows.sub_(model) if norms is None else rows[group] - rows[group[0]])
        parts: list[list[int]] = []
        for gram, group in zip(grams, groups, strict=True):
            gram = gram.triu() + gram.triu(1).T  # rounding makes the product asymmetric, which would break ties
            squares = gram.diagonal()
            norms = squares.clone() if norms is None else norms
            sums = squares[:, None] + squares[None, :]
            found = (sums - 2 * gram).fill_diagonal_(0)
            place = torch.tensor(group)[:, None], torch.tensor(group)[None, :]
            distances[place] = torch.where(lost[place], found, distances[place])
            lost[place] &= found < _CANCELLED * sums  # False for NaN
            parts += [[group[one] for one in part] for part in _connected(lost[place])]
        groups = parts
    assert norms is not None
    return distances, norms


def squared_distances_by_pair(updates: Updates) -> Tensor:
    """The same as `squared_distances`, pair by pair: the readable version, for tests and benchmarks."""
    count = len(updates)
    distances = torch.zeros(count, count, dtype=torch.float64)
    for rows, _ in updates.pieces(updates.model.parameters, wide=True):
        for i in range(count):
            for j in range(i + 1, count):
                difference = rows[i] - rows[j]
                distances[i, j] += torch.dot(difference, difference)
    return distances + distances.T


def _add_products(gram: Tensor, rows: Tensor) -> None:
    """Add rows rows^T to its upper triangle. The other triangle is not complete."""
    count, number = len(rows), -(-len(rows) // _BLOCK)
    if number == 1:
        gram += products(rows)
        return
    size = count // number
    blocks, rest = rows[: number * size].view(number, size, -1), rows[number * size :]
    for apart in range(number):
        for block, product in enumerate(_each_by_one_thread(blocks[: number - apart], blocks[apart:])):
            start, other = block * size, (block + apart) * size
            gram[start : start + size, other : other + size] += product
    if len(rest):  # fewer rows than blocks
        beside = _each_by_one_thread(blocks, rest.expand(number, -1, -1))
        gram[: number * size, number * size :] += beside.reshape(number * size, -1)
        gram[number * size :, number * size :] += products(rest)


def _connected(are_linked: Tensor) -> list[list[int]]:
    """The connected components of a graph that have at least two nodes."""
    left, found = are_linked.any(dim=1), []
    while left.any():
        reached, before = torch.zeros_like(left), -1
        reached[int(left.nonzero()[0])] = True
        while (number := int(reached.sum())) != before:
            before = number
            reached |= are_linked[reached].any(dim=0)
        found.append(reached.nonzero().flatten().tolist())
        left &= ~reached
    return found


def products(rows: Tensor) -> Tensor:
    """rows rows^T as a sum over chunks in a fixed order, with the same bits for any number of threads."""
    whole = rows.shape[1] // _CHUNK * _CHUNK
    rest = rows[:, whole:]
    total = rest @ rest.T if rest.shape[1] < _SHARED else _each_by_one_thread(rest[None], rest[None])[0]
    if whole:
        chunks = rows[:, :whole].view(len(rows), -1, _CHUNK).transpose(0, 1)
        total += _each_by_one_thread(chunks, chunks).sum(dim=0)
    return total


def _each_by_one_thread(left: Tensor, right: Tensor) -> Tensor:
    """left_k right_k^T for stacks of matrices. BLAS divides the sums of a single product among threads, so that one is
    computed twice.
    """
    if len(left) == 1:
        return torch.bmm(left.expand(2, -1, -1), right.expand(2, -1, -1).transpose(1, 2))[:1]
    return torch.bmm(left, right.transpose(1, 2))


def squared_norms(updates: Updates, centre: Mapping[str, Tensor] | None = None) -> Tensor:
    """|x_k - c|^2 of the parameters in float64; without ``centre``, c is the global model."""
    total = torch.zeros(len(updates), dtype=torch.float64)
    for rows, row in updates.pieces(updates.model.parameters, wide=True, beside=centre):
        rows -= row
        total += rows.square_().sum(dim=1)
    return total
