"""Order statistics of columns: the elements at some places of the sorted columns of a few rows."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_MOST_ROWS = 64  # with more rows, sorting is faster (tests/benchmarks/aggregators.py)


def in_order(rows: Tensor, first: int, end: int) -> Sequence[Tensor]:
    """Rows ``first`` to ``end`` (without it) of (n, width) with each column sorted. ``rows`` is overwritten.

    Processors compute the minimum and maximum of two whole rows fastest. So up to 64 rows are sorted by a network of
    these (Batcher's odd-even merge sort), without the comparators that the requested rows do not depend on.
    """
    if len(rows) > _MOST_ROWS:
        return list(torch.sort(rows.T.contiguous(), dim=1).values.T[first:end])
    places = [*rows, torch.empty_like(rows[0])]
    for low, high, needs_low, needs_high in _network(len(rows), first, end):
        a, b, spare = places[low], places[high], places[-1]
        if needs_low and needs_high:
            torch.minimum(a, b, out=spare)
            torch.maximum(a, b, out=b)
            places[low], places[-1] = spare, a
        elif needs_low:
            torch.minimum(a, b, out=a)
        else:
            torch.maximum(a, b, out=b)
    return places[first:end]


@functools.lru_cache(maxsize=64)
def _network(count: int, first: int, end: int) -> list[tuple[int, int, bool, bool]]:
    """The comparators that rows ``first`` to ``end`` depend on, and which of their outputs."""
    needed = set(range(first, end))
    kept = []
    for low, high in reversed(list(_merge_sort(count))):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return kept[::-1]


def _merge_sort(count: int) -> Iterator[tuple[int, int]]:
    """Comparators of Batcher's odd-even merge sort, for any number of rows [Knuth, TAOCP 3, 5.2.2, algorithm M]."""
    size = 1
    while size < count:
        step = size
        while step >= 1:
            for start in range(step % size, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        yield low, low + step
            step //= 2
        size *= 2
