"""Plots of runs: a metric by round, bytes, client calls or seconds, with bands over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fedpkg.experiments.results import Group, Run, values_of
from fedpkg.pictures.chart import Band, Curve, LineChart
from fedpkg.reporting.charts import AXES, compared_chart

BANDS = {"std": "mean ± standard deviation", "range": "smallest to largest", "none": ""}


def plot_of(
    groups: Sequence[Group], metric: str, *, phase: str | None, x: str, band: str, log: bool = False
) -> LineChart:
    """A curve for each group: the mean over its runs, and a band around it.

    A curve has the rounds that all its runs have. By bytes, calls or seconds, a round stands at the mean of its runs.
    """
    curves = []
    for group in groups:
        runs = [(run, values) for run in group.runs if (values := values_of(run, metric, phase))]
        if runs:
            curves.append(_curve(group.label, runs, x, band))
    return compared_chart(metric, curves, x=AXES[x], log=log)


def _curve(label: str, runs: Sequence[tuple[Run, dict[int, float]]], x: str, band: str) -> Curve:
    numbers = sorted(set.intersection(*(set(values) for _, values in runs)))
    by_round = [[values[number] for _, values in runs] for number in numbers]
    xs = [statistics.fmean(_place(run, number, x) for run, _ in runs) for number in numbers]
    means = [statistics.fmean(values) for values in by_round]
    name = f"{label} ({len(runs)} runs)".strip() if len(runs) > 1 else label or runs[0][0].session_id
    if len(runs) < 2 or band == "none":
        return Curve(name, xs, means)
    if band == "range":
        return Curve(name, xs, means, [Band(list(map(min, by_round)), list(map(max, by_round)), BANDS[band])])
    spreads = [statistics.stdev(values) for values in by_round]
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    return Curve(name, xs, means, [Band(low, high, BANDS[band])])


def _place(run: Run, number: int, x: str) -> float:
    if x == "round":
        return number
    costs = run.measured.costs[number]
    return {"bytes": costs.bytes, "calls": costs.calls, "seconds": costs.seconds}[x]
