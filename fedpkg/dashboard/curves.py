"""Charts of the read API's answers: which metrics, over which axis, with which clients, as the page's address says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedpkg.api.clients import Past, list_clients
from fedpkg.api.comparing import Overlay
from fedpkg.api.metrics import Axis, Curves, Series
from fedpkg.api.models import Model
from fedpkg.api.rounds import Round
from fedpkg.api.sweeps import HeatMap as Cells
from fedpkg.api.tasks import FailureKind, Task
from fedpkg.api.topology import Combiner, combiner_rounds
from fedpkg.api.topology import Dendrogram as Merges
from fedpkg.api.values import Lines, client_lines
from fedpkg.controller.metrics import finite_number
from fedpkg.dashboard.asked import Asked
from fedpkg.pictures.chart import Axis as ChartAxis
from fedpkg.pictures.chart import BarChart, Chart, Curve, Dendrogram, HeatMap, LineChart, TreeChart
from fedpkg.reporting.charts import (
    AXES,
    PHASES,
    Measure,
    Step,
    bytes_chart,
    compared_chart,
    failure_chart,
    matrix_chart,
    metric_chart,
    phases_chart,
    seconds_chart,
    trail_chart,
)
from fedpkg.strategies.base import ROOT
from fedpkg.topology.telling import Told
from fedpkg.topology.telling import chart_of as chart_of_tree
from fedpkg.types import Json

MOST_LINES = 100  # clients whose own lines are drawn at once
MOST_COMBINERS = 16  # that have curves
MOST_COMBINED = 6  # metrics of combiners
MOST_OF_CLIENT = 4  # metrics on the page of one client
MOST_CHOSEN = 8  # clients that the address names


@dataclass(frozen=True)
class View:
    """How curves are drawn: over rounds, bytes, seconds …, on a linear or a logarithmic axis."""

    axis: Axis = "round"
    is_log: bool = False

    @classmethod
    def of(cls, asked: Asked) -> View:
        """The choice in the address; anything unknown is the usual one."""
        axes: dict[str, Axis] = {name: name for name in AXES}  # type: ignore[misc]
        return cls(axes.get(asked.get("x"), "round"), asked.get("log") == "1")

    @property
    def query(self) -> dict[str, str | None]:
        """What an address needs for this view."""
        return {"x": None if self.axis == "round" else self.axis, "log": "1" if self.is_log else None}

    @property
    def choices(self) -> list[tuple[str, str]]:
        return [(name, axis.label) for name, axis in AXES.items()]


def measure(series: Series) -> Measure:
    deciles = [one or None for one in series.deciles]
    return Measure(series.phase, series.x, series.weighted_mean, series.min, series.max, deciles)


def chart_of(curves: Curves, metric: str, view: View, lines: Lines | None = None, total: int = 0) -> LineChart:
    """A metric in each phase that has it, with the lines of clients behind it if there are any."""
    phases = [one.phase for one in curves.names() if one.metric == metric]
    told = [measure(curves.series(metric, phase, view.axis)) for phase in phases]
    faint = [Curve(one.client_id, one.x, one.values) for one in lines.lines] if lines is not None else []
    of = f"{len(faint)} of {total} clients" if len(faint) < total else f"{len(faint)} clients"
    return metric_chart(metric, told, x=AXES[view.axis], log=view.is_log, faint=faint, faint_name=of if faint else "")


def lines_of(asked: Asked, curves: Curves, metric: str, phase: str, view: View, clients: Sequence[str]) -> Lines:
    return client_lines(asked.at, curves.session.session_id, metric, list(clients), phase=phase, axis=view.axis)


def some_clients(asked: Asked, session_id: str) -> tuple[list[str], int]:
    """Clients whose lines stand for all: evenly spaced in their order; and how many the session has."""
    found = [one.client_id for one in list_clients(asked.at, session_id, limit=1000).items]
    step = max(1, -(-len(found) // MOST_LINES))
    return found[::step], len(found)


def cost_charts(rounds: Sequence[Round]) -> Iterator[tuple[str, Chart]]:
    """Bytes, seconds and phases by round."""
    numbers = [one.round_number for one in rounds]
    yield "bytes", bytes_chart(numbers, [one.bytes_down for one in rounds], [one.bytes_up for one in rounds])
    ended = [one for one in rounds if one.seconds is not None]
    numbers = [one.round_number for one in ended]
    yield "seconds", seconds_chart(numbers, [one.seconds for one in ended])
    if any(one.phases for one in ended):
        yield "phases", phases_chart(numbers, [one.phases for one in ended])


def overlay_chart(found: Overlay, metric: str, view: View) -> LineChart:
    """One metric of several sessions over each other."""
    curves = [Curve(one.session_id, one.x, one.weighted_mean) for one in found.series]
    return compared_chart(metric, curves, x=AXES[view.axis], log=view.is_log)


def sweep_chart(found: Cells, value: str) -> HeatMap:
    """What a sweep reached over two of its keys."""
    rows, columns = ([one if isinstance(one, str) else json.dumps(one) for one in keys] for keys in (found.y, found.x))
    return HeatMap(
        title=f"{found.metric}: {value}",
        rows=rows,
        columns=columns,
        values=found.values,
        x=ChartAxis(found.x_key),
        y=ChartAxis(found.y_key),
        value=ChartAxis(found.metric),
        from_zero=False,
    )


def trail_of_models(models: Sequence[Model]) -> TreeChart:
    """The models of a session, each below the one that it was made from."""
    steps = []
    for one in models:
        above = one.parents[0] if one.parents else None
        steps.append(Step(one.model_id, above, one.round_number, one.num_contributors, one.cluster))
    return trail_chart(steps)


def tree_chart(combiners: Sequence[Combiner]) -> TreeChart:
    """The combiners of a session with their weights and failures, and the clients below them."""
    told = [
        Told(one.path, one.depth, one.strategy or "", one.rounds, 0, len(one.clients), tuple(one.clients))
        for one in combiners
    ]
    notes = {}
    for one in combiners:
        weight = f"weight {one.weight:.3g}" if one.weight is not None else ""
        failed = f"failed in {one.failed} rounds" if one.failed else ""
        notes[one.path] = ", ".join(filter(None, [weight, failed]))
    return chart_of_tree(told, notes=notes)


def dendrogram_chart(found: Merges) -> Dendrogram:
    """How clusters of clients were found."""
    x, merges = ChartAxis(found.distance), found.merges
    title = "Clusters of clients"
    return Dendrogram(title=title, labels=found.clients, groups=found.clusters, merges=merges, x=x)


def clusters_chart(asked: Asked, session_id: str, metric: str, view: View, paths: Sequence[str]) -> LineChart:
    """A metric, a curve for each cluster of clients."""
    curves = []
    for path in paths[:MOST_COMBINERS]:
        own = Curves(asked.at, session_id, cluster=path)
        phase = next((one.phase for one in own.names() if one.metric == metric), None)
        if phase is not None:
            found = own.series(metric, phase, view.axis)
            curves.append(Curve(path, found.x, found.weighted_mean))
    return compared_chart(metric, curves, x=AXES[view.axis], log=view.is_log)


def combiner_charts(asked: Asked, session_id: str, combiners: Sequence[Combiner]) -> Iterator[tuple[str, LineChart]]:
    """Each metric by round, a curve for each combiner: what the clients below it report of their training."""
    found: dict[str, list[Curve]] = {}
    for one in combiners[:MOST_COMBINERS]:
        rows = combiner_rounds(asked.at, session_id, one.path) if one.rounds else []
        for metric in dict.fromkeys(name for row in rows for name in row.metrics):
            ys = [finite_number(row.metrics.get(metric)) for row in rows]
            if any(y is not None for y in ys):
                curve = Curve(one.path or ROOT, [row.round_number for row in rows], ys)
                found.setdefault(metric, []).append(curve)
    for number, (metric, curves) in enumerate(list(found.items())[:MOST_COMBINED]):
        yield f"metric-{number}", compared_chart(metric, curves)


def matrix_of(name: str, value: Json) -> HeatMap | None:
    """A list of lists of numbers as a heat map; None: it is something else."""
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(line, list) and line for line in value):
        return None
    cells = [cell for line in value if isinstance(line, list) for cell in line]
    is_number = all(cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool)) for cell in cells)
    return matrix_chart(name, value) if is_number else None  # type: ignore[arg-type]


def failure_kinds_chart(kinds: Sequence[FailureKind], last_round: int) -> BarChart:
    """Failed tasks by round and kind."""
    told = [(number, one.kind, count) for one in kinds for number, count in one.by_round]
    return failure_chart(told, max(last_round, 1))


def client_charts(asked: Asked, curves: Curves, client_id: str) -> Iterator[tuple[str, LineChart]]:
    """The first metrics of one client, beside the mean of all."""
    names = [one for one in curves.names() if one.phase != "strategy"]
    for number, one in enumerate(names[:MOST_OF_CLIENT]):
        own = lines_of(asked, curves, one.metric, one.phase, View(), [client_id]).lines[0]
        told = curves.series(one.metric, one.phase, "round")
        lines = [Curve(client_id, own.x, own.values), Curve("mean of all clients", told.x, told.weighted_mean)]
        title = one.metric if one.phase == "validate" else f"{one.metric} ({PHASES.get(one.phase, one.phase)})"
        yield f"metric-{number}", LineChart(title=title, curves=lines, x=AXES["round"])


def tasks_chart(tasks: Sequence[Task]) -> LineChart:
    """The seconds of a client's tasks by round, a curve for each entry point."""
    found: dict[str, dict[int, float]] = {}
    for one in sorted(tasks, key=lambda one: (one.round_number, one.started_at)):
        found.setdefault(one.entry_point, {})[one.round_number] = one.seconds
    curves = [Curve(name, list(seconds), list(seconds.values())) for name, seconds in found.items()]
    return LineChart(title="Seconds of its tasks", curves=curves, x=AXES["round"])


def history_chart(client_id: str, past: Sequence[Past]) -> BarChart | None:
    """What a client reached in each of its sessions, in the metric that most of them have; None: they have none."""
    told = [one.validation_metrics or one.train_metrics for one in past]
    counts = Counter(name for one in told for name in one)
    if not counts:
        return None
    metric = counts.most_common(1)[0][0]
    known = [(one.session_id, values[metric]) for one, values in zip(past, told, strict=True) if metric in values]
    title, series = f"Last {metric} in each session", {client_id: [value for _, value in known]}
    return BarChart(title=title, labels=[name for name, _ in known], series=series, x=ChartAxis("session"))
