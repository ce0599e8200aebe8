"""The average of nodes' metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from fedpkg.records.record_dict import RecordDict
from fedpkg.records.value_records import MetricRecord

MetricsAggregation = Callable[[list[RecordDict], str], MetricRecord]


def aggregate_metricrecords(records: Sequence[RecordDict], weighting_metric_name: str) -> MetricRecord:
    """Each metric averaged over the replies that have it, weighted by one of the metrics, which is left out.

    Lists are averaged by element. A value that is not finite does not count, nor does one that is a list in one reply
    and a number (or a list of another length) in the first. A metric without any finite value is NaN.
    """
    found: dict[str, list[tuple[float, list[float]]]] = {}
    is_list: dict[str, bool] = {}
    for content in records:
        metrics = metrics_of(content)
        weight = weight_in(metrics, weighting_metric_name)
        if isinstance(weight, str):
            continue
        for name, value in metrics.items():
            if name == weighting_metric_name:
                continue
            values = value if isinstance(value, list) else [value]
            terms = found.setdefault(name, [])
            if is_list.setdefault(name, isinstance(value, list)) != isinstance(value, list):
                continue
            if not terms or len(terms[0][1]) == len(values):
                terms.append((weight, values))
    averages = {name: _means(terms) for name, terms in found.items()}
    return MetricRecord({name: values if is_list[name] else values[0] for name, values in averages.items()})


def metrics_of(content: RecordDict) -> dict[str, Any]:
    """All metrics of a reply; of several records, the first one that has a name counts."""
    merged: dict[str, Any] = {}
    for record in content.metric_records.values():
        for name, value in record.items():
            merged.setdefault(name, value)
    return merged


def weight_in(metrics: dict[str, Any], key: str) -> float | str:
    """The weight of a reply, or why it has none."""
    if key not in metrics:
        return (
            f"its metrics have no {key!r}, by which replies are weighted; they have {', '.join(metrics) or 'nothing'}"
        )
    weight = metrics[key]
    if not isinstance(weight, (int, float)):
        return f"{key!r}, by which replies are weighted, is a list"
    if not (math.isfinite(weight) and weight > 0):
        return f"{key!r}, by which replies are weighted, is {weight}; it must be a finite number above 0"
    return float(weight)


def _means(terms: Sequence[tuple[float, list[float]]]) -> list[float]:
    return [_mean([(weight, values[place]) for weight, values in terms]) for place in range(len(terms[0][1]))]


def _mean(terms: Sequence[tuple[float, float]]) -> float:
    total = weights = 0.0
    for weight, value in terms:  # not sum(): it rounds differently since Python 3.12
        if math.isfinite(value):
            total += weight * value
            weights += weight
    return total / weights if weights else math.nan
