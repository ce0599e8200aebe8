"""The charts of a session's report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fedpkg.pictures.chart import (
    Axis,
    Band,
    BarChart,
    Chart,
    Curve,
    LineChart,
    Node,
    Number,
    TreeChart,
    histogram,
)
from fedpkg.reporting.measures import Measured

if TYPE_CHECKING:
    from fedpkg.stores.base import MetricRow, ModelRow, RequestRow, RoundRow, TaskRow

MOST_CURVES = 12  # charts of metrics; a table names the others
_PHASES = {
    "validate": "validation",
    "held_out": "held-out clients",
    "server": "server's data",
    "before_training": "before training",
    "after_training": "after training",
    "train": "training",
    "strategy": "strategy",
}


def constant_metrics(found: Measured) -> dict[str, float]:
    """Metrics with one value in all rounds and clients, such as a learning rate that the clients report."""
    constant = {}
    for name in found.names:
        measures = [m for (_, metric), rounds in found.metrics.items() if metric == name for m in rounds.values()]
        values = [value for m in measures for value in (m.weighted_mean, m.min, m.max) if value is not None]
        if len(measures) > 1 and values and all(math.isclose(value, values[0], rel_tol=1e-9) for value in values):
            constant[name] = values[0]
    return constant


def metric_charts(found: Measured, names: Sequence[str]) -> Iterator[LineChart]:
    """For each metric its weighted mean by round, a curve for each phase; bands show the clients of the first phase."""
    for name in names:
        curves: list[Curve] = []
        for phase in [phase for phase, metric in found.metrics if metric == name]:
            rounds = found.metrics[phase, name]
            bands = () if curves else bands_of(list(rounds.values()))
            ys = [measure.weighted_mean for measure in rounds.values()]
            curves.append(Curve(_PHASES.get(phase, phase), list(rounds), ys, bands))
        yield LineChart(title=name, curves=curves, x=Axis("round", "whole"), y=Axis(""))


def bands_of(measures: Sequence[MetricRow]) -> tuple[Band, ...]:
    """From the worst to the best client, and within it from the first to the last decile."""
    if all(measure.min is None for measure in measures):
        return ()
    deciles = [(m.deciles[0], m.deciles[-1]) if m.deciles else (None, None) for m in measures]
    return (
        Band([m.min for m in measures], [m.max for m in measures], "all clients"),
        Band([low for low, _ in deciles], [high for _, high in deciles], "middle 80 % of the clients"),
    )


def cost_charts(found: Measured, requests: Sequence[RequestRow], rounds: Sequence[RoundRow]) -> Iterator[Chart]:
    """Bytes and seconds by round."""
    down: dict[int, int] = {}
    up: dict[int, int] = {}
    for request in requests:
        down[request.round_number] = down.get(request.round_number, 0) + request.bytes_down
        up[request.round_number] = up.get(request.round_number, 0) + request.bytes_up
    numbers = sorted(down)
    curves = [Curve(name, numbers, _sums([of[n] for n in numbers])) for name, of in (("down", down), ("up", up))]
    yield LineChart(title="Bytes since the first round", curves=curves, x=Axis("round", "whole"), y=Axis("", "bytes"))
    ended = [row for row in rounds if row.wall_s is not None]
    seconds = Curve("seconds", [row.round_number for row in ended], [row.wall_s for row in ended])
    yield LineChart(title="Seconds for each round", curves=[seconds], x=Axis("round", "whole"), y=Axis(""))


def _sums(values: Sequence[int]) -> list[int]:
    total, found = 0, []
    for value in values:
        found.append(total := total + value)
    return found


def failure_chart(failed: Sequence[TaskRow], last_round: int) -> BarChart:
    """Failed tasks by round and kind; many rounds are gathered in groups."""
    size = max(1, -(-last_round // 60))
    first = min((task.round_number for task in failed), default=1)
    groups = list(range(min(first, 1), last_round + 1, size))
    kinds = dict.fromkeys(task.failure or "failed" for task in failed)
    series = {kind: [0.0] * len(groups) for kind in kinds}
    for task in failed:
        series[task.failure or "failed"][min((task.round_number - groups[0]) // size, len(groups) - 1)] += 1
    x = Axis("round" if size == 1 else f"round (groups of {size})")
    labels = [str(group) for group in groups]
    return BarChart(title="Failed tasks", labels=labels, series=series, stacked=True, x=x, y=Axis("", "whole"))


def client_charts(values: Mapping[str, Number], metric: str, round_number: int) -> Iterator[Chart]:
    """How the clients' values of one metric are distributed."""
    title = f"Clients by {metric}, round {round_number}"
    yield histogram(list(values.values()), title=title, x=Axis(metric))


def trail_chart(models: Sequence[ModelRow]) -> TreeChart:
    """From the seed model to the newest one; of many models the first two and the last two."""
    few = len(models) <= 5
    ends = models if few else [*models[:2], *models[-2:]]
    nodes: list[Node] = []
    for model in ends:
        above = nodes[-1].name if nodes else None
        if not few and len(nodes) == 2:
            above = "…"
            nodes.append(Node(above, nodes[-1].name, note=f"{len(models) - 4} more"))
        count = len(model.contributors)
        label = f"round {model.round_number}" if model.round_number else "seed model"
        nodes.append(Node(model.model_id, above, label, f"{count} client{'s' * (count != 1)}" if count else ""))
    return TreeChart(title="Model trail", nodes=nodes)
