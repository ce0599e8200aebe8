"""Columns of an organization's table: numbers, categories, and the design matrix of a regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from vantage6.algorithm.tools.decorators import data

from .asking import ask

Levels = dict[str, list[str]]
MOST_LEVELS = 50


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column. ValueError: there is none of this name, or there are several."""
    if name not in frame.columns:
        raise ValueError(f"there is no column '{name}'; the columns are {', '.join(map(str, frame.columns))}")
    column = frame[name]
    if isinstance(column, pd.DataFrame):
        raise ValueError(f"{column.shape[1]} columns have the name '{name}'")
    return column


def is_numeric(column: pd.Series) -> bool:
    """Whether it has numbers or truth values. A column without any value may be either, and counts as numeric."""
    return pd.api.types.is_numeric_dtype(column) or column.isna().all()


def numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as float64, NaN where a value is missing. ValueError: it is not numeric, or has infinite values."""
    column = column_of(frame, name)
    if not is_numeric(column):
        raise ValueError(f"column '{name}' is not numeric (its type is {column.dtype})")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise ValueError(f"column '{name}' has {np.isinf(values).sum()} infinite values")
    return values


def categories(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as texts, None where a value is missing.

    Whole numbers have no decimal point, because pandas reads the integers of a column as floats where one is missing.
    """
    column = column_of(frame, name)
    texts = [text_of(value) for value in column.array]
    return np.where(column.isna().to_numpy(), None, np.array(texts, dtype=object))


def text_of(value: Any) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def in_order(levels: Sequence[str] | set[str]) -> list[str]:
    """Levels in the order of their numbers if all are numbers, else of their texts."""
    try:
        return sorted(levels, key=float)
    except ValueError:
        return sorted(levels)


@data(1)
def partial_levels(frame: pd.DataFrame, columns: list[str], categorical: list[str]) -> Levels:
    """The levels of each column that has texts or is named in ``categorical``."""
    found = {}
    for name in columns:
        if name in categorical or not is_numeric(column_of(frame, name)):
            levels = {level for level in categories(frame, name) if level is not None}
            if len(levels) > MOST_LEVELS:
                raise ValueError(f"column '{name}' has more than {MOST_LEVELS} different values: it is no category")
            found[name] = in_order(levels)
    return found


def agreed_levels(
    client: Any, columns: Sequence[str], categorical: Sequence[str], organizations: Sequence[int] | None
) -> Levels:
    """The levels of all organizations, of each column that is categorical at one of them.

    Raises:
        ValueError: a column has a single level.
    """
    check_names(columns, "predictors")
    if unknown := [name for name in categorical if name not in columns]:
        raise ValueError(f"categorical: '{unknown[0]}' is not one of the predictors, {', '.join(columns)}")
    asked = {"columns": list(columns), "categorical": list(categorical)}
    told = ask(client, "partial_levels", organizations, **asked)
    found = {name for one in told for name in one}
    if any(found - one.keys() for one in told):  # others have only numbers in a column, or no values
        asked = {"columns": sorted(found), "categorical": sorted(found)}
        told = ask(client, "partial_levels", organizations, **asked)
    agreed = {}
    for name in columns:
        if levels := {level for one in told for level in one.get(name, [])}:
            agreed[name] = in_order(levels)
            if len(levels) == 1:
                raise ValueError(f"column '{name}' has the same value in all rows: leave it out")
    return agreed


def check_names(names: Sequence[str], parameter: str) -> None:
    """ValueError: not a list of different names."""
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{parameter} is a list of names of columns, not {names!r}")
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ValueError(f"{parameter}: '{twice[0]}' is there twice")


def terms(predictors: Sequence[str], levels: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of the columns of `design`. The first level of a category is the one that others are compared with."""
    return [
        term
        for name in predictors
        for term in ([f"{name}[{level}]" for level in levels[name][1:]] if name in levels else [name])
    ]


def design(frame: pd.DataFrame, predictors: Sequence[str], levels: Mapping[str, Sequence[str]]) -> np.ndarray:
    """A row for each row of the table, a column for each of `terms`; NaN where a value is missing."""
    made = [np.empty((len(frame), 0))]
    for name in predictors:
        if name in levels:
            values = categories(frame, name)
            columns = np.array([values == level for level in levels[name][1:]], dtype=np.float64).T
            columns[values == None] = np.nan  # noqa: E711  (each element is compared)
            made.append(columns)
        else:
            made.append(numbers(frame, name)[:, None])
    return np.hstack(made)


def complete(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rows in which no array has a missing value."""
    known = np.logical_and.reduce([~np.isnan(one[:, None] if one.ndim == 1 else one).any(axis=1) for one in arrays])
    return tuple(one[known] for one in arrays)
