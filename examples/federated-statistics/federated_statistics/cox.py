"""Cox regression: the partial likelihood of the pooled rows, from sums over the rows at risk at each time of an event.

With w_i = exp(x_i beta), R the rows at risk at a time, D those with an event at it, and d their number, the time adds
(Efron)    sum_D x_i beta - sum_{l<d} log(sum_R w_i - l/d sum_D w_i)
(Breslow)  sum_D x_i beta - d log(sum_R w_i)
to the log-likelihood [Efron 1977; Breslow 1974]. Both are the same where no events are tied.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from vantage6.algorithm.tools.decorators import algorithm_client, data

from .asking import ask
from .columns import Levels
from .moments import agreed_design, standardised
from .newton import Point, minimise, summed, table
from .survival import durations, event_times


@algorithm_client
def cox(
    client: Any,
    duration: str,
    event: str,
    predictors: list[str],
    ties: str = "efron",
    categorical: list[str] | None = None,
    organizations: list[int] | None = None,
) -> dict[str, Any]:
    """Proportional hazards: how columns change the rate of events. ``ties`` is efron or breslow.

    Columns of texts, and those named in ``categorical``, are compared with their first level. Rows with missing values
    are left out. The coefficients are exact to about 1e-9 of a standard deviation.
    """
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties is efron or breslow, not {ties!r}")
    shared = agreed_design(client, predictors, categorical or [], [duration, event], organizations)
    deaths = event_times(client, duration, event, predictors, shared.levels, organizations)
    times, numbers_of_events = list(deaths), np.array(list(deaths.values()))
    is_tied = (numbers_of_events > 1) & (ties == "efron")
    tied = [time for time, one in zip(times, is_tied, strict=True) if one]

    def evaluate(beta: np.ndarray) -> Point:
        asked = {"duration": duration, "event": event, "times": times, "tied": tied, "coefficients": beta.tolist()}
        told = ask(client, "partial_cox", organizations, **asked, **shared.arguments)
        sums = {key: summed(told, key) for key in told[0]}
        return loss_of(sums, beta, numbers_of_events, is_tied)

    found = minimise(evaluate, np.zeros(len(shared.names)), shared.names)
    covariance = found.covariance / np.outer(shared.scale, shared.scale)
    coefficients = table(shared.names, found.coefficients / shared.scale, covariance)
    for one in coefficients.values():
        is_small = one["coefficient"] < 700  # exp(710) is no float64; the column then has a very small unit
        one["hazard_ratio"] = math.exp(one["coefficient"]) if is_small else None
    return {
        "ties": ties,
        "coefficients": coefficients,
        "covariance": covariance.tolist(),
        "rows": shared.count,
        "dropped": shared.dropped,
        "events": int(numbers_of_events.sum()),
        "log_likelihood": -found.loss,
        "null_log_likelihood": -found.loss_at_start,
        "iterations": found.iterations,
    }


def loss_of(sums: dict[str, np.ndarray], beta: np.ndarray, deaths: np.ndarray, is_tied: np.ndarray) -> Point:
    """Minus the log partial likelihood, with its derivatives."""
    p = len(beta)
    loss, gradient, information = -float(sums["events_x"] @ beta), -sums["events_x"], np.zeros((p, p))
    risk = [unpacked(one, p) for one in sums["at_risk"]]
    dying = iter([unpacked(one, p) for one in sums["with_event"]])
    for d, (s0, s1, s2), has_ties in zip(deaths, risk, is_tied, strict=True):
        shares = np.arange(d) / d if has_ties else np.zeros(d)
        d0, d1, d2 = next(dying) if has_ties else (0.0, np.zeros(p), np.zeros((p, p)))
        for share in shares:
            w = s0 - share * d0
            mean = (s1 - share * d1) / w
            loss += float(np.log(w))
            gradient = gradient + mean
            information += (s2 - share * d2) / w - np.outer(mean, mean)
    return Point(loss, gradient, information)


@data(1)
def partial_cox(
    frame: pd.DataFrame,
    duration: str,
    event: str,
    times: list[float],
    tied: list[float],
    coefficients: list[float],
    predictors: list[str],
    levels: Levels,
    mean: list[float],
    scale: list[float],
) -> dict[str, Any]:
    """Sums of w, w x and w x x' over the rows at risk at each time, and over those with an event at each tied time."""
    durations(frame, duration, event)
    x, time, happened = standardised(frame, [duration, event], predictors, levels, mean, scale)
    w = np.exp(np.clip(x @ np.array(coefficients), -300, 300))  # so a step that went much too far has a loss
    died = happened == 1
    # Row i is at risk at all times up to its own: it enters at the last of these, and sums run from the end.
    last = np.searchsorted(times, time, side="right") - 1
    enters = by_time(x, w, last, len(times))
    place = np.searchsorted(tied, time)
    is_tied = died & np.isin(time, tied)
    return {
        "events_x": x[died].sum(axis=0).tolist(),
        "at_risk": enters[::-1].cumsum(axis=0)[::-1].tolist(),
        "with_event": by_time(x[is_tied], w[is_tied], place[is_tied], len(tied)).tolist(),
    }


def by_time(x: np.ndarray, w: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """For each place: the sums of w, of w x, and of the upper triangle of w x x', one after the other."""
    p = x.shape[1]
    above = np.triu_indices(p)
    sums = np.zeros((count, 1 + p + len(above[0])))
    order = np.argsort(place, kind="stable")
    order = order[place[order] >= 0]
    places, starts = np.unique(place[order], return_index=True)
    for one, rows in zip(places, np.split(order, starts[1:]) if len(places) else [], strict=True):
        weighted = w[rows, None] * x[rows]
        sums[one] = np.concatenate([[w[rows].sum()], weighted.sum(axis=0), (weighted.T @ x[rows])[above]])
    return sums


def unpacked(row: np.ndarray, p: int) -> tuple[float, np.ndarray, np.ndarray]:
    square = np.zeros((p, p))
    square[np.triu_indices(p)] = row[1 + p :]
    return float(row[0]), row[1 : 1 + p], square + np.triu(square, 1).T
