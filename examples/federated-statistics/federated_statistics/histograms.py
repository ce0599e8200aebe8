"""Histograms and quantiles, from counts of values below given numbers."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pandas as pd
from vantage6.algorithm.tools.decorators import algorithm_client, data

from .asking import ask
from .columns import complete, numbers
from .tables import total

PARTS = 256  # of an interval, in each round of a search


@algorithm_client
def histogram(
    client: Any,
    column: str,
    bins: int = 10,
    lower: float | None = None,
    upper: float | None = None,
    organizations: list[int] | None = None,
) -> dict[str, Any]:
    """Counts of values in bins of the same width; the last one has its upper edge. Values outside are counted apart.

    Without ``lower`` and ``upper``, the bins cover all values: each organization tells its range, rounded outwards to
    two digits, so that it need not be the value of a row. A count is None where an organization hides a part of it,
    because it is small (``minimum_count`` of its policy).
    """
    if bins < 1:
        raise ValueError(f"bins is at least 1, not {bins}")
    if lower is None or upper is None:
        told = [one for one in ask(client, "partial_range", organizations, column=column) if one["count"]]
        if not told:
            raise ValueError(f"column '{column}' has no value at any organization")
        lower = min(one["lower"] for one in told) if lower is None else lower
        upper = max(one["upper"] for one in told) if upper is None else upper
    if not lower < upper:
        raise ValueError(f"upper is greater than lower, not {upper} and {lower}")
    edges = np.linspace(lower, upper, bins + 1).tolist()
    told = ask(client, "partial_histogram", organizations, column=column, edges=edges)
    counts = [total(one) for one in zip(*(one["counts"] for one in told), strict=True)]
    sums = {key: total(one[key] for one in told) for key in ("below", "above", "missing")}
    return {"column": column, "edges": edges, "counts": counts, **sums}


@data(1)
def partial_range(frame: pd.DataFrame, column: str) -> dict[str, Any]:
    """A range that has all values, and the number of values."""
    (values,) = complete(numbers(frame, column))
    if not len(values):
        return {"count": 0}
    lower, upper = rounded(float(values.min()), math.floor), rounded(float(values.max()), math.ceil)
    return {"count": len(values), "lower": lower, "upper": upper if upper > lower else lower + 1.0}


def rounded(value: float, way: Any) -> float:
    """The value in two digits, downwards or upwards."""
    if value == 0:
        return 0.0
    digits = 1 - math.floor(math.log10(abs(value)))
    near = float(f"{way(value * 10.0**digits)}e{-digits}")
    return min(near, value) if way is math.floor else max(near, value)


@data(1)
def partial_histogram(frame: pd.DataFrame, column: str, edges: list[float]) -> dict[str, Any]:
    """The number of values in each bin.

    Counts: counts, below, above
    """
    values = numbers(frame, column)
    (known,) = complete(values)
    counts, _ = np.histogram(known, bins=edges)
    outside = {"below": int((known < edges[0]).sum()), "above": int((known > edges[-1]).sum())}
    return {"counts": counts.tolist(), **outside, "missing": len(values) - len(known)}


@algorithm_client
def quantiles(
    client: Any,
    column: str,
    probabilities: list[float],
    tolerance: float = 0.0,
    organizations: list[int] | None = None,
) -> dict[str, Any]:
    """Quantiles with linear interpolation between neighbours, as NumPy's and R's default.

    A search narrows the interval of each neighbour by counts of values up to 255 numbers in it, until the interval is
    no wider than ``tolerance`` (in the unit of the column). With 0 the result is exact, after at most 9 rounds. A
    quantile is a value of the table, or between two: a greater tolerance discloses less.
    """
    if not probabilities or not all(0 <= one <= 1 for one in probabilities):
        raise ValueError(f"probabilities are between 0 and 1, not {probabilities}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance is 0 or greater, not {tolerance}")
    asked = {"column": column, "limits": []}
    count = sum(one["count"] for one in ask(client, "partial_counts_below", organizations, **asked))
    if not count:
        raise ValueError(f"column '{column}' has no value at any organization")
    places = [(count - 1) * one for one in probabilities]
    ranks = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    # The value of a rank is the least x for which more than rank values are <= x. It is in (low, high].
    highest = position(math.inf)
    bounds = dict.fromkeys(ranks, (-highest, highest))

    def is_wide(rank: int) -> bool:
        low, high = bounds[rank]
        return high - low > 1 and not value(high) - value(low + 1) <= tolerance

    rounds = 0
    while wide := [rank for rank in ranks if is_wide(rank)]:
        cuts = {cut for rank in wide for cut in parts(*bounds[rank])}
        limits = sorted(cuts)
        asked = {"column": column, "limits": [value(cut) for cut in limits]}
        told = ask(client, "partial_counts_below", organizations, **asked)
        below = np.sum([one["below"] for one in told], axis=0)
        rounds += 1
        for rank in wide:
            low, high = bounds[rank]
            first = int(np.searchsorted(below, rank, side="right"))  # the first limit with more than rank values
            high = min(high, limits[first]) if first < len(limits) else high
            low = max(low, limits[first - 1]) if first else low
            bounds[rank] = (low, high)
    found = {rank: middle(*bounds[rank]) for rank in ranks}
    return {
        "column": column,
        "count": count,
        "quantiles": {
            str(one): between(found[math.floor(place)], found[math.ceil(place)], place % 1)
            for one, place in zip(probabilities, places, strict=True)
        },
        "tolerance": tolerance,
        "rounds": rounds,
    }


@data(1)
def partial_counts_below(frame: pd.DataFrame, column: str, limits: list[float]) -> dict[str, Any]:
    """The number of values, and how many are not above each limit."""
    (values,) = complete(numbers(frame, column))
    below = np.searchsorted(np.sort(values), np.array(limits, dtype=float), side="right")
    return {"count": len(values), "below": below.tolist()}


def position(x: float) -> int:
    """The place of a float64 among all of them: the integers are in the order of the numbers."""
    (bits,) = struct.unpack("<q", struct.pack("<d", x))
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def value(place: int) -> float:
    """The inverse of `position`."""
    return math.copysign(struct.unpack("<d", struct.pack("<q", abs(place)))[0], place)


def parts(low: int, high: int) -> list[int]:
    """Places that cut an interval into parts of the same number of floats; neither end is one."""
    return sorted({low + (high - low) * i // PARTS for i in range(1, PARTS)} - {low, high})


def middle(low: int, high: int) -> float:
    """The value of an interval (low, high]; of one float, that float."""
    first, last = value(low + 1), value(high)
    return first + (last - first) / 2


def between(a: float, b: float, share: float) -> float:
    return b - (b - a) * (1 - share) if share >= 0.5 else a + (b - a) * share
