"""Counts, means and sums of squared deviations, which merge without cancellation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from vantage6.algorithm.tools.decorators import algorithm_client, data

from .asking import ask
from .columns import Levels, agreed_levels, check_names, complete, design, numbers, terms


@dataclass(frozen=True)
class Moments:
    """Number of rows, and for each column the mean and the sum of squared deviations from it."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Moments:
        if not len(rows):
            return cls(0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1]))
        mean = rows.mean(axis=0)
        rest = rows - mean
        # Their sum is what rounding left of the mean (the corrected two-pass algorithm).
        return cls(len(rows), mean, (rest**2).sum(axis=0) - rest.sum(axis=0) ** 2 / len(rows))

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows [Chan, Golub, LeVeque 1983]."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), squares)

    def told(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean.tolist(), "squares": self.squares.tolist()}

    @classmethod
    def read(cls, told: dict[str, Any]) -> Moments:
        return cls(told["count"], np.array(told["mean"], dtype=float), np.array(told["squares"], dtype=float))


@algorithm_client
def mean_and_variance(client: Any, columns: list[str], organizations: list[int] | None = None) -> dict[str, Any]:
    """Count, missing values, mean, variance (of a sample) and standard deviation of each column."""
    check_names(columns, "columns")
    told = ask(client, "partial_moments", organizations, columns=columns)
    found = {}
    for name in columns:
        moments = reduce(Moments.merged, (Moments.read(one[name]) for one in told))
        if not moments.count:
            raise ValueError(f"column '{name}' has no value at any organization")
        variance = float(moments.squares[0]) / (moments.count - 1) if moments.count > 1 else None
        found[name] = {
            "count": moments.count,
            "missing": sum(one[name]["missing"] for one in told),
            "mean": float(moments.mean[0]),
            "variance": variance,
            "standard_deviation": None if variance is None else math.sqrt(variance),
        }
    return found


@data(1)
def partial_moments(frame: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    """Of each column: count, mean, sum of squared deviations, and the number of missing values."""
    found = {}
    for name in columns:
        values = numbers(frame, name)
        (known,) = complete(values)
        found[name] = {**Moments.of(known[:, None]).told(), "missing": len(values) - len(known)}
    return found


@data(1)
def partial_row_moments(
    frame: pd.DataFrame, predictors: list[str], levels: Levels, others: list[str]
) -> dict[str, Any]:
    """The moments of the design matrix and of other columns, over rows in which nothing is missing."""
    rows = np.column_stack([design(frame, predictors, levels), *(numbers(frame, name) for name in others)])
    (known,) = complete(rows)
    return {**Moments.of(known).told(), "dropped": len(rows) - len(known)}


@data(1)
def partial_cross_products(frame: pd.DataFrame, columns: list[str], mean: list[float]) -> list[list[float]]:
    """Sums of products of the columns' deviations from a common mean, over rows in which nothing is missing."""
    (rows,) = complete(design(frame, columns, {}))
    rest = rows - np.array(mean)
    return (rest.T @ rest).tolist()


@dataclass(frozen=True)
class Design:
    """What a regression knows of its rows before it begins: how many there are, and each term's mean and spread."""

    predictors: list[str]
    levels: Levels
    names: list[str]
    count: int
    dropped: int
    mean: np.ndarray
    scale: np.ndarray
    of_others: Moments

    @property
    def arguments(self) -> dict[str, Any]:
        """What `standardised` needs at an organization."""
        return {
            "predictors": self.predictors,
            "levels": self.levels,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
        }


def agreed_design(
    client: Any,
    predictors: Sequence[str],
    categorical: Sequence[str],
    others: Sequence[str],
    organizations: Sequence[int] | None,
) -> Design:
    """The design that all organizations share.

    Raises:
        ValueError: no row is complete, or a term has the same value in all rows.
    """
    levels = agreed_levels(client, predictors, categorical, organizations)
    asked = {"predictors": list(predictors), "levels": levels, "others": list(others)}
    told = ask(client, "partial_row_moments", organizations, **asked)
    moments = reduce(Moments.merged, map(Moments.read, told))
    names, dropped = terms(predictors, levels), sum(one["dropped"] for one in told)
    p = len(names)
    if not moments.count:
        raise ValueError(f"no row has a value in each of {', '.join([*predictors, *others])}")
    scale = np.sqrt(moments.squares[:p] / moments.count)
    for name, spread, mean in zip(names, scale, moments.mean[:p], strict=True):
        if spread <= 1e-12 * abs(mean):
            raise ValueError(f"'{name}' has the same value in all rows that are complete: leave it out")
    of_others = Moments(moments.count, moments.mean[p:], moments.squares[p:])
    return Design(list(predictors), levels, names, moments.count, dropped, moments.mean[:p], scale, of_others)


def standardised(
    frame: pd.DataFrame,
    others: Sequence[str],
    predictors: list[str],
    levels: Levels,
    mean: list[float],
    scale: list[float],
) -> tuple[np.ndarray, ...]:
    """The complete rows of the design matrix, with mean 0 and spread 1 over all organizations, and of other columns."""
    x, *rest = complete(design(frame, predictors, levels), *(numbers(frame, name) for name in others))
    return (x - np.array(mean)) / np.array(scale), *rest
