"""Times and events: the Kaplan-Meier estimate, and the event times that organizations share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from vantage6.algorithm.tools.decorators import algorithm_client, data

from .asking import ask
from .columns import Levels, complete, design, numbers


@algorithm_client
def kaplan_meier(
    client: Any, duration: str, event: str, confidence: float = 0.95, organizations: list[int] | None = None
) -> dict[str, Any]:
    """The survival function at each time of an event, with Greenwood's variance and a log-log confidence interval.

    ``event`` is 1 where the event took place and 0 where the observation ended before it. Rows with missing values are
    left out.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is between 0 and 1, not {confidence}")
    deaths = event_times(client, duration, event, [], {}, organizations)
    told = ask(client, "partial_at_risk", organizations, duration=duration, event=event, times=list(deaths))
    at_risk = np.sum([one["at_risk"] for one in told], axis=0).tolist()
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    survival, total, rows = 1.0, 0.0, []
    for (time, d), n in zip(deaths.items(), at_risk, strict=True):
        survival *= (n - d) / n
        # Greenwood: Var S(t) = S(t)^2 sum d / (n (n - d)), which is not defined once all have had the event.
        total = total + d / (n * (n - d)) if n > d else math.inf
        variance = survival**2 * total if n > d else None
        lower, upper = log_log_interval(survival, total, z)
        row = {"time": time, "events": d, "at_risk": n, "survival": survival, "variance": variance}
        rows.append({**row, "lower": lower, "upper": upper})
    half = 0.5 * (1 + 1e-12)  # a half may be rounded upwards
    median = next((row["time"] for row in rows if row["survival"] <= half), None)
    counts = {key: sum(one[key] for one in told) for key in ("rows", "dropped")}
    return {**counts, "events": sum(deaths.values()), "median": median, "confidence": confidence, "curve": rows}


def log_log_interval(survival: float, total: float, z: float) -> tuple[float, float]:
    """S(t)^exp(± z s), where s is the standard error of log(-log S(t)) [Kalbfleisch and Prentice 2002, section 1.4]."""
    if not 0 < survival < 1:
        return survival, survival
    spread = math.exp(z * math.sqrt(total) / -math.log(survival))
    return survival**spread, survival ** (1 / spread)


def event_times(
    client: Any,
    duration: str,
    event: str,
    predictors: Sequence[str],
    levels: Levels,
    organizations: Sequence[int] | None,
) -> dict[float, int]:
    """The times at which an event took place at any organization, in order, and how many took place then."""
    asked = {"duration": duration, "event": event, "predictors": list(predictors), "levels": levels}
    told = ask(client, "partial_event_times", organizations, **asked)
    counts: Counter[float] = Counter()
    for one in told:
        counts.update(dict(zip(one["times"], one["events"], strict=True)))
    if not counts:
        raise ValueError(f"no organization has an event: '{event}' is nowhere 1 in a complete row")
    return dict(sorted(counts.items()))


@data(1)
def partial_event_times(
    frame: pd.DataFrame, duration: str, event: str, predictors: list[str], levels: Levels
) -> dict[str, list[Any]]:
    """The times of events, and the number of events at each, over the complete rows."""
    times, happened = durations(frame, duration, event)
    times, happened, _ = complete(times, happened, design(frame, predictors, levels))
    those, counts = np.unique(times[happened == 1], return_counts=True)
    return {"times": those.tolist(), "events": counts.tolist()}


@data(1)
def partial_at_risk(frame: pd.DataFrame, duration: str, event: str, times: list[float]) -> dict[str, Any]:
    """How many rows are still observed at each time."""
    known, _ = complete(*durations(frame, duration, event))
    before = np.searchsorted(np.sort(known), np.array(times, dtype=float), side="left")
    return {"at_risk": (len(known) - before).tolist(), "rows": len(known), "dropped": len(frame) - len(known)}


def durations(frame: pd.DataFrame, duration: str, event: str) -> tuple[np.ndarray, np.ndarray]:
    """Both columns. ValueError: a time is negative, or an event is neither 0 nor 1."""
    times, happened = numbers(frame, duration), numbers(frame, event)
    if (times < 0).any():
        raise ValueError(f"column '{duration}' has negative times")
    if not np.isin(happened[~np.isnan(happened)], (0, 1)).all():
        raise ValueError(f"column '{event}': an event is 1 or, where the observation ended before it, 0")
    return times, happened
