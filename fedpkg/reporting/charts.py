"""What a session's curves, bands, bars and trails look like: in its report, on the dashboard, in a notebook.

The functions take columns of numbers, so rows of a store and answers of the read API are drawn alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from fedpkg.pictures.chart import (
    Axis,
    Band,
    BarChart,
    Chart,
    Curve,
    HeatMap,
    LineChart,
    Node,
    Number,
    TreeChart,
    histogram,
)
from fedpkg.reporting.measures import Measured

if TYPE_CHECKING:
    from fedpkg.stores.base import MetricRow

ROUND = Axis("round", "whole")
AXES = {
    "round": ROUND,
    "bytes": Axis("bytes down and up", "bytes"),
    "seconds": Axis("seconds"),
    "calls": Axis("client calls", "whole"),
    "virtual_s": Axis("virtual seconds"),
}
MOST_CURVES = 12  # charts of metrics; a table names the others
PHASES = {
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


@dataclass(frozen=True)
class Measure:
    """A metric of one phase in columns, one value for each round: where it stands, and its spread over the clients."""

    phase: str
    xs: Sequence[Number]
    mean: Sequence[Number]
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()
    deciles: Sequence[Sequence[float] | None] = ()

    @property
    def bands(self) -> tuple[Band, ...]:
        """From the worst to the best client, and within it from the first to the last decile."""
        if all(value is None for value in self.low):
            return ()
        inner = [(ends[0], ends[-1]) if ends else (None, None) for ends in self.deciles]
        return (
            Band(self.low, self.high, "all clients"),
            Band([low for low, _ in inner], [high for _, high in inner], "middle 80 % of the clients"),
        )


def measure_of(phase: str, rounds: Mapping[int, MetricRow]) -> Measure:
    rows = list(rounds.values())
    low, high = [row.min for row in rows], [row.max for row in rows]
    return Measure(phase, list(rounds), [row.weighted_mean for row in rows], low, high, [row.deciles for row in rows])


def metric_chart(
    metric: str,
    measures: Iterable[Measure],
    *,
    x: Axis = ROUND,
    log: bool = False,
    faint: Sequence[Curve] = (),
    faint_name: str = "",
) -> LineChart:
    """A curve for each phase; bands show the clients of the first phase, unless their own lines are drawn."""
    curves: list[Curve] = []
    for one in measures:
        bands = () if curves or faint else one.bands
        curves.append(Curve(PHASES.get(one.phase, one.phase), one.xs, one.mean, bands))
    return LineChart(title=metric, curves=curves, x=x, y=Axis("", log=log), faint=faint, faint_name=faint_name)


def metric_charts(found: Measured, names: Sequence[str]) -> Iterator[LineChart]:
    """The chart of each of these metrics by round."""
    for name in names:
        phases = [phase for phase, metric in found.metrics if metric == name]
        yield metric_chart(name, [measure_of(phase, found.metrics[phase, name]) for phase in phases])


def bytes_chart(rounds: Sequence[int], down: Sequence[int], up: Sequence[int]) -> LineChart:
    curves = [Curve(name, rounds, list(accumulate(sizes))) for name, sizes in (("down", down), ("up", up))]
    return LineChart(title="Bytes since the first round", curves=curves, x=ROUND, y=Axis("", "bytes"))


def seconds_chart(rounds: Sequence[int], seconds: Sequence[Number]) -> LineChart:
    return LineChart(title="Seconds for each round", curves=[Curve("seconds", rounds, seconds)], x=ROUND)


def phases_chart(rounds: Sequence[int], phases: Sequence[Mapping[str, float]]) -> BarChart:
    """Where the time of each round went: its phases over each other."""
    names = dict.fromkeys(name for one in phases for name in one)
    series = {name: [max(0.0, one.get(name, 0.0)) for one in phases] for name in names}
    labels = [str(number) for number in rounds]
    title = "Where a round's time goes"
    return BarChart(title=title, labels=labels, series=series, stacked=True, x=Axis("round"), y=Axis("seconds"))


def failure_chart(failed: Sequence[tuple[int, str, int]], last_round: int) -> BarChart:
    """Failed tasks (round, kind, number) by round and kind; many rounds are gathered in groups."""
    size = max(1, -(-last_round // 60))
    first = min((number for number, *_ in failed), default=1)
    groups = list(range(min(first, 1), last_round + 1, size))
    series = {kind: [0.0] * len(groups) for _, kind, _ in failed}
    for round_number, kind, count in failed:
        series[kind][min((round_number - groups[0]) // size, len(groups) - 1)] += count
    x = Axis("round" if size == 1 else f"round (groups of {size})")
    labels = [str(group) for group in groups]
    return BarChart(title="Failed tasks", labels=labels, series=series, stacked=True, x=x, y=Axis("", "whole"))


def clients_chart(values: Iterable[Number], metric: str, round_number: int) -> Chart:
    """How the clients' values of one metric are distributed."""
    return histogram(list(values), title=f"Clients by {metric}, round {round_number}", x=Axis(metric))


def compared_chart(metric: str, curves: Sequence[Curve], *, x: Axis = ROUND, log: bool = False) -> LineChart:
    """A metric of several runs."""
    return LineChart(title=f"{metric} by {x.label}", curves=curves, x=x, y=Axis(metric, log=log))


def matrix_chart(title: str, values: Sequence[Sequence[Number]]) -> HeatMap:
    """A list of lists of numbers, such as a confusion matrix; short lines end with gaps."""
    width = max(map(len, values), default=0)
    lines = [[*line, *[None] * (width - len(line))] for line in values]
    names = [str(number) for number in range(max(len(values), width))]
    return HeatMap(title=title, rows=names[: len(values)], columns=names[:width], values=lines)


class Step(NamedTuple):
    """A model of a trail."""

    model_id: str
    parent_id: str | None
    round_number: int
    num_contributors: int
    branch: str = ""


def trail_chart(models: Sequence[Step], *, title: str = "Model trail") -> TreeChart:
    """From the seed model to the newest ones. Of a long line of models the first and the last two are drawn."""
    known = {model.model_id for model in models}
    children: dict[str | None, list[Step]] = {}
    for model in models:
        children.setdefault(model.parent_id if model.parent_id in known else None, []).append(model)
    nodes: list[Node] = []
    left: list[tuple[Step, str | None]] = [(model, None) for model in reversed(children.get(None, []))]
    while left:
        line = [left[-1][0]]
        above = left.pop()[1]
        while len(below := children.get(line[-1].model_id, [])) == 1:
            line.append(below[0])
        above = _draw_line(line, above, nodes)
        left += [(model, above) for model in reversed(children.get(line[-1].model_id, []))]
    return TreeChart(title=title, nodes=nodes)


def _draw_line(line: Sequence[Step], above: str | None, nodes: list[Node]) -> str:
    """Models of which each was made from the one before; returns the name of the last node."""
    ends = line if len(line) <= 5 else [*line[:2], *line[-2:]]
    for model in ends:
        if len(ends) < len(line) and model is ends[2]:
            nodes.append(Node(f"… {line[2].model_id}", above, "…", f"{len(line) - 4} more"))
            above = nodes[-1].name
        count = model.num_contributors
        label = f"round {model.round_number}" if model.round_number else "seed model"
        label += f", {model.branch}" if model.branch else ""
        nodes.append(Node(model.model_id, above, label, f"{count} client{'s' * (count != 1)}" if count else ""))
        above = model.model_id
    return above or ""
