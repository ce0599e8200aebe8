"""Contingency tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from vantage6.algorithm.tools.decorators import algorithm_client, data

from .asking import ask
from .columns import MOST_LEVELS, categories, in_order


@algorithm_client
def contingency_table(client: Any, row: str, column: str, organizations: list[int] | None = None) -> dict[str, Any]:
    """How often each pair of values of two columns occurs, and Pearson's chi-squared.

    A count is None where an organization hides a part of it, because it is small (``minimum_count`` of its policy).
    """
    told = ask(client, "partial_table", organizations, row=row, column=column)
    rows = in_order({a for one in told for a in one["counts"]})
    columns = in_order({b for one in told for counts in one["counts"].values() for b in counts})
    if not rows:
        raise ValueError(f"no row has a value in both '{row}' and '{column}'")
    table = [[total(one["counts"].get(a, {}).get(b, 0) for one in told) for b in columns] for a in rows]
    return {
        "row": row,
        "column": column,
        "rows": rows,
        "columns": columns,
        "counts": table,
        "missing": sum(one["missing"] for one in told),
        "chi_squared": chi_squared(table),
        "degrees_of_freedom": (len(rows) - 1) * (len(columns) - 1),
    }


def total(counts: Iterable[int | None]) -> int | None:
    """Their sum, None if one of them is hidden."""
    known = list(counts)
    return None if None in known else sum(known)


def chi_squared(table: list[list[int | None]]) -> float | None:
    """The sum of (count - expected)^2 / expected, None if a count is hidden."""
    counts = np.array(table, dtype=float)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    found = float(((counts - expected) ** 2 / expected).sum())
    return None if math.isnan(found) else found


@data(1)
def partial_table(frame: pd.DataFrame, row: str, column: str) -> dict[str, Any]:
    """The number of rows with each pair of values that occurs.

    Counts: counts
    """
    a, b = categories(frame, row), categories(frame, column)
    known = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    for name, values in ((row, {x for x, _ in known}), (column, {y for _, y in known})):
        if len(values) > MOST_LEVELS:
            raise ValueError(f"column '{name}' has more than {MOST_LEVELS} different values: it is no category")
    counts: dict[str, dict[str, int]] = {}
    for (x, y), count in sorted(Counter(known).items()):
        counts.setdefault(x, {})[y] = count
    return {"counts": counts, "missing": len(frame) - len(known)}
